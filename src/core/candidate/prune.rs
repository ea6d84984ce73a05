//! What is not worth a question to the planner: fields that may not or should not be indexed, and indexes that exist.

use super::{Allowed, Candidate, Config, Rejected, wants};
use crate::ddl;
use crate::model::{
    AccessMethod, AttNum, Catalog, ColumnInfo, ExistingIndex, FIRST_EXPRESSION, IndexDef, Key, Predicate, Query, QueryIdx, Reason,
    RelId, TableInfo, mean_ms_per_cost,
};
use std::collections::{BTreeMap, BTreeSet};

/// Columns of a table that may be in an index.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    keys: BTreeSet<AttNum>,
    stored: BTreeSet<AttNum>,
    searched: BTreeSet<AttNum>,
}

impl Fields {
    /// The column may be a key of a B-tree.
    pub(super) fn key(&self, column: AttNum) -> bool {
        self.keys.contains(&column)
    }

    /// The column may be stored as an INCLUDE column.
    pub(super) fn stored(&self, column: AttNum) -> bool {
        self.stored.contains(&column)
    }

    /// The column may be a key of an index of another kind, or in the condition of one.
    pub(super) fn searched(&self, column: AttNum) -> bool {
        self.searched.contains(&column)
    }
}

/// How the workload uses one table.
#[derive(Default)]
struct Usage {
    calls: f64,
    time: f64,
    fields: BTreeMap<AttNum, FieldUsage>,
}

#[derive(Default)]
struct FieldUsage {
    calls: f64,
    time: f64,
    queries: BTreeSet<QueryIdx>,
    /// An index of another kind than a B-tree would serve.
    otherwise: bool,
}

fn measure(queries: &[Query], order: &[QueryIdx]) -> BTreeMap<RelId, Usage> {
    let mean = mean_ms_per_cost(queries);
    let mut tables: BTreeMap<RelId, Usage> = BTreeMap::new();
    for &q in order {
        let query = &queries[q];
        let time = query.weight_among(mean) * query.shape.base_cost;
        let mut used: BTreeMap<RelId, BTreeSet<AttNum>> = BTreeMap::new();
        let mut otherwise: BTreeSet<(RelId, AttNum)> = BTreeSet::new();
        for relation in &query.shape.relations {
            used.entry(relation.rel).or_default().extend(wants::searched(relation));
            let other = |p: &&Predicate| p.by.iter().any(|(method, _)| *method != AccessMethod::Btree);
            otherwise.extend(relation.predicates.iter().filter(other).map(|p| (relation.rel, p.column)));
        }
        for (rel, columns) in used {
            let table = tables.entry(rel).or_default();
            table.calls += query.calls;
            table.time += time;
            for column in columns {
                let field = table.fields.entry(column).or_default();
                field.calls += query.calls;
                field.time += time;
                field.queries.insert(q);
                field.otherwise |= otherwise.contains(&(rel, column));
            }
        }
    }
    tables
}

/// The columns that may be indexed, per table, and one rejection for each column that the workload searches by and that may not.
/// Tables that get no index at all are not in the map.
pub(super) fn fields(queries: &[Query], order: &[QueryIdx], catalog: &Catalog, config: &Config) -> (Allowed, Vec<Rejected>) {
    let mut allowed = Allowed::new();
    let mut rejected = Vec::new();
    for (rel, usage) in measure(queries, order) {
        let Some(table) = catalog.table(rel) else { continue };
        let mut reject = |column: AttNum, field: &FieldUsage, reason, detail| {
            let def = IndexDef::new(rel, vec![Key::asc(column)], []);
            rejected.push(Rejected { def, reason, detail, queries: field.queries.iter().copied().collect() });
        };
        if let Some((reason, detail)) = whole_table(table, config) {
            for (column, field) in &usage.fields {
                reject(*column, field, reason, detail.clone());
            }
            continue;
        }
        // An expression is expressed as its least expressed column is.
        let share = |c: &ColumnInfo| {
            let read = c.reads.iter().filter_map(|r| table.column(*r)).filter_map(|r| r.expressed);
            c.expressed.into_iter().chain(read).min_by(f64::total_cmp)
        };
        let may_be = |c: &&ColumnInfo| share(c).is_none_or(|share| share >= config.min_expression);
        let mut fields = Fields::default();
        fields.searched.extend(table.columns.iter().filter(may_be).map(|c| c.attnum));
        fields.stored.extend(fields.searched.iter().filter(|c| **c < FIRST_EXPRESSION));
        fields.keys.extend(table.columns.iter().filter(may_be).filter(|c| c.sortable).map(|c| c.attnum));
        for (attnum, field) in &usage.fields {
            let Some(column) = table.column(*attnum) else { continue };
            if let Some((reason, detail)) = one_field(column, share(column), field, &usage, table, config) {
                fields.keys.remove(attnum);
                if reason != Reason::Unsortable {
                    fields.stored.remove(attnum);
                    fields.searched.remove(attnum);
                }
                reject(*attnum, field, reason, detail);
            }
        }
        allowed.insert(rel, fields);
    }
    (allowed, rejected)
}

fn whole_table(table: &TableInfo, config: &Config) -> Option<(Reason, String)> {
    let name = format!("{}.{}", table.schema, table.name);
    if let Some(why) = &table.refused {
        return Some((Reason::Refused, format!("No index may be made on {name}: {why}.")));
    }
    (table.bytes < config.min_table_bytes).then(|| {
        let detail = format!("Table {name} has {} bytes, less than the limit of {} bytes.", table.bytes, config.min_table_bytes);
        (Reason::TableSmall, detail)
    })
}

fn one_field(
    column: &ColumnInfo,
    expressed: Option<f64>,
    field: &FieldUsage,
    usage: &Usage,
    table: &TableInfo,
    config: &Config,
) -> Option<(Reason, String)> {
    let name = format!("{}.{}.{}", table.schema, table.name, column.name);
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    if let Some(share) = expressed
        && share < config.min_expression
    {
        let limit = percent(config.min_expression);
        return Some((
            Reason::NotExpressed,
            format!("Field {name} is expressed by {} of the tenants, less than {limit}.", percent(share)),
        ));
    }
    if !column.sortable && !field.otherwise {
        return Some((
            Reason::Unsortable,
            format!("Type {} of field {name} has no default B-tree operator class.", column.type_name),
        ));
    }
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let (calls, time) = (share(field.calls, usage.calls), share(field.time, usage.time));
    (calls < config.min_usage && time < config.min_usage).then(|| {
        let detail = format!(
            "Field {name} takes part in {} of the calls ({:.0} of {:.0}) and {} of the time of its table's queries, both less than {}.",
            percent(calls),
            field.calls,
            usage.calls,
            percent(time),
            percent(config.min_usage)
        );
        (Reason::RarelyUsed, detail)
    })
}

/// An existing valid index that serves every scan that `def` would. An index of all rows would serve those of some rows too, but it
/// may read far more.
pub(super) fn serving<'c>(def: &IndexDef, catalog: &'c Catalog) -> Option<&'c ExistingIndex> {
    let serves = |d: &IndexDef| d.covers(def) && d.predicate == def.predicate;
    let covers = |index: &&ExistingIndex| index.valid && index.def.as_ref().is_some_and(serves);
    catalog.table(def.table)?.indexes.iter().find(covers)
}

/// Leaves out every candidate that another one of the same columns can stand for in each of its queries, at no greater size.
pub(super) fn dominated(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut on_table: BTreeMap<RelId, Vec<&Candidate>> = BTreeMap::new();
    for c in &candidates {
        on_table.entry(c.def.table).or_default().push(c);
    }
    let stands_for = |other: &Candidate, c: &Candidate| {
        other.def != c.def
            && other.def.covers(&c.def)
            && other.def.predicate == c.def.predicate
            && other.def.columns().all(|a| c.def.columns().any(|b| a == b))
            && other.size.bytes <= c.size.bytes
            && c.queries.iter().all(|q| other.queries.binary_search(q).is_ok())
            // Of two that stand for one another the first stays.
            && (!c.def.covers(&other.def) || c.size.bytes > other.size.bytes || other.def < c.def)
    };
    let superfluous: BTreeSet<IndexDef> = on_table
        .values()
        .flat_map(|all| all.iter().filter(|c| all.iter().any(|other| stands_for(other, c))))
        .map(|c| c.def.clone())
        .collect();
    candidates.into_iter().filter(|c| !superfluous.contains(&c.def)).collect()
}

/// Takes out of `found` what exists; of those, the largest are reported (not every prefix of them).
pub(super) fn existing(
    found: &mut BTreeMap<IndexDef, f64>,
    wanted: &BTreeMap<IndexDef, BTreeSet<QueryIdx>>,
    catalog: &Catalog,
) -> Vec<Rejected> {
    let there: Vec<IndexDef> = found.keys().filter(|d| serving(d, catalog).is_some()).cloned().collect();
    found.retain(|def, _| serving(def, catalog).is_none());
    // Of two that cover one another (read forwards and backwards) the first stands for both.
    let stands_for = |other: &IndexDef, d: &IndexDef| other != d && other.covers(d) && (!d.covers(other) || other < d);
    let largest = there.iter().filter(|d| !there.iter().any(|other| stands_for(other, d)));
    largest
        .filter_map(|def| {
            let index = serving(def, catalog)?;
            let table = catalog.table(def.table)?;
            let for_it: BTreeSet<QueryIdx> =
                there.iter().filter(|d| def.covers(d)).filter_map(|d| wanted.get(d)).flatten().copied().collect();
            let detail = format!("Index {} already serves every scan that {} would.", index.name, ddl::outline(def, table));
            Some(Rejected { def: def.clone(), reason: Reason::AlreadyExists, detail, queries: for_it.into_iter().collect() })
        })
        .collect()
}
