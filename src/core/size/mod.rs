//! How big an index becomes when `CREATE INDEX` builds it, by its access method.

mod btree;
mod gin;
mod groups;
mod other;
mod runs;
mod sample;
#[cfg(test)]
mod tests;

pub use btree::btree;
pub use sample::{RowSample, Value, Values, hash};

use crate::model::{AccessMethod, Bytes, IndexDef, PAGE, TableInfo};

/// What an index will be once built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// All pages: metadata, inner pages and leaves.
    pub pages: u64,
    pub bytes: Bytes,
    /// Rows that the index points to.
    pub tuples: f64,
    /// Levels above the leaves; 0 when the root is a leaf (PostgreSQL's `tree_height`).
    pub height: u32,
}

impl Size {
    fn of_pages(pages: f64, tuples: f64) -> Self {
        let pages = pages.max(1.0).ceil() as u64;
        Size { pages, bytes: pages.saturating_mul(PAGE), tuples, height: 0 }
    }
}

fn maxalign(bytes: f64) -> f64 {
    (bytes / 8.0).ceil() * 8.0
}

/// Share of the table's rows that pass the condition of a partial index, as a sample tells it; `None` when none does.
pub fn sampled_share(def: &IndexDef, table: &TableInfo) -> Option<f64> {
    table.sample.as_ref()?.share(def.predicate.as_ref()?, planned_share(def, table))
}

/// The same as the planner expects it, as far as it was asked; 1 without a condition.
fn planned_share(def: &IndexDef, table: &TableInfo) -> f64 {
    def.predicate.as_ref().and_then(|sql| table.conditions.get(sql)).copied().unwrap_or(1.0).clamp(0.0, 1.0)
}

/// Rows that the index points to.
fn indexed_rows(def: &IndexDef, table: &TableInfo) -> f64 {
    let share = sampled_share(def, table).unwrap_or_else(|| planned_share(def, table));
    (table.rows.max(0.0) * share).floor()
}

/// Share of different values from which a column is taken to have others in each partition.
const MANY: f64 = 0.1;

/// A partition of the table as they are on average.
fn average_part(table: &TableInfo) -> TableInfo {
    let parts = f64::from(table.parts.max(1));
    let mut part = TableInfo {
        rows: table.rows / parts,
        bytes: table.bytes / u64::from(table.parts.max(1)),
        parts: 0,
        indexes: Vec::new(),
        sample: None,
        ..table.clone()
    };
    for column in &mut part.columns {
        let everywhere = column.n_distinct < table.rows * MANY;
        column.n_distinct = if everywhere { column.n_distinct.min(part.rows) } else { column.n_distinct / parts }.max(1.0);
        for keys in &mut column.search {
            keys.distinct = keys.distinct.min(part.rows * keys.per_row).max(1.0);
            keys.classes.clear();
        }
    }
    part
}

/// Size of the index `def` when it is built now on `table`, by its access method; of a partitioned table, of the indexes of all
/// partitions, with the height of one. A column that the table does not have counts for nothing.
pub fn of(def: &IndexDef, table: &TableInfo) -> Size {
    match table.parts {
        0 => of_one(def, table),
        parts => {
            let one = of_one(def, &average_part(table));
            let pages = one.pages * u64::from(parts);
            Size { pages, bytes: pages.saturating_mul(PAGE), tuples: one.tuples * f64::from(parts), height: one.height }
        }
    }
}

fn of_one(def: &IndexDef, table: &TableInfo) -> Size {
    match def.method {
        AccessMethod::Btree => btree(def, table),
        AccessMethod::Hash => other::hash(def, table),
        AccessMethod::Brin => other::brin(def, table),
        AccessMethod::Gin => {
            let pages = gin::pages(def, table);
            Size::of_pages(1.0 + pages.entry + pages.data, indexed_rows(def, table))
        }
        AccessMethod::Gist | AccessMethod::Spgist => other::search_tree(def, table),
    }
}

/// Pages of a gin index that hold its keys, without the posting trees; `None` for the other access methods.
pub fn entry_pages(def: &IndexDef, table: &TableInfo) -> Option<f64> {
    (def.method == AccessMethod::Gin).then(|| match table.parts {
        0 => gin::pages(def, table).entry,
        parts => gin::pages(def, &average_part(table)).entry * f64::from(parts),
    })
}
