-- Which customers with a large credit balance have ordered nothing in 1998?
SELECT c.c_custkey, c.c_name, c.c_phone, c.c_acctbal
FROM customer c
WHERE c.c_acctbal > 9950
  AND EXISTS (SELECT FROM orders o WHERE o.o_custkey = c.c_custkey)
  AND NOT EXISTS (SELECT FROM orders o WHERE o.o_custkey = c.c_custkey AND o.o_orderdate >= date '1998-01-01')
ORDER BY c.c_acctbal DESC;
