//! verify: looks at every built index whose time has come, gives the verdict, and queues the drop of what did harm.

use crate::apply::reconcile;
use crate::pg::bgworker;
use crate::pg::error::Result;
use crate::pg::time;
use crate::store::action::{self, Action, NOBODY, New};
use crate::store::comparison;
use crate::store::log::{self, Mutation};
use crate::store::measure;
use crate::store::protection;
use crate::store::verification::{self, Begun, Found, Verification};
use crate::worker::{canary, trial};
use crate::{guc, worker};
use indexpilot_core::apply::{Event, Kind, State};
use indexpilot_core::guard::SKEW_S;
use indexpilot_core::trial::Arm;
use indexpilot_core::verify::{
    Circumstances, Config, Judgement, Measured, Role, Updates, Verdict, Window, drift, fails_more_elsewhere, judge, look_number,
    observation_s,
};
use pgrx::spi::quote_qualified_identifier;
use serde_json::json;

/// Judges what is due in this database; called by the worker outside a transaction.
pub fn run() -> Result<()> {
    let mut failed = None;
    // All of them are watched before any is judged, or an older one would answer for the youngest.
    for action in in_state(State::Built)? {
        bgworker::transaction("indexpilot: beginning to verify", || watch(&action))?;
    }
    let watched = in_state(State::Verifying)?;
    // The newest first: what began after all were built is its doing, if anybody's.
    for action in watched.iter().rev() {
        // What is wrong with one must not keep the others from their verdict.
        if let Err(e) = bgworker::transaction("indexpilot: verifying", || look(action)) {
            pgrx::warning!("indexpilot: verify: could not judge index \"{}\": {e}", action.index_name);
            failed = Some(e);
        }
    }
    failed.map_or(Ok(()), Err)
}

fn in_state(state: State) -> Result<Vec<Action>> {
    let all = bgworker::transaction("indexpilot: looking for built indexes", || action::in_states(&[state]))?;
    Ok(all.into_iter().filter(|a| a.kind == Kind::Create).collect())
}

fn watch(action: &Action) -> Result<()> {
    verification::begin(action.id, &verification::counters(action.table_id, action.index_id)?)?;
    action::transition(action.id, State::Built, Event::Watch)?;
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
    let Some(finished_at) = action.finished_at else { return Ok(()) };
    let watched_s = time::now() - finished_at;
    if watched_s < -SKEW_S {
        let reason = "the clock was set back since the index was built, so nothing can be compared".to_owned();
        if let Some(canary) = canary {
            canary::finish(canary.id, &reason, None)?;
        }
        return keep(action, &Judgement { verdict: Verdict::Neutral, reason, rows: Vec::new(), saved_ms: 0.0, lost_ms: 0.0 });
    }
    let begun = verification::begun(action.id)?;
    let look = look_number(watched_s, guc::verify_delay().as_secs_f64());
    let timeout_s = guc::verify_timeout().as_secs_f64();
    let out_of_time = watched_s >= timeout_s && begun.looked_at.is_none_or(|at| at - finished_at < timeout_s);
    if look <= begun.looks && !(out_of_time && look > 0) {
        return glance(action, canary.as_ref().map(|c| c.id), watched_s);
    }
    let judgement = look_at(action, canary.as_ref().map(|c| c.id), watched_s, look, &begun)?;
    match judgement.verdict {
        Verdict::Pending => Ok(()),
        Verdict::Kept | Verdict::Neutral => {
            if let Some(canary) = canary {
                canary::finish(canary.id, &format!("{}: {}", judgement.verdict.as_str(), judgement.reason), None)?;
            }
            keep(action, &judgement)
        }
        Verdict::Reverted => revert(action, canary.as_ref().map(|c| c.id), &judgement),
    }
}

/// Between two looks: an index that makes statements fail is not left to do so until the next.
fn glance(action: &Action, canary: Option<i64>, watched_s: f64) -> Result<()> {
    if !measure::failed_since(action.id)? {
        return Ok(());
    }
    let writes: Vec<Measured> = measure::around_action(action.id)?.into_iter().filter(|m| m.role == Role::Write).collect();
    let controls = measure::controls(action.id)?;
    let seen = Circumstances { look: 0, ..blame(action, &controls, Circumstances::after(watched_s))? };
    let judgement = judge(&writes, &seen, &config());
    if judgement.verdict == Verdict::Reverted {
        verification::replace(action.id, &rows(action.id, &judgement))?;
        revert(action, canary, &judgement)?;
    }
    Ok(())
}

/// Whether the index can be what makes statements fail.
fn blame(action: &Action, controls: &[(Window, Window)], seen: Circumstances) -> Result<Circumstances> {
    let writes_may_fail = action.index_id.map(measure::can_make_writes_fail).transpose()?.unwrap_or(true);
    Ok(Circumstances { writes_may_fail, all_fail: fails_more_elsewhere(controls), ..seen })
}

/// Compares what was measured before and after, in the light of what the server counted, and notes all of it.
fn look_at(action: &Action, canary: Option<i64>, watched_s: f64, look: u32, begun: &Begun) -> Result<Judgement> {
    let now = verification::counters(action.table_id, action.index_id)?;
    // Counters that went backwards were reset meanwhile, and say nothing.
    let since = |now: Option<u64>, begun: Option<u64>| now.zip(begun).and_then(|(now, begun)| now.checked_sub(begun));
    let updates = since(Some(now.updates), begun.updates_begun).zip(since(Some(now.hot_updates), begun.hot_updates_begun));
    let updates = updates.map(|(after, hot_after)| Updates {
        before: begun.updates_begun.unwrap_or(0),
        hot_before: begun.hot_updates_begun.unwrap_or(0),
        after,
        hot_after,
    });
    let min_calls = guc::verify_min_calls();
    let (least_s, most_s) = (guc::verify_delay().as_secs_f64(), guc::verify_timeout().as_secs_f64());
    let controls = measure::controls(action.id)?;
    let seen = Circumstances {
        observation_s: observation_s(&measure::rates(action.id)?, min_calls, least_s, most_s),
        look,
        scans: since(now.scans, begun.scans_begun),
        updates,
        drift: drift(&controls, min_calls),
        beside_control: canary.is_some(),
        ..blame(action, &controls, Circumstances::after(watched_s))?
    };
    let figures = match canary {
        Some(trial_id) => beside_control(trial_id, action.id)?,
        None => measure::around_action(action.id)?,
    };
    let judgement = weigh(action.id, &figures, &seen)?;
    let share = |hot: u64, all: u64| (all > 0).then(|| hot as f64 / all as f64);
    verification::looked(
        action.id,
        &Found {
            looks: look,
            observation_s: seen.observation_s,
            scans: seen.scans,
            updates: updates.map(|u| u.after),
            hot_share_before: updates.and_then(|u| share(u.hot_before, u.before)),
            hot_share_after: updates.and_then(|u| share(u.hot_after, u.after)),
            drift: seen.drift,
            saved_ms: judgement.saved_ms,
            lost_ms: judgement.lost_ms,
        },
    )?;
    Ok(judgement)
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
        max_hot_loss: guc::verify_max_hot_loss(),
        timeout_s: guc::verify_timeout().as_secs_f64(),
    }
}

/// Judges an action by these figures, and writes down what they say.
pub fn weigh(action_id: i64, figures: &[Measured], seen: &Circumstances) -> Result<Judgement> {
    let judgement = judge(figures, seen, &config());
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
fn revert(action: &Action, canary: Option<i64>, judgement: &Judgement) -> Result<()> {
    let found = reconcile::tagged(&action.tag)?.into_iter().find(|i| i.table_id == action.table_id);
    if let Some(found) = &found
        && protection::is_protected(found.oid)?
    {
        return spare(action, canary, judgement);
    }
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

/// Somebody protects the index: it stays as it is, and what it does is said aloud.
fn spare(action: &Action, canary: Option<i64>, judgement: &Judgement) -> Result<()> {
    let reason = format!("the index is protected, and stays though it does harm: {}", judgement.reason);
    let spared = Judgement { verdict: Verdict::Neutral, reason, ..judgement.clone() };
    verification::replace(action.id, &rows(action.id, &spared))?;
    if let Some(id) = canary {
        canary::finish(id, &spared.reason, None)?;
    }
    pgrx::warning!("indexpilot: verify: index \"{}\" does harm and is protected: {}", action.index_name, judgement.reason);
    keep(action, &spared)
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
