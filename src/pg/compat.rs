//! Differences between PostgreSQL versions: every `cfg(feature = "pgNN")` stands here.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Unknown settings with this prefix become errors.
pub fn reserve_guc_prefix(prefix: &'static CStr) {
    // SAFETY: takes a NUL-terminated name and copies it.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) };
}
