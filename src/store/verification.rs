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

/// What the server has counted of a table and its index.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Counters {
    pub updates: u64,
    pub hot_updates: u64,
    pub scans: Option<u64>,
}

/// See [`Counters`]. Waits for nobody.
pub fn counters(table_id: u32, index_id: Option<u32>) -> Result<Counters> {
    let sql = "SELECT coalesce(sum(s.n_tup_upd), 0)::bigint AS updates, coalesce(sum(s.n_tup_hot_upd), 0)::bigint AS hot_updates, \
                 (SELECT i.idx_scan FROM pg_stat_all_indexes i WHERE i.indexrelid = ($1->>'index')::oid) AS scans \
               FROM pg_stat_all_tables s WHERE s.relid = ($1->>'table')::oid";
    Ok(spi::row(sql, json!({ "table": table_id, "index": index_id }))?.unwrap_or_default())
}

/// The server's counters when measuring began.
pub fn begin(action_id: i64, counters: &Counters) -> Result<()> {
    let sql = "INSERT INTO indexpilot.verification_figures (action_id, updates_begun, hot_updates_begun, scans_begun) \
               VALUES (($1->>'id')::bigint, ($1->>'updates')::bigint, ($1->>'hot')::bigint, ($1->>'scans')::bigint) \
               ON CONFLICT (action_id) DO NOTHING";
    let args = json!({ "id": action_id, "updates": counters.updates, "hot": counters.hot_updates, "scans": counters.scans });
    spi::execute(sql, args)?;
    Ok(())
}

/// What was noted when measuring began and at the last look.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Begun {
    pub updates_begun: Option<u64>,
    pub hot_updates_begun: Option<u64>,
    pub scans_begun: Option<u64>,
    pub looks: u32,
    /// Seconds since the Unix epoch.
    pub looked_at: Option<f64>,
}

/// See [`Begun`]; nothing was noted of an action that is watched in another way.
pub fn begun(action_id: i64) -> Result<Begun> {
    let sql = "SELECT updates_begun, hot_updates_begun, scans_begun, looks, extract(epoch FROM looked_at)::float8 AS looked_at \
               FROM indexpilot.verification_figures WHERE action_id = ($1->>'id')::bigint";
    Ok(spi::row(sql, json!({ "id": action_id }))?.unwrap_or_default())
}

/// What a look has found.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Found {
    pub looks: u32,
    pub observation_s: f64,
    pub scans: Option<u64>,
    pub updates: Option<u64>,
    pub hot_share_before: Option<f64>,
    pub hot_share_after: Option<f64>,
    pub drift: f64,
    pub saved_ms: f64,
    pub lost_ms: f64,
}

/// Notes what a look has found.
pub fn looked(action_id: i64, found: &Found) -> Result<()> {
    let sql = "INSERT INTO indexpilot.verification_figures AS v (action_id, looks, looked_at, observation_s, scans, updates, \
                 hot_share_before, hot_share_after, drift, saved_ms, lost_ms) \
               SELECT ($1->>'id')::bigint, f.looks, clock_timestamp(), f.observation_s, f.scans, f.updates, f.hot_share_before, \
                 f.hot_share_after, f.drift, f.saved_ms, f.lost_ms \
               FROM jsonb_to_record($1->'found') AS f(looks integer, observation_s float8, scans bigint, updates bigint, \
                 hot_share_before float8, hot_share_after float8, drift float8, saved_ms float8, lost_ms float8) \
               ON CONFLICT (action_id) DO UPDATE SET looks = excluded.looks, looked_at = excluded.looked_at, \
                 observation_s = excluded.observation_s, scans = excluded.scans, updates = excluded.updates, \
                 hot_share_before = excluded.hot_share_before, hot_share_after = excluded.hot_share_after, drift = excluded.drift, \
                 saved_ms = excluded.saved_ms, lost_ms = excluded.lost_ms";
    spi::execute(sql, json!({ "id": action_id, "found": found }))?;
    Ok(())
}
