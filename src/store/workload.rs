//! workload, workload_sample and workload_stats: what was captured, by template, tenant and span of time.

use crate::pg::error::{Error, Kind, Result};
use crate::pg::{lock, spi};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::borrow::Cow;
use std::time::Duration;

/// Executions of one template by one tenant.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counted {
    /// When they ran, seconds since 1970; `None` for since the last flush.
    pub at: Option<f64>,
    /// Captured by this server itself.
    pub own: bool,
    pub queryid: i64,
    pub role_id: u32,
    pub relations_hash: i64,
    pub nested: bool,
    /// `Arm::number` of what its transaction saw of the indexes on trial.
    #[serde(default)]
    pub arm: u32,
    pub relations: Vec<u32>,
    /// `relations` names all of them.
    pub relations_complete: bool,
    pub command: Cow<'static, str>,
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

/// The largest `bigint`.
const MOST: u64 = i64::MAX as u64;

impl Counted {
    /// With figures that the tables can hold and that can be summed up, whatever they were: one bad row must not stop a flush.
    pub fn bounded(&self) -> Counted {
        // Of the smallest and the largest numbers, sums and quotients would be errors.
        let figure = |f: f64| if f > 1e-9 { f.min(1e100) } else { 0.0 };
        Counted {
            calls: self.calls.min(MOST),
            errors: self.errors.min(MOST),
            error_ms: figure(self.error_ms),
            rows: self.rows.min(MOST),
            total_ms: figure(self.total_ms),
            sum_squares_ms: figure(self.sum_squares_ms),
            min_ms: figure(self.min_ms),
            max_ms: figure(self.max_ms),
            histogram: self.histogram.iter().map(|n| *n.min(&MOST)).collect(),
            planner_cost: figure(self.planner_cost),
            shared_blocks_hit: self.shared_blocks_hit.min(MOST),
            shared_blocks_read: self.shared_blocks_read.min(MOST),
            temp_blocks: self.temp_blocks.min(MOST),
            wal_bytes: self.wal_bytes.min(MOST),
            ..self.clone()
        }
    }

    /// Adds the executions of another row of the same template and tenant.
    pub fn add(&mut self, other: &Counted) {
        self.min_ms = match (self.calls, other.calls) {
            (0, _) => other.min_ms,
            (_, 0) => self.min_ms,
            _ => self.min_ms.min(other.min_ms),
        };
        self.max_ms = self.max_ms.max(other.max_ms);
        if self.histogram.len() < other.histogram.len() {
            self.histogram.resize(other.histogram.len(), 0);
        }
        for (to, from) in self.histogram.iter_mut().zip(&other.histogram) {
            *to = to.saturating_add(*from).min(MOST);
        }
        for (to, from) in [
            (&mut self.calls, other.calls),
            (&mut self.errors, other.errors),
            (&mut self.rows, other.rows),
            (&mut self.shared_blocks_hit, other.shared_blocks_hit),
            (&mut self.shared_blocks_read, other.shared_blocks_read),
            (&mut self.temp_blocks, other.temp_blocks),
            (&mut self.wal_bytes, other.wal_bytes),
        ] {
            *to = to.saturating_add(from).min(MOST);
        }
        self.error_ms += other.error_ms;
        self.total_ms += other.total_ms;
        self.sum_squares_ms += other.sum_squares_ms;
        self.planner_cost += other.planner_cost;
    }
}

/// A statement as it was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SampleRow {
    pub queryid: i64,
    pub role_id: u32,
    pub relations_hash: i64,
    pub nested: bool,
    pub relations: Vec<u32>,
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

/// Waits a little for the right to flush.
///
/// # Errors
/// `InUse` when another session does not end its transaction.
pub fn wait_flush_lock() -> Result<()> {
    for _ in 0..250 {
        if try_flush_lock() {
            return Ok(());
        }
        crate::pg::time::sleep(Duration::from_millis(20));
    }
    Err(Error::new(Kind::InUse, "the workload is being written by another session")
        .detail("A transaction that called capture_flush() or an import has not ended yet.")
        .hint("Try again when it has ended."))
}

/// Takes the right to flush until the end of the transaction; `false` when another session has it. A lock, so that a caller who keeps
/// his transaction open does not make the worker wait on rows.
pub fn try_flush_lock() -> bool {
    lock::try_for_transaction(lock::Own::Flush)
}

/// Figures of several rows `p` as those of one, in the order of the columns of workload_stats. What is more than a bigint holds stays
/// at its largest: a flush must not fail for ever.
const SUMS: &str = "LEAST(pg_catalog.sum(p.calls), 9223372036854775807), LEAST(pg_catalog.sum(p.errors), 9223372036854775807),
    pg_catalog.sum(p.error_ms), LEAST(pg_catalog.sum(p.rows), 9223372036854775807), pg_catalog.sum(p.total_ms),
    pg_catalog.sum(p.sum_squares_ms), COALESCE(pg_catalog.min(p.min_ms) FILTER (WHERE p.calls > 0), 0), pg_catalog.max(p.max_ms),
    indexpilot.histogram_sum(p.histogram), pg_catalog.sum(p.planner_cost), LEAST(pg_catalog.sum(p.shared_blocks_hit), 9223372036854775807),
    LEAST(pg_catalog.sum(p.shared_blocks_read), 9223372036854775807), LEAST(pg_catalog.sum(p.temp_blocks), 9223372036854775807),
    LEAST(pg_catalog.sum(p.wal_bytes), 9223372036854775807)";

/// What becomes of a row of workload_stats, called `q`, that is there already.
const ADD: &str = "ON CONFLICT (workload_id, tenant_id, bucket_at) DO UPDATE SET
        min_ms = CASE WHEN q.calls = 0 THEN excluded.min_ms WHEN excluded.calls = 0 THEN q.min_ms
                      ELSE LEAST(q.min_ms, excluded.min_ms) END,
        max_ms = GREATEST(q.max_ms, excluded.max_ms),
        calls = LEAST(q.calls::numeric + excluded.calls, 9223372036854775807), errors = LEAST(q.errors::numeric + excluded.errors, 9223372036854775807), error_ms = q.error_ms + excluded.error_ms,
        rows = LEAST(q.rows::numeric + excluded.rows, 9223372036854775807), total_ms = q.total_ms + excluded.total_ms,
        sum_squares_ms = q.sum_squares_ms + excluded.sum_squares_ms,
        histogram = indexpilot.histogram_add(q.histogram, excluded.histogram),
        planner_cost = q.planner_cost + excluded.planner_cost,
        shared_blocks_hit = LEAST(q.shared_blocks_hit::numeric + excluded.shared_blocks_hit, 9223372036854775807),
        shared_blocks_read = LEAST(q.shared_blocks_read::numeric + excluded.shared_blocks_read, 9223372036854775807),
        temp_blocks = LEAST(q.temp_blocks::numeric + excluded.temp_blocks, 9223372036854775807), wal_bytes = LEAST(q.wal_bytes::numeric + excluded.wal_bytes, 9223372036854775807)";

/// What bounds the tables.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time that a span covers.
    pub bucket: Duration,
    /// Tenants that have rows of their own in each span of a template; the others count under no tenant.
    pub tenants: u32,
}

/// Adds executions to their spans of time. A span begins at every multiple of `bucket` and at every cut; what says no time belongs
/// to the current one. Of the tenants that are new to a span those with the longest time are kept apart.
pub fn record(counted: &[Counted], limits: Limits) -> Result<()> {
    if counted.is_empty() {
        return Ok(());
    }
    let counted: Vec<Counted> = counted.iter().map(Counted::bounded).collect();
    spi::execute(
        &format!(
            "WITH c AS (
             SELECT * FROM pg_catalog.jsonb_to_recordset($1->'rows') AS c(at float8, own boolean, queryid bigint, role_id oid,
                 relations_hash bigint, nested boolean, relations oid[], relations_complete boolean, command text, tenant_id text,
                 calls bigint, errors bigint, error_ms float8, rows bigint, total_ms float8,
                 sum_squares_ms float8, min_ms float8, max_ms float8, histogram bigint[], planner_cost float8,
                 shared_blocks_hit bigint, shared_blocks_read bigint, temp_blocks bigint, wal_bytes bigint)
         ), t AS (
             INSERT INTO indexpilot.workload AS w (queryid, role_id, relations_hash, nested, relations, relations_complete, command,
                    captured_calls, first_seen_at, last_seen_at)
             SELECT queryid, role_id, relations_hash, nested, pg_catalog.min(relations),
                    pg_catalog.bool_and(relations_complete), pg_catalog.min(command),
                    LEAST(COALESCE(pg_catalog.sum(calls) FILTER (WHERE own), 0), 9223372036854775807),
                    LEAST(COALESCE(pg_catalog.to_timestamp(pg_catalog.min(at)), pg_catalog.now()), pg_catalog.clock_timestamp()),
                    CASE WHEN pg_catalog.count(at) = pg_catalog.count(*)
                         THEN LEAST(pg_catalog.to_timestamp(pg_catalog.max(at)), pg_catalog.clock_timestamp())
                         ELSE pg_catalog.now() END
               FROM c GROUP BY queryid, role_id, relations_hash, nested ORDER BY queryid, role_id, relations_hash, nested
             ON CONFLICT (queryid, role_id, relations_hash, nested) DO UPDATE SET
                 first_seen_at = LEAST(w.first_seen_at, excluded.first_seen_at),
                 last_seen_at = GREATEST(w.last_seen_at, excluded.last_seen_at),
                 captured_calls = LEAST(w.captured_calls::numeric + excluded.captured_calls, 9223372036854775807),
                 relations_complete = excluded.relations_complete,
                 command = CASE WHEN excluded.command = 'unknown' THEN w.command ELSE excluded.command END
             RETURNING id, queryid, role_id, relations_hash, nested
         ), span AS (
             SELECT pg_catalog.make_interval(secs => ($1->>'bucket_s')::float8) AS length, last_cut_at AS cut FROM indexpilot.control
         ), n AS (
             SELECT t.id, LEAST(COALESCE(pg_catalog.to_timestamp(c.at), pg_catalog.clock_timestamp()), pg_catalog.clock_timestamp()) AS ran_at, c.*
               FROM c JOIN t USING (queryid, role_id, relations_hash, nested)
         ), placed AS (
             SELECT n.*, GREATEST(pg_catalog.date_bin(span.length, ran_at, '2000-01-01 00:00:00+00'), CASE WHEN ran_at >= span.cut THEN span.cut END)
                    AS bucket_at FROM n CROSS JOIN span
         ), known AS (
             SELECT q.workload_id, q.bucket_at, q.tenant_id FROM indexpilot.workload_stats q
              WHERE q.tenant_id <> '' AND (q.workload_id, q.bucket_at) IN (SELECT id, bucket_at FROM placed)
         ), asked AS (
             SELECT p.id, p.bucket_at, p.tenant_id, pg_catalog.sum(p.total_ms + p.error_ms) AS ms FROM placed p
              WHERE p.tenant_id <> '' AND (p.id, p.bucket_at, p.tenant_id) NOT IN (SELECT workload_id, bucket_at, tenant_id FROM known)
              GROUP BY p.id, p.bucket_at, p.tenant_id
         ), apart AS (
             SELECT workload_id AS id, bucket_at, tenant_id FROM known
              UNION ALL
             SELECT id, bucket_at, tenant_id
               FROM (SELECT a.id, a.bucket_at, a.tenant_id,
                            pg_catalog.row_number() OVER (PARTITION BY a.id, a.bucket_at ORDER BY a.ms DESC, a.tenant_id)
                          + (SELECT pg_catalog.count(*) FROM known k WHERE k.workload_id = a.id AND k.bucket_at = a.bucket_at) AS nth
                       FROM asked a) r
              WHERE nth <= ($1->>'tenants')::bigint
         )
         INSERT INTO indexpilot.workload_stats AS q
         SELECT p.id, COALESCE(a.tenant_id, '') AS tenant, p.bucket_at, {SUMS}
           FROM placed p LEFT JOIN apart a ON a.id = p.id AND a.bucket_at = p.bucket_at AND a.tenant_id = p.tenant_id
          GROUP BY p.id, tenant, p.bucket_at
          ORDER BY p.id, tenant, p.bucket_at
         {ADD}"),
        json!({ "rows": counted, "bucket_s": limits.bucket.as_secs_f64(), "tenants": limits.tenants }),
    )?;
    Ok(())
}

/// Keeps new samples, at most `keep` of each template: of each tenant first one, then the second, and so on. The newest of a tenant
/// stays, and among its others chance decides (`workload_sample.priority`). A statement without constants is kept once for each
/// tenant. A sample may come before its statement has ended and was counted, so it brings its template with it.
pub fn add_samples(samples: &[SampleRow], keep: usize) -> Result<()> {
    if samples.is_empty() {
        return Ok(());
    }
    spi::execute(
        "WITH s AS (
             SELECT * FROM pg_catalog.jsonb_to_recordset($1->'rows') AS s(queryid bigint, role_id oid, relations_hash bigint,
                 nested boolean, relations oid[], tenant_id text, query text, normalised text, fingerprint text, search_path text,
                 parameter_types oid[], parameter_values text[])
         ), t AS (
             INSERT INTO indexpilot.workload AS w (queryid, role_id, relations_hash, nested, relations, query, fingerprint)
             SELECT queryid, role_id, relations_hash, nested, pg_catalog.min(relations), pg_catalog.min(normalised),
                    pg_catalog.min(fingerprint)
               FROM s GROUP BY queryid, role_id, relations_hash, nested ORDER BY queryid, role_id, relations_hash, nested
             ON CONFLICT (queryid, role_id, relations_hash, nested) DO UPDATE SET
                 query = COALESCE(w.query, excluded.query), fingerprint = COALESCE(w.fingerprint, excluded.fingerprint)
             RETURNING id, queryid, role_id, relations_hash, nested
         )
         INSERT INTO indexpilot.workload_sample (workload_id, tenant_id, query, search_path, parameter_types, parameter_values)
         SELECT DISTINCT t.id, s.tenant_id, s.query, s.search_path, s.parameter_types, s.parameter_values
           FROM s JOIN t USING (queryid, role_id, relations_hash, nested)
          WHERE s.query IS DISTINCT FROM s.normalised OR pg_catalog.array_remove(s.parameter_values, NULL) <> '{}'
             OR NOT EXISTS (SELECT FROM indexpilot.workload_sample o
                             WHERE o.workload_id = t.id AND o.tenant_id = s.tenant_id AND o.query = s.query
                               AND o.search_path = s.search_path AND o.parameter_types = s.parameter_types
                               AND o.parameter_values = s.parameter_values)",
        json!({ "rows": samples }),
    )?;
    spi::execute(
        // Lists instead of joins, of which no plan can be bad when statistics are old.
        "DELETE FROM indexpilot.workload_sample d WHERE d.id = ANY (ARRAY(
             SELECT r.id FROM (
                 SELECT n.id, pg_catalog.row_number() OVER (PARTITION BY n.workload_id ORDER BY n.nth, n.priority DESC, n.id DESC) AS n
                   FROM (SELECT o.id, o.workload_id, o.priority,
                                pg_catalog.row_number() OVER (PARTITION BY o.workload_id, o.tenant_id
                                    ORDER BY o.id = o.newest DESC, o.priority DESC, o.id DESC) AS nth
                           FROM (SELECT a.*, pg_catalog.max(a.id) OVER (PARTITION BY a.workload_id, a.tenant_id) AS newest
                                   FROM indexpilot.workload_sample a WHERE a.workload_id = ANY (ARRAY(
                                SELECT DISTINCT w.id FROM indexpilot.workload w
                                  JOIN pg_catalog.jsonb_to_recordset($1->'rows') AS s(queryid bigint, role_id oid, relations_hash bigint,
                                       nested boolean) USING (queryid, role_id, relations_hash, nested)))) o) n) r
              WHERE r.n > ($1->>'keep')::bigint))",
        json!({ "keep": keep, "rows": samples }),
    )?;
    Ok(())
}

/// The newest sample of a template, with the role and the tenant that ran it.
#[derive(Clone, Debug, Deserialize)]
pub struct Newest {
    pub workload_id: i64,
    pub role_id: u32,
    pub tenant_id: String,
    #[serde(flatten)]
    pub sample: StoredSample,
}

/// The newest sample of each of these templates.
pub fn newest_samples(workload_ids: &[i64]) -> Result<Vec<Newest>> {
    spi::rows(
        "SELECT DISTINCT ON (s.workload_id) s.workload_id, w.role_id::bigint AS role_id, s.tenant_id, s.query, s.search_path,
                s.parameter_types::bigint[] AS parameter_types, s.parameter_values
           FROM indexpilot.workload_sample s JOIN indexpilot.workload w ON w.id = s.workload_id
          WHERE s.workload_id = ANY (ARRAY(SELECT e::bigint FROM pg_catalog.jsonb_array_elements_text($1->'ids') e))
          ORDER BY s.workload_id, s.id DESC",
        json!({ "ids": workload_ids }),
    )
}

/// The templates that have samples, each with them, and the hours that the statistics span. The time of a template is that of all its
/// executions as if they had run as the newest ones do: a span in which the planner saw less than half or more than twice the cost
/// had another plan, or tables of another size, and would say something else of what a unit of cost takes.
pub fn templates(filter: &Filter) -> Result<(Vec<Template>, f64)> {
    let hours: Option<f64> = spi::value(
        "SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.min(bucket_at))::float8 / 3600 FROM indexpilot.workload_stats",
        json!({}),
    )?;
    let templates = spi::rows(
        "WITH spans AS (
             SELECT q.workload_id, q.bucket_at, pg_catalog.sum(q.calls)::float8 AS calls, pg_catalog.sum(q.errors)::float8 AS errors,
                    pg_catalog.sum(q.total_ms) AS ms, pg_catalog.sum(q.error_ms) AS error_ms,
                    pg_catalog.sum(q.planner_cost) / NULLIF(pg_catalog.sum(q.calls), 0)::float8 AS cost
               FROM indexpilot.workload_stats q
              WHERE $1->'filter'->>'tenant_id' IS NULL OR q.tenant_id = $1->'filter'->>'tenant_id'
              GROUP BY q.workload_id, q.bucket_at
         ), known AS (
             SELECT s.*, (pg_catalog.array_agg(s.cost) FILTER (WHERE s.cost > 0) OVER (PARTITION BY s.workload_id
                              ORDER BY s.bucket_at DESC ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING))[1] AS now
               FROM spans s
         ), measured AS (
             SELECT k.workload_id, pg_catalog.sum(k.calls + k.errors) AS calls,
                    pg_catalog.sum(k.error_ms) + COALESCE(
                        pg_catalog.sum(k.calls) * pg_catalog.sum(k.ms) FILTER (WHERE k.cost BETWEEN k.now / 2 AND k.now * 2)
                            / NULLIF(pg_catalog.sum(k.calls) FILTER (WHERE k.cost BETWEEN k.now / 2 AND k.now * 2), 0),
                        pg_catalog.sum(k.ms)) AS total_ms
               FROM known k GROUP BY k.workload_id
         )
         SELECT w.id, COALESCE(w.query, '') AS query, w.role_id::bigint AS role_id, m.calls, m.total_ms,
                (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('query', s.query, 'search_path', s.search_path,
                         'parameter_types', s.parameter_types::bigint[], 'parameter_values', s.parameter_values) ORDER BY s.id DESC)
                   FROM indexpilot.workload_sample s WHERE s.workload_id = w.id) AS samples
           FROM indexpilot.workload w JOIN measured m ON m.workload_id = w.id
          WHERE w.command IN ('select', 'insert', 'update', 'delete', 'merge')
            AND (pg_catalog.jsonb_array_length($1->'filter'->'tables') = 0
                 OR w.relations && ARRAY(SELECT e::oid FROM pg_catalog.jsonb_array_elements_text($1->'filter'->'tables') e))
            AND EXISTS (SELECT FROM indexpilot.workload_sample s WHERE s.workload_id = w.id)
          ORDER BY w.id",
        json!({ "filter": filter }),
    )?;
    Ok((templates, hours.unwrap_or(0.0).max(1.0 / 60.0)))
}

/// Remembers what planning a template gave; errors as [`indexpilot_core::profile::failure_text`] makes them. One that another session has locked is left as it is: waiting for a flush that waits for
/// us would be a deadlock.
pub fn set_plan_states(planned: &[(i64, f64)], failed: &[(i64, String)]) -> Result<()> {
    let rows: Vec<_> = planned
        .iter()
        .map(|(id, cost)| json!({ "id": id, "state": "plannable", "cost": cost }))
        .chain(failed.iter().map(|(id, error)| json!({ "id": id, "state": "unplannable", "error": error })))
        .collect();
    spi::execute(
        "UPDATE indexpilot.workload w SET plan_state = p.state, plan_error = p.error, base_cost = COALESCE(p.cost, w.base_cost)
           FROM pg_catalog.jsonb_to_recordset($1->'rows') AS p(id bigint, state text, error text, cost float8)
          WHERE w.id = p.id AND w.id = ANY (ARRAY(
                SELECT l.id FROM indexpilot.workload l
                 WHERE l.id = ANY (ARRAY(SELECT (e->>'id')::bigint FROM pg_catalog.jsonb_array_elements($1->'rows') e))
                   FOR NO KEY UPDATE SKIP LOCKED))",
        json!({ "rows": rows }),
    )?;
    Ok(())
}

/// Joins the spans of each hour that is over for two hours, so that old times take little room. What a cut parts stays apart. The
/// caller has the right to flush.
pub fn join_hours(tenants: u32) -> Result<()> {
    // Older spans were joined before; those of a longer pause stay as they are until their time is over.
    const HOURS: &str =
        "q.bucket_at >= pg_catalog.date_bin('1 hour', pg_catalog.now() - interval '4 hours', '2000-01-01 00:00:00+00')
        AND q.bucket_at < pg_catalog.date_bin('1 hour', pg_catalog.now() - interval '2 hours', '2000-01-01 00:00:00+00')";
    let some: Option<bool> = spi::value(
        &format!(
            "SELECT EXISTS (SELECT FROM indexpilot.workload_stats q
                             WHERE {HOURS} AND q.bucket_at <> pg_catalog.date_bin('1 hour', q.bucket_at, '2000-01-01 00:00:00+00')) AS some"
        ),
        json!({}),
    )?;
    if some != Some(true) {
        return Ok(());
    }
    // Each step has as many rows as the tables, whatever old statistics say.
    let _scope = spi::SettingScope::new(&[(c"enable_nestloop", c"off")]);
    spi::execute(
        &format!(
            "WITH spans AS (
                 SELECT b.bucket_at, GREATEST(pg_catalog.date_bin('1 hour', b.bucket_at, '2000-01-01 00:00:00+00'),
                        (SELECT pg_catalog.max(a.finished_at) FROM indexpilot.actions a WHERE a.finished_at <= b.bucket_at)) AS whole
                   FROM (SELECT DISTINCT q.bucket_at FROM indexpilot.workload_stats q WHERE {HOURS}) b
             ), ranked AS (
                 SELECT q.workload_id, s.whole, q.tenant_id,
                        pg_catalog.row_number() OVER (PARTITION BY q.workload_id, s.whole
                            ORDER BY pg_catalog.sum(q.total_ms + q.error_ms) DESC, q.tenant_id) AS nth
                   FROM indexpilot.workload_stats q JOIN spans s ON s.bucket_at = q.bucket_at
                  WHERE q.tenant_id <> '' GROUP BY q.workload_id, s.whole, q.tenant_id
             ), gone AS (
                 DELETE FROM indexpilot.workload_stats q USING spans s
                  WHERE q.bucket_at = s.bucket_at
                    AND (s.whole <> s.bucket_at OR EXISTS (
                         SELECT FROM ranked r WHERE r.workload_id = q.workload_id AND r.whole = s.whole AND r.tenant_id = q.tenant_id
                            AND r.nth > ($1->>'tenants')::bigint))
                 RETURNING q.*, s.whole
             )
             INSERT INTO indexpilot.workload_stats AS q
             SELECT p.workload_id, COALESCE(r.tenant_id, '') AS tenant, p.whole, {SUMS}
               FROM gone p LEFT JOIN ranked r ON r.workload_id = p.workload_id AND r.whole = p.whole AND r.tenant_id = p.tenant_id
                                             AND r.nth <= ($1->>'tenants')::bigint
              GROUP BY p.workload_id, tenant, p.whole
             {ADD}"
        ),
        json!({ "tenants": tenants }),
    )?;
    Ok(())
}

/// Remembers what was captured in templates that go (`gone`), so that it is not taken for history later.
const KEEP_CAPTURED: &str = "INSERT INTO indexpilot.imported_statements AS i (queryid, role_id, nested, captured_gone)
    SELECT g.queryid, g.role_id, g.nested, LEAST(pg_catalog.sum(g.captured_calls), 9223372036854775807)
      FROM gone g WHERE g.captured_calls > 0 GROUP BY g.queryid, g.role_id, g.nested ORDER BY g.queryid, g.role_id, g.nested
    ON CONFLICT (queryid, role_id, nested) DO UPDATE SET imported_at = pg_catalog.now(),
           captured_gone = LEAST(i.captured_gone::numeric + excluded.captured_gone, 9223372036854775807)";
/// Statements that are remembered so, many times what pg_stat_statements holds.
const REMEMBERED: usize = 100_000;

/// Deletes statistics older than `keep`, and templates that have none left.
pub fn retain(keep: Duration) -> Result<()> {
    let args = json!({ "keep_s": keep.as_secs_f64() });
    spi::execute(
        "DELETE FROM indexpilot.workload_stats
          WHERE bucket_at < pg_catalog.now() - pg_catalog.make_interval(secs => ($1->>'keep_s')::float8)",
        args.clone(),
    )?;
    let remembered = spi::execute(
        &format!(
            "WITH gone AS (
                 DELETE FROM indexpilot.workload d WHERE d.id = ANY (ARRAY(
                     SELECT w.id FROM indexpilot.workload w
                      WHERE w.last_seen_at < pg_catalog.now() - pg_catalog.make_interval(secs => ($1->>'keep_s')::float8)
                        AND NOT EXISTS (SELECT FROM indexpilot.workload_stats q WHERE q.workload_id = w.id)
                        FOR UPDATE SKIP LOCKED))
                 RETURNING d.*
             ) {KEEP_CAPTURED}"
        ),
        args.clone(),
    )?;
    if remembered > 0 {
        remember_less()?;
    }
    // A document that is brought again after this long has nothing that would be kept.
    spi::execute(
        "DELETE FROM indexpilot.workload_imports
          WHERE imported_at < pg_catalog.now() - pg_catalog.make_interval(secs => ($1->>'keep_s')::float8)",
        args,
    )?;
    Ok(())
}

/// Forgets the statements that were written longest ago when there are too many.
fn remember_less() -> Result<()> {
    spi::execute(
        "DELETE FROM indexpilot.imported_statements d WHERE (d.queryid, d.role_id, d.nested) IN (
             SELECT i.queryid, i.role_id, i.nested FROM indexpilot.imported_statements i
              ORDER BY i.imported_at DESC, i.queryid, i.role_id, i.nested OFFSET ($1->>'most')::bigint)",
        json!({ "most": REMEMBERED }),
    )?;
    Ok(())
}

/// Gives up templates when there are more than `most`: those with the least execution time, which counts half for every day that
/// they were not seen. What a living index is being judged by stays.
pub fn prune(most: usize) -> Result<()> {
    let pruned = spi::execute(
        &format!(
            "WITH gone AS (
         DELETE FROM indexpilot.workload d USING (
             SELECT w.id FROM indexpilot.workload w
              CROSS JOIN LATERAL (SELECT COALESCE(pg_catalog.sum(s.total_ms + s.error_ms), 0) AS ms
                                    FROM indexpilot.workload_stats s WHERE s.workload_id = w.id) q
              WHERE NOT EXISTS (SELECT FROM indexpilot.recommendations r JOIN indexpilot.actions a ON a.recommendation_id = r.id
                                 WHERE a.state IN ('queued', 'building', 'built', 'verifying') AND w.id = ANY (r.workload_ids))
              ORDER BY pg_catalog.ln(GREATEST(q.ms, 1e-9)) / pg_catalog.ln(2::float8)
                           - GREATEST(0, EXTRACT(epoch FROM pg_catalog.now() - w.last_seen_at) / 86400)::float8,
                       w.last_seen_at, w.id
              LIMIT GREATEST(0, (SELECT pg_catalog.count(*) FROM indexpilot.workload) - ($1->>'most')::bigint)
                FOR UPDATE OF w SKIP LOCKED) r
          WHERE d.id = r.id
         RETURNING d.*
         ), remembered AS (
         {KEEP_CAPTURED}
         )
         UPDATE indexpilot.control SET templates_pruned = templates_pruned + g.pruned
           FROM (SELECT pg_catalog.count(*) AS pruned FROM gone) g WHERE g.pruned > 0"
        ),
        json!({ "most": most }),
    )?;
    if pruned > 0 {
        remember_less()?;
    }
    Ok(())
}

/// Forgets everything that was captured, but not that it was. The caller has the right to flush.
pub fn reset() -> Result<()> {
    spi::execute(&format!("WITH gone AS (DELETE FROM indexpilot.workload d RETURNING d.*) {KEEP_CAPTURED}"), json!({}))?;
    spi::execute("DELETE FROM indexpilot.reported_stats", json!({}))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stay_within_what_the_tables_hold() {
        let most = Counted {
            calls: 1,
            rows: u64::MAX,
            total_ms: f64::INFINITY,
            max_ms: f64::NAN,
            histogram: vec![u64::MAX],
            ..Counted::default()
        };
        let bounded = most.bounded();
        assert_eq!((bounded.calls, bounded.rows, bounded.histogram.as_slice()), (1, MOST, &[MOST][..]));
        assert!(bounded.total_ms.is_finite() && bounded.max_ms == 0.0);
        let mut sum = bounded.clone();
        sum.add(&bounded);
        assert_eq!((sum.calls, sum.rows, sum.histogram.as_slice()), (2, MOST, &[MOST][..]));
    }
}
