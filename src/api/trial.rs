//! Hiding an index from the planner, showing it again, and hiding it on the way to dropping it.

use super::{require_mode, require_preload};
use crate::pg::error::{Error, Kind, Result, or_raise};
use crate::pg::spi::require_writable;
use crate::worker::{canary, judge, observe, trial};
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn hide_index(index: Option<pg_sys::Oid>, reason: Option<&str>) -> Option<i64> {
    or_raise(checked("hide_index()", index).and_then(|index| trial::hide(index, reason)))
}

#[pg_extern(sql = false)]
fn show_index(index: Option<pg_sys::Oid>, reason: Option<&str>) -> Option<i64> {
    or_raise(checked("show_index()", index).and_then(|index| trial::show(index, reason)))
}

fn checked(what: &str, index: Option<pg_sys::Oid>) -> Result<u32> {
    require_preload(what)?;
    require_writable(what)?;
    Ok(index.ok_or_else(|| Error::new(Kind::InvalidParameter, "index must not be null"))?.to_u32())
}

#[pg_extern(sql = false)]
fn retire_index(index: Option<pg_sys::Oid>, reason: Option<&str>) -> i64 {
    or_raise(checked("retire_index()", index).and_then(|index| {
        require_mode("retire_index()")?;
        observe::retire(index, reason)
    }))
}

#[pg_extern(sql = false)]
fn start_trial(index_a: Option<pg_sys::Oid>, index_b: Option<pg_sys::Oid>, percent: Option<f64>) -> i64 {
    or_raise(checked("start_trial()", index_a).and_then(|a| {
        require_mode("start_trial()")?;
        let percent = percent.ok_or_else(|| Error::new(Kind::InvalidParameter, "percent must not be null"))?;
        canary::start(a, index_b.map(|b| b.to_u32()), percent)
    }))
}

#[pg_extern(sql = false)]
fn end_trial(id: Option<i64>, keep: Option<&str>) {
    let run = || -> Result<()> {
        require_preload("end_trial()")?;
        require_writable("end_trial()")?;
        canary::end(id.ok_or_else(|| Error::new(Kind::InvalidParameter, "id must not be null"))?, keep.unwrap_or("both"))
    };
    or_raise(run());
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the row type from the signature")]
fn trial_report(
    id: i64,
) -> TableIterator<
    'static,
    (
        name!(workload_id, i64),
        name!(query, Option<String>),
        name!(arm, String),
        name!(calls_control, i64),
        name!(calls, i64),
        name!(mean_ms_control, Option<f64>),
        name!(mean_ms, Option<f64>),
        name!(p95_ms_control, Option<f64>),
        name!(p95_ms, Option<f64>),
        name!(change_ratio, Option<f64>),
        name!(p_value, Option<f64>),
        name!(effect, String),
    ),
> {
    let lines = or_raise(canary::report(id, &judge::config()));
    TableIterator::new(lines.into_iter().map(|l| {
        let effect = serde_json::to_value(l.effect).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        let ([calls_control, calls], [mean_control, mean], [p95_control, p95]) = (l.calls, l.mean_ms, l.p95_ms);
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        (
            l.workload_id,
            l.query,
            l.arm.as_str().to_owned(),
            count(calls_control),
            count(calls),
            mean_control,
            mean,
            p95_control,
            p95,
            l.change_ratio,
            l.p_value,
            effect,
        )
    }))
}
