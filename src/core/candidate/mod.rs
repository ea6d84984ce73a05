//! Which indexes are worth a question to the planner.
//!
//! Every use of a relation by a query gives B-tree candidates ([`btree`]) and covering variants ([`covering`]); candidates of
//! different queries are merged ([`merge`]); what may not, need not or should not be built is rejected with a reason
//! ([`prune`]). The result does not depend on the order of the queries.

mod btree;
mod covering;
mod merge;
mod prune;
mod score;
#[cfg(test)]
mod tests;

use crate::model::{Bytes, Catalog, IndexDef, Query, QueryIdx, Reason, RelId, TableInfo};
use crate::size::{self, Size};
use std::collections::{BTreeMap, BTreeSet};

/// Candidates kept per use of a relation by a query: plain ones and covering ones.
const MAX_PLAIN_PER_USE: usize = 8;
const MAX_COVERING_PER_USE: usize = 4;
/// Candidates kept in all.
const MAX_CANDIDATES: usize = 400;
/// So many of the best for each use of a table are kept before any other, however small the query's part in the workload is.
const SAFE_PER_USE: usize = 2;

/// Limits of the search.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Most key columns of an index.
    pub max_columns: usize,
    /// Smaller tables get no index.
    pub min_table_bytes: Bytes,
    /// A field that takes part in a smaller share of its table's queries (0 to 1), by calls and by time, gets no index.
    pub min_usage: f64,
    /// A field that a smaller share of the tenants (0 to 1) express gets no index.
    pub min_expression: f64,
}

/// An index worth a question, with the queries that might use it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub def: IndexDef,
    pub size: Size,
    /// Ascending.
    pub queries: Vec<QueryIdx>,
}

/// An index that was thought of and is not worth it, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    pub def: IndexDef,
    pub reason: Reason,
    /// The reason in a sentence, with figures.
    pub detail: String,
    /// Queries it would have been for, ascending.
    pub queries: Vec<QueryIdx>,
}

/// What [`generate`] found. The best candidates come first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generated {
    pub candidates: Vec<Candidate>,
    pub rejected: Vec<Rejected>,
}

/// Positions of the queries in an order that depends on what they are, not on where they stand.
pub(crate) fn canonical_order(queries: &[Query]) -> Vec<QueryIdx> {
    let mut order: Vec<QueryIdx> = (0..queries.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&queries[a], &queries[b]);
        (a.id, &a.text)
            .cmp(&(b.id, &b.text))
            .then(a.shape.base_cost.total_cmp(&b.shape.base_cost))
            .then(a.calls.total_cmp(&b.calls))
    });
    order
}

/// Candidates for the workload, and what was rejected already: fields that may not or should not be indexed, and indexes that
/// exist.
pub fn generate(queries: &[Query], catalog: &Catalog, config: &Config) -> Generated {
    let order = canonical_order(queries);
    let (allowed, mut rejected) = prune::fields(queries, &order, catalog, config);
    let importance = score::importance(queries);

    // Per definition: score, and the queries it was made for.
    let mut found: BTreeMap<IndexDef, f64> = BTreeMap::new();
    let mut wanted: BTreeMap<IndexDef, BTreeSet<QueryIdx>> = BTreeMap::new();
    // Best place that a definition takes among those for the same use.
    let mut places: BTreeMap<IndexDef, usize> = BTreeMap::new();
    let shares = score::column_shares(queries, &order);
    for &q in &order {
        for usage in &queries[q].shape.relations {
            let Some((table, fields)) = catalog.table(usage.rel).zip(allowed.get(&usage.rel)) else { continue };
            let plain = btree::candidates(usage, table, fields, &shares, config.max_columns);
            let covering = covering::candidates(usage, table, fields, &plain);
            for (defs, most) in [(plain, MAX_PLAIN_PER_USE), (covering, MAX_COVERING_PER_USE)] {
                let scored = best(defs.into_iter().map(|d| (score::of_use(&d, usage, table), d)).collect(), most);
                for (place, (score, def)) in scored.into_iter().enumerate() {
                    let best_place = places.entry(def.clone()).or_insert(place);
                    *best_place = place.min(*best_place);
                    *found.entry(def.clone()).or_insert(0.0) += score * importance[q];
                    wanted.entry(def).or_default().insert(q);
                }
            }
        }
    }
    let existing = prune::existing(&mut found, &wanted, catalog);
    rejected.extend(existing);

    for (def, score) in merge::merged(&found, &wanted, catalog, config.max_columns) {
        if prune::serving(&def, catalog).is_none() {
            found.entry(def).or_insert(score);
        }
    }
    let kept = keep(found, &places);
    let candidates = kept
        .into_iter()
        .filter_map(|(_, def)| {
            let table = catalog.table(def.table)?;
            let queries = (0..queries.len()).filter(|&q| may_use(&queries[q], &def)).collect();
            Some(Candidate { size: size::of(&def, table), def, queries })
        })
        .collect();
    Generated { candidates, rejected }
}

/// At most [`MAX_CANDIDATES`], by score: the best of every use first, then what the score alone says. By score alone, a few costly
/// queries would crowd out every index of a frequent cheap one.
fn keep(found: BTreeMap<IndexDef, f64>, places: &BTreeMap<IndexDef, usize>) -> Vec<(f64, IndexDef)> {
    let place = |def: &IndexDef| places.get(def).map_or(SAFE_PER_USE, |p| *p.min(&SAFE_PER_USE));
    let mut all = best(found.into_iter().map(|(d, s)| (s, d)).collect(), usize::MAX);
    all.sort_by_key(|(_, def)| place(def));
    all.truncate(MAX_CANDIDATES);
    best(all, MAX_CANDIDATES)
}

/// The `most` entries with the highest score; equal scores by definition, so that the choice is the same every time.
fn best(mut scored: Vec<(f64, IndexDef)>, most: usize) -> Vec<(f64, IndexDef)> {
    scored.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| x.cmp(y)));
    scored.truncate(most);
    scored
}

/// True when the planner could have a use for the index: its first column is restricted, sorted or grouped by, or the index holds
/// all that the query needs of the table.
fn may_use(query: &Query, def: &IndexDef) -> bool {
    let Some(first) = def.keys.first().map(|k| k.column) else { return false };
    query.shape.relations.iter().filter(|u| u.rel == def.table).any(|u| {
        u.predicates.iter().any(|p| p.column == first)
            || u.order.first().is_some_and(|k| k.column == first)
            || u.group.contains(&first)
            || covering::holds_all(def, u)
    })
}

/// Average width of a row on disk, in bytes.
fn row_width(table: &TableInfo) -> f64 {
    if table.rows >= 1.0 { table.bytes as f64 / table.rows } else { 0.0 }
}

/// Columns of each table that may be part of an index.
type Allowed = BTreeMap<RelId, prune::Fields>;
