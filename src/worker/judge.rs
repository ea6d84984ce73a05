//! verify: looks at every built index whose time has come, gives the verdict, and queues the drop of what did harm.

use crate::pg::bgworker;
use crate::pg::error::Result;
use crate::pg::time;
use crate::store::action::{self, Action, NOBODY, New};
use crate::store::log::{self, Mutation};
use crate::store::measure;
use crate::store::verification::{self, Begun, Found, Verification};
use crate::{guc, worker};
use indexpilot_core::apply::{Event, Kind, State};
use indexpilot_core::guard::SKEW_S;
use indexpilot_core::verify::{Circumstances, Config, Judgement, Updates, Verdict, drift, judge, look_number, observation_s};
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
    if !guc::verify() {
        action::transition(action.id, action.state, Event::Keep)?;
        return Ok(());
    }
    if action.state == State::Built {
        verification::begin(action.id, &verification::counters(action.table_id, action.index_id)?)?;
        action::transition(action.id, State::Built, Event::Watch)?;
        return Ok(());
    }
    let Some(finished_at) = action.finished_at else { return Ok(()) };
    let watched_s = time::now() - finished_at;
    if watched_s < -SKEW_S {
        let reason = "the clock was set back since the index was built, so nothing can be compared".to_owned();
        return keep(action, &Judgement { verdict: Verdict::Neutral, reason, rows: Vec::new(), saved_ms: 0.0, lost_ms: 0.0 });
    }
    let begun = verification::begun(action.id)?;
    let look = look_number(watched_s, guc::verify_delay().as_secs_f64());
    let timeout_s = guc::verify_timeout().as_secs_f64();
    let out_of_time = watched_s >= timeout_s && begun.looked_at.is_none_or(|at| at - finished_at < timeout_s);
    if look <= begun.looks && !(out_of_time && look > 0) {
        return Ok(());
    }
    let judgement = look_at(action, watched_s, look, &begun)?;
    match judgement.verdict {
        Verdict::Pending => Ok(()),
        Verdict::Kept | Verdict::Neutral => keep(action, &judgement),
        Verdict::Reverted => revert(action, &judgement),
    }
}

/// Compares what was measured before and after, in the light of what the server counted, and notes all of it.
fn look_at(action: &Action, watched_s: f64, look: u32, begun: &Begun) -> Result<Judgement> {
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
    let seen = Circumstances {
        watched_s,
        observation_s: observation_s(&measure::rates(action.id)?, min_calls, least_s, most_s),
        look,
        scans: since(now.scans, begun.scans_begun),
        updates,
        drift: drift(&measure::controls(action.id)?, min_calls),
    };
    let judgement = compare(action.id, &seen)?;
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

/// Compares what was measured before and after an action, and writes it down.
fn compare(action_id: i64, seen: &Circumstances) -> Result<Judgement> {
    let config = Config {
        min_calls: guc::verify_min_calls(),
        max_regression: guc::verify_max_regression(),
        confidence: guc::verify_confidence(),
        max_hot_loss: guc::verify_max_hot_loss(),
        timeout_s: guc::verify_timeout().as_secs_f64(),
    };
    let judgement = judge(&measure::around_action(action_id)?, seen, &config);
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

/// The index goes: the drop is queued in the same transaction as the verdict, so neither can be lost without the other.
fn revert(action: &Action, judgement: &Judgement) -> Result<()> {
    if action::transition(action.id, State::Verifying, Event::Revert)?.is_none() {
        return Ok(());
    }
    let index = quote_qualified_identifier(&action.index_schema, &action.index_name);
    action::enqueue(&New {
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
