//! The session's part of capture: which top-level statements are running now, and what they have cost so far.
//!
//! A statement is known by the address of its QueryDesc from ExecutorStart to ExecutorEnd. After an error ExecutorEnd is not called:
//! then the callbacks for aborted (sub)transactions settle what is left.

use super::table::{Execution, Key, Known, Table, Template};
use super::{databases, suspended};
use crate::guc;
use crate::pg::shmem::{Region, shared};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Statements that a session may have open at a time (cursors); more are not tracked.
const MAX_RUNNING: usize = 64;
/// Templates whose first execution in this session need not be noticed again.
const SEEN: usize = 256;
/// Samples that every template gets at once; later ones come with every doubling of its executions.
const FIRST_SAMPLES: u32 = 3;

shared! {
    struct Counters {
        epoch: AtomicU64,
        without_queryid: AtomicU64,
        untracked: AtomicU64,
        failures: AtomicU64,
    }
}

static COUNTERS: Region<Counters> = Region::new(
    c"indexpilot capture counters",
    || 1,
    |counters| {
        counters.iter().for_each(|c| c.epoch.store((crate::pg::time::now() * 1e6) as u64, Relaxed));
    },
);

/// Asks for the memory. From `_PG_init`.
pub fn init() {
    crate::pg::shmem::register(&[&COUNTERS], &[]);
}

/// Figures that all sessions add to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub epoch: u64,
    pub without_queryid: u64,
    pub untracked: u64,
    pub failures: u64,
}

pub fn usage() -> Usage {
    counters().map_or_else(Usage::default, |c| Usage {
        epoch: c.epoch.load(Relaxed),
        without_queryid: c.without_queryid.load(Relaxed),
        untracked: c.untracked.load(Relaxed),
        failures: c.failures.load(Relaxed),
    })
}

fn counters() -> Option<&'static Counters> {
    COUNTERS.get()?.first()
}

/// A statement had no query identifier.
pub fn without_queryid() {
    if let Some(c) = counters() {
        c.without_queryid.fetch_add(1, Relaxed);
    }
}

/// The capture code failed and was stopped.
pub fn failure() {
    if let Some(c) = counters() {
        c.failures.fetch_add(1, Relaxed);
    }
}

#[derive(Clone, Copy)]
struct Running {
    /// Address of the QueryDesc.
    id: usize,
    subtransaction: u32,
    key: Key,
    hash: u64,
    template: Template,
    so_far: Execution,
    /// Inside ExecutorRun or ExecutorFinish.
    active: bool,
    ran: bool,
    /// A sample was wanted at the start, so none is at the end.
    sampled: bool,
}

struct Backend {
    running: [Running; MAX_RUNNING],
    count: usize,
    seen: [u64; SEEN],
    /// The list of databases at this version said this of ours.
    version: u64,
    database: u32,
    registered: bool,
}

const IDLE: Execution =
    Execution { failed: false, ns: 0, rows: 0, planner_cost: 0.0, blocks_hit: 0, blocks_read: 0, blocks_temp: 0, wal_bytes: 0 };

const NOTHING: Running = Running {
    id: 0,
    subtransaction: 0,
    key: Key::EMPTY,
    hash: 0,
    template: Template::EMPTY,
    so_far: IDLE,
    active: false,
    ran: false,
    sampled: false,
};

thread_local! {
    static BACKEND: RefCell<Backend> = const {
        RefCell::new(Backend {
            running: [NOTHING; MAX_RUNNING],
            count: 0,
            seen: [0; SEEN],
            version: u64::MAX,
            database: 0,
            registered: false,
        })
    };
}

/// Capture must never raise: where the state is in use already (which never happens), nothing is done.
fn with<T>(default: T, f: impl FnOnce(&mut Backend) -> T) -> T {
    BACKEND.with(|b| match b.try_borrow_mut() {
        Ok(mut backend) => f(&mut backend),
        Err(_) => default,
    })
}

impl Backend {
    fn position(&self, id: usize) -> Option<usize> {
        self.running.iter().take(self.count).position(|r| r.id == id)
    }

    fn find(&mut self, id: usize) -> Option<&mut Running> {
        let count = self.count;
        self.running.iter_mut().take(count).find(|r| r.id == id)
    }

    fn remove(&mut self, at: usize) -> Option<Running> {
        let removed = *self.running.get(at)?;
        self.count = self.count.checked_sub(1)?;
        let last = *self.running.get(self.count)?;
        *self.running.get_mut(at)? = last;
        Some(removed)
    }

    /// Settles statements that will not end any more: an error when they were in the middle, else an execution like any other.
    fn settle(&mut self, which: impl Fn(&Running) -> bool) {
        let mut at = 0;
        while at < self.count {
            match self.running.get(at).filter(|r| which(r)) {
                None => at += 1,
                Some(_) => {
                    if let Some(mut left) = self.remove(at) {
                        left.so_far.failed |= left.active;
                        left.record();
                    }
                }
            }
        }
    }
}

impl Running {
    fn record(&self) -> Option<Known> {
        if !self.ran && !self.so_far.failed {
            return None;
        }
        Table::get()?.record(&self.key, self.hash, &self.template, &self.so_far)
    }
}

/// This session's statements are captured now.
pub fn enabled(database: u32) -> bool {
    guc::capture() && !suspended() && counters().is_some() && {
        let version = databases::version();
        with(false, |b| {
            if b.version != version || b.database != database {
                (b.version, b.database, b.registered) = (version, database, databases::contains(database));
            }
            b.registered
        })
    }
}

/// A statement began. True when a sample of it is wanted already now, because few are known and it might never end.
pub fn start(id: usize, subtransaction: u32, key: &Key, hash: u64, template: &Template, planner_cost: f64) -> bool {
    let first = with(false, |b| {
        // A statement of that address that was never ended nor aborted cannot be running any more.
        b.settle(|r| r.id == id);
        let count = b.count;
        let Some(free) = b.running.get_mut(count) else {
            if let Some(c) = counters() {
                c.untracked.fetch_add(1, Relaxed);
            }
            return false;
        };
        let so_far = Execution { planner_cost, ..IDLE };
        *free =
            Running { id, subtransaction, key: *key, hash, template: *template, so_far, active: false, ran: false, sampled: false };
        b.count += 1;
        match b.seen.get_mut(hash as usize % SEEN) {
            Some(seen) if *seen != hash => {
                *seen = hash;
                true
            }
            _ => false,
        }
    });
    let wanted =
        first && Table::get().and_then(|t| t.touch(key, hash, template)).is_some_and(|known| known.sampled < FIRST_SAMPLES);
    if wanted {
        with((), |b| b.find(id).into_iter().for_each(|r| r.sampled = true));
    }
    wanted
}

/// ExecutorRun or ExecutorFinish begins; true when the statement is tracked.
pub fn resume(id: usize) -> bool {
    with(false, |b| {
        b.find(id).is_some_and(|r| {
            (r.active, r.ran) = (true, true);
            true
        })
    })
}

/// ExecutorRun or ExecutorFinish is over, with what it has cost.
pub fn pause(id: usize, cost: &Execution) {
    with((), |b| {
        if let Some(r) = b.find(id) {
            r.active = false;
            r.so_far.failed |= cost.failed;
            r.so_far.ns = r.so_far.ns.saturating_add(cost.ns);
            r.so_far.rows = r.so_far.rows.saturating_add(cost.rows);
            r.so_far.blocks_hit = r.so_far.blocks_hit.saturating_add(cost.blocks_hit);
            r.so_far.blocks_read = r.so_far.blocks_read.saturating_add(cost.blocks_read);
            r.so_far.blocks_temp = r.so_far.blocks_temp.saturating_add(cost.blocks_temp);
            r.so_far.wal_bytes = r.so_far.wal_bytes.saturating_add(cost.wal_bytes);
        }
    });
}

/// The statement is over. Its template, when a further sample of it is wanted.
pub fn end(id: usize) -> Option<(Key, u64, Template)> {
    let ended = with(None, |b| b.position(id).and_then(|at| b.remove(at)))?;
    let known = ended.record()?;
    (!ended.sampled && (known.sampled < FIRST_SAMPLES || known.lifetime.is_power_of_two())).then_some((
        ended.key,
        ended.hash,
        ended.template,
    ))
}

/// The transaction is over, one way or the other.
pub fn end_transaction() {
    with((), |b| b.settle(|_| true));
}

/// A subtransaction was rolled back.
pub fn abort_subtransaction(id: u32) {
    with((), |b| b.settle(|r| r.subtransaction == id));
}

/// A subtransaction was released: what it began belongs to its parent.
pub fn commit_subtransaction(id: u32, parent: u32) {
    with((), |b| {
        let count = b.count;
        b.running.iter_mut().take(count).filter(|r| r.subtransaction == id).for_each(|r| r.subtransaction = parent);
    });
}
