//! Differences between PostgreSQL versions: every `cfg(feature = "pgNN")` stands here.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Unknown settings with this prefix become errors.
pub fn reserve_guc_prefix(prefix: &'static CStr) {
    // SAFETY: takes a NUL-terminated name and copies it.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) };
}

/// What ExecutorRun is given beside the query.
#[derive(Clone, Copy)]
pub struct RunArgs {
    pub direction: pg_sys::ScanDirection::Type,
    pub count: u64,
    #[cfg(not(feature = "pg18"))]
    pub execute_once: bool,
}

/// Defines an ExecutorRun hook `$name` that calls `$body(query, RunArgs)`.
#[cfg(not(feature = "pg18"))]
macro_rules! executor_run_hook {
    ($name:ident, $body:path) => {
        unsafe extern "C-unwind" fn $name(
            query: *mut pg_sys::QueryDesc,
            direction: pg_sys::ScanDirection::Type,
            count: u64,
            execute_once: bool,
        ) {
            // SAFETY: the server's promises to the hook are what the body wants.
            unsafe { $body(query, $crate::pg::compat::RunArgs { direction, count, execute_once }) }
        }
    };
}

/// Defines an ExecutorRun hook `$name` that calls `$body(query, RunArgs)`.
#[cfg(feature = "pg18")]
macro_rules! executor_run_hook {
    ($name:ident, $body:path) => {
        unsafe extern "C-unwind" fn $name(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64) {
            // SAFETY: the server's promises to the hook are what the body wants.
            unsafe { $body(query, $crate::pg::compat::RunArgs { direction, count }) }
        }
    };
}
pub(crate) use executor_run_hook;

mod sys {
    use super::pg_sys;
    // Without pgrx's wrapper, whose guard would replace an error by a poorer one.
    unsafe extern "C-unwind" {
        #[cfg(not(feature = "pg18"))]
        pub fn standard_ExecutorRun(q: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64, once: bool);
        #[cfg(feature = "pg18")]
        pub fn standard_ExecutorRun(q: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64);
    }
}

/// Calls the previous ExecutorRun hook, or the server's function. An error jumps past the caller.
///
/// # Safety
/// For an ExecutorRun hook only, with the arguments that it was given.
pub unsafe fn executor_run(previous: pg_sys::ExecutorRun_hook_type, query: *mut pg_sys::QueryDesc, args: RunArgs) {
    let RunArgs { direction, count, .. } = args;
    // SAFETY: as the caller promises.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        match previous {
            Some(hook) => hook(query, direction, count, args.execute_once),
            None => sys::standard_ExecutorRun(query, direction, count, args.execute_once),
        }
    }
    // SAFETY: as the caller promises.
    #[cfg(feature = "pg18")]
    unsafe {
        match previous {
            Some(hook) => hook(query, direction, count),
            None => sys::standard_ExecutorRun(query, direction, count),
        }
    }
}

/// MERGE, since version 15.
pub const CMD_MERGE: pg_sys::CmdType::Type = pg_sys::CmdType::CMD_MERGE;
