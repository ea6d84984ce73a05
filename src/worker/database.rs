//! The worker: one visit to one database. It brings the tables up to date, judges, advises, asks for the builder where something is
//! due, and ends.

use super::state::{self, Role};
use super::{advisor, attach, builder, enter, flush, judge, observe, outcome, partitions, profile, safeguard, trial};
use crate::guc;
use crate::pg::bgworker;
use crate::pg::error::Result;
use crate::pg::extension;
use crate::pg::visibility;
use crate::{capture, pg, store};
use pgrx::pg_sys::{self, Oid};

/// Entry point of the worker; the argument is the OID of the database.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn indexpilot_worker(argument: pg_sys::Datum) {
    if let Some(database) = enter(argument, Role::Worker) {
        visit(database);
    }
}

fn visit(database: Oid) {
    if guc::mode() == guc::Mode::Off {
        return;
    }
    match bgworker::transaction("indexpilot: looking for the extension", || Ok(pg::database::has_extension())) {
        Ok(true) => {}
        Ok(false) => {
            state::set_registered(database, false);
            capture::unregister_database(database);
            step("show indexes", || bgworker::transaction("indexpilot: showing indexes", || visibility::clear_database(database)));
            return;
        }
        Err(e) => return pgrx::warning!("indexpilot: worker: could not look for the extension: {e}"),
    }
    state::set_registered(database, true);
    let captured = capture::register_database(database);
    if state::left_out(database, !captured) {
        pgrx::warning!(
            "indexpilot: worker: database {} is not captured, because as many are as there is room for ({})",
            database.to_u32(),
            capture::MAX_DATABASES
        );
    }
    // Capture goes on; what it counts waits in shared memory for objects of the right version.
    let version = bgworker::transaction("indexpilot: looking for the extension", extension::require_same_version);
    if state::mismatch(database, version.is_err())
        && let Err(e) = &version
    {
        pgrx::warning!(
            "indexpilot: worker: nothing is done in database {}: {}",
            database.to_u32(),
            e.detail.as_deref().unwrap_or(&e.message)
        );
    }
    if version.is_err() {
        return;
    }
    // Each step has transactions of its own, and one that fails does not keep the others from being taken.
    let done = [
        step("compare hidden indexes", trial::reconcile_all),
        step("follow protected indexes", || {
            bgworker::transaction("indexpilot: following protected indexes", store::protection::follow)
        }),
        step("watch running builds", safeguard::watch),
        step("ask for the builder", || ask_for_builder(database)),
        step("flush", flush::by_itself),
        step("profile", profile::by_itself),
        step("follow dropped indexes", outcome::follow),
        step("follow partitions", partitions::follow),
        step("verify", judge::run),
        step("observe", observe::run),
        step("watch running builds", safeguard::watch),
        step("advise", advisor::tick),
        step("forget old analyses", || {
            bgworker::transaction("indexpilot: forgetting old analyses", || store::analysis::retain(guc::capture_retention()))
        }),
        step("ask for the builder", || ask_for_builder(database)),
    ];
    state::visited(database, done.iter().filter(|done| !**done).count() as u32);
}

/// Wakes the builder when an action is due, when one was left behind by a process that died, or when something is to be removed.
fn ask_for_builder(database: Oid) -> Result<()> {
    if state::busy(database, Role::Builder) {
        return Ok(());
    }
    let due = bgworker::transaction("indexpilot: looking for due actions", || {
        Ok(store::action::any_due()? || builder::anything_left_behind()?)
    })? || attach::any_due()?;
    if due {
        state::want(database, Role::Builder);
    }
    Ok(())
}

/// False when it failed.
fn step(what: &str, f: impl FnOnce() -> Result<()>) -> bool {
    pgrx::check_for_interrupts!();
    let installed = || {
        bgworker::transaction("indexpilot: looking for the extension", || {
            Ok(pg::database::has_extension() && extension::require_same_version().is_ok())
        })
    };
    // When the extension was dropped or changed in the middle of a visit, its tables are missing or others, and nothing is wrong.
    if let Err(e) = f()
        && installed().unwrap_or(true)
    {
        pgrx::warning!("indexpilot: worker: could not {what}: {e}");
        return false;
    }
    true
}
