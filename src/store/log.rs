//! mutation_log: every act with its cause, its actor, the state before and after, and what undoes it.

use crate::pg::error::Result;
use crate::pg::spi;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One row of the log, as it is written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Mutation {
    /// What happened: `create_index`, `drop_index`, `enable_field`, `action_failed`, ...
    pub mutation: String,
    pub cause: String,
    /// Role that caused it, or `indexpilot` when no person did; empty for the session's user.
    pub actor: String,
    pub table_schema: Option<String>,
    pub table_name: Option<String>,
    pub index_name: Option<String>,
    pub field_name: Option<String>,
    pub tenant_id: Option<String>,
    pub action_id: Option<i64>,
    pub recommendation_id: Option<i64>,
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// Statement that `rollback()` carries out.
    pub undo: Option<String>,
    /// Further figures.
    pub details: Value,
}

/// A row of the log, as it is read.
#[derive(Clone, Debug, Deserialize)]
pub struct Logged {
    pub undone_by: Option<i64>,
    #[serde(flatten)]
    pub mutation: Mutation,
}

/// Appends to the log and returns the number of the mutation.
pub fn append(mutation: &Mutation) -> Result<i64> {
    let id = spi::value(
        "INSERT INTO indexpilot.mutation_log (mutation, cause, actor, table_schema, table_name, index_name, field_name, tenant_id,
                action_id, recommendation_id, before, after, undo, details)
         SELECT m.mutation, m.cause, COALESCE(NULLIF(m.actor, ''), session_user), m.table_schema, m.table_name, m.index_name, m.field_name,
                m.tenant_id, m.action_id, m.recommendation_id, NULLIF(m.before, 'null'), NULLIF(m.after, 'null'), m.undo, COALESCE(NULLIF(m.details, 'null'), '{}')
           FROM pg_catalog.jsonb_to_record($1) AS m(mutation text, cause text, actor name, table_schema name, table_name name,
                index_name name, field_name name, tenant_id text, action_id bigint, recommendation_id bigint, before jsonb,
                after jsonb, undo text, details jsonb)
         RETURNING id",
        serde_json::to_value(mutation)?,
    )?;
    Ok(id.unwrap_or_default())
}

/// One mutation.
pub fn get(id: i64) -> Result<Option<Logged>> {
    spi::row("SELECT * FROM indexpilot.mutation_log WHERE id = ($1->>'id')::bigint", json!({ "id": id }))
}

/// A row of the log with its number.
#[derive(Clone, Debug, Deserialize)]
pub struct Numbered {
    pub id: i64,
    #[serde(flatten)]
    pub logged: Logged,
}

/// Mutations after a moment (seconds since the Unix epoch), oldest first.
pub fn after(at: f64) -> Result<Vec<Numbered>> {
    let sql = "SELECT * FROM indexpilot.mutation_log WHERE logged_at > to_timestamp(($1->>'at')::float8) ORDER BY id";
    // As a text, because no number of a document is infinite.
    spi::rows(sql, json!({ "at": at.to_string().replace("inf", "Infinity") }))
}

/// How long ago something happened last for a decision, seconds.
pub fn seconds_since(recommendation_id: i64, mutation: &str) -> Result<Option<f64>> {
    let sql = "SELECT extract(epoch FROM clock_timestamp() - max(logged_at))::float8 AS s FROM indexpilot.mutation_log \
               WHERE recommendation_id = ($1->>'id')::bigint AND mutation = $1->>'mutation'";
    spi::value(sql, json!({ "id": recommendation_id, "mutation": mutation }))
}

/// Marks a mutation as taken back by another one.
pub fn mark_undone(id: i64, by: i64) -> Result<()> {
    spi::execute(
        "UPDATE indexpilot.mutation_log SET undone_by = ($1->>'by')::bigint WHERE id = ($1->>'id')::bigint",
        json!({ "id": id, "by": by }),
    )?;
    Ok(())
}

/// A moment (seconds since the Unix epoch) in words.
pub fn shown(at: f64) -> Result<String> {
    let sql = "SELECT to_timestamp(($1->>'at')::float8)::text AS at";
    Ok(spi::value(sql, json!({ "at": at.to_string().replace("inf", "Infinity") }))?.unwrap_or_default())
}
