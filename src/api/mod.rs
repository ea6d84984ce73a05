//! The SQL functions, thin: check, call, turn errors into reports. Their declarations, defaults and comments stand in
//! sql/install/20_functions.sql.

mod action;
mod advise;
mod capture;
mod control;
mod estimate;
mod genome;
mod health;
mod install;
mod log;
mod trial;
mod usage;
mod workload;

use crate::pg::encoding;
use crate::pg::error::{Error, Kind, Result};
use indexpilot_core::model::RelId;
use pgrx::pg_sys;

/// Fails where the library was not preloaded.
fn require_preload(what: &str) -> Result<()> {
    if crate::capture::status().active {
        return Ok(());
    }
    Err(Error::new(Kind::Prerequisite, format!("{what} needs indexpilot to be preloaded"))
        .detail("Without shared memory nothing is captured and no worker runs.")
        .hint("Add indexpilot to shared_preload_libraries in postgresql.conf, with indexpilot.startup_bypass = off, and restart the server."))
}

/// Fails where `indexpilot.mode` forbids any act.
fn require_mode(what: &str) -> Result<()> {
    if crate::guc::mode() == crate::guc::Mode::Off {
        return Err(Error::new(Kind::Prerequisite, format!("cannot execute {what} while indexpilot.mode is off"))
            .hint("Run ALTER SYSTEM SET indexpilot.mode = 'advise' and SELECT pg_reload_conf()."));
    }
    Ok(())
}

/// A storage budget as the caller gave it.
fn budget(given: Option<i64>) -> Result<Option<u64>> {
    given
        .map(|bytes| {
            u64::try_from(bytes).map_err(|_| {
                Error::new(Kind::InvalidParameter, "storage_budget must not be negative")
                    .detail(format!("The value given is {bytes} bytes."))
                    .hint("Give a number of bytes, such as pg_size_bytes('2 GB'), or NULL for what indexpilot.select_storage_budget and indexpilot.select_storage_share say.")
            })
        })
        .transpose()
}

/// A table and a field of it, neither of them NULL; that they exist is for others to find out.
fn table_and_field(table: Option<pg_sys::Oid>, field: Option<&std::ffi::CStr>) -> Result<(RelId, String)> {
    match (table, field) {
        (Some(table), Some(field)) => Ok((RelId(table.to_u32()), encoding::to_utf8(field.to_bytes()))),
        (None, _) => Err(Error::new(Kind::InvalidParameter, "table_name must not be null")),
        (_, None) => Err(Error::new(Kind::InvalidParameter, "field_name must not be null")),
    }
}
