//! verify: looks at every built index whose time has come, gives the verdict, and queues the drop of what did harm.

use crate::apply::reconcile;
use crate::pg::bgworker;
use crate::pg::error::Result;
use crate::pg::time;
use crate::store::action::{self, Action, NOBODY, New};
use crate::store::comparison;
use crate::store::log::{self, Mutation};
use crate::store::measure;
use crate::store::verification::{self, Verification};
use crate::worker::{canary, trial};
use crate::{guc, worker};
use indexpilot_core::apply::{Event, Kind, State};
use indexpilot_core::trial::Arm;
use indexpilot_core::verify::{Config, Judgement, Measured, Role, Verdict, judge};
use pgrx::spi::quote_qualified_identifier;
use serde_json::json;

/// Judges what is due in this database; called by the worker outside a transaction.
pub fn run() -> Result<()> {
    let watched =
        bgworker::transaction("indexpilot: looking for built indexes", || action::in_states(&[State::Built, State::Verifying]))?;
    for action in watched.iter().filter(|a| a.kind == Kind::Create) {
        bgworker::transaction("indexpilot: verifying", || look(action))?;
    }
    Ok(())
}

fn look(action: &Action) -> Result<()> {
    let canary = canary::of_action(action)?;
    if !guc::verify() {
        if let Some(canary) = canary {
            canary::finish(canary.id, "indexpilot.verify is off", None)?;
        }
        action::transition(action.id, action.state, Event::Keep)?;
        return Ok(());
    }
    if action.state == State::Built {
        action::transition(action.id, State::Built, Event::Watch)?;
        return Ok(());
    }
    let watched_s = time::now() - action.finished_at.unwrap_or_else(time::now);
    if watched_s < guc::verify_delay().as_secs_f64() {
        return Ok(());
    }
    let figures = match &canary {
        Some(canary) => beside_control(canary.id, action.id)?,
        None => measure::around_action(action.id)?,
    };
    let judgement = weigh(action.id, &figures, watched_s)?;
    match judgement.verdict {
        Verdict::Pending => Ok(()),
        Verdict::Kept | Verdict::Neutral => {
            if let Some(canary) = canary {
                canary::finish(canary.id, &format!("{}: {}", judgement.verdict.as_str(), judgement.reason), None)?;
            }
            keep(action, &judgement)
        }
        Verdict::Reverted => revert(action, &judgement),
    }
}

/// Of a canary, reads are compared with the transactions of the same time that do not see it. Every write maintains it, whoever sees it,
/// so writes are compared with those of before.
fn beside_control(trial_id: i64, action_id: i64) -> Result<Vec<Measured>> {
    let reads = comparison::measured(trial_id, Arm::A)?.into_iter().filter(|m| m.role != Role::Write);
    let writes = measure::around_action(action_id)?.into_iter().filter(|m| m.role == Role::Write);
    Ok(reads.chain(writes).collect())
}

/// The limits of verify, from the settings.
pub fn config() -> Config {
    Config {
        min_calls: guc::verify_min_calls(),
        max_regression: guc::verify_max_regression(),
        confidence: guc::verify_confidence(),
        timeout_s: guc::verify_timeout().as_secs_f64(),
    }
}

/// Judges an action by these figures, and writes down what they say.
pub fn weigh(action_id: i64, figures: &[Measured], watched_s: f64) -> Result<Judgement> {
    let judgement = judge(figures, watched_s, &config());
    verification::replace(action_id, &rows(action_id, &judgement))?;
    Ok(judgement)
}

fn keep(action: &Action, judgement: &Judgement) -> Result<()> {
    if action::transition(action.id, State::Verifying, Event::Keep)?.is_some() {
        log::append(&Mutation { mutation: "keep_index".into(), cause: judgement.reason.clone(), ..about(action, judgement) })?;
        pgrx::log!("indexpilot: verify: kept index \"{}\": {}", action.index_name, judgement.reason);
    }
    Ok(())
}

/// The index goes: it is hidden, and its drop is queued, in the same transaction as the verdict, so none of these can be lost without
/// the others. What it does to plans ends with the commit; the drop follows when the guard lets it.
fn revert(action: &Action, judgement: &Judgement) -> Result<()> {
    let found = reconcile::tagged(&action.tag)?.into_iter().find(|i| i.table_id == action.table_id);
    if found.as_ref().is_some_and(|i| !trial::try_lock(i.oid)) {
        // Somebody is showing or hiding it at this moment; the next visit judges again.
        return Ok(());
    }
    if action::transition(action.id, State::Verifying, Event::Revert)?.is_none() {
        return Ok(());
    }
    let index = quote_qualified_identifier(&action.index_schema, &action.index_name);
    let drop = action::enqueue(&New {
        kind: Kind::Drop,
        recommendation_id: None,
        reverts: Some(action.id),
        table_id: action.table_id,
        table_schema: action.table_schema.clone(),
        table_name: action.table_name.clone(),
        index_schema: action.index_schema.clone(),
        index_name: action.index_name.clone(),
        index_id: action.index_id,
        definition: action.definition.clone(),
        statement: format!("DROP INDEX CONCURRENTLY {index}"),
        cause: format!("verdict on action {}: {}", action.id, judgement.reason),
        actor: NOBODY.into(),
        estimated_bytes: None,
    })?;
    if let Some(found) = found {
        trial::hide_before_drop(found.oid, drop, "hidden", &format!("verdict: {}", judgement.reason), NOBODY)?;
    }
    log::append(&Mutation { mutation: "revert_index".into(), cause: judgement.reason.clone(), ..about(action, judgement) })?;
    pgrx::log!("indexpilot: verify: takes index \"{}\" back: {}", action.index_name, judgement.reason);
    worker::wake_after_commit(crate::pg::database::current());
    Ok(())
}

fn about(action: &Action, judgement: &Judgement) -> Mutation {
    Mutation {
        actor: NOBODY.into(),
        table_schema: Some(action.table_schema.clone()),
        table_name: Some(action.table_name.clone()),
        index_name: Some(action.index_name.clone()),
        action_id: Some(action.id),
        recommendation_id: action.recommendation_id,
        details: json!({ "saved_ms": judgement.saved_ms, "lost_ms": judgement.lost_ms }),
        ..Mutation::default()
    }
}

fn rows(action_id: i64, judgement: &Judgement) -> Vec<Verification> {
    let verdict = judgement.verdict.as_str();
    let (before, after) = judgement.rows.iter().fold((0, 0), |(b, a), r| (b + r.calls_before, a + r.calls_after));
    let summary = Verification {
        action_id,
        verdict: verdict.into(),
        reason: judgement.reason.clone(),
        workload_id: None,
        role: "summary".into(),
        calls_before: before,
        calls_after: after,
        mean_ms_before: None,
        mean_ms_after: None,
        p95_ms_before: None,
        p95_ms_after: None,
        change_ratio: None,
        p_value: None,
    };
    std::iter::once(summary)
        .chain(judgement.rows.iter().map(|r| Verification {
            action_id,
            verdict: verdict.into(),
            reason: serde_json::to_value(r.effect).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default(),
            workload_id: Some(r.workload_id),
            role: r.role.as_str().into(),
            calls_before: r.calls_before,
            calls_after: r.calls_after,
            mean_ms_before: r.mean_ms_before,
            mean_ms_after: r.mean_ms_after,
            p95_ms_before: r.p95_ms_before,
            p95_ms_after: r.p95_ms_after,
            change_ratio: r.change_ratio,
            p_value: r.p_value,
        }))
        .collect()
}
