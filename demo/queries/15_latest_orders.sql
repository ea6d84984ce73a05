-- What were the three latest orders of each of the eight customers with the highest balances?
SELECT c.c_name, recent.o_orderkey, recent.o_orderdate, recent.o_totalprice
FROM (SELECT c_custkey, c_name FROM customer ORDER BY c_acctbal DESC, c_custkey LIMIT 8) c
CROSS JOIN LATERAL (SELECT o_orderkey, o_orderdate, o_totalprice FROM orders o
                    WHERE o.o_custkey = c.c_custkey ORDER BY o.o_orderdate DESC LIMIT 3) recent
ORDER BY c.c_name, recent.o_orderdate DESC;
