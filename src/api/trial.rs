//! Hiding an index from the planner, showing it again, and hiding it on the way to dropping it.

use super::{require_mode, require_preload};
use crate::pg::error::{Error, Kind, Result, or_raise};
use crate::pg::spi::require_writable;
use crate::worker::{observe, trial};
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
