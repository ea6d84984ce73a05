//! The builder: one process at a time in a database, the only one that changes indexes. It first clears up what a dead predecessor
//! left, then carries out due actions one after the other, then ends.

use super::state::{self, Role};
use super::{attach, canary, command, enter, flush, outcome, partitions, safeguard};
use crate::apply::facts::{self, Table};
use crate::apply::reconcile::{self, Index};
use crate::apply::{self, Failure};
use crate::guc;
use crate::pg::bgworker::{self, transaction};
use crate::pg::error::{Error, Kind as ErrorKind, Result};
use crate::pg::indexstmt::{self, Author};
use crate::pg::{database as databases, extension, lock, time};
use crate::store::action::{self, Action};
use crate::store::managed;
use indexpilot_core::apply::{Event, Kind, State};
use indexpilot_core::guard::{self, Verdict};
use pgrx::pg_sys;

/// Starts of an action before it fails for good: it is retried once.
pub const MAX_ATTEMPTS: u32 = 2;
/// Where names of a statement that is to be built are looked up, as when it is.
const PATH: &std::ffi::CStr = c"pg_catalog, pg_temp";
/// Seconds until an action that a guard rule holds back is looked at again.
const WAIT_S: f64 = 15.0;
/// Seconds until a blocked action is looked at again: a person has to do something first.
const BLOCKED_S: f64 = 600.0;
/// Seconds until an action that could not even be looked at is tried again.
const AGAIN_S: f64 = 60.0;
/// Actions of one process: a fresh one takes over then, with fresh memory.
const ACTIONS_PER_PROCESS: usize = 1000;

/// Entry point of the builder; the argument is the OID of the database.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn indexpilot_builder(argument: pg_sys::Datum) {
    let Some(database) = enter(argument, Role::Builder) else { return };
    if let Err(e) = work() {
        // The extension may have been dropped meanwhile, and its tables with it.
        pgrx::warning!("indexpilot: apply: the builder stopped: {e}");
    }
    // Wakes the worker, which judges what was built and asks for the builder again when something is due.
    state::want(database, Role::Worker);
}

fn work() -> Result<()> {
    if !in_service()? {
        return Ok(());
    }
    for action in transaction("indexpilot: looking for interrupted actions", action::left_behind)? {
        if !outcome::process_lives(action.worker_pid)? {
            pgrx::log!(
                "indexpilot: apply: action {} ({} of {}) was interrupted; comparing it with the catalog",
                action.id,
                action.kind.as_str(),
                action.index_name
            );
            if let Err(e) = outcome::conclude(&action, None) {
                set_aside(&action, &e)?;
            }
        }
    }
    remove_orphans()?;
    for _ in 0..ACTIONS_PER_PROCESS {
        bgworker::reload_if_asked();
        pgrx::check_for_interrupts!();
        if !in_service()? {
            break;
        }
        let Some(action) = transaction("indexpilot: looking for due actions", action::next_due)? else { break };
        if let Err(e) =
            carry_out(&action).and_then(|started| if started && in_service()? { partitions::follow_after(&action) } else { Ok(()) })
        {
            set_aside(&action, &e)?;
        }
    }
    if in_service()? {
        attach::all()?;
    }
    Ok(())
}

/// Whatever is wrong with an action must not keep the others from their turn.
fn set_aside(action: &Action, e: &Error) -> Result<()> {
    pgrx::warning!("indexpilot: apply: action {} could not be looked at: {e}", action.id);
    transaction("indexpilot: postponing an action", || {
        action::set_error(action.id, &e.sqlstate(), &e.message)?;
        action::postpone(action.id, AGAIN_S, Some(&e.to_string()), None)
    })
}

fn in_service() -> Result<bool> {
    Ok(guc::mode() != guc::Mode::Off
        && !bgworker::in_recovery()
        && transaction("indexpilot: looking for the extension", || {
            Ok(databases::has_extension() && extension::require_same_version().is_ok())
        })?)
}

/// Something is to be cleared up: actions of dead processes, or unusable indexes of ours. In a transaction.
pub fn anything_left_behind() -> Result<bool> {
    Ok(!action::left_behind()?.is_empty() || !orphans()?.is_empty())
}

/// Unusable indexes of ours that no running action accounts for. In a transaction.
fn orphans() -> Result<Vec<Index>> {
    let live: Vec<String> = action::in_states(&[State::Building])?.into_iter().map(|a| a.tag).collect();
    reconcile::orphans(&live)
}

fn remove_orphans() -> Result<()> {
    for index in transaction("indexpilot: looking for unusable indexes", orphans)? {
        let table = index.table_id;
        // Somebody may be dropping it just now: then it goes without us.
        let quiet = transaction("indexpilot: looking at locks", || Ok(facts::surroundings(table)?.running_ddl.is_none()))?;
        if !quiet {
            continue;
        }
        match command(|| apply::drop::remove(&index)) {
            Ok(()) => transaction("indexpilot: logging", || outcome::log_removal(None, &index, "no action works on it"))?,
            Err(failure) => pgrx::warning!(
                "indexpilot: apply: could not remove the unusable index {}.{}: {}",
                index.schema,
                index.name,
                failure.error
            ),
        }
    }
    Ok(())
}

/// An action that may start: what to run and on what.
struct Cleared {
    table: Table,
    index: Option<Index>,
    statement: String,
    findings: serde_json::Value,
}

/// False when it did not start: it waits, is blocked, or was given up.
fn carry_out(action: &Action) -> Result<bool> {
    let reviewed = transaction("indexpilot: reviewing an action", || review(action))?;
    let Some(Cleared { table, index, statement, findings }) = reviewed else { return Ok(false) };
    // The intent is committed before anything else happens.
    let started = transaction("indexpilot: starting an action", || {
        if !lock::try_for_session(lock::Own::Table(action.table_id)) {
            action::postpone(action.id, WAIT_S, Some("another session holds IndexPilot's lock on the table"), Some(&findings))?;
            return Ok(false);
        }
        let started = action::start(action.id, bgworker::pid(), index.as_ref().map(|i| i.oid), &statement, &findings)?;
        if !started {
            action::postpone(action.id, WAIT_S, Some("another action on the table is not finished"), Some(&findings))?;
        }
        Ok(started)
    })?;
    if started {
        let attempt = action.attempts + 1;
        pgrx::log!("indexpilot: apply: action {}, attempt {attempt}: {statement}", action.id);
        let begun = time::now();
        let outcome = command(|| {
            state::set_running(databases::current(), action.id);
            let outcome = match (&index, action.kind) {
                (_, Kind::Create) => apply::create::build(&statement, action.table_id, &table, &action.tag),
                (Some(index), Kind::Drop) => apply::drop::carry_out(index),
                (Some(index), Kind::Reindex) => apply::reindex::rebuild(index),
                // Gone already: a drop is done, a rebuild has failed, and the catalog says so.
                (None, _) => Ok(()),
            };
            state::set_running(databases::current(), 0);
            bgworker::forget_cancel();
            outcome
        });
        // Dropped and made anew, the extension gives the same numbers to other actions.
        let there = transaction("indexpilot: looking for the extension", || {
            Ok(databases::has_extension() && action::get(action.id)?.is_some_and(|now| now.tag == action.tag))
        })?;
        if !there {
            clear_up_for_nobody(action)?;
            return Ok(true);
        }
        if outcome.is_ok() && action.kind == Kind::Create {
            // Before anything that takes time: until then every transaction sees the index.
            transaction("indexpilot: beginning a trial", || match reconcile::tagged(&action.tag)?.as_slice() {
                [index] => canary::begin(action, index),
                _ => Ok(()),
            })?;
        }
        // What was measured until now belongs to the time before the change.
        if outcome.is_ok() {
            flush::by_itself().unwrap_or_else(|e| pgrx::warning!("indexpilot: worker: could not flush: {e}"));
        }
        let now = transaction("indexpilot: reading an action", || action::get(action.id))?;
        if let Some(now) = now {
            outcome::conclude(&now, Some(outcome::Attempt { result: outcome, seconds: time::now() - begun }))?;
        }
    }
    transaction("indexpilot: releasing the table", || {
        lock::release(lock::Own::Table(action.table_id));
        Ok(())
    })?;
    Ok(started)
}

/// The extension was dropped during the command, and the action with it. A usable index belongs to the user now; what cannot be used goes.
fn clear_up_for_nobody(action: &Action) -> Result<()> {
    pgrx::log!("indexpilot: apply: the extension was dropped during action {} ({})", action.id, action.index_name);
    let left = transaction("indexpilot: looking for unusable indexes", || match action.kind {
        Kind::Create => reconcile::tagged(&action.tag),
        Kind::Reindex => reconcile::copies(action.table_id, &action.index_schema, &action.index_name),
        Kind::Drop => Ok(Vec::new()),
    })?;
    for index in left.iter().filter(|index| !index.valid) {
        if let Err(failure) = command(|| apply::drop::remove(index)) {
            pgrx::warning!(
                "indexpilot: apply: could not remove the unusable index {}.{}: {}",
                index.schema,
                index.name,
                failure.error
            );
        }
    }
    Ok(())
}

/// Looks at the action, the catalog and the guard rules. `None` when it may not start: its row says why. In a transaction.
fn review(action: &Action) -> Result<Option<Cleared>> {
    if partitions::call_off(action)? {
        return Ok(None);
    }
    let Some(table) = facts::table(action.table_id)? else {
        return give_up(action, "the table does not exist any more");
    };
    if table.schema != action.table_schema || table.name != action.table_name {
        return give_up(
            action,
            &format!(
                "the table was called {}.{} when the action was queued, and is called {}.{} now",
                action.table_schema, action.table_name, table.schema, table.name
            ),
        );
    }
    let index = match action.kind {
        Kind::Create => None,
        Kind::Drop | Kind::Reindex => target(action)?,
    };
    let statement = match (action.kind, &index) {
        (Kind::Create, _) => {
            if let Some(why) = unfit(action)? {
                return give_up(action, &why);
            }
            if let Some(missing) = table.missing_right() {
                return block(action, &missing, None);
            }
            action.statement.clone()
        }
        (Kind::Drop, Some(index)) => {
            let asked_for = action.observe && action.explicit();
            if !asked_for && !managed::is_ours(index.tag.as_deref(), index.oid)? {
                return give_up(action, "IndexPilot did not make this index, so it does not drop it");
            }
            if let Some(why) = apply::drop::refusal(index) {
                return give_up(action, &format!("the index must not be dropped: {why}"));
            }
            apply::drop::statement(index)
        }
        (Kind::Reindex, Some(index)) => {
            if let Some(why) = apply::reindex::refusal(index) {
                return give_up(action, &format!("the index must not be rebuilt: {why}"));
            }
            if let Some(copy) = reconcile::copies(index.table_id, &index.schema, &index.name)?.first() {
                let why = format!("an earlier rebuild left the unusable index {}.{}; drop it first", copy.schema, copy.name);
                return block(action, &why, None);
            }
            apply::reindex::statement(index)
        }
        (Kind::Reindex, None) => return give_up(action, "the index does not exist any more"),
        (Kind::Drop, None) => action.statement.clone(),
    };
    let findings = safeguard::review(action, &table, index.as_ref())?;
    let document = serde_json::to_value(&findings)?;
    let why = guard::decisive(&findings).map(|f| format!("{}: {}", f.rule, f.detail)).unwrap_or_default();
    match guard::outcome(&findings) {
        Verdict::Pass => {
            // Reading the index may have waited for DDL on its table, and then says what was before. The rule has found none running.
            let now = index.as_ref().filter(|_| action.kind == Kind::Drop).map(|i| reconcile::by_oid(i.oid)).transpose()?.flatten();
            if let Some(why) = now.as_ref().and_then(apply::drop::refusal) {
                return give_up(action, &format!("the index must not be dropped: {why}"));
            }
            if action.kind == Kind::Create
                && let Some(why) = unsafe_code(action, &table)?
            {
                return give_up(action, &why);
            }
            if action.state == State::Blocked {
                action::transition(action.id, State::Blocked, Event::Unblock)?;
            }
            Ok(Some(Cleared { table, index, statement, findings: document }))
        }
        Verdict::Wait => {
            if action.state == State::Blocked {
                action::transition(action.id, State::Blocked, Event::Unblock)?;
            }
            action::postpone(action.id, WAIT_S, Some(&why), Some(&document))?;
            Ok(None)
        }
        Verdict::Refuse => block(action, &why, Some(&document)),
    }
}

/// The index that a drop or a rebuild is about: by the tag of the action that is taken back, else by OID, else by name.
fn target(action: &Action) -> Result<Option<Index>> {
    if let Some(reverted) = action.reverts
        && let Some(reverted) = action::get(reverted)?
    {
        let found = reconcile::tagged(&reverted.tag)?.into_iter().filter(|i| i.table_id == action.table_id);
        if let [one] = found.collect::<Vec<_>>().as_slice() {
            return Ok(Some(one.clone()));
        }
    }
    if let Some(oid) = action.index_id
        && let Some(index) = reconcile::by_oid(oid)?
        && index.table_id == action.table_id
    {
        return Ok(Some(index));
    }
    // What was there before IndexPilot has no tag: under its name there may be another one now.
    let same = |i: &Index| i.table_id == action.table_id && (!action.observe || i.is_made_by(&action.definition));
    Ok(reconcile::by_name(&action.index_schema, &action.index_name)?.filter(same))
}

/// Why an index of this name cannot be made.
fn unfit(action: &Action) -> Result<Option<String>> {
    let head = "CREATE INDEX CONCURRENTLY ";
    if !action.statement.get(..head.len()).is_some_and(|s| s.eq_ignore_ascii_case(head)) {
        return Ok(Some("the statement is not a concurrent build".into()));
    }
    if reconcile::name_taken(&action.index_schema, &action.index_name)? {
        return Ok(Some(format!("the name {} is taken by another relation", action.index_name)));
    }
    Ok(None)
}

/// Why the statement must not be run as the table's owner: it would make him run code that is neither his nor a superuser's.
///
/// # Errors
/// When that cannot be told now.
fn unsafe_code(action: &Action, table: &Table) -> Result<Option<String>> {
    let found = indexstmt::resolve(&action.statement, table.owner(), Author::Others, PATH, guc::whatif_timeout());
    match found {
        Err(e) if e.kind == ErrorKind::Privilege => Ok(Some(e.to_string())),
        // The build says itself what is wrong with names, expressions and constants. Forms that cannot be looked through are not of our
        // making: an index that was there had them, and its owner made it.
        Err(e) if !["0A", "22", "42", "54"].contains(&&e.sqlstate()[..2]) => Err(e),
        _ => Ok(None),
    }
}

fn give_up(action: &Action, why: &str) -> Result<Option<Cleared>> {
    let failure = Failure::permanent(Error::new(ErrorKind::WrongObject, why));
    outcome::record(action, Event::Fail, None, Some(&failure), None)?;
    Ok(None)
}

fn block(action: &Action, why: &str, findings: Option<&serde_json::Value>) -> Result<Option<Cleared>> {
    action::postpone(action.id, BLOCKED_S, Some(why), findings)?;
    if action.state != State::Blocked {
        outcome::record_blocked(action, why)?;
    }
    Ok(None)
}
