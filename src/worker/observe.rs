//! observe: an index that somebody wants to be rid of is hidden first, and dropped only when nobody has missed it.
//!
//! The drop waits in state `observing`. When a query on the table becomes slower, as verify judges it, or when somebody shows the index,
//! the drop is called off and the index is back at once, without being built again.

use super::{flush, judge, outcome, trial};
use crate::apply::{self, Class, Failure, reconcile};
use crate::pg::error::{Error, Kind as ErrorKind, Result};
use crate::pg::{bgworker, catalog, database, role, time};
use crate::store::action::{self, Action, New};
use crate::store::{measure, protection, trial as rows};
use crate::{guc, worker};
use indexpilot_core::apply::{Event, Kind, State};
use indexpilot_core::guard::SKEW_S;
use indexpilot_core::verify::{Circumstances, Verdict, drift, look_number};
use pgrx::spi::quote_qualified_identifier;

/// Hides an index, to drop it when the time of observing is over; returns the number of the action.
pub fn retire(index: u32, reason: Option<&str>) -> Result<i64> {
    let Some(found) = reconcile::by_oid(index)? else {
        return Err(
            Error::new(ErrorKind::WrongObject, "the object is not an index").detail(format!("It is {}.", catalog::shown(index)?))
        );
    };
    let name = quote_qualified_identifier(&found.schema, &found.name);
    if let Some(why) = apply::drop::refusal(&found) {
        return Err(Error::new(ErrorKind::Prerequisite, format!("index \"{}\" must not be dropped", found.name))
            .detail(format!("The reason is that {why}.")));
    }
    if protection::is_protected(index)? {
        return Err(Error::new(ErrorKind::Prerequisite, format!("index \"{}\" is protected", found.name))
            .hint(format!("SELECT indexpilot.unprotect('{name}').")));
    }
    if let Some(drop) = action::drop_of(index)? {
        return Ok(drop.id);
    }
    // What was measured until now belongs to the time before.
    flush::flush(flush::PATIENCE)?;
    let cause = reason.unwrap_or("call");
    let id = action::enqueue(&New {
        kind: Kind::Drop,
        recommendation_id: None,
        reverts: None,
        table_id: found.table_id,
        table_schema: found.table_schema.clone(),
        table_name: found.table_name.clone(),
        index_schema: found.schema.clone(),
        index_name: found.name.clone(),
        index_id: Some(index),
        // What brings it back is carried out as any build of ours.
        definition: found.definition.replacen("CREATE INDEX ", "CREATE INDEX CONCURRENTLY ", 1),
        statement: apply::drop::statement(&found),
        cause: cause.into(),
        actor: role::session(),
        estimated_bytes: None,
    })?;
    action::observe(id, guc::apply_observe().as_secs_f64())?;
    trial::hide_before_drop(index, id, "observing", cause, &role::session())?;
    worker::wake_after_commit(database::current());
    Ok(id)
}

/// Looks at what is observed in this database; called by the worker outside a transaction, after it has flushed.
pub fn run() -> Result<()> {
    for action in bgworker::transaction("indexpilot: looking for hidden indexes", || action::in_states(&[State::Observing]))? {
        bgworker::transaction("indexpilot: observing", || look(&action))?;
    }
    Ok(())
}

fn look(action: &Action) -> Result<()> {
    let since = action.started_at.unwrap_or(action.queued_at);
    let index = action.index_id.map(reconcile::by_oid).transpose()?.flatten();
    // Rebuilt by a person it has another OID.
    let index = match index {
        None => reconcile::by_name(&action.index_schema, &action.index_name)?
            .filter(|i| i.table_id == action.table_id && i.is_made_by(&action.definition)),
        found => found,
    };
    let Some(index) = index else { return call_off(action, "the index does not exist any more") };
    if !trial::try_lock(index.oid) {
        return Ok(());
    }
    if rows::get(index.oid)?.is_none() {
        return call_off(action, "the index is not hidden any more");
    }
    let watched_s = time::now() - since;
    if watched_s < -SKEW_S {
        return call_off(action, "the clock was set back since the index was hidden, so nothing can be compared");
    }
    if guc::verify() {
        let seen = Circumstances {
            // From the first visit on: bringing it back costs nothing.
            look: look_number(watched_s, guc::verify_delay().as_secs_f64()).max(1),
            drift: drift(&measure::controls(action.id)?, guc::verify_min_calls()),
            ..Circumstances::after(watched_s)
        };
        let judgement = judge::weigh(action.id, &measure::around_action(action.id)?, &seen)?;
        if judgement.verdict == Verdict::Reverted {
            pgrx::log!("indexpilot: trial: index \"{}\" is missed: {}", action.index_name, judgement.reason);
            return call_off(action, &format!("the index is missed: {}", judgement.reason));
        }
    }
    if action::is_due(action.id)? {
        action::transition(action.id, State::Observing, Event::Release)?;
    }
    Ok(())
}

fn call_off(action: &Action, why: &str) -> Result<()> {
    let failure = Failure { error: Error::new(ErrorKind::Cancelled, why), class: Class::Cancelled };
    outcome::record(action, Event::Cancel, None, Some(&failure), None)
}
