-- The guard's settings say at once what they cannot be.
\set VERBOSITY default
ALTER SYSTEM SET indexpilot.guard_window_start = '25:00';
\echo :LAST_ERROR_SQLSTATE
ALTER SYSTEM SET indexpilot.guard_window_end = 'noon';
ALTER SYSTEM SET indexpilot.guard_window_days = 'mon-frida';
ALTER SYSTEM SET indexpilot.guard_window_timezone = 'Europe/Atlantis';
ALTER SYSTEM SET indexpilot.guard_max_index_share = -1;
SET indexpilot.guard_max_load = 1;
\echo :LAST_ERROR_SQLSTATE
-- the state of things
SELECT name, state, detail FROM indexpilot.health_check() WHERE name IN ('version', 'preload', 'mode', 'switch', 'stages', 'circuit_breaker', 'unusable_indexes');
SELECT name, hint IS NULL AS fine FROM indexpilot.health_check() WHERE (state = 'ok') <> (hint IS NULL);
BEGIN;
UPDATE pg_extension SET extversion = '0.0.9' WHERE extname = 'indexpilot';
SELECT * FROM indexpilot.health_check();
SELECT name, value FROM indexpilot.status WHERE name IN ('version', 'sql_version', 'preloaded', 'disabled', 'actions_queued');
ROLLBACK;
-- back to a point in time
SELECT indexpilot.bootstrap_genome_catalog() >= 0 AS known;
SELECT indexpilot.disable_field('early', 'shop.orders', 'note') > 0 AS before;
SELECT max(logged_at) AS then FROM indexpilot.mutation_log \gset
SELECT indexpilot.enable_field('early', 'shop.orders', 'note') > 0 AS after;
SELECT indexpilot.disable_field('late', 'shop.orders', 'note') > 0 AS after;
SELECT indexpilot.disable_field('never', 'shop.orders', 'note') > 0 AS after, indexpilot.enable_field('never', 'shop.orders', 'note') > 0 AS and_back;
SELECT indexpilot.disable_system('by mistake');
SELECT * FROM indexpilot.rollback_to_preview(:'then');
SELECT mutation_id IS NOT NULL AS logged, effect FROM indexpilot.rollback_to(:'then');
SELECT tenant_id, enabled FROM indexpilot.expression_profile WHERE tenant_id IN ('early', 'late', 'never') ORDER BY tenant_id;
SELECT disabled FROM indexpilot.switch;
SELECT * FROM indexpilot.rollback_to_preview(:'then');
SELECT mutation, tenant_id, undone_by IS NOT NULL AS undone FROM indexpilot.mutation_log WHERE logged_at > :'then' ORDER BY id;
-- even that can be taken back
SELECT indexpilot.rollback(max(id)) > 0 AS again FROM indexpilot.mutation_log WHERE tenant_id = 'early';
SELECT enabled FROM indexpilot.expression_profile WHERE tenant_id = 'early';
SELECT * FROM indexpilot.rollback_to(now() + interval '1 hour');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM indexpilot.rollback_to_preview('-infinity') WHERE effect ~ 'tenant late';
SELECT count(*) > 5 AS told FROM indexpilot.timeline;
SELECT count(*) AS unordered FROM indexpilot.timeline WHERE at IS NULL OR event IS NULL OR source IS NULL;
-- who may read may not act
CREATE ROLE regress_indexpilot_monitor IN ROLE pg_monitor;
SET ROLE regress_indexpilot_monitor;
SELECT count(*) > 0 AS told FROM indexpilot.health_check();
SELECT count(*) >= 0 AS counted FROM indexpilot.guard_metrics;
SELECT * FROM indexpilot.rollback_to(now());
SELECT * FROM indexpilot.rollback_to_preview(now());
RESET ROLE;
DROP ROLE regress_indexpilot_monitor;
