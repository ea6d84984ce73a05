//! Differences between PostgreSQL versions: every `cfg(feature = "pgNN")` stands here.

use super::standard;
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

/// `role` may drop or alter the extension.
pub fn owns_extension(extension: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    #[cfg(feature = "pg15")]
    // SAFETY: looks up pg_extension; raises when the row is gone, which callers have just looked up.
    return unsafe { pg_sys::pg_extension_ownercheck(extension, role) };
    #[cfg(not(feature = "pg15"))]
    // SAFETY: as above.
    return unsafe { pg_sys::object_ownercheck(pg_sys::ExtensionRelationId, extension, role) };
}

/// Name of the setting that makes every query parallel, for testing only: our sessions switch it off.
#[cfg(feature = "pg15")]
pub const FORCE_PARALLEL: &CStr = c"force_parallel_mode";
#[cfg(not(feature = "pg15"))]
pub const FORCE_PARALLEL: &CStr = c"debug_parallel_query";
/// The cost function of an index access method.
pub type CostEstimate = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannerInfo,
    *mut pg_sys::IndexPath,
    f64,
    *mut pg_sys::Cost,
    *mut pg_sys::Cost,
    *mut pg_sys::Selectivity,
    *mut f64,
    *mut f64,
);

/// Gives a planner's index its cost function.
///
/// # Safety
/// `index` is a live IndexOptInfo.
pub unsafe fn set_cost_estimate(index: *mut pg_sys::IndexOptInfo, function: CostEstimate) {
    // SAFETY: until 15 the field is declared without arguments, because pathnodes.h does not know them; cost_index casts it back.
    #[cfg(feature = "pg15")]
    unsafe {
        (*index).amcostestimate = Some(std::mem::transmute::<CostEstimate, unsafe extern "C-unwind" fn()>(function));
    }
    // SAFETY: a plain field.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        (*index).amcostestimate = Some(function);
    }
}

/// B-tree operator families that an operator belongs to, each with its strategy number (1 `<`, 2 `<=`, 3 `=`, 4 `>=`, 5 `>`).
pub fn btree_strategies(operator: pg_sys::Oid) -> Vec<(pg_sys::Oid, i32)> {
    // SAFETY: a catalog lookup that returns a list of its own; COMPARE_* numbers are the B-tree strategies (cmptype.h, 18).
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return super::node::list::<pg_sys::OpBtreeInterpretation>(pg_sys::get_op_btree_interpretation(operator))
            .map(|i| ((*i).opfamily_id, (*i).strategy))
            .collect();
        #[cfg(feature = "pg18")]
        return super::node::list::<pg_sys::OpIndexInterpretation>(pg_sys::get_op_index_interpretation(operator))
            .map(|i| ((*i).opfamily_id, (*i).cmptype as i32))
            .collect();
    }
}

/// The pathkey's order is descending.
pub fn descending(key: &pg_sys::PathKey) -> bool {
    #[cfg(not(feature = "pg18"))]
    return key.pk_strategy == pg_sys::BTGreaterStrategyNumber as i32;
    #[cfg(feature = "pg18")]
    return key.pk_cmptype == pg_sys::CompareType::COMPARE_GT;
}

/// Pages of the table that one scan through a bitmap of `path` reads.
///
/// # Safety
/// Called by the planner with its own structures; `path` is an index path of `rel`.
pub unsafe fn bitmap_pages(root: *mut pg_sys::PlannerInfo, rel: *mut pg_sys::RelOptInfo, path: *mut pg_sys::Path) -> f64 {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    let once = 1;
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    let once = 1.0;
    // SAFETY: null says that cost and tuples are not wanted (costsize.c).
    unsafe { pg_sys::compute_bitmap_pages(root, rel, path, once, std::ptr::null_mut(), std::ptr::null_mut()) }
}

/// EXPLAIN of a finished plan, without running it.
///
/// # Safety
/// All pointers are live; `params` may be null. A snapshot is active.
pub unsafe fn explain_one_plan(
    stmt: *mut pg_sys::PlannedStmt,
    state: *mut pg_sys::ExplainState,
    text: &CStr,
    params: pg_sys::ParamListInfo,
) {
    use std::ptr::{null, null_mut};
    // SAFETY: what the caller promises; durations and buffer usage may be left out.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        pg_sys::ExplainOnePlan(stmt, null_mut(), state, text.as_ptr(), params, null_mut(), null(), null());
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pg_sys::ExplainOnePlan(stmt, null_mut(), state, text.as_ptr(), params, null_mut(), null(), null(), null());
    }
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
            None => standard::standard_ExecutorRun(query, direction, count, args.execute_once),
        }
    }
    // SAFETY: as the caller promises.
    #[cfg(feature = "pg18")]
    unsafe {
        match previous {
            Some(hook) => hook(query, direction, count),
            None => standard::standard_ExecutorRun(query, direction, count),
        }
    }
}

/// MERGE, since version 15.
pub const CMD_MERGE: pg_sys::CmdType::Type = pg_sys::CmdType::CMD_MERGE;

/// Query identifier of a plan, bit for bit; signed since version 18.
pub fn query_id(plan: &pg_sys::PlannedStmt) -> u64 {
    #[cfg(not(feature = "pg18"))]
    return plan.queryId;
    #[cfg(feature = "pg18")]
    return plan.queryId.cast_unsigned();
}

/// Number of this process as `SendProcSignal` takes it: a backend id, which counts from 1, and since version 17 a process number.
pub fn process_number() -> i32 {
    // SAFETY: reads a variable of the process.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    return unsafe { pg_sys::MyBackendId };
    // SAFETY: as above.
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    return unsafe { pg_sys::MyProcNumber };
}

/// The lowest such number.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub const FIRST_PROCESS: i32 = 1;
/// The lowest such number.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub const FIRST_PROCESS: i32 = 0;

/// Query identifier of an analysed query, bit for bit.
pub fn parsed_query_id(query: &pg_sys::Query) -> u64 {
    #[cfg(not(feature = "pg18"))]
    return query.queryId;
    #[cfg(feature = "pg18")]
    return query.queryId.cast_unsigned();
}

/// Sets it.
pub fn set_parsed_query_id(query: &mut pg_sys::Query, id: u64) {
    #[cfg(not(feature = "pg18"))]
    {
        query.queryId = id;
    }
    #[cfg(feature = "pg18")]
    {
        query.queryId = id.cast_signed();
    }
}

/// What a walker over expressions is: false goes on.
pub type Walker = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut std::ffi::c_void) -> bool;

/// The server's walkers over parse trees (nodeFuncs.h), which have other names since version 16.
pub mod walk {
    use super::{Walker, pg_sys};
    use std::ffi::{c_int, c_void};
    unsafe extern "C-unwind" {
        #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_walker_impl")]
        pub fn expression_tree_walker(node: *mut pg_sys::Node, walker: Walker, context: *mut c_void) -> bool;
        #[cfg_attr(not(feature = "pg15"), link_name = "query_tree_walker_impl")]
        pub fn query_tree_walker(query: *mut pg_sys::Query, walker: Walker, context: *mut c_void, flags: c_int) -> bool;
    }
}

/// Raises when the current role may not do to the tables of a finished plan what it does, as the executor would.
///
/// # Safety
/// `plan` is live.
pub unsafe fn check_permissions(plan: *mut pg_sys::PlannedStmt) {
    // SAFETY: the lists of a finished plan.
    unsafe {
        #[cfg(feature = "pg15")]
        pg_sys::ExecCheckRTPerms((*plan).rtable, true);
        #[cfg(not(feature = "pg15"))]
        pg_sys::ExecCheckPermissions((*plan).rtable, (*plan).permInfos, true);
    }
}

/// Catalog caches whose changes may change a plan without changing a relation.
pub const PLAN_CACHES: [i32; 6] = {
    use pg_sys::SysCacheIdentifier as C;
    [
        C::STATRELATTINH as i32,
        C::STATEXTDATASTXOID as i32,
        C::PROCOID as i32,
        C::OPEROID as i32,
        C::AUTHOID as i32,
        C::AUTHMEMMEMROLE as i32,
    ]
};

/// All settings of the session.
pub fn settings() -> Vec<*mut pg_sys::config_generic> {
    // SAFETY: the server's list and its length; the list is read before anything can change it.
    unsafe {
        #[cfg(feature = "pg15")]
        let (list, n) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        #[cfg(not(feature = "pg15"))]
        let (list, n) = {
            let mut n = 0;
            (pg_sys::get_guc_variables(&mut n), n)
        };
        std::slice::from_raw_parts(list, usize::try_from(n).unwrap_or(0)).to_vec()
    }
}
