-- What do six given orders consist of?
SELECT l.l_orderkey, l.l_linenumber, p.p_name, s.s_name, l.l_quantity, l.l_extendedprice
FROM lineitem l
JOIN part p ON p.p_partkey = l.l_partkey
JOIN supplier s ON s.s_suppkey = l.l_suppkey
WHERE l.l_orderkey IN (1, 1031, 40005, 200097, 600166, 900001)
ORDER BY l.l_orderkey, l.l_linenumber;
