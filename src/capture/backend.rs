//! The session's part of capture: how deep the server is in functions, which statements are running, and what they have cost so far.
//!
//! A statement is known by the address of its QueryDesc from ExecutorStart to ExecutorEnd. After an error ExecutorEnd is not called:
//! then the callbacks for aborted (sub)transactions settle what is left, and put the depth right.

use super::entry::{Key, Known, Template};
use super::local::{Execution, Local, Place};
use super::{databases, sessions, tenants};
use crate::guc;
use crate::pg::shmem::{Region, shared};
use crate::pg::single::Single;
use crate::pg::statement::{Dependencies, Extent};
use crate::pg::{own, session, time};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Statements that a session may have open at a time (cursors, functions in functions); more are not tracked.
const MAX_RUNNING: usize = 64;
/// Subtransactions within one another whose depth is remembered; those further in leave the depth as it is until the transaction ends.
const MAX_LEVELS: usize = 64;
/// Samples that every template gets at once; later ones come with every doubling of its executions.
pub const FIRST_SAMPLES: u32 = 3;
/// Executions after which a session hands in at the end of a transaction, however short the time.
const HAND_IN_AFTER: u32 = 64;
/// … and the time after which it does, however few they are: 500 ms.
const HAND_IN_EVERY: u64 = 500_000_000;
/// Executions after which it hands in within a transaction: the counters of a histogram have 16 bits.
const HAND_IN_AT_ONCE: u32 = 32_768;
/// Templates that a session finds quickly.
const MEMOS: usize = 64;
/// Added to the depth while EXPLAIN runs: nothing is captured then.
const EXPLAINING: u32 = 1 << 16;

shared! {
    struct Counters {
        epoch: AtomicU64,
        without_queryid: AtomicU64,
        untracked: AtomicU64,
        failures: AtomicU64,
        temporary: AtomicU64,
    }
}

static COUNTERS: Region<Counters> = Region::new(
    c"indexpilot capture counters",
    || 1,
    |counters| {
        counters.iter().for_each(|c| c.epoch.store((time::now() * 1e6) as u64, Relaxed));
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
    pub temporary: u64,
}

pub fn usage() -> Usage {
    counters().map_or_else(Usage::default, |c| Usage {
        epoch: c.epoch.load(Relaxed),
        without_queryid: c.without_queryid.load(Relaxed),
        untracked: c.untracked.load(Relaxed),
        failures: c.failures.load(Relaxed),
        temporary: c.temporary.load(Relaxed),
    })
}

fn counters() -> Option<&'static Counters> {
    COUNTERS.get()?.first()
}

fn count(which: impl Fn(&Counters) -> &AtomicU64) {
    if let Some(c) = counters() {
        which(c).fetch_add(1, Relaxed);
    }
}

/// A statement had no query identifier.
pub fn without_queryid() {
    count(|c| &c.without_queryid);
}

/// The capture code failed and was stopped.
pub fn failure() {
    count(|c| &c.failures);
}

#[derive(Clone, Copy)]
struct Running {
    /// Address of the QueryDesc.
    id: usize,
    subtransaction: u32,
    extent: Extent,
    place: Place,
    /// Inside ExecutorRun or ExecutorFinish since `started`, at that depth.
    active: bool,
    depth: u32,
    ran: bool,
    /// A sample was wanted at the start, so none is at the end.
    sampled: bool,
    started: u64,
    so_far: Execution,
}

struct Backend {
    /// Calls of the planner, the executor and utility commands that are within one another now.
    depth: u32,
    /// The depth at which each subtransaction began.
    levels: [u32; MAX_LEVELS],
    running: [Running; MAX_RUNNING],
    count: usize,
    local: Local,
    /// Templates that this session met, with the hashes of their keys.
    memos: [(Memo, u64, Place); MEMOS],
    /// Clock at the end of the last statement, and when this session last handed in.
    last: u64,
    handed_in: u64,
    /// Something ran since the last transaction ended.
    active: bool,
    registered_exit: bool,
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
    extent: Extent::ALL,
    place: 0,
    active: false,
    depth: 0,
    ran: false,
    sampled: false,
    started: 0,
    so_far: IDLE,
};

// All zeros, so that it costs a session no memory but what it uses.
static BACKEND: Single<Backend> = Single::new(Backend {
    depth: 0,
    levels: [0; MAX_LEVELS],
    running: [NOTHING; MAX_RUNNING],
    count: 0,
    local: Local::EMPTY,
    memos: [(Memo::NONE, 0, 0); MEMOS],
    last: 0,
    handed_in: 0,
    active: false,
    registered_exit: false,
    version: 0,
    database: 0,
    registered: false,
});

impl Backend {
    /// The newest first: statements end in the order of a stack, but for cursors.
    #[inline]
    fn position(&self, id: usize) -> Option<usize> {
        let top = self.count.wrapping_sub(1);
        match self.running.get(top) {
            Some(r) if r.id == id => Some(top),
            Some(_) => self.running.iter().take(top).rposition(|r| r.id == id),
            None => None,
        }
    }

    #[inline]
    fn find(&mut self, id: usize) -> Option<&mut Running> {
        let at = self.position(id)?;
        self.running.get_mut(at)
    }

    fn remove(&mut self, at: usize) -> Option<Running> {
        let removed = *self.running.get(at)?;
        self.drop_at(at);
        Some(removed)
    }

    #[inline]
    fn drop_at(&mut self, at: usize) {
        self.count = self.count.saturating_sub(1);
        if at < self.count {
            self.running.copy_within(self.count..=self.count, at);
        }
    }

    /// Settles statements that will not end any more: an error when they were in the middle, else an execution like any other.
    fn settle(&mut self, which: impl Fn(&Running) -> bool) {
        let mut at = 0;
        while at < self.count {
            match self.running.get(at).filter(|r| which(r)) {
                None => at += 1,
                Some(_) => {
                    if let Some(mut left) = self.remove(at) {
                        if left.active {
                            left.so_far.failed = true;
                            self.last = time::ticks();
                            left.so_far.ns = left.so_far.ns.saturating_add(self.last.saturating_sub(left.started));
                        }
                        self.record(&left);
                    }
                }
            }
        }
    }

    fn record(&mut self, over: &Running) -> Option<Known> {
        if !over.ran && !over.so_far.failed {
            self.local.close(over.place);
            return None;
        }
        if self.local.waiting() == 0 {
            sessions::waiting(self.database);
        }
        self.active = true;
        self.local.add(over.place, &over.so_far)
    }

    fn hand_in(&mut self, last: bool) {
        if databases::contains_since(self.database, self.version) {
            self.local.hand_in(last);
        } else {
            self.local.forget();
        }
        self.handed_in = self.last;
        if self.local.waiting() == 0 {
            sessions::done();
        }
    }
}

/// How deep the server is in functions, when statements of this session are captured at this depth.
#[inline]
pub fn depth(database: u32) -> Option<u32> {
    let wanted = guc::capture() && !own::working();
    BACKEND
        .with(|b| {
            if !wanted || b.depth >= EXPLAINING {
                return None;
            }
            let version = databases::version();
            if b.version != version || b.database != database {
                b.refresh(version, database);
            }
            (b.registered && (b.depth == 0 || guc::capture_nested())).then_some(b.depth)
        })
        .flatten()
}

impl Backend {
    #[cold]
    fn refresh(&mut self, version: u64, database: u32) {
        if self.local.waiting() > 0 && !databases::contains_since(self.database, self.version) {
            self.local.forget();
        }
        (self.version, self.database, self.registered) = (version, database, databases::contains(database));
        self.local.forget_known();
        if self.registered && !self.registered_exit {
            self.registered_exit = true;
            session::at_exit(super::hooks::at_exit);
        }
    }
}

/// The server is inside a function.
#[inline]
pub fn inside() -> bool {
    BACKEND.with(|b| b.depth > 0).unwrap_or(false)
}

/// The server goes into the planner, the executor or a utility command, or (false) comes back.
#[inline]
pub fn nest(deeper: bool) {
    BACKEND.with(|b| b.depth = if deeper { b.depth.wrapping_add(1) } else { b.depth.saturating_sub(1) });
}

/// The server begins or ends an EXPLAIN.
pub fn explain(begins: bool) {
    BACKEND.with(|b| b.depth = if begins { b.depth.wrapping_add(EXPLAINING) } else { b.depth.saturating_sub(EXPLAINING) });
}

/// A statement that begins.
pub struct Begun {
    /// Address of its QueryDesc.
    pub id: usize,
    pub subtransaction: u32,
    pub planner_cost: f64,
    /// Where it stands in its text.
    pub extent: Extent,
}

/// A statement of which a sample is wanted.
pub struct Wanted {
    pub key: Key,
    pub hash: u64,
    pub template: Template,
    pub extent: Extent,
}

/// What a template can be known by without a look at its plan's tables: of a statement that a client sent, without a tenant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Memo {
    pub queryid: u64,
    pub role: u32,
    pub dependencies: Dependencies,
}

impl Memo {
    const NONE: Memo = Memo { queryid: 0, role: 0, dependencies: Dependencies::NONE };

    #[inline]
    fn place(&self) -> usize {
        (self.queryid ^ self.queryid >> 32) as usize % MEMOS
    }
}

/// A statement began. `None` when it is not tracked; true when a sample of it is wanted at once, because few are known and it might
/// never end.
pub fn start(begun: &Begun, key: &Key, template: &Template, memo: Option<Memo>) -> Option<bool> {
    let hash = key.hash();
    BACKEND
        .with(|b| {
            let (place, new) = b.local.open(key, hash, template)?;
            if let Some(memo) = memo
                && let Some(entry) = b.memos.get_mut(memo.place())
            {
                *entry = (memo, hash, place);
            }
            let sampled = new && b.local.sampled_less_than(place, FIRST_SAMPLES);
            b.push(begun, place, sampled)
        })
        .flatten()
        .or_else(|| {
            count_untracked();
            None
        })
}

/// As [`start`], for a statement that this session met before; `None` when it did not, or forgot.
#[inline]
pub fn start_again(begun: &Begun, memo: &Memo) -> Option<bool> {
    BACKEND
        .with(|b| {
            let (known, hash, place) = b.memos.get(memo.place())?;
            if known != memo || !b.local.open_again(*place, *hash) {
                return None;
            }
            let place = *place;
            if tenants::any()
                && let Some((key, ..)) = b.local.key(place)
                && tenants::lookup(key.database, key.queryid, key.relations_hash).is_some()
            {
                // Its tenant is to be looked up.
                b.local.close(place);
                return None;
            }
            b.push(begun, place, false)
        })
        .flatten()
}

impl Backend {
    #[inline]
    fn push(&mut self, begun: &Begun, place: Place, sampled: bool) -> Option<bool> {
        // A statement of that address that was never ended nor aborted cannot be running any more.
        if self.count > 0 && self.position(begun.id).is_some() {
            self.settle(|r| r.id == begun.id);
        }
        let Some(running) = self.running.get_mut(self.count) else {
            self.local.close(place);
            return None;
        };
        let planner_cost = if begun.planner_cost.is_finite() { begun.planner_cost } else { 0.0 };
        *running = Running {
            id: begun.id,
            subtransaction: begun.subtransaction,
            extent: begun.extent,
            place,
            active: false,
            depth: 0,
            ran: false,
            sampled,
            started: 0,
            so_far: Execution { planner_cost, ..IDLE },
        };
        self.count += 1;
        Some(sampled)
    }
}

#[cold]
fn count_untracked() {
    count(|c| &c.untracked);
}

/// The statement is not to be counted after all: it uses a temporary table.
pub fn forget(id: usize) {
    count(|c| &c.temporary);
    BACKEND.with(|b| {
        if let Some(forgotten) = b.position(id).and_then(|at| b.remove(at)) {
            b.local.close(forgotten.place);
        }
    });
}

/// The running statement, of which a sample is taken now.
pub fn sampled_now(id: usize) -> Option<Wanted> {
    BACKEND
        .with(|b| {
            let running = b.running.get(b.position(id)?)?;
            b.wanted(running.place, running.extent)
        })
        .flatten()
}

impl Backend {
    fn wanted(&self, place: Place, extent: Extent) -> Option<Wanted> {
        self.local.key(place).map(|(key, hash, template)| Wanted { key: *key, hash, template: *template, extent })
    }
}

/// Tenant of the outermost statement that is being executed now; open cursors are not.
pub fn outer_tenant(key: &mut Key) {
    BACKEND.with(|b| {
        let outer = b.running.iter().take(b.count).find(|r| r.active);
        if let Some((outer, ..)) = outer.and_then(|r| b.local.key(r.place)) {
            (key.tenant, key.tenant_len) = (outer.tenant, outer.tenant_len);
        }
    });
}

/// ExecutorRun or ExecutorFinish begins; true when the statement is tracked. It is one level deeper from here.
#[inline]
pub fn resume(id: usize) -> bool {
    BACKEND
        .with(|b| {
            let depth = b.depth;
            b.depth = depth.wrapping_add(1);
            let Some(r) = b.find(id) else { return false };
            (r.active, r.ran, r.depth, r.started) = (true, true, depth, time::ticks());
            true
        })
        .unwrap_or(false)
}

/// ExecutorRun or ExecutorFinish is over, with what it has cost but for the time.
#[inline]
pub fn pause(id: usize, cost: &Execution) {
    BACKEND.with(|b| {
        let now = time::ticks();
        b.depth = b.depth.saturating_sub(1);
        b.last = now;
        if let Some(r) = b.find(id) {
            r.active = false;
            // These sums cannot run over within a statement.
            r.so_far.ns = r.so_far.ns.wrapping_add(now.wrapping_sub(r.started));
            r.so_far.rows = r.so_far.rows.wrapping_add(cost.rows);
            r.so_far.blocks_hit = r.so_far.blocks_hit.wrapping_add(cost.blocks_hit);
            r.so_far.blocks_read = r.so_far.blocks_read.wrapping_add(cost.blocks_read);
            r.so_far.blocks_temp = r.so_far.blocks_temp.wrapping_add(cost.blocks_temp);
            r.so_far.wal_bytes = r.so_far.wal_bytes.wrapping_add(cost.wal_bytes);
        }
    });
}

/// The statement is over; returned when a further sample of it is wanted.
#[inline]
pub fn end(id: usize) -> Option<Wanted> {
    BACKEND
        .with(|b| {
            let at = b.position(id)?;
            let over = b.running.get(at)?;
            let (place, sampled, extent) = (over.place, over.sampled, over.extent);
            if !over.ran {
                b.local.close(place);
                b.drop_at(at);
                return None;
            }
            if b.local.waiting() == 0 {
                sessions::waiting(b.database);
            }
            b.active = true;
            let known = b.local.add(place, &over.so_far)?;
            b.drop_at(at);
            if b.local.waiting() >= HAND_IN_AT_ONCE {
                b.hand_in(false);
            }
            if sampled || !(known.sampled < FIRST_SAMPLES || known.lifetime.is_power_of_two()) {
                return None;
            }
            b.wanted(place, extent)
        })
        .flatten()
}

/// A sample of the template was kept.
pub fn sampled(key: &Key, hash: u64) {
    BACKEND.with(|b| b.local.sampled(key, hash));
}

/// The transaction is over, one way or the other. `top`: no statement of a client is being worked on, as it is when a procedure commits.
#[inline]
pub fn end_transaction(top: bool) {
    BACKEND.with(|b| {
        if b.count > 0 {
            b.settle(|_| true);
        }
        if top {
            b.depth = 0;
        }
        if b.local.waiting() > 0 {
            let due = b.local.waiting() >= HAND_IN_AFTER || b.last.saturating_sub(b.handed_in) >= HAND_IN_EVERY;
            // An empty transaction: the session was idle and is asked to hand in (sessions.rs).
            if due || !b.active || session::exiting() {
                b.hand_in(session::exiting());
            }
        }
        b.active = false;
    });
}

/// Hands in what this session has counted. `last`: it ends.
pub fn hand_in(last: bool) {
    BACKEND.with(|b| {
        if b.local.waiting() > 0 {
            b.hand_in(last);
        }
    });
}

/// A subtransaction began, at that level (the top transaction is 1).
pub fn start_subtransaction(level: usize) {
    BACKEND.with(|b| {
        let depth = b.depth;
        if let Some(place) = b.levels.get_mut(level) {
            *place = depth;
        }
    });
}

/// A subtransaction was rolled back: what it began is over, and so is the run of an older cursor in it.
/// `top`: as for [`end_transaction`].
pub fn abort_subtransaction(id: u32, level: usize, top: bool) {
    BACKEND.with(|b| {
        let depth = if top { Some(0) } else { b.levels.get(level).copied() };
        b.settle(|r| r.subtransaction == id || (r.active && depth.is_some_and(|depth| r.depth >= depth)));
        // Too deep is put right at the end of the transaction.
        if let Some(depth) = depth {
            b.depth = depth;
        }
    });
}

/// A statement that is not tracked begins: what is left of one at the same address is over.
#[inline]
pub fn nobody_is(id: usize) {
    BACKEND.with(|b| {
        if b.count > 0 && b.position(id).is_some() {
            b.settle(|r| r.id == id);
        }
    });
}

/// A subtransaction was released: what it began belongs to its parent.
pub fn commit_subtransaction(id: u32, parent: u32) {
    BACKEND.with(|b| {
        let count = b.count;
        b.running.iter_mut().take(count).filter(|r| r.subtransaction == id).for_each(|r| r.subtransaction = parent);
    });
}
