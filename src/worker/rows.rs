//! Which tables' rows an analysis looks at, so that it knows how big their indexes would be.

use crate::pg::rows;
use indexpilot_core::model::{AttNum, Bytes, Catalog, Query, RelId, RelationUse, TableInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A table takes some ten milliseconds when its blocks are in memory. What this time does not suffice for is left to statistics.
const ALL_TABLES: Duration = Duration::from_secs(3);

/// Looks at rows of the tables that could get an index, the largest first, as far as the queries use their columns.
pub fn of_queries(catalog: &mut Catalog, queries: &[Query], min_bytes: Bytes) {
    let mut used: BTreeMap<RelId, BTreeSet<AttNum>> = BTreeMap::new();
    for relation in queries.iter().flat_map(|q| &q.shape.relations) {
        used.entry(relation.rel).or_default().extend(columns(relation));
    }
    let mut tables: Vec<&mut TableInfo> = catalog.tables.values_mut().filter(|t| t.bytes >= min_bytes).collect();
    tables.sort_by_key(|t| std::cmp::Reverse(t.bytes));
    let start = Instant::now();
    for table in tables {
        let left = ALL_TABLES.saturating_sub(start.elapsed());
        if let Some(columns) = used.get(&table.rel).filter(|_| !left.is_zero()) {
            table.sample = rows::sample(table, columns, rows::PATIENCE.min(left)).map(Arc::new);
        }
    }
}

/// Columns that an index for this use could have.
fn columns(relation: &RelationUse) -> impl Iterator<Item = AttNum> + '_ {
    let keys = relation.predicates.iter().map(|p| p.column).chain(relation.order.iter().map(|k| k.column));
    let conditions = relation.conditions.iter().flat_map(|c| c.columns.iter().copied());
    keys.chain(conditions).chain(relation.group.iter().copied()).chain(relation.needed.iter().copied())
}
