//! One index for several queries: candidates of the same table combined.

use super::covering;
use crate::model::{AccessMethod, AttNum, Catalog, FIRST_EXPRESSION, IndexDef, QueryIdx, RelId};
use std::collections::{BTreeMap, BTreeSet};

/// Candidates per table that are paired with one another, the best first.
const MAX_PAIRED: usize = 60;
/// Merged candidates per table that are kept, and of these the ones that are paired once more.
const MAX_MERGED: usize = 32;
const MAX_PAIRED_AGAIN: usize = 12;
/// A merged index is larger than either: it is worth a little less than both.
const MERGED: f64 = 0.9;

/// A candidate with its score and the queries it was made for.
#[derive(Clone)]
struct Part {
    score: f64,
    def: IndexDef,
    queries: BTreeSet<QueryIdx>,
}

/// Indexes that serve candidates of different queries at once. Candidates of the same query are not merged: what suits it has been
/// made already.
pub(super) fn merged(
    found: &BTreeMap<IndexDef, f64>,
    wanted: &BTreeMap<IndexDef, BTreeSet<QueryIdx>>,
    catalog: &Catalog,
    max_columns: usize,
) -> BTreeMap<IndexDef, f64> {
    let mut by_table: BTreeMap<RelId, Vec<Part>> = BTreeMap::new();
    for (def, score) in found.iter().filter(|(d, _)| d.method == AccessMethod::Btree) {
        if let Some(queries) = wanted.get(def) {
            by_table.entry(def.table).or_default().push(Part { score: *score, def: def.clone(), queries: queries.clone() });
        }
    }
    let mut merged = BTreeMap::new();
    for (rel, parts) in by_table {
        let Some(table) = catalog.table(rel) else { continue };
        let parts = best(parts, MAX_PAIRED);
        let unknown = |d: &IndexDef| {
            !found.contains_key(d) && (d.include.is_empty() && d.keys.len() <= max_columns || covering::narrow(d, table))
        };
        let once = best(pairs(&parts, &parts, max_columns, &unknown), MAX_MERGED);
        let again = pairs(&once[..once.len().min(MAX_PAIRED_AGAIN)], &parts, max_columns, &unknown);
        let all = once.into_iter().chain(again).collect();
        merged.extend(best(all, MAX_MERGED).into_iter().map(|p| (p.def, p.score)));
    }
    merged
}

/// The `most` best, each definition once, of each leading column in turn: a few costly queries would have all of them else.
fn best(mut parts: Vec<Part>, most: usize) -> Vec<Part> {
    parts.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.def.cmp(&b.def)));
    let mut seen = BTreeSet::new();
    parts.retain(|p| seen.insert(p.def.clone()));
    let mut turns: BTreeMap<Option<AttNum>, usize> = BTreeMap::new();
    let mut turn = |p: &Part| {
        let next = turns.entry(p.def.keys.first().map(|k| k.column)).or_default();
        *next += 1;
        *next
    };
    let mut parts: Vec<(usize, Part)> = parts.into_iter().map(|p| (turn(&p), p)).collect();
    parts.sort_by_key(|(turn, _)| *turn);
    parts.into_iter().take(most).map(|(_, p)| p).collect()
}

fn pairs(left: &[Part], right: &[Part], max_columns: usize, unknown: &dyn Fn(&IndexDef) -> bool) -> Vec<Part> {
    let mut merged: BTreeMap<IndexDef, Part> = BTreeMap::new();
    for a in left {
        for b in right.iter().filter(|b| !a.queries.is_subset(&b.queries) && !b.queries.is_subset(&a.queries)) {
            let Some(def) = pair(&a.def, &b.def, max_columns).filter(unknown) else { continue };
            let score = MERGED * (a.score + b.score);
            let queries = a.queries.union(&b.queries).copied().collect();
            let part = merged.entry(def.clone()).or_insert(Part { score, def, queries: BTreeSet::new() });
            part.score = part.score.max(score);
            part.queries = part.queries.union(&queries).copied().collect();
        }
    }
    merged.into_values().collect()
}

/// An index that serves every scan of `a`, and of `b` what its leading columns allow. `None` when there is nothing to gain.
///
/// - Prefix: `a`'s keys begin `b`'s keys: `b`'s keys with the INCLUDE columns of both.
/// - Permutation: all of `a`'s key columns are among `b`'s: `a`'s keys, then the rest of `b`'s.
/// - Union: the same first key: `a`'s keys, and everything else of both as INCLUDE columns.
///
/// Partial indexes are merged with those of the same condition only.
fn pair(a: &IndexDef, b: &IndexDef, max_columns: usize) -> Option<IndexDef> {
    if a == b || a.keys.is_empty() || b.keys.is_empty() || a.predicate != b.predicate {
        return None;
    }
    let has = |def: &IndexDef, column| def.keys.iter().any(|l| l.column == column);
    let union = !a.keys.iter().all(|k| has(b, k.column));
    let keys = if a.keys.len() <= b.keys.len() && a.keys[..] == b.keys[..a.keys.len()] {
        b.keys.clone()
    } else if !union {
        a.keys.iter().chain(b.keys.iter().filter(|k| !has(a, k.column))).copied().collect()
    } else if a.keys[0] == b.keys[0] {
        a.keys.clone()
    } else {
        return None;
    };
    let covering = union || !a.include.is_empty() || !b.include.is_empty();
    let mut include = if covering { a.columns().chain(b.columns()).collect() } else { Vec::new() };
    // An expression can be a key only.
    include.retain(|c| *c < FIRST_EXPRESSION);
    let mut both = IndexDef::new(a.table, keys, include);
    both.predicate.clone_from(&a.predicate);
    (both.keys.len() <= max_columns && both != *a && both != *b).then_some(both)
}
