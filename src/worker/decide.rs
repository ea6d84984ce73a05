//! What follows a decision: guarding it, queueing its action, approving, rejecting, cancelling, taking back.

use super::decision::Drawn;
use super::{explain, outcome, partitions, safeguard, trial};
use crate::apply::reconcile;
use crate::apply::{self, facts};
use crate::pg::error::{Error, Kind, Result};
use crate::pg::{bgworker, catalog, database, role, time};
use crate::store::action::{self, Action, New};
use crate::store::analysis::{self, Recommendation};
use crate::store::log::{self, Logged, Mutation};
use crate::store::{genome, protection};
use crate::{store, worker};
use indexpilot_core::apply::{Event, Kind as ActionKind, State};
use indexpilot_core::guard;
use indexpilot_core::model::RelId;
use pgrx::spi::quote_qualified_identifier;
use serde_json::json;
use std::collections::BTreeMap;

/// Reason of a decision on an index that a person has turned down.
const REJECTED_BEFORE: &str = "rejected_before";

/// Reviews every proposed index; a refusal turns the proposal into a rejected decision with the rule as its reason. What only time
/// cures is looked at again by the builder. What a person turned down comes back only when a person wants it.
pub fn guard(drawn: &mut [Drawn]) -> Result<()> {
    let config = safeguard::config();
    let mut added: BTreeMap<u32, safeguard::Added> = BTreeMap::new();
    let mut in_all = safeguard::Added::default();
    for d in drawn.iter_mut().filter(|d| d.recommendation.state == "proposed") {
        let r = &mut d.recommendation;
        if let Some(earlier) = analysis::turned_down(r.table_id, &r.definition)? {
            r.state = "rejected".into();
            r.reason = REJECTED_BEFORE.into();
            r.reason_detail = format!(
                "{} turned it down on {} (decision {}, which approve() takes back); without that: {}",
                earlier.by, earlier.on, earlier.id, r.reason_detail
            );
            continue;
        }
        let Some(table) = facts::table(r.table_id)? else { continue };
        let on_table = added.entry(r.table_id).or_default();
        let findings = guard::review(&safeguard::lasting(r, &table, on_table, &in_all)?, &config);
        if let Some(refusal) = findings.iter().find(|f| stands(f)) {
            r.state = "rejected".into();
            r.reason = refusal.rule.into();
            r.reason_detail = format!("{}; without that: {}", refusal.detail, r.reason_detail);
        } else {
            on_table.add(r.estimated_bytes);
            in_all.add(r.estimated_bytes);
        }
        r.guard = serde_json::to_value(&findings)?;
    }
    Ok(())
}

/// The finding stands against proposing the index at all. The mode does not: it says what the worker may do by itself. A cool-down
/// does, though waiting would cure it: what was just taken back is not to be proposed again.
fn stands(f: &guard::Finding) -> bool {
    match f.verdict {
        guard::Verdict::Refuse => f.rule != "mode",
        guard::Verdict::Wait => f.rule == "cooldown",
        guard::Verdict::Pass => false,
    }
}

/// Queues the index of a decision, on a partitioned table one for each partition that lacks it; building starts when the transaction
/// commits.
pub fn enqueue(r: &Recommendation, cause: &str, actor: &str) -> Result<Vec<i64>> {
    let ids = if facts::table(r.table_id)?.is_some_and(|t| t.partitioned) {
        partitions::enqueue(r, cause, actor)?
    } else {
        vec![enqueue_one(r, cause, actor)?]
    };
    analysis::set_state(r.id, "applied")?;
    worker::wake_after_commit(database::current());
    Ok(ids)
}

fn enqueue_one(r: &Recommendation, cause: &str, actor: &str) -> Result<i64> {
    let index_name = r.index_name.clone().ok_or_else(|| Error::internal("decision has no index name"))?;
    action::enqueue(&New {
        kind: ActionKind::Create,
        recommendation_id: Some(r.id),
        reverts: None,
        table_id: r.table_id,
        table_schema: r.table_schema.clone(),
        table_name: r.table_name.clone(),
        index_schema: r.table_schema.clone(),
        index_name,
        index_id: None,
        definition: r.definition.clone(),
        statement: r.definition.clone(),
        cause: cause.into(),
        actor: actor.into(),
        estimated_bytes: Some(r.estimated_bytes.max(0) as u64),
    })
}

/// Builds the index of a decision inside the caller's transaction, which blocks writes to the table until it ends. Returns its action,
/// the first of several.
pub fn build_now(r: &Recommendation) -> Result<Option<i64>> {
    if catalog::relation_name(RelId(r.table_id)).is_none() {
        return Err(Error::new(
            Kind::UndefinedTable,
            format!("table \"{}.{}\" does not exist any more", r.table_schema, r.table_name),
        ));
    }
    if let Some(objection) = safeguard::objection_inline(r.table_id, r.estimated_bytes.max(0) as u64)? {
        return Err(Error::new(Kind::Prerequisite, "a guard rule objects to building the index now")
            .detail(objection)
            .hint("Leave out concurrently => false, and the index is built as soon as the rule allows it."));
    }
    let ids = enqueue(r, &format!("recommendation {} (concurrently => false)", r.id), &role::session())?;
    for id in &ids {
        build_inline(*id, r)?;
    }
    Ok(ids.first().copied())
}

fn build_inline(id: i64, r: &Recommendation) -> Result<()> {
    let queued = action::get(id)?.ok_or_else(|| Error::internal("action vanished"))?;
    // The definition as a document numbers expressions as the analysis did; the statement has their texts.
    let statement = queued.definition.replacen("CREATE INDEX CONCURRENTLY ", "CREATE INDEX ", 1);
    let owner = facts::table(queued.table_id)?.ok_or_else(|| Error::internal("table vanished while it was looked at"))?.owner();
    let begun = time::now();
    if !action::start(id, bgworker::pid(), None, &statement, &r.guard)? {
        return Err(Error::new(Kind::InUse, "another action works on the table")
            .hint("CALL indexpilot.wait_for_actions() first, or leave out concurrently => false."));
    }
    let started = action::get(id)?.ok_or_else(|| Error::internal("action vanished"))?;
    apply::inline::create(&statement, owner, &started.tag, &started.index_schema, &started.index_name)?;
    let index = reconcile::tagged(&started.tag)?.into_iter().next();
    if let Some(index) = index.as_ref().filter(|i| i.expressions) {
        apply::inline::analyze(index)?;
    }
    outcome::record(&started, Event::Built, index.as_ref(), None, Some(time::now() - begun))
}

/// Queues a proposed decision, or one that a person has turned down before.
pub fn approve(id: i64) -> Result<i64> {
    let Some(r) = analysis::get(id)? else { return Err(explain::unknown(id)) };
    if r.state != "rejected" || r.decided_by.is_none() {
        require_open(&r, "approved")?;
    }
    let ids = enqueue(&r, &format!("recommendation {id}, approved"), &role::session())?;
    ids.first().copied().ok_or_else(|| {
        Error::new(Kind::Prerequisite, format!("decision {id} has nothing to do"))
            .detail(format!("Every partition of {}.{} has such an index.", r.table_schema, r.table_name))
    })
}

/// Turns a proposed decision down, for the analyses to come too.
pub fn reject(id: i64, reason: Option<&str>) -> Result<()> {
    let Some(r) = analysis::get(id)? else { return Err(explain::unknown(id)) };
    require_open(&r, "rejected")?;
    analysis::set_state(id, "rejected")?;
    log::append(&Mutation {
        mutation: "reject_recommendation".into(),
        cause: reason.unwrap_or("call").into(),
        table_schema: Some(r.table_schema),
        table_name: Some(r.table_name),
        index_name: r.index_name,
        recommendation_id: Some(id),
        ..Mutation::default()
    })?;
    Ok(())
}

/// Protects an index; logged unless it was protected already.
pub fn protect(index: u32, cause: &str) -> Result<()> {
    let before = protection::is_protected(index)?;
    protection::protect(index)?;
    if before { Ok(()) } else { log_protection(index, true, cause) }
}

/// Takes the protection back; `false` when there was none.
pub fn unprotect(index: u32, cause: &str) -> Result<bool> {
    let was = protection::unprotect(index)?;
    if was {
        log_protection(index, false, cause)?;
    }
    Ok(was)
}

fn log_protection(index: u32, protected: bool, cause: &str) -> Result<()> {
    let target = store::trial::target(index)?.ok_or_else(|| Error::internal("index vanished while it was looked at"))?;
    let name = pgrx::spi::quote_literal(quote_qualified_identifier(&target.index_schema, &target.index_name));
    log::append(&Mutation {
        mutation: if protected { "protect_index" } else { "unprotect_index" }.into(),
        cause: cause.into(),
        table_schema: Some(target.table_schema),
        table_name: Some(target.table_name),
        index_name: Some(target.index_name),
        undo: Some(format!("SELECT indexpilot.{}({name})", if protected { "unprotect" } else { "protect" })),
        details: json!({ "index_schema": target.index_schema }),
        ..Mutation::default()
    })
    .map(drop)
}

fn require_open(r: &Recommendation, verb: &str) -> Result<()> {
    if r.state == "proposed" || r.state == "approved" {
        return Ok(());
    }
    Err(Error::new(Kind::Prerequisite, format!("decision {} cannot be {verb}", r.id))
        .detail(format!("Its state is {}.", r.state))
        .hint("SELECT id, definition FROM indexpilot.recommendations WHERE state = 'proposed'."))
}

/// Cancels an action; a build that runs is interrupted, and the builder removes what it left. `false` when it was over already, and, with
/// a warning, when it cannot be cancelled now.
pub fn cancel(id: i64) -> Result<bool> {
    let Some(a) = action::get(id)? else {
        return Err(Error::new(Kind::UndefinedObject, format!("action {id} does not exist"))
            .hint("SELECT id, state, statement FROM indexpilot.actions ORDER BY id DESC."));
    };
    match a.state {
        State::Queued | State::Observing | State::Blocked | State::Building if half_dropped(&a)? => {
            // No error: whoever cancels many wants the others cancelled.
            pgrx::warning!("{}", past_return(&a.index_name).message);
            Ok(false)
        }
        State::Queued | State::Observing | State::Blocked => {
            outcome::record(&a, Event::Cancel, None, None, None)?;
            Ok(true)
        }
        State::Building => match outcome::interrupt(&a)? {
            true => Ok(true),
            false => {
                pgrx::warning!(
                    "action {id} was not cancelled: its command does not run any more, and the builder concludes the action"
                );
                Ok(false)
            }
        },
        _ => Ok(false),
    }
}

/// The drop has begun: no plan can use the index any more.
pub(super) fn half_dropped(a: &Action) -> Result<bool> {
    Ok(a.kind == ActionKind::Drop && a.index_id.map(reconcile::by_oid).transpose()?.flatten().is_some_and(|i| !i.valid))
}

pub(super) fn past_return(index: &str) -> Error {
    Error::new(Kind::Prerequisite, format!("the drop of index \"{index}\" has begun and cannot be called off"))
        .detail("No plan can use the index any more; only a build brings it back.")
        .hint("CALL indexpilot.wait_for_actions(), then SELECT indexpilot.rollback(id) of the mutation drop_index.")
}

/// What a rollback of a mutation means.
pub(super) enum Undo {
    Drop {
        statement: String,
    },
    Create {
        statement: String,
    },
    Express {
        enabled: bool,
    },
    Disable {
        disabled: bool,
    },
    /// Of an index, if it is still there, whether the planner may use it.
    Visible {
        index: Option<u32>,
        visible: bool,
    },
    /// Of an index, if it is still there, whether it is protected.
    Protected {
        index: Option<u32>,
        protected: bool,
    },
}

/// Takes a mutation back and returns the number of the mutation that says so.
pub fn rollback(id: i64) -> Result<i64> {
    let by = take_back(id, &mutation(id)?, &format!("rollback of mutation {id}"))?;
    log::mark_undone(id, by)?;
    Ok(by)
}

/// Brings back what was before a mutation, whether or not it was taken back already, and logs that.
pub(super) fn take_back(id: i64, logged: &Logged, cause: &str) -> Result<i64> {
    let m = &logged.mutation;
    let cause = cause.to_owned();
    let action_id = match undo(id, logged)? {
        Undo::Drop { statement } => Some(queue_index(m, ActionKind::Drop, &statement, &cause)?),
        Undo::Create { statement } => Some(queue_index(m, ActionKind::Create, &statement, &cause)?),
        Undo::Express { enabled } => {
            express(m, enabled, &cause)?;
            None
        }
        Undo::Disable { disabled } => {
            store::control::set_disabled(disabled, disabled.then_some(cause.as_str()))?;
            None
        }
        Undo::Visible { index, visible } => {
            let index = still_there(index, m)?;
            if visible {
                trial::show(index, Some(&cause))?
            } else {
                trial::hide(index, Some(&cause))?
            };
            None
        }
        Undo::Protected { index, protected } => {
            let index = still_there(index, m)?;
            if protected {
                protect(index, &cause)?
            } else {
                unprotect(index, &cause).map(drop)?
            };
            None
        }
    };
    log::append(&Mutation {
        mutation: "rollback".into(),
        cause,
        action_id,
        before: m.after.clone(),
        after: m.before.clone(),
        undo: None,
        actor: role::session(),
        recommendation_id: None,
        details: json!({ "mutation": id }),
        ..m.clone()
    })
}

fn still_there(index: Option<u32>, m: &Mutation) -> Result<u32> {
    index.ok_or_else(|| {
        let name = m.index_name.clone().unwrap_or_default();
        Error::new(Kind::UndefinedObject, format!("index \"{name}\" does not exist any more"))
    })
}

/// What [`rollback`] would run, and what it would mean.
pub fn rollback_preview(id: i64) -> Result<(String, String)> {
    preview_of(id, &mutation(id)?)
}

pub(super) fn preview_of(id: i64, logged: &Logged) -> Result<(String, String)> {
    let m = &logged.mutation;
    let index = m.index_name.clone().unwrap_or_default();
    let table = format!("{}.{}", m.table_schema.clone().unwrap_or_default(), m.table_name.clone().unwrap_or_default());
    Ok(match undo(id, logged)? {
        Undo::Drop { statement } => (
            statement,
            format!(
                "index {index} on {table} is hidden from plans at once, then dropped, without blocking reads or writes, and is not proposed again for indexpilot.guard_cooldown"
            ),
        ),
        Undo::Create { statement } => {
            (statement, format!("index {index} on {table} is built again, without blocking reads or writes"))
        }
        Undo::Express { enabled } => (
            m.undo.clone().unwrap_or_default(),
            format!(
                "tenant {} {} field {} of {table}",
                m.tenant_id.clone().unwrap_or_default(),
                if enabled { "expresses" } else { "no longer expresses" },
                m.field_name.clone().unwrap_or_default()
            ),
        ),
        Undo::Disable { disabled } => (
            m.undo.clone().unwrap_or_default(),
            if disabled { "no action is started in this database" } else { "actions are started again in this database" }.into(),
        ),
        Undo::Visible { visible, .. } => (
            m.undo.clone().unwrap_or_default(),
            format!("plans {} index {index} on {table}", if visible { "may use" } else { "no longer use" }),
        ),
        Undo::Protected { protected, .. } => (
            m.undo.clone().unwrap_or_default(),
            format!("index {index} on {table} is {} protected", if protected { "again" } else { "no longer" }),
        ),
    })
}

fn mutation(id: i64) -> Result<Logged> {
    let Some(logged) = log::get(id)? else {
        return Err(Error::new(Kind::UndefinedObject, format!("mutation {id} does not exist"))
            .hint("SELECT * FROM indexpilot.get_recent_mutations()."));
    };
    if let Some(by) = logged.undone_by {
        return Err(Error::new(Kind::Prerequisite, format!("mutation {id} was already taken back"))
            .detail(format!("Mutation {by} did so."))
            .hint(format!("To bring it back, take that one back: SELECT indexpilot.rollback({by}).")));
    }
    Ok(logged)
}

pub(super) fn undo(id: i64, logged: &Logged) -> Result<Undo> {
    let m = &logged.mutation;
    let flag = |key: &str| m.before.as_ref().and_then(|b| b.get(key)).and_then(serde_json::Value::as_bool);
    let kind = if m.mutation == "rollback" { inverse(m) } else { m.mutation.as_str() };
    match (kind, m.undo.clone()) {
        ("create_index", undo) => Ok(Undo::Drop { statement: undo.unwrap_or_else(|| drop_statement(m)) }),
        ("drop_index", Some(statement)) => Ok(Undo::Create { statement }),
        ("enable_field" | "disable_field", _) => Ok(Undo::Express { enabled: flag("enabled").unwrap_or(true) }),
        ("disable_system" | "enable_system", _) => Ok(Undo::Disable { disabled: flag("disabled").unwrap_or(false) }),
        ("hide_index" | "show_index" | "protect_index" | "unprotect_index", _) => {
            let schema = m.details.get("index_schema").and_then(serde_json::Value::as_str).unwrap_or_default();
            let index = catalog::oid_of(schema, &m.index_name.clone().unwrap_or_default())?;
            Ok(match kind {
                "protect_index" | "unprotect_index" => Undo::Protected { index, protected: kind == "unprotect_index" },
                _ => Undo::Visible { index, visible: kind == "hide_index" },
            })
        }
        (other, _) => Err(Error::new(Kind::NotSupported, format!("mutation {id} cannot be taken back"))
            .detail(format!("A mutation of kind {other} has nothing to take back."))),
    }
}

/// A rollback is taken back by doing the first thing again: told from what it changed.
fn inverse(m: &Mutation) -> &'static str {
    match (&m.field_name, &m.index_name) {
        (Some(_), _) => "enable_field",
        (None, None) => "enable_system",
        (None, Some(_)) => "rollback",
    }
}

fn drop_statement(m: &Mutation) -> String {
    let schema = m.table_schema.clone().unwrap_or_default();
    format!("DROP INDEX CONCURRENTLY {}", quote_qualified_identifier(schema, m.index_name.clone().unwrap_or_default()))
}

fn queue_index(m: &Mutation, kind: ActionKind, statement: &str, cause: &str) -> Result<i64> {
    let (schema, table) = (m.table_schema.clone().unwrap_or_default(), m.table_name.clone().unwrap_or_default());
    let index_name = m.index_name.clone().unwrap_or_default();
    let table_id = catalog::oid_of(&schema, &table)?
        .ok_or_else(|| Error::new(Kind::UndefinedTable, format!("table \"{schema}.{table}\" does not exist any more")))?;
    // In a restored database the log is there and the actions are not.
    let reverts = match m.action_id {
        Some(id) => action::get(id)?,
        None => None,
    };
    // By its tag, whatever it is called now.
    let tagged = match &reverts {
        Some(reverted) => reconcile::tagged(&reverted.tag)?.into_iter().find(|i| i.table_id == table_id).map(|i| i.oid),
        None => None,
    };
    let index_id = match tagged.filter(|_| kind == ActionKind::Drop) {
        Some(index) => Some(index),
        None => catalog::oid_of(&schema, &index_name)?,
    };
    if kind == ActionKind::Drop {
        let Some(index) = index_id else {
            return Err(Error::new(Kind::UndefinedObject, format!("index \"{schema}.{index_name}\" does not exist any more")));
        };
        if protection::is_protected(index)? {
            return Err(Error::new(Kind::Prerequisite, format!("index \"{schema}.{index_name}\" is protected"))
                .hint(format!("SELECT indexpilot.unprotect('{}').", quote_qualified_identifier(&schema, &index_name))));
        }
    }
    let definition = match kind {
        ActionKind::Drop => {
            m.after.as_ref().and_then(|a| a.get("definition")).and_then(serde_json::Value::as_str).unwrap_or(statement).to_owned()
        }
        _ => statement.to_owned(),
    };
    let id = action::enqueue(&New {
        kind,
        recommendation_id: None,
        reverts: reverts.map(|a| a.id),
        table_id,
        table_schema: schema.clone(),
        table_name: table,
        index_schema: schema,
        index_name,
        index_id: if kind == ActionKind::Drop { index_id } else { None },
        definition,
        statement: statement.into(),
        cause: cause.into(),
        actor: role::session(),
        estimated_bytes: None,
    })?;
    if let (ActionKind::Drop, Some(index)) = (kind, index_id) {
        trial::hide_before_drop(index, id, "hidden", cause, &role::session())?;
    }
    worker::wake_after_commit(database::current());
    Ok(id)
}

fn express(m: &Mutation, enabled: bool, cause: &str) -> Result<()> {
    let (schema, table) = (m.table_schema.clone().unwrap_or_default(), m.table_name.clone().unwrap_or_default());
    let tenant = m.tenant_id.clone().unwrap_or_default();
    let field_name = m.field_name.clone().unwrap_or_default();
    let table_id = catalog::oid_of(&schema, &table)?
        .ok_or_else(|| Error::new(Kind::UndefinedTable, format!("table \"{schema}.{table}\" does not exist any more")))?;
    let field = genome::field(table_id, &field_name, &tenant)?
        .ok_or_else(|| Error::new(Kind::UndefinedColumn, format!("field \"{field_name}\" is not in the genome any more")))?;
    genome::set_expression(&tenant, field.id, enabled, Some(cause))
}

/// Logs that a tenant expresses a field, or no longer does; `field` holds the state before.
pub fn log_expression(tenant_id: &str, field: &genome::Field, enabled: bool, cause: &str) -> Result<i64> {
    let call = |enabled: bool| {
        let table = quote_qualified_identifier(&field.table_schema, &field.table_name);
        format!(
            "SELECT indexpilot.{}_field({}, {}, {})",
            if enabled { "enable" } else { "disable" },
            pgrx::spi::quote_literal(tenant_id),
            pgrx::spi::quote_literal(table),
            pgrx::spi::quote_literal(&field.field_name)
        )
    };
    let before = field.enabled.unwrap_or(true);
    log::append(&Mutation {
        mutation: if enabled { "enable_field" } else { "disable_field" }.into(),
        cause: cause.into(),
        table_schema: Some(field.table_schema.clone()),
        table_name: Some(field.table_name.clone()),
        field_name: Some(field.field_name.clone()),
        tenant_id: Some(tenant_id.into()),
        before: Some(json!({ "enabled": before })),
        after: Some(json!({ "enabled": enabled })),
        undo: Some(call(before)),
        ..Mutation::default()
    })
}
