-- How did order value in Asia grow from month to month, and what did it add up to?
SELECT month, value, value - lag(value) OVER (ORDER BY month) AS change, sum(value) OVER (ORDER BY month) AS so_far
FROM (SELECT date_trunc('month', o.o_orderdate) AS month, sum(o.o_totalprice) AS value
      FROM orders o
      JOIN customer c ON c.c_custkey = o.o_custkey
      JOIN nation n ON n.n_nationkey = c.c_nationkey
      JOIN region r ON r.r_regionkey = n.n_regionkey
      WHERE r.r_name = 'ASIA' AND o.o_orderdate >= date '1997-01-01'
      GROUP BY month) monthly
ORDER BY month;
