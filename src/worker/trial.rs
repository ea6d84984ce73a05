//! trial: hiding indexes from the planner and showing them again; and keeping shared memory, which the planner asks, to what the table
//! says.
//!
//! The row is the truth. Shared memory changes in the callback of the commit, under the same lock of the index that the transaction
//! holds until after the callbacks, so changes of one index reach it in the order of their commits; its file follows when the locks are
//! gone. What a crash between the commit and the file, a rebuild by a person or a restore puts out of step, the worker's next visit puts
//! right.

use crate::apply::reconcile;
use crate::pg::error::{Error, Kind, Result};
use crate::pg::lock::{self, Own};
use crate::pg::visibility::{self, Entry};
use crate::pg::{bgworker, catalog, database, indexes, role};
use crate::store::action::Action;
use crate::store::log::{self, Mutation};
use crate::store::trial::{self, Target, Terms, Trial};
use crate::store::{action, protection};
use crate::worker::{canary, decide, outcome};
use indexpilot_core::apply::{Event, State};
use indexpilot_core::trial::{Arm, Share};
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_qualified_identifier;
use serde_json::json;

/// Hides an index because somebody asked for it. `None` when it was hidden already.
pub fn hide(index: u32, reason: Option<&str>) -> Result<Option<i64>> {
    let target = lock_to_hide(index)?;
    let reason = reason.unwrap_or("call");
    match trial::get(index)? {
        Some(row) if !row.on_trial() => return Ok(None),
        Some(row) => leave_trial(&row, &format!("its index was hidden: {reason}"))?,
        None => {}
    }
    put(&target, "hidden", None, reason, &role::session()).map(Some)
}

/// The trial that an index is in is over, because something else becomes of the index.
fn leave_trial(row: &Trial, outcome: &str) -> Result<()> {
    row.trial_id.map_or(Ok(()), |id| canary::finish(id, outcome, Some(row.index_id)))
}

/// An index that may be hidden, locked as by [`lock_target`].
pub fn lock_to_hide(index: u32) -> Result<Target> {
    let target = lock_target(index)?;
    if let Some(detail) = &target.refused {
        let error = Error::new(Kind::WrongObject, format!("cannot hide index \"{}\"", target.index_name)).detail(detail);
        return Err(match target.partitioned {
            true => error.hint(format!(
                "SELECT indexpilot.hide_index(relid) FROM pg_partition_tree('{}') WHERE isleaf.",
                quote_qualified_identifier(&target.index_schema, &target.index_name)
            )),
            false => error,
        });
    }
    if protection::is_protected(index)? {
        let name = quote_qualified_identifier(&target.index_schema, &target.index_name);
        return Err(Error::new(Kind::Prerequisite, format!("index \"{}\" is protected", target.index_name))
            .hint(format!("SELECT indexpilot.unprotect('{name}').")));
    }
    Ok(target)
}

/// The index, locked so that it stays and that nobody else changes who sees it.
fn lock_target(index: u32) -> Result<Target> {
    let table = indexes::lock_table(index);
    lock::for_transaction(Own::Index(index));
    match (table, trial::target(index)?) {
        (Some(_), Some(target)) => Ok(target),
        _ => Err(Error::new(Kind::WrongObject, "the object is not an index").detail(format!("It is {}.", catalog::shown(index)?))),
    }
}

/// Hides the index and logs it.
pub fn put(target: &Target, state: &str, action_id: Option<i64>, reason: &str, actor: &str) -> Result<i64> {
    trial::put(target, &Terms::hidden(state, action_id, reason, actor))?;
    visibility::set(target.index_id, target.table_id, Share::HIDDEN, Arm::None)?;
    let name = quote_qualified_identifier(&target.index_schema, &target.index_name);
    log::append(&Mutation {
        mutation: "hide_index".into(),
        cause: reason.into(),
        actor: actor.into(),
        table_schema: Some(target.table_schema.clone()),
        table_name: Some(target.table_name.clone()),
        index_name: Some(target.index_name.clone()),
        action_id,
        undo: Some(format!("SELECT indexpilot.show_index('{name}')")),
        details: json!({ "index_schema": target.index_schema }),
        ..Mutation::default()
    })
}

/// Shows an index again because somebody asked for it; a drop that waits for its turn is called off. `None` when it was not hidden.
pub fn show(index: u32, reason: Option<&str>) -> Result<Option<i64>> {
    // The index itself may be gone.
    let _table = indexes::lock_table(index);
    lock::for_transaction(Own::Index(index));
    let Some(row) = trial::get(index)? else { return Ok(None) };
    let reason = reason.unwrap_or("call");
    let drop = match row.action_id {
        Some(id) => action::get(id)?,
        // It was hidden before somebody wanted it dropped.
        None => action::drop_of(index)?,
    };
    if let Some(drop) = &drop
        && decide::half_dropped(drop)?
    {
        return Err(decide::past_return(&row.index_name));
    }
    if let Some(drop) = drop.as_ref().filter(|d| d.state == State::Building) {
        return Err(Error::new(Kind::InUse, format!("index \"{}\" is being dropped", row.index_name))
            .hint(format!("SELECT indexpilot.cancel({}).", drop.id)));
    }
    leave_trial(&row, &format!("its index was shown to all: {reason}"))?;
    let mutation = reveal(&row, reason, &role::session())?;
    if let Some(drop) = drop.filter(|d| matches!(d.state, State::Queued | State::Observing | State::Blocked)) {
        outcome::record(&drop, Event::Cancel, None, None, None)?;
    }
    Ok(Some(mutation))
}

/// Takes the lock for a change of who sees the index, when nobody else has it. In the worker, which waits for no session.
pub fn try_lock(index: u32) -> bool {
    indexes::try_lock_table(index).is_some() && lock::try_for_transaction(Own::Index(index))
}

/// Hides an index that an action will drop, in the transaction that queues the action. One that is hidden already, or cannot be, is left
/// as it is.
pub fn hide_before_drop(index: u32, action_id: i64, state: &str, reason: &str, actor: &str) -> Result<()> {
    let target = lock_target(index)?;
    let row = trial::get(index)?;
    if let Some(row) = row.as_ref().filter(|r| r.on_trial()) {
        leave_trial(row, &format!("its index is to be dropped: {reason}"))?;
    }
    if target.refused.is_none() && row.is_none_or(|r| r.on_trial()) {
        put(&target, state, Some(action_id), reason, actor)?;
    }
    Ok(())
}

/// The drop of an index that was hidden for it will not come: the index is shown. In the transaction that records it.
pub fn drop_called_off(action: &Action) -> Result<()> {
    let Some(row) = trial::hidden_for(action.id)? else { return Ok(()) };
    if !lock::try_for_transaction(Own::Index(row.index_id)) {
        return Err(Error::new(Kind::InUse, format!("another session is hiding or showing index \"{}\"", row.index_name)));
    }
    reveal(&row, &format!("action {} was called off", action.id), &action.actor).map(|_| ())
}

/// Takes the row away and logs it.
fn reveal(row: &Trial, reason: &str, actor: &str) -> Result<i64> {
    trial::remove(row.index_id)?;
    visibility::clear(row.index_id, row.table_id)?;
    let name = quote_qualified_identifier(&row.index_schema, &row.index_name);
    log::append(&Mutation {
        mutation: "show_index".into(),
        cause: reason.into(),
        actor: actor.into(),
        table_schema: Some(row.table_schema.clone()),
        table_name: Some(row.table_name.clone()),
        index_name: Some(row.index_name.clone()),
        action_id: row.action_id,
        undo: Some(format!("SELECT indexpilot.hide_index('{name}')")),
        details: json!({ "index_schema": row.index_schema }),
        ..Mutation::default()
    })
}

/// Puts shared memory and its file right for this database. Called by the worker outside a transaction.
pub fn reconcile_all() -> Result<()> {
    let database = database::current();
    for index in bgworker::transaction("indexpilot: comparing hidden indexes", || differing(database))? {
        bgworker::transaction("indexpilot: putting a hidden index right", || mend(database, index))?;
    }
    if let Err(e) = visibility::persist() {
        pgrx::warning!("indexpilot: trial: could not write down which indexes are hidden: {e}");
    }
    Ok(())
}

/// Indexes for which row, catalog and shared memory do not say the same. In a transaction.
pub fn differing(database: Oid) -> Result<Vec<u32>> {
    let (rows, entries) = (trial::all()?, visibility::entries(database));
    let entry = |index: u32| entries.iter().find(|e| e.index == index);
    let odd = rows.iter().filter(|r| r.lives_as != Some(r.index_id) || !as_in_row(entry(r.index_id), r));
    let lost = entries.iter().filter(|e| rows.iter().all(|r| r.index_id != e.index));
    Ok(odd.map(|r| r.index_id).chain(lost.map(|e: &Entry| e.index)).collect())
}

/// Shared memory says what the row says.
fn as_in_row(entry: Option<&Entry>, row: &Trial) -> bool {
    entry.is_some_and(|e| (e.share, e.arm) == (row.share(), row.arm()))
}

/// Looks again under the lock of the index; whoever holds that is changing it, and the next visit looks again.
fn mend(database: Oid, index: u32) -> Result<()> {
    let table = indexes::try_lock_table(index);
    if !lock::try_for_transaction(Own::Index(index)) {
        return Ok(());
    }
    let entry = visibility::entries(database).into_iter().find(|e| e.index == index);
    match (trial::get(index)?, entry) {
        (Some(row), entry) => match row.lives_as {
            Some(same) if same == index => match table {
                Some(table) if !as_in_row(entry.as_ref(), &row) => visibility::set(index, table, row.share(), row.arm()),
                _ => Ok(()),
            },
            Some(other) => follow(&row, other),
            None => forget(&row),
        },
        (None, Some(entry)) => visibility::clear(index, entry.table),
        (None, None) => Ok(()),
    }
}

/// The index was rebuilt. In a transaction.
fn follow(row: &Trial, to: u32) -> Result<()> {
    let Some(table) = indexes::try_lock_table(to).filter(|_| lock::try_for_transaction(Own::Index(to))) else { return Ok(()) };
    trial::follow(row.index_id, to)?;
    visibility::set(to, table, row.share(), row.arm())?;
    visibility::clear(row.index_id, row.table_id)
}

/// The index is gone. In a transaction.
fn forget(row: &Trial) -> Result<()> {
    leave_trial(row, "its index is gone")?;
    trial::remove(row.index_id)?;
    visibility::clear(row.index_id, row.table_id)
}

/// An action on an index has ended: a rebuilt one stays hidden under its new OID, one that was dropped is forgotten. In the transaction
/// that records it.
pub fn action_ended(action: &Action, now: Option<&reconcile::Index>) -> Result<()> {
    for row in trial::all()?.iter().filter(|r| Some(r.index_id) == action.index_id || r.action_id == Some(action.id)) {
        match now {
            Some(now) if now.oid != row.index_id => follow(row, now.oid)?,
            Some(_) => {}
            None => forget(row)?,
        }
    }
    Ok(())
}
