//! workload, workload_sample and query_stats: what was captured, by template, tenant and span of time.

use crate::pg::error::Result;
use crate::pg::spi;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

/// Executions of one template by one tenant since the last flush.
#[derive(Clone, Debug, Serialize)]
pub struct Counted {
    pub queryid: i64,
    pub role_id: u32,
    pub relations_hash: i64,
    pub nested: bool,
    pub relations: Vec<u32>,
    /// `relations` names all of them.
    pub relations_complete: bool,
    pub command: &'static str,
    pub tenant_id: String,
    pub calls: u64,
    pub errors: u64,
    /// Time of the failed executions, milliseconds.
    pub error_ms: f64,
    pub rows: u64,
    pub total_ms: f64,
    pub sum_squares_ms: f64,
    pub min_ms: f64,
    pub max_ms: f64,
    pub histogram: Vec<u64>,
    pub planner_cost: f64,
    pub shared_blocks_hit: u64,
    pub shared_blocks_read: u64,
    pub temp_blocks: u64,
    pub wal_bytes: u64,
}

/// A statement as it was run.
#[derive(Clone, Debug, Serialize)]
pub struct SampleRow {
    pub queryid: i64,
    pub role_id: u32,
    pub relations_hash: i64,
    pub nested: bool,
    pub tenant_id: String,
    pub query: String,
    pub normalised: Option<String>,
    pub fingerprint: Option<String>,
    pub search_path: String,
    pub parameter_types: Vec<u32>,
    pub parameter_values: Vec<Option<String>>,
}

/// A template with its weight and its samples, for an analysis.
#[derive(Clone, Debug, Deserialize)]
pub struct Template {
    pub id: i64,
    pub query: String,
    pub role_id: u32,
    pub calls: f64,
    pub total_ms: f64,
    pub samples: Vec<StoredSample>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct StoredSample {
    pub query: String,
    pub search_path: String,
    pub parameter_types: Vec<u32>,
    pub parameter_values: Vec<Option<String>>,
}

/// Which templates an analysis looks at.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Filter {
    /// Only templates that touch one of these tables; empty for all.
    pub tables: Vec<u32>,
    /// Only what this tenant ran.
    pub tenant_id: Option<String>,
}

/// Key of the advisory lock that flushes take: a caller that keeps its transaction open must not make the worker wait on rows.
const FLUSH_LOCK: i64 = 0x1D7_F1A5;

/// Takes the right to flush until the end of the transaction; `false` when another session has it.
pub fn try_flush_lock() -> Result<bool> {
    let got = spi::value("SELECT pg_catalog.pg_try_advisory_xact_lock(($1->>'key')::bigint)", json!({ "key": FLUSH_LOCK }))?;
    Ok(got.unwrap_or(false))
}

/// Adds executions to the current span of time. A span begins at every multiple of `bucket` and at every cut.
pub fn record(counted: &[Counted], bucket: Duration) -> Result<()> {
    if counted.is_empty() {
        return Ok(());
    }
    spi::execute(
        "WITH c AS (
             SELECT * FROM pg_catalog.jsonb_to_recordset($1->'rows') AS c(queryid bigint, role_id oid, relations_hash bigint,
                 nested boolean, relations oid[], relations_complete boolean, command text, tenant_id text, calls bigint,
                 errors bigint, error_ms float8, rows bigint, total_ms float8,
                 sum_squares_ms float8, min_ms float8, max_ms float8, histogram bigint[], planner_cost float8,
                 shared_blocks_hit bigint, shared_blocks_read bigint, temp_blocks bigint, wal_bytes bigint)
         ), t AS (
             INSERT INTO indexpilot.workload AS w (queryid, role_id, relations_hash, nested, relations, relations_complete, command)
             SELECT DISTINCT ON (queryid, role_id, relations_hash, nested) queryid, role_id, relations_hash, nested, relations,
                    relations_complete, command
               FROM c ORDER BY queryid, role_id, relations_hash, nested
             ON CONFLICT (queryid, role_id, relations_hash, nested) DO UPDATE SET last_seen_at = pg_catalog.now(),
                 command = CASE WHEN excluded.command = 'unknown' THEN w.command ELSE excluded.command END
             RETURNING id, queryid, role_id, relations_hash, nested
         ), span AS (
             SELECT GREATEST(pg_catalog.date_bin(pg_catalog.make_interval(secs => ($1->>'bucket_s')::float8),
                 pg_catalog.clock_timestamp(), '2000-01-01'), last_cut_at) AS at FROM indexpilot.control
         )
         INSERT INTO indexpilot.query_stats AS q
         SELECT t.id, c.tenant_id, span.at, c.calls, c.errors, c.error_ms, c.rows, c.total_ms, c.sum_squares_ms, c.min_ms, c.max_ms,
                c.histogram, c.planner_cost, c.shared_blocks_hit, c.shared_blocks_read, c.temp_blocks, c.wal_bytes
           FROM c JOIN t USING (queryid, role_id, relations_hash, nested) CROSS JOIN span
          ORDER BY t.id, c.tenant_id
         ON CONFLICT (workload_id, tenant_id, bucket_at) DO UPDATE SET
             calls = q.calls + excluded.calls, errors = q.errors + excluded.errors, error_ms = q.error_ms + excluded.error_ms,
             rows = q.rows + excluded.rows, total_ms = q.total_ms + excluded.total_ms,
             sum_squares_ms = q.sum_squares_ms + excluded.sum_squares_ms,
             min_ms = LEAST(q.min_ms, excluded.min_ms), max_ms = GREATEST(q.max_ms, excluded.max_ms),
             histogram = (SELECT pg_catalog.array_agg(COALESCE(a, 0) + COALESCE(b, 0) ORDER BY i)
                            FROM ROWS FROM (pg_catalog.unnest(q.histogram), pg_catalog.unnest(excluded.histogram))
                                 WITH ORDINALITY AS h(a, b, i)),
             planner_cost = q.planner_cost + excluded.planner_cost,
             shared_blocks_hit = q.shared_blocks_hit + excluded.shared_blocks_hit,
             shared_blocks_read = q.shared_blocks_read + excluded.shared_blocks_read,
             temp_blocks = q.temp_blocks + excluded.temp_blocks, wal_bytes = q.wal_bytes + excluded.wal_bytes",
        json!({ "rows": counted, "bucket_s": bucket.as_secs_f64() }),
    )?;
    Ok(())
}

/// Keeps new samples, at most `keep` of each template: the newest.
pub fn add_samples(samples: &[SampleRow], keep: usize) -> Result<()> {
    if samples.is_empty() {
        return Ok(());
    }
    spi::execute(
        "WITH s AS (
             SELECT * FROM pg_catalog.jsonb_to_recordset($1->'rows') AS s(queryid bigint, role_id oid, relations_hash bigint,
                 nested boolean, tenant_id text, query text, normalised text, fingerprint text, search_path text, parameter_types oid[],
                 parameter_values text[])
         ), t AS (
             UPDATE indexpilot.workload w
                SET query = COALESCE(w.query, s.normalised), fingerprint = COALESCE(w.fingerprint, s.fingerprint)
               FROM s WHERE w.queryid = s.queryid AND w.role_id = s.role_id AND w.relations_hash = s.relations_hash
                AND w.nested = s.nested
          RETURNING w.id, w.queryid, w.role_id, w.relations_hash, w.nested
         )
         INSERT INTO indexpilot.workload_sample (workload_id, tenant_id, query, search_path, parameter_types, parameter_values)
         SELECT DISTINCT t.id, s.tenant_id, s.query, s.search_path, s.parameter_types, s.parameter_values
           FROM s JOIN t USING (queryid, role_id, relations_hash, nested)",
        json!({ "rows": samples }),
    )?;
    spi::execute(
        "DELETE FROM indexpilot.workload_sample d USING (
             SELECT id, pg_catalog.row_number() OVER (PARTITION BY workload_id ORDER BY id DESC) AS n
               FROM indexpilot.workload_sample) r
          WHERE d.id = r.id AND r.n > ($1->>'keep')::bigint",
        json!({ "keep": keep }),
    )?;
    Ok(())
}

/// The templates that have samples, each with them, and the hours that the statistics span.
pub fn templates(filter: &Filter) -> Result<(Vec<Template>, f64)> {
    let hours: Option<f64> = spi::value(
        "SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.min(bucket_at))::float8 / 3600 FROM indexpilot.query_stats",
        json!({}),
    )?;
    let templates = spi::rows(
        "SELECT w.id, COALESCE(w.query, '') AS query, w.role_id::bigint AS role_id,
                pg_catalog.sum(q.calls + q.errors)::float8 AS calls, pg_catalog.sum(q.total_ms + q.error_ms) AS total_ms,
                (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('query', s.query, 'search_path', s.search_path,
                         'parameter_types', s.parameter_types::bigint[], 'parameter_values', s.parameter_values) ORDER BY s.id DESC)
                   FROM indexpilot.workload_sample s WHERE s.workload_id = w.id) AS samples
           FROM indexpilot.workload w JOIN indexpilot.query_stats q ON q.workload_id = w.id
          WHERE w.command IN ('select', 'insert', 'update', 'delete', 'merge')
            AND (pg_catalog.jsonb_array_length($1->'filter'->'tables') = 0
                 OR w.relations && ARRAY(SELECT e::oid FROM pg_catalog.jsonb_array_elements_text($1->'filter'->'tables') e))
            AND ($1->'filter'->>'tenant_id' IS NULL OR q.tenant_id = $1->'filter'->>'tenant_id')
            AND EXISTS (SELECT FROM indexpilot.workload_sample s WHERE s.workload_id = w.id)
          GROUP BY w.id
          ORDER BY w.id",
        json!({ "filter": filter }),
    )?;
    Ok((templates, hours.unwrap_or(0.0).max(1.0 / 60.0)))
}

/// Remembers what planning a template gave.
pub fn set_plan_states(planned: &[(i64, f64)], failed: &[(i64, String)]) -> Result<()> {
    let rows: Vec<_> = planned
        .iter()
        .map(|(id, cost)| json!({ "id": id, "state": "plannable", "cost": cost }))
        .chain(failed.iter().map(|(id, error)| json!({ "id": id, "state": "unplannable", "error": error })))
        .collect();
    spi::execute(
        "UPDATE indexpilot.workload w SET plan_state = p.state, plan_error = p.error, base_cost = COALESCE(p.cost, w.base_cost)
           FROM pg_catalog.jsonb_to_recordset($1->'rows') AS p(id bigint, state text, error text, cost float8) WHERE w.id = p.id",
        json!({ "rows": rows }),
    )?;
    Ok(())
}

/// Deletes statistics older than `keep`, and templates that have none left.
pub fn retain(keep: Duration) -> Result<()> {
    let args = json!({ "keep_s": keep.as_secs_f64() });
    spi::execute(
        "DELETE FROM indexpilot.query_stats
          WHERE bucket_at < pg_catalog.now() - pg_catalog.make_interval(secs => ($1->>'keep_s')::float8)",
        args.clone(),
    )?;
    spi::execute(
        "DELETE FROM indexpilot.workload w
          WHERE w.last_seen_at < pg_catalog.now() - pg_catalog.make_interval(secs => ($1->>'keep_s')::float8)
            AND NOT EXISTS (SELECT FROM indexpilot.query_stats q WHERE q.workload_id = w.id)",
        args,
    )?;
    Ok(())
}

/// Forgets everything that was captured.
pub fn reset() -> Result<()> {
    spi::execute("DELETE FROM indexpilot.workload", json!({}))?;
    Ok(())
}
