-- What else is in the baskets that contain one given part?
SELECT other.l_partkey, p.p_name, count(*) AS baskets
FROM lineitem this
JOIN lineitem other ON other.l_orderkey = this.l_orderkey AND other.l_partkey <> this.l_partkey
JOIN part p ON p.p_partkey = other.l_partkey
WHERE this.l_partkey = 4711
GROUP BY other.l_partkey, p.p_name
ORDER BY baskets DESC, other.l_partkey
LIMIT 20;
