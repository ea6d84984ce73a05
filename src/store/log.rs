//! Table mutation_log: every act with its reason.

use crate::pg::error::{Error, Result};
use crate::pg::spi;
use serde::Serialize;
use serde_json::Value;

/// A row to be; the names are the columns'.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Mutation {
    /// create_index, drop_index, reindex_index, action_failed, ...
    pub mutation: String,
    pub cause: String,
    /// Role that caused it, or `indexpilot` when no person did.
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
    /// Statement that would take it back.
    pub undo: Option<String>,
    pub details: Value,
}

/// Appends a row and returns its id.
pub fn append(mutation: &Mutation) -> Result<i64> {
    let sql = "INSERT INTO indexpilot.mutation_log (mutation, cause, actor, table_schema, table_name, index_name, field_name, \
               tenant_id, action_id, recommendation_id, before, after, undo, details) \
               SELECT $1->>'mutation', $1->>'cause', $1->>'actor', $1->>'table_schema', $1->>'table_name', $1->>'index_name', \
               $1->>'field_name', $1->>'tenant_id', ($1->>'action_id')::bigint, ($1->>'recommendation_id')::bigint, \
               nullif($1->'before', 'null'), nullif($1->'after', 'null'), $1->>'undo', \
               coalesce(nullif($1->'details', 'null'), '{}') RETURNING id";
    spi::value(sql, serde_json::to_value(mutation)?)?.ok_or_else(|| Error::internal("the log took no row"))
}
