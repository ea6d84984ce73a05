//! IndexPilot: watches the queries a database runs, finds the indexes that would pay, builds them, measures them, takes back those
//! that did not help. ARCHITECTURE.md is the map.

mod api;
mod apply;
mod capture;
mod guc;
mod pg;
mod store;
mod whatif;
mod worker;

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/install/10_tables.sql", name = "tables", bootstrap);

/// Called when the server loads the library. Without preload the SQL functions that need no capture still work.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    if pg::startup::binary_upgrade() {
        return;
    }
    guc::init();
    // Loaded into a running session there is no shared memory to be had: the functions that need capture say so.
    if !pg::startup::preloading() || guc::startup_bypass() {
        return;
    }
    capture::init();
}
