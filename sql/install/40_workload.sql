-- Questions about the workload: functions over the views, with the views' rights.

CREATE FUNCTION get_query_stats(
    since interval DEFAULT '1 day', tenant_id text DEFAULT NULL, table_name pg_catalog.regclass DEFAULT NULL, max_rows integer DEFAULT 50)
RETURNS TABLE (workload_id bigint, queryid bigint, role_name name, nested boolean, query text, tables pg_catalog.regclass[],
    calls bigint, errors bigint, rows bigint, total_ms double precision, mean_ms double precision, stddev_ms double precision,
    min_ms double precision, max_ms double precision, p50_ms double precision, p95_ms double precision, p99_ms double precision,
    mean_cost double precision, shared_blocks_hit bigint, shared_blocks_read bigint, temp_blocks bigint, wal_bytes bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.workload_id, s.queryid, s.role_name, s.nested, s.query, s.tables, s.calls, s.errors, s.rows, s.total_ms,
           s.total_ms / NULLIF(s.calls, 0),
           CASE WHEN s.calls > 0 THEN sqrt(GREATEST(s.squares / s.calls - (s.total_ms / s.calls) ^ 2, 0)) END, s.min_ms, s.max_ms,
           indexpilot.histogram_percentile(s.histogram, 0.50), indexpilot.histogram_percentile(s.histogram, 0.95),
           indexpilot.histogram_percentile(s.histogram, 0.99), s.cost / NULLIF(s.calls, 0),
           s.shared_blocks_hit, s.shared_blocks_read, s.temp_blocks, s.wal_bytes
      FROM (SELECT q.workload_id, q.queryid, q.role_name, q.nested, q.query, q.tables, LEAST(sum(q.calls), 9223372036854775807)::bigint AS calls,
                   LEAST(sum(q.errors), 9223372036854775807)::bigint AS errors, LEAST(sum(q.rows), 9223372036854775807)::bigint AS rows, sum(q.total_ms) AS total_ms,
                   sum(q.calls * (q.stddev_ms ^ 2 + q.mean_ms ^ 2)) AS squares, min(q.min_ms) AS min_ms, max(q.max_ms) AS max_ms,
                   indexpilot.histogram_sum(q.histogram) AS histogram, sum(q.calls * q.mean_cost) AS cost,
                   LEAST(sum(q.shared_blocks_hit), 9223372036854775807)::bigint AS shared_blocks_hit, LEAST(sum(q.shared_blocks_read), 9223372036854775807)::bigint AS shared_blocks_read,
                   LEAST(sum(q.temp_blocks), 9223372036854775807)::bigint AS temp_blocks, LEAST(sum(q.wal_bytes), 9223372036854775807)::bigint AS wal_bytes
              FROM indexpilot.query_stats q
             -- Compared with one value that is there before: this alone passes the view's barrier, so that the index serves.
             WHERE q.bucket_at > (
                    SELECT COALESCE(now() - $1 - CASE WHEN now() - $1 < date_bin('1 hour', now() - interval '2 hours', '2000-01-01 00:00:00+00')
                                                      THEN GREATEST(b.length, interval '1 hour') ELSE b.length END, '-infinity')
                      FROM (SELECT COALESCE(current_setting('indexpilot.capture_bucket', true), '5min')::interval AS length) b)
               AND ($2 IS NULL OR q.tenant_id = $2)
               AND ($3 IS NULL OR $3 = ANY (q.tables))
             GROUP BY q.workload_id, q.queryid, q.role_name, q.nested, q.query, q.tables) s
     ORDER BY s.total_ms DESC, s.workload_id LIMIT $4
$$;
COMMENT ON FUNCTION get_query_stats(interval, text, pg_catalog.regclass, integer) IS
'The heaviest query templates by execution time. since: how far back, NULL for everything; a span of time that reaches into it counts as a whole (spans are as long as indexpilot.capture_bucket, and an hour when they are older than two hours). tenant_id, table_name: only what this tenant ran, only what uses this table. max_rows: how many';
