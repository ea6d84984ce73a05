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
extension_sql_file!("../sql/install/20_functions.sql", name = "functions", requires = ["tables"]);
extension_sql_file!("../sql/install/30_views.sql", name = "views", requires = ["functions"]);
extension_sql_file!("../sql/install/40_workload.sql", name = "workload", requires = ["views"]);
extension_sql_file!("../sql/install/50_usage.sql", name = "usage", requires = ["workload"]);
extension_sql_file!("../sql/install/60_estimates.sql", name = "estimates", requires = ["usage"]);
extension_sql_file!("../sql/install/70_trial.sql", name = "trial", requires = ["estimates"]);
extension_sql_file!("../sql/install/72_guard.sql", name = "guard", requires = ["estimates"]);
extension_sql_file!("../sql/install/74_apply.sql", name = "apply", requires = ["estimates"]);
extension_sql_file!("../sql/install/90_grants.sql", name = "grants", finalize);

/// Called when the server loads the library. Without preload the SQL functions that need no shared memory still work.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    if pg::startup::binary_upgrade() {
        return;
    }
    guc::init();
    if guc::startup_bypass() {
        return;
    }
    whatif::init();
    // Loaded into a running session there is no shared memory to be had: the functions that need it say so.
    if pg::startup::preloading() {
        capture::init();
        pg::visibility::init();
        worker::init();
    }
}

/// What the test server of `cargo pgrx test` is started with.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["shared_preload_libraries = 'indexpilot'"]
    }
}
