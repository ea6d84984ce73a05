-- Which fifty orders of the whole history were the largest, and who placed them?
SELECT o.o_orderkey, o.o_orderdate, o.o_totalprice, c.c_name, n.n_name
FROM orders o
JOIN customer c ON c.c_custkey = o.o_custkey
JOIN nation n ON n.n_nationkey = c.c_nationkey
ORDER BY o.o_totalprice DESC
LIMIT 50;
