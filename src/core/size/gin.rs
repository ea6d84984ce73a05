//! The size of a gin index.
//!
//! - Each different key is a tuple: an 8-byte header, the key, and the addresses of its rows, compressed, when all that fits into a third
//!   of a page; else the addresses fill pages of their own, a posting tree [ginentrypage.c, `GinFormTuple`; gindatapage.c].
//! - Addresses are differences to the one before, seven bits a byte; the difference from page to page is 2048 [ginpostinglist.c].
//! - A build adds keys in their order, page by page, and a full page is split into halves [ginentrypage.c, `entrySplitPage`], so that
//!   pages of keys stay half full, unless the keys come in several batches. Posting trees are packed.

use super::{indexed_rows, maxalign};
use crate::model::{AccessMethod, ColumnInfo, IndexDef, PAGE, SearchKeys, TableInfo};

const HEADER: f64 = 8.0;
const LINE_POINTER: f64 = 4.0;
/// What an entry page has for tuples, and a leaf of a posting tree for addresses.
const ROOM: f64 = PAGE as f64 - 24.0 - 8.0;
const DATA_ROOM: f64 = ROOM - 8.0;
/// `GinMaxItemSize`.
const MOST_INLINE: f64 = 2704.0;
/// Bytes of one segment of a posting tree, and what is lost for each: an address in full and a length.
const SEGMENT: f64 = 256.0;
const SEGMENT_HEADER: f64 = 8.0;
/// Number of the addresses on one page of a table (`MaxHeapTuplesPerPageBits`: 11 bits).
const ADDRESSES: f64 = 2048.0;
/// Memory of the rows that a build sorts at once (`maintenance_work_mem` by default), and what a key and an address take there.
const BATCH: f64 = 67_108_864.0;
const BATCH_KEY: f64 = 120.0;
const BATCH_ADDRESS: f64 = 12.0;

/// Pages of the two kinds.
pub(super) struct Pages {
    pub entry: f64,
    pub data: f64,
}

/// What is taken for a column that was not sampled: a handful of keys a row, which many rows share.
fn unknown(column: Option<&ColumnInfo>, rows: f64) -> SearchKeys {
    let width = column.map_or(8.0, |c| f64::from(c.avg_width));
    let per_row = (width / 8.0).clamp(1.0, 50.0);
    let distinct = (rows * per_row / 20.0).max(1.0);
    SearchKeys {
        method: AccessMethod::Gin,
        opclass: Default::default(),
        per_row,
        distinct,
        width: 8.0,
        in_order: 0.0,
        classes: Vec::new(),
    }
}

/// Bytes of one address of a key that `rows` rows have, in a table of `pages` pages.
fn address(rows: f64, pages: f64) -> f64 {
    let hit = pages * -(-rows / pages).exp_m1();
    let crosses = (hit / rows).min(1.0);
    // Gaps between the pages that are hit, taken as scattered at random: a byte more for each seven bits beyond eleven.
    let gap = (pages / hit).max(1.0);
    let beyond = |bits: i32| (-(f64::from(1_u32 << bits) / ADDRESSES) / gap).exp();
    let more = if gap <= 1.0 { 0.0 } else { beyond(14) + beyond(21) + beyond(28) };
    1.0 + crosses * (1.0 + more)
}

pub(super) fn pages(def: &IndexDef, table: &TableInfo) -> Pages {
    let rows = indexed_rows(def, table);
    let share = if table.rows > 0.0 { rows / table.rows } else { 0.0 };
    let heap = (table.bytes as f64 / PAGE as f64).max(1.0);
    let multicolumn = def.keys.len() > 1;
    let (mut bytes, mut data, mut memory) = (0.0, 0.0, 0.0);
    for key in &def.keys {
        let column = table.column(key.column);
        let sampled = column.and_then(|c| c.search.iter().find(|s| s.method == def.method && s.opclass == key.opclass)).cloned();
        let keys = sampled.unwrap_or_else(|| unknown(column, table.rows));
        let mut classes = keys.classes.clone();
        if classes.is_empty() {
            let distinct = keys.distinct.max(1.0);
            classes.push((distinct, table.rows * keys.per_row / distinct));
        }
        for (count, frequency) in classes {
            // Of a key with few rows, a partial index has some or none.
            let count = if share < 1.0 { count * -(-frequency * share).exp_m1() } else { count };
            let frequency = (frequency * share).max(1.0);
            let one = address(frequency, heap);
            let width = keys.width + if multicolumn { 2.0 } else { 0.0 };
            let list = SEGMENT_HEADER + (frequency - 1.0) * one;
            let tuple = maxalign(HEADER + (width / 2.0).ceil() * 2.0 + list);
            if tuple <= MOST_INLINE {
                bytes += count * (tuple + LINE_POINTER);
            } else {
                bytes += count * (maxalign(HEADER + width) + LINE_POINTER);
                let addresses = frequency * one * (1.0 + SEGMENT_HEADER / SEGMENT);
                let leaves = (addresses / DATA_ROOM).ceil();
                data += count * (leaves + f64::from(u8::from(leaves > 1.0)));
            }
            memory += count * BATCH_KEY + count * frequency * BATCH_ADDRESS;
        }
    }
    let fill = if memory < BATCH { 0.5 } else { 0.67 };
    let leaves = if bytes <= ROOM { 1.0 } else { (bytes / (ROOM * fill)).ceil() };
    let inner = if leaves > 1.0 { (leaves / 150.0).ceil() + f64::from(u8::from(leaves > 150.0)) } else { 0.0 };
    Pages { entry: leaves + inner, data }
}
