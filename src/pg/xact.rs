//! What is to be done when the transaction of the session ends.
//!
//! # Safety
//! The server alone calls the callbacks, in its main thread, with the arguments that their types promise.

use pgrx::pg_sys;
use std::cell::RefCell;

type Task = Box<dyn FnOnce(bool)>;

thread_local! {
    /// With the subtransaction that each belongs to.
    static TASKS: RefCell<Vec<(pg_sys::SubTransactionId, Task)>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Has `task` called once the current transaction has committed (`true`), or it or the current subtransaction aborted (`false`). Also
/// when the session ends, because that aborts its transaction. At that time neither catalogs nor tables can be read, and `task` must not
/// raise.
pub fn at_end(task: impl FnOnce(bool) + 'static) {
    if !REGISTERED.replace(true) {
        // SAFETY: the callbacks are functions of this library, which is never unloaded.
        unsafe {
            pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(part_ended), std::ptr::null_mut());
        }
    }
    // SAFETY: reads a variable of the session.
    let part = unsafe { pg_sys::GetCurrentSubTransactionId() };
    TASKS.with_borrow_mut(|tasks| tasks.push((part, Box::new(task))));
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    use pg_sys::XactEvent as E;
    let committed = match event {
        // A prepared transaction commits in another session: what it changed is found by the next regular visit.
        E::XACT_EVENT_COMMIT | E::XACT_EVENT_PREPARE => true,
        E::XACT_EVENT_ABORT => false,
        _ => return,
    };
    for (_, task) in TASKS.take() {
        task(committed);
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
            tasks.iter_mut().filter(|(of, _)| *of == part).for_each(|(of, _)| *of = parent);
        }),
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            let (over, kept) = TASKS.take().into_iter().partition(|(of, _)| *of == part);
            TASKS.set(kept);
            let over: Vec<(pg_sys::SubTransactionId, Task)> = over;
            for (_, task) in over {
                task(false);
            }
        }
        _ => (),
    }
}
