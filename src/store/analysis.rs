//! analyses and recommendations: what was weighed, what was decided and why.

use crate::pg::error::Result;
use crate::pg::spi;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// The figures of a finished run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub queries: usize,
    pub unplannable: usize,
    pub candidates: usize,
    pub planner_calls: u64,
    pub method: &'static str,
    pub storage_budget_bytes: u64,
    pub cost_before: f64,
    pub cost_after: f64,
    pub gap: f64,
}

/// One decision, as it is written and read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recommendation {
    #[serde(default)]
    pub id: i64,
    #[serde(default)]
    pub analysis_id: i64,
    pub state: String,
    pub reason: String,
    pub reason_detail: String,
    pub table_id: u32,
    pub table_schema: String,
    pub table_name: String,
    pub index_name: Option<String>,
    pub columns: Vec<String>,
    /// CREATE INDEX statement.
    pub definition: String,
    /// The definition as a document (`IndexDef`).
    pub index_def: Value,
    pub estimated_bytes: i64,
    pub estimated_build_ms: Option<f64>,
    pub cost_before: Option<f64>,
    pub cost_after: Option<f64>,
    pub saved_ms_per_hour: Option<f64>,
    pub write_ms_per_hour: Option<f64>,
    pub workload_ids: Vec<i64>,
    pub details: Value,
    pub guard: Value,
    /// Who approved, rejected or queued it; `None` where nobody has, as when a rule of the guard rejected it.
    #[serde(default, skip_serializing)]
    pub decided_by: Option<String>,
}

/// Starts a run and returns its number. `cause` is `call` or `worker`.
pub fn begin(cause: &str) -> Result<i64> {
    let id = spi::value(
        "INSERT INTO indexpilot.analyses (cause, actor) VALUES ($1->>'cause',
            CASE WHEN $1->>'cause' = 'worker' THEN 'indexpilot' ELSE session_user END) RETURNING id",
        json!({ "cause": cause }),
    )?;
    Ok(id.unwrap_or_default())
}

/// Ends a run.
pub fn finish(id: i64, run: &Run) -> Result<()> {
    spi::execute(
        "UPDATE indexpilot.analyses a SET finished_at = pg_catalog.clock_timestamp(), queries = r.queries,
                unplannable = r.unplannable, candidates = r.candidates, planner_calls = r.planner_calls, method = r.method,
                storage_budget_bytes = r.storage_budget_bytes, cost_before = r.cost_before, cost_after = r.cost_after, gap = r.gap
           FROM pg_catalog.jsonb_to_record($1->'run') AS r(queries integer, unplannable integer, candidates integer,
                planner_calls bigint, method text, storage_budget_bytes bigint, cost_before float8, cost_after float8, gap float8)
          WHERE a.id = ($1->>'id')::bigint",
        json!({ "id": id, "run": run }),
    )?;
    spi::execute("UPDATE indexpilot.control SET last_analysis_at = pg_catalog.clock_timestamp()", json!({}))?;
    Ok(())
}

/// Writes decisions and returns their numbers in the same order.
pub fn add(analysis_id: i64, recommendations: &[Recommendation]) -> Result<Vec<i64>> {
    let mut ids = Vec::with_capacity(recommendations.len());
    for recommendation in recommendations {
        let id = spi::value(
            "INSERT INTO indexpilot.recommendations (analysis_id, state, reason, reason_detail, table_id, table_schema, table_name,
                    index_name, columns, definition, index_def, estimated_bytes, estimated_build_ms, cost_before, cost_after,
                    saved_ms_per_hour, write_ms_per_hour, workload_ids, details, guard)
             SELECT ($1->>'analysis')::bigint, r.state, r.reason, r.reason_detail, r.table_id, r.table_schema, r.table_name,
                    r.index_name, r.columns, r.definition, r.index_def, r.estimated_bytes, r.estimated_build_ms, r.cost_before,
                    r.cost_after, r.saved_ms_per_hour, r.write_ms_per_hour, r.workload_ids, r.details, r.guard
               FROM pg_catalog.jsonb_to_record($1->'row') AS r(state text, reason text, reason_detail text, table_id oid,
                    table_schema name, table_name name, index_name name, columns name[], definition text, index_def jsonb,
                    estimated_bytes bigint, estimated_build_ms float8, cost_before float8, cost_after float8,
                    saved_ms_per_hour float8, write_ms_per_hour float8, workload_ids bigint[], details jsonb, guard jsonb)
             RETURNING id",
            json!({ "analysis": analysis_id, "row": recommendation }),
        )?;
        ids.push(id.unwrap_or_default());
    }
    Ok(ids)
}

const COLUMNS: &str = "id, analysis_id, state, reason, reason_detail, table_id::bigint AS table_id, table_schema, table_name, index_name, \
     columns, definition, index_def, estimated_bytes, estimated_build_ms, cost_before, cost_after, saved_ms_per_hour, \
     write_ms_per_hour, workload_ids, details, guard, decided_by";

/// One decision, locked until the transaction ends.
pub fn get(id: i64) -> Result<Option<Recommendation>> {
    let sql = format!("SELECT {COLUMNS} FROM indexpilot.recommendations WHERE id = ($1->>'id')::bigint FOR UPDATE");
    spi::row(&sql, json!({ "id": id }))
}

/// One decision, to be read only: on standbys too.
pub fn read(id: i64) -> Result<Option<Recommendation>> {
    let sql = format!("SELECT {COLUMNS} FROM indexpilot.recommendations WHERE id = ($1->>'id')::bigint");
    spi::row(&sql, json!({ "id": id }))
}

/// Moves a decision to another state; `actor` is the session's user.
pub fn set_state(id: i64, state: &str) -> Result<()> {
    spi::execute(
        "UPDATE indexpilot.recommendations SET state = $1->>'state', decided_by = session_user, decided_at = pg_catalog.now()
          WHERE id = ($1->>'id')::bigint",
        json!({ "id": id, "state": state }),
    )?;
    Ok(())
}

/// A person's word against an index.
#[derive(Clone, Debug, Deserialize)]
pub struct TurnedDown {
    pub id: i64,
    pub by: String,
    pub on: String,
}

/// The decision in which a person turned this definition down, unless it was approved since.
pub fn turned_down(table: u32, definition: &str) -> Result<Option<TurnedDown>> {
    spi::row(
        "SELECT d.id, d.decided_by AS by, d.decided_at::date::text AS on
           FROM (SELECT r.id, r.state, r.decided_by, r.decided_at FROM indexpilot.recommendations r
                  WHERE r.table_id = ($1->>'table')::oid AND r.definition = $1->>'definition' AND r.decided_by IS NOT NULL
                  ORDER BY r.decided_at DESC, r.id DESC LIMIT 1) d
          WHERE d.state = 'rejected'",
        json!({ "table": table, "definition": definition }),
    )
}

/// Proposals of earlier runs are superseded by a new one: those that nobody decided are dropped from the list. A run on some tables
/// supersedes those of these tables; with none named, it is on all.
pub fn retire_proposals(before_analysis: i64, tables: &[u32]) -> Result<()> {
    spi::execute(
        "DELETE FROM indexpilot.recommendations r WHERE r.analysis_id < ($1->>'id')::bigint AND r.state = 'proposed'
            AND (pg_catalog.jsonb_array_length($1->'tables') = 0
                 OR r.table_id IN (SELECT t::bigint::oid FROM pg_catalog.jsonb_array_elements_text($1->'tables') t))
            AND NOT EXISTS (SELECT FROM indexpilot.actions a WHERE a.recommendation_id = r.id)",
        json!({ "id": before_analysis, "tables": tables }),
    )?;
    Ok(())
}

/// Deletes what the analysis or a rule of the guard decided against, and analyses of which nothing is left, when they are older than
/// `keep`. What a person turned down stays, since that holds on.
pub fn retain(keep: Duration) -> Result<()> {
    let args = json!({ "keep_s": keep.as_secs_f64() });
    spi::execute(
        "DELETE FROM indexpilot.recommendations r USING indexpilot.analyses a
          WHERE a.id = r.analysis_id AND (r.state = 'not_recommended' OR r.state = 'rejected' AND r.decided_by IS NULL)
            AND a.started_at < pg_catalog.now() - pg_catalog.make_interval(secs => ($1->>'keep_s')::float8)
            AND NOT EXISTS (SELECT FROM indexpilot.actions x WHERE x.recommendation_id = r.id)",
        args.clone(),
    )?;
    spi::execute(
        "DELETE FROM indexpilot.analyses a
          WHERE a.started_at < pg_catalog.now() - pg_catalog.make_interval(secs => ($1->>'keep_s')::float8)
            AND NOT EXISTS (SELECT FROM indexpilot.recommendations r WHERE r.analysis_id = a.id)",
        args,
    )?;
    Ok(())
}

/// Another decision of the same run on the same table.
#[derive(Clone, Debug, Deserialize)]
pub struct Alternative {
    pub id: i64,
    pub definition: String,
    pub state: String,
    pub reason: String,
    pub reason_detail: String,
}

/// What else a run decided on the table of a decision: what serves the same queries first.
pub fn alternatives(to: &Recommendation, most: usize) -> Result<Vec<Alternative>> {
    spi::rows(
        "SELECT r.id, r.definition, r.state, r.reason, r.reason_detail
           FROM indexpilot.recommendations r
          WHERE r.analysis_id = ($1->>'analysis')::bigint AND r.table_id = ($1->>'table')::oid AND r.id <> ($1->>'id')::bigint
          ORDER BY r.workload_ids && ARRAY(SELECT e::bigint FROM pg_catalog.jsonb_array_elements_text($1->'queries') e) DESC,
                   r.state <> 'not_recommended' DESC, r.id
          LIMIT ($1->>'most')::bigint",
        json!({ "analysis": to.analysis_id, "table": to.table_id, "id": to.id, "queries": to.workload_ids, "most": most }),
    )
}

/// The indexes that carry out a decision, as far as they exist: one, or one for each partition.
pub fn built_indexes(id: i64) -> Result<Vec<u32>> {
    #[derive(Deserialize)]
    struct Row {
        index: u32,
    }
    let rows: Vec<Row> = spi::rows(
        "SELECT a.index_id::bigint AS index FROM indexpilot.actions a JOIN pg_catalog.pg_class c ON c.oid = a.index_id
          WHERE a.recommendation_id = ($1->>'id')::bigint AND a.kind = 'create' AND a.state IN ('built', 'verifying', 'kept')
          ORDER BY a.id DESC",
        json!({ "id": id }),
    )?;
    Ok(rows.into_iter().map(|r| r.index).collect())
}

/// The table that a decision is about.
pub fn table_of(id: i64) -> Result<Option<u32>> {
    let sql = "SELECT table_id::bigint AS table FROM indexpilot.recommendations WHERE id = ($1->>'id')::bigint";
    spi::value(sql, json!({ "id": id }))
}

/// Decisions on partitioned tables that are carried out: those with actions that are not over, or, with `all`, those with indexes too.
/// With `new` only those whose tables have partitions without an action. Waits for nobody.
pub fn on_partitions(all: bool, new: bool) -> Result<Vec<Recommendation>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM indexpilot.recommendations r WHERE r.state = 'applied'
            AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = r.table_id AND c.relkind = 'p')
            AND EXISTS (SELECT FROM indexpilot.actions a WHERE a.recommendation_id = r.id AND a.kind = 'create'
                           AND (a.state IN ('queued', 'building', 'blocked')
                                OR ($1->>'all')::boolean AND a.state IN ('built', 'verifying', 'kept')))
            AND (NOT ($1->>'new')::boolean OR EXISTS (
                WITH RECURSIVE part AS (SELECT r.table_id AS oid
                                        UNION ALL SELECT i.inhrelid FROM part p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid)
                SELECT FROM part p JOIN pg_catalog.pg_class c ON c.oid = p.oid
                 WHERE c.relkind = 'r' AND c.relpersistence = 'p'
                   AND NOT EXISTS (SELECT FROM indexpilot.actions a WHERE a.recommendation_id = r.id AND a.table_id = c.oid)))
          ORDER BY r.id"
    );
    spi::rows(&sql, json!({ "all": all, "new": new }))
}

/// Texts of templates, for explanations.
pub fn query_texts(workload_ids: &[i64]) -> Result<Vec<(i64, String)>> {
    #[derive(Deserialize)]
    struct Row {
        id: i64,
        query: Option<String>,
    }
    let rows: Vec<Row> = spi::rows(
        "SELECT id, query FROM indexpilot.workload
          WHERE id IN (SELECT e::bigint FROM pg_catalog.jsonb_array_elements_text($1->'ids') e) ORDER BY id",
        json!({ "ids": workload_ids }),
    )?;
    Ok(rows.into_iter().map(|r| (r.id, r.query.unwrap_or_default())).collect())
}
