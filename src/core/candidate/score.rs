//! A guess of what a candidate is worth, used only to decide which candidates the planner is asked about: the planner's own formulas
//! with its default settings, much shortened.

use super::covering::holds_all;
use super::wants::Wants;
use crate::model::{AccessMethod, AttNum, IndexDef, PAGE, PredicateKind, Query, QueryIdx, RelId, mean_ms_per_cost};
use std::collections::BTreeMap;

/// `random_page_cost` and the costs of a row, of an index entry and of an operator [costsize.c].
const RANDOM_PAGE: f64 = 4.0;
const ROW: f64 = 0.01;
const ENTRY: f64 = 0.005;
const OPERATOR: f64 = 0.0025;
/// Going down a B-tree to a leaf, about.
const DESCENT: f64 = 0.5;
/// Share that an index saves by giving the wanted order to a query that stops early, and to one that does not.
const LIMITED: f64 = 0.9;
const SORTED: f64 = 0.25;
/// The same for the first column of the order.
const PRESORTED: f64 = 0.2;

/// What the whole of each query costs in the workload.
pub(super) fn importance(queries: &[Query]) -> Vec<f64> {
    let mean = mean_ms_per_cost(queries);
    queries.iter().map(|q| q.weight_among(mean) * q.shape.base_cost).collect()
}

/// How much of the workload restricts each column.
pub(super) struct ColumnShares(BTreeMap<(RelId, AttNum), f64>);

pub(super) fn column_shares(queries: &[Query], order: &[QueryIdx]) -> ColumnShares {
    let importance = importance(queries);
    let mut shares = BTreeMap::new();
    for &q in order {
        for usage in &queries[q].shape.relations {
            let columns: std::collections::BTreeSet<AttNum> = usage.predicates.iter().map(|p| p.column).collect();
            for column in columns {
                *shares.entry((usage.rel, column)).or_insert(0.0) += importance[q];
            }
        }
    }
    ColumnShares(shares)
}

impl ColumnShares {
    /// The columns, those that most of the workload restricts first.
    pub(super) fn by_frequency(&self, rel: RelId, columns: &[AttNum]) -> Vec<AttNum> {
        let share = |c: &AttNum| self.0.get(&(rel, *c)).copied().unwrap_or(0.0);
        let mut columns = columns.to_vec();
        columns.sort_by(|a, b| share(b).total_cmp(&share(a)).then(a.cmp(b)));
        columns
    }
}

/// Share of the relation's reading that the index may save (about 0 to 1).
pub(super) fn of_use(def: &IndexDef, wants: &Wants<'_>) -> f64 {
    let pages = (wants.table.bytes / PAGE).max(1) as f64;
    let whole = pages + wants.table.rows * (ROW + OPERATOR * wants.usage.predicates.len() as f64);
    let index_pages = rough_pages(def, wants);
    let saved = |cost: f64| (1.0 - cost / whole.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    let alone = saved(scan(def, wants, index_pages, None));
    let joined = saved(scan(def, wants, index_pages, Some(wants.outer)));
    // How often a join looks for partners is a guess; that it can is worth something.
    let leads_join = def.keys.first().is_some_and(|k| wants.joins.contains_key(&k.column));
    let fetched = alone.max(joined).max(if leads_join { 0.1 } else { 0.0 });
    let order = ordered(def, wants);
    let used = if order > fetched { order } else { fetched + (1.0 - fetched) * order };
    // Among equals the smaller index is better.
    used / (1.0 + 0.02 * index_pages / pages + 0.001 * def.columns().count() as f64)
}

/// Pages of the index, without the detail of [`crate::size`].
fn rough_pages(def: &IndexDef, wants: &Wants<'_>) -> f64 {
    let table = wants.table;
    let share = def.predicate.as_ref().and_then(|p| table.conditions.get(p)).copied().unwrap_or(1.0);
    let rows = (table.rows * share).max(1.0);
    let columns = || def.columns().filter_map(|c| table.column(c));
    let width: f64 = columns().map(|c| f64::from(c.avg_width) * (1.0 - c.null_frac)).sum();
    let entry = match def.method {
        AccessMethod::Brin => return (table.bytes / PAGE) as f64 / 128.0 / 100.0 + 2.0,
        AccessMethod::Hash => 20.0,
        AccessMethod::Btree if def.include.is_empty() && columns().all(|c| c.dedup) => {
            let keys = columns().map(|c| c.n_distinct.max(1.0)).product::<f64>().min(rows);
            let full = ((8.0 + width) / 8.0).ceil() * 8.0 + 4.0;
            if rows > 2.0 * keys { full / (rows / keys).min(100.0) + 6.0 } else { full }
        }
        _ => ((8.0 + width) / 8.0).ceil() * 8.0 + 4.0,
    };
    (rows * entry / (0.9 * PAGE as f64)).ceil()
}

/// Cost of reading through the index what the use wants: by its own restrictions, or with as many rows at hand as given whose
/// partners are looked for, one after the other.
fn scan(def: &IndexDef, wants: &Wants<'_>, index_pages: f64, outer: Option<f64>) -> f64 {
    let table = wants.table;
    let share = def.predicate.as_ref().and_then(|p| table.conditions.get(p)).copied().unwrap_or(1.0);
    // Within the part of the index that is read, and with what its other keys filter.
    let (mut bounds, mut filtered) = (1.0, 1.0);
    let mut within = true;
    for key in &def.keys {
        let join = outer.and_then(|_| wants.joins.get(&key.column)).map(|s| (PredicateKind::Equal, *s));
        let restriction = join.into_iter().chain(wants.restriction(def.method, key)).min_by(|a, b| a.1.total_cmp(&b.1));
        match restriction {
            Some((kind, selectivity)) => {
                filtered *= selectivity;
                if within {
                    bounds *= selectivity;
                }
                within &= super::wants::is_equal(kind) || def.method != AccessMethod::Btree;
            }
            None => within = false,
        }
    }
    let loops = outer.unwrap_or(1.0).max(1.0);
    let rows = table.rows * share * filtered;
    let pages = (table.bytes / PAGE).max(1) as f64;
    let read = if def.method == AccessMethod::Brin { index_pages } else { (index_pages * bounds).max(1.0) };
    let index = fetched(index_pages, loops * read) * RANDOM_PAGE + loops * table.rows * share * bounds * ENTRY;
    let heap = if def.method == AccessMethod::Btree && holds_all(def, wants.usage) {
        0.0
    } else {
        // Between rows that lie in the order of the index and rows that lie anywhere; the latter are read in the table's order.
        let correlation = def.keys.first().and_then(|k| table.column(k.column)).map_or(0.0, |c| c.correlation.abs());
        let scattered = fetched(pages, loops * rows);
        let page = RANDOM_PAGE - (RANDOM_PAGE - 1.0) * (scattered / pages).min(1.0).sqrt();
        let ordered = (pages * share * filtered).max(1.0) * loops;
        let near = if outer.is_none() { correlation * correlation } else { 0.0 };
        let most =
            if def.method == AccessMethod::Brin { (pages * (filtered + 1.0 - correlation)).min(pages) } else { scattered * page };
        most + near * (ordered.min(most) - most)
    };
    index + heap + loops * (DESCENT + rows * ROW)
}

/// Different pages of so many met by so many fetches, about as the planner has it (`index_pages_fetched`, costsize.c).
fn fetched(pages: f64, fetches: f64) -> f64 {
    (2.0 * pages * fetches / (2.0 * pages + fetches)).min(pages).max(1.0)
}

/// What the order of the index saves.
fn ordered(def: &IndexDef, wants: &Wants<'_>) -> f64 {
    if def.method != AccessMethod::Btree {
        return 0.0;
    }
    let usage = wants.usage;
    let equalities = def.keys.iter().take_while(|k| wants.constant(k.column)).count();
    let mut wanted = usage.order.iter().map(|k| k.column).filter(|c| !wants.constant(*c)).peekable();
    let presorted = wanted.peek().is_some_and(|w| def.keys.get(equalities).is_some_and(|k| k.column == *w));
    let behind: Vec<AttNum> = def.keys.iter().skip(equalities).map(|k| k.column).collect();
    let sorted =
        wanted.peek().is_some() && wanted.zip(behind.iter().map(Some).chain(std::iter::repeat(None))).all(|(w, b)| b == Some(&w));
    let grouped = !usage.group.is_empty()
        && behind.iter().take(usage.group.len()).filter(|c| usage.group.contains(c)).count() == usage.group.len();
    match (sorted, usage.limited, grouped) {
        (true, true, _) => LIMITED,
        (true, false, _) | (_, _, true) => SORTED,
        _ if presorted => PRESORTED,
        _ => 0.0,
    }
}
