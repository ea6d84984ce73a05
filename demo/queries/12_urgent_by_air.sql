-- How many urgent orders of each day of one week had something sent by air?
SELECT o.o_orderdate, count(*) AS orders
FROM orders o
WHERE o.o_orderdate BETWEEN date '1995-11-20' AND date '1995-11-26'
  AND o.o_orderpriority = '1-URGENT'
  AND EXISTS (SELECT FROM lineitem l WHERE l.l_orderkey = o.o_orderkey AND l.l_shipmode IN ('AIR', 'REG AIR'))
GROUP BY o.o_orderdate
ORDER BY o.o_orderdate;
