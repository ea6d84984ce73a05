-- Bad input: a clear error with SQLSTATE, detail and hint, and nothing changed.
\set VERBOSITY default
-- an unknown table
SELECT * FROM indexpilot.advise(ARRAY['SELECT * FROM shop.no_such_table WHERE a = 1']);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.analyze_and_create_indexes(tables => ARRAY['shop.no_such_table'::regclass]);
\echo :LAST_ERROR_SQLSTATE
-- a syntax error
SELECT * FROM indexpilot.advise(ARRAY['SELEKT 1']);
\echo :LAST_ERROR_SQLSTATE
-- a query on a missing column
SELECT * FROM indexpilot.advise(ARRAY['SELECT * FROM shop.orders WHERE id = 1', 'SELECT colour FROM shop.orders']);
\echo :LAST_ERROR_SQLSTATE
-- two statements in one text, and one that is not planned
SELECT * FROM indexpilot.advise(ARRAY['SELECT 1; SELECT 2']);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.advise(ARRAY['VACUUM shop.orders']);
\echo :LAST_ERROR_SQLSTATE
-- nothing, or figures that make no sense
SELECT * FROM indexpilot.advise(ARRAY[]::text[]);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.advise(ARRAY['SELECT 1'], weights => ARRAY[1, 2]);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.advise(ARRAY['SELECT 1'], weights => ARRAY['NaN'::float8]);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.advise(ARRAY['SELECT 1'], max_columns => 0);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.advise(ARRAY['SELECT 1'], time_limit => '0 s');
\echo :LAST_ERROR_SQLSTATE
-- a negative budget
SELECT * FROM indexpilot.advise(ARRAY['SELECT * FROM shop.orders WHERE customer_id = 1'], storage_budget => -1);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.analyze_and_create_indexes(storage_budget => -5);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.advise_frontier(ARRAY['SELECT 1'], budgets => ARRAY[1, -1]);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.advise_frontier(ARRAY['SELECT 1'], budgets => '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.advise_frontier(ARRAY['SELECT 1'], budgets => '{NULL}');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.advise_frontier('{}');
\echo :LAST_ERROR_SQLSTATE
-- a query that is null
SELECT * FROM indexpilot.advise(ARRAY['SELECT 1', NULL]);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.advise_frontier(ARRAY[NULL::text]);
\echo :LAST_ERROR_SQLSTATE
-- arrays that turned out empty or null are no wish for everything
SELECT * FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['shop.orders', NULL]::regclass[]);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY[to_regclass('shop.no_such_table')]);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.what_if('SELECT * FROM shop.orders', ARRAY[NULL::text]);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.what_if('SELECT * FROM shop.orders', '{}', ARRAY[to_regclass('shop.no_such_index')]);
\echo :LAST_ERROR_SQLSTATE
SELECT cost_before = cost_after AS nothing_changed FROM indexpilot.what_if('SELECT * FROM shop.orders', '{}', '{}');
SET indexpilot.select_storage_budget = -2;
\echo :LAST_ERROR_SQLSTATE
-- what-if on what is not an index, and on what is not supported yet
SELECT * FROM indexpilot.what_if('SELECT * FROM shop.orders', '{}', ARRAY['shop.orders'::regclass]);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.what_if('SELECT * FROM shop.orders', ARRAY['CREATE UNIQUE INDEX ON shop.orders (status)']);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.what_if('SELECT * FROM shop.orders', ARRAY['CREATE INDEX ON shop.orders (colour)']);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.what_if('SELECT * FROM shop.orders', ARRAY['DROP TABLE shop.orders']);
\echo :LAST_ERROR_SQLSTATE
-- reports that make no sense
SELECT indexpilot.log_query_stat('', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.log_query_stat('SELEKT 1', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.log_query_stat('SELECT 1; SELECT 2', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.log_query_stat('VACUUM', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.log_query_stat('SELECT * FROM shop.no_such_table', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.log_query_stat('SELECT 1', -1);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.log_query_stat('SELECT 1', 'NaN');
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.log_query_stat('SELECT 1', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.log_query_stat('SELECT 1', 1, -1);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.log_query_stat('SELECT 1', 1, calls => 0);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.log_query_stat('SELECT 1', 1, tenant_id => repeat('x', 64));
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.log_query_stat('SELECT 1', 1, 1000000000000, calls => 1000000000000);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.log_query_stat('SELECT ''' || repeat('x', 1048576) || '''', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.export_workload('-1 day') IS NULL;
\echo :LAST_ERROR_SQLSTATE
-- numbers that name nothing
SELECT indexpilot.explain_decision(-1);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.approve(-1);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.cancel(-1);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.rollback(-1);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.protect('shop.orders'::regclass);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.disable_field('t1', 'shop.orders', 'colour');
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.disable_field('', 'shop.orders', 'note');
\echo :LAST_ERROR_SQLSTATE
-- waiting inside a transaction would never end
BEGIN;
CALL indexpilot.wait_for_actions('1 s');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
-- inside a read-only transaction
BEGIN READ ONLY;
SELECT * FROM indexpilot.analyze_and_create_indexes();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT indexpilot.disable_system('test');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
-- advice needs no write
BEGIN READ ONLY;
SELECT count(*) > 0 AS advised FROM indexpilot.advise(ARRAY['SELECT * FROM shop.orders WHERE customer_id = 42']);
ROLLBACK;
-- by a role without rights
CREATE ROLE regress_indexpilot_nobody;
SET ROLE regress_indexpilot_nobody;
SELECT * FROM indexpilot.analyze_and_create_indexes();
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.queries;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
DROP ROLE regress_indexpilot_nobody;
-- nothing of all this left a trace
SELECT count(*) AS actions FROM indexpilot.actions;
SELECT count(*) AS mutations FROM indexpilot.mutation_log;
SELECT disabled FROM indexpilot.switch;
SELECT count(*) AS reports FROM indexpilot.reported_stats;
