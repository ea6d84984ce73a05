-- What the workload does to tables and fields, and where its statements name their tenant.
SET timezone = 'UTC';
CREATE SCHEMA use;
CREATE TABLE use.tickets (tenant_id int NOT NULL, id int NOT NULL, state text NOT NULL, title text, weight int, closed_at timestamptz, PRIMARY KEY (tenant_id, id));
CREATE TABLE use.log (tenant_id int, what text);
INSERT INTO use.tickets SELECT i % 20, i, (ARRAY['open', 'done'])[1 + i % 2], 'ticket ' || i, i % 100 FROM generate_series(1, 10000) i;
VACUUM (ANALYZE) use.tickets;
SELECT indexpilot.bootstrap_genome_catalog() > 0 AS fields;
SELECT indexpilot.capture_reset();
SET indexpilot.tenant_id = 'a';
PREPARE one (int, int) AS SELECT title FROM use.tickets WHERE tenant_id = $1 AND id = $2;
EXECUTE one (1, 1);
EXECUTE one (2, 2);
SELECT count(*) AS found FROM use.tickets WHERE state = 'open' AND tenant_id = 3 AND title LIKE 'ticket 4%';
SELECT count(*) AS found FROM use.tickets WHERE state = 'done' AND tenant_id = 4 AND title LIKE 'ticket 1%';
SET indexpilot.tenant_id = 'b';
SELECT state, sum(weight) AS weight FROM use.tickets WHERE weight BETWEEN 10 AND 19 GROUP BY state ORDER BY state;
UPDATE use.tickets SET state = 'done', closed_at = '2024-01-01' WHERE tenant_id = 5 AND id <= 105;
INSERT INTO use.tickets VALUES (1, 1, 'open') ON CONFLICT (tenant_id, id) DO UPDATE SET weight = excluded.weight;
INSERT INTO use.log SELECT tenant_id, title FROM use.tickets WHERE id IN (1, 2, 3);
RESET indexpilot.tenant_id;
DELETE FROM use.log WHERE what = 'nothing';
-- a template that cannot be planned again
CREATE TABLE use.gone (id int);
SELECT * FROM use.gone WHERE id = 1;
DROP TABLE use.gone;
SELECT indexpilot.capture_flush() > 0 AS flushed;
-- before the profile, only templates on one table are known to write
SELECT table_name, tenant_id, reads, writes, rows_returned, rows_written FROM indexpilot.table_usage
 WHERE table_name::text LIKE 'use.%' ORDER BY table_name::text COLLATE "C", tenant_id COLLATE "C";
SELECT count(*) AS decisions FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['use.log'::regclass]);
SELECT p.planned = p.samples AS planned, p.failure, p.tenant_source, q.plan_state, q.plan_error, q.query
  FROM indexpilot.workload_profile p JOIN indexpilot.queries q ON q.id = p.workload_id
 WHERE q.query LIKE '%use.%' ORDER BY q.query COLLATE "C";
SELECT table_name, tenant_id, reads, writes, rows_returned, rows_written, read_ms > 0 AS read_ms, write_ms > 0 AS write_ms, last_seen_at IS NOT NULL AS seen
  FROM indexpilot.table_usage
 WHERE table_name::text LIKE 'use.%' ORDER BY table_name::text COLLATE "C", tenant_id COLLATE "C";
SELECT field_name, reads, filters, joins, orders, groups, outputs, inserts, rows_inserted, updates, rows_updated, round(selectivity::numeric, 3) AS selectivity
  FROM indexpilot.field_usage WHERE table_name = 'use.tickets'::regclass ORDER BY field_name;
SELECT usage, comparison, operator, templates, calls, rows, total_ms > 0 AS timed, round(selectivity::numeric, 2) AS selectivity,
       selectivity_min <= selectivity AND selectivity <= selectivity_max AS in_order
  FROM indexpilot.get_field_usage_stats('use.tickets', 'state');
SELECT usage, comparison, operator, templates, calls, rows FROM indexpilot.get_field_usage_stats('use.tickets', 'title');
SELECT usage, comparison, operator, templates, calls, rows FROM indexpilot.get_field_usage_stats('use.tickets', 'weight');
SELECT usage, comparison, operator, templates, calls, rows FROM indexpilot.get_field_usage_stats('use.log', 'tenant_id');
-- a profile is made again when the tenant columns change, and only then while there are no new samples
SELECT max(profiled_at) AS profiled_at FROM indexpilot.workload_profile \gset
SELECT count(*) AS decisions FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['use.log'::regclass]);
SELECT count(*) AS again FROM indexpilot.workload_profile p JOIN indexpilot.workload_table t USING (workload_id)
 WHERE t.table_id = 'use.tickets'::regclass AND p.profiled_at > :'profiled_at';
UPDATE indexpilot.genome_catalog SET tenant_key = false WHERE table_schema = 'use';
SELECT count(*) AS decisions FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['use.log'::regclass]);
SELECT count(*) > 5 AS again, count(p.tenant_source) AS tenants FROM indexpilot.workload_profile p JOIN indexpilot.workload_table t USING (workload_id)
 WHERE t.table_id = 'use.tickets'::regclass AND p.profiled_at > :'profiled_at';
-- sessions without a tenant get the one that the statement names, as long as the columns are tenant columns
UPDATE indexpilot.genome_catalog SET tenant_key = true WHERE table_schema = 'use' AND field_name = 'tenant_id';
SELECT count(*) AS decisions FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['use.log'::regclass]);
EXECUTE one (7, 7);
EXECUTE one (7, 27);
SELECT count(*) AS found FROM use.tickets WHERE state = 'it''s' AND tenant_id = '8' AND title LIKE 'ticket 3%';
SELECT count(*) AS found FROM use.tickets WHERE state = 'done' AND tenant_id = -8 AND title LIKE 'ticket 3%';
UPDATE use.tickets SET state = 'done', closed_at = '2024-01-01' WHERE tenant_id = 9 AND id <= 105;
SELECT indexpilot.capture_flush() > 0 AS flushed;
SELECT tenant_id, reads, writes, rows_returned, rows_written FROM indexpilot.table_usage
 WHERE table_name = 'use.tickets'::regclass AND tenant_id NOT IN ('a', 'b') ORDER BY tenant_id COLLATE "C";
UPDATE indexpilot.genome_catalog SET tenant_key = false WHERE table_schema = 'use';
SELECT count(*) AS decisions FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['use.log'::regclass]);
EXECUTE one (10, 10);
SELECT indexpilot.capture_flush() > 0 AS flushed;
SELECT count(*) AS forgotten FROM indexpilot.table_usage WHERE table_name = 'use.tickets'::regclass AND tenant_id = '10';
-- sizes
SELECT table_schema, table_name, kind, row_estimate, heap_bytes > 500000 AS heap, toast_bytes < 100000 AS toast, index_bytes > 200000 AS indexes,
       total_bytes = pg_total_relation_size('use.tickets') AS total, index_count, last_vacuum IS NOT NULL AS vacuumed
  FROM indexpilot.get_table_size_info('use.tickets');
CREATE TABLE use.parts (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE use.parts_1 PARTITION OF use.parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE INDEX ON use.parts (id);
INSERT INTO use.parts SELECT i, '2024-02-02' FROM generate_series(1, 1000) i;
ANALYZE use.parts;
SELECT table_name, kind, row_estimate, total_bytes = pg_total_relation_size('use.parts_1') AS total, index_count
  FROM indexpilot.get_table_size_info() WHERE table_schema = 'use' ORDER BY table_name COLLATE "C";
-- whoever asks for what is not there is told so
\set SHOW_CONTEXT never
SELECT * FROM indexpilot.get_field_usage_stats('use.tickets', 'nonsense');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.get_field_usage_stats(4294967295::oid::regclass, 'id');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.get_table_size_info('use.tickets_pkey');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.get_table_size_info(4294967295::oid::regclass);
\echo :LAST_ERROR_SQLSTATE
-- a role sees what its own statements did, and in a session for one tenant those of the tenant
CREATE ROLE use_reader;
GRANT USAGE ON SCHEMA use, indexpilot TO use_reader;
GRANT SELECT ON use.tickets TO use_reader;
SET indexpilot.tenant_id = 'mine';
SET ROLE use_reader;
SELECT count(*) AS found FROM use.tickets WHERE weight = 3;
RESET ROLE;
SET indexpilot.tenant_id = 'other';
SET ROLE use_reader;
SELECT count(*) AS found FROM use.tickets WHERE weight = 3;
RESET ROLE;
RESET indexpilot.tenant_id;
SELECT indexpilot.capture_flush() > 0 AS flushed;
SELECT count(*) AS decisions FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['use.log'::regclass]);
SET ROLE use_reader;
SELECT * FROM indexpilot.table_usage;
SELECT * FROM indexpilot.get_field_usage_stats('use.tickets', 'weight');
RESET ROLE;
GRANT SELECT ON indexpilot.table_usage, indexpilot.field_uses TO use_reader;
GRANT EXECUTE ON FUNCTION indexpilot.may_see(oid, text), indexpilot.check_field(regclass, name), indexpilot.get_field_usage_stats(regclass, name) TO use_reader;
SET ROLE use_reader;
SELECT table_name, tenant_id, reads, writes FROM indexpilot.table_usage ORDER BY tenant_id COLLATE "C";
SELECT usage, comparison, operator, templates, calls, rows FROM indexpilot.get_field_usage_stats('use.tickets', 'weight');
SELECT count(*) AS uses_of_others FROM indexpilot.get_field_usage_stats('use.tickets', 'state');
RESET ROLE;
SET indexpilot.tenant_id = 'mine';
SET ROLE use_reader;
SELECT table_name, tenant_id, reads, writes FROM indexpilot.table_usage;
SELECT usage, comparison, operator, templates, calls, rows FROM indexpilot.get_field_usage_stats('use.tickets', 'weight');
RESET ROLE;
RESET indexpilot.tenant_id;
REVOKE ALL ON indexpilot.table_usage, indexpilot.field_uses FROM use_reader;
REVOKE ALL ON FUNCTION indexpilot.may_see(oid, text), indexpilot.check_field(regclass, name), indexpilot.get_field_usage_stats(regclass, name) FROM use_reader;
REVOKE ALL ON SCHEMA use, indexpilot FROM use_reader;
CREATE ROLE use_monitor IN ROLE pg_monitor;
GRANT USAGE ON SCHEMA use TO use_monitor;
SET ROLE use_monitor;
SELECT count(*) > 0 AS tables FROM indexpilot.table_usage;
SELECT count(*) > 0 AS uses FROM indexpilot.get_field_usage_stats('use.tickets', 'id');
SELECT count(*) > 0 AS sizes FROM indexpilot.get_table_size_info();
RESET ROLE;
-- however large the figures, their sums are shown
BEGIN;
UPDATE indexpilot.workload_stats SET calls = 9223372036854775807, rows = 9223372036854775807;
SELECT max(reads) = 9223372036854775807 AS most, max(rows_returned) = 9223372036854775807 AS rows FROM indexpilot.table_usage;
SELECT max(reads) = 9223372036854775807 AS most, max(rows_inserted) = 9223372036854775807 AS rows FROM indexpilot.field_usage;
SELECT max(calls) = 9223372036854775807 AS most, max(rows) = 9223372036854775807 AS rows FROM indexpilot.get_field_usage_stats('use.tickets', 'id');
ROLLBACK;
UPDATE indexpilot.genome_catalog SET tenant_key = true WHERE table_schema = 'use' AND field_name = 'tenant_id';
DROP SCHEMA use CASCADE;
DROP ROLE use_reader, use_monitor;
