//! Running HiGHS so that it can be cancelled: `statement_timeout`, a cancel request and a shutdown all reach it; and so that nobody waits
//! for it: DROP DATABASE and ALTER DATABASE ... SET TABLESPACE want every process of the server to close its files (procsignal.c).
//!
//! good_lp has no callback, so the raw model is given one. HiGHS is C++: nothing may be raised through it. The callback reads the flags
//! that the signal handlers set and asks HiGHS to stop; the caller processes interrupts when the solver has returned.
//!
//! # Safety
//! HiGHS alone calls the callback, while it solves, with pointers that are valid for the call.

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

/// Answers a barrier of another process, if there is one. What goes wrong stops nobody: then it stays until interrupts are processed, and
/// this is false.
pub fn answer_barrier() -> bool {
    // SAFETY: as above.
    if unsafe { std::ptr::read_volatile(&raw const pg_sys::ProcSignalBarrierPending) } == 0 {
        return true;
    }
    // SAFETY: closes files of this process; for places where interrupts may be processed, and errors are caught here.
    std::panic::catch_unwind(|| unsafe { pg_sys::ProcessProcSignalBarrier() }).is_ok()
}

unsafe extern "C" fn poll(
    _kind: c_int,
    _message: *const c_char,
    _from_solver: *const highs_sys::HighsCallbackDataOut,
    to_solver: *mut highs_sys::HighsCallbackDataIn,
    _data: *mut c_void,
) {
    if !to_solver.is_null() && (!answer_barrier() || interrupt_pending()) {
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
            // It looks for a first solution at length; here every set that fits is one.
            model.try_set_option("mip_heuristic_run_feasibility_jump", false),
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

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use super::*;
    use good_lp::{SolverModel, constraint, highs, variable, variables};
    use pgrx::prelude::*;

    /// A knapsack of 60 things whose relaxation is far from whole numbers.
    fn knapsack() -> HighsProblem {
        let mut all = variables!();
        let things = all.add_vector(variable().binary(), 60);
        let gain: good_lp::Expression = things.iter().enumerate().map(|(i, v)| f64::from((i as i32 * 37) % 41 + 3) * *v).sum();
        let weight: good_lp::Expression = things.iter().enumerate().map(|(i, v)| f64::from((i as i32 * 53) % 47 + 5) * *v).sum();
        let mut problem = all.maximise(gain).using(highs);
        problem.add_constraint(constraint!(weight <= 333.3));
        problem
    }

    #[pg_test]
    fn the_solver_finds_what_plain_highs_finds() {
        let ours = Interruptible.solve(knapsack(), 10.0, 0.0).unwrap();
        let plain = indexpilot_core::select::Uninterruptible.solve(knapsack(), 10.0, 0.0).unwrap();
        assert!(ours.optimal && ours.gap < 1e-6);
        assert_eq!(ours.columns, plain.columns);
        assert_eq!(Interruptible.solve(knapsack(), 10.0, 0.0).unwrap(), ours);
    }
}
