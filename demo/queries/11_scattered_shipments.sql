-- Which orders of one day were shipped over a span of more than three months?
SELECT o.o_orderkey, min(l.l_shipdate) AS first_shipment, max(l.l_shipdate) AS last_shipment
FROM orders o
JOIN lineitem l ON l.l_orderkey = o.o_orderkey
WHERE o.o_orderdate = date '1996-10-15'
GROUP BY o.o_orderkey
HAVING max(l.l_shipdate) - min(l.l_shipdate) > 90
ORDER BY o.o_orderkey;
