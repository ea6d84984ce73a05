-- Trial: indexes that the planner does not use, or only in a share of the transactions.

CREATE TABLE trials (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('canary', 'compare')),
    table_id      oid NOT NULL,
    table_schema  name NOT NULL,
    table_name    name NOT NULL,
    index_a       name NOT NULL,
    index_b       name,
    percent       double precision NOT NULL,
    action_id     bigint REFERENCES actions ON DELETE SET NULL,
    actor         name NOT NULL DEFAULT session_user,
    started_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    ended_at      timestamptz,
    outcome       text
);
COMMENT ON TABLE trials IS 'Indexes that a share of the transactions sees, measured beside the transactions of the same time that do not';
COMMENT ON COLUMN trials.id IS 'Number of the trial, for trial_report() and end_trial()';
COMMENT ON COLUMN trials.kind IS 'canary: a newly built index, seen by indexpilot.apply_canary_percent of the transactions at first. compare: start_trial()';
COMMENT ON COLUMN trials.table_id IS 'OID of the table';
COMMENT ON COLUMN trials.table_schema IS 'Schema of the table and its indexes';
COMMENT ON COLUMN trials.table_name IS 'Name of the table';
COMMENT ON COLUMN trials.index_a IS 'Index that the transactions of arm a see';
COMMENT ON COLUMN trials.index_b IS 'Index that the transactions of arm b see; NULL when there is none';
COMMENT ON COLUMN trials.percent IS 'Share of the transactions in arm a, and in arm b; the others are the control';
COMMENT ON COLUMN trials.action_id IS 'Action that built the canary';
COMMENT ON COLUMN trials.actor IS 'Role that asked for it';
COMMENT ON COLUMN trials.started_at IS 'When it began';
COMMENT ON COLUMN trials.ended_at IS 'When it ended; NULL while it runs';
COMMENT ON COLUMN trials.outcome IS 'How it ended, in words';

CREATE TABLE trial_stats (
    trial_id      bigint NOT NULL REFERENCES trials ON DELETE CASCADE,
    workload_id   bigint NOT NULL REFERENCES workload ON DELETE CASCADE,
    arm           text NOT NULL CHECK (arm IN ('control', 'a', 'b')),
    calls         bigint NOT NULL,
    errors        bigint NOT NULL,
    total_ms      double precision NOT NULL,
    sum_squares_ms double precision NOT NULL,
    histogram     bigint[] NOT NULL,
    PRIMARY KEY (trial_id, workload_id, arm)
);
-- A template that goes is looked for here.
CREATE INDEX trial_stats_workload ON trial_stats (workload_id);
COMMENT ON TABLE trial_stats IS 'Executions on the tables of trials, by what their transaction saw; workload_stats counts them too';
COMMENT ON COLUMN trial_stats.trial_id IS 'Trial';
COMMENT ON COLUMN trial_stats.workload_id IS 'Query template';
COMMENT ON COLUMN trial_stats.arm IS 'control (the transaction saw no index on trial), a or b';
COMMENT ON COLUMN trial_stats.calls IS 'Executions that completed';
COMMENT ON COLUMN trial_stats.errors IS 'Executions that ended in an error or a cancel';
COMMENT ON COLUMN trial_stats.total_ms IS 'Execution time, milliseconds';
COMMENT ON COLUMN trial_stats.sum_squares_ms IS 'Sum of the squares of the execution times in milliseconds';
COMMENT ON COLUMN trial_stats.histogram IS 'Executions by duration, as in workload_stats';

CREATE TABLE index_trial (
    index_id      oid PRIMARY KEY,
    index_schema  name NOT NULL,
    index_name    name NOT NULL,
    tag           uuid,
    table_id      oid NOT NULL,
    table_schema  name NOT NULL,
    table_name    name NOT NULL,
    state         text NOT NULL CHECK (state IN ('hidden', 'observing', 'trial')),
    trial_id      bigint REFERENCES trials ON DELETE SET NULL,
    arm           text NOT NULL DEFAULT 'none' CHECK (arm IN ('none', 'a', 'b')),
    share_from    integer NOT NULL DEFAULT 0,
    share_until   integer NOT NULL DEFAULT 0,
    action_id     bigint REFERENCES actions ON DELETE SET NULL,
    reason        text NOT NULL,
    actor         name NOT NULL DEFAULT session_user,
    since         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE index_trial IS 'Indexes that not every transaction may use. Shared memory, which the planner asks, follows this table; nothing of it is dumped, so a restored database uses all of its indexes';
COMMENT ON COLUMN index_trial.index_id IS 'OID of the index; it follows the index through a rebuild';
COMMENT ON COLUMN index_trial.index_schema IS 'Schema of the index';
COMMENT ON COLUMN index_trial.index_name IS 'Name of the index';
COMMENT ON COLUMN index_trial.tag IS 'Tag in its comment, when IndexPilot made it';
COMMENT ON COLUMN index_trial.table_id IS 'OID of the table';
COMMENT ON COLUMN index_trial.table_schema IS 'Schema of the table';
COMMENT ON COLUMN index_trial.table_name IS 'Name of the table';
COMMENT ON COLUMN index_trial.state IS 'hidden: nobody uses it. observing: nobody uses it, and it will be dropped when nobody misses it. trial: a share of the transactions uses it';
COMMENT ON COLUMN index_trial.trial_id IS 'Trial that it is in';
COMMENT ON COLUMN index_trial.arm IS 'Arm of the transactions that use it';
COMMENT ON COLUMN index_trial.share_from IS 'Every transaction has a number from 0 to 9999; the first that uses the index';
COMMENT ON COLUMN index_trial.share_until IS 'The first number after that which does not use it any more';
COMMENT ON COLUMN index_trial.action_id IS 'Action that will drop it';
COMMENT ON COLUMN index_trial.reason IS 'Why';
COMMENT ON COLUMN index_trial.actor IS 'Role that asked for it';
COMMENT ON COLUMN index_trial.since IS 'Since when';

CREATE VIEW hidden_indexes AS
SELECT t.index_id, t.index_schema, t.index_name, t.table_schema, t.table_name, t.state, t.reason, t.actor, t.since, t.action_id,
       a.state AS action_state, pg_catalog.pg_relation_size(t.index_id::pg_catalog.regclass) AS index_bytes
  FROM indexpilot.index_trial t LEFT JOIN indexpilot.actions a ON a.id = t.action_id
 WHERE t.share_from >= t.share_until;
COMMENT ON VIEW hidden_indexes IS 'Indexes that no new plan uses, although they are there and every write maintains them';
COMMENT ON COLUMN hidden_indexes.index_id IS 'OID of the index';
COMMENT ON COLUMN hidden_indexes.index_schema IS 'Schema of the index';
COMMENT ON COLUMN hidden_indexes.index_name IS 'Name of the index';
COMMENT ON COLUMN hidden_indexes.table_schema IS 'Schema of the table';
COMMENT ON COLUMN hidden_indexes.table_name IS 'Name of the table';
COMMENT ON COLUMN hidden_indexes.state IS 'hidden, or observing: it will be dropped when nobody misses it';
COMMENT ON COLUMN hidden_indexes.reason IS 'Why';
COMMENT ON COLUMN hidden_indexes.actor IS 'Role that asked for it';
COMMENT ON COLUMN hidden_indexes.since IS 'Since when';
COMMENT ON COLUMN hidden_indexes.action_id IS 'Action that will drop it';
COMMENT ON COLUMN hidden_indexes.action_state IS 'State of that action';
COMMENT ON COLUMN hidden_indexes.index_bytes IS 'Size of the index, bytes; NULL when it is gone';

CREATE FUNCTION hide_index(index pg_catalog.regclass, reason text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'hide_index_wrapper';
COMMENT ON FUNCTION hide_index(pg_catalog.regclass, text) IS
'Hides an index from the planner in all sessions of this server: when the transaction commits, no new plan uses it, and plans that are kept are made anew. Everything else goes on: writes maintain it, and it keeps duplicates out. It stays hidden over restarts until show_index(). Returns the number of the mutation, NULL when the index was hidden already';

CREATE FUNCTION show_index(index pg_catalog.regclass, reason text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'show_index_wrapper';
COMMENT ON FUNCTION show_index(pg_catalog.regclass, text) IS
'Lets the planner use a hidden index again, from the commit on. A drop that waits for its turn is cancelled. Returns the number of the mutation, NULL when the index was not hidden';

CREATE FUNCTION retire_index(index pg_catalog.regclass, reason text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'retire_index_wrapper';
COMMENT ON FUNCTION retire_index(pg_catalog.regclass, text) IS
'Drops an index that nobody needs, carefully: hides it, and drops it, concurrently, after indexpilot.apply_observe. When a query becomes slower meanwhile, or somebody calls show_index() or cancel(), it is shown again and stays. Returns the number of the action. Refuses an index that is more than a way to rows: unique ones, constraints, replica identity, the one that the table is clustered by, parts of partitioned ones, and what other objects depend on. Whether a standby uses it, this server cannot know';

CREATE FUNCTION start_trial(index_a pg_catalog.regclass, index_b pg_catalog.regclass DEFAULT NULL, percent double precision DEFAULT 50) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'start_trial_wrapper';
COMMENT ON FUNCTION start_trial(pg_catalog.regclass, pg_catalog.regclass, double precision) IS
'Compares two indexes of a table under the real workload, or one index with none: percent of the transactions use index_a, as many others index_b, the rest neither. Each transaction keeps to one of these arms. Returns the number of the trial; trial_report() shows what was measured, end_trial() ends it. One trial runs in a database at a time';

CREATE FUNCTION end_trial(id bigint, keep text DEFAULT 'both') RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'end_trial_wrapper';
COMMENT ON FUNCTION end_trial(bigint, text) IS
'Ends a trial. keep: a, b or both for the indexes that all transactions use from now on, none for neither; the others stay, hidden, until show_index() or retire_index()';

CREATE FUNCTION trial_report(id bigint) RETURNS TABLE (workload_id bigint, query text, arm text, calls_control bigint, calls bigint,
    mean_ms_control double precision, mean_ms double precision, p95_ms_control double precision, p95_ms double precision,
    change_ratio double precision, p_value double precision, effect text)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'trial_report_wrapper';
COMMENT ON FUNCTION trial_report(bigint) IS
'Each query on the table of a trial, in each arm that uses an index, beside the control of the same time. effect: faster, slower, failing, same, or too_few_calls';

REVOKE ALL ON FUNCTION start_trial(pg_catalog.regclass, pg_catalog.regclass, double precision), end_trial(bigint, text), trial_report(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION hide_index(pg_catalog.regclass, text), show_index(pg_catalog.regclass, text),
    retire_index(pg_catalog.regclass, text) FROM PUBLIC;
GRANT SELECT ON index_trial, hidden_indexes, trials, trial_stats TO pg_monitor;
