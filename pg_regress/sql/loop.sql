-- The loop: captured queries, a decision, a concurrent build, a rollback.
SET timezone = 'UTC';
SELECT indexpilot.capture_reset();
DO $$ BEGIN PERFORM 1; END $$;
PREPARE by_customer(int) AS SELECT count(*) FROM shop.orders WHERE customer_id = $1;
EXECUTE by_customer(1);
EXECUTE by_customer(2);
EXECUTE by_customer(3);
SELECT count(*) FROM shop.orders WHERE customer_id = 4;
SELECT indexpilot.capture_flush() > 0 AS flushed;
SELECT calls, query FROM indexpilot.queries WHERE 'shop.orders'::regclass = ANY (tables) ORDER BY query COLLATE "C", calls;
-- a dry run proposes and changes nothing
SELECT decision, index_name, reason FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['shop.orders'::regclass]) WHERE decision <> 'not_recommended';
SELECT count(*) AS actions FROM indexpilot.actions;
-- what a person turned down is not proposed again, until he takes that back; what only repeats his word cannot be approved
BEGIN;
SELECT recommendation_id AS turned_down FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['shop.orders'::regclass]) WHERE decision = 'propose' \gset
SELECT indexpilot.reject(:turned_down, 'not this one');
SELECT recommendation_id AS again, decision, reason, reason_detail ~ format('turned it down on .* \(decision %s, ', :turned_down) AS names_it
  FROM indexpilot.analyze_and_create_indexes(tables => ARRAY['shop.orders'::regclass]) WHERE decision <> 'not_recommended' \gset
SELECT :'decision' AS decision, :'reason' AS reason, :'names_it' AS names_it;
SELECT decision, reason FROM indexpilot.should_create_index('shop.orders', 'customer_id');
SELECT count(*) AS actions FROM indexpilot.actions;
SELECT state, decided_by = session_user AS by_me FROM indexpilot.recommendations WHERE id IN (:turned_down, :again) ORDER BY id;
SAVEPOINT before;
\set VERBOSITY sqlstate
SELECT indexpilot.approve(:again);
\set VERBOSITY default
ROLLBACK TO before;
SELECT indexpilot.approve(:turned_down) > 0 AS queued;
SELECT state FROM indexpilot.recommendations WHERE id = :turned_down;
SELECT indexpilot.cancel(max(id)) FROM indexpilot.actions;
SELECT decision, reason FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['shop.orders'::regclass]) WHERE decision <> 'not_recommended';
ROLLBACK;
-- the real thing
SELECT decision, index_name, reason, action_id IS NOT NULL AS queued FROM indexpilot.analyze_and_create_indexes(tables => ARRAY['shop.orders'::regclass]) WHERE decision <> 'not_recommended';
CALL indexpilot.wait_for_actions('2 minutes');
SELECT kind, state IN ('built', 'verifying', 'kept') AS built, attempts, error_message FROM indexpilot.actions ORDER BY id;
SELECT indexdef FROM pg_indexes WHERE schemaname = 'shop' AND indexname LIKE 'ip\_%';
SELECT obj_description(indexrelid) ~ '^indexpilot:[0-9a-f-]{36}$' AS tagged, pg_get_userbyid(c.relowner) = current_user AS owned_by_table_owner, indisvalid
  FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE c.relname LIKE 'ip\_%';
SELECT mutation, cause ~ '^recommendation' AS cause, index_name IS NOT NULL AS named FROM indexpilot.mutation_log WHERE mutation = 'create_index';
-- asking again finds nothing to do
SELECT count(*) AS created FROM indexpilot.analyze_and_create_indexes(tables => ARRAY['shop.orders'::regclass]) WHERE decision = 'create';
BEGIN READ ONLY;
SELECT e ~ '## Queries' AS explained, e ~ 'before:.*Seq Scan on orders.*after:.*ip_orders_customer_id' AS plans, e ~ '## Guard' AS guarded
  FROM (SELECT indexpilot.explain_decision(max(recommendation_id)) AS e FROM indexpilot.actions) x;
ROLLBACK;
-- taking it back
SELECT statement ~ '^DROP INDEX CONCURRENTLY' AS drops FROM indexpilot.rollback_preview((SELECT max(id) FROM indexpilot.mutation_log WHERE mutation = 'create_index'));
SELECT indexpilot.rollback((SELECT max(id) FROM indexpilot.mutation_log WHERE mutation = 'create_index')) > 0 AS rolled_back;
CALL indexpilot.wait_for_actions('2 minutes');
SELECT count(*) AS left_over FROM pg_indexes WHERE schemaname = 'shop' AND indexname LIKE 'ip\_%';
SELECT kind, state FROM indexpilot.actions ORDER BY id;
-- what was taken back is not built again at once
SELECT decision, reason FROM indexpilot.analyze_and_create_indexes(tables => ARRAY['shop.orders'::regclass]) WHERE decision IN ('create', 'hold');
SELECT DISTINCT reason, reason_detail ~ '^cooldown: ' AS says_rule, cardinality(recommendation_ids) AS proposals FROM indexpilot.query_advice WHERE query ~ 'FROM shop.orders WHERE customer_id = ';
SELECT decision, reason FROM indexpilot.should_create_index('shop.orders', 'customer_id');
-- inside the caller's transaction, when asked for
BEGIN;
SELECT count(*) AS customers FROM shop.customers WHERE email = 'user7@example.org';
SELECT indexpilot.capture_flush() > 0 AS flushed;
SAVEPOINT s;
SELECT indexpilot.disable_system('test');
SELECT decision, index_name FROM indexpilot.analyze_and_create_indexes(tables => ARRAY['shop.customers'::regclass], storage_budget => 10000000, concurrently => false) WHERE decision = 'create';
ROLLBACK TO s;
SELECT decision, index_name FROM indexpilot.analyze_and_create_indexes(tables => ARRAY['shop.customers'::regclass], storage_budget => 10000000, concurrently => false) WHERE decision = 'create';
SELECT count(*) AS there FROM pg_indexes WHERE schemaname = 'shop' AND indexname LIKE 'ip_customers%';
ROLLBACK;
SELECT count(*) AS gone FROM pg_indexes WHERE schemaname = 'shop' AND indexname LIKE 'ip_customers%';
-- switching off holds actions back
SELECT indexpilot.disable_system('test');
SELECT name, value FROM indexpilot.status WHERE name IN ('disabled', 'disabled_reason', 'mode', 'preloaded');
SELECT indexpilot.enable_system();
