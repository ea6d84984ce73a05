//! Key columns of B-trees that suit one use of a relation: equalities first, then ranges, the wanted order or the groups.

use super::prune::Fields;
use super::score::ColumnShares;
use super::wants::Wants;
use crate::model::{AccessMethod, AttNum, IndexDef, Key, PredicateKind};
use std::collections::BTreeSet;

/// Join columns that are combined with one another.
const MAX_JOINS_COMBINED: usize = 4;
/// Ranges that are tried after equalities, the most selective first.
const MAX_RANGES: usize = 3;
/// Equalities of which every two are tried in both orders, so that other queries find their prefix.
const MAX_PAIRED: usize = 4;

/// All key lists for the use, without INCLUDE columns and without duplicates.
pub(super) fn candidates(wants: &Wants<'_>, fields: &Fields, shares: &ColumnShares, max_columns: usize) -> Vec<IndexDef> {
    let usage = wants.usage;
    let keyed = |columns: Vec<AttNum>| columns.into_iter().filter(|c| fields.key(*c)).collect::<Vec<_>>();
    let equal = keyed(wants.columns(&[PredicateKind::Equal]));
    let ranges = ranges(wants, fields);
    let mut lists: BTreeSet<Vec<Key>> = BTreeSet::new();
    let mut add = |keys: Vec<Key>| {
        let mut seen = BTreeSet::new();
        let keys: Vec<Key> = keys.into_iter().filter(|k| seen.insert(k.column)).take(max_columns.max(1)).collect();
        if !keys.is_empty() {
            lists.insert(keys);
        }
    };
    let group: BTreeSet<AttNum> = usage.group.iter().copied().collect();
    for prefix in prefixes(wants, fields, shares) {
        let keys = |rest: &[Key]| prefix.iter().map(|c| Key::asc(*c)).chain(rest.iter().copied()).collect::<Vec<_>>();
        add(keys(&[]));
        let free: Vec<Key> = ranges.iter().copied().filter(|r| !prefix.contains(&r.column)).collect();
        for range in &free {
            add(keys(&[*range]));
            // What follows the first range does not narrow the search, but saves visits to the table.
            let others: Vec<Key> = free.iter().copied().filter(|r| r.column != range.column).collect();
            add(keys(&[&[*range], &others[..]].concat()));
        }
        // The index gives the order only behind columns that are constant within the scan: equalities, not IN, not joins.
        if !prefix.iter().all(|c| equal.contains(c)) {
            continue;
        }
        let order = wanted_order(wants, &prefix, &equal, fields);
        if !order.is_empty() {
            add(keys(&order));
            // The first column alone, which is smaller and serves more queries: within its equal values the server sorts by the rest
            // (incremental sort).
            add(keys(&order[..1]));
            if usage.limited {
                add(keys(&[&order[..], &free[..]].concat()));
            }
        }
        let grouped: Vec<Key> = group.iter().filter(|c| !prefix.contains(c)).map(|c| Key::asc(*c)).collect();
        if !grouped.is_empty() && grouped.iter().all(|k| fields.key(k.column)) {
            add(keys(&grouped));
            // Groups in the order in which they are wanted afterwards need no sort.
            let wanted: Vec<Key> = order.iter().copied().filter(|k| group.contains(&k.column)).collect();
            if !wanted.is_empty() {
                add(keys(&[&wanted[..], &grouped[..]].concat()));
            }
        }
    }
    lists.into_iter().map(|keys| IndexDef::new(usage.rel, keys, [])).collect()
}

/// Keys for ranges and for beginnings of texts, the most selective first.
fn ranges(wants: &Wants<'_>, fields: &Fields) -> Vec<Key> {
    let mut found: Vec<(f64, Key)> =
        wants.plain.iter().filter(|(_, (k, _))| *k == PredicateKind::Range).map(|(c, (_, s))| (*s, Key::asc(*c))).collect();
    for p in wants.special().filter(|p| p.kind == PredicateKind::Prefix) {
        let classes = p.by.iter().filter(|(method, _)| *method == AccessMethod::Btree);
        found.extend(classes.map(|(_, opclass)| (p.selectivity, Key::asc(p.column).with(*opclass))));
    }
    found.retain(|(_, k)| fields.key(k.column));
    found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    found.dedup_by(|a, b| a.1 == b.1);
    found.truncate(MAX_RANGES);
    found.into_iter().map(|(_, k)| k).collect()
}

/// Columns that may come first: nothing, equalities and joins in the orders that matter.
fn prefixes(wants: &Wants<'_>, fields: &Fields, shares: &ColumnShares) -> BTreeSet<Vec<AttNum>> {
    let keyed = |columns: Vec<AttNum>| columns.into_iter().filter(|c| fields.key(*c)).collect::<Vec<_>>();
    let equal = keyed(wants.columns(&[PredicateKind::Equal]));
    let equal_in = keyed(wants.columns(&[PredicateKind::Equal, PredicateKind::In]));
    let mut joins: Vec<AttNum> = keyed(wants.joins.keys().copied().collect());
    joins.truncate(MAX_JOINS_COMBINED);

    let mut prefixes: BTreeSet<Vec<AttNum>> = BTreeSet::from([Vec::new(), equal.clone(), equal_in.clone()]);
    // The order by frequency in the workload lets the indexes of several queries share a prefix.
    prefixes.insert(shares.by_frequency(wants.usage.rel, &equal_in));
    prefixes.extend(equal_in.iter().map(|c| vec![*c]));
    for (i, a) in equal_in.iter().take(MAX_PAIRED).enumerate() {
        for b in equal_in.iter().take(MAX_PAIRED).skip(i + 1) {
            prefixes.extend([vec![*a, *b], vec![*b, *a]]);
        }
    }
    for &join in &joins {
        let others: Vec<AttNum> = equal_in.iter().copied().filter(|c| *c != join).collect();
        prefixes.insert(vec![join]);
        prefixes.insert(std::iter::once(join).chain(others.iter().copied()).collect());
        prefixes.insert(others.into_iter().chain([join]).collect());
        prefixes.extend(joins.iter().filter(|j| **j != join).map(|j| vec![join, *j]));
    }
    if joins.len() > 2 {
        prefixes.insert(joins.clone());
    }
    // Every query of a tenant names it: indexes that begin with it keep a tenant's rows together.
    let tenant = |c: &AttNum| wants.table.column(*c).is_some_and(|c| c.tenant);
    for first in equal_in.iter().chain(&joins).copied().filter(tenant).collect::<BTreeSet<_>>() {
        let rest = |columns: &[AttNum]| columns.iter().copied().filter(|c| *c != first).collect::<Vec<_>>();
        prefixes.insert(std::iter::once(first).chain(rest(&equal_in)).collect());
        prefixes.extend(rest(&joins).into_iter().map(|j| vec![first, j]));
    }
    prefixes
}

/// The wanted order behind `prefix`: without columns that are constant, and only as far as columns may be indexed.
fn wanted_order(wants: &Wants<'_>, prefix: &[AttNum], constant: &[AttNum], fields: &Fields) -> Vec<Key> {
    let mut order: Vec<Key> = Vec::new();
    for key in &wants.usage.order {
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
