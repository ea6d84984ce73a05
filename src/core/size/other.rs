//! The sizes of hash, brin, gist and spgist indexes.
//!
//! - hash: buckets for all rows of the table at three quarters of a page each, rounded up as the table of buckets grows; rows that
//!   collide beyond a page take overflow pages [hashpage.c, `_hash_init`].
//! - brin: a summary for each 128 pages of the table, and a map of them [brin_revmap.c].
//! - gist and spgist: tuples with the key as the operator class stores it, on pages as full as splitting leaves them.

use super::btree::layout;
use super::{Size, indexed_rows, maxalign};
use crate::model::{AccessMethod, ColumnInfo, IndexDef, Key, PAGE, SearchKeys, TableInfo};

const LINE_POINTER: f64 = 4.0;
const TUPLE_HEADER: f64 = 8.0;
/// What a page has for tuples without page header and special space.
const ROOM: f64 = PAGE as f64 - 24.0 - 16.0;
/// A hash tuple: header, hash value, line pointer; and how many a bucket is made for (`HASH_DEFAULT_FILLFACTOR` 75).
const HASH_TUPLE: f64 = 20.0;
const PER_BUCKET: f64 = 307.0;
/// Pages of the table for each summary (`BRIN_DEFAULT_PAGES_PER_RANGE`), and summaries for each page of the map.
const RANGE: f64 = 128.0;
const PER_MAP: f64 = 1360.0;
/// How full pages are after splitting when tuples come in any order, and what that is less when they come in the keys' order, so that
/// the lower halves stay as they are.
const GIST_FILL: (f64, f64) = (0.63, 0.18);
/// The signatures of texts in gist are split more evenly.
const GIST_WORDS_FILL: (f64, f64) = (0.80, 0.0);
const SPGIST_FILL: (f64, f64) = (0.70, 0.34);
/// What spgist's trees of texts leave of a text in the leaves: the beginning is in the inner tuples.
const REST_OF_TEXT: f64 = 0.7;

pub(super) fn hash(def: &IndexDef, table: &TableInfo) -> Size {
    let column = def.keys.first().and_then(|k| table.column(k.column));
    let nulls = column.map_or(0.0, |c| c.null_frac);
    let rows = indexed_rows(def, table) * (1.0 - nulls);
    // The number of buckets follows the rows of the whole table.
    let buckets = buckets(table.rows.max(0.0) / PER_BUCKET);
    let distinct = column.map_or(rows, |c| c.n_distinct).clamp(1.0, rows.max(1.0));
    let overflow = buckets * overflow_pages(distinct / buckets, rows / distinct);
    Size::of_pages(2.0 + buckets + overflow.ceil(), rows)
}

/// The number of buckets that a table for `wanted` buckets has: a power of two, from 1024 on in quarters of the step to the next
/// [hashutil.c, `_hash_spareindex`].
fn buckets(wanted: f64) -> f64 {
    if wanted <= 2.0 {
        return 2.0;
    }
    let power = 2f64.powf(wanted.log2().ceil());
    if power <= 512.0 {
        return power;
    }
    let (half, step) = (power / 2.0, power / 8.0);
    half + ((wanted - half) / step).ceil().max(1.0) * step
}

/// Overflow pages of a bucket that gets `values` different values on average, scattered at random, each with `rows` rows.
fn overflow_pages(values: f64, rows: f64) -> f64 {
    let per_page = (ROOM / HASH_TUPLE).floor();
    if values > 200.0 {
        return ((values * rows / per_page).ceil() - 1.0).max(0.0);
    }
    let (mut share, mut pages) = ((-values).exp(), 0.0);
    for k in 1..=600_u32 {
        share *= values / f64::from(k);
        pages += share * ((f64::from(k) * rows / per_page).ceil() - 1.0).max(0.0);
    }
    pages
}

pub(super) fn brin(def: &IndexDef, table: &TableInfo) -> Size {
    let rows = indexed_rows(def, table);
    let ranges = (table.bytes as f64 / PAGE as f64 / RANGE).ceil().max(1.0);
    // The least and the greatest value of each column.
    let values: f64 = def.keys.iter().filter_map(|k| table.column(k.column)).map(|c| 2.0 * aligned(c)).sum();
    let nulls = def.keys.iter().filter_map(|k| table.column(k.column)).any(|c| c.null_frac > 0.0);
    let tuple = maxalign(TUPLE_HEADER + if nulls { 8.0 } else { 0.0 } + values) + LINE_POINTER;
    let regular = (ranges / (ROOM / tuple).floor().max(1.0)).ceil();
    let map = (ranges / PER_MAP).floor() + 1.0;
    Size::of_pages(1.0 + map + regular, rows)
}

fn aligned(column: &ColumnInfo) -> f64 {
    let (width, align, _) = layout(column);
    (width / align).ceil() * align
}

/// What was sampled of a key as a gist or spgist class stores it.
fn sampled<'a>(def: &IndexDef, table: &'a TableInfo, key: &Key) -> Option<&'a SearchKeys> {
    table.column(key.column)?.search.iter().find(|s| s.method == def.method && s.opclass == key.opclass)
}

pub(super) fn search_tree(def: &IndexDef, table: &TableInfo) -> Size {
    let rows = indexed_rows(def, table);
    if rows < 1.0 {
        return Size::of_pages(if def.method == AccessMethod::Gist { 1.0 } else { 3.0 }, rows);
    }
    // As sampled, else as the column stores it.
    let width = |k: &Key| sampled(def, table, k).map(|s| s.width).or_else(|| table.column(k.column).map(aligned)).unwrap_or(8.0);
    let keys: f64 = def.keys.iter().map(width).sum();
    let include: f64 = def.include.iter().filter_map(|c| table.column(*c)).map(aligned).sum();
    let first_key = def.keys.first().and_then(|k| table.column(k.column));
    let in_order = def.keys.first().and_then(|k| sampled(def, table, k)).map(|s| s.in_order);
    let in_order = in_order.or(first_key.map(|c| c.correlation.abs())).unwrap_or(0.0).clamp(0.0, 1.0);
    let words = first_key.is_some_and(|c| c.type_name == "tsvector");
    let (header, (any, less), first) = match def.method {
        AccessMethod::Gist => (TUPLE_HEADER, if words { GIST_WORDS_FILL } else { GIST_FILL }, 1.0),
        _ => (2.0 * TUPLE_HEADER, SPGIST_FILL, 3.0),
    };
    let fill = any - less * in_order;
    let is_text = first_key.is_some_and(|c| c.type_name == "text" || c.type_name.starts_with("character varying"));
    let keys = if def.method == AccessMethod::Spgist && is_text { keys * REST_OF_TEXT } else { keys };
    let tuple = maxalign(header + keys + include) + LINE_POINTER;
    let leaves = (rows * tuple / (ROOM * fill)).ceil();
    // Inner tuples are as wide as leaf tuples, but for those that are only bounds.
    let per_inner = (ROOM * fill / tuple).max(2.0);
    let (mut level, mut pages) = (leaves, leaves);
    while level > 1.0 && def.method == AccessMethod::Gist {
        level = (level / per_inner).ceil();
        pages += level;
    }
    Size::of_pages(pages + first - 1.0, rows)
}

#[cfg(test)]
mod tests {
    use super::super::of;
    use crate::fixture;
    use crate::model::{AccessMethod, IndexDef, Key, OpClass, PAGE, SearchKeys, TableInfo};

    /// 300 000 rows of integers and texts in 4 000 pages.
    fn table() -> TableInfo {
        let mut table = fixture::table(1, "t", 300_000.0, &["id", "few"]);
        table.bytes = 4000 * PAGE;
        table.columns[0].n_distinct = 300_000.0;
        table.columns[1].n_distinct = 5.0;
        table
    }

    fn pages(table: &TableInfo, column: i16, method: AccessMethod) -> f64 {
        of(&IndexDef::new(table.rel, vec![Key::asc(column)], []).by(method), table).pages as f64
    }

    #[test]
    fn buckets_grow_by_quarters_of_a_power_of_two() {
        for (wanted, got) in [(0.0, 2.0), (3.0, 4.0), (300.0, 512.0), (513.0, 640.0), (700.0, 768.0), (1025.0, 1280.0)] {
            assert_eq!(super::buckets(wanted), got, "{wanted}");
        }
        let table = table();
        // 977 buckets are wanted; with five values, 60 000 rows of one value take 147 overflow pages.
        assert_eq!(pages(&table, 1, AccessMethod::Hash), 2.0 + 1024.0);
        let few = pages(&table, 2, AccessMethod::Hash);
        assert!((1026.0 + 5.0 * 140.0..1026.0 + 5.0 * 150.0).contains(&few), "{few}");
    }

    #[test]
    fn a_brin_index_is_a_few_pages() {
        assert_eq!(pages(&table(), 1, AccessMethod::Brin), 3.0);
        let mut huge = table();
        huge.bytes = 1_000_000 * PAGE;
        let found = pages(&huge, 1, AccessMethod::Brin);
        assert!((1.0 + 6.0 + 19.0..1.0 + 6.0 + 25.0).contains(&found), "{found}");
    }

    #[test]
    fn gin_grows_with_its_keys_and_a_partial_index_is_smaller() {
        let mut table = table();
        let keys = |per_row, distinct, classes| SearchKeys {
            method: AccessMethod::Gin,
            opclass: OpClass::Default,
            per_row,
            distinct,
            width: 4.0,
            in_order: 0.0,
            classes,
        };
        let sized = |table: &mut TableInfo, search| {
            table.columns[1].search = vec![search];
            pages(table, 2, AccessMethod::Gin)
        };
        let few = sized(&mut table, keys(1.0, 100.0, Vec::new()));
        let more = sized(&mut table, keys(3.0, 100.0, Vec::new()));
        let unique = sized(&mut table, keys(1.0, 300_000.0, vec![(300_000.0, 1.0)]));
        assert!(few < more && more < unique, "{few} {more} {unique}");
        table.conditions.insert("few > 1".into(), 0.1);
        let def = IndexDef::new(table.rel, vec![Key::asc(2)], []).by(AccessMethod::Gin).partial("few > 1");
        let partial = of(&def, &table).pages as f64;
        assert!(partial < unique / 5.0, "{partial} of {unique}");
    }

    #[test]
    fn order_leaves_trees_half_empty() {
        let mut table = table();
        for method in [AccessMethod::Gist, AccessMethod::Spgist] {
            table.columns[0].correlation = 0.0;
            let scattered = pages(&table, 1, method);
            table.columns[0].correlation = 1.0;
            let in_order = pages(&table, 1, method);
            assert!(in_order > 1.2 * scattered, "{in_order} {scattered}");
        }
    }
}
