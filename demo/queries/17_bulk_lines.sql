-- Which suppliers served the bulk lines (fifty pieces) shipped in one week, and where do they sit?
SELECT n.n_name, s.s_name, count(*) AS bulk_lines
FROM lineitem l
JOIN supplier s ON s.s_suppkey = l.l_suppkey
JOIN nation n ON n.n_nationkey = s.s_nationkey
WHERE l.l_quantity = 50 AND l.l_shipdate BETWEEN date '1998-02-02' AND date '1998-02-08'
GROUP BY n.n_name, s.s_name
ORDER BY bulk_lines DESC, s.s_name
LIMIT 25;
