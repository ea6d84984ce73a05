//! protected_indexes: what IndexPilot must leave alone. An index is known by its name, which outlives rebuilds and restores; one that was
//! renamed, by its OID, as long as no other has taken its name.

use crate::pg::error::{Error, Kind, Result};
use crate::pg::{catalog, spi};
use serde_json::json;

/// Row `p` is about the index.
const MEANT: &str = "(EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                       WHERE c.oid = ($1->>'index')::oid AND n.nspname = p.index_schema AND c.relname = p.index_name)
                  OR (p.index_id = ($1->>'index')::oid
                      AND pg_catalog.to_regclass(pg_catalog.format('%I.%I', p.index_schema, p.index_name)) IS NULL))";

/// Protects an index.
pub fn protect(index: u32) -> Result<()> {
    let added: Vec<serde_json::Value> = spi::rows(
        "INSERT INTO indexpilot.protected_indexes (index_id, index_schema, index_name)
         SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.oid = ($1->>'index')::oid AND c.relkind IN ('i', 'I')
         ON CONFLICT (index_schema, index_name) DO UPDATE SET index_id = excluded.index_id
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
        &format!("DELETE FROM indexpilot.protected_indexes p WHERE {MEANT} RETURNING p.index_id::bigint AS id"),
        json!({ "index": index }),
    )?;
    Ok(!gone.is_empty())
}

/// Whether an index is protected.
pub fn is_protected(index: u32) -> Result<bool> {
    let found: Option<bool> = spi::value(
        &format!("SELECT EXISTS (SELECT FROM indexpilot.protected_indexes p WHERE {MEANT})"),
        json!({ "index": index }),
    )?;
    Ok(found.unwrap_or(false))
}

/// Notes the OIDs of protected indexes that were rebuilt. What is gone stays: a restored database gets its indexes last.
pub fn follow() -> Result<()> {
    spi::execute(
        "UPDATE indexpilot.protected_indexes p SET index_id = c.oid
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = p.index_schema AND c.relname = p.index_name AND c.oid <> p.index_id",
        json!({}),
    )?;
    Ok(())
}
