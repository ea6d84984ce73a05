//! Indexes that the planner must not use, in all sessions of a database: hidden ones, and those that only a share of the transactions
//! sees. An array in shared memory, and a file that carries it over restarts and crashes.
//!
//! A change takes effect when its transaction commits. The server calls the callbacks of a commit before it tells other sessions what
//! to forget (xact.c, CommitTransaction: XACT_EVENT_COMMIT, then AtEOXact_Inval), and a change always has the table forgotten. So a
//! plan was either made after the change, or it is thrown away: in the worst case before its next execution. The file comes last, when
//! everybody knows: a busy disk may take seconds for it.
//!
//! Nothing but plans changes: uniqueness, constraints, ON CONFLICT and the maintenance of the index read the list of indexes in the
//! relation cache (RelationGetIndexList), not the planner's.

mod coin;
mod file;

use super::error::{Error, Kind, Result};
use super::relinfo;
use super::shmem::{self, Locks, Mode, Region, shared};
use super::{database, inval, xact};
use indexpilot_core::trial::{Arm, Share};
use pgrx::pg_sys::{self, Oid};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Indexes of one server that can be hidden at a time.
const SLOTS: usize = 512;

shared! {
    struct Slot {
        /// Database in the upper half, index in the lower; 0 while it is free.
        key: AtomicU64,
        table: AtomicU32,
        /// [`Share::pack`]
        share: AtomicU32,
        /// [`Arm::number`] of the transactions in the share.
        arm: AtomicU32,
        /// A transaction that has not ended will use the slot.
        reserved: AtomicU32,
    }
}

shared! {
    struct Hidden {
        /// No slot from here on is in use. While it is 0 this is all that the planner's hook looks at.
        high: AtomicU32,
        /// Counts changes.
        version: AtomicU64,
        /// The version that the file has.
        written: AtomicU64,
        slots: [Slot; SLOTS],
    }
}

static HIDDEN: Region<Hidden> = Region::new(c"indexpilot hidden indexes", || 1, |_| ());
static LOCK: Locks = Locks::new(c"indexpilot_hidden", 1);

/// An index that not everybody sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub database: u32,
    pub index: u32,
    pub table: u32,
    pub share: Share,
    /// Of the transactions in the share.
    pub arm: Arm,
}

/// Asks for the memory, and has the file read when the server starts. From `_PG_init` of a preloaded library.
pub fn init() {
    shmem::register(&[&HIDDEN], &[&LOCK]);
    shmem::after_startup(|made| {
        if let (true, Some(hidden)) = (made, get()) {
            // Nobody else is there yet.
            for (slot, entry) in hidden.slots.iter().zip(file::load(SLOTS)) {
                slot.fill(&entry);
            }
            hidden.settle();
            hidden.written.store(hidden.version.load(Relaxed), Relaxed);
        }
    });
}

fn get() -> Option<&'static Hidden> {
    HIDDEN.get()?.first()
}

fn key(database: u32, index: u32) -> u64 {
    u64::from(database) << 32 | u64::from(index)
}

impl Slot {
    fn fill(&self, entry: &Entry) {
        self.table.store(entry.table, Relaxed);
        self.share.store(entry.share.pack(), Relaxed);
        self.arm.store(entry.arm.number(), Relaxed);
        self.key.store(key(entry.database, entry.index), Relaxed);
    }

    fn entry(&self) -> Option<Entry> {
        let key = self.key.load(Relaxed);
        (key != 0).then(|| Entry {
            database: (key >> 32) as u32,
            index: key as u32,
            table: self.table.load(Relaxed),
            share: Share::unpack(self.share.load(Relaxed)),
            arm: Arm::of(self.arm.load(Relaxed)),
        })
    }
}

impl Hidden {
    fn find(&self, key: u64) -> Option<&Slot> {
        self.slots.iter().find(|s| s.key.load(Relaxed) == key)
    }

    /// Once more changed. Under the lock.
    fn settle(&self) {
        let used = |s: &Slot| s.key.load(Relaxed) != 0;
        let high = self.slots.iter().rposition(used).map_or(0, |at| at + 1);
        self.high.store(high as u32, Relaxed);
        self.version.fetch_add(1, Relaxed);
    }
}

/// Some index of the server is hidden: all that a plan has to ask otherwise.
#[inline]
pub fn any() -> bool {
    get().is_some_and(|hidden| hidden.high.load(Relaxed) != 0)
}

/// Takes the indexes of a table that this transaction does not see out of the planner's list. Neither waits nor raises. `all_shared`:
/// those that any transaction sees are left in.
///
/// # Safety
/// `rel` is the planner's relation for `table`; called from get_relation_info_hook.
pub unsafe fn hide_from(rel: *mut pg_sys::RelOptInfo, table: Oid, all_shared: bool) {
    let Some(hidden) = get() else { return };
    let (here, table) = (u64::from(database::current().to_u32()), table.to_u32());
    // Slots that change at this moment are looked at as they were or as they will be: the plan is thrown away in either case.
    for slot in hidden.slots.iter().take(hidden.high.load(Relaxed) as usize) {
        let key = slot.key.load(Relaxed);
        if key >> 32 == here && slot.table.load(Relaxed) == table {
            let share = Share::unpack(slot.share.load(Relaxed));
            let seen = !share.is_hidden() && (all_shared || share.contains(coin::of_transaction()));
            if !seen {
                // SAFETY: the caller's promise.
                unsafe { relinfo::hide(rel, &[Oid::from(key as u32)]) };
            }
        }
    }
}

/// The indexes of a database that not everybody sees.
pub fn entries(database: Oid) -> Vec<Entry> {
    let database = database.to_u32();
    all().into_iter().filter(|e| e.database == database).collect()
}

fn all() -> Vec<Entry> {
    let Some(hidden) = get() else { return Vec::new() };
    let mut found = Vec::with_capacity(SLOTS);
    let _lock = LOCK.wait_lock(0, Mode::Shared);
    found.extend(hidden.slots.iter().filter_map(Slot::entry));
    found
}

/// What this transaction sees of the indexes on trial: [`Arm::number`], 0 while nothing is.
#[inline]
pub fn arm() -> u32 {
    coin::arm()
}

/// The transaction is over, and the next one has another coin. Neither waits nor raises; does nothing while nothing is on trial.
#[inline]
pub fn transaction_over() {
    if coin::arm() != 0 {
        coin::next();
    }
}

/// Has only the given share of the transactions see an index of this database, from the commit on; `arm` is how they are counted. In a
/// transaction that holds a lock on the table.
///
/// # Errors
/// When as many indexes are hidden as there is room for, and without preload.
pub fn set(index: u32, table: u32, share: Share, arm: Arm) -> Result<()> {
    let entry = Entry { database: database::current().to_u32(), index, table, share, arm };
    inval::replan(table)?;
    let reserved = reserve(&entry)?;
    at_end(move |hidden, committed| {
        let slot = hidden.slots.get(reserved);
        if committed {
            if let Some(slot) = hidden.find(key(entry.database, entry.index)).or(slot) {
                slot.fill(&entry);
            }
            hidden.settle();
        }
        if let Some(slot) = slot {
            slot.reserved.store(0, Relaxed);
        }
    });
    Ok(())
}

/// Takes a free slot for the running transaction, so that its commit finds room.
fn reserve(entry: &Entry) -> Result<usize> {
    let Some(hidden) = get() else {
        return Err(Error::new(Kind::Prerequisite, "hiding indexes needs indexpilot to be preloaded"));
    };
    let found = {
        let _lock = LOCK.wait_lock(0, Mode::Exclusive);
        let free = |s: &Slot| s.key.load(Relaxed) == 0 && s.reserved.load(Relaxed) == 0;
        let own = key(entry.database, entry.index);
        // One that has the index already is kept from others by the lock of the index.
        let at = hidden.slots.iter().position(|s| s.key.load(Relaxed) == own).or_else(|| hidden.slots.iter().position(free));
        if let Some(slot) = at.and_then(|at| hidden.slots.get(at)) {
            slot.reserved.store(1, Relaxed);
        }
        at
    };
    found.ok_or_else(|| {
        Error::new(Kind::LimitExceeded, "too many indexes are hidden")
            .detail(format!("A server can hide {SLOTS} indexes at a time; there is no room for index {}.", entry.index))
            .hint("SELECT indexpilot.show_index(index_id) FROM indexpilot.hidden_indexes WHERE ... shows some of them again.")
    })
}

/// One more index can be hidden, at this moment.
pub fn has_room() -> bool {
    let free = |s: &Slot| s.key.load(Relaxed) == 0 && s.reserved.load(Relaxed) == 0;
    get().is_some_and(|hidden| hidden.slots.iter().any(free))
}

/// Has everybody see an index again, from the commit on. In a transaction that holds a lock on the table, if that still exists.
///
/// # Errors
/// Of the query on the catalog.
pub fn clear(index: u32, table: u32) -> Result<()> {
    let key = key(database::current().to_u32(), index);
    inval::replan(table)?;
    at_end(move |hidden, committed| {
        if let (true, Some(slot)) = (committed, hidden.find(key)) {
            slot.key.store(0, Relaxed);
            hidden.settle();
        }
    });
    Ok(())
}

/// Forgets all indexes of a database when the transaction commits: its tables, or the extension, are gone. Plans of the session's
/// own database are made anew.
///
/// # Errors
/// Of the query on the catalog.
pub fn clear_database(of: Oid) -> Result<()> {
    let found = entries(of);
    if found.is_empty() {
        return Ok(());
    }
    for entry in found.iter().filter(|_| of == database::current()) {
        inval::replan(entry.table)?;
    }
    let of = of.to_u32();
    at_end(move |hidden, committed| {
        if committed {
            for slot in hidden.slots.iter().filter(|s| s.key.load(Relaxed) >> 32 == u64::from(of)) {
                slot.key.store(0, Relaxed);
            }
            hidden.settle();
        }
    });
    Ok(())
}

/// Runs `f` under the lock when the transaction ends, and has the file written. Nothing of that raises.
fn at_end(f: impl FnOnce(&Hidden, bool) + 'static) {
    xact::at_end_but_not_prepared("hidden or shown an index", move |committed| {
        if let Some(hidden) = get() {
            let _lock = LOCK.wait_lock(0, Mode::Exclusive);
            f(hidden, committed);
        }
        if committed {
            // What cannot be written now, the worker writes.
            xact::afterwards(|| drop(persist()));
        }
    });
}

/// The file does not have the newest changes.
pub fn unsaved() -> bool {
    get().is_some_and(|hidden| hidden.written.load(Relaxed) != hidden.version.load(Relaxed))
}

/// Brings the file up to date; it fails where the file system does.
///
/// Several may do so at once. Each looks, after its own file is in place, whether it was the newest state: so the last one to put a
/// file in place is one that has found nothing newer.
///
/// # Errors
/// As the file system says.
pub fn persist() -> std::io::Result<()> {
    let Some(hidden) = get() else { return Ok(()) };
    loop {
        let version = hidden.version.load(Relaxed);
        if hidden.written.load(Relaxed) == version {
            return Ok(());
        }
        file::save(&all())?;
        hidden.written.store(version, Relaxed);
    }
}
