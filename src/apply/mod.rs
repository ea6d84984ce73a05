//! Apply: the only module that issues DDL; only the worker calls it. What it does is concurrent and runs as the owner of the table,
//! at the top level, in a process that holds no other transaction.

pub mod analyze;
pub mod attach;
pub mod create;
pub mod drop;
pub mod facts;
pub mod inline;
pub mod reconcile;
pub mod reindex;

use crate::guc;
use crate::pg::error::Error;
use crate::pg::planner::Snapshot;
use crate::pg::{bgworker, lock, role, spi, time, toplevel};
use pgrx::pg_sys::Oid;
use std::ffi::CString;

/// What a failure means for the action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// May go well another time: a lock, the time, space, a deadlock.
    Transient,
    /// Will fail again: the definition, the data or a name.
    Permanent,
    /// The owner of the table lacks a right.
    Privilege,
    /// Somebody cancelled the process (pg_cancel_backend).
    Cancelled,
}

/// A command that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub error: Error,
    pub class: Class,
}

impl Failure {
    /// A finding of our own that no retry will change.
    pub fn permanent(error: Error) -> Self {
        Failure { error, class: Class::Permanent }
    }
}

/// Prefix of the comment that marks an index as ours; the tag of the action follows.
pub const MARK: &str = "indexpilot:";

/// Longest time for removing what a failed attempt left: it has only locks to wait for.
const REMOVAL_LIMIT: std::time::Duration = std::time::Duration::from_secs(900);

/// What must still be so when a command begins. Its relations are locked and it is looked at in the very transaction in which the command
/// begins, so nothing can change in between: the command takes the same locks before that transaction ends.
struct Still<'a> {
    table: u32,
    index: Option<u32>,
    check: &'a dyn Fn() -> Result<(), Error>,
}

impl Still<'_> {
    fn so(&self) -> Result<(), Error> {
        // In the server's order, the table first.
        lock::against_ddl(self.table);
        self.index.into_iter().for_each(lock::against_ddl);
        let _snapshot = Snapshot::new();
        spi::reading(self.check)
    }
}

/// Runs one command with the limits of the settings. `run_as` `None` is the session's own role.
fn run(
    sql: &str,
    run_as: Option<Oid>,
    comment: Option<&str>,
    limit: std::time::Duration,
    still: Option<&Still<'_>>,
) -> Result<(), Failure> {
    run_within(guc::apply_lock_timeout(), sql, run_as, comment, limit, still)
}

/// As [`run`], with another limit for the wait for any one lock.
fn run_within(
    lock_limit: std::time::Duration,
    sql: &str,
    run_as: Option<Oid>,
    comment: Option<&str>,
    limit: std::time::Duration,
    still: Option<&Still<'_>>,
) -> Result<(), Failure> {
    let set = |name: &std::ffi::CStr, value: String| {
        bgworker::set(name, &CString::new(value).unwrap_or_default());
    };
    set(c"lock_timeout", lock_limit.as_millis().to_string());
    set(c"maintenance_work_mem", guc::apply_maintenance_work_mem().to_string());
    set(c"max_parallel_maintenance_workers", guc::apply_parallel_workers().to_string());
    let check = || still.map_or(Ok(()), Still::so);
    let run_as = run_as.unwrap_or_else(role::current);
    let result = toplevel::run(&toplevel::Command { sql, run_as, comment, before: Some(&check), limit });
    bgworker::set(c"lock_timeout", bgworker::PATIENCE);
    let timed_out = time::own_timeout_fired();
    result.map_err(|error| {
        let class = classify(&error.sqlstate(), timed_out);
        Failure { error, class }
    })
}

fn classify(sqlstate: &str, timed_out: bool) -> Class {
    match (sqlstate, &sqlstate[..2]) {
        ("42501", _) => Class::Privilege,
        ("57014", _) if !timed_out => Class::Cancelled,
        // Data, constraints, functions of users, names and syntax, limits of the server, what it does not support.
        (_, "22" | "23" | "38" | "39" | "42" | "54" | "0A" | "P0") => Class::Permanent,
        _ => Class::Transient,
    }
}
