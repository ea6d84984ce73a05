//! The server's own functions behind the hooks, as they are.
//!
//! Those of the same names in `pg_sys` catch an error and raise another, which lacks the context lines, the position and the constraint
//! name of the first. A hook that owns nothing calls these, and lets an error jump past it.

use pgrx::pg_sys;
use std::ffi::{c_char, c_int};

unsafe extern "C-unwind" {
    pub fn standard_planner(
        query: *mut pg_sys::Query,
        text: *const c_char,
        options: c_int,
        params: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;

    pub fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);

    #[cfg(not(feature = "pg18"))]
    pub fn standard_ExecutorRun(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
        execute_once: bool,
    );
    #[cfg(feature = "pg18")]
    pub fn standard_ExecutorRun(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64);

    pub fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);

    pub fn standard_ExecutorEnd(query: *mut pg_sys::QueryDesc);

    pub fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}
