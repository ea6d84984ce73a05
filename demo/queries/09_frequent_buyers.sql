-- Who ordered at least three times within one month?
SELECT o.o_custkey, c.c_name, count(*) AS orders, sum(o.o_totalprice) AS spent
FROM orders o
JOIN customer c ON c.c_custkey = o.o_custkey
WHERE o.o_orderdate BETWEEN date '1997-05-01' AND date '1997-05-31'
GROUP BY o.o_custkey, c.c_name
HAVING count(*) >= 3
ORDER BY orders DESC, spent DESC;
