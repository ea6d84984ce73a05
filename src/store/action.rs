//! Table actions: what was, is and will be done to indexes. Every change of state goes through core's state machine and names the
//! state it starts from, so that two processes cannot both make it.

use crate::pg::error::{Error, Kind, Result};
pub use crate::pg::role::NOBODY;
use crate::pg::spi;
use indexpilot_core::apply::{self, Event, State};
use indexpilot_core::model::Timestamp;
use indexpilot_core::profile::quotes_no_values;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// In place of a message that may quote values of a table.
pub const NOT_KEPT: &str = "the message may quote values, and is in the server's log only";

/// A row. Times are seconds since the Unix epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Action {
    pub id: i64,
    pub tag: String,
    pub kind: apply::Kind,
    pub state: State,
    pub recommendation_id: Option<i64>,
    pub reverts: Option<i64>,
    pub table_id: u32,
    pub table_schema: String,
    pub table_name: String,
    pub index_schema: String,
    pub index_name: String,
    pub index_id: Option<u32>,
    pub definition: String,
    pub statement: String,
    pub cause: String,
    pub actor: String,
    pub attempts: u32,
    pub queued_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub verified_at: Option<Timestamp>,
    pub worker_pid: Option<i32>,
    pub index_bytes: Option<u64>,
    pub estimated_bytes: Option<u64>,
    pub blocked_reason: Option<String>,
    pub error_sqlstate: Option<String>,
    pub error_message: Option<String>,
    /// A drop whose index was hidden first.
    pub observe: bool,
}

impl Action {
    /// A person asked for it by a call.
    pub fn explicit(&self) -> bool {
        self.actor != NOBODY
    }
}

const COLUMNS: &str = "a.id, a.tag, a.kind, a.state, a.recommendation_id, a.reverts, a.table_id::bigint AS table_id, \
     a.table_schema, a.table_name, a.index_schema, a.index_name, a.index_id::bigint AS index_id, a.definition, a.statement, \
     a.cause, a.actor, a.attempts, extract(epoch FROM a.queued_at)::float8 AS queued_at, \
     extract(epoch FROM a.started_at)::float8 AS started_at, extract(epoch FROM a.finished_at)::float8 AS finished_at, \
     extract(epoch FROM a.verified_at)::float8 AS verified_at, a.worker_pid, a.index_bytes, a.estimated_bytes, \
     a.blocked_reason, a.error_sqlstate, a.error_message, a.observe";

/// What an action is made of when it is queued.
#[derive(Clone, Debug, Serialize)]
pub struct New {
    pub kind: apply::Kind,
    pub recommendation_id: Option<i64>,
    /// Action that it takes back.
    pub reverts: Option<i64>,
    pub table_id: u32,
    pub table_schema: String,
    pub table_name: String,
    pub index_schema: String,
    pub index_name: String,
    /// OID of the index for a drop or a rebuild.
    pub index_id: Option<u32>,
    /// CREATE INDEX statement of the index, for a drop the one that would bring it back.
    pub definition: String,
    /// Statement that is to be run.
    pub statement: String,
    pub cause: String,
    /// Role that asks for it, or [`NOBODY`].
    pub actor: String,
    pub estimated_bytes: Option<u64>,
}

/// Queues an action and returns its id. When one of the same kind for the same index is queued, running or blocked already, that
/// one's id is returned instead; what nobody had asked for, and a person asks for now, is that person's from then on. The caller then
/// calls `worker::wake_after_commit`.
pub fn enqueue(new: &New) -> Result<i64> {
    let sql = "INSERT INTO indexpilot.actions (kind, recommendation_id, reverts, table_id, table_schema, table_name, index_schema, \
               index_name, index_id, definition, statement, cause, actor, estimated_bytes) \
               SELECT $1->>'kind', ($1->>'recommendation_id')::bigint, ($1->>'reverts')::bigint, ($1->>'table_id')::oid, \
               $1->>'table_schema', $1->>'table_name', $1->>'index_schema', $1->>'index_name', ($1->>'index_id')::oid, \
               $1->>'definition', $1->>'statement', $1->>'cause', $1->>'actor', ($1->>'estimated_bytes')::bigint \
               ON CONFLICT (kind, index_schema, index_name) WHERE state IN ('queued', 'observing', 'building', 'blocked') DO NOTHING \
               RETURNING id";
    let new = serde_json::to_value(new)?;
    if let Some(id) = spi::value(sql, new.clone())? {
        return Ok(id);
    }
    let there = "kind = $1->>'kind' AND index_schema = ($1->>'index_schema')::name AND index_name = ($1->>'index_name')::name";
    let sql = format!(
        "UPDATE indexpilot.actions SET actor = $1->>'actor', cause = $1->>'cause', not_before = clock_timestamp(), \
           recommendation_id = coalesce(($1->>'recommendation_id')::bigint, recommendation_id) \
         WHERE {there} AND state IN ('queued', 'blocked') AND actor = $1->>'nobody' AND actor <> $1->>'actor' RETURNING id"
    );
    let mut named = new.clone();
    named["nobody"] = NOBODY.into();
    if let Some(id) = spi::value(&sql, named)? {
        return Ok(id);
    }
    let sql =
        &format!("SELECT id FROM indexpilot.actions WHERE {there} AND state IN ('queued', 'observing', 'building', 'blocked')");
    spi::value(sql, new)?.ok_or_else(|| {
        Error::new(Kind::InUse, "an action for this index was just queued or finished by somebody else").hint("Try again.")
    })
}

fn select(condition: &str, args: Value) -> Result<Vec<Action>> {
    spi::rows(&format!("SELECT {COLUMNS} FROM indexpilot.actions a WHERE {condition}"), args)
}

/// One action; `None` when there is none of that id.
pub fn get(id: i64) -> Result<Option<Action>> {
    Ok(select("a.id = ($1->>'id')::bigint", json!({ "id": id }))?.into_iter().next())
}

/// Actions in the given states, oldest first.
pub fn in_states(states: &[State]) -> Result<Vec<Action>> {
    let states: Vec<&str> = states.iter().map(|s| s.as_str()).collect();
    select("a.state IN (SELECT jsonb_array_elements_text($1->'states')) ORDER BY a.id", json!({ "states": states }))
}

/// What carries out a decision, oldest first.
pub fn of_recommendation(id: i64) -> Result<Vec<Action>> {
    select("a.recommendation_id = ($1->>'id')::bigint ORDER BY a.id", json!({ "id": id }))
}

/// The drop of an index that waits or runs.
pub fn drop_of(index: u32) -> Result<Option<Action>> {
    let condition = "a.kind = 'drop' AND a.index_id = ($1->>'index')::oid \
                     AND a.state IN ('queued', 'observing', 'building', 'blocked') ORDER BY a.id LIMIT 1";
    Ok(select(condition, json!({ "index": index }))?.into_iter().next())
}

/// Indexes of ours that seem to be gone without a drop of ours: neither their OID nor their tag is there any more. One like them may be
/// there under their name, rebuilt and without its comment; to tell, the server locks its table, so that is for the caller to see.
pub fn vanished() -> Result<Vec<Action>> {
    let condition = "a.kind = 'create' AND a.state IN ('built', 'verifying', 'kept') \
         AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = a.index_id AND c.relkind = 'i') \
         AND NOT EXISTS (SELECT FROM pg_description d WHERE d.classoid = 'pg_class'::regclass AND d.description = 'indexpilot:' || a.tag) \
         AND NOT EXISTS (SELECT FROM indexpilot.actions d WHERE d.kind = 'drop' AND d.reverts = a.id \
           AND d.state IN ('queued', 'observing', 'building', 'blocked')) ORDER BY a.id";
    select(condition, Value::Null)
}

/// A queued drop is observed for so many seconds from now on, and what is measured from now on is what it is judged by.
pub fn observe(id: i64, seconds: f64) -> Result<()> {
    let sql = "UPDATE indexpilot.actions SET observe = true, started_at = clock_timestamp(), \
               not_before = clock_timestamp() + ($1->>'seconds')::float8 * interval '1 second' WHERE id = ($1->>'id')::bigint";
    spi::execute(sql, json!({ "id": id, "seconds": seconds }))?;
    transition(id, State::Queued, Event::Observe)?;
    cut_measurements(id)
}

/// The time of observing is over.
pub fn is_due(id: i64) -> Result<bool> {
    let sql = "SELECT not_before <= clock_timestamp() AS due FROM indexpilot.actions WHERE id = ($1->>'id')::bigint";
    Ok(spi::value(sql, json!({ "id": id }))?.unwrap_or(false))
}

/// Actions that were queued after a moment (seconds since the Unix epoch) and are not over, newest first.
pub fn open_since(at: f64) -> Result<Vec<Action>> {
    let open: Vec<&str> = State::ALL.iter().filter(|s| !s.settled() || **s == State::Observing).map(|s| s.as_str()).collect();
    select(
        "a.queued_at > to_timestamp(($1->>'at')::float8) AND a.state IN (SELECT jsonb_array_elements_text($1->'open')) ORDER BY a.id DESC",
        json!({ "at": at.to_string().replace("inf", "Infinity"), "open": open }),
    )
}

/// Queued or blocked, and its time has come. What takes something back goes first: it ends harm. Nothing is put off by more than an
/// hour, so what lies further ahead was put off by a clock that was set back since.
const DUE: &str = "a.state IN ('queued', 'blocked') \
                   AND (a.not_before <= clock_timestamp() OR a.not_before > clock_timestamp() + interval '2 hours')";

/// An action waits for the builder.
pub fn any_due() -> Result<bool> {
    Ok(spi::value(&format!("SELECT EXISTS (SELECT 1 FROM indexpilot.actions a WHERE {DUE}) AS due"), json!({}))?.unwrap_or(false))
}

/// The next action for the builder, if there is one.
pub fn next_due() -> Result<Option<Action>> {
    // Somebody who has cancelled one and not committed keeps it, and not the others, from its turn.
    let due = format!("{DUE} ORDER BY (a.reverts IS NULL), a.not_before, a.id LIMIT 1 FOR UPDATE SKIP LOCKED");
    Ok(select(&due, json!({}))?.into_iter().next())
}

/// Running actions whose last look is over; none of them has a process when the caller is the only builder.
pub fn left_behind() -> Result<Vec<Action>> {
    let over = "(a.not_before <= clock_timestamp() OR a.not_before > clock_timestamp() + interval '2 hours')";
    select(&format!("a.state = 'building' AND {over} ORDER BY a.id"), json!({}))
}

/// Actions that somebody may still wait for, blocked ones not included: they need a person.
pub fn pending() -> Result<i64> {
    Ok(spi::value("SELECT count(*) AS n FROM indexpilot.actions WHERE state IN ('queued', 'building')", json!({}))?.unwrap_or(0))
}

/// Makes the step and returns the new state; `None` when the action was not in that state any more.
///
/// # Errors
/// When the state machine does not have the step.
pub fn transition(id: i64, from: State, event: Event) -> Result<Option<State>> {
    let to = apply::next(from, event).map_err(|illegal| Error::internal(illegal.to_string()))?;
    let sql = "UPDATE indexpilot.actions SET state = $1->>'to', \
               finished_at = CASE WHEN $1->>'to' IN ('built', 'done', 'failed', 'cancelled') THEN clock_timestamp() ELSE finished_at END, \
               verified_at = CASE WHEN $1->>'to' IN ('kept', 'reverted') THEN clock_timestamp() ELSE verified_at END, \
               blocked_reason = CASE WHEN $1->>'to' = 'blocked' THEN blocked_reason END, \
               worker_pid = CASE WHEN $1->>'to' = 'building' THEN worker_pid END \
               WHERE id = ($1->>'id')::bigint AND state = $1->>'from'";
    let changed = spi::execute(sql, json!({ "id": id, "from": from.as_str(), "to": to.as_str() }))?;
    Ok((changed == 1).then_some(to))
}

/// The attempt begins: commits before any DDL. `index_id` is what the index is at this moment (for a rebuild, the relation that is
/// to be replaced). `false` when the action is not queued any more, or another one runs on the table.
pub fn start(id: i64, pid: i32, index_id: Option<u32>, statement: &str, guard: &Value) -> Result<bool> {
    let to = apply::next(State::Queued, Event::Start).map_err(|illegal| Error::internal(illegal.to_string()))?;
    let sql = "UPDATE indexpilot.actions a SET state = $1->>'to', attempts = attempts + 1, started_at = clock_timestamp(), \
               not_before = clock_timestamp(), finished_at = NULL, worker_pid = ($1->>'pid')::integer, \
               index_id = ($1->>'index_id')::oid, statement = $1->>'statement', guard = $1->'guard', blocked_reason = NULL \
               WHERE id = ($1->>'id')::bigint AND state = 'queued' AND NOT EXISTS (SELECT 1 FROM indexpilot.actions o \
               WHERE o.table_id = a.table_id AND o.state = 'building')";
    let args = json!({ "id": id, "to": to.as_str(), "pid": pid, "index_id": index_id, "statement": statement, "guard": guard });
    Ok(spi::execute(sql, args)? == 1)
}

/// What the index turned out to be.
pub fn set_index(id: i64, index_id: u32, bytes: u64) -> Result<()> {
    let sql = "UPDATE indexpilot.actions SET index_id = ($1->>'index_id')::oid, index_bytes = ($1->>'bytes')::bigint, \
               error_sqlstate = NULL, error_message = NULL WHERE id = ($1->>'id')::bigint";
    spi::execute(sql, json!({ "id": id, "index_id": index_id, "bytes": bytes }))?;
    Ok(())
}

/// Why the last attempt failed. Whoever may see the action is not shown values of the table.
pub fn set_error(id: i64, sqlstate: &str, message: &str) -> Result<()> {
    let message = if quotes_no_values(sqlstate) { message } else { NOT_KEPT };
    let sql = "UPDATE indexpilot.actions SET error_sqlstate = $1->>'sqlstate', error_message = $1->>'message' \
               WHERE id = ($1->>'id')::bigint";
    spi::execute(sql, json!({ "id": id, "sqlstate": sqlstate, "message": message }))?;
    Ok(())
}

/// Not to be looked at for so many seconds, and why it waits or is blocked (`None` leaves what is there). No process works on it.
pub fn postpone(id: i64, seconds: f64, reason: Option<&str>, guard: Option<&Value>) -> Result<()> {
    let sql = "UPDATE indexpilot.actions SET not_before = clock_timestamp() + ($1->>'seconds')::float8 * interval '1 second', \
               worker_pid = NULL, blocked_reason = coalesce($1->>'reason', blocked_reason), guard = coalesce(nullif($1->'guard', 'null'), guard) \
               WHERE id = ($1->>'id')::bigint";
    spi::execute(sql, json!({ "id": id, "seconds": seconds, "reason": reason, "guard": guard }))?;
    Ok(())
}

/// Notes that the action's index appeared or went, which begins a new span of measurements at that very moment.
pub fn cut_measurements(id: i64) -> Result<()> {
    let sql = "UPDATE indexpilot.control SET last_cut_at = coalesce(a.finished_at, clock_timestamp()) \
               FROM indexpilot.actions a WHERE a.id = ($1->>'id')::bigint";
    spi::execute(sql, json!({ "id": id }))?;
    Ok(())
}
