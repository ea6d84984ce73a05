//! IndexPilot's own statements, which are no workload: while it works, capture looks away.

use std::cell::Cell;

use super::single::Single;

static WORKING: Single<Cell<u32>> = Single::new(Cell::new(0));

/// While it lives, what this session runs is IndexPilot's own work.
#[must_use]
pub struct OwnWork(());

/// Begins own work.
pub fn work() -> OwnWork {
    WORKING.with(|n| n.set(n.get().saturating_add(1)));
    OwnWork(())
}

impl Drop for OwnWork {
    fn drop(&mut self) {
        WORKING.with(|n| n.set(n.get().saturating_sub(1)));
    }
}

/// Own work is being done.
#[inline]
pub fn working() -> bool {
    WORKING.with(|n| n.get() > 0).unwrap_or(false)
}
