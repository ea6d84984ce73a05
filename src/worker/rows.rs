//! Which tables' rows an analysis looks at, so that it knows how big their indexes would be.

use crate::pg::{role, rows};
use indexpilot_core::model::{AttNum, Bytes, Catalog, Query, RelId, RelationUse, TableInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A table takes some ten milliseconds when its blocks are in memory. What this time does not suffice for is left to statistics.
const ALL_TABLES: Duration = Duration::from_secs(3);

/// Values that are kept of all tables together: each takes sixteen bytes, and what is derived from it about as many.
const ALL_VALUES: usize = 5_000_000;

/// Looks at rows of the tables that could get an index, the largest first, as far as the queries use their columns and the caller may
/// read them: a query may use more than that, by a view. Of conditions, those that the most queries have come first.
pub fn of_queries(catalog: &mut Catalog, queries: &[Query], min_bytes: Bytes) {
    let mut used: BTreeMap<RelId, BTreeSet<AttNum>> = BTreeMap::new();
    let mut stated: BTreeMap<RelId, BTreeMap<&str, usize>> = BTreeMap::new();
    for relation in queries.iter().flat_map(|q| &q.shape.relations) {
        used.entry(relation.rel).or_default().extend(columns(relation));
        for condition in &relation.conditions {
            *stated.entry(relation.rel).or_default().entry(&condition.sql).or_default() += 1;
        }
    }
    let mut tables: Vec<&mut TableInfo> = catalog.tables.values_mut().filter(|t| t.bytes >= min_bytes).collect();
    tables.sort_by_key(|t| std::cmp::Reverse(t.bytes));
    let start = Instant::now();
    let mut values = 0;
    for table in tables {
        let left = ALL_TABLES.saturating_sub(start.elapsed());
        if let Some(columns) = used.get(&table.rel).filter(|_| !left.is_zero() && values < ALL_VALUES) {
            let columns = role::readable(table.rel, columns.iter().copied());
            let mut conditions: Vec<(&str, usize)> = stated.remove(&table.rel).into_iter().flatten().collect();
            conditions.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
            let conditions: Vec<&str> = conditions.into_iter().map(|(sql, _)| sql).collect();
            table.sample = rows::sample(table, &columns, &conditions, rows::PATIENCE.min(left)).map(Arc::new);
            values += table.sample.as_ref().map_or(0, |sample| sample.rows() * columns.len());
        }
    }
}

/// Columns that an index for this use could have.
fn columns(relation: &RelationUse) -> impl Iterator<Item = AttNum> + '_ {
    let keys = relation.predicates.iter().map(|p| p.column).chain(relation.order.iter().map(|k| k.column));
    let conditions = relation.conditions.iter().flat_map(|c| c.columns.iter().copied());
    keys.chain(conditions).chain(relation.group.iter().copied()).chain(relation.needed.iter().copied())
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use super::*;
    use crate::pg::{catalog, role};
    use crate::whatif::{Sample, shape};
    use indexpilot_core::model::{IndexDef, Key};
    use indexpilot_core::{candidate, size};
    use pgrx::prelude::*;

    #[pg_test]
    fn only_columns_that_the_caller_may_read_are_looked_at() {
        Spi::run(
            "CREATE SCHEMA s; CREATE ROLE s_reader; GRANT USAGE ON SCHEMA s TO s_reader;
             CREATE TABLE s.t AS SELECT i AS id, i % 7 AS secret FROM generate_series(1, 5000) i; ANALYZE s.t;
             GRANT SELECT (id) ON s.t TO s_reader;
             CREATE VIEW s.v AS SELECT id FROM s.t WHERE secret = 1; GRANT SELECT ON s.v TO s_reader",
        )
        .unwrap();
        let rel = catalog::relation(Some("s"), "t").unwrap().unwrap();
        let of_view = Sample {
            text: "SELECT id FROM v WHERE id < 9".into(),
            search_path: "s".into(),
            role: role::current(),
            parameters: vec![],
        };
        let shape = shape(&of_view).unwrap();
        let queries = [Query { id: 1, text: String::new(), calls: 1.0, total_ms: 0.0, shape }];
        let looked_at = || {
            let mut tables = catalog::snapshot(&[rel]).unwrap();
            of_queries(&mut tables, &queries, 0);
            let sample = tables.tables[&rel].sample.clone().unwrap();
            [1, 2].map(|column| sample.size_of(column, 0).is_some())
        };
        assert_eq!(looked_at(), [true, true]);
        Spi::run("SET LOCAL ROLE s_reader").unwrap();
        let found = looked_at();
        Spi::run("RESET ROLE").unwrap();
        assert_eq!(found, [true, false]);
    }

    #[pg_test]
    fn conditions_of_queries_are_looked_at_alone_and_in_pairs() {
        Spi::run(
            "CREATE SCHEMA s; CREATE TABLE s.t AS SELECT i AS id, CASE WHEN i % 4 > 0 THEN i END AS gone, (ARRAY['a', 'b'])[1 + (i % 4 > 0)::int] AS state
                FROM generate_series(1, 5000) i; ANALYZE s.t",
        )
        .unwrap();
        let rel = catalog::relation(Some("s"), "t").unwrap().unwrap();
        let text = "SELECT id FROM t WHERE state = 'a' AND gone IS NULL AND id < 9";
        let of_text = Sample { text: text.into(), search_path: "s".into(), role: role::current(), parameters: vec![] };
        let queries = [Query { id: 1, text: text.into(), calls: 1.0, total_ms: 0.0, shape: shape(&of_text).unwrap() }];
        let mut tables = catalog::snapshot(&[rel]).unwrap();
        candidate::note_conditions(&queries, &mut tables);
        of_queries(&mut tables, &queries, 0);
        let table = &tables.tables[&rel];
        let share = |sql: &str| size::sampled_share(&IndexDef::new(rel, vec![Key::asc(1)], []).partial(sql), table);
        let (null, a) = ("(gone IS NULL)", "(state = 'a'::text)");
        assert_eq!([null, a].map(share), [Some(0.25); 2]);
        let both = format!("({null} AND {a})");
        assert!((table.conditions[&both] - 0.0625).abs() < 0.01, "as if they were independent: {:?}", table.conditions);
        assert_eq!(share(&both), Some(0.25));
    }
}
