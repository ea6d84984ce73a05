//! Differences between PostgreSQL versions: every `cfg(feature = "pgNN")` stands here.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Unknown settings with this prefix become errors.
pub fn reserve_guc_prefix(prefix: &'static CStr) {
    // SAFETY: takes a NUL-terminated name and copies it.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) };
}

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
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    unsafe {
        (*index).amcostestimate = Some(std::mem::transmute::<CostEstimate, unsafe extern "C-unwind" fn()>(function));
    }
    // SAFETY: a plain field.
    #[cfg(not(any(feature = "pg13", feature = "pg14", feature = "pg15")))]
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
