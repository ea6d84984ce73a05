//! The launcher: one process for the server, connected to no database. It decides when which database gets a visit of the worker or
//! a builder, and asks the postmaster for them.

use super::state::{self, Known, Role};
use crate::pg::bgworker::{self, Handle, Registration};
use crate::pg::database as databases;
use crate::pg::error::Result;
use crate::{capture, guc};
use pgrx::pg_sys::{self, Oid};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Processes of one role at the same time, over all databases: the server's slots (max_worker_processes, 8 by default) are shared
/// with parallel queries and replication.
const AT_ONCE: usize = 2;
/// Unknown databases that take a slot of ours at the same time, to be looked at once.
const PROBES_AT_ONCE: usize = 64;
/// First wait after the server had no slot; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Wait when there is nothing to do: the latch ends it.
const LONG: Duration = Duration::from_secs(3600);

/// Registers the launcher with the postmaster.
pub fn register() {
    bgworker::register_static(&Registration {
        name: c"indexpilot launcher",
        function: c"indexpilot_launcher",
        database: Oid::INVALID,
        restart: Some(5),
    });
}

/// Entry point of the launcher.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn indexpilot_launcher(_argument: pg_sys::Datum) {
    if bgworker::out_of_service() {
        return;
    }
    bgworker::at_exit(state::launcher_ends);
    bgworker::accept_signals();
    bgworker::connect(None);
    bgworker::override_settings();
    state::launcher_begins();
    let mut launcher = Launcher::default();
    loop {
        bgworker::reload_if_asked();
        let pause = if guc::mode() == guc::Mode::Off || bgworker::in_recovery() {
            LONG
        } else {
            launcher.round().unwrap_or_else(|e| {
                pgrx::warning!("indexpilot: worker: the launcher could not do its round: {e}");
                Duration::from_secs(5)
            })
        };
        bgworker::wait(pause);
    }
}

struct Started {
    database: Oid,
    role: Role,
    handle: Handle,
}

#[derive(Default)]
struct Launcher {
    /// Asked for by this launcher and not ended yet.
    started: Vec<Started>,
    /// Looked at since this launcher began.
    probed: HashSet<u32>,
    /// More databases are to be looked at than at once.
    more: bool,
    /// When the last visit was asked for.
    visited: HashMap<u32, Instant>,
    /// No process is asked for before this time, because the server had no slot.
    retry: Option<(Instant, Duration)>,
}

impl Launcher {
    /// Starts what is due; returns how long nothing will be.
    fn round(&mut self) -> Result<Duration> {
        self.started.retain(|s| !s.handle.stopped());
        if let Some((at, _)) = self.retry {
            let now = Instant::now();
            if now < at {
                return Ok(at - now);
            }
        }
        let interval = guc::worker_interval();
        let mut known = state::sweep();
        let probing = state::take_probe() || self.more;
        let due = |k: &Known, me: &Self| k.build || k.visit || (k.registered && me.rest(k.database, interval).is_zero());
        if probing || known.iter().any(|k| due(k, self)) {
            let connectable: HashSet<u32> = self.databases()?;
            self.probed.retain(|db| connectable.contains(db));
            self.visited.retain(|db, _| connectable.contains(db));
            for k in known.iter().filter(|k| !connectable.contains(&k.database.to_u32())) {
                state::forget(k.database);
            }
            known.retain(|k| connectable.contains(&k.database.to_u32()));
            // Also those that were captured before a restart, and are gone.
            for gone in capture::status().databases.into_iter().filter(|db| !connectable.contains(db)) {
                capture::unregister_database(Oid::from(gone));
            }
            let mut unknown: Vec<u32> = connectable.into_iter().filter(|db| !self.probed.contains(db)).collect();
            unknown.sort_unstable();
            self.more = unknown.len() > PROBES_AT_ONCE;
            for database in unknown.into_iter().take(PROBES_AT_ONCE) {
                self.probed.insert(database);
                if !known.iter().any(|k| k.registered && k.database.to_u32() == database) {
                    state::want(Oid::from(database), Role::Worker);
                }
            }
            known = state::sweep();
        }
        // Who has waited longest comes first: where all visits together take longer than the interval, those behind would never come.
        known.sort_by_key(|k| self.visited.get(&k.database.to_u32()).copied());
        for k in &known {
            if k.build && !self.start(k, Role::Builder) {
                break;
            }
            if (k.visit || (k.registered && self.rest(k.database, interval).is_zero())) && !self.start(k, Role::Worker) {
                break;
            }
        }
        if let Some((at, _)) = self.retry {
            return Ok(at.saturating_duration_since(Instant::now()));
        }
        // What could not start because too many run already, or because one still runs there, is looked at when one ends.
        let next = known.iter().filter(|k| k.registered).map(|k| self.rest(k.database, interval)).filter(|d| !d.is_zero()).min();
        Ok(next.unwrap_or(if known.is_empty() { LONG } else { interval }).max(Duration::from_millis(20)))
    }

    fn databases(&self) -> Result<HashSet<u32>> {
        bgworker::transaction("indexpilot: looking for databases", || {
            Ok(databases::connectable().into_iter().map(|db| db.to_u32()).collect())
        })
    }

    /// Time until the next regular visit.
    fn rest(&self, database: Oid, interval: Duration) -> Duration {
        self.visited.get(&database.to_u32()).map_or(Duration::ZERO, |at| interval.saturating_sub(at.elapsed()))
    }

    /// Asks for a process unless one works there, too many run, or the database is held; `false` when the server has no slot left.
    fn start(&mut self, k: &Known, role: Role) -> bool {
        let running = match role {
            Role::Worker => k.worker,
            Role::Builder => k.builder,
        };
        let asked = self.started.iter().any(|s| s.database == k.database && s.role == role);
        if k.held || running != 0 || asked || self.started.iter().filter(|s| s.role == role).count() >= AT_ONCE {
            return true;
        }
        let (name, function) = match role {
            Role::Worker => (c"indexpilot worker", c"indexpilot_worker"),
            Role::Builder => (c"indexpilot builder", c"indexpilot_builder"),
        };
        match bgworker::register_dynamic(&Registration { name, function, database: k.database, restart: None }) {
            Some(handle) => {
                state::taken(k.database, role);
                if role == Role::Worker {
                    self.visited.insert(k.database.to_u32(), Instant::now());
                }
                self.started.push(Started { database: k.database, role, handle });
                if self.retry.take().is_some() {
                    state::accepted();
                    pgrx::log!("indexpilot: worker: the server has slots for workers again");
                }
                true
            }
            None => {
                let pause = self.retry.map_or(FIRST_RETRY, |(_, pause)| (pause * 2).min(LONGEST_RETRY));
                if self.retry.is_none() {
                    pgrx::log!(
                        "indexpilot: worker: the server has no slot left for a worker (max_worker_processes); trying again with growing pauses"
                    );
                }
                self.retry = Some((Instant::now() + pause, pause));
                state::refused(pause.as_secs_f64());
                false
            }
        }
    }
}
