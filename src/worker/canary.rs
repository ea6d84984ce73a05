//! Trials that are measured: a newly built index that a share of the transactions sees at first, and two indexes beside one another.
//!
//! All arms run at the same time, so neither the hour nor the growth of the data can be taken for the work of an index, as it can when
//! what was measured before is compared with what came after.

use super::{flush, trial};
use crate::apply::reconcile::Index;
use crate::guc;
use crate::pg::error::{Error, Kind, Result};
use crate::pg::{role, visibility};
use crate::store::action::Action;
use crate::store::comparison::{self, Comparison};
use crate::store::log::{self, Mutation};
use crate::store::trial::{self as rows, Target, Terms};
use indexpilot_core::apply::Kind as ActionKind;
use indexpilot_core::trial::Arm;
use indexpilot_core::verify::{Circumstances, Config, Effect, judge};
use serde_json::json;

/// Kind of a trial whose index was just built.
const CANARY: &str = "canary";

/// The index of an action was built: at first only a share of the transactions sees it. Nothing happens when it is on trial already, or
/// when a comparison runs. In a transaction.
pub fn begin(action: &Action, index: &Index) -> Result<()> {
    let percent = guc::apply_canary_percent();
    if action.kind != ActionKind::Create || percent >= 100.0 || !guc::verify() || comparison::of_action(action.id)?.is_some() {
        return Ok(());
    }
    let running = comparison::running()?;
    if running.iter().any(|t| t.kind != CANARY) || !trial::try_lock(index.oid) {
        return Ok(());
    }
    let Some(target) = rows::target(index.oid)?.filter(|t| t.refused.is_none()) else { return Ok(()) };
    if rows::get(index.oid)?.is_some() {
        return Ok(());
    }
    if !visibility::has_room() {
        pgrx::warning!(
            "indexpilot: trial: as many indexes are hidden as can be, so index \"{}\" is seen by all",
            target.index_name
        );
        return Ok(());
    }
    // Those that run at a time share the arms.
    let percent = running.first().map_or(percent, |t| t.percent);
    let id = comparison::begin(&target, None, CANARY, percent, Some(action.id), &action.actor)?;
    show_to(&target, Arm::A, percent, id, &format!("canary of action {}", action.id), &action.actor)?;
    pgrx::log!("indexpilot: trial: index \"{}\" is seen by {percent} % of the transactions", target.index_name);
    Ok(())
}

fn show_to(target: &Target, arm: Arm, percent: f64, trial_id: i64, reason: &str, actor: &str) -> Result<()> {
    let share = arm.share(percent);
    rows::put(target, &Terms { state: "trial", share, arm, trial_id: Some(trial_id), action_id: None, reason, actor })?;
    visibility::set(target.index_id, target.table_id, share, arm)
}

/// The trial of an action's index, while it runs.
pub fn of_action(action: &Action) -> Result<Option<Comparison>> {
    Ok(comparison::of_action(action.id)?.filter(|t| !t.ended))
}

/// The trial is over, and everybody sees its indexes, but for one that somebody else decides about. In a transaction.
pub fn finish(id: i64, outcome: &str, but: Option<u32>) -> Result<()> {
    comparison::end(id, outcome)?;
    for row in rows::all()?.iter().filter(|r| r.trial_id == Some(id) && Some(r.index_id) != but) {
        rows::remove(row.index_id)?;
        visibility::clear(row.index_id, row.table_id)?;
    }
    Ok(())
}

/// Compares two indexes of a table, or one with none, because somebody asked for it.
pub fn start(a: u32, b: Option<u32>, percent: f64) -> Result<i64> {
    let most = if b.is_some() { 50.0 } else { 100.0 };
    if !(percent > 0.0 && percent <= most) {
        return Err(Error::new(Kind::InvalidParameter, format!("percent must be greater than 0 and at most {most}"))
            .detail(format!("The value given is {percent}; each index has that share of the transactions.")));
    }
    let mut indexes: Vec<u32> = std::iter::once(a).chain(b).collect();
    // Always in the same order, so that two who do this do not wait for one another.
    indexes.sort_unstable();
    indexes.dedup();
    let targets = indexes.into_iter().map(trial::lock_to_hide).collect::<Result<Vec<Target>>>()?;
    let find = |index: u32| targets.iter().find(|t| t.index_id == index);
    let (Some(first), second) = (find(a), b.and_then(find)) else { return Err(Error::internal("the index vanished")) };
    if b == Some(a) || second.is_some_and(|s| s.table_id != first.table_id) {
        return Err(Error::new(Kind::InvalidParameter, "a trial compares two indexes of one table"));
    }
    if let Some(other) = comparison::running()?.first() {
        return Err(Error::new(Kind::InUse, format!("trial {} is running", other.id))
            .detail("The transactions of a database can be divided in one way at a time.")
            .hint(format!("SELECT indexpilot.end_trial({}).", other.id)));
    }
    for target in &targets {
        if rows::get(target.index_id)?.is_some_and(|r| r.action_id.is_some()) {
            return Err(Error::new(Kind::InUse, format!("index \"{}\" is about to be dropped", target.index_name))
                .hint("SELECT index_name, action_id FROM indexpilot.hidden_indexes; then cancel() the action."));
        }
    }
    let actor = role::session();
    let id = comparison::begin(first, second, "compare", percent, None, &actor)?;
    let reason = format!("trial {id}");
    show_to(first, Arm::A, percent, id, &reason, &actor)?;
    if let Some(second) = second {
        show_to(second, Arm::B, percent, id, &reason, &actor)?;
    }
    note("start_trial", id, &first.table_schema, &first.table_name, json!({ "trial": id, "percent": percent }))?;
    Ok(id)
}

fn note(mutation: &str, id: i64, schema: &str, table: &str, details: serde_json::Value) -> Result<()> {
    log::append(&Mutation {
        mutation: mutation.into(),
        cause: format!("trial {id}"),
        table_schema: Some(schema.into()),
        table_name: Some(table.into()),
        details,
        ..Mutation::default()
    })
    .map(drop)
}

/// Ends a trial because somebody asked for it; `keep` says which indexes everybody sees from now on.
pub fn end(id: i64, keep: &str) -> Result<()> {
    let kept: &[Arm] = match keep {
        "a" => &[Arm::A],
        "b" => &[Arm::B],
        "both" => &[Arm::A, Arm::B],
        "none" => &[],
        _ => {
            return Err(Error::new(Kind::InvalidParameter, "keep must be a, b, both or none")
                .detail(format!("The value given is \"{keep}\".")));
        }
    };
    let found = known(id)?;
    if found.ended {
        return Err(Error::new(Kind::Prerequisite, format!("trial {id} is over already")));
    }
    // What was measured until now belongs to the trial.
    flush::flush(flush::PATIENCE)?;
    let (mut schema, mut table) = (String::new(), String::new());
    let all: Vec<rows::Trial> = rows::all()?.into_iter().filter(|r| r.trial_id == Some(id)).collect();
    for row in &all {
        let target = trial::lock_to_hide(row.index_id)?;
        if kept.contains(&row.arm()) {
            rows::remove(row.index_id)?;
            visibility::clear(row.index_id, row.table_id)?;
        } else {
            trial::put(&target, "hidden", None, &format!("trial {id} did not keep it"), &role::session())?;
        }
        (schema, table) = (target.table_schema, target.table_name);
    }
    comparison::end(id, &format!("ended by {}, keeping {keep}", role::session()))?;
    note("end_trial", id, &schema, &table, json!({ "trial": id, "keep": keep }))
}

fn known(id: i64) -> Result<Comparison> {
    comparison::get(id)?.ok_or_else(|| {
        Error::new(Kind::UndefinedObject, format!("trial {id} does not exist")).hint("SELECT * FROM indexpilot.trials.")
    })
}

/// A query in one arm beside the control.
pub struct Line {
    pub workload_id: i64,
    pub query: Option<String>,
    pub arm: Arm,
    pub calls: [u64; 2],
    pub mean_ms: [Option<f64>; 2],
    pub p95_ms: [Option<f64>; 2],
    pub change_ratio: Option<f64>,
    pub p_value: Option<f64>,
    pub effect: Effect,
}

/// What was measured in a trial.
pub fn report(id: i64, config: &Config) -> Result<Vec<Line>> {
    known(id)?;
    let mut lines = Vec::new();
    for arm in [Arm::A, Arm::B] {
        let measured = comparison::measured(id, arm)?;
        for row in judge(&measured, &Circumstances::after(0.0), config).rows.into_iter().filter(|r| r.calls_after > 0) {
            lines.push(Line {
                workload_id: row.workload_id,
                query: comparison::query(row.workload_id)?,
                arm,
                calls: [row.calls_before, row.calls_after],
                mean_ms: [row.mean_ms_before, row.mean_ms_after],
                p95_ms: [row.p95_ms_before, row.p95_ms_after],
                change_ratio: row.change_ratio,
                p_value: row.p_value,
                effect: row.effect,
            });
        }
    }
    Ok(lines)
}
