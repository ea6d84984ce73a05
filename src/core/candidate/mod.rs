//! Which indexes are worth a question to the planner.
//!
//! Every use of a relation by a query gives B-tree candidates ([`btree`]), covering variants ([`covering`]), indexes of some rows
//! ([`partial`]) and those of other access methods ([`other`]); foreign keys without an index give one each; candidates of different
//! queries are merged ([`merge`]); what may not, need not or should not be built is rejected with a reason ([`prune`]). Of each kind
//! the best are kept ([`score`]), so that neither the number of candidates nor the number that one query is planned with grows
//! without bound. The result does not depend on the order of the queries.

mod btree;
mod covering;
mod merge;
mod other;
mod partial;
mod prune;
mod score;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tpch;
mod wants;

pub use partial::note_conditions;

use crate::model::{Bytes, Catalog, IndexDef, Key, Query, QueryIdx, Reason, RelId, TableInfo};
use crate::size::{self, Size};
use std::collections::{BTreeMap, BTreeSet};
use wants::Wants;

/// Candidates kept per use of a relation by a query: plain ones, covering ones, of some rows, and of other access methods.
const MAX_PLAIN_PER_USE: usize = 10;
const MAX_COVERING_PER_USE: usize = 6;
const MAX_PARTIAL_PER_USE: usize = 6;
const MAX_OTHER_PER_USE: usize = 4;
/// Candidates kept in all, and on one table.
const MAX_CANDIDATES: usize = 800;
const MAX_PER_TABLE: usize = 200;
/// So many of the best of each kind for each use of a table are kept before any other, however small the query's part in the workload is.
const SAFE_PER_USE: usize = 2;
/// Candidates that one use is planned with, besides those that were made for it.
const MAX_ASKED_PER_USE: usize = 24;

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

/// What was thought of so far.
#[derive(Default)]
struct Found {
    /// Per definition what it may save, over all queries.
    scores: BTreeMap<IndexDef, f64>,
    /// The queries it was made for.
    wanted: BTreeMap<IndexDef, BTreeSet<QueryIdx>>,
    /// Best place that a definition takes among those of its kind for the same use.
    places: BTreeMap<IndexDef, usize>,
}

impl Found {
    /// The candidates of one kind for one use.
    fn add(&mut self, query: QueryIdx, importance: f64, scored: Vec<(f64, IndexDef)>) {
        for (place, (score, def)) in best(scored, usize::MAX).into_iter().enumerate() {
            let best_place = self.places.entry(def.clone()).or_insert(place);
            *best_place = place.min(*best_place);
            *self.scores.entry(def.clone()).or_insert(0.0) += score * importance;
            self.wanted.entry(def).or_default().insert(query);
        }
    }
}

/// Candidates for the workload, and what was rejected already: fields that may not or should not be indexed, and indexes that
/// exist. The shares of rows that conditions leave must be in the catalog ([`note_conditions`]).
pub fn generate(queries: &[Query], catalog: &Catalog, config: &Config) -> Generated {
    let order = canonical_order(queries);
    let (allowed, mut rejected) = prune::fields(queries, &order, catalog, config);
    let importance = score::importance(queries);
    let shares = score::column_shares(queries, &order);
    let rules = partial::Rules::new(queries, &order, &importance, catalog);

    let mut found = Found::default();
    for &q in &order {
        for number in 0..queries[q].shape.relations.len() {
            let Some(wants) = Wants::of(&queries[q], number, catalog) else { continue };
            let Some(fields) = allowed.get(&wants.usage.rel) else { continue };
            let plain = btree::candidates(&wants, fields, &shares, config.max_columns);
            let covering = covering::candidates(&wants, fields, &plain, config.max_columns);
            let partial = partial::candidates(&wants, fields, &shares, &rules, config.max_columns);
            let other = other::candidates(&wants, fields, config.max_columns);
            let kinds = [
                (plain, MAX_PLAIN_PER_USE),
                (covering, MAX_COVERING_PER_USE),
                (partial, MAX_PARTIAL_PER_USE),
                (other, MAX_OTHER_PER_USE),
            ];
            for (defs, most) in kinds {
                let scored = defs.into_iter().map(|d| (score::of_use(&d, &wants), d)).collect();
                found.add(q, importance[q], varied(scored, most));
            }
        }
    }
    foreign_keys(&mut found.scores, catalog, &allowed, config.max_columns);
    rejected.extend(prune::existing(&mut found.scores, &found.wanted, catalog));
    for (def, score) in merge::merged(&found.scores, &found.wanted, catalog, config.max_columns) {
        if prune::serving(&def, catalog).is_none() {
            found.scores.entry(def).or_insert(score);
        }
    }
    let candidates = asked(queries, catalog, keep(found.scores, &found.places), &found.wanted, &rules)
        .into_iter()
        .filter_map(|(def, queries)| Some(Candidate { size: size::of(&def, catalog.table(def.table)?), def, queries }));
    Generated { candidates: prune::dominated(candidates.collect()), rejected }
}

/// An index for each foreign key that is looked for. It has no score of its own: the query that the server runs for it has.
fn foreign_keys(scores: &mut BTreeMap<IndexDef, f64>, catalog: &Catalog, allowed: &Allowed, max_columns: usize) {
    for (rel, fields) in allowed {
        for key in catalog.table(*rel).iter().flat_map(|t| &t.foreign_keys) {
            if key.checks > 0.0 && key.columns.len() <= max_columns && key.columns.iter().all(|c| fields.key(*c)) {
                scores.entry(IndexDef::new(*rel, key.columns.iter().map(|c| Key::asc(*c)).collect(), [])).or_insert(0.0);
            }
        }
    }
}

/// At most [`MAX_CANDIDATES`], by score: the best of every use first, then what the score alone says. By score alone, a few costly
/// queries would crowd out every index of a frequent cheap one.
fn keep(found: BTreeMap<IndexDef, f64>, places: &BTreeMap<IndexDef, usize>) -> Vec<(f64, IndexDef)> {
    let place = |def: &IndexDef| places.get(def).map_or(SAFE_PER_USE, |p| *p.min(&SAFE_PER_USE));
    let mut all = best(found.into_iter().map(|(d, s)| (s, d)).collect(), usize::MAX);
    all.sort_by_key(|(_, def)| place(def));
    let mut per_table: BTreeMap<RelId, usize> = BTreeMap::new();
    all.retain(|(_, def)| {
        let n = per_table.entry(def.table).or_default();
        *n += 1;
        *n <= MAX_PER_TABLE
    });
    all.truncate(MAX_CANDIDATES);
    best(all, MAX_CANDIDATES)
}

/// For each candidate the queries that are planned with it: those it was made for, and those of which it is among the best for a use.
fn asked(
    queries: &[Query],
    catalog: &Catalog,
    kept: Vec<(f64, IndexDef)>,
    wanted: &BTreeMap<IndexDef, BTreeSet<QueryIdx>>,
    rules: &partial::Rules,
) -> Vec<(IndexDef, Vec<QueryIdx>)> {
    let mut for_it: Vec<BTreeSet<QueryIdx>> = kept.iter().map(|(_, def)| wanted.get(def).cloned().unwrap_or_default()).collect();
    let mut on_table: BTreeMap<RelId, Vec<usize>> = BTreeMap::new();
    for (i, (_, def)) in kept.iter().enumerate() {
        on_table.entry(def.table).or_default().push(i);
    }
    for (q, query) in queries.iter().enumerate() {
        for number in 0..query.shape.relations.len() {
            let Some(wants) = Wants::of(query, number, catalog) else { continue };
            let useful = on_table.get(&wants.usage.rel).into_iter().flatten().filter(|i| wants.may_use(&kept[**i].1, rules));
            let scored = useful.map(|i| (score::of_use(&kept[*i].1, &wants), (kept[*i].1.clone(), *i))).collect();
            for (_, (_, i)) in best(scored, MAX_ASKED_PER_USE) {
                for_it[i].insert(q);
            }
        }
    }
    kept.into_iter().zip(for_it).map(|((_, def), queries)| (def, queries.into_iter().collect())).collect()
}

/// The `most` entries with the highest score; equal scores by definition, so that the choice is the same every time.
fn best<T: Ord>(mut scored: Vec<(f64, T)>, most: usize) -> Vec<(f64, T)> {
    scored.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| x.cmp(y)));
    scored.truncate(most);
    scored
}

/// The `most` best, but of each leading column (and condition) the best before the second best of another: what looks best is often
/// one index in a dozen variants.
fn varied(scored: Vec<(f64, IndexDef)>, most: usize) -> Vec<(f64, IndexDef)> {
    let mut seen: BTreeMap<_, usize> = BTreeMap::new();
    let mut turns: Vec<(usize, (f64, IndexDef))> = Vec::new();
    for (score, def) in best(scored, usize::MAX) {
        let turn = seen.entry((def.method, def.keys.first().map(|k| k.column), def.predicate.clone())).or_default();
        turns.push((*turn, (score, def)));
        *turn += 1;
    }
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().take(most).map(|(_, entry)| entry).collect()
}

/// Average width of a row on disk, in bytes.
fn row_width(table: &TableInfo) -> f64 {
    if table.rows >= 1.0 { table.bytes as f64 / table.rows } else { 0.0 }
}

/// Columns of each table that may be part of an index.
type Allowed = BTreeMap<RelId, prune::Fields>;
