//! Deciding and acting: approve, reject, cancel, rollback, protect, wait_for_actions.

use super::{require_mode, require_preload};
use crate::pg::error::{Error, Kind, Result, or_raise};
use crate::pg::spi::{self, require_writable};
use crate::store;
use crate::worker::decide;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

#[pg_extern(sql = false)]
fn approve(id: i64) -> i64 {
    let run = || -> Result<i64> {
        require_preload("approve()")?;
        require_mode("approve()")?;
        require_writable("approve()")?;
        decide::approve(id)
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
fn reject(id: Option<i64>, reason: Option<&str>) {
    let run = || -> Result<()> {
        require_writable("reject()")?;
        decide::reject(id.ok_or_else(|| Error::new(Kind::InvalidParameter, "id must not be null"))?, reason)
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
fn cancel(action_id: i64) -> bool {
    let run = || -> Result<bool> {
        require_preload("cancel()")?;
        require_writable("cancel()")?;
        decide::cancel(action_id)
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
fn rollback(mutation_id: i64) -> i64 {
    let run = || -> Result<i64> {
        require_preload("rollback()")?;
        require_mode("rollback()")?;
        require_writable("rollback()")?;
        decide::rollback(mutation_id)
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
fn rollback_preview(mutation_id: i64) -> TableIterator<'static, (name!(statement, String), name!(effect, String))> {
    TableIterator::once(or_raise(decide::rollback_preview(mutation_id)))
}

#[pg_extern(sql = false)]
fn protect(index: pg_sys::Oid) {
    let run = || -> Result<()> {
        require_writable("protect()")?;
        decide::protect(index.to_u32(), "call")
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
fn unprotect(index: pg_sys::Oid) -> bool {
    let run = || -> Result<bool> {
        require_writable("unprotect()")?;
        decide::unprotect(index.to_u32(), "call")
    };
    or_raise(run())
}

/// Between two looks the transaction is committed, so that no snapshot and no lock of the caller holds a build back.
#[pg_extern(sql = false)]
fn wait_for_actions(timeout: Option<pgrx::datum::Interval>, fcinfo: pg_sys::FunctionCallInfo) {
    let run = || -> Result<()> {
        require_preload("wait_for_actions()")?;
        require_writable("wait_for_actions()")?;
        spi::require_nonatomic_call(fcinfo, "wait_for_actions()")?;
        let seconds = timeout.map_or(3600.0, |t| t.as_micros() as f64 / 1e6).clamp(0.0, 1e9);
        let deadline = Instant::now() + Duration::from_secs_f64(seconds);
        loop {
            let left = store::action::pending()?;
            if left == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::new(Kind::Cancelled, format!("{left} actions were not finished in time"))
                    .detail("They go on in the background.")
                    .hint("SELECT id, state, blocked_reason, error_message FROM indexpilot.actions WHERE state IN ('queued', 'building', 'blocked')."));
            }
            spi::commit_and_wait(Duration::from_millis(100))?;
        }
    };
    or_raise(run());
}
