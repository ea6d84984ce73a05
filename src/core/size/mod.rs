//! How big an index becomes when `CREATE INDEX` builds it: an access method a file.

mod btree;
mod groups;
mod runs;
mod sample;
#[cfg(test)]
mod tests;

pub use btree::btree;
pub use sample::{RowSample, Value, Values, hash};

use crate::model::{Bytes, IndexDef, TableInfo};

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

/// Size of the index `def` when it is built now on `table`, by its access method.
pub fn of(def: &IndexDef, table: &TableInfo) -> Size {
    btree(def, table)
}
