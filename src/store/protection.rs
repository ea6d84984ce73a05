//! protected_indexes: what IndexPilot must leave alone.

use crate::pg::error::{Error, Kind, Result};
use crate::pg::{catalog, spi};
use serde_json::json;

/// Protects an index.
pub fn protect(index: u32) -> Result<()> {
    let added: Vec<serde_json::Value> = spi::rows(
        "INSERT INTO indexpilot.protected_indexes (index_id, index_schema, index_name)
         SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.oid = ($1->>'index')::oid AND c.relkind IN ('i', 'I')
         ON CONFLICT (index_id) DO UPDATE SET protected_at = indexpilot.protected_indexes.protected_at
         RETURNING index_id::bigint AS id",
        json!({ "index": index }),
    )?;
    if added.is_empty() {
        return Err(
            Error::new(Kind::WrongObject, "the object is not an index").detail(format!("It is {}.", catalog::shown(index)?))
        );
    }
    Ok(())
}

/// Takes the protection back; `false` when there was none.
pub fn unprotect(index: u32) -> Result<bool> {
    let gone: Vec<serde_json::Value> = spi::rows(
        "DELETE FROM indexpilot.protected_indexes WHERE index_id = ($1->>'index')::oid RETURNING index_id::bigint AS id",
        json!({ "index": index }),
    )?;
    Ok(!gone.is_empty())
}

/// Whether an index is protected.
pub fn is_protected(index: u32) -> Result<bool> {
    let found: Option<bool> = spi::value(
        "SELECT EXISTS (SELECT FROM indexpilot.protected_indexes WHERE index_id = ($1->>'index')::oid)",
        json!({ "index": index }),
    )?;
    Ok(found.unwrap_or(false))
}
