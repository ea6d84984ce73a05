-- Who offers each tin part of one size at the lowest price?
SELECT DISTINCT ON (p.p_partkey) p.p_partkey, p.p_name, s.s_name, ps.ps_supplycost
FROM part p
JOIN partsupp ps ON ps.ps_partkey = p.p_partkey
JOIN supplier s ON s.s_suppkey = ps.ps_suppkey
WHERE p.p_size = 23 AND p.p_type LIKE '%TIN'
ORDER BY p.p_partkey, ps.ps_supplycost, s.s_name;
