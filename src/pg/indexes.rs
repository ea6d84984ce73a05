//! What the catalogs say of indexes and statistics, for messages and estimates.

use super::error::Result;
use super::spi;
use indexpilot_core::model::{AttNum, RelId};
use pgrx::pg_sys;
use std::collections::BTreeSet;

/// ANALYZE has statistics of the column.
///
/// # Errors
/// Of the query on the catalog.
pub fn has_statistics(rel: RelId, column: AttNum) -> Result<bool> {
    let found = spi::value(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_statistic s
                         WHERE s.starelid = ($1->>'table')::oid AND s.staattnum = ($1->>'column')::int2) AS found",
        serde_json::json!({ "table": rel.0, "column": column }),
    )?;
    Ok(found.unwrap_or(false))
}

/// The index, and those of the partitions that belong to it.
///
/// # Errors
/// Of the query on the catalog.
pub fn index_with_partitions(index: u32) -> Result<Vec<pg_sys::Oid>> {
    let below: Vec<u32> = spi::value(
        "SELECT pg_catalog.jsonb_agg(t.relid::oid::bigint) AS oids FROM pg_catalog.pg_partition_tree(($1->>'index')::oid::regclass) t",
        serde_json::json!({ "index": index }),
    )?
    .unwrap_or_default();
    // An index of an ordinary table is not in any tree.
    let all: BTreeSet<u32> = below.into_iter().chain([index]).collect();
    Ok(all.into_iter().map(pg_sys::Oid::from).collect())
}

/// What an index does beside making queries fast.
///
/// # Errors
/// Of the query on the catalog.
pub fn enforced_by(index: u32) -> Result<Option<&'static str>> {
    let kind: Option<String> = spi::value(
        "SELECT CASE WHEN i.indisprimary THEN 'primary' WHEN i.indisexclusion THEN 'exclusion' WHEN i.indisunique THEN 'unique'
                     WHEN i.indisreplident THEN 'replica' END AS kind
           FROM pg_catalog.pg_index i WHERE i.indexrelid = ($1->>'index')::oid",
        serde_json::json!({ "index": index }),
    )?;
    Ok(match kind.as_deref() {
        Some("primary") => Some("primary key"),
        Some("exclusion") => Some("exclusion constraint"),
        Some("unique") => Some("uniqueness"),
        Some("replica") => Some("replica identity"),
        _ => None,
    })
}

/// The table of an index, locked until the end of the transaction so that neither goes; `None` when the index is gone.
pub fn lock_table(index: u32) -> Option<u32> {
    let table = table_of(index)?;
    // SAFETY: in a transaction; raises at most what a lock of the server raises, and a table that is gone can be locked too.
    unsafe { pg_sys::LockRelationOid(pg_sys::Oid::from(table), pg_sys::AccessShareLock as pg_sys::LOCKMODE) };
    // It may have gone while the lock was waited for.
    table_of(index).filter(|now| *now == table)
}

/// As [`lock_table`], but does not wait: `None` also when somebody else holds a lock against it.
pub fn try_lock_table(index: u32) -> Option<u32> {
    let table = table_of(index)?;
    // SAFETY: as above.
    let got = unsafe { pg_sys::ConditionalLockRelationOid(pg_sys::Oid::from(table), pg_sys::AccessShareLock as pg_sys::LOCKMODE) };
    table_of(index).filter(|now| got && *now == table)
}

fn table_of(index: u32) -> Option<u32> {
    // SAFETY: a look into the catalog cache; with missing_ok InvalidOid for what is no index.
    let table = unsafe { pg_sys::IndexGetRelation(pg_sys::Oid::from(index), true) };
    (table != pg_sys::InvalidOid).then(|| table.to_u32())
}
