//! What the planner said before, for as long as it would say the same: kept in this session, bounded in time and size.
//!
//! An answer is known by the sample, the indexes, and the settings of the session. It goes when a relation of the plan changes (its
//! definition, or its statistics: ANALYZE and VACUUM announce both), and with every change of functions, operators, roles or statistics.
//! Tables that only grow are not announced: the time limit is for them.

use super::{Hypothetical, Planned, Sample};
use crate::guc;
use crate::pg::error::Result;
use crate::pg::{inval, time};
use indexpilot_core::cache::{Cache, EVERYTHING, Stats};
use indexpilot_core::whatif::Access;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

/// An answer.
#[derive(Clone)]
enum Kept {
    Plan(Rc<Planned>),
    Prices(Rc<Vec<Access>>),
}

type Key = Rc<[u8]>;

thread_local! {
    static CACHE: RefCell<Cache<Key, Kept>> = RefCell::new(Cache::default());
    /// A change came while the cache was in use.
    static MISSED: Cell<bool> = const { Cell::new(false) };
}

/// What an answer depends on beside its question: read once for many questions of one call.
#[derive(Clone, Copy)]
pub struct Surroundings {
    settings: u64,
    ttl_s: f64,
    limit: usize,
}

impl Surroundings {
    pub fn now() -> Self {
        let (ttl_s, limit) = (guc::whatif_cache_ttl().as_secs_f64(), guc::whatif_cache_size());
        let on = ttl_s > 0.0 && limit > 0;
        if on {
            inval::listen(changed);
        }
        Surroundings { settings: if on { inval::settings() } else { 0 }, ttl_s, limit }
    }

    fn on(&self) -> bool {
        self.ttl_s > 0.0 && self.limit > 0
    }
}

/// Called by the server at any time.
fn changed(relation: u32) {
    CACHE.with(|cache| match cache.try_borrow_mut() {
        Ok(mut cache) => cache.changed(relation),
        Err(_) => MISSED.set(true),
    });
}

/// What tells a hypothetical index from all others.
pub fn identity(index: &Hypothetical) -> u64 {
    let mut hash = DefaultHasher::new();
    format!("{:?} {:?} {:?}", index.index, index.size, index.entry_pages).hash(&mut hash);
    index.only_statistics.hash(&mut hash);
    index.hash_statistics(&mut hash);
    hash.finish()
}

/// The plan as in [`super::plan`], from memory where it can be. `indexes` are the identities of `with`.
///
/// # Errors
/// As [`super::plan`].
pub fn plan(
    around: &Surroundings,
    sample: &Sample,
    with: &[Rc<Hypothetical>],
    indexes: &[u64],
    hide: &[pg_sys::Oid],
    explain: bool,
) -> Result<Planned> {
    if !around.on() {
        return super::plan(sample, with, hide, explain);
    }
    let key = key(if explain { b'e' } else { b'p' }, around, sample, indexes, hide);
    if let Some(Kept::Plan(planned)) = look_up(&key, around) {
        return Ok((*planned).clone());
    }
    let planned = super::plan(sample, with, hide, explain)?;
    let text = planned.explain.as_ref().map_or(0, String::len);
    let leaves: usize = planned.leaves.iter().map(|l| 96 + 8 * l.indexes.len() + 16 * l.order.len()).sum();
    let tables = depends_on(&planned.relations, with);
    let bytes = key.len() + text + leaves + 8 * (planned.used.len() + planned.considered.len()) + 4 * tables.len() + OVERHEAD;
    keep(key, Kept::Plan(Rc::new(planned.clone())), bytes, tables, around);
    Ok(planned)
}

/// The prices as in [`super::prices`], from memory where they can be.
///
/// # Errors
/// As [`super::prices`].
pub fn prices(around: &Surroundings, sample: &Sample, with: &[Rc<Hypothetical>], indexes: &[u64]) -> Result<Vec<Access>> {
    if !around.on() {
        return Ok(super::prices(sample, with)?.0);
    }
    let key = key(b'c', around, sample, indexes, &[]);
    if let Some(Kept::Prices(accesses)) = look_up(&key, around) {
        return Ok((*accesses).clone());
    }
    let (accesses, relations) = super::prices(sample, with)?;
    let tables = depends_on(&relations, with);
    let bytes = key.len() + accesses.iter().map(|a| 96 + 16 * a.order.len()).sum::<usize>() + 4 * tables.len() + OVERHEAD;
    keep(key, Kept::Prices(Rc::new(accesses.clone())), bytes, tables, around);
    Ok(accesses)
}

/// What an entry takes beside its parts, roughly.
const OVERHEAD: usize = 400;

/// What the cache of this session did.
pub fn stats() -> Stats {
    CACHE.with_borrow(Cache::stats)
}

fn now_s() -> f64 {
    time::ticks() as f64 / 1e9
}

fn look_up(key: &Key, around: &Surroundings) -> Option<Kept> {
    inval::accept();
    CACHE.with_borrow_mut(|cache| {
        if MISSED.take() {
            cache.changed(EVERYTHING);
        }
        cache.get(key, now_s(), around.ttl_s)
    })
}

fn keep(key: Key, kept: Kept, bytes: usize, tables: Vec<u32>, around: &Surroundings) {
    CACHE.with_borrow_mut(|cache| cache.put(key, kept, bytes, tables, now_s(), around.limit));
}

/// Relations of the plan, and tables of the indexes: a plan that does not read one of them may do so once it has changed.
fn depends_on(relations: &[u32], with: &[Rc<Hypothetical>]) -> Vec<u32> {
    let mut all: Vec<u32> = relations.iter().copied().chain(with.iter().map(|i| i.def.table.0)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The question as bytes; lengths keep apart what would otherwise run together.
fn key(kind: u8, around: &Surroundings, sample: &Sample, indexes: &[u64], hide: &[pg_sys::Oid]) -> Key {
    let mut key = vec![kind];
    let text = |key: &mut Vec<u8>, t: &str| {
        key.extend((t.len() as u64).to_ne_bytes());
        key.extend(t.as_bytes());
    };
    text(&mut key, &sample.text);
    text(&mut key, &sample.search_path);
    key.extend(around.settings.to_ne_bytes());
    key.extend(sample.role.to_u32().to_ne_bytes());
    key.extend((sample.parameters.len() as u64).to_ne_bytes());
    for p in &sample.parameters {
        key.extend(p.type_oid.to_u32().to_ne_bytes());
        key.push(u8::from(p.known) * 2 + u8::from(p.value.is_some()));
        text(&mut key, p.value.as_deref().unwrap_or_default());
    }
    key.extend((indexes.len() as u64).to_ne_bytes());
    indexes.iter().for_each(|i| key.extend(i.to_ne_bytes()));
    hide.iter().for_each(|i| key.extend(i.to_u32().to_ne_bytes()));
    key.into()
}
