//! What the processes know of one another, in shared memory: which databases are looked after, who works where, what is wanted.
//!
//! A slot belongs to a database. A process may work for a database only while its process id stands in the slot ([`claim`]), and a
//! database that must be empty is held ([`hold`]); both happen under one lock, so a process either sees the hold or is seen by the
//! holder. After a crash restart everything is zero: nothing is known, and the launcher looks at every database again.

use crate::pg::shmem::{self, Locks, Mode, Region, shared};
use crate::pg::{bgworker, time};
use pgrx::pg_sys::Oid;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst};

/// Databases that can be looked after; further ones are left alone, which the status shows.
const SLOTS: usize = 256;

shared! {
    struct Slot {
        /// OID; 0 when the slot is free.
        database: AtomicU32,
        /// The extension is installed there.
        registered: AtomicBool,
        /// Somebody wants a visit soon.
        visit: AtomicBool,
        /// Somebody wants a builder soon.
        build: AtomicBool,
        /// Commands that need the database empty.
        holds: AtomicU32,
        /// Commands that need our tables unused.
        pauses: AtomicU32,
        worker: AtomicI32,
        builder: AtomicI32,
        /// The builder runs a command that changes indexes, and uses none of our tables meanwhile.
        commanding: AtomicBool,
        /// The action whose command that is: what follows it is not to be interrupted. 0 when there is none.
        running: AtomicI64,
        /// Library and objects were of different versions at the last visit.
        mismatched: AtomicBool,
        /// There was no room to capture it, and the log says so.
        left_out: AtomicBool,
        /// When the last visit ended, and when what was captured was last written; milliseconds since the Unix epoch, 0 for never.
        visited_ms: AtomicI64,
        flushed_ms: AtomicI64,
        /// When the visit that goes on, or the last one, began.
        begun_ms: AtomicI64,
        /// Steps of the last visit that failed.
        failed_steps: AtomicU32,
    }
}

shared! {
    struct State {
        launcher: AtomicI32,
        /// Databases may have appeared that nobody has looked at.
        probe: AtomicBool,
        /// Times that the server had no slot for a worker.
        refused: AtomicU64,
        /// When a worker is asked for again after that; milliseconds since the Unix epoch, 0 when nothing is refused.
        retry_at_ms: AtomicI64,
        /// Databases for which there was no slot of ours.
        unserved: AtomicU64,
        slots: [Slot; SLOTS],
    }
}

static STATE: Region<State> = Region::new(c"indexpilot worker", || 1, |_| ());
static LOCK: Locks = Locks::new(c"indexpilot_worker", 1);

/// What a process does for a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Worker,
    Builder,
}

impl Slot {
    fn pid(&self, role: Role) -> &AtomicI32 {
        match role {
            Role::Worker => &self.worker,
            Role::Builder => &self.builder,
        }
    }

    fn wanted(&self, role: Role) -> &AtomicBool {
        match role {
            Role::Worker => &self.visit,
            Role::Builder => &self.build,
        }
    }

    /// Our processes may begin to work there.
    fn open(&self) -> bool {
        self.holds.load(SeqCst) == 0 && self.pauses.load(SeqCst) == 0
    }

    fn idle(&self) -> bool {
        !self.registered.load(SeqCst)
            && !self.visit.load(SeqCst)
            && !self.build.load(SeqCst)
            && self.open()
            && self.worker.load(SeqCst) == 0
            && self.builder.load(SeqCst) == 0
    }
}

impl State {
    fn find(&self, database: Oid) -> Option<&Slot> {
        self.slots.iter().find(|s| s.database.load(SeqCst) == database.to_u32())
    }

    /// Only under the lock.
    fn find_or_add(&self, database: Oid) -> Option<&Slot> {
        if database.to_u32() == 0 {
            return None;
        }
        let slot = self.find(database).or_else(|| {
            let free = self.slots.iter().find(|s| s.database.load(SeqCst) == 0)?;
            free.visited_ms.store(0, SeqCst);
            free.flushed_ms.store(0, SeqCst);
            free.begun_ms.store(0, SeqCst);
            free.failed_steps.store(0, SeqCst);
            free.mismatched.store(false, SeqCst);
            free.left_out.store(false, SeqCst);
            free.database.store(database.to_u32(), SeqCst);
            Some(free)
        });
        if slot.is_none() {
            self.unserved.fetch_add(1, SeqCst);
        }
        slot
    }
}

/// Has room made in shared memory. Only from `_PG_init`.
pub fn init() {
    shmem::register(&[&STATE], &[&LOCK]);
}

/// `None` when the library was not preloaded.
fn there() -> Option<&'static State> {
    STATE.get()?.first()
}

/// Runs `f` while no other process runs anything under the lock. `f` must be short and must not raise.
fn locked<R>(f: impl FnOnce(&'static State) -> R) -> Option<R> {
    let state = there()?;
    let _lock = LOCK.wait_lock(0, Mode::Exclusive)?;
    Some(f(state))
}

fn wake_launcher() {
    if let Some(state) = there() {
        bgworker::wake_process(state.launcher.load(SeqCst));
    }
}

/// This process is the launcher.
pub fn launcher_begins() {
    locked(|state| {
        state.launcher.store(bgworker::pid(), SeqCst);
        state.probe.store(true, SeqCst);
        state.retry_at_ms.store(0, SeqCst);
    });
}

/// This process no longer is the launcher.
pub fn launcher_ends() {
    if let Some(state) = there() {
        let _ = state.launcher.compare_exchange(bgworker::pid(), 0, SeqCst, SeqCst);
    }
}

/// This process begins to work for the database; `false` when another one does, when the database must be empty, or when there is
/// no slot.
pub fn claim(database: Oid, role: Role) -> bool {
    locked(|state| {
        state.find_or_add(database).is_some_and(|slot| {
            let taken = slot.open() && slot.pid(role).compare_exchange(0, bgworker::pid(), SeqCst, SeqCst).is_ok();
            if taken && role == Role::Worker {
                slot.begun_ms.store(now_ms(), SeqCst);
            }
            taken
        })
    })
    .unwrap_or(false)
}

/// This process has ended its work, wherever it worked.
pub fn release() {
    let Some(state) = there() else { return };
    let me = bgworker::pid();
    for slot in &state.slots {
        if slot.builder.load(SeqCst) == me {
            slot.commanding.store(false, SeqCst);
            slot.running.store(0, SeqCst);
        }
        for role in [Role::Worker, Role::Builder] {
            let _ = slot.pid(role).compare_exchange(me, 0, SeqCst, SeqCst);
        }
    }
}

/// The extension is, or is not, installed in the database.
pub fn set_registered(database: Oid, registered: bool) {
    locked(|state| {
        let slot = if registered { state.find_or_add(database) } else { state.find(database) };
        if let Some(slot) = slot {
            slot.registered.store(registered, SeqCst);
            if !registered {
                slot.build.store(false, SeqCst);
            }
        }
    });
}

/// The database is gone.
pub fn forget(database: Oid) {
    locked(|state| {
        if let Some(slot) = state.find(database) {
            slot.registered.store(false, SeqCst);
            slot.visit.store(false, SeqCst);
            slot.build.store(false, SeqCst);
        }
    });
}

/// Asks for a process soon. Nothing happens when the library was not preloaded.
pub fn want(database: Oid, role: Role) {
    locked(|state| {
        if let Some(slot) = state.find_or_add(database) {
            slot.wanted(role).store(true, SeqCst);
        }
    });
    wake_launcher();
}

/// Asks for a look at databases that nobody has looked at.
pub fn want_probe() {
    if let Some(state) = there() {
        state.probe.store(true, SeqCst);
        wake_launcher();
    }
}

/// The launcher takes the wish for a look at unknown databases.
pub fn take_probe() -> bool {
    there().is_some_and(|state| state.probe.swap(false, SeqCst))
}

/// A process of ours works for the database.
pub fn busy(database: Oid, role: Role) -> bool {
    there().and_then(|state| state.find(database)).is_some_and(|slot| slot.pid(role).load(SeqCst) != 0)
}

/// Keeps our processes out of the database until [`unhold`], and returns those that are in it.
pub fn hold(database: Oid) -> Vec<i32> {
    locked(|state| match state.find_or_add(database) {
        Some(slot) => {
            slot.holds.fetch_add(1, SeqCst);
            [slot.worker.load(SeqCst), slot.builder.load(SeqCst)].into_iter().filter(|pid| *pid != 0).collect()
        }
        None => Vec::new(),
    })
    .unwrap_or_default()
}

/// Takes back one [`hold`].
pub fn unhold(database: Oid) {
    locked(|state| {
        if let Some(slot) = state.find(database) {
            let _ = slot.holds.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1));
        }
    });
    wake_launcher();
}

/// Keeps our tables in the database unused until [`resume`], and returns the processes that must end for that. A builder goes on with the
/// command that it runs, and comes back to our tables afterwards only.
pub fn pause(database: Oid) -> Vec<i32> {
    locked(|state| match state.find_or_add(database) {
        Some(slot) => {
            slot.pauses.fetch_add(1, SeqCst);
            let builder = if slot.commanding.load(SeqCst) { 0 } else { slot.builder.load(SeqCst) };
            [slot.worker.load(SeqCst), builder].into_iter().filter(|pid| *pid != 0).collect()
        }
        None => Vec::new(),
    })
    .unwrap_or_default()
}

/// Takes back one [`pause`].
pub fn resume(database: Oid) {
    locked(|state| {
        if let Some(slot) = state.find(database) {
            let _ = slot.pauses.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1));
        }
    });
    wake_launcher();
}

/// The builder, which is this process, begins or ends to run a command that changes indexes; `false` when it may not yet, because
/// somebody needs our tables unused.
pub fn commanding(database: Oid, begins: bool) -> bool {
    locked(|state| match state.find(database) {
        Some(slot) if slot.pauses.load(SeqCst) == 0 => {
            slot.commanding.store(begins, SeqCst);
            true
        }
        Some(_) => false,
        None => true,
    })
    .unwrap_or(true)
}

/// The builder, which is this process, begins the command of an action; 0: it has ended.
pub fn set_running(database: Oid, action: i64) {
    if let Some(slot) = there().and_then(|state| state.find(database)) {
        slot.running.store(action, SeqCst);
    }
}

/// The command of this action runs.
pub fn is_running(database: Oid, action: i64) -> bool {
    there().and_then(|state| state.find(database)).is_some_and(|slot| slot.running.load(SeqCst) == action)
}

/// One of these processes still works for the database.
pub fn any_left(database: Oid, processes: &[i32]) -> bool {
    there()
        .and_then(|state| state.find(database))
        .is_some_and(|slot| [Role::Worker, Role::Builder].into_iter().any(|role| processes.contains(&slot.pid(role).load(SeqCst))))
}

/// A database as the launcher sees it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub database: Oid,
    pub registered: bool,
    pub visit: bool,
    pub build: bool,
    pub held: bool,
    pub worker: i32,
    pub builder: i32,
    /// When the last visit ended, seconds since the Unix epoch.
    pub visited_at: Option<f64>,
    /// When what was captured was last written to the tables.
    pub flushed_at: Option<f64>,
    /// When the visit that goes on, or the last one, began.
    pub begun_at: Option<f64>,
    /// Steps of the last visit that failed.
    pub failed_steps: u32,
}

/// All databases that have a slot. Slots that nobody needs are freed on the way.
pub fn sweep() -> Vec<Known> {
    locked(|state| {
        let mut known = Vec::new();
        for slot in &state.slots {
            let database = slot.database.load(SeqCst);
            if database == 0 {
                continue;
            }
            if slot.idle() {
                slot.database.store(0, SeqCst);
                continue;
            }
            known.push(read(slot, database));
        }
        known
    })
    .unwrap_or_default()
}

fn read(slot: &Slot, database: u32) -> Known {
    Known {
        database: Oid::from(database),
        registered: slot.registered.load(SeqCst),
        visit: slot.visit.load(SeqCst),
        build: slot.build.load(SeqCst),
        held: !slot.open(),
        worker: slot.worker.load(SeqCst),
        builder: slot.builder.load(SeqCst),
        visited_at: time_of(&slot.visited_ms),
        flushed_at: time_of(&slot.flushed_ms),
        begun_at: time_of(&slot.begun_ms),
        failed_steps: slot.failed_steps.load(SeqCst),
    }
}

fn time_of(ms: &AtomicI64) -> Option<f64> {
    Some(ms.load(SeqCst)).filter(|ms| *ms != 0).map(|ms| ms as f64 / 1e3)
}

fn now_ms() -> i64 {
    (time::now() * 1e3) as i64
}

/// A visit of the database has ended, in which so many steps failed.
pub fn visited(database: Oid, failed_steps: u32) {
    if let Some(slot) = there().and_then(|state| state.find(database)) {
        slot.failed_steps.store(failed_steps, SeqCst);
        slot.visited_ms.store(now_ms(), SeqCst);
    }
}

/// Notes whether library and objects of the database are of different versions; `true` when they are and were not before.
pub fn mismatch(database: Oid, is: bool) -> bool {
    let slot = there().and_then(|state| state.find(database));
    slot.is_some_and(|slot| !slot.mismatched.swap(is, SeqCst) && is)
}

/// Notes whether there was no room to capture the database; `true` when there is none and there was before.
pub fn left_out(database: Oid, is: bool) -> bool {
    let slot = there().and_then(|state| state.find(database));
    slot.is_some_and(|slot| !slot.left_out.swap(is, SeqCst) && is)
}

/// What was captured in the database has been written to the tables.
pub fn flushed(database: Oid) {
    if let Some(slot) = there().and_then(|state| state.find(database)) {
        slot.flushed_ms.store(now_ms(), SeqCst);
    }
}

/// The launcher takes the wish for a process, because it has asked the server for one.
pub fn taken(database: Oid, role: Role) {
    if let Some(slot) = there().and_then(|state| state.find(database)) {
        slot.wanted(role).store(false, SeqCst);
    }
}

/// The server had no slot for a worker; `retry_s` seconds from now it is asked again.
pub fn refused(retry_s: f64) {
    if let Some(state) = there() {
        state.refused.fetch_add(1, SeqCst);
        state.retry_at_ms.store(((time::now() + retry_s) * 1e3) as i64, SeqCst);
    }
}

/// The server had a slot again.
pub fn accepted() {
    if let Some(state) = there() {
        state.retry_at_ms.store(0, SeqCst);
    }
}

/// The processes, for the view `status`.
#[derive(Clone, Debug)]
pub struct Status {
    /// Process id; 0 when there is none.
    pub launcher: i32,
    /// Times that the server had no slot for a worker (max_worker_processes) since it started.
    pub refused: u64,
    /// When a worker is asked for again after that, seconds since the Unix epoch.
    pub retry_at: Option<f64>,
    /// Times that a database was left alone because too many are looked after.
    pub unserved: u64,
    /// OIDs of the databases in which a worker found the extension.
    pub registered: Vec<u32>,
    /// This session's database, when it has a slot.
    pub database: Option<Known>,
}

/// `None` when the library was not preloaded.
pub fn status(database: Oid) -> Option<Status> {
    let state = there()?;
    let retry_at_ms = state.retry_at_ms.load(SeqCst);
    Some(Status {
        launcher: state.launcher.load(SeqCst),
        refused: state.refused.load(SeqCst),
        retry_at: (retry_at_ms != 0).then_some(retry_at_ms as f64 / 1e3),
        unserved: state.unserved.load(SeqCst),
        registered: state.slots.iter().filter(|s| s.registered.load(SeqCst)).map(|s| s.database.load(SeqCst)).collect(),
        database: state.find(database).map(|slot| read(slot, database.to_u32())),
    })
}
