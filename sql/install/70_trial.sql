-- Trial: indexes that the planner does not use, or only in a share of the transactions.

CREATE TABLE index_trial (
    index_id      oid PRIMARY KEY,
    index_schema  name NOT NULL,
    index_name    name NOT NULL,
    tag           uuid,
    table_id      oid NOT NULL,
    table_schema  name NOT NULL,
    table_name    name NOT NULL,
    state         text NOT NULL CHECK (state IN ('hidden', 'observing')),
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
COMMENT ON COLUMN index_trial.state IS 'hidden: nobody uses it. observing: nobody uses it, and it will be dropped when nobody misses it';
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

REVOKE ALL ON FUNCTION hide_index(pg_catalog.regclass, text), show_index(pg_catalog.regclass, text),
    retire_index(pg_catalog.regclass, text) FROM PUBLIC;
GRANT SELECT ON index_trial, hidden_indexes TO pg_monitor;
