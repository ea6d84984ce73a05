//! What is counted of one template: its key, its counters, and its place in shared memory.

use crate::pg::shmem::shared;
pub use crate::pg::statement::RELATIONS;
use indexpilot_core::histogram::BUCKETS;
use indexpilot_core::workload::mix;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Bytes of a tenant id that are told apart.
pub const TENANT: usize = 63;
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
    /// What its transaction saw of the indexes on trial (`indexpilot_core::trial::Arm`); 0 while nothing is.
    pub arm: u8,
}

impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Key) -> bool {
        self.queryid == other.queryid
            && self.relations_hash == other.relations_hash
            && (self.database, self.role, self.nested, self.tenant_len, self.arm)
                == (other.database, other.role, other.nested, other.tenant_len, other.arm)
            && (self.tenant_len == 0 || self.tenant() == other.tenant())
    }
}

impl Key {
    pub const EMPTY: Key =
        Key { database: 0, role: 0, queryid: 0, relations_hash: 0, tenant: [0; TENANT], tenant_len: 0, nested: false, arm: 0 };

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
        let mut h = mix(self.queryid ^ mix(self.relations_hash ^ ids ^ u64::from(self.arm) << 60));
        for chunk in self.tenant().chunks(8) {
            h = chunk.iter().fold(h, |h, b| h.rotate_left(8) ^ u64::from(*b));
            h = mix(h);
        }
        // Zero stands for nothing.
        h.max(1)
    }
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
    pub struct Entry {
        pub hash: AtomicU64,
        /// Position of the next entry of the bucket, or of the free list, plus one.
        pub next: AtomicU32,
        /// 0 while the entry is free.
        pub database: AtomicU32,
        role: AtomicU32,
        nested: AtomicU32,
        arm: AtomicU32,
        queryid: AtomicU64,
        relations_hash: AtomicU64,
        tenant: [AtomicU64; 8],
        pub tenant_len: AtomicU32,
        command: AtomicU32,
        relations: [AtomicU32; RELATIONS],
        /// Their number, and 256 when there are more.
        relation_count: AtomicU32,
        pub idle: AtomicU32,
        /// Takes since the last sample was asked for.
        takes: AtomicU32,
        pub sampled: AtomicU32,
        /// Of an entry without tenant: entries of its template with one.
        pub tenants: AtomicU32,
        /// Of an entry without tenant: a tenant found no room since the last take.
        pub crowded: AtomicU32,
        /// Of an entry with tenant: its calls of late, halved at every take.
        pub weight: AtomicU64,
        pub lifetime: AtomicU64,
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
        pub histogram: [AtomicU32; BUCKETS],
    }
}

impl Entry {
    pub fn is(&self, database: u32, hash: u64) -> bool {
        self.hash.load(Relaxed) == hash && self.database.load(Relaxed) == database
    }

    pub fn key(&self) -> Key {
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
            arm: self.arm.load(Relaxed) as u8,
        }
    }

    pub fn set(&self, key: &Key, hash: u64, template: &Template) {
        for (word, bytes) in self.tenant.iter().zip(key.tenant.chunks(8)) {
            word.store(bytes.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b)), Relaxed);
        }
        self.tenant_len.store(u32::from(key.tenant_len), Relaxed);
        self.role.store(key.role, Relaxed);
        self.nested.store(u32::from(key.nested), Relaxed);
        self.arm.store(u32::from(key.arm), Relaxed);
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

    pub fn known(&self) -> Known {
        Known { lifetime: self.lifetime.load(Relaxed), sampled: self.sampled.load(Relaxed) }
    }

    pub fn add(&self, counts: &Counts, histogram: &[u16]) -> Known {
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
            self.count(counter, u32::from(*count));
        }
        self.known()
    }

    /// A counter that nobody takes for days stops rather than begins anew.
    fn count(&self, counter: &AtomicU32, count: u32) {
        if counter.load(Relaxed) < u32::MAX / 2 {
            counter.fetch_add(count, Relaxed);
        }
    }

    /// Adds what was taken of it; it has no samples then.
    pub fn give_back(&self, taken: &Taken) {
        self.add(&taken.counts, &[]);
        for (counter, count) in self.histogram.iter().zip(taken.histogram).filter(|(_, count)| *count > 0) {
            self.count(counter, u32::try_from(count).unwrap_or(u32::MAX / 2));
        }
        self.sampled.store(0, Relaxed);
    }

    pub fn has_counted(&self) -> bool {
        self.calls.load(Relaxed) > 0 || self.errors.load(Relaxed) > 0
    }

    pub fn peek(&self) -> Taken {
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
    pub fn take(&self) -> Option<Taken> {
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
