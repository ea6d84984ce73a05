-- How are the customers' balances spread over the nations and segments?
SELECT n.n_name, c.c_mktsegment, count(*) AS customers, sum(c.c_acctbal) AS balance,
       count(*) FILTER (WHERE c.c_acctbal < 0) AS in_debt
FROM customer c
JOIN nation n ON n.n_nationkey = c.c_nationkey
GROUP BY n.n_name, c.c_mktsegment
ORDER BY balance DESC;
