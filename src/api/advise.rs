//! The main job: analyze_and_create_indexes, advise, what_if, explain_decision.

use super::{budget, require_mode, require_preload};
use crate::pg::error::{Error, Kind, Result, or_raise};
use crate::pg::spi::require_writable;
use crate::worker::advisor::{self, Request};
use crate::worker::explain;
use pgrx::prelude::*;

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
            tables: tables.unwrap_or_default().into_iter().flatten().map(|oid| oid.to_u32()).collect(),
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
        let texts: Vec<String> = queries.unwrap_or_default().into_iter().flatten().collect();
        if texts.is_empty() {
            return Err(
                Error::new(Kind::InvalidParameter, "no query was given").hint("Call advise(ARRAY['SELECT ...', 'SELECT ...']).")
            );
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
    let create: Vec<String> = create_indexes.into_iter().flatten().collect();
    let hide: Vec<pg_sys::Oid> = hide_indexes.into_iter().flatten().collect();
    let w = or_raise(advisor::what_if(query, &create, &hide));
    TableIterator::once((w.cost_before, w.cost_after, w.indexes_used, w.estimated_bytes, w.plan_before, w.plan_after))
}

#[pg_extern(sql = false)]
fn explain_decision(id: i64) -> String {
    or_raise(explain::decision(id))
}
