//! Going back in time, and whether all is well.

use super::{require_mode, require_preload};
use crate::pg::error::{Result, or_raise};
use crate::pg::spi::require_writable;
use crate::pg::time;
use crate::worker::{health, rollback};
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn rollback_to(
    at: pgrx::datum::TimestampWithTimeZone,
) -> TableIterator<'static, (name!(mutation_id, Option<i64>), name!(statement, Option<String>), name!(effect, String))> {
    let run = || -> Result<Vec<_>> {
        require_preload("rollback_to()")?;
        require_mode("rollback_to()")?;
        require_writable("rollback_to()")?;
        Ok(rollback::to(time::seconds(at.into()))?.into_iter().map(|t| (t.mutation, t.statement, t.effect)).collect())
    };
    TableIterator::new(or_raise(run()))
}

#[pg_extern(sql = false)]
fn rollback_to_preview(
    at: pgrx::datum::TimestampWithTimeZone,
) -> TableIterator<'static, (name!(statement, Option<String>), name!(effect, String))> {
    let steps = or_raise(rollback::preview(time::seconds(at.into())));
    TableIterator::new(steps.into_iter().map(|t| (t.statement, t.effect)))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // the columns
fn health_check()
-> TableIterator<'static, (name!(name, String), name!(state, String), name!(detail, String), name!(hint, Option<String>))> {
    let rows = or_raise(health::rows());
    TableIterator::new(rows.into_iter().map(|r| (r.name.to_owned(), r.state.as_str().to_owned(), r.detail, r.hint)))
}
