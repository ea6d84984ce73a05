-- Estimates: figures are compared by size, texts as they are.
\pset expanded on
-- what building takes: both ways, nothing is built
SELECT way, table_name, estimated_bytes BETWEEN 1000000 AND 3000000 AS about_two_mb, build_seconds BETWEEN 0.02 AND 5 AS quick, temp_bytes, free_bytes > 0 AS room,
       lock_mode, blocks, waits_for ~ '^(every transaction|transactions that wrote)' AS waits, calibration
  FROM indexpilot.estimate_build_cost('CREATE INDEX ON shop.orders (customer_id)');
\pset expanded off
SET maintenance_work_mem = '1MB';
SELECT way, temp_bytes > 1000000 AS sorts_on_disk FROM indexpilot.estimate_build_cost('CREATE INDEX ON shop.orders (customer_id)');
RESET maintenance_work_mem;
SELECT count(*) AS indexes FROM pg_index WHERE indrelid = 'shop.orders'::regclass;
SELECT * FROM indexpilot.estimate_build_cost('CREATE INDEX ON shop.no_such_table (a)');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.estimate_build_cost('SELECT 1');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) AS rows FROM indexpilot.estimate_build_cost(NULL);

-- what a query costs without an index that exists
SELECT cost_without > 100 * cost_with AS much_dearer, index_used, indexes_instead, enforces, plan_with ~ 'orders_pkey' AS used_before, plan_without ~ 'Seq Scan' AS scans,
       plan_difference ~ '(?n)^-.*orders_pkey' AND plan_difference ~ '(?n)^\+.*Seq Scan' AS difference
  FROM indexpilot.estimate_query_cost_without_index('SELECT * FROM shop.orders WHERE id = 42', 'shop.orders_pkey');
SELECT cost_without = cost_with AS same, index_used, plan_with = plan_without AS same_plan
  FROM indexpilot.estimate_query_cost_without_index('SELECT count(*) FROM shop.orders', 'shop.customers_pkey');
-- parameters stay parameters, and one that is NULL is no mistake
SELECT cost_without > 100 * cost_with AS much_dearer FROM indexpilot.estimate_query_cost_without_index('SELECT * FROM shop.orders WHERE id = $1', 'shop.orders_pkey');
SELECT cost_with, index_used FROM indexpilot.estimate_query_cost_without_index('SELECT * FROM shop.orders WHERE id = NULL', 'shop.orders_pkey');
-- an index of partitions is taken away from all of them
CREATE TABLE shop.visits (id int, day int) PARTITION BY RANGE (day);
CREATE TABLE shop.visits_1 PARTITION OF shop.visits FOR VALUES FROM (0) TO (100);
CREATE TABLE shop.visits_2 PARTITION OF shop.visits FOR VALUES FROM (100) TO (200);
INSERT INTO shop.visits SELECT i, i % 200 FROM generate_series(1, 20000) i;
CREATE INDEX visits_id ON shop.visits (id);
VACUUM ANALYZE shop.visits;
SELECT index_used, cost_without > 10 * cost_with AS much_dearer, plan_without !~ 'Index' AS all_gone
  FROM indexpilot.estimate_query_cost_without_index('SELECT * FROM shop.visits WHERE id = 7', 'shop.visits_id');
DROP TABLE shop.visits;
SELECT * FROM indexpilot.estimate_query_cost_without_index('SELECT 1', 'shop.orders');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.estimate_query_cost_without_index('SELECT colour FROM shop.orders', 'shop.orders_pkey');
\echo :LAST_ERROR_SQLSTATE

-- how selective a condition is
SELECT selectivity BETWEEN 0.22 AND 0.28 AS a_quarter, estimated_rows = selectivity * table_rows AS rows, table_rows, distinct_values, null_share, condition, based_on
  FROM indexpilot.get_field_selectivity('shop.orders', 'status', 'open');
SELECT round(selectivity::numeric, 2) AS selectivity, condition FROM indexpilot.get_field_selectivity('shop.orders', 'tenant_id');
SELECT selectivity BETWEEN 0.22 AND 0.28 AS a_quarter, condition FROM indexpilot.get_field_selectivity('shop.orders', 'total', '25', '<');
SELECT round(selectivity::numeric, 2) AS selectivity, round(null_share::numeric, 2) AS nulls, condition FROM indexpilot.get_field_selectivity('shop.customers', 'nickname', NULL, 'is  null');
SELECT round(selectivity::numeric, 2) AS selectivity, condition FROM indexpilot.get_field_selectivity('shop.customers', 'nickname', operator => 'IS NOT NULL');
SELECT selectivity > 0 AND selectivity < 0.2 AS few, condition FROM indexpilot.get_field_selectivity('shop.customers', 'email', 'user77%', 'LIKE');
CREATE TABLE shop.fresh (a int);
SELECT selectivity, based_on FROM indexpilot.get_field_selectivity('shop.fresh', 'a', '1');
DROP TABLE shop.fresh;
SELECT * FROM indexpilot.get_field_selectivity('shop.orders', 'colour');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.get_field_selectivity('shop.orders_pkey', 'id');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.get_field_selectivity(NULL, 'id');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.get_field_selectivity('shop.orders', 'id', 'many');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.get_field_selectivity('shop.orders', 'id', '1', '= 1 OR id >');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.get_field_selectivity('shop.orders', 'id', '1', '/*');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.get_field_selectivity('shop.orders', 'id', '1', '&&');
\echo :LAST_ERROR_SQLSTATE
-- statistics are only for those who may read the table
CREATE ROLE regress_indexpilot_reader;
GRANT USAGE ON SCHEMA indexpilot, shop TO regress_indexpilot_reader;
GRANT EXECUTE ON FUNCTION indexpilot.get_field_selectivity(regclass, name, text, text) TO regress_indexpilot_reader;
SET ROLE regress_indexpilot_reader;
SELECT * FROM indexpilot.get_field_selectivity('shop.orders', 'status', 'open');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.estimate_build_cost('CREATE INDEX ON shop.orders (id)');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
-- nor for those from whom policies hide rows of it
CREATE TABLE shop.secrets (id int, owner text);
INSERT INTO shop.secrets SELECT i, 'role ' || i % 4 FROM generate_series(1, 100) i;
ANALYZE shop.secrets;
ALTER TABLE shop.secrets ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.secrets USING (owner = current_user);
GRANT SELECT ON shop.secrets TO regress_indexpilot_reader;
SELECT selectivity FROM indexpilot.get_field_selectivity('shop.secrets', 'owner', 'role 1');
SET ROLE regress_indexpilot_reader;
SELECT * FROM indexpilot.get_field_selectivity('shop.secrets', 'owner', 'role 1');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
DROP TABLE shop.secrets;
DROP OWNED BY regress_indexpilot_reader;
DROP ROLE regress_indexpilot_reader;

-- how planning goes
SELECT name, value BETWEEN 0 AND 1 AS share FROM indexpilot.get_explain_usage_stats() WHERE name ~ 'coverage|rate';
