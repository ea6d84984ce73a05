//! Catching errors of the server, which takes a subtransaction: without one the backend's state would be half undone.

use super::error::{Error, Result};
use pgrx::PgTryBuilder;
use pgrx::pg_sys;
use std::panic::{AssertUnwindSafe, UnwindSafe};

/// Runs `f` in a subtransaction; everything that it did to the transaction is rolled back, whatever it returns. Errors of the server
/// come back as values, but cancels and terminations go on upwards.
pub fn discard<T>(f: impl FnOnce() -> Result<T> + UnwindSafe) -> Result<T> {
    // SAFETY: the pattern of plpgsql's exception blocks (pl_exec.c): remember context and owner, begin, run, end, restore both.
    let (context, owner, level) =
        unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner, pg_sys::GetCurrentTransactionNestLevel()) };
    // SAFETY: begins a subtransaction of the current transaction, which every caller has.
    unsafe {
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
    }
    let mut f = Some(f);
    let result = PgTryBuilder::new(AssertUnwindSafe(|| {
        let outcome = match f.take() {
            Some(f) => f(),
            None => Err(Error::internal("subtransaction ran twice")),
        };
        // SAFETY: ends the subtransaction begun above; the nesting is right because `f` ended its own.
        unsafe { pg_sys::RollbackAndReleaseCurrentSubTransaction() };
        outcome
    }))
    .catch_others(|caught| {
        // SAFETY: the error left the subtransaction open, and perhaps some inside it; rolling them back is what makes the backend usable
        // again. They are internal ones, since nothing that runs here can make savepoints.
        unsafe {
            while pg_sys::GetCurrentTransactionNestLevel() > level {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
            }
        }
        let error = Error::from(caught);
        match error.sqlstate().as_str() {
            "57014" | "57P01" | "57P02" | "57P03" if !timed_out(&error) => error.raise(),
            _ => Err(error),
        }
    })
    .execute();
    // SAFETY: both were current before and outlive the subtransaction.
    unsafe {
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
    }
    result
}

/// A statement timeout that we set ourselves around planning has the SQLSTATE of a cancel; only its message tells (postgres.c).
fn timed_out(error: &Error) -> bool {
    super::time::own_timeout_fired() && error.sqlstate() == "57014"
}
