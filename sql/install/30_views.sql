-- What users read. Texts of other users' queries are shown only to those who may read all statistics, as pg_stat_statements does;
-- literals are never in a view but workload_samples, which follows the same rule.

CREATE VIEW queries AS
SELECT w.id, w.queryid, pg_catalog.pg_get_userbyid(w.role_id) AS role_name,
       CASE WHEN pg_catalog.pg_has_role(w.role_id, 'MEMBER') OR pg_catalog.pg_has_role('pg_read_all_stats', 'MEMBER')
            THEN w.query ELSE '<insufficient privilege>' END AS query,
       w.command, w.relations::pg_catalog.regclass[] AS tables, w.plan_state, w.plan_error, w.base_cost,
       s.calls, s.errors, s.rows, s.total_ms, s.total_ms / NULLIF(s.calls, 0) AS mean_ms, s.min_ms, s.max_ms,
       indexpilot.histogram_percentile(s.histogram, 0.50) AS p50_ms,
       indexpilot.histogram_percentile(s.histogram, 0.95) AS p95_ms,
       indexpilot.histogram_percentile(s.histogram, 0.99) AS p99_ms,
       s.shared_blocks_hit, s.shared_blocks_read, s.temp_blocks, s.wal_bytes, w.first_seen_at, w.last_seen_at
  FROM indexpilot.workload w
  LEFT JOIN LATERAL (
       SELECT pg_catalog.sum(q.calls)::bigint AS calls, pg_catalog.sum(q.errors)::bigint AS errors,
              pg_catalog.sum(q.rows)::bigint AS rows, pg_catalog.sum(q.total_ms) AS total_ms,
              pg_catalog.min(q.min_ms) AS min_ms, pg_catalog.max(q.max_ms) AS max_ms,
              indexpilot.histogram_sum(q.histogram) AS histogram,
              pg_catalog.sum(q.shared_blocks_hit)::bigint AS shared_blocks_hit,
              pg_catalog.sum(q.shared_blocks_read)::bigint AS shared_blocks_read,
              pg_catalog.sum(q.temp_blocks)::bigint AS temp_blocks, pg_catalog.sum(q.wal_bytes)::bigint AS wal_bytes
         FROM indexpilot.query_stats q WHERE q.workload_id = w.id) s ON true;
COMMENT ON VIEW queries IS 'Query templates of this database with their execution times';
COMMENT ON COLUMN queries.id IS 'Number of the template';
COMMENT ON COLUMN queries.queryid IS 'Query identifier, as in pg_stat_statements';
COMMENT ON COLUMN queries.role_name IS 'Role that ran it';
COMMENT ON COLUMN queries.query IS 'Normalised text, if the reader may see it';
COMMENT ON COLUMN queries.command IS 'Kind of statement';
COMMENT ON COLUMN queries.tables IS 'Base tables';
COMMENT ON COLUMN queries.plan_state IS 'pending, plannable or unplannable: whether what-if planning of a sample worked';
COMMENT ON COLUMN queries.plan_error IS 'Why it did not work';
COMMENT ON COLUMN queries.base_cost IS 'Planner cost at the last analysis';
COMMENT ON COLUMN queries.calls IS 'Executions that completed';
COMMENT ON COLUMN queries.errors IS 'Executions that ended in an error or a cancel';
COMMENT ON COLUMN queries.rows IS 'Rows returned or changed';
COMMENT ON COLUMN queries.total_ms IS 'Execution time, milliseconds';
COMMENT ON COLUMN queries.mean_ms IS 'Mean execution time, milliseconds';
COMMENT ON COLUMN queries.min_ms IS 'Shortest execution, milliseconds';
COMMENT ON COLUMN queries.max_ms IS 'Longest execution, milliseconds';
COMMENT ON COLUMN queries.p50_ms IS 'Median execution time, milliseconds';
COMMENT ON COLUMN queries.p95_ms IS '95th percentile, milliseconds';
COMMENT ON COLUMN queries.p99_ms IS '99th percentile, milliseconds';
COMMENT ON COLUMN queries.shared_blocks_hit IS 'Blocks found in shared buffers';
COMMENT ON COLUMN queries.shared_blocks_read IS 'Blocks read into shared buffers';
COMMENT ON COLUMN queries.temp_blocks IS 'Temporary blocks read and written';
COMMENT ON COLUMN queries.wal_bytes IS 'Write-ahead log produced, bytes';
COMMENT ON COLUMN queries.first_seen_at IS 'When it was first captured';
COMMENT ON COLUMN queries.last_seen_at IS 'When it was last captured';

CREATE VIEW workload_samples AS
SELECT s.id, s.workload_id, s.tenant_id,
       CASE WHEN m.may_see THEN s.query ELSE '<insufficient privilege>' END AS query,
       s.search_path, s.parameter_types::pg_catalog.regtype[] AS parameter_types,
       CASE WHEN m.may_see THEN s.parameter_values END AS parameter_values, s.captured_at
  FROM indexpilot.workload_sample s JOIN indexpilot.workload w ON w.id = s.workload_id
 CROSS JOIN LATERAL (SELECT pg_catalog.pg_has_role(w.role_id, 'MEMBER')
                         OR pg_catalog.pg_has_role('pg_read_all_stats', 'MEMBER') AS may_see) m;
COMMENT ON VIEW workload_samples IS 'Statements kept for what-if planning; literals are shown only to the role that ran them and to those who may read all statistics';
COMMENT ON COLUMN workload_samples.id IS 'Number of the sample';
COMMENT ON COLUMN workload_samples.workload_id IS 'Template';
COMMENT ON COLUMN workload_samples.tenant_id IS 'Tenant of the session';
COMMENT ON COLUMN workload_samples.query IS 'Text as sent, if the reader may see it';
COMMENT ON COLUMN workload_samples.search_path IS 'search_path of the session';
COMMENT ON COLUMN workload_samples.parameter_types IS 'Types of the parameters';
COMMENT ON COLUMN workload_samples.parameter_values IS 'Values of the parameters, if the reader may see them';
COMMENT ON COLUMN workload_samples.captured_at IS 'When it ran';

CREATE VIEW status AS
SELECT s.name, s.value, s.description FROM indexpilot.system_status() s;
COMMENT ON VIEW status IS 'State of IndexPilot in this database, one figure a row';
COMMENT ON COLUMN status.name IS 'Name of the figure';
COMMENT ON COLUMN status.value IS 'Value, as text';
COMMENT ON COLUMN status.description IS 'What it means';
