//! The workload: what comes from elsewhere, who may see what, and percentiles.

use super::{require_mode, require_preload};
use crate::pg::encoding;
use crate::pg::error::{Error, Kind, Result, or_raise};
use crate::pg::spi::{from_jsonb, require_writable, to_jsonb};
use crate::worker::exchange::{self, Report};
use indexpilot_core::exchange::{MOST as MOST_ROWS, TENANT, TEXT};
use indexpilot_core::histogram::Histogram;
use pgrx::AnyElement;
use pgrx::datum::Interval;
use pgrx::prelude::*;
use std::time::Duration;

/// Longest duration of one execution that makes sense, milliseconds: a hundred days.
const LONGEST_MS: f64 = 8.64e9;
/// Executions or rows that one report may stand for.
const MOST: i64 = 1_000_000_000_000;

#[pg_extern(sql = false)]
fn log_query_stat(query: Option<&[u8]>, duration_ms: Option<f64>, rows: Option<i64>, tenant_id: Option<&[u8]>, calls: Option<i64>) {
    let run = || -> Result<()> {
        const NAME: &str = "log_query_stat()";
        // Bytes, since texts of other encodings cannot be had as str.
        let (query, tenant_id) = (query.map(encoding::to_utf8), tenant_id.map(encoding::to_utf8));
        let report = Report {
            query: checked_query(query.as_deref())?,
            duration_ms: checked_duration(duration_ms)?,
            rows: checked_count("rows", rows.unwrap_or(0), 0)?,
            calls: checked_count("calls", calls.unwrap_or(1), 1)?,
            tenant_id: checked_tenant(tenant_id.as_deref())?,
        };
        if report.rows.checked_mul(report.calls).is_none_or(|rows| rows > MOST_ROWS) {
            return Err(Error::new(Kind::InvalidParameter, format!("rows of all calls must not be more than {}", MOST_ROWS))
                .detail(format!("There are {} calls of {} rows each.", report.calls, report.rows))
                .hint("Report them in several parts."));
        }
        require_preload(NAME)?;
        require_mode(NAME)?;
        require_writable(NAME)?;
        exchange::report(&report)
    };
    or_raise(run());
}

fn checked_query(query: Option<&str>) -> Result<String> {
    match query.map(str::trim) {
        None | Some("") => {
            Err(Error::new(Kind::InvalidParameter, "no query was given").hint("Give the text of the statement that was run."))
        }
        Some(text) if text.len() > TEXT => Err(Error::new(Kind::InvalidParameter, "query is too long")
            .detail(format!("It has {} bytes; at most {TEXT} are counted.", text.len()))
            .hint("Give the statement with parameters ($1, $2, ...) in place of long values.")),
        Some(text) => Ok(text.to_owned()),
    }
}

fn checked_duration(ms: Option<f64>) -> Result<f64> {
    match ms {
        Some(ms) if (0.0..=LONGEST_MS).contains(&ms) => Ok(ms),
        None => Err(Error::new(Kind::InvalidParameter, "duration_ms must not be null")),
        Some(ms) => Err(Error::new(Kind::InvalidParameter, "duration_ms must be a time of at most 100 days")
            .detail(format!("The value given is {ms} milliseconds."))),
    }
}

fn checked_count(name: &str, given: i64, least: i64) -> Result<u64> {
    match given {
        n if (least..=MOST).contains(&n) => Ok(n.unsigned_abs()),
        n => Err(Error::new(Kind::InvalidParameter, format!("{name} must lie between {least} and {MOST}"))
            .detail(format!("The value given is {n}."))),
    }
}

fn checked_tenant(tenant: Option<&str>) -> Result<Option<String>> {
    match tenant {
        Some(t) if t.len() > TENANT => Err(Error::new(Kind::InvalidParameter, "tenant_id is too long")
            .detail(format!("It has {} bytes; {TENANT} are told apart.", t.len()))),
        other => Ok(other.map(str::to_owned)),
    }
}

#[pg_extern(sql = false)]
fn import_pg_stat_statements() -> i64 {
    let run = || -> Result<i64> {
        const NAME: &str = "import_pg_stat_statements()";
        require_mode(NAME)?;
        require_writable(NAME)?;
        Ok(exchange::import_statements()? as i64)
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
fn export_workload(since: Option<Interval>) -> Option<AnyElement> {
    let run = || -> Result<Option<AnyElement>> {
        let since = match since.map(|i| i.as_micros()) {
            None => None,
            Some(us) => Some(u64::try_from(us).map(Duration::from_micros).map_err(|_| {
                Error::new(Kind::InvalidParameter, "since must not be negative").hint("Give an interval such as '1 day'.")
            })?),
        };
        // A standby has nothing but shared memory.
        if crate::pg::bgworker::in_recovery() {
            require_preload("export_workload() on a standby")?;
        }
        to_jsonb(&serde_json::to_value(exchange::export(since)?)?)
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
fn import_workload(document: Option<AnyElement>) -> i64 {
    let run = || -> Result<i64> {
        const NAME: &str = "import_workload()";
        require_mode(NAME)?;
        require_writable(NAME)?;
        let document = document.ok_or_else(|| Error::new(Kind::InvalidParameter, "document must not be null"))?;
        Ok(exchange::import(from_jsonb(&document)?)? as i64)
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
fn may_see(role_id: pg_sys::Oid, tenant_id: &[u8]) -> bool {
    // Bytes, since texts of other encodings cannot be had as str.
    exchange::may_see(role_id, &encoding::to_utf8(tenant_id))
}

#[pg_extern(sql = false)]
fn histogram_add(a: Option<Vec<Option<i64>>>, b: Option<Vec<Option<i64>>>) -> Option<Vec<i64>> {
    let counts = |list: Vec<Option<i64>>| list.into_iter().map(|n| n.unwrap_or(0)).collect::<Vec<i64>>();
    let (Some(a), Some(b)) = (a.clone().map(counts), b.clone().map(counts)) else { return a.or(b).map(counts) };
    let (mut sum, other) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    for (to, from) in sum.iter_mut().zip(other) {
        *to = to.saturating_add(from);
    }
    Some(sum)
}

#[pg_extern(sql = false)]
fn histogram_percentile(histogram: Vec<Option<i64>>, fraction: f64) -> Option<f64> {
    let counts: Vec<i64> = histogram.into_iter().map(|n| n.unwrap_or(0)).collect();
    Histogram::from_counts(&counts).percentile_ms(fraction)
}
