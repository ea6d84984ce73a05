//! Table verifications: what was measured before and after an index appeared.

use crate::pg::error::Result;
use crate::pg::spi;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A row; the names are the columns'.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verification {
    pub action_id: i64,
    /// kept, neutral, reverted or pending
    pub verdict: String,
    pub reason: String,
    pub workload_id: Option<i64>,
    /// cited, other, write or summary
    pub role: String,
    pub calls_before: u64,
    pub calls_after: u64,
    pub mean_ms_before: Option<f64>,
    pub mean_ms_after: Option<f64>,
    pub p95_ms_before: Option<f64>,
    pub p95_ms_after: Option<f64>,
    pub change_ratio: Option<f64>,
    pub p_value: Option<f64>,
}

const COLUMNS: &str = "action_id, verdict, reason, workload_id, role, calls_before, calls_after, mean_ms_before, mean_ms_after, \
                       p95_ms_before, p95_ms_after, change_ratio, p_value";

/// Replaces what was measured for the action so far: the rows of one judgement belong together.
pub fn replace(action_id: i64, rows: &[Verification]) -> Result<()> {
    spi::execute("DELETE FROM indexpilot.verifications WHERE action_id = ($1->>'id')::bigint", json!({ "id": action_id }))?;
    let sql = format!(
        "INSERT INTO indexpilot.verifications ({COLUMNS}) SELECT {COLUMNS} FROM \
         jsonb_populate_recordset(NULL::indexpilot.verifications, $1->'rows')"
    );
    spi::execute(&sql, json!({ "rows": rows }))?;
    Ok(())
}
