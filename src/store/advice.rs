//! query_verdicts: for each template, which index is proposed for it or why none is.

use crate::pg::error::Result;
use crate::pg::spi;
use serde::Serialize;
use serde_json::json;

/// What an analysis says of one template.
#[derive(Clone, Debug, Serialize)]
pub struct Advice {
    pub workload_id: i64,
    pub reason: String,
    pub reason_detail: String,
    pub cost_before: Option<f64>,
    pub cost_after: Option<f64>,
    pub ms_per_cost: Option<f64>,
    pub recommendation_ids: Vec<i64>,
}

/// Keeps what a run says, in place of what earlier ones said. Templates that another session is deleting are left out: waiting for
/// a flush that waits for us would be a deadlock.
pub fn save(analysis_id: i64, advice: &[Advice]) -> Result<()> {
    if advice.is_empty() {
        return Ok(());
    }
    spi::execute(
        "WITH here AS MATERIALIZED (
             SELECT w.id FROM indexpilot.workload w
              WHERE w.id = ANY (ARRAY(SELECT (e->>'workload_id')::bigint FROM pg_catalog.jsonb_array_elements($1->'rows') e))
                FOR KEY SHARE SKIP LOCKED)
         INSERT INTO indexpilot.query_verdicts (workload_id, analysis_id, reason, reason_detail, cost_before, cost_after, ms_per_cost,
                recommendation_ids)
         SELECT r.workload_id, ($1->>'analysis')::bigint, r.reason, r.reason_detail, r.cost_before, r.cost_after, r.ms_per_cost,
                r.recommendation_ids
           FROM pg_catalog.jsonb_to_recordset($1->'rows') AS r(workload_id bigint, reason text, reason_detail text, cost_before float8,
                cost_after float8, ms_per_cost float8, recommendation_ids bigint[])
                JOIN here ON here.id = r.workload_id
          ORDER BY r.workload_id
         ON CONFLICT (workload_id) DO UPDATE SET analysis_id = excluded.analysis_id, decided_at = pg_catalog.now(),
                reason = excluded.reason, reason_detail = excluded.reason_detail, cost_before = excluded.cost_before,
                cost_after = excluded.cost_after, ms_per_cost = excluded.ms_per_cost,
                recommendation_ids = excluded.recommendation_ids",
        json!({ "analysis": analysis_id, "rows": advice }),
    )?;
    Ok(())
}
