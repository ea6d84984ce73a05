//! Table managed_indexes: the indexes that IndexPilot made, the only ones it drops by itself.

use super::action::Action;
use crate::pg::error::Result;
use crate::pg::spi;
use serde::Deserialize;
use serde_json::{Value, json};

/// The index of the action exists and is ours.
pub fn add(action: &Action) -> Result<()> {
    let sql = "INSERT INTO indexpilot.managed_indexes (tag, table_schema, table_name, index_schema, index_name, definition, action_id) \
               VALUES (($1->>'tag')::uuid, $1->>'table_schema', $1->>'table_name', $1->>'index_schema', $1->>'index_name', \
               $1->>'definition', ($1->>'id')::bigint) ON CONFLICT (tag) DO UPDATE SET dropped_at = NULL, drop_cause = NULL";
    spi::execute(sql, serde_json::to_value(action)?)?;
    Ok(())
}

/// The index is gone. Nothing happens when it was not ours.
pub fn dropped(tag: &str, cause: &str) -> Result<()> {
    let sql = "UPDATE indexpilot.managed_indexes SET dropped_at = clock_timestamp(), drop_cause = $1->>'cause' \
               WHERE tag = ($1->>'tag')::uuid AND dropped_at IS NULL";
    spi::execute(sql, json!({ "tag": tag, "cause": cause }))?;
    Ok(())
}

/// Tag of our index with that tag or, for one whose comment was taken away, with that name; dropped ones are not found.
pub fn find(tag: Option<&str>, index_schema: &str, index_name: &str) -> Result<Option<String>> {
    let sql = "SELECT tag \
               FROM indexpilot.managed_indexes WHERE dropped_at IS NULL AND (tag = ($1->>'tag')::uuid \
               OR ($1->>'tag' IS NULL AND index_schema = ($1->>'schema')::name AND index_name = ($1->>'name')::name)) LIMIT 1";
    spi::value(sql, json!({ "tag": tag, "schema": index_schema, "name": index_name }))
}

/// An index that is there is ours: by its tag or, when its comment was taken away, as the very one that was built. Not by its name,
/// under which somebody may have made another one.
pub fn is_ours(tag: Option<&str>, index_id: u32) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM indexpilot.managed_indexes m WHERE m.dropped_at IS NULL AND (m.tag = ($1->>'tag')::uuid \
               OR ($1->>'tag' IS NULL AND EXISTS (SELECT FROM indexpilot.actions a WHERE a.id = m.action_id \
                 AND a.tag = m.tag AND a.index_id = ($1->>'index')::oid)))) AS ours";
    Ok(spi::value(sql, json!({ "tag": tag, "index": index_id }))?.unwrap_or(false))
}

/// Indexes of ours that are still there.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Sum {
    pub number: usize,
    pub bytes: u64,
}

/// See [`Sum`].
pub fn sum() -> Result<Sum> {
    let sql = "SELECT count(c.oid) AS number, coalesce(sum(pg_relation_size(c.oid)), 0)::bigint AS bytes FROM indexpilot.managed_indexes m \
               JOIN pg_namespace n ON n.nspname = m.index_schema \
               JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = m.index_name AND c.relkind = 'i' \
               WHERE m.dropped_at IS NULL";
    Ok(spi::row(sql, Value::Null)?.unwrap_or_default())
}
