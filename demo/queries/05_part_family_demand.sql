-- How did demand for one family of parts develop over the years?
SELECT extract(year FROM l.l_shipdate) AS year, count(*) AS lines, sum(l.l_quantity) AS pieces,
       sum(l.l_extendedprice * (1 - l.l_discount)) AS revenue
FROM part p
JOIN lineitem l ON l.l_partkey = p.p_partkey
WHERE p.p_brand = 'Brand#34' AND p.p_container = 'LG CASE' AND p.p_size BETWEEN 10 AND 25
GROUP BY year
ORDER BY year;
