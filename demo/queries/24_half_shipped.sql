-- Which half-shipped orders of one fortnight still wait for the largest value?
SELECT o.o_orderkey, o.o_orderpriority, sum(l.l_extendedprice) AS open_value
FROM orders o
JOIN lineitem l ON l.l_orderkey = o.o_orderkey
WHERE o.o_orderstatus = 'P' AND o.o_orderdate BETWEEN date '1995-04-01' AND date '1995-04-14' AND l.l_linestatus = 'O'
GROUP BY o.o_orderkey, o.o_orderpriority
ORDER BY open_value DESC
LIMIT 30;
