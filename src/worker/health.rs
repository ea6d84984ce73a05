//! Whether IndexPilot can do its work here: the rows of `health_check()`, and what the view `status` says of the same matters.

use super::{safeguard, state, trial};
use crate::apply::facts;
use crate::pg::error::Result;
use crate::pg::{bgworker, database, extension, spi, time, visibility};
use crate::store::{self, guard as noted};
use crate::{capture, guc, worker};
use indexpilot_core::apply::Kind;
use indexpilot_core::guard::{self, Breaker, Facts, SKEW_S, Verdict};
use serde::Deserialize;
use serde_json::json;

/// How well it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Ok,
    Warning,
    Error,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Error => "error",
        }
    }
}

/// One thing that was looked at.
pub struct Row {
    pub name: &'static str,
    pub state: State,
    pub detail: String,
    /// What to do; only where something is to be done.
    pub hint: Option<String>,
}

/// A row that is fine, or that has something to say.
fn row(name: &'static str, state: State, detail: impl Into<String>, hint: &str) -> Row {
    Row { name, state, detail: detail.into(), hint: (state != State::Ok).then(|| hint.to_owned()) }
}

/// `bad` where the condition holds.
fn when(condition: bool, bad: State) -> State {
    if condition { bad } else { State::Ok }
}

/// What the tables and catalogs say.
#[derive(Deserialize)]
pub struct Figures {
    failed_today: i64,
    last_error: Option<String>,
    blocked: i64,
    blocked_reason: Option<String>,
    waiting: i64,
    oldest_waiting_s: Option<f64>,
    waiting_reason: Option<String>,
    /// How long the first of them could have begun already.
    due_s: Option<f64>,
    pub observing: i64,
    building: i64,
    /// How long the processes that work on them have been waiting for a lock, and for whom.
    held_s: Option<f64>,
    held_by: Option<String>,
    /// Actions that run by their rows, although no builder has that process id.
    abandoned: i64,
    pub unusable_ours: i64,
    unusable_others: i64,
    /// Indexes of ours that somebody else dropped.
    missing: i64,
    pub hidden: i64,
    /// Hidden for the sake of a drop that has failed.
    left_hidden: i64,
    templates: i64,
    unplannable: i64,
    server_version: u32,
}

/// See [`Figures`].
pub fn figures() -> Result<Option<Figures>> {
    spi::row(
        "SELECT count(*) FILTER (WHERE a.state = 'failed' AND a.finished_at > clock_timestamp() - interval '1 day') AS failed_today,
                (SELECT f.error_message FROM indexpilot.actions f WHERE f.state = 'failed' ORDER BY f.finished_at DESC LIMIT 1) AS last_error,
                count(*) FILTER (WHERE a.state = 'blocked') AS blocked,
                (SELECT b.blocked_reason FROM indexpilot.actions b WHERE b.state = 'blocked' ORDER BY b.id LIMIT 1) AS blocked_reason,
                count(*) FILTER (WHERE a.state = 'queued') AS waiting,
                extract(epoch FROM clock_timestamp() - min(a.queued_at) FILTER (WHERE a.state = 'queued'))::float8 AS oldest_waiting_s,
                (SELECT w.blocked_reason FROM indexpilot.actions w WHERE w.state = 'queued' ORDER BY w.id LIMIT 1) AS waiting_reason,
                extract(epoch FROM clock_timestamp() - min(a.not_before) FILTER (WHERE a.state = 'queued'))::float8 AS due_s,
                count(*) FILTER (WHERE a.state = 'observing') AS observing,
                count(*) FILTER (WHERE a.state = 'building') AS building,
                (SELECT extract(epoch FROM clock_timestamp() - min(l.waitstart))::float8 FROM indexpilot.actions b
                   JOIN pg_locks l ON l.pid = b.worker_pid AND NOT l.granted WHERE b.state = 'building') AS held_s,
                (SELECT string_agg(DISTINCT h.pid::text, ', ') FROM indexpilot.actions b, unnest(pg_blocking_pids(b.worker_pid)) h(pid)
                  WHERE b.state = 'building') AS held_by,
                count(*) FILTER (WHERE a.state = 'building' AND a.worker_pid IS DISTINCT FROM pg_backend_pid()
                    AND NOT EXISTS (SELECT FROM pg_stat_activity p WHERE p.pid = a.worker_pid AND p.datname = current_database()
                      AND coalesce(p.backend_start <= a.started_at, true))) AS abandoned,
                (SELECT count(*) FROM pg_index i JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = i.indexrelid
                    AND d.objsubid = 0 AND d.description LIKE 'indexpilot:%'
                  WHERE NOT i.indisvalid AND NOT EXISTS (SELECT FROM indexpilot.actions b WHERE b.state = 'building'
                    AND (d.description = 'indexpilot:' || b.tag OR b.index_id = i.indexrelid))) AS unusable_ours,
                (SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
                   LEFT JOIN pg_stat_progress_create_index p ON p.index_relid = i.indexrelid
                  WHERE NOT i.indisvalid AND p.pid IS NULL AND NOT EXISTS (SELECT FROM pg_description d WHERE d.classoid = 'pg_class'::regclass
                    AND d.objoid = i.indexrelid AND d.objsubid = 0 AND d.description LIKE 'indexpilot:%')) AS unusable_others,
                (SELECT count(*) FROM indexpilot.managed_indexes m WHERE m.dropped_at IS NULL AND NOT EXISTS (SELECT FROM pg_class c
                   JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = m.index_schema AND c.relname = m.index_name)
                   AND NOT EXISTS (SELECT FROM pg_description d WHERE d.description = 'indexpilot:' || m.tag)) AS missing,
                (SELECT count(*) FROM indexpilot.hidden_indexes) AS hidden,
                (SELECT count(*) FROM indexpilot.hidden_indexes h WHERE h.action_state = 'failed') AS left_hidden,
                (SELECT count(*) FROM indexpilot.workload) AS templates,
                (SELECT count(*) FROM indexpilot.workload WHERE plan_state = 'unplannable') AS unplannable,
                current_setting('server_version_num')::integer AS server_version
           FROM indexpilot.actions a",
        json!({}),
    )
}

/// The circuit breaker of this database.
pub fn breaker() -> Result<Breaker> {
    let config = safeguard::config();
    let history = noted::history(&noted::Subject::default())?;
    Ok(guard::breaker(&history.past, config.breaker_failures, config.breaker_pause_s))
}

/// Everything that is looked at, what is wrong and what is not.
pub fn rows() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let library = extension::VERSION;
    let sql = extension::version().unwrap_or_default();
    rows.push(row(
        "version",
        when(sql != library, State::Error),
        format!("the library is of version {library}, the objects in this database of {sql}"),
        extension::UPDATE,
    ));
    let c = capture::status();
    rows.push(row(
        "preload",
        when(!c.active, State::Error),
        if c.active { "the library was preloaded" } else { "the library was not preloaded: nothing is captured, and no worker runs" },
        "Add indexpilot to shared_preload_libraries in postgresql.conf, with indexpilot.startup_bypass = off, and restart the server.",
    ));
    if sql != library {
        // What the tables look like is not known.
        return Ok(rows);
    }
    switches(&mut rows)?;
    if c.active && guc::mode() != guc::Mode::Off {
        processes(&mut rows);
        captured(&mut rows, &c);
    }
    if let Some(f) = figures()? {
        actions(&mut rows, &f)?;
        indexes(&mut rows, &f)?;
    }
    Ok(rows)
}

fn switches(rows: &mut Vec<Row>) -> Result<()> {
    let mode = guc::mode();
    rows.push(row(
        "mode",
        when(mode == guc::Mode::Off, State::Warning),
        format!("indexpilot.mode is {}", mode.as_str()),
        "Run ALTER SYSTEM SET indexpilot.mode = 'advise' and SELECT pg_reload_conf().",
    ));
    let control = store::control::get()?;
    rows.push(row(
        "switch",
        when(control.disabled, State::Warning),
        match &control.disabled_reason {
            Some(why) if control.disabled => format!("disable_system() was called in this database: {why}"),
            _ if control.disabled => "disable_system() was called in this database".into(),
            _ => "the database is enabled".into(),
        },
        "SELECT indexpilot.enable_system().",
    ));
    let off: Vec<&str> = [
        ("indexpilot.capture (in this session)", guc::capture() || mode == guc::Mode::Off),
        ("indexpilot.select", guc::select() || mode < guc::Mode::Advise),
        ("indexpilot.apply", guc::apply() || mode < guc::Mode::Apply),
        ("indexpilot.verify", guc::verify()),
    ]
    .into_iter()
    .filter_map(|(name, on)| (!on).then_some(name))
    .collect();
    rows.push(row(
        "stages",
        when(!off.is_empty(), State::Warning),
        if off.is_empty() {
            "no stage that the mode wants is switched off".into()
        } else {
            format!("switched off: {}", off.join(", "))
        },
        "Without verify, an index that does harm stays. ALTER SYSTEM SET the named ones to on, and SELECT pg_reload_conf().",
    ));
    Ok(())
}

/// Seconds since a moment; none when the clock was set back since.
fn since(at: Option<f64>) -> Option<f64> {
    at.map(|at| time::now() - at).filter(|s| *s >= -SKEW_S)
}

/// Seconds within which a worker comes by when all is well.
fn patience_s() -> f64 {
    3.0 * guc::worker_interval().as_secs_f64() + 30.0
}

fn processes(rows: &mut Vec<Row>) {
    if bgworker::in_recovery() {
        rows.push(row("launcher", State::Ok, "the server is a standby: it captures, and no worker runs", ""));
        return;
    }
    let Some(w) = worker::processes() else { return };
    rows.push(row(
        "launcher",
        when(w.launcher == 0, State::Error),
        if w.launcher == 0 { "no launcher runs".into() } else { format!("process {}", w.launcher) },
        "It is started again within seconds; if not, the server's log says why.",
    ));
    rows.push(row(
        "slots",
        when(w.retry_at.is_some() || w.unserved > 0, State::Warning),
        match (w.retry_at.is_some(), w.unserved) {
            (true, _) => format!("the server has no slot for a worker; it had none {} times", w.refused),
            (false, 0) => "workers find a slot".into(),
            (false, n) => format!("{n} times a database was left alone because too many are looked after"),
        },
        if w.retry_at.is_some() {
            "Raise max_worker_processes and restart the server."
        } else {
            "A server looks after 256 databases that have the extension."
        },
    ));
    let here: Option<state::Known> = w.database;
    // A visit takes as long as its analysis does.
    let visit_s = here.filter(|k| k.worker != 0).and_then(|k| since(k.begun_at));
    let visited_now = visit_s.is_some_and(|s| s <= patience_s());
    let failed = here.map_or(0, |k| k.failed_steps);
    let more = match (visit_s, failed) {
        (Some(s), _) => format!("; one has been going on for {:.0} s", s.max(0.0)),
        (None, 0) => String::new(),
        (None, n) => format!("; {n} of its steps failed"),
    };
    for (name, at, what) in [
        ("worker", here.and_then(|k| k.visited_at), "the last visit of a worker"),
        ("flush", here.and_then(|k| k.flushed_at), "the last writing of what was captured"),
    ] {
        let ago = since(at);
        rows.push(row(
            name,
            when(
                at.is_none() || ago.is_some_and(|s| s > patience_s() && !visited_now) || (name == "worker" && failed > 0),
                State::Warning,
            ),
            match (at, ago) {
                (None, _) => format!("{what} is still to come"),
                (Some(_), None) => format!("{what} was before the clock was set back"),
                (Some(_), Some(s)) => {
                    format!("{what} was {:.0} s ago{}", s.max(0.0), if name == "worker" { more.as_str() } else { "" })
                }
            },
            "The server's log has what the worker says (lines with indexpilot).",
        ));
    }
}

/// How many of the databases that have the extension are not captured.
pub fn left_out(registered: &[u32], captured: &[u32]) -> usize {
    registered.iter().filter(|database| !captured.contains(database)).count()
}

fn captured(rows: &mut Vec<Row>, c: &capture::Status) {
    let registered = worker::processes().map_or_else(Vec::new, |w| w.registered);
    let others = left_out(&registered, &c.databases);
    let here = database::current().to_u32();
    let among = if registered.contains(&here) && !c.databases.contains(&here) { ", this one among them" } else { "" };
    rows.push(row(
        "capture_databases",
        when(others > 0, State::Warning),
        match others {
            0 => format!("{} of at most {} databases are captured", c.databases.len(), c.databases_capacity),
            n => format!(
                "{} databases are captured, and there is no room for {n} more that have the extension{among}",
                c.databases.len()
            ),
        },
        &format!(
            "A server captures {} databases. DROP EXTENSION indexpilot where it is needed least, and another one gets the place.",
            c.databases_capacity
        ),
    ));
    rows.push(row(
        "capture_memory",
        when(c.dropped > 0, State::Warning),
        format!("{} of {} templates have room, {} executions were not counted", c.entries, c.capacity, c.dropped),
        "Raise indexpilot.capture_max_queries and restart the server.",
    ));
    rows.push(row(
        "capture_failures",
        when(c.failures > 0, State::Warning),
        format!("{} failures inside capture, which cost nobody anything", c.failures),
        "Tell the authors; the server's log may have more.",
    ));
}

fn actions(rows: &mut Vec<Row>, f: &Figures) -> Result<()> {
    rows.push(row(
        "actions_failed",
        when(f.failed_today > 0, State::Warning),
        match &f.last_error {
            Some(e) if f.failed_today > 0 => format!("{} actions failed within a day, the last one with: {e}", f.failed_today),
            _ => format!("{} actions failed within a day", f.failed_today),
        },
        "SELECT id, statement, error_message FROM indexpilot.actions WHERE state = 'failed' ORDER BY finished_at DESC.",
    ));
    rows.push(row(
        "actions_blocked",
        when(f.blocked > 0, State::Warning),
        match &f.blocked_reason {
            Some(why) if f.blocked > 0 => format!("{} actions wait for somebody to change something: {why}", f.blocked),
            _ => format!("{} actions wait for somebody to change something", f.blocked),
        },
        "SELECT id, statement, blocked_reason FROM indexpilot.actions WHERE state = 'blocked'.",
    ));
    let long = f.oldest_waiting_s.is_some_and(|s| s > 86_400.0);
    let nobody = worker::processes().and_then(|w| w.database).is_none_or(|k| k.builder == 0);
    let overdue = f.due_s.filter(|s| nobody && *s > patience_s() && guc::mode() != guc::Mode::Off && !bgworker::in_recovery());
    rows.push(row(
        "actions_waiting",
        when(long || overdue.is_some(), State::Warning),
        match (&f.waiting_reason, overdue) {
            (_, Some(s)) => format!("{} actions wait for their turn, one of them for {s:.0} s without a process to carry it out", f.waiting),
            (Some(why), None) if f.waiting > 0 => format!("{} actions wait for their turn: {why}", f.waiting),
            _ => format!("{} actions wait for their turn", f.waiting),
        },
        if overdue.is_some() {
            "SELECT * FROM indexpilot.health_check() WHERE name IN ('preload', 'launcher', 'slots', 'worker') says why nobody comes."
        } else {
            "SELECT id, statement, blocked_reason, guard FROM indexpilot.actions WHERE state = 'queued'."
        },
    ));
    let held = f.held_s.filter(|s| *s > guc::guard_max_transaction_age().as_secs_f64());
    rows.push(row(
        "actions_building",
        when(held.is_some(), State::Warning),
        match (f.held_s, &f.held_by) {
            (Some(s), Some(pids)) => format!("{} actions run; one has been waiting {s:.0} s for processes {pids}", f.building),
            _ => format!("{} actions run", f.building),
        },
        "SELECT pid, usename, state, xact_start, query FROM pg_stat_activity WHERE pid IN (...) shows what the build waits for; indexpilot.cancel() ends it.",
    ));
    rows.push(row(
        "actions_abandoned",
        when(f.abandoned > 0, State::Warning),
        format!("{} actions run by their rows, and no process works on them", f.abandoned),
        "The next builder compares them with the catalog and clears up; wait for it.",
    ));
    let (state, detail) = match breaker()? {
        Breaker::Closed(n) => (State::Ok, format!("closed; {n} actions in a row went wrong")),
        Breaker::Open(n, left) => (State::Warning, format!("open: {n} actions in a row went wrong; one may try in {left:.0} s")),
        Breaker::HalfOpen(n) => (State::Warning, format!("half open: {n} actions in a row went wrong; the next one is the trial")),
        Breaker::Trying(n) => (State::Warning, format!("half open: {n} actions in a row went wrong; one tries")),
    };
    rows.push(row(
        "circuit_breaker",
        state,
        detail,
        "SELECT at, event, index_name, detail FROM indexpilot.timeline ORDER BY at DESC. What is asked for by a call is carried out at once.",
    ));
    Ok(())
}

/// What is hidden by the tables, and what plans make of it: after a crash, or when its file could not be read, shared memory may not have
/// it until a worker has looked. On a standby nothing is hidden.
fn hidden(f: &Figures) -> Result<Row> {
    let standby = bgworker::in_recovery();
    let differing = if standby || !capture::status().active { 0 } else { trial::differing(database::current())?.len() };
    let unsaved = visibility::unsaved();
    let mut detail = format!("{} indexes are hidden from plans", f.hidden);
    let mut hint = "";
    if standby && f.hidden > 0 {
        detail += " on the primary server, and on this one none is";
    }
    if f.left_hidden > 0 {
        detail += &format!("; of {} of them the drop failed", f.left_hidden);
        hint = "SELECT index_id::regclass, action_id, reason FROM indexpilot.hidden_indexes; drop them, or show_index() them.";
    }
    if unsaved {
        detail += "; the file that keeps them over a restart could not be written";
        hint = "The server's log says why; a worker tries again at each visit.";
    }
    if differing > 0 {
        detail += &format!("; of {differing} indexes plans do not know yet whether they are hidden");
        hint = "The next visit of a worker tells them. It needs a mode other than off.";
    }
    Ok(row("hidden_indexes", when(!hint.is_empty(), State::Warning), detail, hint))
}

fn indexes(rows: &mut Vec<Row>, f: &Figures) -> Result<()> {
    rows.push(row(
        "unusable_indexes",
        when(f.unusable_ours > 0 || f.unusable_others > 0, State::Warning),
        format!("{} unusable indexes of IndexPilot, {} of others", f.unusable_ours, f.unusable_others),
        "Those of IndexPilot are removed by the next builder. Others cost every write and help no query: SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid.",
    ));
    rows.push(row(
        "missing_indexes",
        when(f.missing > 0, State::Warning),
        format!("{} indexes that IndexPilot made were dropped by somebody else", f.missing),
        "SELECT table_name, index_name, definition FROM indexpilot.managed_indexes WHERE dropped_at IS NULL.",
    ));
    rows.push(hidden(f)?);
    let many = f.templates >= 20 && 2 * f.unplannable > f.templates;
    rows.push(row(
        "planning",
        when(many, State::Warning),
        format!("{} of {} query templates cannot be planned again", f.unplannable, f.templates),
        "SELECT query, plan_error FROM indexpilot.queries WHERE plan_state = 'unplannable' ORDER BY total_ms DESC.",
    ));
    let facts = Facts::new(Kind::Create, f.server_version);
    let findings = guard::review(&facts, &safeguard::config());
    if let Some(found) = findings.into_iter().find(|f| f.rule == "minor_version") {
        rows.push(row(
            "server_version",
            when(found.verdict != Verdict::Pass, State::Warning),
            found.detail,
            "Update the server to its latest minor release.",
        ));
    }
    let lag = if bgworker::in_recovery() { None } else { facts::replica_lag_bytes()? };
    if let (Some(lag), Some(limit)) = (lag, guc::guard_max_replica_lag()) {
        rows.push(row(
            "replica_lag",
            when(lag > limit, State::Warning),
            format!("a replica lags by {lag} bytes, the limit is {limit}"),
            "SELECT application_name, replay_lag FROM pg_stat_replication.",
        ));
    }
    Ok(())
}
