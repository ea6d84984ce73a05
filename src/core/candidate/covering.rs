//! Indexes that hold every column a query needs of a table, so that the table itself is not read.

use super::prune::Fields;
use super::row_width;
use super::wants::Wants;
use crate::model::{AttNum, IndexDef, Key, RelationUse, TableInfo};
use std::collections::BTreeSet;

/// Most columns of a covering index, keys included.
const MAX_COLUMNS: usize = 10;
/// Widest covering index, as a share of the table's row: a wider one saves little reading and costs much writing.
const MAX_ROW_SHARE: f64 = 0.75;
/// An entry is always allowed this many bytes of data.
const MIN_WIDTH: f64 = 32.0;

/// True when a scan of the index alone answers the query on this relation. What a partial index's own condition reads need not be
/// in it.
pub(super) fn holds_all(def: &IndexDef, usage: &RelationUse) -> bool {
    let implied = |c: AttNum| {
        let own = usage.conditions.iter().filter(|condition| def.predicate.as_deref().is_some_and(|p| p.contains(&condition.sql)));
        own.flat_map(|condition| &condition.columns).any(|column| *column == c)
    };
    !usage.whole_row && !usage.needed.is_empty() && usage.needed.iter().all(|c| def.columns().any(|d| d == *c) || implied(*c))
}

/// True when the columns make an index that is small enough beside the table.
pub(super) fn narrow(def: &IndexDef, table: &TableInfo) -> bool {
    let width: f64 = def.columns().filter_map(|c| table.column(c)).map(|c| f64::from(c.avg_width)).sum();
    def.columns().count() <= MAX_COLUMNS && width <= (row_width(table) * MAX_ROW_SHARE).max(MIN_WIDTH)
}

/// Covering variants of the plain candidates, and one for a query that only reads a few columns of every row.
pub(super) fn candidates(wants: &Wants<'_>, fields: &Fields, plain: &[IndexDef], max_columns: usize) -> Vec<IndexDef> {
    let Wants { usage, table, .. } = *wants;
    if usage.whole_row || usage.needed.is_empty() || !usage.needed.iter().all(|c| fields.stored(*c)) {
        return Vec::new();
    }
    let with_needed = |keys: &[Key]| with_columns(wants, fields, keys, &usage.needed, max_columns);
    let mut defs: BTreeSet<IndexDef> = plain.iter().map(|d| with_needed(&d.keys)).collect();
    if plain.is_empty() {
        let first: Option<AttNum> = usage.needed.iter().copied().filter(|c| fields.key(*c)).min();
        defs.extend(first.map(|c| with_needed(&[Key::asc(c)])));
    }
    let more = |d: &IndexDef| plain.is_empty() || plain.iter().all(|p| p.keys != d.keys || p.include != d.include);
    defs.into_iter().filter(|d| narrow(d, table) && more(d)).collect()
}

/// `keys` with `needed` behind them: as keys too if they are few and all columns are of types whose equal values a B-tree keeps once
/// (which INCLUDE columns prevent), else as INCLUDE columns.
pub(super) fn with_columns(wants: &Wants<'_>, fields: &Fields, keys: &[Key], needed: &[AttNum], max_columns: usize) -> IndexDef {
    let def = IndexDef::new(wants.usage.rel, keys.to_vec(), needed.iter().copied());
    let shared = |c: AttNum| wants.table.column(c).is_some_and(|c| c.dedup);
    if def.columns().count() > max_columns || !def.columns().all(shared) || !def.include.iter().all(|c| fields.key(*c)) {
        return def;
    }
    let behind = def.include.iter().map(|c| Key::asc(*c));
    IndexDef::new(wants.usage.rel, def.keys.iter().copied().chain(behind).collect(), [])
}
