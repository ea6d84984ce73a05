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

use crate::guc;
use crate::pg::shmem::{Locks, Mode, Region, shared};
use indexpilot_core::histogram::BUCKETS;
use std::collections::HashMap;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// Bytes of a tenant id that are told apart.
pub const TENANT: usize = 63;
/// Base tables of a statement that are remembered.
pub const RELATIONS: usize = 16;
const PARTITIONS: usize = 64;
/// A lock that guards the entry is only ever held for well under a microsecond, unless its holder was descheduled.
const ATTEMPTS: usize = 32;
/// Takes without a call after which an entry is freed: always; when three quarters are taken; when the table is all but full.
const IDLE_TAKES: [u32; 3] = [360, 6, 1];
/// Takes after which a further sample of a template is wanted (an hour, when the worker comes every ten seconds).
const SAMPLE_TAKES: u32 = 360;

/// What makes two executions count together.
#[derive(Clone, Copy)]
pub struct Key {
    pub database: u32,
    pub role: u32,
    pub queryid: u64,
    pub relations_hash: u64,
    pub tenant: [u8; TENANT],
    pub tenant_len: u8,
    /// It ran inside a function, trigger, procedure or DO block.
    pub nested: bool,
}

impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Key) -> bool {
        self.queryid == other.queryid
            && self.relations_hash == other.relations_hash
            && (self.database, self.role, self.nested, self.tenant_len)
                == (other.database, other.role, other.nested, other.tenant_len)
            && (self.tenant_len == 0 || self.tenant() == other.tenant())
    }
}

impl Key {
    pub const EMPTY: Key =
        Key { database: 0, role: 0, queryid: 0, relations_hash: 0, tenant: [0; TENANT], tenant_len: 0, nested: false };

    pub fn tenant(&self) -> &[u8] {
        self.tenant.get(..self.tenant_len as usize).unwrap_or_default()
    }

    /// The same without a tenant.
    pub fn base(&self) -> Key {
        Key { tenant: [0; TENANT], tenant_len: 0, ..*self }
    }

    #[inline]
    pub fn hash(&self) -> u64 {
        let ids = u64::from(self.database) << 32 | u64::from(self.role) << 1 | u64::from(self.nested);
        let mut h = mix(self.queryid ^ mix(self.relations_hash ^ ids));
        for chunk in self.tenant().chunks(8) {
            h = chunk.iter().fold(h, |h, b| h.rotate_left(8) ^ u64::from(*b));
            h = mix(h);
        }
        // Zero stands for nothing.
        h.max(1)
    }
}

/// The finaliser of SplitMix64: every bit of the input changes half of the output.
#[inline]
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// What is known of a template beside its key.
#[derive(Clone, Copy)]
pub struct Template {
    /// `CmdType` of the server.
    pub command: u32,
    pub relations: [u32; RELATIONS],
    pub relation_count: u8,
    /// The statement has more base tables than are remembered.
    pub truncated: bool,
}

impl Template {
    pub const EMPTY: Template = Template { command: 0, relations: [0; RELATIONS], relation_count: 0, truncated: false };
}

/// Sums over executions. Only `errors` and `error_ns` are about the failed ones.
#[derive(Clone, Copy)]
pub struct Counts {
    pub calls: u64,
    pub errors: u64,
    pub error_ns: u64,
    pub rows: u64,
    pub ns: u64,
    pub sum_squares_us: f64,
    pub min_ns: u64,
    pub max_ns: u64,
    pub planner_cost: f64,
    pub blocks_hit: u64,
    pub blocks_read: u64,
    pub blocks_temp: u64,
    pub wal_bytes: u64,
}

impl Counts {
    pub const NONE: Counts = Counts {
        calls: 0,
        errors: 0,
        error_ns: 0,
        rows: 0,
        ns: 0,
        sum_squares_us: 0.0,
        min_ns: 0,
        max_ns: 0,
        planner_cost: 0.0,
        blocks_hit: 0,
        blocks_read: 0,
        blocks_temp: 0,
        wal_bytes: 0,
    };
}

/// What the table knew of a template just now.
#[derive(Clone, Copy)]
pub struct Known {
    /// Executions since the entry was made.
    pub lifetime: u64,
    /// Samples that were kept of it.
    pub sampled: u32,
}

/// Why nothing was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The lock is busy: try again later.
    Busy,
    /// There is no room.
    Full,
}

/// An entry's state.
#[derive(Clone)]
pub struct Taken {
    pub key: Key,
    pub template: Template,
    pub known: Known,
    pub counts: Counts,
    pub histogram: [u64; BUCKETS],
}

shared! {
    /// Counters of one template. Sums of floating-point numbers are kept as their bits.
    struct Entry {
        hash: AtomicU64,
        /// Position of the next entry of the bucket, or of the free list, plus one.
        next: AtomicU32,
        /// 0 while the entry is free.
        database: AtomicU32,
        role: AtomicU32,
        nested: AtomicU32,
        queryid: AtomicU64,
        relations_hash: AtomicU64,
        tenant: [AtomicU64; 8],
        tenant_len: AtomicU32,
        command: AtomicU32,
        relations: [AtomicU32; RELATIONS],
        /// Their number, and 256 when there are more.
        relation_count: AtomicU32,
        idle: AtomicU32,
        /// Takes since the last sample was asked for.
        takes: AtomicU32,
        sampled: AtomicU32,
        /// Of an entry without tenant: entries of its template with one.
        tenants: AtomicU32,
        /// Of an entry without tenant: a tenant found no room since the last take.
        crowded: AtomicU32,
        /// Of an entry with tenant: its calls of late, halved at every take.
        weight: AtomicU64,
        lifetime: AtomicU64,
        calls: AtomicU64,
        errors: AtomicU64,
        rows: AtomicU64,
        ns: AtomicU64,
        error_ns: AtomicU64,
        sum_squares_us: AtomicU64,
        min_ns: AtomicU64,
        max_ns: AtomicU64,
        planner_cost: AtomicU64,
        blocks_hit: AtomicU64,
        blocks_read: AtomicU64,
        blocks_temp: AtomicU64,
        wal_bytes: AtomicU64,
        histogram: [AtomicU32; BUCKETS],
    }
}

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
                self.release_tenant(&base, base_hash);
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

    fn release_tenant(&self, base: &Key, base_hash: u64) {
        let Some(_guard) = self.lock(base_hash, Mode::Shared) else { return };
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
                let taken = entry.take();
                let idle =
                    taken.is_none() && entry.idle.fetch_add(1, Relaxed) + 1 >= idle_takes && entry.tenants.load(Relaxed) == 0;
                if idle {
                    self.free(position, entry, hash);
                }
                (entry.key(), taken, idle)
            };
            if idle {
                self.head.evicted.fetch_add(1, Relaxed);
                if key.tenant_len > 0 {
                    self.release_tenant(&key.base(), key.base().hash());
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
        self.release_tenant(&base, base.hash());
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

impl Entry {
    fn is(&self, database: u32, hash: u64) -> bool {
        self.hash.load(Relaxed) == hash && self.database.load(Relaxed) == database
    }

    fn key(&self) -> Key {
        let mut tenant = [0; TENANT];
        let tenant_len = self.tenant_len.load(Relaxed) as u8;
        if tenant_len > 0 {
            for (bytes, word) in tenant.chunks_mut(8).zip(&self.tenant) {
                let word = word.load(Relaxed).to_le_bytes();
                for (to, from) in bytes.iter_mut().zip(word) {
                    *to = from;
                }
            }
        }
        Key {
            database: self.database.load(Relaxed),
            role: self.role.load(Relaxed),
            queryid: self.queryid.load(Relaxed),
            relations_hash: self.relations_hash.load(Relaxed),
            tenant,
            tenant_len,
            nested: self.nested.load(Relaxed) != 0,
        }
    }

    fn set(&self, key: &Key, hash: u64, template: &Template) {
        for (word, bytes) in self.tenant.iter().zip(key.tenant.chunks(8)) {
            word.store(bytes.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b)), Relaxed);
        }
        self.tenant_len.store(u32::from(key.tenant_len), Relaxed);
        self.role.store(key.role, Relaxed);
        self.nested.store(u32::from(key.nested), Relaxed);
        self.queryid.store(key.queryid, Relaxed);
        self.relations_hash.store(key.relations_hash, Relaxed);
        self.command.store(template.command, Relaxed);
        for (to, from) in self.relations.iter().zip(template.relations) {
            to.store(from, Relaxed);
        }
        self.relation_count.store(u32::from(template.relation_count) | if template.truncated { 256 } else { 0 }, Relaxed);
        for counter in [&self.idle, &self.takes, &self.sampled, &self.tenants, &self.crowded].into_iter().chain(&self.histogram) {
            counter.store(0, Relaxed);
        }
        self.lifetime.store(0, Relaxed);
        self.weight.store(0, Relaxed);
        self.reset();
        self.hash.store(hash, Relaxed);
        self.database.store(key.database, Relaxed);
    }

    fn reset(&self) {
        for counter in self.counters() {
            counter.store(0, Relaxed);
        }
        self.min_ns.store(u64::MAX, Relaxed);
    }

    fn counters(&self) -> [&AtomicU64; 12] {
        [
            &self.calls,
            &self.errors,
            &self.rows,
            &self.ns,
            &self.error_ns,
            &self.sum_squares_us,
            &self.max_ns,
            &self.planner_cost,
            &self.blocks_hit,
            &self.blocks_read,
            &self.blocks_temp,
            &self.wal_bytes,
        ]
    }

    fn known(&self) -> Known {
        Known { lifetime: self.lifetime.load(Relaxed), sampled: self.sampled.load(Relaxed) }
    }

    fn add(&self, counts: &Counts, histogram: &[u16]) -> Known {
        self.lifetime.fetch_add(counts.calls.saturating_add(counts.errors), Relaxed);
        // What is zero for most statements spares the cache line.
        for (counter, value) in [
            (&self.calls, counts.calls),
            (&self.errors, counts.errors),
            (&self.error_ns, counts.error_ns),
            (&self.rows, counts.rows),
            (&self.ns, counts.ns),
            (&self.blocks_hit, counts.blocks_hit),
            (&self.blocks_read, counts.blocks_read),
            (&self.blocks_temp, counts.blocks_temp),
            (&self.wal_bytes, counts.wal_bytes),
        ] {
            if value > 0 {
                counter.fetch_add(value, Relaxed);
            }
        }
        if counts.calls > 0 {
            add_f64(&self.sum_squares_us, counts.sum_squares_us);
            add_f64(&self.planner_cost, counts.planner_cost);
            self.min_ns.fetch_min(counts.min_ns, Relaxed);
            self.max_ns.fetch_max(counts.max_ns, Relaxed);
        }
        for (counter, count) in self.histogram.iter().zip(histogram).filter(|(_, count)| **count > 0) {
            counter.fetch_add(u32::from(*count), Relaxed);
        }
        self.known()
    }

    fn has_counted(&self) -> bool {
        self.calls.load(Relaxed) > 0 || self.errors.load(Relaxed) > 0
    }

    fn peek(&self) -> Taken {
        let count = self.relation_count.load(Relaxed);
        let mut relations = [0; RELATIONS];
        for (to, from) in relations.iter_mut().zip(&self.relations) {
            *to = from.load(Relaxed);
        }
        let mut histogram = [0; BUCKETS];
        for (to, from) in histogram.iter_mut().zip(&self.histogram) {
            *to = u64::from(from.load(Relaxed));
        }
        let calls = self.calls.load(Relaxed);
        Taken {
            key: self.key(),
            template: Template {
                command: self.command.load(Relaxed),
                relations,
                relation_count: (count & 255) as u8,
                truncated: count & 256 != 0,
            },
            known: self.known(),
            counts: Counts {
                calls,
                errors: self.errors.load(Relaxed),
                error_ns: self.error_ns.load(Relaxed),
                rows: self.rows.load(Relaxed),
                ns: self.ns.load(Relaxed),
                sum_squares_us: f64::from_bits(self.sum_squares_us.load(Relaxed)),
                min_ns: if calls == 0 { 0 } else { self.min_ns.load(Relaxed) },
                max_ns: self.max_ns.load(Relaxed),
                planner_cost: f64::from_bits(self.planner_cost.load(Relaxed)),
                blocks_hit: self.blocks_hit.load(Relaxed),
                blocks_read: self.blocks_read.load(Relaxed),
                blocks_temp: self.blocks_temp.load(Relaxed),
                wal_bytes: self.wal_bytes.load(Relaxed),
            },
            histogram,
        }
    }

    /// `None` when nothing was counted since the last time. The caller holds the partition exclusively, so nobody adds.
    fn take(&self) -> Option<Taken> {
        if self.takes.fetch_add(1, Relaxed) >= SAMPLE_TAKES {
            // The data change, and so do the values that are asked for.
            self.takes.store(0, Relaxed);
            let _ = self.sampled.fetch_update(Relaxed, Relaxed, |n| Some(n.min(super::backend::FIRST_SAMPLES.saturating_sub(1))));
        }
        let weight = self.weight.load(Relaxed) / 2;
        self.weight.store(weight.saturating_add(self.calls.load(Relaxed)), Relaxed);
        if !self.has_counted() {
            return None;
        }
        let taken = self.peek();
        for counter in &self.histogram {
            counter.store(0, Relaxed);
        }
        self.reset();
        self.idle.store(0, Relaxed);
        Some(taken)
    }
}

fn add_f64(sum: &AtomicU64, value: f64) {
    let _ = sum.fetch_update(Relaxed, Relaxed, |bits| Some((f64::from_bits(bits) + value).to_bits()));
}
