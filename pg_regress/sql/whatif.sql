-- What-if: indexes that do not exist, and ones that do but are hidden. Plans are compared by shape, costs by order.
SELECT cost_after < cost_before / 10 AS much_cheaper, indexes_used, estimated_bytes BETWEEN 1000000 AND 3000000 AS about_two_mb
  FROM indexpilot.what_if('SELECT * FROM shop.orders WHERE customer_id = 42', ARRAY['CREATE INDEX ON shop.orders (customer_id)']);
SELECT plan_before ~ 'Seq Scan' AS scanned_before, plan_after ~ 'hypothetical' AS index_after
  FROM indexpilot.what_if('SELECT * FROM shop.orders WHERE customer_id = 42', ARRAY['CREATE INDEX ON shop.orders (customer_id)']);
-- order and limit, in both directions
SELECT cost_after < cost_before / 10 AS much_cheaper, plan_after ~ 'Sort' AS sorts
  FROM indexpilot.what_if('SELECT * FROM shop.orders WHERE tenant_id = 3 ORDER BY placed_at DESC LIMIT 5',
                          ARRAY['CREATE INDEX ON shop.orders (tenant_id, placed_at)']);
-- covering: no heap
SELECT plan_after ~ 'Index Only Scan' AS index_only
  FROM indexpilot.what_if('SELECT status FROM shop.orders WHERE customer_id = 42',
                          ARRAY['CREATE INDEX ON shop.orders (customer_id) INCLUDE (status)']);
-- hiding the primary key makes its query slow, for this call only
SELECT cost_after > cost_before * 10 AS much_dearer, plan_after ~ 'Seq Scan' AS scans
  FROM indexpilot.what_if('SELECT * FROM shop.orders WHERE id = 42', '{}', ARRAY['shop.orders_pkey'::regclass]);
EXPLAIN (COSTS OFF) SELECT * FROM shop.orders WHERE id = 42;
-- an error inside leaves nothing behind
SELECT * FROM indexpilot.what_if('SELECT 1/0 FROM shop.orders WHERE customer_id = 1', ARRAY['CREATE INDEX ON shop.orders (customer_id)']);
EXPLAIN (COSTS OFF) SELECT * FROM shop.orders WHERE customer_id = 42;
SELECT count(*) AS indexes FROM pg_index WHERE indrelid = 'shop.orders'::regclass;
-- every form of index that the server can build; the primary key is hidden, so that it does not serve
SELECT form, indexes_used
  FROM (VALUES (1, '(lower(status), id)', 'lower(status) = ''x'''),
               (2, '(id) WHERE status = ''new''', 'status = ''new'' AND id < 100'),
               (3, 'USING hash (customer_id)', 'customer_id = 42'),
               (4, 'USING brin (id)', 'id + 0 > 0 AND id < 100'),
               (5, 'USING gin (to_tsvector(''simple'', status))', 'to_tsvector(''simple'', status) @@ ''x'''),
               (6, '(status text_pattern_ops)', 'status LIKE ''xyz%''')) AS v (n, form, condition),
       indexpilot.what_if('SELECT * FROM shop.orders WHERE ' || condition, ARRAY['CREATE INDEX ON shop.orders ' || form],
                          ARRAY['shop.orders_pkey'::regclass])
 ORDER BY n;
