//! Remembering the previous hook of a chain.

use std::cell::Cell;

/// The hook that was installed before ours, to be called by ours. `F` is a hook type of `pg_sys` (an optional C function).
pub struct Previous<F: Copy>(Cell<Option<F>>);

// SAFETY: a backend has one thread that runs server code, and hooks are called and installed by no other.
unsafe impl<F: Copy> Sync for Previous<F> {}

impl<F: Copy> Previous<F> {
    pub const fn new() -> Self {
        Previous(Cell::new(None))
    }

    /// What was installed before; `None` when ours was never installed.
    pub fn get(&self) -> Option<F> {
        self.0.get()
    }

    pub fn set(&self, hook: F) {
        self.0.set(Some(hook));
    }
}
