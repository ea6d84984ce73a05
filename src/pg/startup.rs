//! How and when the library was loaded.

use pgrx::pg_sys;

/// The server runs for pg_upgrade: nothing may be captured or changed.
pub fn binary_upgrade() -> bool {
    // SAFETY: reads a variable of the server.
    unsafe { pg_sys::IsBinaryUpgrade }
}

/// The postmaster is loading `shared_preload_libraries`.
pub fn preloading() -> bool {
    // SAFETY: reads a variable of the server.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Number of the server's version, such as 150020.
pub fn server_version() -> u32 {
    pg_sys::PG_VERSION_NUM
}
