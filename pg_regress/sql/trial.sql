-- Hidden indexes: what EXPLAIN shows, what is written down, who may do it, and what is refused.
SET timezone = 'UTC';
CREATE TABLE shop.seen (id int PRIMARY KEY, a int, b int);
INSERT INTO shop.seen SELECT i, i, i FROM generate_series(1, 20000) i;
CREATE INDEX seen_a ON shop.seen (a);
CREATE INDEX "Seen ""B""" ON shop.seen (b);
ANALYZE shop.seen;
EXPLAIN (COSTS OFF) SELECT id FROM shop.seen WHERE a = 1;
SELECT indexpilot.hide_index('shop.seen_a', 'is it needed?') > 0 AS hidden;
EXPLAIN (COSTS OFF) SELECT id FROM shop.seen WHERE a = 1;
EXPLAIN (COSTS OFF) UPDATE shop.seen SET a = 2 WHERE a = 1;
EXPLAIN (COSTS OFF) SELECT id FROM shop.seen WHERE b = 1;
SELECT index_id::regclass, index_schema, table_name, state, reason, actor = session_user AS mine, action_id, index_bytes > 0 AS sized FROM indexpilot.hidden_indexes;
SELECT value FROM indexpilot.status WHERE name = 'hidden_indexes';
SELECT state, detail FROM indexpilot.health_check() WHERE name = 'hidden_indexes';
-- twice is once
SELECT indexpilot.hide_index('shop.seen_a') IS NULL AS hidden_already;
-- names are the server's
SELECT indexpilot.hide_index('shop."Seen ""B"""') > 0 AS hidden;
SELECT mutation, table_name, index_name, cause, undo FROM indexpilot.mutation_log WHERE table_name = 'seen' ORDER BY id;
-- what is hidden is hidden from advice too, which takes the table as queries find it
SELECT index_used, indexes_instead FROM indexpilot.estimate_query_cost_without_index('SELECT id FROM shop.seen WHERE a = 1', 'shop.seen_a');
-- in a transaction, the plans are those of before until it commits
BEGIN;
SELECT indexpilot.show_index('shop.seen_a') > 0 AS shown;
EXPLAIN (COSTS OFF) SELECT id FROM shop.seen WHERE a = 1;
COMMIT;
EXPLAIN (COSTS OFF) SELECT id FROM shop.seen WHERE a = 1;
SELECT indexpilot.show_index('shop.seen_a') IS NULL AS shown_already;
SELECT indexpilot.show_index('shop."Seen ""B"""') > 0 AS shown;
SELECT count(*) FROM indexpilot.hidden_indexes;
-- taking it back
SELECT indexpilot.hide_index('shop.seen_a') > 0 AS hidden;
SELECT statement, effect FROM indexpilot.rollback_preview((SELECT max(id) FROM indexpilot.mutation_log));
SELECT indexpilot.rollback(max(id)) > 0 AS rolled_back FROM indexpilot.mutation_log WHERE mutation = 'hide_index';
SELECT count(*) FROM indexpilot.hidden_indexes;
SELECT indexpilot.rollback(max(id)) > 0 AS rolled_back FROM indexpilot.mutation_log WHERE mutation = 'show_index';
SELECT index_name, reason ~ '^rollback of mutation' AS says_why FROM indexpilot.hidden_indexes;
SELECT indexpilot.show_index('shop.seen_a') > 0 AS shown;
-- what cannot be hidden
\set VERBOSITY default
SELECT indexpilot.hide_index('shop.seen');
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.hide_index(4294967295::oid::regclass);
SELECT indexpilot.hide_index(NULL);
SELECT indexpilot.hide_index('pg_class_oid_index');
CREATE TEMP TABLE passing (id int PRIMARY KEY);
SELECT indexpilot.hide_index('passing_pkey');
SELECT indexpilot.hide_index('indexpilot.actions_pkey');
CREATE TABLE shop.parts (id int, a int) PARTITION BY RANGE (id);
CREATE TABLE shop.parts1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (100);
CREATE INDEX parts_a ON shop.parts (a);
SELECT indexpilot.hide_index('shop.parts_a');
SELECT indexpilot.hide_index(relid) > 0 AS hidden FROM pg_partition_tree('shop.parts_a') WHERE isleaf;
SELECT index_name FROM indexpilot.hidden_indexes;
SELECT indexpilot.show_index('shop.parts1_a_idx') > 0 AS shown;
SELECT indexpilot.protect('shop.seen_a');
SELECT indexpilot.hide_index('shop.seen_a');
SELECT indexpilot.unprotect('shop.seen_a');
-- protecting is logged when it changes something, and can be taken back
SELECT indexpilot.unprotect('shop.seen_a') AS again;
SELECT indexpilot.protect('shop.seen_a'), indexpilot.protect('shop.seen_a');
SELECT id AS protected FROM indexpilot.mutation_log WHERE mutation = 'protect_index' ORDER BY id DESC LIMIT 1 \gset
SELECT * FROM indexpilot.rollback_preview(:protected);
SELECT indexpilot.rollback(:protected) > 0 AS taken_back;
SELECT mutation, cause ~ '^rollback of mutation' AS by_rollback, actor = session_user AS by_me, table_name, index_name, undo, undone_by IS NOT NULL AS undone
  FROM indexpilot.mutation_log WHERE mutation ~ 'protect_index' ORDER BY id;
SELECT indexpilot.unprotect('shop.seen_a') AS still;
SELECT count(*) AS back_in_time FROM indexpilot.rollback_to_preview('-infinity') WHERE effect ~ 'protected';
BEGIN READ ONLY;
SELECT indexpilot.hide_index('shop.seen_a');
ROLLBACK;
-- who was not given the right has none
CREATE ROLE trial_stranger;
GRANT ALL ON SCHEMA shop TO trial_stranger;
ALTER TABLE shop.seen OWNER TO trial_stranger;
GRANT USAGE ON SCHEMA indexpilot TO trial_stranger;
SET ROLE trial_stranger;
SELECT indexpilot.hide_index('shop.seen_a');
SELECT indexpilot.show_index('shop.seen_a');
SELECT * FROM indexpilot.hidden_indexes;
RESET ROLE;
GRANT EXECUTE ON FUNCTION indexpilot.hide_index, indexpilot.show_index TO trial_stranger;
SET ROLE trial_stranger;
SELECT indexpilot.hide_index('shop.seen_a') > 0 AS hidden;
SELECT indexpilot.show_index('shop.seen_a') > 0 AS shown;
RESET ROLE;
-- trials: one at a time, over when they are ended, and what was not kept stays hidden
SELECT indexpilot.start_trial('shop.seen_a', 'shop."Seen ""B"""', 60);
SELECT indexpilot.start_trial('shop.seen_a', 'shop.parts1_a_idx', 10);
SELECT indexpilot.start_trial('shop.parts_a');
SELECT indexpilot.start_trial(NULL);
SELECT indexpilot.start_trial('shop.seen_a', 'shop."Seen ""B"""', 10) AS trial \gset
SELECT index_name, state, share_from, share_until, arm FROM indexpilot.index_trial ORDER BY arm;
SELECT kind, table_name, index_a, index_b, percent, ended_at, outcome FROM indexpilot.trials;
SELECT count(*) AS hidden FROM indexpilot.hidden_indexes;
SELECT indexpilot.start_trial('shop.seen_pkey') AS second;
SELECT indexpilot.end_trial(:trial, 'c');
SELECT indexpilot.end_trial(:trial, 'a');
SELECT indexpilot.end_trial(:trial);
SELECT index_name, state, reason ~ '^trial [0-9]+ did not keep it$' AS says_why FROM indexpilot.hidden_indexes;
SELECT outcome ~ 'keeping a$' AS ended FROM indexpilot.trials;
SELECT count(*) AS measured FROM indexpilot.trial_report(:trial);
-- under the names of what it logs itself, nobody else logs: all that are there by now
CREATE FUNCTION pg_temp.takes(event text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM indexpilot.log_audit_event(event, 'test');
    RETURN true;
EXCEPTION WHEN invalid_parameter_value THEN RETURN false;
END $$;
SELECT m.mutation AS taken FROM (SELECT DISTINCT mutation FROM indexpilot.mutation_log) m WHERE pg_temp.takes(m.mutation);
SELECT pg_temp.takes('deploy') AS free;
SELECT indexpilot.log_audit_event('rollback', 'test');
DROP TABLE shop.seen, shop.parts;
DROP OWNED BY trial_stranger;
DROP ROLE trial_stranger;
