//! A simple guess of what a candidate is worth, used only to decide which candidates the planner is asked about.

use super::btree::restrictions;
use super::covering::holds_all;
use crate::model::{AttNum, IndexDef, PredicateKind, Query, QueryIdx, RelId, RelationUse, TableInfo, mean_ms_per_cost};
use std::collections::BTreeMap;

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
            for column in restrictions(usage).into_keys() {
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
pub(super) fn of_use(def: &IndexDef, usage: &RelationUse, table: &TableInfo) -> f64 {
    let restricted = restrictions(usage);
    let mut passed = 1.0;
    let mut equalities = 0;
    let mut matched = 0;
    for key in &def.keys {
        match restricted.get(&key.column) {
            Some((PredicateKind::Range, selectivity)) => {
                passed *= selectivity;
                break;
            }
            Some((kind, selectivity)) => {
                passed *= selectivity;
                matched += 1;
                equalities += usize::from(*kind == PredicateKind::Equal && equalities + 1 == matched);
            }
            None => break,
        }
    }
    let constant = |c: AttNum| matches!(restricted.get(&c), Some((PredicateKind::Equal, _)));
    let mut wanted = usage.order.iter().map(|k| k.column).filter(|c| !constant(*c)).peekable();
    let behind: Vec<AttNum> = def.keys.iter().skip(equalities).map(|k| k.column).collect();
    let sorted =
        wanted.peek().is_some() && wanted.zip(behind.iter().map(Some).chain(std::iter::repeat(None))).all(|(w, b)| b == Some(&w));
    let grouped = !usage.group.is_empty()
        && behind.iter().take(usage.group.len()).filter(|c| usage.group.contains(c)).count() == usage.group.len();
    let order = match (sorted, usage.limited, grouped) {
        (true, true, _) => 0.9,
        (true, false, _) | (_, _, true) => 0.25,
        _ => 0.0,
    };
    let fetched = 1.0 - passed.clamp(0.0, 1.0);
    let used = if order > fetched { order } else { fetched + (1.0 - fetched) * order };
    let covering = if holds_all(def, usage) { 0.25 } else { 0.0 };
    // Among equals the smaller index is better.
    let columns = def.columns().count() as f64;
    let width: f64 = def.columns().filter_map(|c| table.column(c)).map(|c| f64::from(c.avg_width)).sum();
    (used + covering) / (1.0 + 0.001 * columns + 0.000_01 * width)
}
