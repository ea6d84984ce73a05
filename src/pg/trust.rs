//! Whose code may run while the statement of a privileged role is planned.
//!
//! The planner runs immutable and stable functions as the role that it plans for. The owner of a table can replace it by a view with
//! functions of his own; planned for a superuser, they could do all that a superuser may. So code that a superuser did not
//! install is refused then: functions by the function manager's hooks, and queries on other users' relations (which server functions
//! such as `table_to_xml` run) by the executor's. A sample of a table's rows is read under the same guard.
//!
//! # Safety
//! The server alone calls the callbacks, in its main thread, with the arguments that their types promise.

use super::error::{Error, Kind, Result};
use super::hook::Previous;
use super::{node, role, standard};
use indexpilot_core::model::RelId;
use pgrx::{pg_guard, pg_sys};
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Roles whose members are as mighty as superusers.
const PRIVILEGED: [u32; 3] =
    [pg_sys::ROLE_PG_EXECUTE_SERVER_PROGRAM, pg_sys::ROLE_PG_READ_SERVER_FILES, pg_sys::ROLE_PG_WRITE_SERVER_FILES];

/// Languages `internal` and `c`, in which only superusers can make functions (pg_language.dat).
const LANGUAGES: [u32; 2] = [12, 13];

/// The statement of a privileged role is being planned in this backend. All that the hooks look at otherwise.
static GUARDED: AtomicBool = AtomicBool::new(false);
/// The table of which rows are sampled, 0 for none: see [`OwnTable`].
static OWN_TABLE: AtomicU32 = AtomicU32::new(0);
static INSTALLED: AtomicBool = AtomicBool::new(false);

static NEEDS_CALL: Previous<NeedsCallHook> = Previous::new();
static CALL: Previous<CallHook> = Previous::new();
static EXECUTOR_START: Previous<ExecutorStartHook> = Previous::new();

type NeedsCallHook = unsafe extern "C-unwind" fn(pg_sys::Oid) -> bool;
type CallHook = unsafe extern "C-unwind" fn(pg_sys::FmgrHookEventType::Type, *mut pg_sys::FmgrInfo, *mut pg_sys::Datum);
type ExecutorStartHook = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc, c_int);

/// Installs the hooks. Called once, from `_PG_init`.
pub fn init() {
    if INSTALLED.swap(true, Relaxed) {
        return;
    }
    // SAFETY: the library is being loaded, nothing else runs. Hooks are variables of the server; the previous ones are kept and
    // called. The callback is a function, which stays.
    unsafe {
        if let Some(hook) = pg_sys::needs_fmgr_hook {
            NEEDS_CALL.set(hook);
        }
        pg_sys::needs_fmgr_hook = Some(needs_call);
        if let Some(hook) = pg_sys::fmgr_hook {
            CALL.set(hook);
        }
        pg_sys::fmgr_hook = Some(call);
        if let Some(hook) = pg_sys::ExecutorStart_hook {
            EXECUTOR_START.set(hook);
        }
        pg_sys::ExecutorStart_hook = Some(executor_start);
    }
}

/// While it lives, code of other users is refused. The end of the transaction ends it in any case.
pub struct Guard {
    before: bool,
}

impl Guard {
    /// Refuses it when `role` is privileged.
    ///
    /// # Errors
    /// `Prerequisite` when it is, and the hooks are not installed.
    pub fn new(role: pg_sys::Oid) -> Result<Self> {
        let before = GUARDED.load(Relaxed);
        let privileged = is_privileged(role);
        if privileged && !INSTALLED.load(Relaxed) {
            return Err(Error::new(Kind::Prerequisite, "statements of privileged roles cannot be planned")
                .detail("The server was started with indexpilot.startup_bypass, so other users' functions could not be refused."));
        }
        GUARDED.store(before || privileged, Relaxed);
        Ok(Guard { before })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        GUARDED.store(self.before, Relaxed);
    }
}

/// While it lives, a privileged role may read this one table, if it is the role's own and no policies are in force on it for the role.
///
/// That is safe: what a relation makes its readers run is what its owner wrote into it, and whoever can act as the owner has his might
/// anyway. It is not enough to have the privileges of the owner, since others may have them too (where a role has no more than that, the
/// sample is read as the owner instead, and needs no guard unless he is privileged himself). The role's functions and his other
/// relations stay refused: the expression that is sampled, which may call them, can come from somebody else's query, and they may do
/// for it what only the role may. So do tables with policies that are in force for their owner too, since the executor adds them.
pub struct OwnTable {
    before: u32,
}

impl OwnTable {
    pub fn new(table: RelId) -> Self {
        OwnTable { before: OWN_TABLE.swap(table.0, Relaxed) }
    }

    /// The relation may be read by the current role.
    fn is(relation: pg_sys::Oid, owner: pg_sys::Oid) -> bool {
        let table = RelId(relation.to_u32());
        OWN_TABLE.load(Relaxed) == table.0 && owner == role::current() && !role::rows_are_hidden(table)
    }
}

impl Drop for OwnTable {
    fn drop(&mut self) {
        OWN_TABLE.store(self.before, Relaxed);
    }
}

/// The role is as mighty as a superuser.
pub fn is_privileged(role: pg_sys::Oid) -> bool {
    // SAFETY: catalog lookups; superusers are members of every role.
    PRIVILEGED.iter().any(|of| unsafe { pg_sys::is_member_of_role(role, pg_sys::Oid::from(*of)) })
}

// The hooks themselves are not guarded: pgrx's guard rebuilds an error without its context, position and constraint. They own nothing,
// so an error of the server may jump across them.

// Asked when a function is looked up to be called, and before a function in SQL is inlined; not for the server's own.
unsafe extern "C-unwind" fn needs_call(function: pg_sys::Oid) -> bool {
    if GUARDED.load(Relaxed) {
        check_function(function);
    }
    // SAFETY: passes on what the server handed in.
    NEEDS_CALL.get().is_some_and(|previous| unsafe { previous(function) })
}

// Called around functions that have settings or the rights of their owners: the server does not ask `needs_call` for those.
unsafe extern "C-unwind" fn call(
    event: pg_sys::FmgrHookEventType::Type,
    function: *mut pg_sys::FmgrInfo,
    data: *mut pg_sys::Datum,
) {
    // SAFETY: the function manager's own record; the rest is passed on.
    unsafe {
        if GUARDED.load(Relaxed) && event == pg_sys::FmgrHookEventType::FHET_START {
            check_function((*function).fn_oid);
        }
        if let Some(previous) = CALL.get() {
            previous(event, function, data);
        }
    }
}

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: passes on what the server handed in.
    unsafe {
        if GUARDED.load(Relaxed) && flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int == 0 {
            check_relations((*query).plannedstmt);
        }
        match EXECUTOR_START.get() {
            Some(previous) => previous(query, flags),
            None => standard::standard_ExecutorStart(query, flags),
        }
    }
}

/// Language and owner of a function; `None` when it is gone.
fn language_and_owner(function: pg_sys::Oid) -> Option<(u32, pg_sys::Oid)> {
    // SAFETY: a lookup in the cache of pg_proc, whose tuples have this form, and which is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return None;
        }
        let proc = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let found = (proc.prolang.to_u32(), proc.proowner);
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}

/// The function is code that a superuser installed.
fn installed_by_superuser(language: u32, owner: pg_sys::Oid) -> bool {
    // SAFETY: a catalog lookup.
    LANGUAGES.contains(&language) || unsafe { pg_sys::superuser_arg(owner) }
}

/// `role` may be made to run the function: a superuser installed it, or it is the role's own. One that is gone does no harm.
pub fn may_run(function: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    language_and_owner(function).is_none_or(|(language, owner)| owner == role || installed_by_superuser(language, owner))
}

/// Raises when the function is somebody's who is no superuser.
#[pg_guard]
extern "C-unwind" fn check_function(function: pg_sys::Oid) {
    if language_and_owner(function).is_some_and(|(language, owner)| !installed_by_superuser(language, owner)) {
        // SAFETY: a copy of the name, or null.
        let name = unsafe { node::text(pg_sys::get_func_name(function)) }.unwrap_or_default();
        Error::new(Kind::Privilege, format!("function {name} may not be run while a statement of a privileged role is planned"))
            .detail("Its owner is not a superuser.")
            .hint("Make a superuser the owner of the function, or run the statement as a role without such privileges.")
            .raise();
    }
}

/// Raises when a plan that is about to run touches a relation of somebody who is no superuser, but for the one that [`OwnTable`] names.
#[pg_guard]
unsafe extern "C-unwind" fn check_relations(plan: *mut pg_sys::PlannedStmt) {
    // SAFETY: a finished plan, whose range table names every relation and view that it came from; utility statements have none.
    // The cache's tuples have this form, and are released.
    unsafe {
        for entry in node::list::<pg_sys::RangeTblEntry>((*plan).rtable) {
            let relation = (*entry).relid;
            let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, pg_sys::Datum::from(relation));
            if tuple.is_null() {
                continue;
            }
            let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
            pg_sys::ReleaseSysCache(tuple);
            if !pg_sys::superuser_arg(owner) && !OwnTable::is(relation, owner) {
                let name = node::text(pg_sys::get_rel_name(relation)).unwrap_or_default();
                Error::new(
                    Kind::Privilege,
                    format!("relation {name} may not be read by a function while a statement of a privileged role is planned"),
                )
                .detail("Its owner is not a superuser.")
                .raise();
            }
        }
    }
}

/// The transaction is over. Called by the callback of what-if: one of them in every transaction of the server is enough.
#[inline]
pub fn transaction_over() {
    GUARDED.store(false, Relaxed);
    OWN_TABLE.store(0, Relaxed);
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use super::super::planner::{Sample, with_statement};
    use super::super::role;
    use super::*;
    use pgrx::prelude::*;
    use std::path::PathBuf;
    use std::time::Duration;

    fn plan(text: &str, role: pg_sys::Oid) -> Result<f64> {
        let sample = Sample { text: text.into(), search_path: "tr".into(), role, parameters: Vec::new() };
        with_statement(&sample, Duration::from_secs(10), |s| Ok(s.plan().cost()))
    }

    fn role_named(name: &str) -> pg_sys::Oid {
        Spi::get_one::<pg_sys::Oid>(&format!("SELECT '{name}'::regrole::oid")).unwrap().unwrap()
    }

    /// Mallory may create in a schema, and has functions that write a file when a mighty role runs them.
    fn set_up(name: &str) -> PathBuf {
        let file = std::env::temp_dir().join(format!("indexpilot-{name}-{}", std::process::id()));
        let write = format!("COPY (SELECT 1) TO '{}'", file.display());
        Spi::run(&format!(
            "CREATE ROLE mallory; CREATE ROLE mighty; GRANT pg_write_server_files TO mighty; CREATE ROLE plain;
             CREATE SCHEMA tr; GRANT CREATE, USAGE ON SCHEMA tr TO mallory; GRANT USAGE ON SCHEMA tr TO PUBLIC;
             SET search_path = tr; SET ROLE mallory;
             CREATE FUNCTION spill() RETURNS void LANGUAGE plpgsql AS $$BEGIN {write}; END$$;
             CREATE FUNCTION evil(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN PERFORM spill(); RETURN $1; END$$;
             CREATE FUNCTION evil_set(int) RETURNS int IMMUTABLE LANGUAGE plpgsql SET work_mem = '1MB' AS $$BEGIN PERFORM spill(); RETURN $1; END$$;
             CREATE FUNCTION evil_sql(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT evil($1)';
             CREATE FUNCTION evil_definer(int) RETURNS int IMMUTABLE SECURITY DEFINER LANGUAGE plpgsql AS $$BEGIN RETURN $1; END$$;
             CREATE TABLE t (id int); GRANT SELECT ON t TO PUBLIC;
             CREATE VIEW inner_view AS SELECT 1 AS id; GRANT SELECT ON inner_view TO PUBLIC;
             RESET ROLE;
             CREATE FUNCTION good(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT i + 1); END$$;"
        ))
        .unwrap();
        file
    }

    #[pg_test]
    fn others_functions_do_not_run_for_privileged_roles() {
        let file = set_up("trust");
        let statement = "SELECT id FROM t WHERE id = 1";
        let superuser = role::current();
        plan(statement, superuser).unwrap();
        Spi::run("SELECT evil(1)").unwrap();
        std::fs::remove_file(&file).expect("run by a superuser, the function does write the file");
        for condition in [
            "id = evil(1)",
            "id = evil_set(1)",
            "id = evil_sql(1)",
            "id = evil_definer(1)",
            "id::text = table_to_xml('tr.inner_view', true, true, '')::text",
        ] {
            Spi::run(&format!(
                "SET ROLE mallory; DROP TABLE IF EXISTS kept; ALTER TABLE t RENAME TO kept;
                 CREATE VIEW t AS SELECT id FROM kept WHERE {condition}; GRANT SELECT ON t TO PUBLIC; RESET ROLE"
            ))
            .unwrap();
            for role in [superuser, role_named("mighty")] {
                let error = plan(statement, role).expect_err(condition);
                assert_eq!(error.sqlstate(), "42501", "{condition}: {error}");
                assert!(error.message.contains("of a privileged role is planned"), "{condition}: {error}");
                assert!(!file.exists(), "{condition}");
            }
            Spi::run("DROP VIEW t; ALTER TABLE kept RENAME TO t").unwrap();
        }
        assert!(!GUARDED.load(Relaxed));
        plan(statement, superuser).expect("with the table back it can be planned");
    }

    #[pg_test]
    fn what_a_role_may_not_read_has_no_plan() {
        set_up("trust-rights");
        let plain = role_named("plain");
        plan("SELECT id FROM t", plain).unwrap();
        for text in ["DELETE FROM t", "INSERT INTO t VALUES (1)", "SELECT * FROM kept", "SELECT id FROM t JOIN kept USING (id)"] {
            Spi::run("CREATE TABLE IF NOT EXISTS kept (id int)").unwrap();
            let error = plan(text, plain).unwrap_err();
            assert_eq!(error.sqlstate(), "42501", "{text}: {error}");
            assert!(error.message.starts_with("permission denied for table"), "{text}: {error}");
        }
        Spi::run("GRANT SELECT ON kept TO plain").unwrap();
        plan("SELECT id FROM t JOIN kept USING (id)", plain).unwrap();
    }

    #[pg_test]
    fn functions_of_superusers_run_and_plain_roles_run_their_own() {
        let file = set_up("trust-plain");
        let superuser = role::current();
        plan("SELECT id FROM t WHERE id = good(1)", superuser).unwrap();
        plan("SELECT id FROM t WHERE id = good(1)", role_named("mighty")).unwrap();
        let error = plan("SELECT id FROM t WHERE id = evil(1)", role_named("plain")).unwrap_err();
        assert!(!error.message.contains("privileged role is planned"), "it fails by its own lack of rights: {error}");
        assert!(!file.exists());
        Spi::run("ALTER FUNCTION evil(int) OWNER TO CURRENT_USER; ALTER FUNCTION spill() OWNER TO CURRENT_USER").unwrap();
        plan("SELECT id FROM t WHERE id = evil(1)", superuser).unwrap();
        std::fs::remove_file(&file).expect("a superuser's own function runs, whatever it does");
    }
}
