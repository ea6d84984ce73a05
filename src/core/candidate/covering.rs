//! Indexes that hold every column a query needs of a table, so that the table itself is not read.

use super::prune::Fields;
use super::row_width;
use crate::model::{AttNum, IndexDef, Key, RelationUse, TableInfo};
use std::collections::BTreeSet;

/// Most columns of a covering index, keys included.
const MAX_COLUMNS: usize = 10;
/// Widest covering index, as a share of the table's row: a wider one saves little reading and costs much writing.
const MAX_ROW_SHARE: f64 = 0.75;
/// An entry is always allowed this many bytes of data.
const MIN_WIDTH: f64 = 32.0;

/// True when a scan of the index alone answers the query on this relation.
pub(super) fn holds_all(def: &IndexDef, usage: &RelationUse) -> bool {
    !usage.whole_row && !usage.needed.is_empty() && usage.needed.iter().all(|c| def.columns().any(|d| d == *c))
}

/// True when the columns make an index that is small enough beside the table.
pub(super) fn narrow(def: &IndexDef, table: &TableInfo) -> bool {
    let width: f64 = def.columns().filter_map(|c| table.column(c)).map(|c| f64::from(c.avg_width)).sum();
    def.columns().count() <= MAX_COLUMNS && width <= (row_width(table) * MAX_ROW_SHARE).max(MIN_WIDTH)
}

/// Covering variants of the plain candidates, and one for a query that only reads a few columns of every row.
pub(super) fn candidates(usage: &RelationUse, table: &TableInfo, fields: &Fields, plain: &[IndexDef]) -> Vec<IndexDef> {
    if usage.whole_row || usage.needed.is_empty() || !usage.needed.iter().all(|c| fields.stored(*c)) {
        return Vec::new();
    }
    let with_needed = |keys: Vec<Key>| IndexDef::new(usage.rel, keys, usage.needed.iter().copied());
    let mut defs: BTreeSet<IndexDef> = plain.iter().map(|d| with_needed(d.keys.clone())).collect();
    if plain.is_empty() {
        let first: Option<AttNum> = usage.needed.iter().copied().filter(|c| fields.key(*c)).min();
        defs.extend(first.map(|c| with_needed(vec![Key::asc(c)])));
    }
    defs.into_iter().filter(|d| narrow(d, table) && (plain.is_empty() || !d.include.is_empty())).collect()
}
