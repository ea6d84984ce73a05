-- What did two clerks handle, year by year?
SELECT o_clerk, extract(year FROM o_orderdate) AS year, count(*) AS orders, sum(o_totalprice) AS value
FROM orders
WHERE o_clerk IN ('Clerk#000000017', 'Clerk#000000118')
GROUP BY o_clerk, year
ORDER BY o_clerk, year;
