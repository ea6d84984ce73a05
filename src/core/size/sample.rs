//! Rows of some blocks of a table, as far as the size of an index depends on them: how many bytes a value takes in an index, and
//! which values are equal.
//!
//! Statistics say neither how the widths of columns go together nor how often their values repeat together, their widths are cut to
//! whole numbers, and the number of distinct values of a column whose equal values lie side by side is taken far too low.

use super::groups::Groups;
use crate::model::AttNum;
use crate::workload::mix;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Values up to this size have the short header, and are not aligned (`VARATT_SHORT_MAX`, varatt.h).
const SHORT: u16 = 127;
/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Hash of its bytes: equal values have equal ones.
    pub hash: u64,
    /// Bytes that it takes in an index tuple without alignment, header included; 0 for NULL.
    pub size: u16,
}

impl Value {
    pub const NULL: Value = Value { hash: 0, size: 0 };
}

/// Hash of a value's bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    bytes.chunks(8).fold(mix(bytes.len() as u64), |hash, chunk| mix(hash ^ word(chunk)))
}

/// The values of one column, in the order of the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    /// Alignment of the type in bytes.
    align: u8,
    /// Of variable length: its short values are not aligned.
    varying: bool,
    values: Vec<Value>,
    /// All values have the same size.
    uniform: bool,
}

impl Values {
    pub fn new(align: u8, varying: bool, values: Vec<Value>) -> Self {
        let uniform = values.windows(2).all(|w| matches!(w, [a, b] if a.size == b.size));
        Values { align, varying, values, uniform }
    }
}

/// Sampled rows of a table.
#[derive(Debug)]
pub struct RowSample {
    /// The block that each row is in. The rows of a block stand together.
    blocks: Vec<u32>,
    /// No row of the table is missing.
    whole: bool,
    columns: BTreeMap<AttNum, Values>,
    /// Groups of equal keys, by the columns of the key, ascending: they do not depend on the order of the columns.
    groups: Mutex<BTreeMap<Vec<AttNum>, Arc<Groups>>>,
}

impl PartialEq for RowSample {
    fn eq(&self, other: &Self) -> bool {
        (&self.blocks, self.whole, &self.columns) == (&other.blocks, other.whole, &other.columns)
    }
}

/// Sizes of tuples: their average, and the square of the coefficient of variation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Widths {
    pub mean: f64,
    pub variation: f64,
}

impl RowSample {
    /// `None` when there is no row, or when a column has not as many values as there are rows.
    pub fn new(blocks: Vec<u32>, whole: bool, columns: BTreeMap<AttNum, Values>) -> Option<Self> {
        let complete = !blocks.is_empty() && columns.values().all(|c| c.values.len() == blocks.len());
        complete.then(|| RowSample { blocks, whole, columns, groups: Mutex::default() })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.blocks.len()
    }

    /// No row of the table is missing.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Bytes of a value in an index tuple; 0 for NULL.
    pub fn size_of(&self, column: AttNum, row: usize) -> Option<u16> {
        self.columns.get(&column).and_then(|c| c.values.get(row)).map(|v| v.size)
    }

    fn columns(&self, wanted: &[AttNum]) -> Option<Vec<&Values>> {
        wanted.iter().map(|c| self.columns.get(c)).collect()
    }

    /// Size of the index tuples of the columns, in their order, over the rows in `of`, or over all of them.
    pub(super) fn widths(&self, columns: &[AttNum], of: Option<&[u32]>) -> Option<Widths> {
        let columns = self.columns(columns)?;
        let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
        let mut add = |row: usize| {
            let size = f64::from(tuple(&columns, row));
            n += 1.0;
            sum += size;
            squares += size * size;
        };
        match of {
            _ if columns.iter().all(|c| c.uniform) => add(0),
            Some(rows) => rows.iter().for_each(|r| add(*r as usize)),
            None => (0..self.rows()).for_each(add),
        }
        let mean: f64 = sum / f64::max(n, 1.0);
        Some(Widths { mean, variation: if mean > 0.0 { (squares / n / (mean * mean) - 1.0).max(0.0) } else { 0.0 } })
    }

    /// Size of one row's index tuple.
    pub(super) fn width(&self, columns: &[AttNum], row: u32) -> Option<f64> {
        Some(f64::from(tuple(&self.columns(columns)?, row as usize)))
    }

    /// The groups of equal values of the columns together; NULL equals NULL, as in a B-tree. `scale`: rows of the table for each row of the sample.
    pub(super) fn groups(&self, key: &[AttNum], scale: f64) -> Option<Arc<Groups>> {
        let mut key = key.to_vec();
        key.sort_unstable();
        key.dedup();
        let columns = self.columns(&key)?;
        let mut known = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known
            .entry(key)
            .or_insert_with(|| Arc::new(Groups::of(&self.blocks, |row| key_hash(&columns, row), scale, self.whole)));
        Some(Arc::clone(found))
    }
}

/// Size of the index tuple of a row [indextuple.c, heaptuple.c].
fn tuple(columns: &[&Values], row: usize) -> u32 {
    let (mut bytes, mut header) = (0_u32, 8_u32);
    for column in columns {
        let size = column.values.get(row).map_or(0, |v| v.size);
        if size == 0 {
            // The null bitmap takes what alignment leaves, so as much as a header.
            header = 16;
            continue;
        }
        if !column.varying || size > SHORT {
            bytes = bytes.next_multiple_of(u32::from(column.align.max(1)));
        }
        bytes += u32::from(size);
    }
    (header + bytes).next_multiple_of(8)
}

fn key_hash(columns: &[&Values], row: usize) -> u64 {
    let value = |c: &Values| c.values.get(row).map_or(0, |v| v.hash ^ u64::from(v.size == 0));
    match columns {
        [one] => mix(value(one)),
        several => several.iter().fold(0, |hash, c| mix(hash ^ value(c))),
    }
}
