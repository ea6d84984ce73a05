//! The statistics table: a fixed number of entries in shared memory, found by hash.
//!
//! Buckets hold chains of entries. The bucket's partition lock is shared while counters are added, which atomics do, and exclusive
//! for the few instructions that link, take or unlink an entry. Backends never wait for a lock: what cannot be added after a few
//! attempts they keep for the next time. Entries stay when their counters are taken, so a template keeps its place; the worker frees
//! entries that were idle for long, sooner the fuller the table is.
//!
//! A template has one entry for sessions without a tenant, and one for each of a few tenants. What further tenants run is counted
//! without a tenant; then the worker frees the tenants with the least calls of late, so that the ones with the most come to stay
//! (the idea of Space-Saving, Metwally et al. 2005, with decay).

use super::entry::{Counts, Entry, Key, Known, Refused, Taken, Template};
use crate::guc;
use crate::pg::shmem::{Locks, Mode, Region, shared};
use std::collections::HashMap;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

const PARTITIONS: usize = 64;
/// A lock that guards the entry is only ever held for well under a microsecond, unless its holder was descheduled.
const ATTEMPTS: usize = 32;
/// … when the end of a transaction must not lose what it took.
const PATIENCE: usize = 1000;
/// Takes without a call after which an entry is freed: always; when three quarters are taken; when the table is all but full.
const IDLE_TAKES: [u32; 3] = [360, 6, 1];

shared! {
    struct Head {
        /// Top of the free list (position plus one) in the low half, a count of its changes in the high half.
        free: AtomicU64,
        used: AtomicU32,
        dropped: AtomicU64,
        evicted: AtomicU64,
    }
}

static ENTRIES: Region<Entry> = Region::new(c"indexpilot capture entries", guc::capture_max_queries, link_free);
static BUCKET_HEADS: Region<AtomicU32> = Region::new(c"indexpilot capture buckets", bucket_count, |_| ());
static HEAD: Region<Head> =
    Region::new(c"indexpilot capture table", || 1, |head| head.iter().for_each(|h| h.free.store(1, Relaxed)));
static LOCKS: Locks = Locks::new(c"IndexPilotCapture", PARTITIONS as i32);

/// At first every entry leads to the next one, and the list's head, which counts from one, to the first.
fn link_free(entries: &'static [Entry]) {
    for (entry, next) in entries.iter().zip(2..=entries.len() as u32) {
        entry.next.store(next, Relaxed);
    }
}

fn bucket_count() -> usize {
    (guc::capture_max_queries() * 2).next_power_of_two().max(PARTITIONS)
}

/// Asks for the memory. From `_PG_init`.
pub fn init() {
    crate::pg::shmem::register(&[&ENTRIES, &BUCKET_HEADS, &HEAD], &[&LOCKS]);
}

/// The table, when there is shared memory.
#[derive(Clone, Copy)]
pub struct Table {
    entries: &'static [Entry],
    buckets: &'static [AtomicU32],
    head: &'static Head,
}

/// Figures of the table as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub used: u64,
    pub capacity: u64,
    pub dropped: u64,
    pub evicted: u64,
    pub bytes: u64,
}

impl Table {
    pub fn get() -> Option<Table> {
        Some(Table { entries: ENTRIES.get()?, buckets: BUCKET_HEADS.get()?, head: HEAD.get()?.first()? })
    }

    /// Makes sure that the template has an entry.
    pub fn touch(&self, key: &Key, hash: u64, template: &Template) -> Result<Known, Refused> {
        self.with_entry(key, hash, template, &Entry::known)
    }

    /// Adds executions.
    pub fn add(&self, key: &Key, hash: u64, template: &Template, counts: &Counts, histogram: &[u16]) -> Result<Known, Refused> {
        self.with_entry(key, hash, template, &|e| e.add(counts, histogram))
    }

    /// Remembers that `count` samples of the template were kept.
    pub fn sampled(&self, key: &Key, hash: u64, count: u32) {
        let remember = |key: &Key, hash: u64| {
            let Some(_guard) = self.lock(hash, Mode::Shared) else { return true };
            let Some(entry) = self.find(key, hash) else { return false };
            // A template whose text is too long is counted as sampled often enough; the sum must not run over.
            let _ = entry.sampled.fetch_update(Relaxed, Relaxed, |n| Some(n.saturating_add(count)));
            true
        };
        if !remember(key, hash) && key.tenant_len > 0 {
            let base = key.base();
            remember(&base, base.hash());
        }
    }

    /// Counts executions that were lost.
    pub fn dropped(&self, count: u64) {
        self.head.dropped.fetch_add(count, Relaxed);
    }

    fn with_entry(&self, key: &Key, hash: u64, template: &Template, f: &dyn Fn(&Entry) -> Known) -> Result<Known, Refused> {
        {
            let _guard = self.lock(hash, Mode::Shared).ok_or(Refused::Busy)?;
            if let Some(entry) = self.find(key, hash) {
                return Ok(f(entry));
            }
        }
        if key.tenant_len > 0 {
            // A new tenant: the template's entry without tenant says whether there is room for it.
            let (base, limit) = (key.base(), guc::capture_max_tenants());
            let admit = |e: &Entry| {
                let admitted = e.tenants.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).is_ok();
                if !admitted {
                    e.crowded.store(1, Relaxed);
                }
                Known { lifetime: u64::from(admitted), sampled: 0 }
            };
            let base_hash = base.hash();
            if self.with_entry(&base, base_hash, template, &admit)?.lifetime == 0 {
                return self.with_entry(&base, base_hash, template, f);
            }
            let done = self.insert(key, hash, template, f);
            if !matches!(done, Ok((_, true))) {
                self.release_tenant(&base, base_hash, false);
            }
            return done.map(|(known, _)| known);
        }
        self.insert(key, hash, template, f).map(|(known, _)| known)
    }

    /// Finds the entry or makes it; true when it was made.
    fn insert(&self, key: &Key, hash: u64, template: &Template, f: &dyn Fn(&Entry) -> Known) -> Result<(Known, bool), Refused> {
        if self.head.used.load(Relaxed) as usize >= self.entries.len() {
            return Err(Refused::Full);
        }
        let _guard = self.lock(hash, Mode::Exclusive).ok_or(Refused::Busy)?;
        // Another backend may have made it in between.
        if let Some(entry) = self.find(key, hash) {
            return Ok((f(entry), false));
        }
        let entry = self.link_new(key, hash, template).ok_or(Refused::Full)?;
        Ok((f(entry), true))
    }

    /// A new entry in its bucket; the caller holds its partition exclusively.
    fn link_new(&self, key: &Key, hash: u64, template: &Template) -> Option<&'static Entry> {
        let bucket = self.bucket(hash)?;
        let (position, entry) = self.pop_free()?;
        entry.set(key, hash, template);
        entry.next.store(bucket.load(Relaxed), Relaxed);
        bucket.store(position + 1, Relaxed);
        Some(entry)
    }

    /// A tenant's place is free again. The worker waits for the lock; what a session could not give back is lost until the template's
    /// entry goes.
    fn release_tenant(&self, base: &Key, base_hash: u64, wait: bool) {
        let guard = match wait {
            true => LOCKS.wait_lock(self.partition(base_hash), Mode::Shared),
            false => self.lock(base_hash, Mode::Shared),
        };
        let Some(_guard) = guard else { return };
        if let Some(entry) = self.find(base, base_hash) {
            let _ = entry.tenants.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
        }
    }

    fn partition(&self, hash: u64) -> usize {
        hash as usize & (PARTITIONS - 1)
    }

    fn bucket(&self, hash: u64) -> Option<&'static AtomicU32> {
        // The number of buckets is a power of two of at least PARTITIONS, so all hashes of a bucket share a partition.
        self.buckets.get(hash as usize & (self.buckets.len() - 1))
    }

    fn lock(&self, hash: u64, mode: Mode) -> Option<crate::pg::shmem::LockGuard> {
        for _ in 0..ATTEMPTS {
            if let Some(guard) = LOCKS.try_lock(self.partition(hash), mode) {
                return Some(guard);
            }
            std::thread::yield_now();
        }
        None
    }

    fn find(&self, key: &Key, hash: u64) -> Option<&'static Entry> {
        let mut at = self.bucket(hash)?.load(Relaxed);
        // A chain is never longer than the table: a bound, so that even a broken chain could not hang a backend.
        for _ in 0..=self.entries.len() {
            let entry = self.entries.get(at.checked_sub(1)? as usize)?;
            if entry.hash.load(Relaxed) == hash && entry.key() == *key {
                return Some(entry);
            }
            at = entry.next.load(Relaxed);
        }
        None
    }

    fn pop_free(&self) -> Option<(u32, &'static Entry)> {
        let next = |top: u64| Some(changed(top, self.entries.get((top as u32).checked_sub(1)? as usize)?.next.load(Relaxed)));
        let top = self.head.free.fetch_update(AcqRel, Acquire, next).ok()?;
        self.head.used.fetch_add(1, Relaxed);
        let position = (top as u32).checked_sub(1)?;
        self.entries.get(position as usize).map(|e| (position, e))
    }

    /// Takes the counters of a database, and frees entries that were idle for long. For the worker.
    pub fn take(&self, database: u32) -> Vec<Taken> {
        let used = self.head.used.load(Relaxed) as usize;
        let idle_takes = match used * 20 / self.entries.len().max(1) {
            0..15 => IDLE_TAKES[0],
            15..19 => IDLE_TAKES[1],
            _ => IDLE_TAKES[2],
        };
        let mut all = Vec::new();
        // By the hash of their templates: those with too many tenants, and the entries with tenants.
        let (mut crowded, mut tenants) = (Vec::new(), HashMap::<u64, Vec<(u64, usize)>>::new());
        for (position, entry) in self.entries.iter().enumerate() {
            if entry.database.load(Relaxed) != database {
                continue;
            }
            let hash = entry.hash.load(Relaxed);
            let (key, taken, idle) = {
                let Some(_guard) = LOCKS.wait_lock(self.partition(hash), Mode::Exclusive) else { return all };
                if !entry.is(database, hash) {
                    continue;
                }
                let (key, taken) = (entry.key(), entry.take());
                let idle = match taken {
                    None => entry.idle.fetch_add(1, Relaxed) + 1 >= idle_takes,
                    // Where there is no room left, what ran only once or twice makes some: nothing of it is lost.
                    Some(_) => idle_takes == IDLE_TAKES[2] && entry.known().lifetime <= 2,
                } && entry.tenants.load(Relaxed) == 0;
                if idle {
                    self.free(position, entry, hash);
                }
                (key, taken, idle)
            };
            if idle {
                self.head.evicted.fetch_add(1, Relaxed);
                if key.tenant_len > 0 {
                    self.release_tenant(&key.base(), key.base().hash(), true);
                }
            } else if key.tenant_len > 0 {
                tenants.entry(key.base().hash()).or_default().push((entry.weight.load(Relaxed), position));
            } else if entry.crowded.swap(0, Relaxed) > 0 {
                crowded.push(hash);
            }
            all.extend(taken);
        }
        for template in crowded {
            if let Some(few) = tenants.get_mut(&template) {
                few.sort_unstable();
                few.iter().take(few.len().div_ceil(4)).for_each(|(_, position)| self.evict(database, *position));
            }
        }
        all
    }

    /// Adds what was taken again, because it could not be kept; a lock that is busy is tried for long. Samples are wanted anew.
    pub fn give_back(&self, taken: &Taken) {
        let hash = taken.key.hash();
        let add = |e: &Entry| {
            e.give_back(taken);
            e.known()
        };
        let done = (0..PATIENCE).find_map(|_| match self.with_entry(&taken.key, hash, &taken.template, &add) {
            Err(Refused::Busy) => None,
            done => Some(done.is_ok()),
        });
        if done != Some(true) {
            self.dropped(taken.counts.calls.saturating_add(taken.counts.errors));
        }
    }

    /// Frees an entry with a tenant, unless it has counted something in between.
    fn evict(&self, database: u32, position: usize) {
        let Some(entry) = self.entries.get(position) else { return };
        let hash = entry.hash.load(Relaxed);
        let base = {
            let Some(_guard) = LOCKS.wait_lock(self.partition(hash), Mode::Exclusive) else { return };
            if !entry.is(database, hash) || entry.tenant_len.load(Relaxed) == 0 || entry.has_counted() {
                return;
            }
            let base = entry.key().base();
            self.free(position, entry, hash);
            base
        };
        self.head.evicted.fetch_add(1, Relaxed);
        self.release_tenant(&base, base.hash(), true);
    }

    /// The state of all entries of a database (0: of all), without taking anything.
    pub fn peek(&self, database: u32) -> Vec<Taken> {
        let mut all = Vec::new();
        for entry in self.entries {
            let (hash, owner) = (entry.hash.load(Relaxed), entry.database.load(Relaxed));
            if owner == 0 || (database != 0 && owner != database) {
                continue;
            }
            // At the shutdown of the server nobody is left, and there are no locks to be had.
            let _guard = LOCKS.wait_lock(self.partition(hash), Mode::Shared);
            if entry.is(owner, hash) {
                all.push(entry.peek());
            }
        }
        all
    }

    /// Puts an entry back as it was, while the server starts and nobody else is there. False when there is no room.
    pub fn restore(&self, saved: &Taken) -> bool {
        let hash = saved.key.hash();
        if saved.key.database == 0 || self.find(&saved.key, hash).is_some() {
            return false;
        }
        let Some(entry) = self.link_new(&saved.key, hash, &saved.template) else { return false };
        entry.add(&saved.counts, &[]);
        for (to, from) in entry.histogram.iter().zip(saved.histogram) {
            to.store(u32::try_from(from).unwrap_or(u32::MAX), Relaxed);
        }
        entry.lifetime.store(saved.known.lifetime, Relaxed);
        entry.sampled.store(saved.known.sampled, Relaxed);
        let base = saved.key.base();
        if saved.key.tenant_len > 0
            && let Some(base) = self.find(&base, base.hash())
        {
            base.tenants.fetch_add(1, Relaxed);
        }
        true
    }

    /// Frees all entries of a database.
    pub fn clear(&self, database: u32) {
        for (position, entry) in self.entries.iter().enumerate() {
            if entry.database.load(Relaxed) != database {
                continue;
            }
            let hash = entry.hash.load(Relaxed);
            let Some(_guard) = LOCKS.wait_lock(self.partition(hash), Mode::Exclusive) else { return };
            if entry.is(database, hash) {
                self.free(position, entry, hash);
            }
        }
    }

    /// Unlinks an entry; the caller holds its partition exclusively.
    fn free(&self, position: usize, entry: &'static Entry, hash: u64) {
        let this = position as u32 + 1;
        let next = entry.next.load(Relaxed);
        let Some(bucket) = self.bucket(hash) else { return };
        let mut link = bucket;
        for _ in 0..=self.entries.len() {
            let at = link.load(Relaxed);
            if at == this {
                link.store(next, Relaxed);
                break;
            }
            let Some(previous) = at.checked_sub(1).and_then(|p| self.entries.get(p as usize)) else { return };
            link = &previous.next;
        }
        entry.hash.store(0, Relaxed);
        entry.database.store(0, Relaxed);
        let _ = self.head.free.fetch_update(AcqRel, Acquire, |top| {
            entry.next.store(top as u32, Relaxed);
            Some(changed(top, this))
        });
        self.head.used.fetch_sub(1, Relaxed);
    }

    pub fn usage(&self) -> Usage {
        Usage {
            used: u64::from(self.head.used.load(Relaxed)),
            capacity: self.entries.len() as u64,
            dropped: self.head.dropped.load(Relaxed),
            evicted: self.head.evicted.load(Relaxed),
            bytes: (size_of_val(self.entries) + size_of_val(self.buckets) + size_of::<Head>()) as u64,
        }
    }
}

/// The free list's head with a new top; the count in the high half makes every change visible to compare-and-swap.
fn changed(head: u64, top: u32) -> u64 {
    (head >> 32).wrapping_add(1) << 32 | u64::from(top)
}
