//! Key columns that suit one use of a relation: equalities first, then one range or the wanted order.

use super::prune::Fields;
use super::score::ColumnShares;
use crate::model::{AttNum, IndexDef, Key, PredicateKind, RelationUse, TableInfo};
use std::collections::{BTreeMap, BTreeSet};

/// Join columns that are combined with one another.
const MAX_JOINS_COMBINED: usize = 4;
/// Ranges that are tried after equalities, the most selective first.
const MAX_RANGES: usize = 3;

/// The strongest restriction of each column: an equality hides a range on the same column.
pub(super) fn restrictions(usage: &RelationUse) -> BTreeMap<AttNum, (PredicateKind, f64)> {
    let mut strongest: BTreeMap<AttNum, (PredicateKind, f64)> = BTreeMap::new();
    for p in usage.predicates.iter().filter(|p| p.by.is_empty()) {
        let rank = |k: PredicateKind| match k {
            PredicateKind::Equal => 0,
            PredicateKind::In => 1,
            PredicateKind::Range => 2,
            PredicateKind::Join => 3,
            PredicateKind::Prefix | PredicateKind::Search => 4,
        };
        let entry = strongest.entry(p.column).or_insert((p.kind, p.selectivity));
        if rank(p.kind) < rank(entry.0) {
            *entry = (p.kind, p.selectivity.min(entry.1));
        } else {
            entry.1 = entry.1.min(p.selectivity);
        }
    }
    strongest
}

/// All key lists for the use, without INCLUDE columns and without duplicates.
pub(super) fn candidates(
    usage: &RelationUse,
    table: &TableInfo,
    fields: &Fields,
    shares: &ColumnShares,
    max_columns: usize,
) -> Vec<IndexDef> {
    let restricted = restrictions(usage);
    let of_kind = |wanted: &[PredicateKind]| {
        let mut columns: Vec<AttNum> =
            restricted.iter().filter(|(c, (k, _))| wanted.contains(k) && fields.key(**c)).map(|(c, _)| *c).collect();
        columns.sort_by(|a, b| restricted[a].1.total_cmp(&restricted[b].1).then(a.cmp(b)));
        columns
    };
    // A column may be joined and restricted at once; as a join column it counts both times.
    let mut joins: Vec<AttNum> =
        usage.predicates.iter().filter(|p| p.kind == PredicateKind::Join && fields.key(p.column)).map(|p| p.column).collect();
    joins.sort_unstable();
    joins.dedup();
    let equal = of_kind(&[PredicateKind::Equal]);
    let equal_in = of_kind(&[PredicateKind::Equal, PredicateKind::In]);
    let mut ranges = of_kind(&[PredicateKind::Range]);
    ranges.truncate(MAX_RANGES);

    let mut prefixes: BTreeSet<Vec<AttNum>> = BTreeSet::from([Vec::new(), equal.clone(), equal_in.clone()]);
    // The order by frequency in the workload lets the indexes of several queries share a prefix.
    prefixes.insert(shares.by_frequency(table.rel, &equal_in));
    prefixes.extend(equal_in.iter().map(|c| vec![*c]));
    for &join in joins.iter().take(MAX_JOINS_COMBINED) {
        let others: Vec<AttNum> = equal_in.iter().copied().filter(|c| *c != join).collect();
        prefixes.insert(vec![join]);
        prefixes.insert(std::iter::once(join).chain(others.iter().copied()).collect());
        prefixes.insert(others.into_iter().chain([join]).collect());
        prefixes.extend(joins.iter().take(MAX_JOINS_COMBINED).filter(|j| **j != join).map(|j| vec![join, *j]));
    }

    let mut lists: BTreeSet<Vec<Key>> = BTreeSet::new();
    let mut add = |keys: Vec<Key>| {
        let keys: Vec<Key> = keys.into_iter().take(max_columns.max(1)).collect();
        if !keys.is_empty() {
            lists.insert(keys);
        }
    };
    let group: Vec<AttNum> = usage.group.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    for prefix in prefixes {
        let keys = |rest: &[Key]| prefix.iter().map(|c| Key::asc(*c)).chain(rest.iter().copied()).collect::<Vec<_>>();
        add(keys(&[]));
        for range in ranges.iter().filter(|r| !prefix.contains(r)) {
            add(keys(&[Key::asc(*range)]));
        }
        // The index gives the order only behind columns that are constant within the scan: equalities, not IN, not joins.
        if prefix.iter().all(|c| equal.contains(c)) {
            let order = wanted_order(usage, &prefix, &equal, fields);
            if !order.is_empty() {
                add(keys(&order));
            }
        }
        let grouped: Vec<Key> = group.iter().filter(|c| !prefix.contains(c)).map(|c| Key::asc(*c)).collect();
        if !grouped.is_empty() && grouped.iter().all(|k| fields.key(k.column)) && prefix.iter().all(|c| equal.contains(c)) {
            add(keys(&grouped));
        }
    }
    lists.into_iter().map(|keys| IndexDef::new(usage.rel, keys, [])).collect()
}

/// The wanted order behind `prefix`: without columns that are constant, and only as far as columns may be indexed.
fn wanted_order(usage: &RelationUse, prefix: &[AttNum], constant: &[AttNum], fields: &Fields) -> Vec<Key> {
    let mut order: Vec<Key> = Vec::new();
    for key in &usage.order {
        if prefix.contains(&key.column) || constant.contains(&key.column) || order.iter().any(|k| k.column == key.column) {
            continue;
        }
        if !fields.key(key.column) {
            break;
        }
        order.push(*key);
    }
    // Read backwards, an index gives the reverse order: spell it so that indexes of different queries are the same.
    if order.iter().all(|k| k.descending && k.nulls_first) {
        order.iter_mut().for_each(|k| *k = Key::asc(k.column));
    }
    order
}
