//! Estimates: what building an index takes, what a query costs without one, how selective a condition is, how planning goes.

use crate::pg::error::or_raise;
use crate::worker::{advice, estimate};
use pgrx::prelude::*;

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the row type from the signature")]
fn estimate_build_cost(
    index_statement: &str,
) -> TableIterator<
    'static,
    (
        name!(way, String),
        name!(table_name, String),
        name!(estimated_bytes, i64),
        name!(build_seconds, f64),
        name!(temp_bytes, i64),
        name!(free_bytes, Option<i64>),
        name!(lock_mode, String),
        name!(blocks, String),
        name!(waits_for, String),
        name!(calibration, String),
    ),
> {
    let rows = or_raise(estimate::build_cost(index_statement));
    TableIterator::new(rows.into_iter().map(|r| {
        (
            r.way.to_owned(),
            r.table_name,
            r.estimated_bytes,
            r.build_seconds,
            r.temp_bytes,
            r.free_bytes,
            r.lock_mode.to_owned(),
            r.blocks,
            r.waits_for,
            r.calibration,
        )
    }))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the row type from the signature")]
fn estimate_query_cost_without_index(
    query: &str,
    index: pg_sys::Oid,
) -> TableIterator<
    'static,
    (
        name!(cost_with, f64),
        name!(cost_without, f64),
        name!(index_used, bool),
        name!(indexes_instead, Vec<String>),
        name!(enforces, Option<String>),
        name!(plan_with, String),
        name!(plan_without, String),
        name!(plan_difference, String),
    ),
> {
    let w = or_raise(estimate::without_index(query, index));
    TableIterator::once((
        w.cost_with,
        w.cost_without,
        w.used,
        w.instead,
        w.enforces.map(str::to_owned),
        w.plan_with,
        w.plan_without,
        w.difference,
    ))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the row type from the signature")]
fn get_field_selectivity(
    table_name: Option<pg_sys::Oid>,
    field_name: Option<&std::ffi::CStr>,
    value: Option<&str>,
    operator: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(selectivity, f64),
        name!(estimated_rows, f64),
        name!(table_rows, f64),
        name!(distinct_values, f64),
        name!(null_share, f64),
        name!(correlation, f64),
        name!(condition, String),
        name!(based_on, String),
    ),
> {
    let run = || {
        let (table, field) = super::table_and_field(table_name, field_name)?;
        estimate::selectivity(table, &field, value, operator.unwrap_or("="))
    };
    let s = or_raise(run());
    TableIterator::once((
        s.selectivity,
        s.estimated_rows,
        s.table_rows,
        s.distinct_values,
        s.null_share,
        s.correlation,
        s.condition,
        s.based_on.to_owned(),
    ))
}

#[pg_extern(sql = false)]
fn get_explain_usage_stats() -> TableIterator<'static, (name!(name, String), name!(value, f64), name!(description, String))> {
    TableIterator::new(or_raise(estimate::usage()).into_iter().map(|f| (f.name, f.value, f.description)))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the row type from the signature")]
fn should_create_index(
    table_name: Option<pg_sys::Oid>,
    field_name: Option<&std::ffi::CStr>,
) -> TableIterator<
    'static,
    (
        name!(decision, String),
        name!(reason, String),
        name!(reason_detail, String),
        name!(definition, Option<String>),
        name!(estimated_bytes, Option<i64>),
        name!(estimated_build_ms, Option<f64>),
        name!(cost_before, Option<f64>),
        name!(cost_after, Option<f64>),
        name!(saved_ms_per_hour, Option<f64>),
        name!(write_ms_per_hour, Option<f64>),
        name!(templates, i64),
        name!(calls, i64),
    ),
> {
    let run = || {
        let (table, field) = super::table_and_field(table_name, field_name)?;
        advice::of_field(table, &field)
    };
    let a = or_raise(run());
    TableIterator::once((
        a.decision,
        a.reason,
        a.reason_detail,
        a.definition,
        a.estimated_bytes,
        a.estimated_build_ms,
        a.cost_before,
        a.cost_after,
        a.saved_ms_per_hour,
        a.write_ms_per_hour,
        a.templates,
        a.calls,
    ))
}
