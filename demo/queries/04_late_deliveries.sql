-- Which Kenyan suppliers delivered most lines later than promised in one week of 1997?
SELECT s.s_name, count(*) AS late_lines, avg(l.l_receiptdate - l.l_commitdate) AS mean_delay_days
FROM supplier s
JOIN nation n ON n.n_nationkey = s.s_nationkey
JOIN lineitem l ON l.l_suppkey = s.s_suppkey
WHERE n.n_name = 'KENYA'
  AND l.l_receiptdate BETWEEN date '1997-03-03' AND date '1997-03-09'
  AND l.l_receiptdate > l.l_commitdate
GROUP BY s.s_name
ORDER BY late_lines DESC, s.s_name
LIMIT 20;
