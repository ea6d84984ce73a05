//! Which value of a statement names its tenant, as the worker learned from a sample of the template.
//!
//! One word for a template, found by its hash: of two templates that share a place the one that was learned last is known, the other
//! has no tenant until it is learned again. A torn or stale answer is impossible, since a word is read and written as one.

use crate::pg::shmem::Region;
use indexpilot_core::tenant::TenantSource;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Places, a power of two.
const PLACES: usize = 4096;

static SOURCES: Region<AtomicU64> = Region::new(c"indexpilot capture tenants", || PLACES, |_| ());

/// Templates that were ever learned.
static LEARNED: Region<AtomicU64> = Region::new(c"indexpilot capture tenants learned", || 1, |_| ());

/// Asks for the memory. From `_PG_init`.
pub fn init() {
    crate::pg::shmem::register(&[&SOURCES, &LEARNED], &[]);
}

/// Remembers, or with `None` forgets, what names the tenant in statements of a template.
pub fn learn(database: u32, queryid: u64, relations_hash: u64, source: Option<TenantSource>) {
    let hash = hash(database, queryid, relations_hash);
    let Some(place) = place(hash) else { return };
    match source {
        Some(source) => {
            place.store(source.pack(hash), Relaxed);
            if let Some(learned) = LEARNED.get().and_then(<[_]>::first) {
                learned.fetch_add(1, Relaxed);
            }
        }
        None => {
            let word = place.load(Relaxed);
            if TenantSource::unpack(word, hash).is_some() {
                // Somebody else's word, written since, is left alone.
                let _ = place.compare_exchange(word, 0, Relaxed, Relaxed);
            }
        }
    }
}

/// Something was learned of some template, so that it is worth looking.
#[inline]
pub fn any() -> bool {
    LEARNED.get().and_then(<[_]>::first).is_some_and(|n| n.load(Relaxed) > 0)
}

/// What names the tenant in statements of a template, as far as it is known.
#[inline]
pub fn lookup(database: u32, queryid: u64, relations_hash: u64) -> Option<TenantSource> {
    let hash = hash(database, queryid, relations_hash);
    TenantSource::unpack(place(hash)?.load(Relaxed), hash)
}

/// Shared memory, bytes.
pub fn bytes() -> u64 {
    SOURCES.get().map_or(0, |all| size_of_val(all) as u64)
}

/// The lowest bits of a hash, which a word does not hold, choose its place.
fn place(hash: u64) -> Option<&'static AtomicU64> {
    SOURCES.get()?.get(hash as usize % PLACES)
}

/// Both identifiers are hashes themselves; one multiplication spreads their difference and the database over all bits.
fn hash(database: u32, queryid: u64, relations_hash: u64) -> u64 {
    let x = (queryid ^ relations_hash.rotate_left(32) ^ u64::from(database)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^ (x >> 29)
}
