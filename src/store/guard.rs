//! What the guard wants to know of IndexPilot's own tables, and what it notes there: guard_metrics and guard_stops.

use crate::pg::error::{Error, Result};
use crate::pg::spi;
use indexpilot_core::guard::{Finding, Past};
use serde::Deserialize;
use serde_json::json;

/// Actions whose outcome the circuit breaker looks at.
const PAST: usize = 200;
/// Starts that the rate limits look at.
const STARTS: usize = 10_000;

/// Figures about the actions of this database.
#[derive(Clone, Debug, Deserialize)]
pub struct History {
    /// How long ago actions were started, seconds.
    pub started_s_ago: Vec<f64>,
    /// How the latest actions went.
    pub past: Vec<Past>,
    /// How long ago an index of the same definition was taken back, seconds.
    pub reverted_s_ago: Option<f64>,
    /// How often it was.
    pub reverted_times: usize,
    /// Size that an index of the same definition had.
    pub built_bytes: Option<u64>,
    /// `disable_system()` was called: why.
    pub disabled: Option<String>,
    /// The index is protected.
    pub protected: bool,
    /// Captured statements that read the table, and that wrote to it.
    pub reads: u64,
    pub writes: u64,
    /// How long ago the load was beyond its limit, seconds.
    pub overloaded_s_ago: Option<f64>,
}

/// Whose history is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    pub table_id: u32,
    pub definition: &'a str,
    pub index_id: Option<u32>,
    pub index_schema: &'a str,
    pub index_name: &'a str,
    /// The decision that is carried out.
    pub recommendation_id: Option<i64>,
}

/// See [`History`]; `index_id` where the index is there already.
/// What a decision does to many partitions is one start.
pub fn history(about: &Subject<'_>) -> Result<History> {
    let sql = "SELECT \
         (SELECT coalesce(jsonb_agg(extract(epoch FROM clock_timestamp() - s.started_at)::float8), '[]') FROM \
            (SELECT max(started_at) AS started_at FROM indexpilot.actions WHERE attempts > 0 AND reverts IS NULL \
                AND (recommendation_id IS NULL OR recommendation_id IS DISTINCT FROM ($1->>'recommendation_id')::bigint) \
              GROUP BY coalesce(-recommendation_id, id) \
              ORDER BY 1 DESC LIMIT ($1->>'starts')::integer) s) AS started_s_ago, \
         (SELECT coalesce(jsonb_agg(jsonb_build_object('outcome', p.outcome, \
                   'started_s_ago', extract(epoch FROM clock_timestamp() - p.started_at)::float8, \
                   'settled_s_ago', extract(epoch FROM clock_timestamp() - p.settled_at)::float8)), '[]') FROM \
            (SELECT a.started_at, coalesce(CASE WHEN a.state IN ('kept', 'reverted') THEN a.verified_at \
                                                WHEN a.state IN ('failed', 'done') THEN a.finished_at END, a.started_at) AS settled_at, \
                    CASE WHEN a.state = 'failed' THEN 'bad' \
                         WHEN a.state IN ('kept', 'done') THEN 'good' \
                         WHEN a.state IN ('building', 'built', 'verifying') THEN 'open' \
                         WHEN a.state = 'reverted' AND EXISTS (SELECT FROM indexpilot.verifications v \
                              WHERE v.action_id = a.id AND v.verdict = 'reverted') THEN 'bad' END AS outcome \
               FROM indexpilot.actions a WHERE a.attempts > 0 AND a.reverts IS NULL \
              ORDER BY a.id DESC LIMIT ($1->>'past')::integer) p WHERE p.outcome IS NOT NULL) AS past, \
         r.reverted_s_ago, r.reverted_times, \
         (SELECT b.index_bytes FROM indexpilot.actions b WHERE b.table_id = ($1->>'table_id')::oid \
             AND b.definition = $1->>'definition' AND b.index_bytes IS NOT NULL ORDER BY b.id DESC LIMIT 1) AS built_bytes, \
         (SELECT coalesce(disabled_reason, 'no reason was given') FROM indexpilot.switch WHERE disabled) AS disabled, \
         EXISTS (SELECT FROM indexpilot.protected_indexes p \
                  WHERE (p.index_schema = ($1->>'index_schema')::name AND p.index_name = ($1->>'index_name')::name) \
                     OR (p.index_id = ($1->>'index_id')::oid AND to_regclass(format('%I.%I', p.index_schema, p.index_name)) IS NULL)) AS protected, \
         t.reads, t.writes, \
         (SELECT extract(epoch FROM clock_timestamp() - m.breached_at)::float8 FROM indexpilot.guard_metrics m \
           WHERE m.rule = 'load') AS overloaded_s_ago \
       FROM (SELECT count(*) AS reverted_times, \
                    extract(epoch FROM clock_timestamp() - max(coalesce(d.finished_at, c.verified_at)))::float8 AS reverted_s_ago \
               FROM indexpilot.actions c LEFT JOIN indexpilot.actions d ON d.reverts = c.id AND d.state = 'done' \
              WHERE c.kind = 'create' AND c.state = 'reverted' \
                AND (c.table_id = ($1->>'table_id')::oid AND c.definition = $1->>'definition' \
                     OR c.recommendation_id IN (SELECT p.id FROM indexpilot.recommendations p \
                          WHERE p.table_id = ($1->>'table_id')::oid AND p.definition = $1->>'definition'))) r, \
            (SELECT least(coalesce(sum(u.calls) FILTER (WHERE u.reads), 0), 1e18)::bigint AS reads, \
                    least(coalesce(sum(u.calls) FILTER (WHERE u.writes), 0), 1e18)::bigint AS writes \
               FROM (SELECT q.calls, w.command NOT IN ('insert', 'utility') OR NOT coalesce(k.written, true) AS reads, \
                            coalesce(k.written, w.command IN ('insert', 'update', 'delete', 'merge')) AS writes \
                       FROM (SELECT ($1->>'table_id')::oid || ARRAY(SELECT a.relid::oid \
                               FROM pg_partition_ancestors(($1->>'table_id')::oid::regclass) a) AS names) n \
                       JOIN indexpilot.workload w ON true \
                       JOIN indexpilot.workload_stats q ON q.workload_id = w.id \
                       LEFT JOIN LATERAL (SELECT bool_or(o.written) AS written FROM indexpilot.workload_table o \
                         WHERE o.workload_id = w.id AND o.table_id = ANY (n.names)) k ON true \
                      WHERE w.relations && n.names) u) t";
    let args = json!({ "table_id": about.table_id, "definition": about.definition, "index_id": about.index_id,
        "index_schema": about.index_schema, "index_name": about.index_name, "recommendation_id": about.recommendation_id,
        "starts": STARTS, "past": PAST });
    spi::row(sql, args)?.ok_or_else(|| Error::internal("no figures about the actions"))
}

/// Counts what the rules said of an action. `overloaded`: the load itself was beyond its limit.
pub fn count(action_id: i64, findings: &[Finding], overloaded: bool) -> Result<()> {
    let sql = "INSERT INTO indexpilot.guard_metrics AS m (rule, evaluated, waited, refused, breached_at, objected_at, action_id, detail) \
               SELECT f.rule, 1, (f.verdict = 'wait')::integer, (f.verdict = 'refuse')::integer, \
                      CASE WHEN f.rule = 'load' AND ($1->>'overloaded')::boolean THEN clock_timestamp() END, \
                      CASE WHEN f.verdict <> 'pass' THEN clock_timestamp() END, \
                      CASE WHEN f.verdict <> 'pass' THEN ($1->>'action_id')::bigint END, \
                      CASE WHEN f.verdict <> 'pass' THEN f.detail END \
                 FROM jsonb_to_recordset($1->'findings') AS f(rule text, verdict text, detail text) ORDER BY f.rule \
               ON CONFLICT (rule) DO UPDATE SET evaluated = m.evaluated + 1, waited = m.waited + excluded.waited, \
                      refused = m.refused + excluded.refused, breached_at = coalesce(excluded.breached_at, m.breached_at), \
                      objected_at = coalesce(excluded.objected_at, m.objected_at), \
                      action_id = coalesce(excluded.action_id, m.action_id), detail = coalesce(excluded.detail, m.detail)";
    spi::execute(sql, json!({ "action_id": action_id, "findings": findings, "overloaded": overloaded }))?;
    Ok(())
}

/// A rule wants a running attempt of an action interrupted; `false` when one did so before.
pub fn note_stop(action_id: i64, attempt: u32, rule: &str, detail: &str) -> Result<bool> {
    let sql = "INSERT INTO indexpilot.guard_stops (action_id, attempt, rule, detail) \
               VALUES (($1->>'id')::bigint, ($1->>'attempt')::integer, $1->>'rule', $1->>'detail') ON CONFLICT DO NOTHING";
    Ok(spi::execute(sql, json!({ "id": action_id, "attempt": attempt, "rule": rule, "detail": detail }))? == 1)
}

/// The rule that had an attempt interrupted.
#[derive(Clone, Debug, Deserialize)]
pub struct Stop {
    pub rule: String,
    pub detail: String,
    /// Attempts of the action that were interrupted so, this one included.
    pub stops: u32,
}

/// Why the guard had the attempt interrupted; `None` when it did not.
pub fn stop_of(action_id: i64, attempt: u32) -> Result<Option<Stop>> {
    let sql = "SELECT s.rule, s.detail, (SELECT count(*) FROM indexpilot.guard_stops o WHERE o.action_id = s.action_id) AS stops \
               FROM indexpilot.guard_stops s WHERE s.action_id = ($1->>'id')::bigint AND s.attempt = ($1->>'attempt')::integer";
    spi::row(sql, json!({ "id": action_id, "attempt": attempt }))
}

/// Attempts of the action that the guard had interrupted.
pub fn stops(action_id: i64) -> Result<u32> {
    let sql = "SELECT count(*) AS stops FROM indexpilot.guard_stops WHERE action_id = ($1->>'id')::bigint";
    Ok(spi::value(sql, json!({ "id": action_id }))?.unwrap_or(0))
}

/// Counts that a rule had a running action interrupted.
pub fn count_stop(action_id: i64, stop: &Stop) -> Result<()> {
    let sql = "INSERT INTO indexpilot.guard_metrics AS m (rule, stopped, objected_at, action_id, detail) \
               VALUES ($1->>'rule', 1, clock_timestamp(), ($1->>'id')::bigint, $1->>'detail') \
               ON CONFLICT (rule) DO UPDATE SET stopped = m.stopped + 1, objected_at = excluded.objected_at, \
                      action_id = excluded.action_id, detail = excluded.detail";
    spi::execute(sql, json!({ "id": action_id, "rule": stop.rule, "detail": stop.detail }))?;
    Ok(())
}
