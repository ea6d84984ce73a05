//! What this session has counted and not handed in yet: a small table of templates, found by hash.
//!
//! An entry stays after it was handed in, so a template that the session runs again costs no look into shared memory. When a
//! place is needed, an entry that no running statement refers to gives way, and is handed in first if it has counted something.

use super::entry::{Counts, Key, Known, Refused, Template};
use super::table::Table;
use indexpilot_core::histogram::{self, BUCKETS};

/// Templates of a session at a time.
const ENTRIES: usize = 128;
/// Places that are looked at for a template.
const PROBES: usize = 8;

/// Position of an entry.
pub type Place = u8;

#[derive(Clone, Copy)]
struct Entry {
    /// 0: the place is free.
    hash: u64,
    key: Key,
    template: Template,
    /// Executions of the template by all sessions, as far as this one knows, and samples of it.
    known: Known,
    /// Statements of this session that refer to it.
    open: u16,
    counts: Counts,
    histogram: [u16; BUCKETS],
    /// Something was counted since it was last handed in.
    pending: bool,
}

const FREE: Entry = Entry {
    hash: 0,
    key: Key::EMPTY,
    template: Template::EMPTY,
    known: Known { lifetime: 0, sampled: 0 },
    open: 0,
    counts: Counts::NONE,
    histogram: [0; BUCKETS],
    pending: false,
};

/// The table.
pub struct Local {
    entries: [Entry; ENTRIES],
    /// Executions that were not handed in.
    waiting: u32,
}

/// One execution.
#[derive(Clone, Copy)]
pub struct Execution {
    pub failed: bool,
    pub ns: u64,
    pub rows: u64,
    pub planner_cost: f64,
    pub blocks_hit: u64,
    pub blocks_read: u64,
    pub blocks_temp: u64,
    pub wal_bytes: u64,
}

impl Local {
    pub const EMPTY: Local = Local { entries: [FREE; ENTRIES], waiting: 0 };

    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// The template's place, which stays its own until [`Local::close`]; true when the session meets the template anew. `None` when
    /// the places are all taken by running statements, or shared memory has none.
    #[inline]
    pub fn open(&mut self, key: &Key, hash: u64, template: &Template) -> Option<(Place, bool)> {
        for i in 0..PROBES {
            let place = (hash as usize).wrapping_add(i) % ENTRIES;
            let entry = self.entries.get_mut(place)?;
            if entry.hash == hash && entry.key == *key {
                entry.open = entry.open.wrapping_add(1);
                return Some((place as Place, false));
            }
        }
        self.meet(key, hash, template).map(|place| (place, true))
    }

    /// As [`Local::open`], for a template that was at that place; false when it is not any more.
    #[inline]
    pub fn open_again(&mut self, place: Place, hash: u64) -> bool {
        match self.entries.get_mut(place as usize) {
            Some(entry) if entry.hash == hash => {
                entry.open = entry.open.wrapping_add(1);
                true
            }
            _ => false,
        }
    }

    #[cold]
    fn meet(&mut self, key: &Key, hash: u64, template: &Template) -> Option<Place> {
        let places = || (0..PROBES).map(|i| (hash as usize).wrapping_add(i) % ENTRIES);
        let usable = |wanted: &dyn Fn(&Entry) -> bool| places().find(|p| self.entries.get(*p).is_some_and(wanted));
        let place =
            usable(&|e| e.hash == 0).or_else(|| usable(&|e| e.open == 0 && !e.pending)).or_else(|| usable(&|e| e.open == 0))?;
        self.hand_in_entry(place, true);
        let known = Table::get()?.touch(key, hash, template);
        let entry = self.entries.get_mut(place)?;
        // Counted here even where shared memory has no room now: it may have when this is handed in.
        let known = known.unwrap_or(Known { lifetime: 0, sampled: u32::MAX });
        (entry.hash, entry.key, entry.template, entry.known, entry.open) = (hash, *key, *template, known, 1);
        Some(place as Place)
    }

    pub fn key(&self, place: Place) -> Option<(&Key, u64, &Template)> {
        self.entries.get(place as usize).map(|e| (&e.key, e.hash, &e.template))
    }

    /// Fewer than `count` samples of the template are known.
    pub fn sampled_less_than(&self, place: Place, count: u32) -> bool {
        self.entries.get(place as usize).is_some_and(|e| e.known.sampled < count)
    }

    /// Remembers that a sample was kept.
    pub fn sampled(&mut self, key: &Key, hash: u64) {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.hash == hash && e.key == *key) {
            entry.known.sampled = entry.known.sampled.saturating_add(1);
        }
    }

    /// A statement that referred to the entry is over, and nothing is to be counted.
    pub fn close(&mut self, place: Place) {
        if let Some(entry) = self.entries.get_mut(place as usize) {
            entry.open = entry.open.saturating_sub(1);
        }
    }

    /// A statement that referred to the entry is over: counts it. The number of executions of the template so far, and of its samples.
    #[inline]
    pub fn add(&mut self, place: Place, x: &Execution) -> Option<Known> {
        let entry = self.entries.get_mut(place as usize)?;
        entry.open = entry.open.wrapping_sub(1);
        entry.pending = true;
        self.waiting = self.waiting.wrapping_add(1);
        entry.known.lifetime = entry.known.lifetime.wrapping_add(1);
        let c = &mut entry.counts;
        if x.failed {
            c.errors += 1;
            c.error_ns = c.error_ns.wrapping_add(x.ns);
            return Some(entry.known);
        }
        let us = x.ns / 1000;
        c.min_ns = if c.calls == 0 { x.ns } else { c.min_ns.min(x.ns) };
        c.max_ns = c.max_ns.max(x.ns);
        c.calls += 1;
        c.ns = c.ns.wrapping_add(x.ns);
        c.sum_squares_us += us as f64 * us as f64;
        c.planner_cost += x.planner_cost;
        c.rows = c.rows.wrapping_add(x.rows);
        c.blocks_hit = c.blocks_hit.wrapping_add(x.blocks_hit);
        c.blocks_read = c.blocks_read.wrapping_add(x.blocks_read);
        c.blocks_temp = c.blocks_temp.wrapping_add(x.blocks_temp);
        c.wal_bytes = c.wal_bytes.wrapping_add(x.wal_bytes);
        if let Some(bucket) = entry.histogram.get_mut(histogram::bucket(us)) {
            // Handed in long before it could run over: see backend.rs.
            *bucket = bucket.wrapping_add(1);
        }
        Some(entry.known)
    }

    /// Adds everything to shared memory. What finds a lock busy waits for the next time, or is dropped and counted if this is the
    /// `last` one.
    pub fn hand_in(&mut self, last: bool) {
        for place in 0..ENTRIES {
            if self.entries.get(place).is_some_and(|e| e.pending) {
                self.hand_in_entry(place, last);
            }
        }
    }

    /// Afterwards the entry has counted nothing, or it waits for the next time.
    fn hand_in_entry(&mut self, place: usize, last: bool) {
        let (Some(table), Some(entry)) = (Table::get(), self.entries.get_mut(place)) else { return };
        if !entry.pending {
            return;
        }
        let executions = entry.counts.calls.saturating_add(entry.counts.errors);
        match table.add(&entry.key, entry.hash, &entry.template, &entry.counts, &entry.histogram) {
            Ok(known) => entry.known = known,
            Err(Refused::Busy) if !last => return,
            Err(_) => table.dropped(executions),
        }
        entry.pending = false;
        entry.counts = Counts::NONE;
        entry.histogram = [0; BUCKETS];
        self.waiting = self.waiting.saturating_sub(u32::try_from(executions).unwrap_or(u32::MAX));
    }

    /// The database is not captured any more: nobody would take what was counted.
    pub fn forget(&mut self) {
        for entry in self.entries.iter_mut().filter(|e| e.pending) {
            (entry.pending, entry.counts, entry.histogram) = (false, Counts::NONE, [0; BUCKETS]);
        }
        self.waiting = 0;
    }

    /// Shared memory was cleared, or belongs to another server start: what was known of the templates is out of date.
    pub fn forget_known(&mut self) {
        for entry in self.entries.iter_mut().filter(|e| e.hash != 0) {
            entry.known = Known { lifetime: 0, sampled: 0 };
        }
    }
}
