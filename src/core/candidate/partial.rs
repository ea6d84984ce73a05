//! Indexes of those rows only that pass a condition which queries state without parameters, or two that they state together.
//!
//! An index for one value of many, or for a range that one query names, helps that query today; the next one names another. So a
//! condition must be of the kind that stays: it compares a column of few values, asks for NULL, compares columns with one another, or
//! several queries state it.

use super::prune::Fields;
use super::score::ColumnShares;
use super::wants::Wants;
use super::{btree, covering};
use crate::model::{AttNum, Catalog, Condition, IndexDef, Key, PredicateKind, Query, RelId, RelationUse, TableInfo};
use std::collections::{BTreeMap, BTreeSet};

/// A condition that more of the rows pass makes an index hardly smaller.
const MAX_SHARE: f64 = 0.9;
/// Conditions of a use that are tried, the most selective first, and combined with one another.
const MAX_CONDITIONS: usize = 4;
/// A column with more values is not one of few; of somewhat more, a value that is much rarer than the others will do.
const FEW_VALUES: f64 = 10.0;
const MORE_VALUES: f64 = 200.0;
const RARE: f64 = 0.2;
/// What the planner takes for the share of a comparison that it knows nothing of (`DEFAULT_INEQ_SEL`, selfuncs.h).
const UNKNOWN_SHARE: f64 = 1.0 / 3.0;
/// A condition that more of the rows pass is no reason for an index where nothing else is searched or sorted by.
const MAX_SHARE_ALONE: f64 = 0.1;
/// Tenants of a table that may get indexes of their own rows, the heaviest first.
const MAX_TENANTS: usize = 3;

/// What the workload says of conditions.
#[derive(Default)]
pub(super) struct Rules {
    /// Those on the tenant's key for which an index may be made: of the tenants with most of the workload.
    tenants: BTreeSet<(RelId, String)>,
    /// Those that several queries state.
    repeated: BTreeSet<(RelId, String)>,
    /// The columns that each reads, alone or as one of a pair.
    columns: BTreeMap<(RelId, String), BTreeSet<AttNum>>,
}

impl Rules {
    pub(super) fn new(queries: &[Query], order: &[usize], importance: &[f64], catalog: &Catalog) -> Self {
        let mut rules = Rules::default();
        let mut tenants: BTreeMap<RelId, BTreeMap<&str, f64>> = BTreeMap::new();
        let mut stated: BTreeMap<(RelId, &str), BTreeSet<usize>> = BTreeMap::new();
        for &q in order {
            for usage in &queries[q].shape.relations {
                let Some(table) = catalog.table(usage.rel) else { continue };
                for c in &usage.conditions {
                    stated.entry((usage.rel, &c.sql)).or_default().insert(q);
                    rules.columns.insert((usage.rel, c.sql.clone()), c.columns.iter().copied().collect());
                    if of_tenant(c, table) {
                        *tenants.entry(usage.rel).or_default().entry(&c.sql).or_default() += importance[q];
                    }
                }
                for (a, b) in pairs(&usage.conditions) {
                    rules.columns.insert((usage.rel, both(a, b)), a.columns.iter().chain(&b.columns).copied().collect());
                }
            }
        }
        for (rel, found) in tenants {
            let mut found: Vec<(&str, f64)> = found.into_iter().collect();
            found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
            rules.tenants.extend(found.into_iter().take(MAX_TENANTS).map(|(sql, _)| (rel, sql.to_owned())));
        }
        let several = stated.into_iter().filter(|(_, queries)| queries.len() > 1);
        rules.repeated.extend(several.map(|((rel, sql), _)| (rel, sql.to_owned())));
        rules
    }

    /// True when the use's own conditions may say what the condition of the index says: they are the same, or on the same columns,
    /// which the planner judges better.
    pub(super) fn implied(&self, predicate: &str, usage: &RelationUse) -> bool {
        let reads: BTreeSet<AttNum> = usage.conditions.iter().flat_map(|c| &c.columns).copied().collect();
        self.columns.get(&(usage.rel, predicate.to_owned())).is_some_and(|columns| columns.is_subset(&reads))
    }

    /// The condition is of a kind that stays, and leaves out enough of the rows.
    fn worth(&self, c: &Condition, usage: &RelationUse, table: &TableInfo, fields: &Fields) -> bool {
        let named = (usage.rel, c.sql.clone());
        let few = match c.columns[..] {
            [] => false,
            [_] if of_tenant(c, table) => self.tenants.contains(&named),
            [only] => {
                let ranged = usage.predicates.iter().any(|p| p.column == only && p.kind == PredicateKind::Range);
                let values = table.column(only).map_or(f64::INFINITY, |c| c.n_distinct);
                let few = values <= FEW_VALUES || (values <= MORE_VALUES && c.selectivity * values <= RARE);
                of_nulls(c) || (few && !ranged) || self.repeated.contains(&named)
            }
            // Of such a comparison the planner knows nothing: neither size nor use of the index could be foreseen.
            _ => (c.selectivity - UNKNOWN_SHARE).abs() > 1e-4,
        };
        few && c.selectivity <= MAX_SHARE && c.columns.iter().all(|c| fields.searched(*c))
    }
}

/// `… IS NULL`, `… IS NOT NULL`.
fn of_nulls(condition: &Condition) -> bool {
    condition.sql.ends_with(" NULL)")
}

fn of_tenant(condition: &Condition, table: &TableInfo) -> bool {
    matches!(condition.columns[..], [c] if table.column(c).is_some_and(|c| c.tenant))
}

/// A condition of a partial index.
struct Part {
    sql: String,
    share: f64,
    /// Columns that it says enough of to leave them out of the index.
    settled: Vec<AttNum>,
}

/// Share of the rows that pass both: two bounds of one column are one range.
fn share_of_both(a: &Condition, b: &Condition, usage: &RelationUse) -> f64 {
    let range =
        usage.predicates.iter().filter(|p| p.kind == PredicateKind::Range && a.columns == [p.column] && b.columns == [p.column]);
    let together = range.map(|p| p.selectivity).fold(f64::INFINITY, f64::min);
    if together.is_finite() { together } else { a.selectivity * b.selectivity }
}

/// Both conditions as one, as the server prints it; the same for either order.
fn both(a: &Condition, b: &Condition) -> String {
    let (a, b) = (a.sql.as_str().min(&b.sql), a.sql.as_str().max(&b.sql));
    format!("({a} AND {b})")
}

fn pairs(conditions: &[Condition]) -> impl Iterator<Item = (&Condition, &Condition)> {
    let different = |(a, b): &(&Condition, &Condition)| a.sql != b.sql;
    conditions.iter().enumerate().flat_map(|(i, a)| conditions[i + 1..].iter().map(move |b| (a, b))).filter(different)
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
            note(usage.rel, both(a, b), share_of_both(a, b, usage));
        }
    }
}

/// Partial indexes for the use: plain ones and covering ones.
pub(super) fn candidates(
    wants: &Wants<'_>,
    fields: &Fields,
    shares: &ColumnShares,
    rules: &Rules,
    max_columns: usize,
) -> Vec<IndexDef> {
    let usage = wants.usage;
    let mut defs: BTreeSet<IndexDef> = BTreeSet::new();
    for part in parts(wants, fields, rules) {
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
            // The condition is all that is searched: any column does as the key, best a narrow one that is needed.
            let width = |c: &AttNum| wants.table.column(*c).map_or(u32::MAX, |c| c.avg_width);
            let key = |columns: &[AttNum]| columns.iter().copied().filter(|c| fields.key(*c)).min_by_key(|c| (width(c), *c));
            let column = key(&rest.usage.needed).or_else(|| key(&part.settled)).filter(|_| part.share <= MAX_SHARE_ALONE);
            plain.extend(column.map(|c| IndexDef::new(usage.rel, vec![Key::asc(c)], [])));
        }
        let wide = covering::candidates(&rest, fields, &plain, max_columns);
        defs.extend(plain.into_iter().chain(wide).map(|d| d.partial(&part.sql)));
    }
    defs.into_iter().collect()
}

fn parts(wants: &Wants<'_>, fields: &Fields, rules: &Rules) -> Vec<Part> {
    let worth = |c: &&Condition| rules.worth(c, wants.usage, wants.table, fields);
    let mut conditions: Vec<Condition> = wants.usage.conditions.iter().filter(worth).cloned().collect();
    conditions.sort_by(|a, b| a.selectivity.total_cmp(&b.selectivity).then_with(|| a.sql.cmp(&b.sql)));
    conditions.dedup_by(|a, b| a.sql == b.sql);
    conditions.truncate(MAX_CONDITIONS);
    let settled = |c: &Condition| match c.columns[..] {
        [only] if !c.sql.ends_with(" IS NOT NULL)") => vec![only],
        _ => Vec::new(),
    };
    let one = conditions.iter().map(|c| Part { sql: c.sql.clone(), share: c.selectivity, settled: settled(c) });
    let two = pairs(&conditions).map(|(a, b)| Part {
        sql: both(a, b),
        share: share_of_both(a, b, wants.usage),
        settled: [settled(a), settled(b)].concat(),
    });
    one.chain(two).collect()
}
