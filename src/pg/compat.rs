//! Differences between PostgreSQL versions: every `cfg(feature = "pgNN")` stands here.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Unknown settings with this prefix become errors.
pub fn reserve_guc_prefix(prefix: &'static CStr) {
    // SAFETY: takes a NUL-terminated name and copies it.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) };
}

/// Installs a signal handler of the server.
///
/// # Safety
/// `handler` must be async-signal-safe, as the server's own handlers are.
pub unsafe fn pqsignal(signal: i32, handler: pg_sys::pqsigfunc) {
    #[cfg(not(feature = "pg18"))]
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::pqsignal(signal, handler);
    }
    #[cfg(feature = "pg18")]
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::pqsignal_be(signal, handler);
    }
}

/// Runs a portal to its end as a top-level command. PostgreSQL 18 dropped the argument `run_once`.
///
/// # Safety
/// `portal` must have been started, `dest` must be a live receiver and `done` writable.
pub unsafe fn portal_run(portal: pg_sys::Portal, dest: *mut pg_sys::DestReceiver, done: *mut pg_sys::QueryCompletion) -> bool {
    const FETCH_ALL: std::ffi::c_long = std::ffi::c_long::MAX;
    #[cfg(not(feature = "pg18"))]
    // SAFETY: the caller's promise.
    return unsafe { pg_sys::PortalRun(portal, FETCH_ALL, true, true, dest, dest, done) };
    #[cfg(feature = "pg18")]
    // SAFETY: the caller's promise.
    return unsafe { pg_sys::PortalRun(portal, FETCH_ALL, true, dest, dest, done) };
}

/// `role` may drop or alter the database.
pub fn owns_database(database: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    #[cfg(feature = "pg15")]
    // SAFETY: looks up pg_database; raises when the row is gone, which callers have just looked up.
    return unsafe { pg_sys::pg_database_ownercheck(database, role) };
    #[cfg(not(feature = "pg15"))]
    // SAFETY: as above.
    return unsafe { pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, role) };
}

/// Name of the setting that makes every query parallel, for testing only: our sessions switch it off.
#[cfg(feature = "pg15")]
pub const FORCE_PARALLEL: &CStr = c"force_parallel_mode";
#[cfg(not(feature = "pg15"))]
pub const FORCE_PARALLEL: &CStr = c"debug_parallel_query";
