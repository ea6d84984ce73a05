-- Did customers take more pieces where the discount was higher, over three days of shipments?
SELECT l_discount, count(*) AS lines, avg(l_quantity) AS pieces, sum(l_extendedprice) AS gross
FROM lineitem
WHERE l_shipdate BETWEEN date '1993-09-06' AND date '1993-09-08'
GROUP BY l_discount
ORDER BY l_discount;
