-- What did each way of shipping bring in, month by month, in 1996?
SELECT date_trunc('month', l_shipdate) AS month, l_shipmode, count(*) AS lines,
       sum(l_extendedprice * (1 - l_discount)) AS revenue
FROM lineitem
WHERE l_shipdate BETWEEN date '1996-01-01' AND date '1996-12-31'
GROUP BY month, l_shipmode
ORDER BY month, revenue DESC;
