//! The extension as the catalogs have it in this database: whether it is installed, whose it is, and of which version its objects are.

use super::compat;
use super::error::{Error, Kind, Result};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{CStr, c_char};

/// Name of the extension, and of its schema.
pub const NAME: &CStr = c"indexpilot";
/// Version of this library. Objects of another version may have other columns and arguments than it expects.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// OID of the extension; invalid where it is not installed. In a transaction.
fn oid() -> pg_sys::Oid {
    // SAFETY: looks the name up in pg_extension; nothing is raised when there is none.
    unsafe { pg_sys::get_extension_oid(NAME.as_ptr(), true) }
}

/// The extension is installed in this session's database. In a transaction.
pub fn installed() -> bool {
    oid() != pg_sys::InvalidOid
}

/// The extension is installed here, and the role owns it. In a transaction.
pub fn owned_by(role: pg_sys::Oid) -> bool {
    let extension = oid();
    extension != pg_sys::InvalidOid && compat::owns_extension(extension, role)
}

/// The name is the extension's.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
pub unsafe fn is_named(name: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    unsafe { !name.is_null() && CStr::from_ptr(name) == NAME }
}

/// Version of the extension's objects in this database; `None` where it is not installed. In a transaction.
pub fn version() -> Option<String> {
    // SAFETY: an index scan of the catalog under its lock, as get_extension_schema (extension.c) does it; the text is copied before
    // the scan ends. The column is never NULL.
    unsafe {
        let relation = pg_sys::table_open(pg_sys::ExtensionRelationId, pg_sys::AccessShareLock as i32);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::Anum_pg_extension_extname as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::Oid::from(pg_sys::F_NAMEEQ),
            pg_sys::Datum::from(NAME.as_ptr()),
        );
        let scan =
            pg_sys::systable_beginscan(relation, pg_sys::ExtensionNameIndexId.into(), true, std::ptr::null_mut(), 1, &mut key);
        let tuple = pg_sys::systable_getnext(scan);
        let version = if tuple.is_null() {
            None
        } else {
            let mut null = false;
            let column = pg_sys::Anum_pg_extension_extversion as i32;
            let text = pg_sys::heap_getattr(tuple, column, (*relation).rd_att, &mut null);
            let text = pg_sys::text_to_cstring(text.cast_mut_ptr());
            Some(CStr::from_ptr(text).to_string_lossy().into_owned())
        };
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        version
    }
}

thread_local! {
    /// Start of the transaction in which the version was last found to be right.
    static CHECKED: Cell<i64> = const { Cell::new(i64::MIN) };
}

/// Fails where the extension's objects are of another version than the library: the new one was installed, and the other not brought up to
/// it yet. Looks once in a transaction. In a transaction.
pub fn require_same_version() -> Result<()> {
    // SAFETY: reads a variable of the session.
    let transaction = unsafe { pg_sys::GetCurrentTransactionStartTimestamp() };
    if CHECKED.get() == transaction {
        return Ok(());
    }
    match version() {
        Some(sql) if sql != VERSION => {
            Err(Error::new(Kind::Prerequisite, "library and objects of indexpilot are of different versions")
                .detail(format!("The library is of version {VERSION}, the objects in this database of {sql}."))
                .hint(UPDATE))
        }
        _ => {
            CHECKED.set(transaction);
            Ok(())
        }
    }
}

/// What to do then.
pub const UPDATE: &str =
    "Run ALTER EXTENSION indexpilot UPDATE; when the library is the older one, install the new one and restart the server.";
