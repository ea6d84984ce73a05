-- What the guard did: how often each rule was asked and what it held back.

CREATE TABLE guard_metrics (
    rule          text PRIMARY KEY,
    evaluated     bigint NOT NULL DEFAULT 0,
    waited        bigint NOT NULL DEFAULT 0,
    refused       bigint NOT NULL DEFAULT 0,
    stopped       bigint NOT NULL DEFAULT 0,
    breached_at   timestamptz,
    objected_at   timestamptz,
    action_id     bigint,
    detail        text
) WITH (fillfactor = 50);
COMMENT ON TABLE guard_metrics IS 'What each guard rule did in this database since the extension was installed';
COMMENT ON COLUMN guard_metrics.rule IS 'Code of the rule, as in actions.guard';
COMMENT ON COLUMN guard_metrics.evaluated IS 'How often an action was looked at';
COMMENT ON COLUMN guard_metrics.waited IS 'How often it made an action wait; one that waits for long is looked at several times';
COMMENT ON COLUMN guard_metrics.refused IS 'How often it refused an action';
COMMENT ON COLUMN guard_metrics.stopped IS 'How often it stopped an action that was running';
COMMENT ON COLUMN guard_metrics.breached_at IS 'When the figure itself was last beyond its limit, for rules with a cool-down (load)';
COMMENT ON COLUMN guard_metrics.objected_at IS 'When it last made an action wait, refused one or stopped one';
COMMENT ON COLUMN guard_metrics.action_id IS 'Which action that was; a plain number, because the figures outlive the actions';
COMMENT ON COLUMN guard_metrics.detail IS 'Why, with figures';

CREATE TABLE guard_stops (
    action_id     bigint NOT NULL REFERENCES actions ON DELETE CASCADE,
    attempt       integer NOT NULL,
    rule          text NOT NULL,
    detail        text NOT NULL,
    stopped_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (action_id, attempt)
);
COMMENT ON TABLE guard_stops IS 'Running actions that a guard rule had interrupted; they are queued again, and the attempt does not count';
COMMENT ON COLUMN guard_stops.action_id IS 'Action';
COMMENT ON COLUMN guard_stops.attempt IS 'Which of its attempts';
COMMENT ON COLUMN guard_stops.rule IS 'Code of the rule';
COMMENT ON COLUMN guard_stops.detail IS 'Why, with figures';
COMMENT ON COLUMN guard_stops.stopped_at IS 'When the interruption was asked for';

GRANT SELECT ON guard_metrics, guard_stops TO pg_monitor;

-- -------------------------------------------------------------------------------------------------------- to a point in time
CREATE FUNCTION rollback_to(at timestamptz) RETURNS TABLE (mutation_id bigint, statement text, effect text)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'rollback_to_wrapper';
COMMENT ON FUNCTION rollback_to(timestamptz) IS
'Brings everything that IndexPilot changed since then back to how it was, the newest first: indexes, what tenants express, the switch of the database. Actions that were asked for since and wait are cancelled. Index changes are queued and run when the transaction commits. One row for each step with the number of the mutation; without a number for what stays as it is, with the reason';

CREATE FUNCTION rollback_to_preview(at timestamptz) RETURNS TABLE (statement text, effect text)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'rollback_to_preview_wrapper';
COMMENT ON FUNCTION rollback_to_preview(timestamptz) IS 'What rollback_to() would run, and what it would mean. Changes nothing';

CREATE VIEW timeline AS
SELECT m.logged_at AS at, 'log' AS source, m.id, m.mutation AS event, m.table_schema, m.table_name, m.index_name, m.actor,
       m.cause AS detail, m.action_id, m.undo, m.undone_by
  FROM indexpilot.mutation_log m
UNION ALL
SELECT a.queued_at, 'action', a.id, a.kind || ' queued', a.table_schema, a.table_name, a.index_name, a.actor, a.cause, a.id, NULL, NULL
  FROM indexpilot.actions a
UNION ALL
SELECT a.started_at, 'action', a.id, a.kind || ' started', a.table_schema, a.table_name, a.index_name, a.actor,
       'attempt ' || a.attempts, a.id, NULL, NULL
  FROM indexpilot.actions a WHERE a.started_at IS NOT NULL
UNION ALL
SELECT s.stopped_at, 'guard', s.action_id, a.kind || ' interrupted', a.table_schema, a.table_name, a.index_name, 'indexpilot',
       s.rule || ': ' || s.detail, s.action_id, NULL, NULL
  FROM indexpilot.guard_stops s JOIN indexpilot.actions a ON a.id = s.action_id
UNION ALL
SELECT v.judged_at, 'verdict', v.id, v.verdict, a.table_schema, a.table_name, a.index_name, 'indexpilot', v.reason, v.action_id, NULL, NULL
  FROM indexpilot.verifications v JOIN indexpilot.actions a ON a.id = v.action_id WHERE v.role = 'summary';
COMMENT ON VIEW timeline IS 'What happened in this database, from the log, the actions, the guard and the verdicts together; ORDER BY at';
COMMENT ON COLUMN timeline.at IS 'When';
COMMENT ON COLUMN timeline.source IS 'log, action, guard or verdict: where the row comes from';
COMMENT ON COLUMN timeline.id IS 'Number of the mutation (for rollback()), of the action, or of the verdict';
COMMENT ON COLUMN timeline.event IS 'What happened';
COMMENT ON COLUMN timeline.table_schema IS 'Schema of the table';
COMMENT ON COLUMN timeline.table_name IS 'Name of the table';
COMMENT ON COLUMN timeline.index_name IS 'Name of the index';
COMMENT ON COLUMN timeline.actor IS 'Role that caused it, or indexpilot when no person did';
COMMENT ON COLUMN timeline.detail IS 'Why, with figures';
COMMENT ON COLUMN timeline.action_id IS 'Action that it belongs to';
COMMENT ON COLUMN timeline.undo IS 'Statement that rollback() of the mutation carries out';
COMMENT ON COLUMN timeline.undone_by IS 'Mutation that took this one back';

-- ------------------------------------------------------------------------------------------------------------------- health
CREATE FUNCTION health_check() RETURNS TABLE (name text, state text, detail text, hint text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'health_check_wrapper';
COMMENT ON FUNCTION health_check() IS
'Whether IndexPilot can do its work in this database, one row for each thing that was looked at: state ok, warning or error, what was found, and for what is not ok what to do';

REVOKE ALL ON FUNCTION rollback_to(timestamptz), rollback_to_preview(timestamptz), health_check() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION health_check() TO pg_monitor;
GRANT SELECT ON timeline TO pg_monitor;

-- ------------------------------------------------------------------------------------------------------------------- verify
CREATE TABLE verification_figures (
    action_id     bigint PRIMARY KEY REFERENCES actions ON DELETE CASCADE,
    begun_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updates_begun bigint,
    hot_updates_begun bigint,
    scans_begun   bigint,
    looks         integer NOT NULL DEFAULT 0,
    looked_at     timestamptz,
    observation_s double precision,
    scans         bigint,
    updates       bigint,
    hot_share_before double precision,
    hot_share_after double precision,
    drift         double precision,
    saved_ms      double precision,
    lost_ms       double precision
);
COMMENT ON TABLE verification_figures IS 'What a verdict was made of beside the times of the queries, which are in verifications';
COMMENT ON COLUMN verification_figures.action_id IS 'Action that is judged';
COMMENT ON COLUMN verification_figures.begun_at IS 'When the figures of the server were first read';
COMMENT ON COLUMN verification_figures.updates_begun IS 'Updates of the table that the server had counted then';
COMMENT ON COLUMN verification_figures.hot_updates_begun IS 'Heap-only ones of them';
COMMENT ON COLUMN verification_figures.scans_begun IS 'Uses of the index that the server had counted then';
COMMENT ON COLUMN verification_figures.looks IS 'How often the index was looked at';
COMMENT ON COLUMN verification_figures.looked_at IS 'When it was last looked at';
COMMENT ON COLUMN verification_figures.observation_s IS 'Seconds of observing that the rates of its queries call for';
COMMENT ON COLUMN verification_figures.scans IS 'Uses of the index since then; NULL when the counters were reset meanwhile';
COMMENT ON COLUMN verification_figures.updates IS 'Updates of the table since then';
COMMENT ON COLUMN verification_figures.hot_share_before IS 'Share of the updates before then that were heap-only';
COMMENT ON COLUMN verification_figures.hot_share_after IS 'The same since then';
COMMENT ON COLUMN verification_figures.drift IS 'How many times as long queries of other tables take as before';
COMMENT ON COLUMN verification_figures.saved_ms IS 'Time that queries which became faster have saved, milliseconds';
COMMENT ON COLUMN verification_figures.lost_ms IS 'Time that queries which became slower have lost, milliseconds';

GRANT SELECT ON verification_figures TO pg_monitor;
