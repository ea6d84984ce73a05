//! IndexPilot's own statements, which are no workload: while it works, capture looks away.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

static WORKING: AtomicU32 = AtomicU32::new(0);

/// While it lives, what this session runs is IndexPilot's own work.
#[must_use]
pub struct OwnWork(());

/// Begins own work.
pub fn work() -> OwnWork {
    WORKING.fetch_add(1, Relaxed);
    OwnWork(())
}

impl Drop for OwnWork {
    fn drop(&mut self) {
        WORKING.fetch_sub(1, Relaxed);
    }
}

/// Own work is being done.
#[inline]
pub fn working() -> bool {
    WORKING.load(Relaxed) > 0
}
