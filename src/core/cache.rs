//! A memory of answers that is bounded in size and time: what was used longest ago goes first, and what is too old is not given out.
//! Each answer depends on objects, and goes when one of them changes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// What a change that may concern everything is known by.
pub const EVERYTHING: u32 = 0;

struct Entry<V> {
    value: V,
    /// Seconds, on the clock of the caller.
    at: f64,
    bytes: usize,
    /// Place in the order of use.
    turn: u64,
    depends_on: Vec<u32>,
}

/// What the cache did since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub entries: usize,
    pub bytes: usize,
    pub hits: u64,
    pub misses: u64,
    /// Given up for room.
    pub evicted: u64,
    /// Given up because something that they depend on changed.
    pub invalidated: u64,
}

/// See the module.
pub struct Cache<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by their turn, the one used longest ago first.
    order: BTreeMap<u64, K>,
    /// How many answers depend on each object: most changes concern none, and there may be thousands in a row.
    dependents: HashMap<u32, usize>,
    turn: u64,
    stats: Stats,
}

impl<K: Hash + Eq + Clone, V: Clone> Default for Cache<K, V> {
    fn default() -> Self {
        Cache { entries: HashMap::new(), order: BTreeMap::new(), dependents: HashMap::new(), turn: 0, stats: Stats::default() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// The answer, unless it is older than `ttl_s` at the time `now`.
    pub fn get(&mut self, key: &K, now: f64, ttl_s: f64) -> Option<V> {
        let fresh = self.entries.get(key).is_some_and(|e| now - e.at <= ttl_s);
        if !fresh {
            self.remove(key);
            self.stats.misses += 1;
            return None;
        }
        self.stats.hits += 1;
        self.turn += 1;
        let entry = self.entries.get_mut(key)?;
        if let Some(key) = self.order.remove(&entry.turn) {
            self.order.insert(self.turn, key);
        }
        entry.turn = self.turn;
        Some(entry.value.clone())
    }

    /// Keeps an answer of `bytes` bytes, and gives up others until all fit into `limit`. One that does not fit alone is not kept.
    pub fn put(&mut self, key: K, value: V, bytes: usize, depends_on: Vec<u32>, now: f64, limit: usize) {
        self.remove(&key);
        if bytes > limit {
            return;
        }
        self.shrink(limit - bytes);
        self.turn += 1;
        self.order.insert(self.turn, key.clone());
        for object in &depends_on {
            *self.dependents.entry(*object).or_default() += 1;
        }
        self.entries.insert(key, Entry { value, at: now, bytes, turn: self.turn, depends_on });
        self.stats.bytes += bytes;
    }

    /// Gives up what was used longest ago until the rest fits into `limit`.
    pub fn shrink(&mut self, limit: usize) {
        while self.stats.bytes > limit {
            let Some(key) = self.order.first_key_value().map(|(_, key)| key.clone()) else { return };
            self.remove(&key);
            self.stats.evicted += 1;
        }
    }

    /// An object changed: what depends on it goes. [`EVERYTHING`] stands for all objects.
    pub fn changed(&mut self, object: u32) {
        if object != EVERYTHING && !self.dependents.contains_key(&object) {
            return;
        }
        let gone: Vec<K> = self
            .entries
            .iter()
            .filter(|(_, e)| object == EVERYTHING || e.depends_on.contains(&object))
            .map(|(key, _)| key.clone())
            .collect();
        self.stats.invalidated += gone.len() as u64;
        gone.iter().for_each(|key| self.remove(key));
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.turn);
            self.stats.bytes -= entry.bytes;
            for object in &entry.depends_on {
                if let Some(n) = self.dependents.get_mut(object) {
                    *n -= 1;
                    if *n == 0 {
                        self.dependents.remove(object);
                    }
                }
            }
        }
    }

    pub fn stats(&self) -> Stats {
        Stats { entries: self.entries.len(), ..self.stats }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_too_old_or_has_changed_is_not_given_out() {
        let mut cache = Cache::default();
        cache.put("a", 1, 10, vec![7], 0.0, 100);
        cache.put("b", 2, 10, vec![7, 8], 0.0, 100);
        assert_eq!((cache.get(&"a", 5.0, 5.0), cache.get(&"a", 5.1, 5.0)), (Some(1), None));
        assert_eq!(cache.get(&"b", 1.0, 5.0), Some(2));
        cache.changed(9);
        assert_eq!(cache.get(&"b", 1.0, 5.0), Some(2));
        cache.changed(8);
        assert_eq!(cache.get(&"b", 1.0, 5.0), None);
        cache.put("c", 3, 10, vec![], 0.0, 100);
        cache.changed(EVERYTHING);
        assert_eq!(cache.get(&"c", 0.0, 5.0), None);
        assert_eq!(cache.stats(), Stats { entries: 0, bytes: 0, hits: 3, misses: 3, evicted: 0, invalidated: 2 });
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut cache = Cache::default();
        for key in ["a", "b", "c"] {
            cache.put(key, key, 10, vec![], 0.0, 30);
        }
        assert!(cache.get(&"a", 0.0, 1.0).is_some());
        cache.put("d", "d", 15, vec![], 0.0, 30);
        let there: Vec<bool> = ["a", "b", "c", "d"].iter().map(|k| cache.get(k, 0.0, 1.0).is_some()).collect();
        assert_eq!(there, [true, false, false, true]);
        cache.put("e", "e", 31, vec![], 0.0, 30);
        assert_eq!((cache.get(&"e", 0.0, 1.0), cache.stats().bytes), (None, 25), "one that does not fit drives nothing out");
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_it_may(steps in prop::collection::vec((0u8..8, 0usize..40, 0u32..4), 0..60)) {
            let mut cache = Cache::default();
            for (key, bytes, object) in steps {
                match bytes {
                    0 => cache.changed(object),
                    1..5 => drop(cache.get(&key, 0.0, 1.0)),
                    _ => cache.put(key, (), bytes, vec![object], 0.0, 100),
                }
                let held: usize = cache.entries.values().map(|e| e.bytes).sum();
                prop_assert_eq!(held, cache.stats().bytes);
                prop_assert_eq!(cache.order.len(), cache.entries.len());
                prop_assert_eq!(cache.dependents.values().sum::<usize>(), cache.entries.len(), "each depends on one");
                prop_assert!(held <= 100);
            }
        }
    }
}
