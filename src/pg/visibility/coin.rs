//! The coin of this session's transaction: which of the indexes on trial it sees.
//!
//! Drawn when the planner first meets an index on trial, and from then on at the end of every transaction, until nothing is on trial any
//! more. When the next transaction sees other indexes than this one did, the plans that the session keeps are made anew.

use super::get;
use crate::pg::{database, time};
use indexpilot_core::trial::{Arm, SIDES, Share};
use indexpilot_core::workload::mix;
use pgrx::pg_sys;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

// Of this process: statics, since a look at them costs one instruction.
static ARM: AtomicU32 = AtomicU32::new(0);
static COIN: AtomicU32 = AtomicU32::new(0);
/// Tells apart what is seen.
static SEEN: AtomicU64 = AtomicU64::new(0);
static STATE: AtomicU64 = AtomicU64::new(0);

#[inline]
pub(super) fn arm() -> u32 {
    ARM.load(Relaxed)
}

/// The coin, drawn now if there was none.
pub(super) fn of_transaction() -> u16 {
    if arm() == 0 {
        draw();
    }
    COIN.load(Relaxed) as u16
}

/// The next transaction has another coin.
#[cold]
pub(super) fn next() {
    let before = SEEN.load(Relaxed);
    draw();
    if SEEN.load(Relaxed) != before {
        // SAFETY: marks plans of this session as out of date (plancache.c): no look at a catalog, no allocation, at any time.
        unsafe { pg_sys::ResetPlanCache() };
    }
}

fn draw() {
    let coin = (random() % u64::from(SIDES)) as u16;
    let (mut arm, mut seen) = (Arm::None, 0);
    let here = u64::from(database::current().to_u32());
    for slot in get().into_iter().flat_map(|h| h.slots.iter().take(h.high.load(Relaxed) as usize)) {
        let key = slot.key.load(Relaxed);
        let share = Share::unpack(slot.share.load(Relaxed));
        if key >> 32 != here || share.is_hidden() {
            continue;
        }
        if share.contains(coin) {
            seen = mix(seen ^ key);
            arm = Arm::of(slot.arm.load(Relaxed));
        } else if arm == Arm::None {
            arm = Arm::Control;
        }
    }
    COIN.store(u32::from(coin), Relaxed);
    SEEN.store(seen, Relaxed);
    ARM.store(arm.number(), Relaxed);
}

/// Sessions draw apart from one another, and from what their clients may know or set.
fn random() -> u64 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    if STATE.load(Relaxed) == 0 {
        STATE.store(mix(time::ticks() ^ u64::from(std::process::id()) << 40) | 1, Relaxed);
    }
    mix(STATE.fetch_add(STEP, Relaxed))
}
