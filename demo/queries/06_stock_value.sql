-- In which parts do Canadian suppliers tie up most money?
SELECT ps.ps_partkey, p.p_name, sum(ps.ps_availqty * ps.ps_supplycost) AS value
FROM nation n
JOIN supplier s ON s.s_nationkey = n.n_nationkey
JOIN partsupp ps ON ps.ps_suppkey = s.s_suppkey
JOIN part p ON p.p_partkey = ps.ps_partkey
WHERE n.n_name = 'CANADA' AND s.s_acctbal > 5000
GROUP BY ps.ps_partkey, p.p_name
ORDER BY value DESC
LIMIT 20;
