-- Of a dozen urgent orders of one day, how many had something sent by air?
SELECT EXISTS (SELECT FROM lineitem l WHERE l.l_orderkey = o.o_orderkey AND l.l_shipmode IN ('AIR', 'REG AIR')) AS by_air,
       count(*) AS orders
FROM (SELECT o_orderkey FROM orders
      WHERE o_orderdate = date '1995-11-20' AND o_orderpriority = '1-URGENT'
      ORDER BY o_orderkey LIMIT 12) o
GROUP BY by_air;
