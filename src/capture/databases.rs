//! The databases whose statements are captured: those that a worker has registered because the extension is installed there.
//! What others run would only fill the table, since nobody would ever take it.

use crate::pg::shmem::{Region, shared};
use crate::pg::single::Single;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// Databases of one server that can be captured at a time.
pub const MAX: usize = 64;

shared! {
    struct Databases {
        /// Counts changes, so that a backend need not look through the list for every statement.
        version: AtomicU64,
        oids: [AtomicU32; MAX],
        /// The version at which each was registered.
        since: [AtomicU64; MAX],
    }
}

static DATABASES: Region<Databases> = Region::new(c"indexpilot capture databases", || 1, |_| ());

/// Asks for the memory. From `_PG_init`.
pub fn init() {
    crate::pg::shmem::register(&[&DATABASES], &[]);
}

fn get() -> Option<&'static Databases> {
    DATABASES.get()?.first()
}

/// Captures a database from now on; false when there is no shared memory or no room for another database.
pub fn register(oid: u32) -> bool {
    let Some(list) = get() else { return false };
    if oid == 0 || contains(oid) {
        return oid != 0;
    }
    // Twice, so that whoever finds it there knows at least this version, and whoever did not looks again.
    let version = list.version.fetch_add(1, SeqCst).wrapping_add(1);
    let done = list.oids.iter().zip(&list.since).any(|(o, since)| {
        // A stale number in a place that is taken meanwhile would only be too new for what sessions had before.
        o.load(SeqCst) == 0 && {
            since.store(version, SeqCst);
            o.compare_exchange(0, oid, SeqCst, SeqCst).is_ok()
        }
    });
    list.version.fetch_add(1, Relaxed);
    done
}

/// Captures a database no longer.
pub fn unregister(oid: u32) {
    let Some(list) = get() else { return };
    for slot in &list.oids {
        // Two who registered it at the same moment may both have found a place.
        let _ = slot.compare_exchange(oid, 0, Relaxed, Relaxed);
    }
    list.version.fetch_add(1, Relaxed);
}

/// Sessions look at everything anew.
pub fn changed() {
    if let Some(list) = get() {
        list.version.fetch_add(1, Relaxed);
    }
}

/// Changes whenever a database is registered or unregistered, and when its counters were cleared.
pub fn version() -> u64 {
    get().map_or(0, |list| list.version.load(Relaxed))
}

pub fn contains(oid: u32) -> bool {
    oid != 0 && get().is_some_and(|list| list.oids.iter().any(|o| o.load(Relaxed) == oid))
}

/// As [`contains`], for the session's own database: cheap until something changes.
#[inline]
pub fn captured_here(oid: u32) -> bool {
    static HERE: Single<(u64, u32, bool)> = Single::new((0, 0, false));
    let version = version();
    HERE.with(|here| {
        if (here.0, here.1) != (version, oid) {
            *here = (version, oid, contains(oid));
        }
        here.2
    })
    .unwrap_or(false)
}

/// The database was captured at that version, and has been since then.
pub fn contains_since(oid: u32, version: u64) -> bool {
    oid != 0
        && get().is_some_and(|list| {
            list.oids.iter().zip(&list.since).any(|(o, since)| o.load(SeqCst) == oid && since.load(SeqCst) <= version)
        })
}

/// All of them.
pub fn all() -> Vec<u32> {
    get().map_or_else(Vec::new, |list| list.oids.iter().map(|o| o.load(Relaxed)).filter(|o| *o != 0).collect())
}
