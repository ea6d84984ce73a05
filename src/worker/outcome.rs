//! What became of an action: compares its row with the catalog, removes what is left over, then changes the row and the log in one
//! transaction. The same steps follow an attempt of this process and the death of another one.

use super::builder::MAX_ATTEMPTS;
use super::{canary, command, state, trial};
use crate::apply::reconcile::{self, Index};
use crate::apply::{self, Class, Failure};
use crate::pg::bgworker::{self, transaction};
use crate::pg::error::{Error, Kind as ErrorKind, Result};
use crate::pg::{database as databases, spi};
use crate::store::action::{self, Action};
use crate::store::guard as noted;
use crate::store::log::{self, Mutation};
use crate::store::{managed, verification};
use indexpilot_core::apply::{Event, Kind, OnDisk, State, Step, backoff_s};
use indexpilot_core::profile::quotes_no_values;
use serde_json::{Value, json};

/// Seconds until a removal that failed is tried again.
const REMOVE_AGAIN_S: f64 = 60.0;
/// Removals in a row: a rebuild can leave a copy, and a second look must find nothing.
const MAX_REMOVALS: usize = 8;

/// What this process did.
pub struct Attempt {
    pub result: std::result::Result<(), Failure>,
    pub seconds: f64,
}

/// What the catalog says of the action's index.
struct Look {
    on_disk: OnDisk,
    index: Option<Index>,
    /// To be removed before anything else.
    remains: Vec<Index>,
}

/// Brings a running action to its next state. `attempt` is `None` when the process that ran it died.
pub fn conclude(action: &Action, attempt: Option<Attempt>) -> Result<()> {
    let seconds = attempt.as_ref().map(|a| a.seconds);
    let mut failure = match attempt {
        Some(Attempt { result: Err(failure), .. }) => Some(failure),
        Some(_) => None,
        None => Some(Failure {
            error: Error::new(ErrorKind::Cancelled, "the process that carried it out ended before it was done"),
            class: Class::Transient,
        }),
    };
    // What the guard had interrupted is no fault of the action: it is queued again, and the attempt does not count.
    let cancelled = failure.as_ref().is_some_and(|f| f.class == Class::Cancelled);
    let (stop, stops) = transaction("indexpilot: looking for the guard's wishes", || {
        let stop = if cancelled { noted::stop_of(action.id, action.attempts)? } else { None };
        Ok((stop, noted::stops(action.id)?))
    })?;
    let attempts = action.attempts.saturating_sub(stops).max(1);
    for _ in 0..MAX_REMOVALS {
        let look = transaction("indexpilot: comparing an action with the catalog", || look(action))?;
        let step = indexpilot_core::apply::reconcile(action.kind, action.state, look.on_disk, attempts, MAX_ATTEMPTS);
        let event = match step {
            Step::Nothing | Step::Remove => return Ok(()),
            Step::Record(event) | Step::RemoveThen(event) => event,
        };
        if look.remains.is_empty() {
            if failure.is_none() && matches!(event, Event::Retry | Event::Fail) {
                let message = "the command ended without an error, but the index is not as it should be";
                failure = Some(Failure { error: Error::internal(message), class: Class::Transient });
            }
            if let (Some(stop), Event::Retry | Event::Fail) = (&stop, event) {
                return transaction("indexpilot: postponing an action", || defer(action, stop, seconds));
            }
            let half_dropped = action.kind == Kind::Drop && look.on_disk == OnDisk::Invalid;
            let event = if half_dropped { event } else { by_class(event, failure.as_ref()) };
            let analyzed = match (event, &look.index) {
                (Event::Built, Some(index)) => analyze(index)?,
                _ => None,
            };
            return transaction("indexpilot: recording the outcome of an action", || {
                if let Some(statement) = analyzed {
                    log::append(&Mutation { details: json!({ "statement": statement }), ..about(action, "analyze_table") })?;
                }
                record(action, event, look.index.as_ref(), failure.as_ref(), seconds)
            });
        }
        for index in &look.remains {
            if index.table_id != action.table_id {
                let error = Error::new(ErrorKind::WrongObject, "another table had taken the name, and was indexed in its place");
                failure = Some(Failure::permanent(error));
            }
            if let Err(stuck) = command(|| apply::drop::remove(index)) {
                pgrx::warning!(
                    "indexpilot: apply: could not remove what action {} left, index {}.{}: {}; trying again later",
                    action.id,
                    index.schema,
                    index.name,
                    stuck.error
                );
                return transaction("indexpilot: postponing a removal", || {
                    action::set_error(action.id, &stuck.error.sqlstate(), &stuck.error.message)?;
                    action::postpone(action.id, REMOVE_AGAIN_S, None, None)
                });
            }
            transaction("indexpilot: logging", || log_removal(Some(action), index, &reason(failure.as_ref())))?;
        }
    }
    Err(Error::internal(format!("what action {} left cannot be removed", action.id)))
}

/// Analyses the table when the planner knows nothing of the new index's expressions, and returns the statement that did. The index is
/// built whether that works or not.
fn analyze(index: &Index) -> Result<Option<String>> {
    if !transaction("indexpilot: looking for statistics", || reconcile::lacks_statistics(index.oid))? {
        return Ok(None);
    }
    match command(|| apply::analyze::table_of(index)) {
        Ok(()) => Ok(Some(apply::analyze::statement(index))),
        Err(failure) => {
            let table = format!("{}.{}", index.table_schema, index.table_name);
            pgrx::warning!("indexpilot: apply: could not analyze table {table} after building {}: {}", index.name, failure.error);
            Ok(None)
        }
    }
}

/// Notes what became of indexes of ours that somebody else has dropped; called by the worker outside a transaction.
pub fn follow() -> Result<()> {
    for action in transaction("indexpilot: looking for dropped indexes", action::vanished)? {
        transaction("indexpilot: noting a dropped index", || {
            let like_it = |i: &Index| i.table_id == action.table_id && i.is_made_by(&action.definition);
            if reconcile::by_name(&action.index_schema, &action.index_name)?.is_some_and(|i| like_it(&i))
                || action::transition(action.id, action.state, Event::Revert)?.is_none()
            {
                return Ok(());
            }
            let cause = "somebody else dropped it";
            managed::dropped(&action.tag, cause)?;
            log::append(&Mutation {
                cause: cause.to_owned(),
                actor: action::NOBODY.to_owned(),
                before: Some(json!({ "definition": action.definition })),
                undo: Some(action.definition.clone()),
                ..about(&action, "drop_index")
            })?;
            pgrx::log!("indexpilot: apply: index {}.{} is gone: {cause}", action.index_schema, action.index_name);
            Ok(())
        })?;
    }
    Ok(())
}

/// The kind of failure decides whether another attempt makes sense.
fn by_class(event: Event, failure: Option<&Failure>) -> Event {
    match (event, failure.map(|f| f.class)) {
        (Event::Retry | Event::Fail, Some(Class::Privilege)) => Event::Block,
        (Event::Retry | Event::Fail, Some(Class::Cancelled)) => Event::Cancel,
        (Event::Retry, Some(Class::Permanent)) => Event::Fail,
        _ => event,
    }
}

/// For others to read.
fn reason(failure: Option<&Failure>) -> String {
    match failure.map(|f| &f.error) {
        None => "it was left unusable".to_owned(),
        Some(e) if quotes_no_values(&e.sqlstate()) => e.to_string(),
        Some(e) => format!("{}: {}", e.sqlstate(), action::NOT_KEPT),
    }
}

/// In a transaction.
fn look(action: &Action) -> Result<Look> {
    match action.kind {
        Kind::Create => {
            let mut found = reconcile::tagged(&action.tag)?;
            // CREATE TABLE ... LIKE copies comments, also of an index that is not finished.
            found.retain(|i| i.table_id == action.table_id || !i.valid);
            if found.len() > 1 {
                // Somebody copied the comment, which must not make us take another index for ours.
                found.retain(|i| i.name == action.index_name);
            }
            let (good, ours): (Vec<Index>, Vec<Index>) = found.into_iter().partition(|i| i.valid && i.table_id == action.table_id);
            let on_disk = match (good.is_empty(), ours.is_empty()) {
                (false, _) => OnDisk::Valid,
                (true, false) => OnDisk::Invalid,
                (true, true) => OnDisk::Absent,
            };
            let remains = if on_disk == OnDisk::Invalid { ours } else { Vec::new() };
            Ok(Look { on_disk, index: good.into_iter().next(), remains })
        }
        Kind::Drop => {
            let index = match action.index_id {
                Some(oid) => reconcile::by_oid(oid)?.filter(|i| i.table_id == action.table_id),
                None => None,
            };
            let on_disk = match &index {
                None => OnDisk::Absent,
                Some(i) if i.valid => OnDisk::Valid,
                Some(_) => OnDisk::Invalid,
            };
            Ok(Look { on_disk, index, remains: Vec::new() })
        }
        Kind::Reindex => {
            let index = reconcile::by_name(&action.index_schema, &action.index_name)?.filter(|i| i.table_id == action.table_id);
            let remains = reconcile::copies(action.table_id, &action.index_schema, &action.index_name)?;
            // The swap takes its validity from the old one, before that goes. One that is valid was renamed by somebody.
            let old = action.index_id.map(reconcile::by_oid).transpose()?.flatten();
            let replaced =
                index.as_ref().is_some_and(|i| i.valid && Some(i.oid) != action.index_id) && old.is_none_or(|old| !old.valid);
            let on_disk = match (replaced, remains.is_empty()) {
                (true, _) => OnDisk::Valid,
                (false, false) => OnDisk::Invalid,
                (false, true) => OnDisk::Absent,
            };
            Ok(Look { on_disk, index, remains })
        }
    }
}

/// Changes the row, the registry and the log together. In a transaction.
pub fn record(action: &Action, event: Event, index: Option<&Index>, failure: Option<&Failure>, seconds: Option<f64>) -> Result<()> {
    let again = backoff_s(action.attempts);
    match event {
        Event::Retry => action::postpone(action.id, again, None, None)?,
        Event::Block => action::postpone(action.id, again, Some(&reason(failure)), None)?,
        _ => {}
    }
    if let (Some(failure), true) = (failure, event != Event::Built && event != Event::Done) {
        action::set_error(action.id, &failure.error.sqlstate(), &failure.error.message)?;
    }
    if action::transition(action.id, action.state, event)?.is_none() {
        return Err(Error::new(ErrorKind::InUse, format!("action {} was changed by somebody else", action.id)));
    }
    let mutation = match (event, action.kind) {
        (Event::Built, _) => "create_index",
        (Event::Done, Kind::Reindex) => "reindex_index",
        (Event::Done, _) => "drop_index",
        (Event::Retry, _) => "action_retried",
        (Event::Block, _) => "action_blocked",
        (Event::Cancel, _) => "action_cancelled",
        _ => "action_failed",
    };
    let mut undo = None;
    match (event, action.kind) {
        (Event::Built, _) => {
            managed::add(action)?;
            if let Some(index) = index {
                canary::begin(action, index)?;
                verification::begin(action.id, &verification::counters(action.table_id, Some(index.oid))?)?;
            }
            undo = index.map(apply::drop::statement);
        }
        (Event::Done, Kind::Drop) => {
            let tag = match action.reverts {
                Some(id) => action::get(id)?.map(|reverted| reverted.tag),
                None => None,
            };
            if let Some(ours) = managed::find(tag.as_deref(), &action.index_schema, &action.index_name)? {
                managed::dropped(&ours, &action.cause)?;
            }
            if let Some(id) = action.reverts {
                take_back(id)?;
            }
            undo = Some(action.definition.clone());
        }
        _ => {}
    }
    if matches!(event, Event::Built | Event::Done) {
        if let Some(index) = index.filter(|_| action.kind != Kind::Drop) {
            action::set_index(action.id, index.oid, index.bytes)?;
        }
        action::cut_measurements(action.id)?;
    }
    let permanent = failure.is_some_and(|f| f.class == Class::Permanent);
    match event {
        Event::Done => trial::action_ended(action, index.filter(|_| action.kind != Kind::Drop))?,
        // A drop that cannot get its locks may have taken back harm, which must not come back; others are over.
        Event::Cancel => trial::drop_called_off(action)?,
        Event::Fail if permanent => trial::drop_called_off(action)?,
        _ => {}
    }
    let bytes = index.map(|i| i.bytes);
    let shown = failure.map(|f| &f.error).filter(|e| quotes_no_values(&e.sqlstate()));
    log::append(&Mutation {
        undo,
        after: (event == Event::Built).then(|| json!({ "definition": action.definition, "bytes": bytes })),
        before: (mutation == "drop_index").then(|| json!({ "definition": action.definition })),
        details: json!({
            "attempt": action.attempts,
            "seconds": seconds,
            "bytes": bytes,
            "sqlstate": failure.map(|f| f.error.sqlstate()),
            "message": shown.map(|e| &e.message),
            "detail": shown.and_then(|e| e.detail.as_ref()),
            "retry_in_s": (event == Event::Retry).then_some(again),
        }),
        ..about(action, mutation)
    })?;
    report(action, event, failure, seconds);
    Ok(())
}

/// The guard had the attempt interrupted; the next one is later each time. In a transaction.
fn defer(action: &Action, stop: &noted::Stop, seconds: Option<f64>) -> Result<()> {
    let again = backoff_s(stop.stops);
    let why = format!("{}: {}", stop.rule, stop.detail);
    if action::transition(action.id, action.state, Event::Retry)?.is_none() {
        return Err(Error::new(ErrorKind::InUse, format!("action {} was changed by somebody else", action.id)));
    }
    action::postpone(action.id, again, Some(&why), None)?;
    noted::count_stop(action.id, stop)?;
    let details = json!({ "attempt": action.attempts, "seconds": seconds, "reason": why, "retry_in_s": again });
    log::append(&Mutation { details, ..about(action, "action_interrupted") })?;
    pgrx::log!("indexpilot: guard: action {} was interrupted and is tried again in {again:.0} s: {why}", action.id);
    Ok(())
}

/// The action is blocked; the row has the reason already. In a transaction.
pub fn record_blocked(action: &Action, why: &str) -> Result<()> {
    action::transition(action.id, action.state, Event::Block)?;
    log::append(&Mutation { details: json!({ "reason": why }), ..about(action, "action_blocked") })?;
    pgrx::log!("indexpilot: apply: action {} is blocked: {why}", action.id);
    Ok(())
}

/// The action is called off before it has begun. In a transaction.
pub fn call_off(action: &Action, why: &str) -> Result<()> {
    action::set_error(action.id, &Error::new(ErrorKind::Prerequisite, why).sqlstate(), why)?;
    action::transition(action.id, action.state, Event::Cancel)?;
    log::append(&Mutation { details: json!({ "reason": why }), ..about(action, "action_cancelled") })?;
    pgrx::log!("indexpilot: apply: action {} is called off: {why}", action.id);
    Ok(())
}

/// The create action whose index was dropped.
fn take_back(id: i64) -> Result<()> {
    if let Some(reverted) = action::get(id)?
        && matches!(reverted.state, State::Built | State::Verifying | State::Kept)
    {
        action::transition(id, reverted.state, Event::Revert)?;
    }
    Ok(())
}

fn about(action: &Action, mutation: &str) -> Mutation {
    Mutation {
        mutation: mutation.to_owned(),
        cause: action.cause.clone(),
        actor: action.actor.clone(),
        table_schema: Some(action.table_schema.clone()),
        table_name: Some(action.table_name.clone()),
        index_name: Some(action.index_name.clone()),
        action_id: Some(action.id),
        recommendation_id: action.recommendation_id,
        details: Value::Null,
        ..Mutation::default()
    }
}

fn report(action: &Action, event: Event, failure: Option<&Failure>, seconds: Option<f64>) {
    let what = match event {
        Event::Built => "built",
        Event::Done => "done",
        Event::Retry => "failed and will be tried again",
        Event::Block => "blocked",
        Event::Cancel => "cancelled",
        _ => "failed",
    };
    let index = format!("{}.{}", action.index_schema, action.index_name);
    match failure.filter(|_| !matches!(event, Event::Built | Event::Done)) {
        Some(failure) => {
            pgrx::log!("indexpilot: apply: action {}, {} of {index}: {what}: {}", action.id, action.kind.as_str(), failure.error)
        }
        None => pgrx::log!(
            "indexpilot: apply: action {}, {} of {index}: {what}{}",
            action.id,
            action.kind.as_str(),
            seconds.map_or_else(String::new, |s| format!(" in {s:.1} s"))
        ),
    }
}

/// Logs that an unusable index of ours was removed. In a transaction.
pub fn log_removal(action: Option<&Action>, index: &Index, why: &str) -> Result<()> {
    pgrx::log!("indexpilot: apply: removed the unusable index {}.{}: {why}", index.schema, index.name);
    log::append(&Mutation {
        mutation: "remove_unusable_index".to_owned(),
        cause: why.to_owned(),
        actor: action.map_or_else(|| action::NOBODY.to_owned(), |a| a.actor.clone()),
        table_schema: Some(index.table_schema.clone()),
        table_name: Some(index.table_name.clone()),
        index_name: Some(index.name.clone()),
        action_id: action.map(|a| a.id),
        before: Some(json!({ "definition": index.definition, "tag": index.tag })),
        details: Value::Null,
        ..Mutation::default()
    })?;
    Ok(())
}

/// A builder with that process id works in this database. This process is not meant.
pub fn process_lives(pid: Option<i32>) -> Result<bool> {
    let Some(pid) = pid.filter(|pid| *pid != bgworker::pid()) else { return Ok(false) };
    transaction("indexpilot: looking for a process", || {
        let sql = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = ($1->>'pid')::integer \
                   AND datname = current_database() AND backend_type = 'indexpilot builder') AS lives";
        Ok(spi::value(sql, json!({ "pid": pid }))?.unwrap_or(false))
    })
}

/// Interrupts the builder with that process id while it builds, and not while it records what it built. In a transaction.
pub fn interrupt_build(pid: Option<i32>) -> Result<bool> {
    let sql = "SELECT pg_cancel_backend(p.pid) AS sent FROM pg_stat_progress_create_index p JOIN pg_stat_activity a ON a.pid = p.pid \
               WHERE p.pid = ($1->>'pid')::integer AND p.datname = current_database() AND a.backend_type = 'indexpilot builder'";
    Ok(spi::value(sql, json!({ "pid": pid }))?.unwrap_or(false))
}

/// Interrupts the command of an action; the builder concludes it itself, and is not interrupted in that. `false` when the command does
/// not run. In a transaction.
pub fn interrupt(action: &Action) -> Result<bool> {
    if !state::is_running(databases::current(), action.id) {
        return Ok(false);
    }
    let sql = "SELECT pg_cancel_backend(a.pid) AS sent FROM pg_stat_activity a WHERE a.pid = ($1->>'pid')::integer \
               AND a.datname = current_database() AND a.backend_type = 'indexpilot builder'";
    Ok(spi::value(sql, json!({ "pid": action.worker_pid }))?.unwrap_or(false))
}
