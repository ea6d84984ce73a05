//! A value that a server process keeps for itself, without the cost of thread-local storage: hooks look at it for every statement.

use std::cell::{Cell, UnsafeCell};

/// State of the one thread that runs the server's code.
pub struct Single<T> {
    value: UnsafeCell<T>,
    busy: Cell<bool>,
}

// SAFETY: a server process has one thread that calls hooks and callbacks (the solver's library starts none); postmaster and children
// share nothing, since fork copies.
unsafe impl<T> Sync for Single<T> {}

struct Free<'a>(&'a Cell<bool>);

impl Drop for Free<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<T> Single<T> {
    pub const fn new(value: T) -> Self {
        Single { value: UnsafeCell::new(value), busy: Cell::new(false) }
    }

    /// Lends the value; `None` while it is lent already. What `f` calls must not raise an error of the server: it would jump past the
    /// end of the loan.
    #[inline]
    pub fn with<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.busy.replace(true) {
            return None;
        }
        let _free = Free(&self.busy);
        // SAFETY: one thread, and `busy` keeps the same thread from lending it twice.
        Some(f(unsafe { &mut *self.value.get() }))
    }
}
