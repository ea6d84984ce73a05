-- Which offers for small brass parts cost more than one and a half times the mean of all offers for the same part?
SELECT p.p_partkey, ps.ps_suppkey, ps.ps_supplycost, mean.cost
FROM part p
JOIN partsupp ps ON ps.ps_partkey = p.p_partkey
JOIN (SELECT ps_partkey, avg(ps_supplycost) AS cost FROM partsupp GROUP BY ps_partkey) mean ON mean.ps_partkey = p.p_partkey
WHERE p.p_size = 3 AND p.p_type LIKE 'SMALL % BRASS' AND ps.ps_supplycost > 1.5 * mean.cost
ORDER BY ps.ps_supplycost DESC;
