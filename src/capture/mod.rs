//! Capture: counts executions in shared memory and samples statements; never raises, never waits, never uses SPI.

use pgrx::pg_sys::Oid;
/// stub
pub fn register_database(_database: Oid) {}
/// stub
pub fn unregister_database(_database: Oid) {}
