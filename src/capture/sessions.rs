//! Which sessions have counted something that they have not handed in yet, so that they can be asked for it.
//!
//! A session hands in at the end of a transaction (`backend.rs`). One that has gone idle since is woken by the interrupt with which
//! the server itself makes idle sessions catch up on invalidations (sinval.c): it runs an empty transaction, at whose end it hands in.

use crate::pg::session;
use crate::pg::shmem::{Region, shared};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

shared! {
    struct Session {
        /// Process, as long as it has something to hand in.
        pid: AtomicU32,
        database: AtomicU32,
        /// Counts the times that it handed in.
        handed_in: AtomicU64,
    }
}

static SESSIONS: Region<Session> = Region::new(c"indexpilot capture sessions", session::count, |_| ());

/// Asks for the memory. From `_PG_init`.
pub fn init() {
    crate::pg::shmem::register(&[&SESSIONS], &[]);
}

fn own() -> Option<&'static Session> {
    SESSIONS.get()?.get(session::index()?)
}

/// This session has something to hand in.
pub fn waiting(database: u32) {
    if let Some(session) = own() {
        session.database.store(database, Relaxed);
        session.pid.store(std::process::id(), Relaxed);
    }
}

/// This session has handed in everything.
pub fn done() {
    if let Some(session) = own() {
        session.pid.store(0, Relaxed);
        session.handed_in.fetch_add(1, Relaxed);
    }
}

/// Asks the sessions of a database that have something to hand in; waits for them at most that long, and heeds interrupts meanwhile.
/// Sessions in the middle of a transaction hand in at its end.
pub fn ask(database: u32, patience: Duration) {
    let Some(sessions) = SESSIONS.get() else { return };
    let own = session::index();
    let mut asked: Vec<(&Session, u64)> = Vec::new();
    for (at, session) in sessions.iter().enumerate().filter(|(at, _)| Some(*at) != own) {
        let (pid, since) = (session.pid.load(Relaxed), session.handed_in.load(Relaxed));
        if pid != 0 && session.database.load(Relaxed) == database {
            session::ask_to_catch_up(pid as i32, at);
            asked.push((session, since));
        }
    }
    let start = Instant::now();
    while start.elapsed() < patience
        && asked.iter().any(|(s, since)| s.pid.load(Relaxed) != 0 && s.handed_in.load(Relaxed) == *since)
    {
        crate::pg::time::sleep(Duration::from_millis(2));
    }
}

/// Shared memory, bytes.
pub fn bytes() -> u64 {
    SESSIONS.get().map_or(0, |all| size_of_val(all) as u64)
}
