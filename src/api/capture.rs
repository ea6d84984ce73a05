//! What was captured: flush and reset.

use super::require_preload;
use crate::pg::error::{Result, or_raise};
use crate::pg::spi::require_writable;
use crate::store;
use crate::store::log::Mutation;
use crate::worker::flush;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn capture_flush() -> i64 {
    let run = || -> Result<i64> {
        require_preload("capture_flush()")?;
        require_writable("capture_flush()")?;
        Ok(flush::flush(flush::PATIENCE)?.map_or_else(
            || {
                pgrx::notice!("another session is writing what was captured; nothing was flushed");
                0
            },
            |templates| templates as i64,
        ))
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
fn capture_reset() {
    let run = || -> Result<()> {
        require_preload("capture_reset()")?;
        require_writable("capture_reset()")?;
        flush::reset()?;
        store::log::append(&Mutation { mutation: "reset_workload".into(), cause: "call".into(), ..Mutation::default() }).map(drop)
    };
    or_raise(run());
}
