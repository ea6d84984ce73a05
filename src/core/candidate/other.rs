//! Indexes that are not B-trees: for what a B-tree cannot search (gin, gist, spgist), or for what they do in fewer bytes (hash, brin).

use super::prune::Fields;
use super::wants::Wants;
use crate::model::{AccessMethod, AttNum, Bytes, ColumnInfo, IndexDef, Key, OpClass, PredicateKind};
use crate::size;
use std::collections::{BTreeMap, BTreeSet};

/// Narrower values are as small in a B-tree, which can do more.
const MIN_HASH_WIDTH: u32 = 16;
/// A hash index must be this much smaller than the B-tree.
const HASH_SHARE: f64 = 0.9;
/// Columns in whose order the rows do not lie have their values everywhere.
const MIN_CORRELATION: f64 = 0.9;
/// A smaller table has too few ranges of 128 pages to leave any out.
const MIN_BRIN_BYTES: Bytes = 16 << 20;

pub(super) fn candidates(wants: &Wants<'_>, fields: &Fields, max_columns: usize) -> Vec<IndexDef> {
    let mut defs = searching(wants, fields, max_columns);
    defs.extend(hash(wants, fields));
    defs.extend(brin(wants, fields, max_columns));
    defs.into_iter().collect()
}

/// An index for each restriction by each operator class that serves it; of gin one for all such columns together, too, or for those that
/// leave the fewest rows.
fn searching(wants: &Wants<'_>, fields: &Fields, max_columns: usize) -> BTreeSet<IndexDef> {
    let rel = wants.usage.rel;
    let mut defs = BTreeSet::new();
    // Of a column's classes the first that is named: the most general.
    let mut gin: BTreeMap<AttNum, (f64, Key)> = BTreeMap::new();
    for p in wants.special().filter(|p| fields.searched(p.column)) {
        for (method, opclass) in p.by.iter().filter(|(method, _)| *method != AccessMethod::Btree) {
            let key = Key::asc(p.column).with(*opclass);
            defs.insert(IndexDef::new(rel, vec![key], []).by(*method));
            if *method == AccessMethod::Gin {
                let (selectivity, first) = gin.entry(p.column).or_insert((p.selectivity, key));
                (*selectivity, *first) = (selectivity.min(p.selectivity), key.min(*first));
            }
        }
    }
    let mut gin: Vec<(f64, Key)> = gin.into_values().collect();
    gin.sort_by(|a, b| a.0.total_cmp(&b.0));
    gin.truncate(max_columns);
    if gin.len() > 1 {
        // The order of its columns is no matter to gin: that of the table, so that equal ones are the same.
        let keys: BTreeMap<AttNum, Key> = gin.into_iter().map(|(_, key)| (key.column, key)).collect();
        defs.insert(IndexDef::new(rel, keys.into_values().collect(), []).by(AccessMethod::Gin));
    }
    defs
}

/// For equality only, where the values are wide: a hash index holds four bytes of each.
fn hash(wants: &Wants<'_>, fields: &Fields) -> Vec<IndexDef> {
    let table = wants.table;
    let equal = wants.columns(&[PredicateKind::Equal]);
    let columns: BTreeSet<AttNum> = equal.into_iter().chain(wants.joins.keys().copied()).filter(|c| fields.key(*c)).collect();
    let small = |column: &AttNum| {
        let btree = IndexDef::new(wants.usage.rel, vec![Key::asc(*column)], []);
        let hash = btree.clone().by(AccessMethod::Hash);
        let (large, small) = (size::of(&btree, table).bytes as f64, size::of(&hash, table).bytes as f64);
        let wide = table.column(*column).is_some_and(|c| c.avg_width >= MIN_HASH_WIDTH && hashable(c));
        (wide && small < large * HASH_SHARE).then_some(hash)
    };
    columns.iter().filter_map(small).collect()
}

/// For ranges of columns in whose order the rows lie: a few bytes for each 128 pages.
fn brin(wants: &Wants<'_>, fields: &Fields, max_columns: usize) -> Vec<IndexDef> {
    let table = wants.table;
    if table.bytes < MIN_BRIN_BYTES {
        return Vec::new();
    }
    let ordered = |c: &ColumnInfo| c.correlation.abs() >= MIN_CORRELATION && summarised(c);
    let columns: Vec<AttNum> =
        wants.plain.keys().copied().filter(|c| fields.key(*c) && table.column(*c).is_some_and(ordered)).collect();
    let def = |columns: &[AttNum]| {
        IndexDef::new(wants.usage.rel, columns.iter().map(|c| Key::asc(*c).with(OpClass::Default)).collect(), [])
            .by(AccessMethod::Brin)
    };
    let mut defs: Vec<IndexDef> = columns.iter().map(|c| def(&[*c])).collect();
    let together: Vec<AttNum> = columns.into_iter().take(max_columns).collect();
    if together.len() > 1 {
        defs.push(def(&together));
    }
    defs
}

/// Types that have a hash and a brin operator class by default, by their names.
fn named(column: &ColumnInfo, names: &[&str]) -> bool {
    names.iter().any(|n| column.type_name.strip_prefix(n).is_some_and(|rest| rest.is_empty() || rest.starts_with(['(', ' '])))
}

fn hashable(column: &ColumnInfo) -> bool {
    named(column, &["text", "character varying", "character", "uuid", "numeric", "inet", "cidr", "name", "jsonb"])
}

fn summarised(column: &ColumnInfo) -> bool {
    let numbers = ["smallint", "integer", "bigint", "real", "double precision", "numeric", "oid"];
    let times = ["date", "timestamp", "time", "interval"];
    named(column, &numbers) || named(column, &times) || named(column, &["text", "character varying", "character", "uuid"])
}
