//! Small tables and queries for tests.

use crate::model::*;
use std::collections::BTreeMap;

pub fn column(attnum: AttNum, name: &str, n_distinct: f64) -> ColumnInfo {
    ColumnInfo {
        attnum,
        name: name.into(),
        reads: Vec::new(),
        type_name: "integer".into(),
        avg_width: 4,
        align: 4,
        n_distinct,
        null_frac: 0.0,
        correlation: 0.0,
        sortable: true,
        dedup: true,
        expressed: None,
        tenant: false,
        search: Vec::new(),
    }
}

/// A table `public.<name>` of integer columns, the first of them unique, the others with 100 values.
pub fn table(rel: u32, name: &str, rows: f64, columns: &[&str]) -> TableInfo {
    let distinct = |i: usize| if i == 0 { rows } else { 100.0 };
    TableInfo {
        rel: RelId(rel),
        schema: "public".into(),
        name: name.into(),
        rows,
        bytes: ((rows / 60.0).ceil() as u64 + 1) * PAGE,
        columns: columns.iter().enumerate().map(|(i, c)| column(i as AttNum + 1, c, distinct(i))).collect(),
        indexes: Vec::new(),
        writes: WriteRates { updated_columns: BTreeMap::new(), ..WriteRates::default() },
        conditions: BTreeMap::new(),
        trigram_schema: None,
        foreign_keys: Vec::new(),
        parts: 0,
        refused: None,
        sample: None,
    }
}

pub fn existing(oid: u32, def: IndexDef) -> ExistingIndex {
    ExistingIndex { oid, name: format!("existing_{oid}"), def: Some(def), unique: false, valid: true, bytes: PAGE }
}

pub fn catalog(tables: impl IntoIterator<Item = TableInfo>) -> Catalog {
    Catalog { tables: tables.into_iter().map(|t| (t.rel, t)).collect() }
}

pub fn usage(rel: u32, predicates: &[(AttNum, PredicateKind, f64)]) -> RelationUse {
    RelationUse {
        rel: RelId(rel),
        predicates: predicates
            .iter()
            .map(|&(column, kind, selectivity)| Predicate { column, kind, selectivity, by: Vec::new() })
            .collect(),
        conditions: Vec::new(),
        order: Vec::new(),
        limited: false,
        group: Vec::new(),
        needed: Vec::new(),
        whole_row: true,
        target: false,
        rows: 1.0,
    }
}

pub fn query(id: i64, calls: f64, base_cost: Cost, relations: Vec<RelationUse>) -> Query {
    Query { id, text: format!("query {id}"), calls, total_ms: 0.0, shape: QueryShape { relations, base_cost } }
}
