//! Free space on disk.

use std::ffi::CString;

/// Free bytes for ordinary processes where `path` lies, or where the data directory lies (the server's working directory); `None`
/// when it cannot be told.
pub fn free_bytes(path: Option<&str>) -> Option<u64> {
    let path = CString::new(path.unwrap_or(".")).ok()?;
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: fills the structure when it returns 0; the path is NUL-terminated.
    let answer = unsafe {
        if libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) != 0 {
            return None;
        }
        answer.assume_init()
    };
    Some(answer.f_bavail as u64 * answer.f_frsize as u64)
}

/// What is written must reach the disk before one relies on it (`fsync`).
pub fn must_sync() -> bool {
    // SAFETY: reads a variable of the server.
    unsafe { pgrx::pg_sys::enableFsync }
}
