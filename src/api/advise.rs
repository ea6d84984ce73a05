//! The main job: analyze_and_create_indexes, advise, what_if, explain_decision.

use super::{budget, require_mode, require_preload};
use crate::pg::error::{Error, Kind, Result, or_raise};
use crate::pg::spi::require_writable;
use crate::worker::advisor::{self, Request};
use crate::worker::explain;
use pgrx::prelude::*;

/// Budgets that one frontier may have.
const MOST_BUDGETS: usize = 100;

type DecisionRow = (
    name!(recommendation_id, Option<i64>),
    name!(action_id, Option<i64>),
    name!(table_name, String),
    name!(index_name, Option<String>),
    name!(definition, String),
    name!(decision, String),
    name!(reason, String),
    name!(reason_detail, String),
    name!(estimated_bytes, i64),
    name!(cost_before, Option<f64>),
    name!(cost_after, Option<f64>),
    name!(saved_ms_per_hour, Option<f64>),
    name!(write_ms_per_hour, Option<f64>),
);

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the row type from the signature")]
fn analyze_and_create_indexes(
    dry_run: Option<bool>,
    tables: Option<Vec<Option<pg_sys::Oid>>>,
    tenant_id: Option<&str>,
    storage_budget: Option<i64>,
    concurrently: Option<bool>,
) -> TableIterator<
    'static,
    (
        name!(recommendation_id, Option<i64>),
        name!(action_id, Option<i64>),
        name!(table_name, String),
        name!(index_name, Option<String>),
        name!(definition, String),
        name!(decision, String),
        name!(reason, String),
        name!(reason_detail, String),
        name!(estimated_bytes, i64),
        name!(cost_before, Option<f64>),
        name!(cost_after, Option<f64>),
        name!(saved_ms_per_hour, Option<f64>),
        name!(write_ms_per_hour, Option<f64>),
    ),
> {
    let run = || -> Result<Vec<DecisionRow>> {
        const NAME: &str = "analyze_and_create_indexes()";
        require_preload(NAME)?;
        require_mode(NAME)?;
        require_writable(NAME)?;
        let request = Request {
            cause: "call",
            dry_run: dry_run.unwrap_or(false),
            tables: checked_tables(tables)?,
            tenant_id: tenant_id.map(str::to_owned),
            storage_budget: budget(storage_budget)?,
            concurrently: concurrently.unwrap_or(true),
        };
        Ok(advisor::analyze(&request)?
            .into_iter()
            .map(|d| {
                (
                    d.recommendation_id,
                    d.action_id,
                    d.table_name,
                    d.index_name,
                    d.definition,
                    d.decision,
                    d.reason,
                    d.reason_detail,
                    d.estimated_bytes,
                    d.cost_before,
                    d.cost_after,
                    d.saved_ms_per_hour,
                    d.write_ms_per_hour,
                )
            })
            .collect())
    };
    TableIterator::new(or_raise(run()))
}

/// OIDs of the tables that the caller named; none for all. An array that turned out empty, as that of a query that found nothing, must
/// not mean all.
fn checked_tables(given: Option<Vec<Option<pg_sys::Oid>>>) -> Result<Vec<u32>> {
    const HINT: &str = "Leave out tables, or give NULL, for all tables.";
    let Some(given) = given else { return Ok(Vec::new()) };
    if given.is_empty() {
        return Err(Error::new(Kind::InvalidParameter, "tables must not be empty").hint(HINT));
    }
    let tables = without_nulls(given, "a table must not be null").map_err(|e| e.hint(HINT))?;
    Ok(tables.into_iter().map(|oid| oid.to_u32()).collect())
}

/// The elements of an array in which there must be no null.
fn without_nulls<T>(given: Vec<Option<T>>, message: &str) -> Result<Vec<T>> {
    if let Some(null) = given.iter().position(Option::is_none) {
        return Err(Error::new(Kind::InvalidParameter, message).detail(format!("Element {} is.", null + 1)));
    }
    Ok(given.into_iter().flatten().collect())
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the row type from the signature")]
fn advise(
    queries: Option<Vec<Option<String>>>,
    weights: Option<Vec<Option<f64>>>,
    storage_budget: Option<i64>,
    max_columns: Option<i32>,
    time_limit: Option<pgrx::datum::Interval>,
) -> TableIterator<
    'static,
    (
        name!(table_name, String),
        name!(index_name, Option<String>),
        name!(definition, String),
        name!(decision, String),
        name!(reason, String),
        name!(reason_detail, String),
        name!(estimated_bytes, i64),
        name!(cost_before, Option<f64>),
        name!(cost_after, Option<f64>),
        name!(query_numbers, Vec<i32>),
    ),
> {
    let run = || -> Result<Vec<_>> {
        let Asked { texts, weights, max_columns, time_limit_s } = asked(queries, weights, max_columns, time_limit, "advise")?;
        let decisions = advisor::advise(&texts, weights.as_deref(), budget(storage_budget)?, max_columns, time_limit_s)?;
        Ok(decisions
            .into_iter()
            .map(|d| {
                (
                    d.table_name,
                    d.index_name,
                    d.definition,
                    d.decision,
                    d.reason,
                    d.reason_detail,
                    d.estimated_bytes,
                    d.cost_before,
                    d.cost_after,
                    d.query_ids.into_iter().map(|id| id as i32).collect::<Vec<i32>>(),
                )
            })
            .collect())
    };
    TableIterator::new(or_raise(run()))
}

/// What advise() and advise_frontier() are both asked, checked.
struct Asked {
    texts: Vec<String>,
    weights: Option<Vec<f64>>,
    max_columns: Option<usize>,
    time_limit_s: Option<f64>,
}

fn asked(
    queries: Option<Vec<Option<String>>>,
    weights: Option<Vec<Option<f64>>>,
    max_columns: Option<i32>,
    time_limit: Option<pgrx::datum::Interval>,
    name: &str,
) -> Result<Asked> {
    let queries = queries.unwrap_or_default();
    if let Some(empty) = queries.iter().position(Option::is_none) {
        return Err(Error::new(Kind::InvalidParameter, "a query must not be null").detail(format!("Query {} is.", empty + 1)));
    }
    let texts: Vec<String> = queries.into_iter().flatten().collect();
    if texts.is_empty() {
        return Err(Error::new(Kind::InvalidParameter, "no query was given")
            .hint(format!("Call {name}(ARRAY['SELECT ...', 'SELECT ...']).")));
    }
    let weights = checked_weights(weights, texts.len())?;
    let max_columns = match max_columns {
        None => None,
        Some(n) if (1..=8).contains(&n) => Some(n as usize),
        Some(n) => {
            return Err(Error::new(Kind::InvalidParameter, "max_columns must lie between 1 and 8")
                .detail(format!("The value given is {n}.")));
        }
    };
    let time_limit_s = match time_limit.map(|i| i.as_micros() as f64 / 1e6) {
        Some(s) if s <= 0.0 => return Err(Error::new(Kind::InvalidParameter, "time_limit must be positive")),
        other => other,
    };
    Ok(Asked { texts, weights, max_columns, time_limit_s })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the row type from the signature")]
fn advise_frontier(
    queries: Option<Vec<Option<String>>>,
    weights: Option<Vec<Option<f64>>>,
    budgets: Option<Vec<Option<i64>>>,
    max_columns: Option<i32>,
    time_limit: Option<pgrx::datum::Interval>,
) -> TableIterator<
    'static,
    (
        name!(storage_budget, i64),
        name!(estimated_bytes, i64),
        name!(cost_before, f64),
        name!(cost_after, f64),
        name!(relative_cost, Option<f64>),
        name!(indexes, Vec<String>),
        name!(gap, f64),
        name!(planner_calls, i64),
    ),
> {
    let run = || -> Result<Vec<_>> {
        let Asked { texts, weights, max_columns, time_limit_s } =
            asked(queries, weights, max_columns, time_limit, "advise_frontier")?;
        let points = advisor::advise_frontier(&texts, weights.as_deref(), checked_budgets(budgets)?, max_columns, time_limit_s)?;
        Ok(points
            .into_iter()
            .map(|p| {
                (
                    i64::try_from(p.storage_budget).unwrap_or(i64::MAX),
                    i64::try_from(p.estimated_bytes).unwrap_or(i64::MAX),
                    p.cost_before,
                    p.cost_after,
                    (p.cost_before > 0.0).then(|| p.cost_after / p.cost_before),
                    p.indexes,
                    p.gap,
                    p.planner_calls as i64,
                )
            })
            .collect())
    };
    TableIterator::new(or_raise(run()))
}

/// Budgets as the caller gave them; `None` when he gave none.
fn checked_budgets(given: Option<Vec<Option<i64>>>) -> Result<Option<Vec<u64>>> {
    let Some(given) = given else { return Ok(None) };
    if given.is_empty() || given.len() > MOST_BUDGETS {
        return Err(Error::new(Kind::InvalidParameter, format!("there must be between 1 and {MOST_BUDGETS} budgets"))
            .detail(format!("There are {}.", given.len()))
            .hint("Give bytes, such as ARRAY[pg_size_bytes('100 MB'), pg_size_bytes('1 GB')], or NULL for shares of the tables' size."));
    }
    given
        .into_iter()
        .map(|bytes| match budget(bytes)? {
            Some(bytes) => Ok(bytes),
            None => Err(Error::new(Kind::InvalidParameter, "a budget must not be null")),
        })
        .collect::<Result<Vec<u64>>>()
        .map(Some)
}

/// One weight for each query: positive and finite.
fn checked_weights(given: Option<Vec<Option<f64>>>, queries: usize) -> Result<Option<Vec<f64>>> {
    let Some(given) = given else { return Ok(None) };
    if given.len() != queries {
        return Err(Error::new(Kind::InvalidParameter, "weights and queries differ in number")
            .detail(format!("There are {queries} queries and {} weights.", given.len())));
    }
    given
        .into_iter()
        .map(|w| match w {
            Some(w) if w.is_finite() && w > 0.0 => Ok(w),
            _ => Err(Error::new(Kind::InvalidParameter, "weights must be positive and finite")),
        })
        .collect::<Result<Vec<f64>>>()
        .map(Some)
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the row type from the signature")]
fn what_if(
    query: &str,
    create_indexes: Vec<Option<String>>,
    hide_indexes: Vec<Option<pg_sys::Oid>>,
) -> TableIterator<
    'static,
    (
        name!(cost_before, f64),
        name!(cost_after, f64),
        name!(indexes_used, Vec<String>),
        name!(estimated_bytes, i64),
        name!(plan_before, String),
        name!(plan_after, String),
    ),
> {
    let run = || {
        let create = without_nulls(create_indexes, "an index to create must not be null")
            .map_err(|e| e.hint("Give CREATE INDEX statements, or '{}' for none."))?;
        let hide = without_nulls(hide_indexes, "an index to hide must not be null")
            .map_err(|e| e.hint("Give names of indexes that exist, or '{}' for none."))?;
        advisor::what_if(query, &create, &hide)
    };
    let w = or_raise(run());
    TableIterator::once((w.cost_before, w.cost_after, w.indexes_used, w.estimated_bytes, w.plan_before, w.plan_after))
}

#[pg_extern(sql = false)]
fn explain_decision(id: i64) -> String {
    or_raise(explain::decision(id))
}
