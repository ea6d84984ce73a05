//! Decisions on partitioned tables. Each is carried out as an action on every partition: the server builds no index of a partitioned
//! table concurrently, and what is attached to one can be dropped no more without locking all of it. What was done is in the rows, so
//! whoever dies in the middle leaves the rest queued; partitions that come later are found by the worker.

use super::outcome;
use crate::apply::facts::{self, Part};
use crate::apply::reconcile;
use crate::guc;
use crate::pg::bgworker::transaction;
use crate::pg::error::{Error, Result};
use crate::pg::spi::SettingScope;
use crate::store::action::{self, Action, NOBODY, New};
use crate::store::analysis::{self, Recommendation};
use indexpilot_core::apply::{Kind, State};
use indexpilot_core::ddl::Partitioned;
use pgrx::spi::quote_identifier;
use std::collections::BTreeSet;

/// SQLSTATE of a wait for a lock that took too long.
const LOCKED: &str = "55P03";

fn quote(name: &str) -> String {
    quote_identifier(name)
}

/// The index of a decision, as its partitions are told of it.
fn index(r: &Recommendation) -> Partitioned<'_> {
    Partitioned {
        statement: &r.definition,
        name: r.index_name.as_deref().unwrap_or_default(),
        schema: &r.table_schema,
        table: &r.table_name,
        columns: &r.columns,
    }
}

/// What the index of a decision is like, on whatever partition.
pub(super) fn form_of(r: &Recommendation) -> Result<String> {
    let unknown = || Error::internal("the definition of a decision has an unknown form");
    index(r).form(&quote).map(str::to_owned).ok_or_else(unknown)
}

/// The partitions that lack the index of a decision and were never meant to get it by this decision, and the size of all.
fn missing(r: &Recommendation) -> Result<(Vec<Part>, u64)> {
    let form = form_of(r)?;
    let parts = facts::parts(r.table_id)?;
    let all = parts.iter().map(|p| p.bytes).sum();
    let done: BTreeSet<u32> = action::of_recommendation(r.id)?.iter().map(|a| a.table_id).collect();
    let there = reconcile::forms(&parts.iter().map(|p| p.oid).collect::<Vec<_>>())?;
    let lacks = |p: &Part| !done.contains(&p.oid) && !there.contains(&(p.oid, form.clone()));
    Ok((parts.into_iter().filter(lacks).collect(), all))
}

/// Queues the index of a decision on each partition that has none like it.
pub fn enqueue(r: &Recommendation, cause: &str, actor: &str) -> Result<Vec<i64>> {
    let (parts, all) = missing(r)?;
    let mut ids = Vec::with_capacity(parts.len());
    for part in parts {
        let (name, statement) = index(r)
            .on(&part.schema, &part.name, &quote)
            .ok_or_else(|| Error::internal("the definition of a decision has an unknown form"))?;
        let share = part.bytes as f64 / all.max(1) as f64;
        ids.push(action::enqueue(&New {
            kind: Kind::Create,
            recommendation_id: Some(r.id),
            reverts: None,
            table_id: part.oid,
            table_schema: part.schema.clone(),
            table_name: part.name,
            index_schema: part.schema,
            index_name: name,
            index_id: None,
            definition: statement.clone(),
            statement,
            cause: cause.into(),
            actor: actor.into(),
            estimated_bytes: Some((r.estimated_bytes.max(0) as f64 * share) as u64),
        })?);
    }
    Ok(ids)
}

/// Queues what new partitions lack: as long as a decision is being carried out, and in mode apply for as long as its indexes are there.
/// Called by the worker outside a transaction.
pub fn follow() -> Result<()> {
    let by_itself = guc::mode() == guc::Mode::Apply && guc::apply();
    for r in transaction("indexpilot: looking for partitions", || analysis::on_partitions(by_itself, true))? {
        unless_locked("indexpilot: following partitions", || {
            let actions = action::of_recommendation(r.id)?;
            let open = |a: &&Action| matches!(a.state, State::Queued | State::Building | State::Blocked);
            let actor = actions.iter().find(open).map_or(NOBODY, |a| a.actor.as_str());
            take_in(&r, actor)
        })?;
    }
    Ok(())
}

/// A transaction that waits a moment at most for whoever has a table locked; then it did nothing, and there is another time.
pub(super) fn unless_locked<T: Default>(activity: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let limited = || {
        let _limit = SettingScope::new(&[(c"lock_timeout", c"100ms")]);
        f()
    };
    match transaction(activity, limited) {
        Err(e) if e.sqlstate() == LOCKED => Ok(T::default()),
        other => other,
    }
}

/// Queues what new partitions lack after one got its index: the last of a decision takes in those that came until then. Called by the
/// builder outside a transaction.
pub fn follow_after(action: &Action) -> Result<()> {
    let Some(id) = action.recommendation_id.filter(|_| action.kind == Kind::Create) else { return Ok(()) };
    unless_locked("indexpilot: following partitions", || match analysis::read(id)? {
        Some(r) if r.table_id != action.table_id && facts::table(r.table_id)?.is_some_and(|t| t.partitioned) => {
            take_in(&r, &action.actor)
        }
        _ => Ok(()),
    })
}

fn take_in(r: &Recommendation, actor: &str) -> Result<()> {
    let ids = enqueue(r, &format!("recommendation {}, new partition", r.id), actor)?;
    if !ids.is_empty() {
        pgrx::log!("indexpilot: apply: {} new partitions of {}.{} get an index", ids.len(), r.table_schema, r.table_name);
    }
    Ok(())
}

/// Calls an action off whose table is no partition any more of the one that was decided about; `false` when it is wanted still. In a
/// transaction.
pub fn call_off(action: &Action) -> Result<bool> {
    let meant = match action.recommendation_id {
        Some(id) if action.kind == Kind::Create => analysis::table_of(id)?.filter(|table| *table != action.table_id),
        _ => None,
    };
    let Some(meant) = meant else { return Ok(false) };
    if facts::is_part(action.table_id, meant)? {
        return Ok(false);
    }
    outcome::call_off(action, "the table is no partition any more of the one that the decision was about")?;
    Ok(true)
}
