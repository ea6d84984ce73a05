//! One index for several queries: candidates of the same table combined.

use super::covering;
use crate::model::{Catalog, IndexDef, QueryIdx, RelId};
use std::collections::{BTreeMap, BTreeSet};

/// Candidates per table that are paired with one another, the best first.
const MAX_PAIRED: usize = 40;

/// Indexes that serve two candidates of different queries at once, with the sum of their scores reduced a little: a merged index
/// is larger than either. Candidates of the same query are not merged: what suits it has been made already.
pub(super) fn merged(
    found: &BTreeMap<IndexDef, f64>,
    wanted: &BTreeMap<IndexDef, BTreeSet<QueryIdx>>,
    catalog: &Catalog,
    max_columns: usize,
) -> BTreeMap<IndexDef, f64> {
    let different = |a: &IndexDef, b: &IndexDef| match (wanted.get(a), wanted.get(b)) {
        (Some(a), Some(b)) => !a.is_subset(b) && !b.is_subset(a),
        _ => false,
    };
    let mut by_table: BTreeMap<RelId, Vec<(f64, IndexDef)>> = BTreeMap::new();
    for (def, score) in found {
        by_table.entry(def.table).or_default().push((*score, def.clone()));
    }
    let mut merged: BTreeMap<IndexDef, f64> = BTreeMap::new();
    for (rel, defs) in by_table {
        let Some(table) = catalog.table(rel) else { continue };
        let defs = super::best(defs, MAX_PAIRED);
        for (score_a, a) in &defs {
            for (score_b, b) in &defs {
                let Some(both) = pair(a, b, max_columns).filter(|_| different(a, b)) else { continue };
                if found.contains_key(&both) || !(both.include.is_empty() || covering::narrow(&both, table)) {
                    continue;
                }
                let score = merged.entry(both).or_insert(0.0);
                *score = score.max(0.9 * (score_a + score_b));
            }
        }
    }
    merged
}

/// An index that serves every scan of `a`, and of `b` what its leading columns allow. `None` when there is nothing to gain.
///
/// - Prefix: `a`'s keys begin `b`'s keys: `b`'s keys with the INCLUDE columns of both.
/// - Permutation: all of `a`'s key columns are among `b`'s: `a`'s keys, then the rest of `b`'s.
/// - Union: the same first key: `a`'s keys, and everything else of both as INCLUDE columns, if `b` has INCLUDE columns too.
fn pair(a: &IndexDef, b: &IndexDef, max_columns: usize) -> Option<IndexDef> {
    if a == b || a.keys.is_empty() || b.keys.is_empty() {
        return None;
    }
    let within = |small: &IndexDef, large: &IndexDef| small.keys.iter().all(|k| large.keys.iter().any(|l| l.column == k.column));
    let keys = if a.keys.len() <= b.keys.len() && a.keys[..] == b.keys[..a.keys.len()] {
        b.keys.clone()
    } else if within(a, b) {
        a.keys.iter().chain(b.keys.iter().filter(|k| a.keys.iter().all(|l| l.column != k.column))).copied().collect()
    } else if a.keys[0] == b.keys[0] && !a.include.is_empty() && !b.include.is_empty() {
        a.keys.clone()
    } else {
        return None;
    };
    let include: Vec<_> =
        if a.include.is_empty() && b.include.is_empty() { Vec::new() } else { a.columns().chain(b.columns()).collect() };
    let both = IndexDef::new(a.table, keys, include);
    (both.keys.len() <= max_columns && both != *a && both != *b).then_some(both)
}
