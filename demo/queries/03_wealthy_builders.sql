-- What did the building trade's best-funded customers in Germany buy in the summer of 1995, line by line?
SELECT c.c_name, o.o_orderdate, l.l_linenumber, l.l_quantity, l.l_extendedprice
FROM customer c
JOIN nation n ON n.n_nationkey = c.c_nationkey
JOIN orders o ON o.o_custkey = c.c_custkey
JOIN lineitem l ON l.l_orderkey = o.o_orderkey
WHERE n.n_name = 'GERMANY'
  AND c.c_mktsegment = 'BUILDING'
  AND c.c_acctbal > 8500
  AND o.o_orderdate BETWEEN date '1995-06-01' AND date '1995-08-31'
ORDER BY c.c_name, o.o_orderdate, l.l_linenumber;
