-- What did Brazilian customers buy from French suppliers in the first week of each order month of early 1994?
SELECT date_trunc('month', o.o_orderdate) AS month, count(*) AS lines, sum(l.l_extendedprice * (1 - l.l_discount)) AS revenue
FROM orders o
JOIN customer c ON c.c_custkey = o.o_custkey
JOIN nation buyer ON buyer.n_nationkey = c.c_nationkey AND buyer.n_name = 'BRAZIL'
JOIN lineitem l ON l.l_orderkey = o.o_orderkey
JOIN supplier s ON s.s_suppkey = l.l_suppkey
JOIN nation seller ON seller.n_nationkey = s.s_nationkey AND seller.n_name = 'FRANCE'
WHERE o.o_orderdate BETWEEN date '1994-01-01' AND date '1994-03-31'
  AND extract(day FROM o.o_orderdate) <= 7
GROUP BY month
ORDER BY month;
