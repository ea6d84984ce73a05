//! Estimates for people: what building an index takes, what a query would cost without one, how selective a condition is.

use super::advisor::caller_search_path;
use crate::apply::facts;
use crate::pg::error::{Error, Kind, Result};
use crate::pg::{catalog, indexes, role};
use crate::whatif::cache::{self, Surroundings};
use crate::whatif::{self, Hypothetical, Parameter, Sample};
use crate::{guc, store};
use indexpilot_core::diff;
use indexpilot_core::effort::{self, Rate, Way};
use indexpilot_core::model::{AttNum, Bytes, IndexDef, RelId, TableInfo};
use indexpilot_core::profile::Usage;
use indexpilot_core::size::Size;
use pgrx::pg_sys;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What one way of building an index takes.
pub struct BuildCost {
    pub way: &'static str,
    pub table_name: String,
    pub estimated_bytes: i64,
    pub build_seconds: f64,
    pub temp_bytes: i64,
    pub free_bytes: Option<i64>,
    pub lock_mode: &'static str,
    pub blocks: String,
    pub waits_for: String,
    pub calibration: String,
}

/// The index that a CREATE INDEX statement means, and its table.
fn imagined(statement: &str) -> Result<(Rc<Hypothetical>, TableInfo)> {
    let index = Hypothetical::parse(statement)?;
    let table = catalog::snapshot(&[index.def.table])?
        .tables
        .remove(&index.def.table)
        .ok_or_else(|| Error::internal("table vanished while it was looked at"))?;
    Ok((index, table))
}

/// What building the index takes, concurrently and in a transaction.
///
/// # Errors
/// As [`Hypothetical::parse`].
pub fn build_cost(statement: &str) -> Result<Vec<BuildCost>> {
    let _work = crate::pg::own::work();
    let (index, table) = imagined(statement)?;
    let (def, size) = (&index.def, &index.size);
    let rate = build_rate()?;
    let around = facts::surroundings(def.table.0)?;
    let free = facts::free_bytes(def.table.0)?;
    let name = format!("{}.{}", table.schema, table.name);
    let now = |what: Option<String>| what.map_or_else(String::new, |w| format!("; now {w}"));
    let old = around.oldest_transaction_s.filter(|s| *s >= 1.0).map(|s| format!("the oldest is {s:.0} s old"));
    let ddl = around.running_ddl.map(|d| format!("there is {d}"));
    let cost = |way: Way| {
        let estimate = effort::estimate(def, size, &table, way, rate, memory(way));
        let (way, lock_mode, blocks, waits_for) = match way {
            Way::Concurrently => (
                "concurrently",
                "SHARE UPDATE EXCLUSIVE",
                format!("reads and writes of {name} go on; ALTER TABLE, VACUUM and other index builds on it wait"),
                format!(
                    "every transaction of this database that is older, and those that wrote to the table{}{}",
                    now(old.clone()),
                    now(ddl.clone())
                ),
            ),
            Way::InTransaction => (
                "in transaction",
                "SHARE",
                format!("INSERT, UPDATE and DELETE on {name} wait until the transaction ends; reads go on"),
                format!("transactions that wrote to the table{}", now(ddl.clone())),
            ),
        };
        BuildCost {
            way,
            table_name: name.clone(),
            estimated_bytes: size.bytes as i64,
            build_seconds: estimate.ms / 1000.0,
            temp_bytes: estimate.temp_bytes as i64,
            free_bytes: free.map(|b| b as i64),
            lock_mode,
            blocks,
            waits_for,
            calibration: calibration(rate),
        }
    };
    Ok(vec![cost(Way::Concurrently), cost(Way::InTransaction)])
}

fn calibration(rate: Rate) -> String {
    match rate.builds {
        0 => "default: fewer than three builds of this database say anything".into(),
        n => format!("median of the last {n} builds of this database"),
    }
}

/// Sort memory of a build: ours has a setting of its own, one in the caller's transaction takes the server's.
fn memory(way: Way) -> Bytes {
    1024 * match way {
        Way::Concurrently => guc::apply_maintenance_work_mem().max(0) as Bytes,
        Way::InTransaction => crate::pg::session::maintenance_work_mem_kb(),
    }
}

/// How fast this server builds, as far as it is known.
pub fn build_rate() -> Result<Rate> {
    Ok(effort::rate(&store::estimate::builds()?))
}

/// Milliseconds that our own builder will take.
pub fn build_ms(def: &IndexDef, size: &Size, table: &TableInfo, rate: Rate) -> f64 {
    effort::estimate(def, size, table, Way::Concurrently, rate, memory(Way::Concurrently)).ms
}

/// A query with and without an index that exists.
pub struct WithoutIndex {
    pub cost_with: f64,
    pub cost_without: f64,
    pub used: bool,
    /// Indexes that only the plan without it scans.
    pub instead: Vec<String>,
    /// What the index is needed for beside its speed.
    pub enforces: Option<&'static str>,
    pub plan_with: String,
    pub plan_without: String,
    pub difference: String,
}

/// Plans the query as the database is, and as if the index were not there.
///
/// # Errors
/// `WrongObject` for anything but an index; those of planning.
pub fn without_index(text: &str, index: pg_sys::Oid) -> Result<WithoutIndex> {
    let _work = crate::pg::own::work();
    if !catalog::is_index(index.to_u32()) {
        return Err(Error::new(Kind::WrongObject, format!("\"{}\" is not an index", catalog::shown(index.to_u32())?))
            .hint("SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'the table'::regclass."));
    }
    let hidden = indexes::index_with_partitions(index.to_u32())?;
    let sample = of_caller(text.to_owned(), Vec::new());
    let around = Surroundings::now();
    let with = cache::plan(&around, &sample, &[], &[], &[], true)?;
    let without = cache::plan(&around, &sample, &[], &[], &hidden, true)?;
    let instead = without.scanned.iter().filter(|i| !with.scanned.contains(i)).map(|i| catalog::shown(i.to_u32()));
    let (plan_with, plan_without) = (with.explain.unwrap_or_default(), without.explain.unwrap_or_default());
    Ok(WithoutIndex {
        cost_with: with.cost,
        cost_without: without.cost,
        used: with.scanned.iter().any(|i| hidden.contains(i)),
        instead: instead.collect::<Result<Vec<String>>>()?,
        enforces: indexes::enforced_by(index.to_u32())?,
        difference: diff::lines(&plan_with, &plan_without),
        plan_with,
        plan_without,
    })
}

/// A statement of the caller's, to be planned as he would run it.
fn of_caller(text: String, parameters: Vec<Parameter>) -> Sample {
    Sample { text, search_path: caller_search_path(), role: role::current(), parameters }
}

/// What the planner expects of a condition on a field.
pub struct Selectivity {
    /// Share of the rows that pass, 0 to 1.
    pub selectivity: f64,
    pub estimated_rows: f64,
    pub table_rows: f64,
    pub distinct_values: f64,
    pub null_share: f64,
    pub correlation: f64,
    pub condition: String,
    /// `statistics`, or `default` where ANALYZE has seen nothing.
    pub based_on: &'static str,
}

/// Operators that are words; the others are made of the characters of [`OPERATOR`].
const WORDS: [&str; 5] = ["LIKE", "ILIKE", "SIMILAR TO", "IS NULL", "IS NOT NULL"];
const OPERATOR: &str = "+-*/<>=~!@#%^&|`?";

/// The operator as it may be written into a statement.
fn checked_operator(operator: &str) -> Result<String> {
    let words = operator.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase();
    if WORDS.contains(&words.as_str()) {
        return Ok(words);
    }
    let comment = operator.contains("--") || operator.contains("/*");
    if operator.is_empty() || comment || !operator.chars().all(|c| OPERATOR.contains(c)) {
        return Err(Error::new(Kind::InvalidParameter, format!("\"{operator}\" is not an operator that can be asked about"))
            .detail(format!("Operators consist of the characters {OPERATOR}; of words there are {}.", WORDS.join(", ")))
            .hint("SELECT oprname, oprleft::regtype, oprright::regtype FROM pg_operator."));
    }
    Ok(operator.to_owned())
}

/// What the planner expects of `field operator value`. Without a value: of a value that it does not know, as in a generic plan.
///
/// # Errors
/// Those of names that are not there, of the operator and the value, and of missing rights to read the table.
pub fn selectivity(table: RelId, field: &str, value: Option<&str>, operator: &str) -> Result<Selectivity> {
    let _work = crate::pg::own::work();
    let operator = checked_operator(operator)?;
    let attnum = field_number(table, field)?;
    if role::rows_are_hidden(table) {
        let relation = catalog::relation_name(table).unwrap_or_default();
        return Err(Error::new(Kind::Privilege, format!("permission denied for statistics of table {relation}"))
            .detail(
                "Row-level security hides rows of it from the current role, so it may not see what its statistics tell of them.",
            )
            .hint("Call as the owner of the table, or as a role with BYPASSRLS."));
    }
    let snapshot = catalog::snapshot(&[table])?;
    let info = snapshot.table(table).ok_or_else(|| Error::internal("table vanished while it was looked at"))?;
    let column = info.column(attnum).ok_or_else(|| Error::internal("column vanished while it was looked at"))?;
    let unary = operator.starts_with("IS ");
    let operand = match value {
        _ if unary => String::new(),
        Some(value) => format!(" {}", pgrx::spi::quote_literal(value)),
        None => " $1".into(),
    };
    let condition = format!("{} {operator}{operand}", pgrx::spi::quote_identifier(field));
    let name = pgrx::spi::quote_qualified_identifier(&info.schema, &info.name);
    let parameters = match value {
        None if !unary => vec![Parameter { type_oid: pg_sys::InvalidOid, value: None, known: false }],
        _ => Vec::new(),
    };
    let planned = whatif::profile(&of_caller(format!("SELECT FROM {name} WHERE {condition}"), parameters), &BTreeMap::new())?;
    let found = planned.fields.iter().find(|f| f.rel == table && f.column == attnum && f.usage == Usage::Filter);
    // A condition that no row can pass, or that every row passes, is gone before anybody estimates it.
    let selectivity = match found.and_then(|f| f.selectivity) {
        Some(share) => share,
        None if operator == "IS NOT NULL" => 1.0,
        None => 0.0,
    };
    Ok(Selectivity {
        selectivity,
        estimated_rows: selectivity * info.rows,
        table_rows: info.rows,
        distinct_values: column.n_distinct,
        null_share: column.null_frac,
        correlation: column.correlation,
        condition,
        based_on: if indexes::has_statistics(table, attnum)? { "statistics" } else { "default" },
    })
}

/// Number of a field that must be there.
///
/// # Errors
/// `UndefinedTable`, `WrongObject` and `UndefinedColumn`.
pub fn field_number(table: RelId, field: &str) -> Result<AttNum> {
    let Some(relation) = catalog::relation_name(table) else {
        return Err(Error::new(Kind::UndefinedTable, format!("relation with OID {} does not exist", table.0)));
    };
    if !catalog::is_table_or_partitioned(table) {
        return Err(Error::new(Kind::WrongObject, format!("\"{relation}\" is not a table or materialized view")));
    }
    catalog::attribute(table, field)?.ok_or_else(|| {
        Error::new(Kind::UndefinedColumn, format!("column \"{field}\" of relation \"{relation}\" does not exist"))
            .hint(format!("Columns of the table are {}.", catalog::column_names(table).join(", ")))
    })
}

/// One figure of how planning stored statements goes.
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub description: String,
}

/// How planning stored statements went in this database, and what the cache of this session did.
///
/// # Errors
/// Of the queries on IndexPilot's own tables.
pub fn usage() -> Result<Vec<Figure>> {
    let e = store::estimate::explained()?;
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 1.0 };
    let mut rows: Vec<Figure> = Vec::new();
    let mut add = |name: &str, value: f64, description: &str| {
        rows.push(Figure { name: name.into(), value, description: description.into() });
    };
    add("templates", e.templates, "Captured query templates of statements that have plans");
    add("templates_tried", e.tried, "Those of which samples were planned, whether it worked or not");
    add("templates_planned", e.planned, "Those of which a sample was planned successfully");
    add("coverage", share(e.tried, e.templates), "Share of the templates that were tried");
    add("success_rate", share(e.planned, e.tried), "Share of the tried templates that were planned successfully");
    add("call_coverage", share(e.calls_planned, e.calls), "Share of the captured executions that belong to planned templates");
    add("samples", e.samples, "Samples that were planned for the profiles of templates, whether it worked or not");
    add("sample_success_rate", share(e.samples_planned, e.samples), "Share of these samples that were planned successfully");
    add("decisions", e.decisions, "Decisions in view recommendations, for and against indexes");
    add(
        "decision_coverage",
        share(e.decisions_explained, e.decisions),
        "Share of the decisions of which every cited query has a cost from the planner",
    );
    // An empty sum is -0.
    add("failures", e.failures.values().sum::<f64>().abs(), "Templates of which no sample could be planned");
    let c = cache::stats();
    let asked = (c.hits + c.misses) as f64;
    add("cache_hits", c.hits as f64, "Answers that this session gave from memory instead of calling the planner");
    add("cache_misses", c.misses as f64, "Questions of this session that the planner was called for");
    add(
        "cache_hit_rate",
        if asked > 0.0 { c.hits as f64 / asked } else { 0.0 },
        "Share of the questions of this session that were answered from memory",
    );
    add("cache_entries", c.entries as f64, "Answers that this session remembers");
    add("cache_bytes", c.bytes as f64, "Memory that they take");
    add("cache_evicted", c.evicted as f64, "Answers that were forgotten to make room");
    add("cache_invalidated", c.invalidated as f64, "Answers that were forgotten because something changed");
    for (class, n) in &e.failures {
        add(&format!("failures.{class}"), *n, "Of these, by class, with the class of the SQLSTATE");
    }
    Ok(rows)
}
