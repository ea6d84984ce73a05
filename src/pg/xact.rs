//! What is to be done when the transaction of the session ends.
//!
//! # Safety
//! The server alone calls the callbacks, in its main thread, with the arguments that their types promise.

use super::error::{Error, Kind};
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};

struct Task {
    /// The subtransaction that it belongs to.
    part: pg_sys::SubTransactionId,
    /// What the transaction has done that keeps it from being prepared.
    unprepared: Option<&'static str>,
    run: Box<dyn FnOnce(bool)>,
}

thread_local! {
    static TASKS: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    static AFTERWARDS: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// Has `task` called once the current transaction has committed (`true`), or it or the current subtransaction aborted (`false`). Also
/// when the session ends, because that aborts its transaction. At that time neither catalogs nor tables can be read, and `task` must not
/// raise.
pub fn at_end(task: impl FnOnce(bool) + 'static) {
    push(None, Box::new(task));
}

/// As [`at_end`], where the session that prepares the transaction must be the one that commits it: PREPARE TRANSACTION fails, and says
/// that the transaction has done `what`.
pub fn at_end_but_not_prepared(what: &'static str, task: impl FnOnce(bool) + 'static) {
    push(Some(what), Box::new(task));
}

/// Has `task` called when the transaction that is just being committed is over for everybody: other sessions were told what it has
/// changed, and its locks are gone. For what may take its time. From a task of [`at_end`]; must not raise.
pub fn afterwards(task: fn()) {
    AFTERWARDS.set(Some(task));
}

fn push(unprepared: Option<&'static str>, run: Box<dyn FnOnce(bool)>) {
    if !REGISTERED.replace(true) {
        // SAFETY: the callbacks are functions of this library, which is never unloaded.
        unsafe {
            pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(part_ended), std::ptr::null_mut());
            pg_sys::RegisterResourceReleaseCallback(Some(released), std::ptr::null_mut());
        }
    }
    // SAFETY: reads a variable of the session.
    let part = unsafe { pg_sys::GetCurrentSubTransactionId() };
    TASKS.with_borrow_mut(|tasks| tasks.push(Task { part, unprepared, run }));
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    use pg_sys::XactEvent as E;
    let committed = match event {
        // A prepared transaction commits in another session: what it changed is found by the next regular visit.
        E::XACT_EVENT_COMMIT | E::XACT_EVENT_PREPARE => true,
        E::XACT_EVENT_ABORT => false,
        E::XACT_EVENT_PRE_PREPARE => return refuse_to_prepare(),
        _ => return,
    };
    for task in TASKS.take() {
        (task.run)(committed);
    }
}

/// The last phase comes after the messages about changed caches and after the locks (xact.c, CommitTransaction).
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn released(
    phase: pg_sys::ResourceReleasePhase::Type,
    _committed: bool,
    of_transaction: bool,
    _argument: *mut std::ffi::c_void,
) {
    if of_transaction
        && phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS
        && let Some(task) = AFTERWARDS.take()
    {
        task();
    }
}

/// Raises, as the server does for a transaction that has used a temporary table.
fn refuse_to_prepare() {
    if let Some(what) = TASKS.with_borrow(|tasks| tasks.iter().find_map(|task| task.unprepared)) {
        Error::new(Kind::NotSupported, format!("cannot PREPARE a transaction that has {what}")).raise();
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn part_ended(
    event: pg_sys::SubXactEvent::Type,
    part: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => TASKS.with_borrow_mut(|tasks| {
            tasks.iter_mut().filter(|task| task.part == part).for_each(|task| task.part = parent);
        }),
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            let (over, kept): (Vec<Task>, Vec<Task>) = TASKS.take().into_iter().partition(|task| task.part == part);
            TASKS.set(kept);
            for task in over {
                (task.run)(false);
            }
        }
        _ => (),
    }
}
