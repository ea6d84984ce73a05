//! Databases as the launcher sees them: the list of them, and the commands that can only run when nobody is connected to one.
//!
//! # Safety
//! The server alone calls the callbacks, in its main thread, with the arguments that their types promise.

use super::{compat, extension, role, standard};
use pgrx::{PgList, pg_sys};
use std::cell::Cell;
use std::ffi::{CStr, c_char};

/// OIDs of the databases in which a worker could work: not templates, connections allowed, not left invalid by an interrupted
/// DROP DATABASE. In a transaction.
pub fn connectable() -> Vec<pg_sys::Oid> {
    // What DATCONNLIMIT_INVALID_DB (catalog/pg_database.h) stands for.
    const INVALID: i32 = -2;
    let mut found = Vec::new();
    // SAFETY: a sequential scan of a shared catalog under its lock, as get_database_list (autovacuum.c) does it; the fixed part of
    // a row is never NULL.
    unsafe {
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let database = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if database.datallowconn && !database.datistemplate && database.datconnlimit != INVALID {
                found.push(database.oid);
            }
        }
        if let Some(end) = (*(*(*scan).rs_rd).rd_tableam).scan_end {
            pg_sys::ffi::pg_guard_ffi_boundary(|| end(scan));
        }
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    found
}

/// OID of this session's database; invalid in a process that has none.
pub fn current() -> pg_sys::Oid {
    // SAFETY: a variable of the process.
    unsafe { pg_sys::MyDatabaseId }
}

/// What a command means to our workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The command needs the database to be without sessions. Reported before it runs, and only when the session's role owns the
    /// database: whoever may not run the command may not disturb the workers either.
    MustBeEmpty { database: pg_sys::Oid, dropped: bool },
    /// The command changes the extension in this database, or drops it. Reported before it runs, and only when the session's role owns
    /// the extension, for the same reason.
    ExtensionChanges,
    /// Databases may have appeared or become connectable. Reported after the command.
    Databases,
    /// The extension may have appeared or gone in this database. Reported after the command.
    Extension,
}

thread_local! {
    static LISTENER: Cell<Option<fn(Event)>> = const { Cell::new(None) };
}
static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

/// Has `listener` told of these commands in every session. Only from `_PG_init` while libraries are preloaded.
pub fn listen(listener: fn(Event)) {
    LISTENER.set(Some(listener));
    // SAFETY: a variable of the postmaster, which is a single thread; its children inherit it.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

/// The hook. Its own frame holds nothing with a destructor and is not guarded, so that an error of the command passes through
/// untouched: a guard would rebuild it without its position, context and constraint name. Only our own steps are guarded.
unsafe extern "C-unwind" fn process_utility(
    pstmt: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    dest: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the server passes a live statement; it is not touched after the call, which may free it.
    unsafe {
        let after = if concerns_us((*pstmt).utilityStmt) { before_command(pstmt) } else { NOTHING };
        match PREVIOUS {
            Some(previous) => previous(pstmt, query, read_only_tree, context, params, environment, dest, completion),
            None => standard::standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment, dest, completion),
        }
        if after != NOTHING {
            after_command(after);
        }
    }
}

/// The command is one of those that `before_command` knows. Every command passes here, so nothing else is done for the others.
///
/// # Safety
/// `node` is a parse node.
#[inline]
unsafe fn concerns_us(node: *const pg_sys::Node) -> bool {
    use pg_sys::NodeTag as T;
    // SAFETY: a utility statement always has its node.
    let tag = unsafe { (*node).type_ };
    matches!(
        tag,
        T::T_DropdbStmt
            | T::T_CreatedbStmt
            | T::T_AlterDatabaseStmt
            | T::T_RenameStmt
            | T::T_CreateExtensionStmt
            | T::T_AlterExtensionStmt
            | T::T_DropStmt
            | T::T_DropOwnedStmt
    )
}

const NOTHING: i32 = 0;
const DATABASES: i32 = 1;
const EXTENSION: i32 = 2;

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn after_command(what: i32) {
    if let Some(listener) = LISTENER.get() {
        listener(if what == EXTENSION { Event::Extension } else { Event::Databases });
    }
}

/// Tells of what must happen before, and returns what is to be told afterwards.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before_command(pstmt: *mut pg_sys::PlannedStmt) -> i32 {
    use pg_sys::NodeTag as T;
    // SAFETY: a utility statement always has its node, and the tag says of which type it is.
    unsafe {
        let node = (*pstmt).utilityStmt;
        match (*node).type_ {
            T::T_DropdbStmt => {
                must_be_empty((*node.cast::<pg_sys::DropdbStmt>()).dbname, true);
                NOTHING
            }
            T::T_CreatedbStmt => {
                if let Some(template) = option((*node.cast::<pg_sys::CreatedbStmt>()).options, c"template") {
                    must_be_empty(pg_sys::defGetString(template), false);
                }
                DATABASES
            }
            T::T_AlterDatabaseStmt => {
                let statement = node.cast::<pg_sys::AlterDatabaseStmt>();
                if option((*statement).options, c"tablespace").is_some() {
                    must_be_empty((*statement).dbname, false);
                }
                DATABASES
            }
            T::T_RenameStmt => {
                let statement = node.cast::<pg_sys::RenameStmt>();
                if (*statement).renameType == pg_sys::ObjectType::OBJECT_DATABASE {
                    must_be_empty((*statement).subname, false);
                }
                NOTHING
            }
            T::T_CreateExtensionStmt => EXTENSION,
            T::T_AlterExtensionStmt => extension_changes(extension::is_named((*node.cast::<pg_sys::AlterExtensionStmt>()).extname)),
            T::T_DropStmt => {
                let statement = node.cast::<pg_sys::DropStmt>();
                match (*statement).removeType {
                    // The schema bears the name of the extension, and takes it along.
                    pg_sys::ObjectType::OBJECT_EXTENSION | pg_sys::ObjectType::OBJECT_SCHEMA => {
                        let names = PgList::<pg_sys::String>::from_pg((*statement).objects);
                        extension_changes(names.iter_ptr().any(|name| extension::is_named((*name).sval)))
                    }
                    _ => NOTHING,
                }
            }
            T::T_DropOwnedStmt => {
                let roles = PgList::<pg_sys::RoleSpec>::from_pg((*node.cast::<pg_sys::DropOwnedStmt>()).roles);
                extension_changes(roles.iter_ptr().any(|role| {
                    let role = pg_sys::get_rolespec_oid(role, true);
                    role != pg_sys::InvalidOid && extension::owned_by(role)
                }))
            }
            _ => NOTHING,
        }
    }
}

/// Tells that the command is about the extension, if it is and may be, and returns what is to be told afterwards.
fn extension_changes(concerned: bool) -> i32 {
    if !concerned {
        return NOTHING;
    }
    if extension::owned_by(role::current())
        && let Some(listener) = LISTENER.get()
    {
        listener(Event::ExtensionChanges);
    }
    EXTENSION
}

/// # Safety
/// `options` is a list of DefElem, as the grammar makes it.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: the caller's promise; names of options are NUL-terminated and in lower case.
    unsafe {
        let options = PgList::<pg_sys::DefElem>::from_pg(options);
        options.iter_ptr().find(|o| !(**o).arg.is_null() && CStr::from_ptr((**o).defname) == name)
    }
}

/// # Safety
/// `name` is NULL or NUL-terminated. In a transaction.
unsafe fn must_be_empty(name: *const c_char, dropped: bool) {
    if name.is_null() {
        return;
    }
    // SAFETY: looks the name up; nothing is raised when there is none.
    let database = unsafe { pg_sys::get_database_oid(name, true) };
    // It may be dropped at this moment, and the look at its owner would raise then.
    // SAFETY: a look into the catalog cache.
    let there = || unsafe {
        let key = pg_sys::Datum::from(database);
        pg_sys::SearchSysCacheExists(
            pg_sys::SysCacheIdentifier::DATABASEOID as i32,
            key,
            0usize.into(),
            0usize.into(),
            0usize.into(),
        )
    };
    if database != pg_sys::InvalidOid
        && there()
        && compat::owns_database(database, role::current())
        && let Some(listener) = LISTENER.get()
    {
        listener(Event::MustBeEmpty { database, dropped });
    }
}

/// The tables are all of IndexPilot's own schema. In a transaction.
pub fn all_own(tables: &[u32]) -> bool {
    // SAFETY: both are look-ups in the catalogs that raise nothing for what is not there.
    unsafe {
        let own = pg_sys::get_namespace_oid(extension::NAME.as_ptr(), true);
        tables.iter().all(|oid| pg_sys::get_rel_namespace(pg_sys::Oid::from(*oid)) == own)
    }
}

/// The extension is installed in this session's database. In a transaction.
pub fn has_extension() -> bool {
    extension::installed()
}
