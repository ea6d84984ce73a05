//! Fixed-size shared memory, allotted once when the server starts: regions of atomics, and the locks that guard them.
//!
//! A region is a `static` that is registered from `_PG_init`. After a crash of any backend the postmaster makes the shared memory
//! anew, so every region starts from zero again. Without preload a region stays absent, and [`Region::get`] says so.
//!
//! # Safety
//! The server alone calls the callbacks, in its main thread, with the arguments that their types promise.

use pgrx::pg_sys;
use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

mod sys {
    use super::pg_sys;
    // Called without pgrx's wrappers: they would set a jump point for an error that cannot be raised here.
    unsafe extern "C-unwind" {
        pub fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
        pub fn LWLockConditionalAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
        pub fn LWLockRelease(lock: *mut pg_sys::LWLock);
    }
}

/// What may live in shared memory.
///
/// # Safety
/// All-zero bytes are a valid value, and every part can be changed through a shared reference by several processes at once.
/// Use `shared!` to define structures of it.
pub unsafe trait Shared: Sync + Sized {}

// SAFETY: atomics are lock-free here, valid when zero, and work across processes.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}
// SAFETY: as above.
unsafe impl Shared for AtomicI32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicI64 {}
// SAFETY: as above; zero is false.
unsafe impl Shared for AtomicBool {}
// SAFETY: an array of such values is one itself.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// Defines a structure of [`Shared`] fields.
macro_rules! shared {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field_vis:vis $field:ident : $ty:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $ty),+ }

        // SAFETY: every field is Shared, as the function inside makes the compiler check.
        unsafe impl $crate::pg::shmem::Shared for $name {}
        const _: () = {
            const fn is_shared<T: $crate::pg::shmem::Shared>() {}
            $(is_shared::<$ty>();)+
        };
    };
}
pub(crate) use shared;

/// Bytes that one process at a time owns, as an atomic elsewhere says.
#[repr(C, align(8))]
pub struct Buffer<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: bytes are valid when zero; the unsafe functions below make their callers promise the ownership.
unsafe impl<const N: usize> Sync for Buffer<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Shared for Buffer<N> {}

const FREE: u32 = 0;
const WRITING: u32 = 1;
const FULL: u32 = 2;
const READING: u32 = 3;

/// A message on its way from the backend that wrote it to the worker that reads it. Its state goes round free, writing, full,
/// reading; each step is one compare-and-swap, so nobody ever waits.
#[repr(C)]
pub struct Slot<const N: usize> {
    state: AtomicU32,
    address: AtomicU32,
    length: AtomicU32,
    reserved: AtomicU32,
    bytes: Buffer<N>,
}

// SAFETY: every field is Shared.
unsafe impl<const N: usize> Shared for Slot<N> {}

impl<const N: usize> Slot<N> {
    /// Takes the slot for writing, when it is free.
    pub fn claim(&self) -> Option<SlotWriter<'_, N>> {
        // Lazily: a writer that is made and dropped would free a slot that is another one's.
        self.step(FREE, WRITING).then(|| SlotWriter { slot: self, length: 0 })
    }

    /// Calls `read` with the message, when there is one for `address`, and frees the slot.
    pub fn take<T>(&self, address: u32, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        if self.state.load(Ordering::Relaxed) != FULL
            || self.address.load(Ordering::Relaxed) != address
            || !self.step(FULL, READING)
        {
            return None;
        }
        if self.address.load(Ordering::Relaxed) != address {
            // It was emptied and filled again in between: it is another one's message.
            self.state.store(FULL, Ordering::Release);
            return None;
        }
        let _freed = Freed(&self.state);
        let length = (self.length.load(Ordering::Relaxed) as usize).min(N);
        // SAFETY: in state READING no other process touches the bytes; length is within them.
        let bytes = unsafe { std::slice::from_raw_parts(self.bytes.0.get().cast::<u8>(), length) };
        Some(read(bytes))
    }

    /// A message waits in it.
    pub fn is_full(&self) -> bool {
        self.state.load(Ordering::Relaxed) == FULL
    }

    fn step(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

struct Freed<'a>(&'a AtomicU32);

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        self.0.store(FREE, Ordering::Release);
    }
}

/// Writes one message; dropped before [`SlotWriter::publish`], the slot is free again.
pub struct SlotWriter<'a, const N: usize> {
    slot: &'a Slot<N>,
    length: usize,
}

impl<const N: usize> SlotWriter<'_, N> {
    /// Appends bytes; false, and nothing is appended, when they do not fit.
    #[must_use]
    pub fn put(&mut self, bytes: &[u8]) -> bool {
        let Some(end) = self.length.checked_add(bytes.len()).filter(|end| *end <= N) else { return false };
        // SAFETY: in state WRITING no other process touches the bytes; length + len is within them; the source is another object.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.slot.bytes.0.get().cast::<u8>().add(self.length), bytes.len())
        };
        self.length = end;
        true
    }

    /// Hands the message over.
    pub fn publish(self, address: u32) {
        self.slot.address.store(address, Ordering::Relaxed);
        self.slot.length.store(self.length as u32, Ordering::Relaxed);
        self.slot.state.store(FULL, Ordering::Release);
        std::mem::forget(self);
    }
}

impl<const N: usize> Drop for SlotWriter<'_, N> {
    fn drop(&mut self) {
        self.slot.state.store(FREE, Ordering::Release);
    }
}

/// A named array in shared memory.
pub struct Region<T: Shared + 'static> {
    name: &'static CStr,
    start: AtomicPtr<T>,
    length: AtomicUsize,
    count: fn() -> usize,
    init: fn(&'static [T]),
}

impl<T: Shared> Region<T> {
    /// `count` is asked when the server starts, after its settings were read; `init` is given the zeroed array.
    pub const fn new(name: &'static CStr, count: fn() -> usize, init: fn(&'static [T])) -> Self {
        Region { name, start: AtomicPtr::new(std::ptr::null_mut()), length: AtomicUsize::new(0), count, init }
    }

    /// The array, when there is shared memory.
    pub fn get(&self) -> Option<&'static [T]> {
        let start = self.start.load(Ordering::Relaxed);
        if start.is_null() {
            return None;
        }
        // SAFETY: set by attach() to memory of this length that lives as long as the process; T is Shared.
        Some(unsafe { std::slice::from_raw_parts(start, self.length.load(Ordering::Relaxed)) })
    }
}

/// A [`Region`] of any type.
pub trait AnyRegion: Sync {
    /// In bytes.
    fn size(&self) -> usize;
    /// Finds or makes the region (then true); the caller holds AddinShmemInitLock.
    fn attach(&self) -> bool;
}

impl<T: Shared> AnyRegion for Region<T> {
    fn size(&self) -> usize {
        (self.count)().saturating_mul(size_of::<T>())
    }

    fn attach(&self) -> bool {
        let mut found = false;
        let size = self.size();
        // SAFETY: called in shmem_startup_hook under AddinShmemInitLock; the memory is cache-line aligned, and size is what was
        // requested, because both come from settings that cannot change after the start.
        let start = unsafe { pg_sys::ShmemInitStruct(self.name.as_ptr(), size, &mut found) };
        if !found {
            // SAFETY: fresh memory of that size that nobody else knows yet; zero is valid for Shared types.
            unsafe { std::ptr::write_bytes(start.cast::<u8>(), 0, size) };
        }
        self.length.store((self.count)(), Ordering::Relaxed);
        self.start.store(start.cast(), Ordering::Relaxed);
        if !found && let Some(array) = self.get() {
            (self.init)(array);
        }
        !found
    }
}

/// An array of lightweight locks, each of which wait events show under the name.
pub struct Locks {
    name: &'static CStr,
    count: i32,
    start: AtomicPtr<pg_sys::LWLockPadded>,
}

impl Locks {
    pub const fn new(name: &'static CStr, count: i32) -> Self {
        Locks { name, count, start: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Takes lock number `at` (modulo their count) when that needs no waiting. While a guard lives nothing may raise, wait or
    /// allocate from the server's memory contexts.
    pub fn try_lock(&self, at: usize, mode: Mode) -> Option<LockGuard> {
        let lock = self.lock(at)?;
        // SAFETY: an initialised lock of our tranche; never more than two are held, so LWLockConditionalAcquire cannot raise.
        // Lazily: a guard that is made and dropped would release a lock that is not held.
        unsafe { sys::LWLockConditionalAcquire(lock, mode.code()) }.then(|| LockGuard { lock })
    }

    /// As [`Locks::try_lock`], but waits. Holders never wait themselves, so this takes microseconds. Not for hooks.
    pub fn wait_lock(&self, at: usize, mode: Mode) -> Option<LockGuard> {
        let lock = self.lock(at)?;
        // SAFETY: as above; callers are worker and SQL functions, which hold no other of these locks.
        unsafe { sys::LWLockAcquire(lock, mode.code()) };
        Some(LockGuard { lock })
    }

    fn lock(&self, at: usize) -> Option<*mut pg_sys::LWLock> {
        let start = self.start.load(Ordering::Relaxed);
        // SAFETY: the tranche has `count` locks, and a lock that is held or waited for needs MyProc (lwlock.c).
        (!start.is_null() && unsafe { !pg_sys::MyProc.is_null() })
            // SAFETY: the index is below `count`.
            .then(|| unsafe { &raw mut (*start.add(at % self.count as usize)).lock })
    }
}

/// How a lock is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Shared,
    Exclusive,
}

impl Mode {
    fn code(self) -> pg_sys::LWLockMode::Type {
        match self {
            Mode::Shared => pg_sys::LWLockMode::LW_SHARED,
            Mode::Exclusive => pg_sys::LWLockMode::LW_EXCLUSIVE,
        }
    }
}

/// Releases its lock when dropped.
#[must_use]
pub struct LockGuard {
    lock: *mut pg_sys::LWLock,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // SAFETY: held since the guard was made, because nothing under it raises (an error would have released all locks).
        unsafe { sys::LWLockRelease(self.lock) };
    }
}

static REGIONS: Mutex<Vec<&'static dyn AnyRegion>> = Mutex::new(Vec::new());
static LOCKS: Mutex<Vec<&'static Locks>> = Mutex::new(Vec::new());
static AFTER: Mutex<Vec<fn(bool)>> = Mutex::new(Vec::new());
static INSTALLED: AtomicBool = AtomicBool::new(false);
static PREVIOUS_REQUEST: Previous<pg_sys::shmem_request_hook_type> = Previous(UnsafeCell::new(None));
static PREVIOUS_STARTUP: Previous<pg_sys::shmem_startup_hook_type> = Previous(UnsafeCell::new(None));

struct Previous<T>(UnsafeCell<T>);
// SAFETY: written once, from _PG_init in the postmaster, which has one thread.
unsafe impl<T> Sync for Previous<T> {}

/// Asks for regions and locks. Only from `_PG_init` of a preloaded library.
pub fn register(regions: &[&'static dyn AnyRegion], locks: &[&'static Locks]) {
    REGIONS.lock().unwrap_or_else(PoisonError::into_inner).extend(regions);
    LOCKS.lock().unwrap_or_else(PoisonError::into_inner).extend(locks);
    if INSTALLED.swap(true, Ordering::Relaxed) {
        return;
    }
    // SAFETY: hook variables of the postmaster, read and written while it loads libraries, one after the other.
    unsafe {
        *PREVIOUS_REQUEST.0.get() = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        *PREVIOUS_STARTUP.0.get() = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

/// Has `f` called when the regions are there; true when they were just made. Only from `_PG_init` of a preloaded library.
pub fn after_startup(f: fn(bool)) {
    AFTER.lock().unwrap_or_else(PoisonError::into_inner).push(f);
}

unsafe extern "C-unwind" fn request() {
    // SAFETY: the previous hook of the chain, if any, to be called first; the requests are allowed in this hook only.
    unsafe {
        if let Some(previous) = *PREVIOUS_REQUEST.0.get() {
            previous();
        }
        for region in REGIONS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // Each region is rounded up to a cache line by the allocator.
            pg_sys::RequestAddinShmemSpace(region.size().saturating_add(pg_sys::PG_CACHE_LINE_SIZE as usize));
        }
        for locks in LOCKS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            pg_sys::RequestNamedLWLockTranche(locks.name.as_ptr(), locks.count);
        }
    }
}

unsafe extern "C-unwind" fn startup() {
    /// Position of AddinShmemInitLock in the main array (`lwlocknames.txt`, the same in all supported versions).
    const ADDIN_SHMEM_INIT: usize = 21;
    // SAFETY: the previous hook of the chain, if any; then the usual frame of this hook: everything is found or made under
    // AddinShmemInitLock. It runs when the server starts and again after a crash.
    unsafe {
        if let Some(previous) = *PREVIOUS_STARTUP.0.get() {
            previous();
        }
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(ADDIN_SHMEM_INIT)).lock;
        sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let mut made = false;
        for region in REGIONS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            made |= region.attach();
        }
        for locks in LOCKS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            locks.start.store(pg_sys::GetNamedLWLockTranche(locks.name.as_ptr()), Ordering::Relaxed);
        }
        sys::LWLockRelease(lock);
        // Not under the lock: these read files.
        for f in AFTER.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            f(made);
        }
    }
}
