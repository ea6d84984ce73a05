//! Indexes of those rows only that pass a condition: one that the query states without parameters, two that it states together, or,
//! where most rows have no value in a column, that there is one.

use super::prune::Fields;
use super::score::ColumnShares;
use super::wants::Wants;
use super::{btree, covering};
use crate::model::{AttNum, Catalog, ColumnInfo, Condition, FIRST_EXPRESSION, IndexDef, Key, Query, RelId, RelationUse, TableInfo};
use std::collections::{BTreeMap, BTreeSet};

/// A condition that more of the rows pass makes an index hardly smaller.
const MAX_SHARE: f64 = 0.9;
/// Conditions of a use that are tried, the most selective first, and combined with one another.
const MAX_CONDITIONS: usize = 4;
/// A column with fewer NULLs gets no index of its values alone.
const MIN_NULLS: f64 = 0.5;
/// Tenants of a table that may get indexes of their own rows, the heaviest first.
const MAX_TENANTS: usize = 3;

/// Conditions on the tenant's key for which an index may be made.
pub(super) struct Tenants(BTreeSet<(RelId, String)>);

impl Tenants {
    /// Those that most of the workload states.
    pub(super) fn heaviest(queries: &[Query], order: &[usize], importance: &[f64], catalog: &Catalog) -> Self {
        let mut weight: BTreeMap<RelId, BTreeMap<&str, f64>> = BTreeMap::new();
        for &q in order {
            for usage in &queries[q].shape.relations {
                let Some(table) = catalog.table(usage.rel) else { continue };
                for condition in usage.conditions.iter().filter(|c| of_tenant(c, table)) {
                    *weight.entry(usage.rel).or_default().entry(&condition.sql).or_default() += importance[q];
                }
            }
        }
        let mut heaviest = BTreeSet::new();
        for (rel, found) in weight {
            let mut found: Vec<(&str, f64)> = found.into_iter().collect();
            found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
            heaviest.extend(found.into_iter().take(MAX_TENANTS).map(|(sql, _)| (rel, sql.to_owned())));
        }
        Tenants(heaviest)
    }
}

fn of_tenant(condition: &Condition, table: &TableInfo) -> bool {
    matches!(condition.columns[..], [c] if table.column(c).is_some_and(|c| c.tenant))
}

/// A condition of a partial index.
struct Part {
    sql: String,
    /// Columns that it says enough of to leave them out of the index.
    settled: Vec<AttNum>,
}

/// Both conditions as one, as the server prints it; the same for either order.
fn both(a: &Condition, b: &Condition) -> String {
    let (a, b) = (a.sql.as_str().min(&b.sql), a.sql.as_str().max(&b.sql));
    format!("({a} AND {b})")
}

/// That the column has a value, as the server prints it; `None` for expressions and for columns that mostly have one.
fn present(column: &ColumnInfo) -> Option<String> {
    let sparse = column.attnum < FIRST_EXPRESSION && column.null_frac >= MIN_NULLS;
    sparse.then(|| format!("({} IS NOT NULL)", crate::ddl::identifier(&column.name)))
}

fn pairs(conditions: &[Condition]) -> impl Iterator<Item = (&Condition, &Condition)> {
    let different = |(a, b): &(&Condition, &Condition)| a.sql != b.sql;
    conditions.iter().enumerate().flat_map(|(i, a)| conditions[i + 1..].iter().map(move |b| (a, b))).filter(different)
}

/// True when the query's own conditions say what the condition of the index says.
pub(super) fn implied(predicate: &str, wants: &Wants<'_>) -> bool {
    let conditions = &wants.usage.conditions;
    conditions.iter().any(|c| c.sql == predicate)
        || pairs(conditions).any(|(a, b)| both(a, b) == predicate)
        || wants
            .plain
            .keys()
            .chain(wants.joins.keys())
            .filter_map(|c| wants.table.column(*c))
            .any(|c| present(c).is_some_and(|sql| sql == predicate))
}

/// Writes into the catalog which share of the rows passes each condition that a candidate may have.
pub fn note_conditions(queries: &[Query], catalog: &mut Catalog) {
    let mut note = |rel: RelId, sql: String, share: f64| {
        if let Some(table) = catalog.tables.get_mut(&rel) {
            let noted = table.conditions.entry(sql).or_insert(share);
            *noted = noted.max(share);
        }
    };
    for usage in queries.iter().flat_map(|q| &q.shape.relations) {
        for c in &usage.conditions {
            note(usage.rel, c.sql.clone(), c.selectivity);
        }
        for (a, b) in pairs(&usage.conditions) {
            note(usage.rel, both(a, b), a.selectivity * b.selectivity);
        }
    }
    for table in catalog.tables.values_mut() {
        let sparse = table.columns.iter().filter_map(|c| Some((present(c)?, 1.0 - c.null_frac)));
        let sparse: Vec<_> = sparse.collect();
        table.conditions.extend(sparse);
    }
}

/// Partial indexes for the use: plain ones and covering ones.
pub(super) fn candidates(
    wants: &Wants<'_>,
    fields: &Fields,
    shares: &ColumnShares,
    tenants: &Tenants,
    max_columns: usize,
) -> Vec<IndexDef> {
    let usage = wants.usage;
    let mut defs: BTreeSet<IndexDef> = BTreeSet::new();
    for part in parts(wants, fields, tenants) {
        let settled = |c: AttNum| part.settled.contains(&c);
        let rest = RelationUse {
            predicates: usage.predicates.iter().filter(|p| !settled(p.column)).cloned().collect(),
            order: usage.order.iter().filter(|k| !settled(k.column)).copied().collect(),
            group: usage.group.iter().copied().filter(|c| !settled(*c)).collect(),
            needed: usage.needed.iter().copied().filter(|c| !settled(*c)).collect(),
            ..usage.clone()
        };
        let rest = Wants::alone(&rest, wants.table, wants.outer);
        let mut plain = btree::candidates(&rest, fields, shares, max_columns);
        if plain.is_empty() {
            // The condition is all that is searched: any column does as the key, best one that is needed.
            let column = rest.usage.needed.iter().chain(&part.settled).copied().find(|c| fields.key(*c));
            plain.extend(column.map(|c| IndexDef::new(usage.rel, vec![Key::asc(c)], [])));
        }
        let wide = covering::candidates(&rest, fields, &plain, max_columns);
        defs.extend(plain.into_iter().chain(wide).map(|d| d.partial(&part.sql)));
    }
    for column in wants.plain.keys().chain(wants.joins.keys()).filter(|c| fields.key(**c)) {
        let condition = wants.table.column(*column).and_then(present);
        defs.extend(condition.map(|sql| IndexDef::new(usage.rel, vec![Key::asc(*column)], []).partial(&sql)));
    }
    defs.into_iter().collect()
}

fn parts(wants: &Wants<'_>, fields: &Fields, tenants: &Tenants) -> Vec<Part> {
    let usage = wants.usage;
    let worth = |c: &&Condition| {
        c.selectivity <= MAX_SHARE
            && c.columns.iter().all(|c| fields.searched(*c))
            && (!of_tenant(c, wants.table) || tenants.0.contains(&(usage.rel, c.sql.clone())))
    };
    let mut conditions: Vec<Condition> = usage.conditions.iter().filter(worth).cloned().collect();
    conditions.sort_by(|a, b| a.selectivity.total_cmp(&b.selectivity).then_with(|| a.sql.cmp(&b.sql)));
    conditions.dedup_by(|a, b| a.sql == b.sql);
    conditions.truncate(MAX_CONDITIONS);
    let settled = |c: &Condition| if let [only] = c.columns[..] { vec![only] } else { Vec::new() };
    let one = conditions.iter().map(|c| Part { sql: c.sql.clone(), settled: settled(c) });
    let two = pairs(&conditions).map(|(a, b)| Part { sql: both(a, b), settled: [settled(a), settled(b)].concat() });
    one.chain(two).collect()
}
