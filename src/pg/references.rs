//! Foreign keys, as work for the tables that have them: each row that goes from the referenced table is looked for in the referencing.

use super::error::Result;
use super::spi;
use indexpilot_core::model::{AttNum, ForeignKey, RelId};
use serde::Deserialize;
use serde_json::json;

const REFERENCES: &str = "
    SELECT k.conname AS name, k.conrelid::int8 AS table, k.conkey AS columns, k.confrelid::int8 AS referenced, k.confkey AS keys, t.relowner::int8 AS owner,
           (coalesce(s.n_tup_del, 0)
            / greatest(1.0, extract(epoch FROM pg_catalog.now() - coalesce(d.stats_reset, pg_catalog.pg_postmaster_start_time()))
                            / 3600.0))::float8 AS deletes,
           EXISTS (SELECT FROM pg_catalog.pg_index i
                    JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
                    JOIN pg_catalog.pg_am m ON m.oid = x.relam
                    WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL
                      AND (m.amname = 'btree' OR m.amname = 'hash' AND pg_catalog.cardinality(k.conkey) = 1)
                      AND i.indnkeyatts >= pg_catalog.cardinality(k.conkey)
                      AND (i.indkey::int2[])[0:pg_catalog.cardinality(k.conkey) - 1] OPERATOR(pg_catalog.@>) k.conkey
                      AND (i.indkey::int2[])[0:pg_catalog.cardinality(k.conkey) - 1] OPERATOR(pg_catalog.<@) k.conkey) AS indexed
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class t ON t.oid = k.conrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
    LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = k.confrelid
    LEFT JOIN pg_catalog.pg_stat_database d ON d.datname = pg_catalog.current_database()
    WHERE k.contype = 'f' AND t.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'indexpilot')
    ORDER BY k.conrelid, k.conkey, k.oid";

/// A foreign key.
#[derive(Clone, Debug, Deserialize)]
pub struct Reference {
    /// Name of the constraint.
    pub name: String,
    /// The referencing table.
    pub table: u32,
    pub columns: Vec<AttNum>,
    /// The referenced table, and its columns.
    pub referenced: u32,
    pub keys: Vec<AttNum>,
    /// Owner of the referencing table, as whom the server looks.
    pub owner: u32,
    /// Deletes from the referenced table per hour.
    pub deletes: f64,
    /// A B-tree begins with the referencing columns, in any order and with nothing between, or a hash index is on the only one.
    pub indexed: bool,
}

impl Reference {
    /// The foreign key with the work that it makes; `updates` says how often per hour a column is set.
    pub fn key(&self, updates: impl Fn(RelId, AttNum) -> f64) -> ForeignKey {
        let changed = self.keys.iter().map(|c| updates(RelId(self.referenced), *c)).fold(0.0, f64::max);
        ForeignKey { columns: self.columns.clone(), checks: self.deletes + changed }
    }
}

/// All foreign keys of the database's tables.
///
/// # Errors
/// Those of the query, which reads catalogs and statistics only.
pub fn all() -> Result<Vec<Reference>> {
    spi::rows(REFERENCES, json!({}))
}
