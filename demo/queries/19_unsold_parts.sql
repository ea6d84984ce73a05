-- Which jumbo packs of one brand has nobody ordered in the second half of 1997?
SELECT p.p_partkey, p.p_name, p.p_retailprice
FROM part p
WHERE p.p_brand = 'Brand#15' AND p.p_container = 'JUMBO PACK'
  AND NOT EXISTS (SELECT FROM lineitem l
                  WHERE l.l_partkey = p.p_partkey AND l.l_shipdate BETWEEN date '1997-07-01' AND date '1997-12-31')
ORDER BY p.p_retailprice DESC;
