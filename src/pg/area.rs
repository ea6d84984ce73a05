//! A small structure of atomics in shared memory, with one lock beside it.
//!
//! It is all zeros when the server starts and again after a crash restart, so zero must mean "nothing" in every field.
//!
//! # Safety
//! The server alone calls the callbacks, in its main thread, with the arguments that their types promise.

use pgrx::pg_sys;
use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What may lie in shared memory: valid when all bytes are zero, changed through shared references only, and free of pointers.
///
/// # Safety
/// All of the above must hold. The macro `shared!` implements it for structures whose fields have it.
pub unsafe trait Shared: Sync + 'static {}
// SAFETY: atomics are valid when zero and are made for being changed through shared references.
unsafe impl Shared for std::sync::atomic::AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for std::sync::atomic::AtomicI32 {}
// SAFETY: as above.
unsafe impl Shared for std::sync::atomic::AtomicU64 {}
// SAFETY: as above.
unsafe impl Shared for std::sync::atomic::AtomicI64 {}
// SAFETY: as above.
unsafe impl Shared for std::sync::atomic::AtomicBool {}
// SAFETY: an array of what is fit is fit.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// Defines a structure for shared memory; every field must be fit for it.
macro_rules! shared {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        $vis struct $name { $($(#[$field_meta])* pub $field: $ty),* }
        const _: () = {
            const fn fit<T: $crate::pg::area::Shared>() {}
            $(fit::<$ty>();)*
        };
        // SAFETY: every field has the property, as the lines above make the compiler prove.
        unsafe impl $crate::pg::area::Shared for $name {}
    };
}
pub(crate) use shared;

/// One structure of type `T` in shared memory. A `static`; registered once from `_PG_init`.
pub struct Area<T: Shared> {
    name: &'static CStr,
    at: AtomicPtr<T>,
    lock: AtomicPtr<pg_sys::LWLock>,
}

trait Mapped: Sync {
    fn request(&self);
    fn map(&self);
}

impl<T: Shared> Mapped for Area<T> {
    fn request(&self) {
        // SAFETY: called from shmem_request_hook, where both calls are allowed.
        unsafe {
            pg_sys::RequestAddinShmemSpace(size_of::<T>().next_multiple_of(128));
            pg_sys::RequestNamedLWLockTranche(self.name.as_ptr(), 1);
        }
    }

    fn map(&self) {
        let mut found = false;
        // SAFETY: called from shmem_startup_hook, in the postmaster alone (its children inherit the mapping by fork), so nothing
        // races with the initialisation. The memory has the size asked for and the alignment of a cache line.
        unsafe {
            let at = pg_sys::ShmemInitStruct(self.name.as_ptr(), size_of::<T>(), &mut found).cast::<T>();
            if !found {
                std::ptr::write_bytes(at, 0, 1);
            }
            self.at.store(at, Ordering::Relaxed);
            self.lock.store(&raw mut (*pg_sys::GetNamedLWLockTranche(self.name.as_ptr())).lock, Ordering::Relaxed);
        }
    }
}

impl<T: Shared> Area<T> {
    /// `name` is the area's and its lock's, as shown in pg_shmem_allocations and in wait events.
    pub const fn new(name: &'static CStr) -> Self {
        Area { name, at: AtomicPtr::new(std::ptr::null_mut()), lock: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// The structure; `None` when the library was not preloaded.
    pub fn get(&self) -> Option<&'static T> {
        // SAFETY: NULL, or mapped for the life of the process and valid by the property of `T`.
        unsafe { self.at.load(Ordering::Relaxed).as_ref() }
    }

    /// Runs `f` while no other process runs anything under the same lock. `f` must be short and must not raise.
    pub fn locked<R>(&self, f: impl FnOnce(&'static T) -> R) -> Option<R> {
        struct Release(*mut pg_sys::LWLock);
        impl Drop for Release {
            fn drop(&mut self) {
                // SAFETY: acquired below by this process.
                unsafe { pg_sys::LWLockRelease(self.0) }
            }
        }
        let area = self.get()?;
        let lock = self.lock.load(Ordering::Relaxed);
        // SAFETY: mapped together with the area.
        unsafe { pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE) };
        let _release = Release(lock);
        Some(f(area))
    }
}

thread_local! {
    static AREAS: std::cell::RefCell<Vec<&'static dyn Mapped>> = const { std::cell::RefCell::new(Vec::new()) };
}
static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Has room made for the area. Only from `_PG_init` while libraries are preloaded.
pub fn register<T: Shared>(area: &'static Area<T>) {
    let first = AREAS.with_borrow_mut(|areas| {
        areas.push(area);
        areas.len() == 1
    });
    if first {
        // SAFETY: hooks are variables of the postmaster, which is a single thread.
        unsafe {
            PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
            pg_sys::shmem_request_hook = Some(request);
            PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
            pg_sys::shmem_startup_hook = Some(startup);
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: calls the hook that was there before, as hooks must.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous());
        }
    }
    AREAS.with_borrow(|areas| areas.iter().for_each(|a| a.request()));
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: calls the hook that was there before, as hooks must.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous());
        }
    }
    AREAS.with_borrow(|areas| areas.iter().for_each(|a| a.map()));
}
