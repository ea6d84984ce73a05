//! Rows of some blocks of a table, as far as the size of an index depends on them: how many bytes a value takes in an index, and
//! which values are equal.
//!
//! Of a partial index, only those rows count that pass its condition.
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
/// Rows that must pass a condition so that they tell of the others in the table.
const ENOUGH: usize = 300;
/// A share that is so many standard errors off is another one: the planner's has an error too.
const CERTAIN: f64 = 4.0;

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

    /// A column that was not looked at, such as an expression: every value is as long as the average one.
    pub(super) fn average(align: u8, varying: bool, size: u16) -> Self {
        Values { align, varying, values: vec![Value { hash: 0, size }], uniform: true }
    }

    fn size(&self, row: usize) -> u16 {
        self.values.get(if self.uniform { 0 } else { row }).map_or(0, |v| v.size)
    }
}

/// Sampled rows of a table.
#[derive(Debug)]
pub struct RowSample {
    all: Part,
    /// No row of the table is missing.
    whole: bool,
    columns: BTreeMap<AttNum, Values>,
    /// Which rows pass a condition, by the condition in SQL.
    conditions: BTreeMap<String, Vec<bool>>,
    /// The rows of partial indexes that were asked for.
    parts: Mutex<BTreeMap<String, Option<Arc<Part>>>>,
}

impl PartialEq for RowSample {
    fn eq(&self, other: &Self) -> bool {
        (&self.all.places, self.whole, &self.columns, &self.conditions)
            == (&other.all.places, other.whole, &other.columns, &other.conditions)
    }
}

/// Where a row is: its block, its place among all rows of the block, from 0, and how many these are. Those that pass a condition keep their
/// places, since the first of them in a block is hardly ever what is left of a group that began in the block before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub block: u32,
    pub at: u16,
    pub of: u16,
}

impl Place {
    /// Of each row, from the blocks, whose rows stand together.
    fn all(blocks: &[u32]) -> Vec<Place> {
        let number = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let of_block = |rows: &[u32]| {
            (0..rows.len()).zip(rows).map(|(at, b)| Place { block: *b, at: number(at), of: number(rows.len()) }).collect::<Vec<_>>()
        };
        blocks.chunk_by(|a, b| a == b).flat_map(of_block).collect()
    }
}

/// Rows of a sample: those that an index points to.
#[derive(Debug)]
pub(super) struct Part {
    /// Their numbers in the sample, ascending; `None` for all.
    rows: Option<Vec<u32>>,
    /// The rows of a block stand together.
    places: Vec<Place>,
    /// Share of the sample that they are, and the standard error of that as a share of the table.
    share: f64,
    error: f64,
    /// Groups of equal keys, by the columns of the key, ascending: they do not depend on the order of the columns.
    groups: Mutex<BTreeMap<Vec<AttNum>, Arc<Groups>>>,
}

impl Part {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Their numbers in the sample, ascending; `None` for all.
    pub fn rows(&self) -> Option<&[u32]> {
        self.rows.as_deref()
    }

    /// The number in the sample of the row at a place in the part.
    fn row(&self, at: usize) -> usize {
        self.rows.as_ref().map_or(at, |rows| rows.get(at).map_or(at, |row| *row as usize))
    }
}

/// Sizes of tuples: their average, and the square of the coefficient of variation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Widths {
    pub mean: f64,
    pub variation: f64,
}

impl RowSample {
    /// `blocks` has the block that each row is in; the rows of a block stand together. `None` when there is no row, or when a column has not
    /// as many values as there are rows.
    pub fn new(blocks: Vec<u32>, whole: bool, columns: BTreeMap<AttNum, Values>) -> Option<Self> {
        let complete = !blocks.is_empty() && columns.values().all(|c| c.values.len() == blocks.len());
        let all = Part { rows: None, places: Place::all(&blocks), share: 1.0, error: 0.0, groups: Mutex::default() };
        complete.then(|| RowSample { all, whole, columns, conditions: BTreeMap::new(), parts: Mutex::default() })
    }

    /// With conditions that say of each row whether it passes; those that do not are left out.
    pub fn with_conditions(mut self, mut conditions: BTreeMap<String, Vec<bool>>) -> Self {
        conditions.retain(|_, passing| passing.len() == self.rows());
        self.conditions = conditions;
        self
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.all.len()
    }

    pub(super) fn all(&self) -> &Part {
        &self.all
    }

    /// The rows that pass the condition; `None` when it was not looked at, or when they are too few to tell of the table.
    pub(super) fn part(&self, condition: &str) -> Option<Arc<Part>> {
        let mut known = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(condition) {
            return found.clone();
        }
        let part = self.passing(condition).map(|passing| self.part_of(&passing));
        let part = part.filter(|p| self.whole || p.len() >= ENOUGH).map(Arc::new);
        known.insert(condition.to_owned(), part.clone());
        part
    }

    /// Which rows pass a condition that was looked at, or two of them as one.
    fn passing(&self, condition: &str) -> Option<Vec<bool>> {
        if let Some(one) = self.conditions.get(condition) {
            return Some(one.clone());
        }
        // As the server prints it.
        let inner = condition.strip_prefix('(')?.strip_suffix(')')?;
        self.conditions.iter().find_map(|(sql, one)| {
            let other = self.conditions.get(inner.strip_prefix(sql.as_str())?.strip_prefix(" AND ")?)?;
            Some(one.iter().zip(other).map(|(a, b)| *a && *b).collect())
        })
    }

    fn part_of(&self, passing: &[bool]) -> Part {
        let rows: Vec<u32> = (0..).zip(passing).filter(|(_, passes)| **passes).map(|(row, _)| row).collect();
        let places = rows.iter().filter_map(|row| self.all.places.get(*row as usize)).copied().collect();
        let share = rows.len() as f64 / self.rows() as f64;
        // Blocks were drawn, not rows: a condition that goes with the place of the rows is met in few of them.
        let (mut drawn, mut squares, mut start) = (0.0, 0.0, 0);
        for block in self.all.places.chunk_by(|a, b| a.block == b.block) {
            let passed = passing.iter().skip(start).take(block.len()).filter(|passes| **passes).count();
            drawn += 1.0;
            squares += (passed as f64 - share * block.len() as f64).powi(2);
            start += block.len();
        }
        let error = if drawn > 1.0 { (squares * drawn / (drawn - 1.0)).sqrt() / self.rows() as f64 } else { 1.0 };
        Part { rows: Some(rows), places, share, error, groups: Mutex::default() }
    }

    /// Share of the table's rows that pass the condition; `None` as for [`Self::part`]. What the planner expects comes from rows of many more
    /// blocks, so it stands unless the sample contradicts it, as it does where columns depend on one another.
    pub(super) fn share(&self, condition: &str, planned: f64) -> Option<f64> {
        let part = self.part(condition)?;
        let contradicted = self.whole || (part.share - planned).abs() > CERTAIN * part.error;
        Some(if contradicted { part.share } else { planned })
    }

    /// No row of the table is missing.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Bytes of a value in an index tuple; 0 for NULL.
    pub fn size_of(&self, column: AttNum, row: usize) -> Option<u16> {
        self.columns.get(&column).and_then(|c| c.values.get(row)).map(|v| v.size)
    }

    pub(super) fn column(&self, wanted: AttNum) -> Option<&Values> {
        self.columns.get(&wanted)
    }

    fn columns(&self, wanted: &[AttNum]) -> Option<Vec<&Values>> {
        wanted.iter().map(|c| self.column(*c)).collect()
    }

    /// Size of the index tuples of the columns, in their order, over the rows in `of`, or over all of them.
    pub(super) fn widths(&self, columns: &[&Values], of: Option<&[u32]>) -> Widths {
        let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
        let mut add = |row: usize| {
            let size = f64::from(tuple(columns, row));
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
        Widths { mean, variation: if mean > 0.0 { (squares / n / (mean * mean) - 1.0).max(0.0) } else { 0.0 } }
    }

    /// The groups of equal values of the columns together among the rows of a part; NULL equals NULL, as in a B-tree. `scale`: rows of the
    /// table for each of the part.
    pub(super) fn groups(&self, part: &Part, key: &[AttNum], scale: f64) -> Option<Arc<Groups>> {
        let mut key = key.to_vec();
        key.sort_unstable();
        key.dedup();
        let columns = self.columns(&key)?;
        let mut known = part.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.entry(key).or_insert_with(|| {
            let mut groups = Groups::of(&part.places, |at| key_hash(&columns, part.row(at)), scale, self.whole);
            let met = groups.frequent.iter_mut().map(|(_, row)| row).chain(&mut groups.met);
            met.for_each(|at| *at = part.row(*at as usize) as u32);
            Arc::new(groups)
        });
        Some(Arc::clone(found))
    }
}

/// Size of the index tuple of a row [indextuple.c, heaptuple.c].
pub(super) fn tuple(columns: &[&Values], row: usize) -> u32 {
    let (mut bytes, mut header) = (0_u32, 8_u32);
    for column in columns {
        let size = column.size(row);
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
