//! Running HiGHS so that it can be cancelled: `statement_timeout`, a cancel request and a shutdown all reach it.
//!
//! good_lp has no callback, so the raw model is given one. HiGHS is C++: nothing may be raised through it. The callback only reads
//! the flags that the signal handlers set and asks HiGHS to stop; the caller processes interrupts when the solver has returned.

use good_lp::solvers::highs::HighsProblem;
use indexpilot_core::select::{Milp, MilpResult};
use pgrx::pg_sys;
use std::ffi::{c_char, c_int, c_void};

/// HiGHS with one thread, deterministic, stopping when the backend is asked to stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interruptible;

/// A cancel or a termination is waiting to be processed. Reads flags only.
pub fn interrupt_pending() -> bool {
    // SAFETY: signal handlers of this process set these flags (globals.c); they are read as volatile, as C code does.
    unsafe {
        std::ptr::read_volatile(&raw const pg_sys::InterruptPending) != 0
            && (std::ptr::read_volatile(&raw const pg_sys::QueryCancelPending) != 0
                || std::ptr::read_volatile(&raw const pg_sys::ProcDiePending) != 0)
    }
}

/// Processes waiting interrupts: raises the cancel, or ends the process.
pub fn check_interrupts() {
    pgrx::check_for_interrupts!();
}

unsafe extern "C" fn poll(
    _kind: c_int,
    _message: *const c_char,
    _from_solver: *const highs_sys::HighsCallbackDataOut,
    to_solver: *mut highs_sys::HighsCallbackDataIn,
    _data: *mut c_void,
) {
    if !to_solver.is_null() && interrupt_pending() {
        // SAFETY: HiGHS hands in a struct that lives for the call and reads it afterwards.
        unsafe { (*to_solver).user_interrupt = 1 };
    }
}

impl Milp for Interruptible {
    fn solve(&mut self, problem: HighsProblem, time_limit_s: f64, gap: f64) -> Result<MilpResult, String> {
        let mut model = problem.try_into_inner().map_err(|e| e.to_string())?;
        model.make_quiet();
        let options = [
            model.try_set_option("threads", 1),
            model.try_set_option("parallel", "off"),
            model.try_set_option("random_seed", 0),
            model.try_set_option("time_limit", time_limit_s.max(0.0)),
            model.try_set_option("mip_rel_gap", gap.max(0.0)),
        ];
        if let Some(status) = options.into_iter().find_map(Result::err) {
            return Err(format!("solver refused an option: {status:?}"));
        }
        let raw = model.as_mut_ptr();
        // SAFETY: `raw` is the live solver of `model`; the callback has no data and outlives it, being a function.
        unsafe {
            highs_sys::Highs_setCallback(raw, Some(poll), std::ptr::null_mut());
            for kind in [
                highs_sys::kHighsCallbackSimplexInterrupt,
                highs_sys::kHighsCallbackIpmInterrupt,
                highs_sys::kHighsCallbackMipInterrupt,
            ] {
                highs_sys::Highs_startCallback(raw, kind);
            }
        }
        let solved = model.try_solve().map_err(|status| format!("solver failed: {status:?}"))?;
        let status = solved.status();
        if solved.primal_solution_status() as c_int != highs_sys::SOLUTION_STATUS_FEASIBLE {
            return Err(format!("no feasible solution: {status:?}"));
        }
        Ok(MilpResult {
            columns: solved.get_solution().columns().to_vec(),
            gap: solved.mip_gap(),
            optimal: status as c_int == highs_sys::MODEL_STATUS_OPTIMAL,
        })
    }
}
