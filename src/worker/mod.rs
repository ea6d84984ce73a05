//! The processes: launcher, per-database worker, builder; and the advisor that composes the stages. README.md has the state
//! machine and the argument why a crash loses nothing.

pub mod advice;
pub mod advisor;
mod attach;
mod builder;
pub mod canary;
mod database;
pub mod decide;
pub mod decision;
pub mod estimate;
pub mod exchange;
pub mod explain;
pub mod flush;
pub mod health;
pub mod judge;
mod launcher;
pub mod observe;
mod outcome;
mod partitions;
mod profile;
mod references;
pub mod rollback;
mod rows;
mod safeguard;
pub mod state;
pub mod status;
pub mod trial;

use crate::capture;
use crate::pg::database::{self as databases, Event};
use crate::pg::error::or_raise;
use crate::pg::{bgworker, visibility, xact};
use pgrx::pg_sys::{self, Oid};
use state::Role;
use std::time::{Duration, Instant};

/// Longest wait for our processes to leave a database. The server itself waits five seconds for sessions to leave, after us.
const LEAVE: Duration = Duration::from_secs(4);

/// Registers the launcher and everything that it needs. Only from `_PG_init`; does nothing unless the library is being preloaded.
pub fn init() {
    if !bgworker::preloading() {
        return;
    }
    state::init();
    databases::listen(on_command);
    launcher::register();
}

/// Asks for the builder and for a visit as soon as the current transaction has committed; forgotten when it aborts.
pub fn wake_after_commit(database: Oid) {
    xact::at_end(move |committed| {
        if committed {
            state::want(database, Role::Builder);
            state::want(database, Role::Worker);
        }
    });
}

/// The processes as they are; `None` when the library was not preloaded.
pub fn processes() -> Option<state::Status> {
    state::status(databases::current())
}

/// What the commands of sessions mean to us.
fn on_command(event: Event) {
    match event {
        Event::MustBeEmpty { database, dropped } => empty(database, dropped),
        Event::ExtensionChanges => make_way(databases::current()),
        Event::Databases => xact::at_end(|committed| {
            if committed {
                state::want_probe();
            }
        }),
        Event::Extension => {
            let database = databases::current();
            if !databases::has_extension() {
                or_raise(visibility::clear_database(database));
            }
            xact::at_end(move |committed| {
                if committed {
                    state::want(database, Role::Worker);
                }
            });
        }
    }
}

/// Has our processes leave a database and keeps them out of it until the transaction ends, whichever way.
fn empty(database: Oid, dropped: bool) {
    let present = state::hold(database);
    // Before anything that may fail.
    xact::at_end(move |committed| {
        if committed && dropped {
            state::forget(database);
            capture::unregister_database(database);
        }
        state::unhold(database);
    });
    if dropped {
        or_raise(visibility::clear_database(database));
    }
    end(database, &present);
}

/// Has our processes leave the extension's tables alone until the transaction ends, whichever way: its command locks them all, one after
/// the other, and would meet a transaction of ours that uses two of them in the other order.
fn make_way(database: Oid) {
    let present = state::pause(database);
    xact::at_end(move |_| state::resume(database));
    end(database, &present);
}

/// Ends our processes, and waits until they have left the database.
fn end(database: Oid, processes: &[i32]) {
    for pid in processes {
        bgworker::terminate(*pid);
    }
    let deadline = Instant::now() + LEAVE;
    while Instant::now() < deadline && state::any_left(database, processes) {
        bgworker::wait(Duration::from_millis(10));
    }
}

/// Runs a command that changes indexes, in the builder. Whoever changes or drops the extension need not wait for it.
fn command<T>(f: impl FnOnce() -> T) -> T {
    let database = databases::current();
    let mark = |begins| {
        while !state::commanding(database, begins) {
            bgworker::wait(Duration::from_millis(20));
        }
    };
    mark(true);
    let result = f();
    mark(false);
    result
}

/// How every process for a database begins. `None` when it must not work: it then ends at once, with exit code 0.
fn enter(argument: pg_sys::Datum, role: Role) -> Option<Oid> {
    let database = Oid::from(argument.value() as u32);
    if bgworker::out_of_service() {
        return None;
    }
    // Before connecting, so that the slot is given back only after the process has left the database's list of sessions.
    bgworker::at_exit(state::release);
    if !state::claim(database, role) {
        return None;
    }
    bgworker::accept_signals();
    bgworker::connect(Some(database));
    bgworker::override_settings();
    (!bgworker::in_recovery()).then_some(database)
}
