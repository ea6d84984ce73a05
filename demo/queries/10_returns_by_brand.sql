-- Which brands came back most often among the goods received on two days?
SELECT p.p_brand, count(*) FILTER (WHERE l.l_returnflag = 'R') AS returned, count(*) AS received
FROM lineitem l
JOIN part p ON p.p_partkey = l.l_partkey
WHERE l.l_receiptdate IN (date '1994-04-11', date '1994-04-12')
GROUP BY p.p_brand
ORDER BY returned DESC, p.p_brand
LIMIT 10;
