//! Acting as another role, with the way back guaranteed.

use indexpilot_core::model::{AttNum, RelId};
use pgrx::pg_sys;
use std::collections::BTreeSet;

/// While it lives, the session acts as another role. Dropping it brings the caller's role back; after an ERROR the server does so
/// itself, because the aborting (sub)transaction restores the identity that it began with.
pub struct RoleScope {
    role: pg_sys::Oid,
    context: std::ffi::c_int,
}

impl RoleScope {
    /// Acts as `role`; `restricted` also forbids what `SECURITY_RESTRICTED_OPERATION` forbids (changing roles, temporary tables,
    /// LISTEN, deferred triggers ...), for running what other users wrote.
    pub fn new(role: pg_sys::Oid, restricted: bool) -> Self {
        let (mut saved, mut context) = (pg_sys::InvalidOid, 0);
        let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE | if restricted { pg_sys::SECURITY_RESTRICTED_OPERATION } else { 0 };
        // SAFETY: plain reads and writes of the backend's own identity (miscinit.c); flags only add restrictions.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut saved, &mut context);
            pg_sys::SetUserIdAndSecContext(role, context | flags as i32);
        }
        RoleScope { role: saved, context }
    }

    /// Acts as the bootstrap superuser, who may use IndexPilot's tables whoever owns them.
    pub fn owner() -> Self {
        RoleScope::new(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), false)
    }
}

impl Drop for RoleScope {
    fn drop(&mut self) {
        // SAFETY: as above; the values were read by GetUserIdAndSecContext.
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.context) }
    }
}

/// OID of the role the session acts as now.
pub fn current() -> pg_sys::Oid {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::GetUserId() }
}

/// The current role has the privileges of `role`, as a member that inherits them has.
pub fn has_privileges_of(role: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalogs (acl.c), which may raise but needs nothing beyond the running transaction.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), role) }
}

/// Policies hide rows of the table from the current role. So the server hides the table's statistics from it too (view pg_stats).
pub fn rows_are_hidden(table: RelId) -> bool {
    // SAFETY: look-ups in the catalogs (rls.c) for the current role, which InvalidOid stands for; no error for row_security = off.
    let found = unsafe { pg_sys::check_enable_rls(pg_sys::Oid::from(table.0), pg_sys::InvalidOid, true) };
    found == pg_sys::CheckEnableRlsResult::RLS_ENABLED as std::ffi::c_int
}

/// Those of the columns that the current role may read in all rows of the table: none where policies hide rows from it, or when the table
/// is gone.
pub fn readable(table: RelId, columns: impl IntoIterator<Item = AttNum>) -> BTreeSet<AttNum> {
    let (role, relation, select) = (current(), pg_sys::Oid::from(table.0), pg_sys::ACL_SELECT);
    if rows_are_hidden(table) {
        return BTreeSet::new();
    }
    let mut gone = false;
    // SAFETY: look-ups in the catalogs (aclchk.c), which note that there is no such relation or column instead of raising.
    let whole = unsafe { pg_sys::pg_class_aclcheck_ext(relation, role, select, &mut gone) } == pg_sys::AclResult::ACLCHECK_OK;
    let may = |column: &AttNum| {
        let mut gone = false;
        // SAFETY: as above.
        let found = unsafe { pg_sys::pg_attribute_aclcheck_ext(relation, *column, role, select, &mut gone) };
        found == pg_sys::AclResult::ACLCHECK_OK
    };
    columns.into_iter().filter(|column| whole || may(column)).collect()
}

/// The current role may see the statistics of all others, as the server's own statistics views decide it.
pub fn reads_all_stats() -> bool {
    has_privileges_of(pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_STATS))
}

/// Who acts when no person has asked for it.
pub const NOBODY: &str = "indexpilot";

/// Name of the role that logged in, which no SET ROLE and no function changes. A role that is called [`NOBODY`] is given in quotes, since
/// what it asks for is asked for by somebody.
pub fn session() -> String {
    // SAFETY: GetSessionUserId reads a variable; with noerr the name is NULL for a role that was just dropped, else palloc'd.
    let name = unsafe { pg_sys::GetUserNameFromId(pg_sys::GetSessionUserId(), true) };
    if name.is_null() {
        return String::from("unknown");
    }
    // SAFETY: not NULL, so a NUL-terminated name.
    let name = unsafe { std::ffi::CStr::from_ptr(name) }.to_string_lossy().into_owned();
    if name == NOBODY { format!("\"{name}\"") } else { name }
}
