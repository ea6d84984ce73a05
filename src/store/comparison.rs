//! Tables trials and trial_stats: indexes that a share of the transactions sees, and what was measured of each arm.

use super::measure;
use super::trial::Target;
use super::workload::Counted;
use crate::pg::error::Result;
use crate::pg::spi;
use indexpilot_core::trial::Arm;
use indexpilot_core::verify::Measured;
use serde::Deserialize;
use serde_json::json;

/// A trial.
#[derive(Clone, Debug, Deserialize)]
pub struct Comparison {
    pub id: i64,
    pub kind: String,
    pub percent: f64,
    pub ended: bool,
}

const SELECT: &str = "SELECT t.id, t.kind, t.percent, t.ended_at IS NOT NULL AS ended FROM indexpilot.trials t WHERE";

/// One trial.
pub fn get(id: i64) -> Result<Option<Comparison>> {
    spi::row(&format!("{SELECT} t.id = ($1->>'id')::bigint"), json!({ "id": id }))
}

/// The trial of the index that an action built.
pub fn of_action(action_id: i64) -> Result<Option<Comparison>> {
    spi::row(&format!("{SELECT} t.action_id = ($1->>'id')::bigint ORDER BY t.id DESC LIMIT 1"), json!({ "id": action_id }))
}

/// Those that run.
pub fn running() -> Result<Vec<Comparison>> {
    spi::rows(&format!("{SELECT} t.ended_at IS NULL ORDER BY t.id"), json!({}))
}

/// Begins a trial and returns its number.
pub fn begin(a: &Target, b: Option<&Target>, kind: &str, percent: f64, action_id: Option<i64>, actor: &str) -> Result<i64> {
    let sql = "INSERT INTO indexpilot.trials (kind, table_id, table_schema, table_name, index_a, index_b, percent, action_id, actor) \
               VALUES ($1->>'kind', ($1->'a'->>'table_id')::oid, $1->'a'->>'table_schema', $1->'a'->>'table_name', \
                 $1->'a'->>'index_name', $1->'b'->>'index_name', ($1->>'percent')::float8, ($1->>'action_id')::bigint, \
                 $1->>'actor') RETURNING id";
    let args = json!({ "a": a, "b": b, "kind": kind, "percent": percent, "action_id": action_id, "actor": actor });
    Ok(spi::value(sql, args)?.unwrap_or_default())
}

/// The trial is over.
pub fn end(id: i64, outcome: &str) -> Result<()> {
    let sql = "UPDATE indexpilot.trials SET ended_at = clock_timestamp(), outcome = $1->>'outcome' \
               WHERE id = ($1->>'id')::bigint AND ended_at IS NULL";
    spi::execute(sql, json!({ "id": id, "outcome": outcome }))?;
    Ok(())
}

/// Adds executions to the trials on their tables. The templates are in the table workload already.
pub fn record(counted: &[&Counted]) -> Result<()> {
    let counted: Vec<Counted> = counted.iter().map(|c| c.bounded()).collect();
    let arms: Vec<&str> = Arm::ALL.iter().map(|arm| arm.as_str()).collect();
    let sql = "INSERT INTO indexpilot.trial_stats AS s (trial_id, workload_id, arm, calls, errors, total_ms, sum_squares_ms, histogram) \
               SELECT t.id, w.id, $1->'arms'->>c.arm, sum(c.calls), sum(c.errors), sum(c.total_ms), sum(c.sum_squares_ms), \
                 indexpilot.histogram_sum(c.histogram) \
               FROM jsonb_to_recordset($1->'rows') AS c(queryid bigint, role_id oid, relations_hash bigint, nested boolean, arm integer, \
                   calls bigint, errors bigint, total_ms float8, sum_squares_ms float8, histogram bigint[]) \
                 JOIN indexpilot.workload w USING (queryid, role_id, relations_hash, nested) \
                 JOIN indexpilot.trials t ON t.ended_at IS NULL AND t.table_id = ANY (w.relations) \
               GROUP BY t.id, w.id, c.arm \
               ON CONFLICT (trial_id, workload_id, arm) DO UPDATE SET calls = s.calls + excluded.calls, \
                 errors = s.errors + excluded.errors, total_ms = s.total_ms + excluded.total_ms, \
                 sum_squares_ms = s.sum_squares_ms + excluded.sum_squares_ms, \
                 histogram = indexpilot.histogram_add(s.histogram, excluded.histogram)";
    spi::execute(sql, json!({ "rows": counted, "arms": arms }))?;
    Ok(())
}

/// The queries on the table of a trial: the control as what was before, the arm as what came after. Those that the decision named are
/// cited.
pub fn measured(id: i64, arm: Arm) -> Result<Vec<Measured>> {
    let sums = |arm: &str| {
        format!(
            "(SELECT pg_catalog.jsonb_build_object('calls', s.calls, 'errors', s.errors, 'total_ms', s.total_ms, \
               'sum_squares_ms', s.sum_squares_ms, 'histogram', s.histogram) FROM indexpilot.trial_stats s \
              WHERE s.trial_id = t.id AND s.workload_id = w.id AND s.arm = {arm})"
        )
    };
    let sql = format!(
        "SELECT w.id, CASE WHEN w.id = ANY (COALESCE(r.workload_ids, '{{}}')) THEN 'cited' \
                  WHEN w.command IN ('insert', 'update', 'delete', 'merge') THEN 'write' ELSE 'other' END AS role, \
                coalesce({}, '{{}}') AS before, coalesce({}, '{{}}') AS after \
           FROM indexpilot.trials t LEFT JOIN indexpilot.actions a ON a.id = t.action_id \
             LEFT JOIN indexpilot.recommendations r ON r.id = a.recommendation_id \
             JOIN indexpilot.workload w ON w.relations @> ARRAY[t.table_id] \
          WHERE t.id = ($1->>'id')::bigint ORDER BY w.id",
        sums("'control'"),
        sums("$1->>'arm'")
    );
    measure::read(&sql, json!({ "id": id, "arm": arm.as_str() }))
}

/// Text of a template.
pub fn query(workload_id: i64) -> Result<Option<String>> {
    spi::value("SELECT query FROM indexpilot.workload WHERE id = ($1->>'id')::bigint", json!({ "id": workload_id }))
}
