//! `indexpilot.apply_attach_partitions`: when all indexes of a decision on a partitioned table have proved themselves, they become parts
//! of one of the table. Then new partitions come with the index, and no partition's can be dropped any more but with all of them.
//!
//! What was attached already shows in the catalog, so whoever dies in the middle is followed by another who attaches the rest.

use super::partitions::{form_of, unless_locked};
use super::{command, safeguard};
use crate::apply::reconcile::{self, Index};
use crate::apply::{self, Failure, facts};
use crate::guc;
use crate::pg::bgworker::transaction;
use crate::pg::error::{Error, Result};
use crate::store::action::{self, NOBODY};
use crate::store::analysis::{self, Recommendation};
use crate::store::log::{self, Mutation};
use indexpilot_core::apply::{Kind, State};
use serde_json::json;
use std::collections::BTreeMap;

/// Seconds until it is tried again after a failure.
const AGAIN_S: f64 = 600.0;
/// What the log calls it.
const ATTACHED: &str = "attach_index";
const FAILED: &str = "attach_index_failed";

/// Something is to be attached. Outside a transaction.
pub fn any_due() -> Result<bool> {
    Ok(guc::apply_attach_partitions() && !unless_locked("indexpilot: looking for indexes to attach", due)?.is_empty())
}

/// Decisions whose indexes are all there and kept, with those that are not attached. In a transaction.
fn due() -> Result<Vec<(Recommendation, Vec<Index>)>> {
    let mut due = Vec::new();
    for r in analysis::on_partitions(true, false)? {
        if log::seconds_since(r.id, FAILED)?.is_some_and(|s| s.abs() < AGAIN_S) {
            continue;
        }
        let loose = loose(&r)?;
        if !loose.is_empty() {
            due.push((r, loose));
        }
    }
    Ok(due)
}

/// The indexes of a decision that can be attached: none unless each partition has one of ours that was kept. Of partitions of partitions
/// none are, since their tables would need indexes of their own.
fn loose(r: &Recommendation) -> Result<Vec<Index>> {
    if !facts::has_plain_parts_only(r.table_id)? {
        return Ok(Vec::new());
    }
    let kept: BTreeMap<u32, String> = action::of_recommendation(r.id)?
        .into_iter()
        .filter(|a| a.kind == Kind::Create && a.state == State::Kept)
        .map(|a| (a.table_id, a.tag))
        .collect();
    let mut found = Vec::new();
    for part in facts::parts(r.table_id)? {
        let index = match kept.get(&part.oid) {
            Some(tag) => reconcile::tagged(tag)?.into_iter().find(|i| i.table_id == part.oid && i.valid),
            None => None,
        };
        match index {
            Some(index) if !index.attached => found.push(index),
            Some(_) => {}
            // One that came with the table's.
            None if reconcile::has_attached(part.oid, &form_of(r)?)? => {}
            None => return Ok(Vec::new()),
        }
    }
    Ok(found)
}

/// Attaches what is due; called by the builder outside a transaction.
pub fn all() -> Result<()> {
    if !guc::apply_attach_partitions() {
        return Ok(());
    }
    for (r, indexes) in unless_locked("indexpilot: looking for indexes to attach", due)? {
        if let Some(objection) = transaction("indexpilot: asking the guard", || safeguard::objection(r.table_id))? {
            pgrx::log!("indexpilot: guard: the indexes of {}.{} are not attached now: {objection}", r.table_schema, r.table_name);
            continue;
        }
        if let Err(failure) = one(&r, &indexes) {
            pgrx::log!("indexpilot: apply: could not attach the indexes of {}.{}: {}", r.table_schema, r.table_name, failure.error);
            transaction("indexpilot: logging", || note(&r, FAILED, &failure.error.to_string()))?;
        }
    }
    Ok(())
}

fn one(r: &Recommendation, indexes: &[Index]) -> std::result::Result<(), Failure> {
    let look = |r: &Recommendation| transaction("indexpilot: looking for the table's index", || parent(r));
    let parent = match look(r).map_err(Failure::permanent)? {
        Some(parent) => parent,
        None => {
            let (table, statement) = transaction("indexpilot: looking at a table", || whole(r)).map_err(Failure::permanent)?;
            command(|| apply::attach::make_parent(&statement, r.table_id, &table))?;
            transaction("indexpilot: logging", || note(r, ATTACHED, &statement)).map_err(Failure::permanent)?;
            let gone = || Failure::permanent(Error::internal("the index of the table is not where it was made"));
            look(r).map_err(Failure::permanent)?.ok_or_else(gone)?
        }
    };
    for index in indexes {
        command(|| apply::attach::attach(&parent, index))?;
        let statement = apply::attach::statement(&parent, index);
        transaction("indexpilot: logging", || note(r, ATTACHED, &statement)).map_err(Failure::permanent)?;
    }
    pgrx::log!("indexpilot: apply: {} indexes are parts of {}.{} now", indexes.len(), parent.schema, parent.name);
    Ok(())
}

/// The index of the whole table, if it was made already.
fn parent(r: &Recommendation) -> Result<Option<Index>> {
    let form = form_of(r)?;
    let found = reconcile::by_name(&r.table_schema, r.index_name.as_deref().unwrap_or_default())?;
    Ok(found.filter(|i| i.partitioned && i.table_id == r.table_id && i.has_form(&form)))
}

/// The table of a decision, and the statement that makes its index.
fn whole(r: &Recommendation) -> Result<(facts::Table, String)> {
    let table = facts::table(r.table_id)?.ok_or_else(|| Error::internal("table vanished while it was looked at"))?;
    let statement = apply::attach::parent_statement(r.index_name.as_deref().unwrap_or_default(), &table, &form_of(r)?);
    Ok((table, statement))
}

fn note(r: &Recommendation, mutation: &str, what: &str) -> Result<()> {
    log::append(&Mutation {
        mutation: mutation.into(),
        cause: format!("recommendation {}, indexpilot.apply_attach_partitions", r.id),
        actor: NOBODY.into(),
        table_schema: Some(r.table_schema.clone()),
        table_name: Some(r.table_name.clone()),
        index_name: r.index_name.clone(),
        recommendation_id: Some(r.id),
        details: json!({ "statement": what }),
        ..Mutation::default()
    })
    .map(drop)
}
