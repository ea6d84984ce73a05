//! Clock and timeouts of the server.

use pgrx::pg_sys;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Microseconds between the Unix epoch and PostgreSQL's (2000-01-01).
const EPOCH_SHIFT_US: i64 = 946_684_800 * 1_000_000;

/// Now, in seconds since the Unix epoch.
pub fn now() -> f64 {
    // SAFETY: reads the clock.
    let t = unsafe { pg_sys::GetCurrentTimestamp() };
    (t + EPOCH_SHIFT_US) as f64 / 1e6
}

/// Nanoseconds of a clock that only ever goes forward.
#[inline]
pub fn ticks() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes into `t`; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    (t.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(t.tv_nsec as u64)
}

thread_local! {
    /// A [`TimeoutScope`] ended after its time was over.
    static FIRED: Cell<bool> = const { Cell::new(false) };
}

mod sys {
    // Exported by the server (utils/timeout.h), not bound by pgrx.
    unsafe extern "C-unwind" {
        pub fn enable_timeout_after(id: std::ffi::c_int, delay_ms: std::ffi::c_int);
        pub fn disable_timeout(id: std::ffi::c_int, keep_indicator: bool);
        pub fn get_timeout_active(id: std::ffi::c_int) -> bool;
        pub fn get_timeout_indicator(id: std::ffi::c_int, reset_indicator: bool) -> bool;
    }
    /// `STATEMENT_TIMEOUT` of `enum TimeoutId`: the fourth member in every supported version.
    pub const STATEMENT_TIMEOUT: std::ffi::c_int = 3;
}

/// While it lives, what runs is cancelled (57014) after the given time. Does nothing when the session has a statement timeout of its
/// own running: that one is then the limit.
pub struct TimeoutScope {
    deadline: Option<Instant>,
}

impl TimeoutScope {
    pub fn new(limit: Duration) -> Self {
        // SAFETY: backends and workers register STATEMENT_TIMEOUT in InitPostgres; arming it only sets the interval timer.
        let armed = unsafe {
            let free = !sys::get_timeout_active(sys::STATEMENT_TIMEOUT);
            if free {
                sys::enable_timeout_after(sys::STATEMENT_TIMEOUT, limit.as_millis().clamp(1, i32::MAX as u128) as i32);
            }
            free
        };
        FIRED.set(false);
        TimeoutScope { deadline: if armed { Instant::now().checked_add(limit) } else { None } }
    }
}

impl Drop for TimeoutScope {
    fn drop(&mut self) {
        if let Some(deadline) = self.deadline {
            // SAFETY: disarms what new() armed; from then on the handler does nothing. The indicator is still set only when the cancel
            // that the handler asked for was not processed (postgres.c): nobody else would ever answer for it.
            let unheeded = unsafe {
                sys::disable_timeout(sys::STATEMENT_TIMEOUT, true);
                let unheeded = sys::get_timeout_indicator(sys::STATEMENT_TIMEOUT, true);
                if unheeded {
                    std::ptr::write_volatile(&raw mut pg_sys::QueryCancelPending, 0);
                }
                unheeded
            };
            FIRED.set(unheeded || Instant::now() >= deadline);
        }
    }
}

/// The last [`TimeoutScope`] ran out of time: tells our own timeout from a user's cancel. Asking forgets it.
pub fn own_timeout_fired() -> bool {
    FIRED.take()
}

/// Waits on the process latch; cancels, terminations and the death of the postmaster are heeded at once.
pub fn sleep(pause: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: MyLatch belongs to this process (latch.c); resetting it before interrupts are checked loses no wake-up.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, pause.as_millis().clamp(1, 60_000) as _, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// The server knows a time zone of that name.
pub fn zone_exists(name: &str) -> bool {
    let Ok(name) = std::ffi::CString::new(name) else { return false };
    // SAFETY: looks the name up, in the files of time zones the first time, and returns NULL when there is none; raises nothing.
    unsafe { !pg_sys::pg_tzset(name.as_ptr()).is_null() }
}

/// A time of the server's, in seconds since the Unix epoch.
pub fn seconds(timestamp: i64) -> f64 {
    match timestamp {
        i64::MIN => f64::NEG_INFINITY,
        i64::MAX => f64::INFINITY,
        t => (t as f64 + EPOCH_SHIFT_US as f64) / 1e6,
    }
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::prelude::*;

    #[pg_test]
    fn a_timeout_that_fires_at_the_very_end_cancels_nothing() {
        for _ in 0..20 {
            let scope = TimeoutScope::new(Duration::from_millis(1));
            let start = Instant::now();
            // Nothing here looks for interrupts, as at the end of planning.
            while start.elapsed() < Duration::from_millis(5) {}
            drop(scope);
            pgrx::check_for_interrupts!();
            assert!(own_timeout_fired());
        }
    }
}
