-- What users read. Everybody is shown what his own roles ran, and those who may read all statistics everything; a session that works
-- for one tenant (indexpilot.tenant_id) sees that tenant only. So the views are barriers: no condition of the reader's is evaluated
-- on rows that he may not see. Literals of statements are in no view but
-- workload_samples; constants that became part of an index are in its definition.

CREATE VIEW queries WITH (security_barrier) AS
SELECT w.id, w.queryid, pg_catalog.pg_get_userbyid(w.role_id) AS role_name, w.nested, w.query,
       w.command, w.relations::pg_catalog.regclass[] AS tables, w.plan_state, w.plan_error, w.base_cost,
       s.calls, s.errors, s.rows, s.total_ms, s.total_ms / NULLIF(s.calls, 0) AS mean_ms, s.min_ms, s.max_ms,
       indexpilot.histogram_percentile(s.histogram, 0.50) AS p50_ms,
       indexpilot.histogram_percentile(s.histogram, 0.95) AS p95_ms,
       indexpilot.histogram_percentile(s.histogram, 0.99) AS p99_ms,
       s.shared_blocks_hit, s.shared_blocks_read, s.temp_blocks, s.wal_bytes, w.first_seen_at, w.last_seen_at
  FROM indexpilot.workload w
  LEFT JOIN LATERAL (
       SELECT LEAST(pg_catalog.sum(q.calls), 9223372036854775807)::bigint AS calls, LEAST(pg_catalog.sum(q.errors), 9223372036854775807)::bigint AS errors,
              LEAST(pg_catalog.sum(q.rows), 9223372036854775807)::bigint AS rows, pg_catalog.sum(q.total_ms) AS total_ms,
              pg_catalog.min(q.min_ms) FILTER (WHERE q.calls > 0) AS min_ms, pg_catalog.max(q.max_ms) AS max_ms,
              indexpilot.histogram_sum(q.histogram) AS histogram,
              LEAST(pg_catalog.sum(q.shared_blocks_hit), 9223372036854775807)::bigint AS shared_blocks_hit,
              LEAST(pg_catalog.sum(q.shared_blocks_read), 9223372036854775807)::bigint AS shared_blocks_read,
              LEAST(pg_catalog.sum(q.temp_blocks), 9223372036854775807)::bigint AS temp_blocks, LEAST(pg_catalog.sum(q.wal_bytes), 9223372036854775807)::bigint AS wal_bytes
         FROM indexpilot.workload_stats q WHERE q.workload_id = w.id AND indexpilot.may_see(w.role_id, q.tenant_id)
       HAVING pg_catalog.count(*) > 0) s ON true
 WHERE s.calls IS NOT NULL OR indexpilot.may_see(w.role_id, '');
COMMENT ON VIEW queries IS 'Query templates of this database with their execution times, as far as the reader may see them (may_see())';
COMMENT ON COLUMN queries.id IS 'Number of the template';
COMMENT ON COLUMN queries.queryid IS 'Query identifier: the server''s, as in pg_stat_statements, where it computes one, otherwise made of the text';
COMMENT ON COLUMN queries.role_name IS 'Role that ran it';
COMMENT ON COLUMN queries.nested IS 'It ran inside a function, procedure or trigger';
COMMENT ON COLUMN queries.query IS 'Normalised text';
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

CREATE VIEW query_stats WITH (security_barrier) AS
SELECT q.workload_id, w.queryid, pg_catalog.pg_get_userbyid(w.role_id) AS role_name, w.nested, w.query, q.tenant_id, q.bucket_at,
       w.relations::pg_catalog.regclass[] AS tables, q.calls, q.errors, q.error_ms, q.rows, q.total_ms,
       q.total_ms / NULLIF(q.calls, 0) AS mean_ms,
       CASE WHEN q.calls > 0
            THEN pg_catalog.sqrt(GREATEST(q.sum_squares_ms / q.calls - (q.total_ms / q.calls) ^ 2, 0)) END AS stddev_ms,
       CASE WHEN q.calls > 0 THEN q.min_ms END AS min_ms, CASE WHEN q.calls > 0 THEN q.max_ms END AS max_ms,
       indexpilot.histogram_percentile(q.histogram, 0.50) AS p50_ms,
       indexpilot.histogram_percentile(q.histogram, 0.95) AS p95_ms,
       indexpilot.histogram_percentile(q.histogram, 0.99) AS p99_ms,
       q.histogram, q.planner_cost / NULLIF(q.calls, 0) AS mean_cost,
       q.shared_blocks_hit, q.shared_blocks_read, q.temp_blocks, q.wal_bytes
  FROM indexpilot.workload_stats q JOIN indexpilot.workload w ON w.id = q.workload_id
 WHERE indexpilot.may_see(w.role_id, q.tenant_id);
COMMENT ON VIEW query_stats IS 'Executions of each query template by tenant and span of time, as far as the reader may see them (may_see())';
COMMENT ON COLUMN query_stats.workload_id IS 'Number of the template, as in view queries';
COMMENT ON COLUMN query_stats.queryid IS 'Query identifier: the server''s, as in pg_stat_statements, where it computes one, otherwise made of the text';
COMMENT ON COLUMN query_stats.role_name IS 'Role that ran it';
COMMENT ON COLUMN query_stats.nested IS 'It ran inside a function, procedure or trigger';
COMMENT ON COLUMN query_stats.query IS 'Normalised text';
COMMENT ON COLUMN query_stats.tenant_id IS 'Tenant; empty when the session had none, and for tenants beyond indexpilot.capture_max_tenants';
COMMENT ON COLUMN query_stats.bucket_at IS 'Start of the span; a new one begins at least every indexpilot.capture_bucket and whenever an index appears or goes';
COMMENT ON COLUMN query_stats.tables IS 'Base tables';
COMMENT ON COLUMN query_stats.calls IS 'Executions that completed';
COMMENT ON COLUMN query_stats.errors IS 'Executions that ended in an error or a cancel';
COMMENT ON COLUMN query_stats.error_ms IS 'Time that the failed executions took, milliseconds; not part of total_ms';
COMMENT ON COLUMN query_stats.rows IS 'Rows returned or changed';
COMMENT ON COLUMN query_stats.total_ms IS 'Execution time, milliseconds';
COMMENT ON COLUMN query_stats.mean_ms IS 'Mean execution time, milliseconds';
COMMENT ON COLUMN query_stats.stddev_ms IS 'Standard deviation of the execution times, milliseconds';
COMMENT ON COLUMN query_stats.min_ms IS 'Shortest execution, milliseconds';
COMMENT ON COLUMN query_stats.max_ms IS 'Longest execution, milliseconds';
COMMENT ON COLUMN query_stats.p50_ms IS 'Median execution time, milliseconds; NULL for what came from pg_stat_statements';
COMMENT ON COLUMN query_stats.p95_ms IS '95th percentile, milliseconds';
COMMENT ON COLUMN query_stats.p99_ms IS '99th percentile, milliseconds';
COMMENT ON COLUMN query_stats.histogram IS 'Executions by duration on a logarithmic scale, for histogram_sum() and histogram_percentile()';
COMMENT ON COLUMN query_stats.mean_cost IS 'Mean of the planner''s cost estimates';
COMMENT ON COLUMN query_stats.shared_blocks_hit IS 'Blocks found in shared buffers';
COMMENT ON COLUMN query_stats.shared_blocks_read IS 'Blocks read into shared buffers';
COMMENT ON COLUMN query_stats.temp_blocks IS 'Temporary blocks read and written';
COMMENT ON COLUMN query_stats.wal_bytes IS 'Write-ahead log produced, bytes';

CREATE VIEW workload_samples WITH (security_barrier) AS
SELECT s.id, s.workload_id, s.tenant_id, s.query, s.search_path, s.parameter_types::pg_catalog.regtype[] AS parameter_types,
       s.parameter_values, s.captured_at
  FROM indexpilot.workload_sample s JOIN indexpilot.workload w ON w.id = s.workload_id
 WHERE indexpilot.may_see(w.role_id, s.tenant_id);
COMMENT ON VIEW workload_samples IS 'Statements kept for what-if planning, with their constants: shown only to the role that ran them and to those who may read all statistics; may_see() says of which tenants';
COMMENT ON COLUMN workload_samples.id IS 'Number of the sample';
COMMENT ON COLUMN workload_samples.workload_id IS 'Template';
COMMENT ON COLUMN workload_samples.tenant_id IS 'Tenant of the session';
COMMENT ON COLUMN workload_samples.query IS 'Text as sent';
COMMENT ON COLUMN workload_samples.search_path IS 'search_path of the session';
COMMENT ON COLUMN workload_samples.parameter_types IS 'Types of the parameters';
COMMENT ON COLUMN workload_samples.parameter_values IS 'Values of the parameters';
COMMENT ON COLUMN workload_samples.captured_at IS 'When it ran';

CREATE VIEW status AS
SELECT s.name, s.value, s.description FROM indexpilot.system_status() s;
COMMENT ON VIEW status IS 'State of IndexPilot in this database, one figure a row';
COMMENT ON COLUMN status.name IS 'Name of the figure';
COMMENT ON COLUMN status.value IS 'Value, as text';
COMMENT ON COLUMN status.description IS 'What it means';
