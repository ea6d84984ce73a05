//! Background workers: signals, registration, connection, settings, transactions.
//!
//! A worker of ours ends at once on SIGTERM (`die`: FATAL, exit code 1), whatever statement it runs. A handler that only sets a
//! flag, as pgrx offers it, would hold up a fast shutdown and DROP DATABASE until the statement ends.
//!
//! # Safety
//! The server alone calls the callbacks, in its main thread, with the arguments that their types promise.

use super::error::{Error, Result};
use super::{compat, setting};
use pgrx::pg_sys::{self, PgTryBuilder};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

mod sys {
    use std::ffi::c_int;
    // Handlers of the server. The functions of the same names in pg_sys are wrappers with Rust's ABI and cannot be handlers.
    unsafe extern "C-unwind" {
        pub fn die(signal: c_int);
        pub fn StatementCancelHandler(signal: c_int);
        pub fn SignalHandlerForConfigReload(signal: c_int);
    }
    // libc
    unsafe extern "C" {
        pub fn kill(pid: c_int, signal: c_int) -> c_int;
    }
    pub const SIGHUP: c_int = 1;
    pub const SIGINT: c_int = 2;
    pub const SIGTERM: c_int = 15;
}

/// What the server is told of a worker.
pub struct Registration<'a> {
    /// `backend_type` in pg_stat_activity, and the name in the log.
    pub name: &'a CStr,
    /// Exported function of this library.
    pub function: &'a CStr,
    /// Handed to the function.
    pub database: pg_sys::Oid,
    /// Seconds until it is started again after it failed; `None`: never.
    pub restart: Option<i32>,
}

impl Registration<'_> {
    fn describe(&self) -> pg_sys::BackgroundWorker {
        fn copy<const N: usize>(from: &CStr) -> [c_char; N] {
            let mut to = [0; N];
            for (t, f) in to.iter_mut().zip(from.to_bytes().iter().take(N - 1)) {
                *t = *f as c_char;
            }
            to
        }
        pg_sys::BackgroundWorker {
            bgw_name: copy(self.name),
            bgw_type: copy(self.name),
            bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as c_int,
            bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
            bgw_restart_time: self.restart.unwrap_or(pg_sys::BGW_NEVER_RESTART),
            bgw_library_name: copy(c"indexpilot"),
            bgw_function_name: copy(self.function),
            bgw_main_arg: self.database.into(),
            bgw_extra: [0; 128],
            bgw_notify_pid: 0,
        }
    }
}

/// Registers a worker that the postmaster starts by itself. Only from `_PG_init` while libraries are preloaded.
pub fn register_static(registration: &Registration<'_>) {
    let mut worker = registration.describe();
    // SAFETY: the postmaster copies the description.
    unsafe { pg_sys::RegisterBackgroundWorker(&mut worker) };
}

/// A worker that this process had started.
pub struct Handle(*mut pg_sys::BackgroundWorkerHandle);

impl Handle {
    /// It has ended, or it never came up.
    pub fn stopped(&self) -> bool {
        let mut pid = 0;
        // SAFETY: the handle was returned by RegisterDynamicBackgroundWorker and not freed.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &mut pid) };
        status == pg_sys::BgwHandleStatus::BGWH_STOPPED || status == pg_sys::BgwHandleStatus::BGWH_POSTMASTER_DIED
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: palloc'ed in TopMemoryContext, and nobody else has the pointer.
        unsafe { pg_sys::pfree(self.0.cast()) }
    }
}

/// Asks the postmaster for a worker; `None` when all slots (max_worker_processes) are taken. This process's latch is set when the
/// worker starts and when it ends.
pub fn register_dynamic(registration: &Registration<'_>) -> Option<Handle> {
    let mut worker = registration.describe();
    let mut handle = std::ptr::null_mut();
    // SAFETY: the description is copied; the handle is allocated in TopMemoryContext so that it lives as long as we ask about it.
    let registered = unsafe {
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let registered = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
        pg_sys::MemoryContextSwitchTo(context);
        registered
    };
    // Lazily: dropping a handle frees what it points to.
    (registered && !handle.is_null()).then(|| Handle(handle))
}

/// Installs the signal handlers and lets signals in. First thing in every worker.
pub fn accept_signals() {
    // SAFETY: all three are handlers of the server and safe in a process with a PGPROC. SIGUSR1 is the server's already, because
    // the worker is registered with a database connection.
    unsafe {
        compat::pqsignal(sys::SIGTERM, Some(sys::die));
        compat::pqsignal(sys::SIGINT, Some(sys::StatementCancelHandler));
        compat::pqsignal(sys::SIGHUP, Some(sys::SignalHandlerForConfigReload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Connects as the bootstrap superuser: to a database, or (`None`) to the shared catalogs only. Ends the process when it cannot.
pub fn connect(database: Option<pg_sys::Oid>) {
    // SAFETY: called once, at the start of a worker that was registered with a database connection.
    unsafe {
        match database {
            Some(database) => pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0),
            None => pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0),
        }
    }
}

/// Longest wait of a process of ours for a lock, of a person's transaction on our tables or on his own: as long as it waits, its snapshot
/// holds up VACUUM and everybody's concurrent builds, and others do not get their turn. What could not be done is tried again.
pub const PATIENCE: &CStr = c"5s";

/// Overrides what postgresql.conf, ALTER DATABASE and ALTER ROLE may have set, as AutoVacWorkerMain (autovacuum.c) does: our
/// statements must neither be redirected by a search path nor be ended by limits that were meant for users.
pub fn override_settings() {
    let always: [(&CStr, &CStr); 16] = [
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"zero_damaged_pages", c"off"),
        (c"statement_timeout", c"0"),
        (c"lock_timeout", PATIENCE),
        (c"idle_in_transaction_session_timeout", c"0"),
        (c"default_transaction_isolation", c"read committed"),
        (c"default_transaction_read_only", c"off"),
        (c"default_transaction_deferrable", c"off"),
        // A worker that waits for a synchronous standby would hold up a shutdown.
        (c"synchronous_commit", c"local"),
        (c"default_tablespace", c""),
        (c"client_min_messages", c"warning"),
        (c"session_replication_role", c"origin"),
        (c"row_security", c"off"),
        (c"plan_cache_mode", c"auto"),
        // Our queries are many and small. With enable_seqscan = off their costs are huge, and each would be compiled, for seconds.
        (c"jit", c"off"),
        (compat::FORCE_PARALLEL, c"off"),
    ];
    for (name, value) in always {
        set(name, value);
    }
    for (name, value) in [(c"transaction_timeout", c"0"), (c"pg_hint_plan.enable_hint", c"off")] {
        if setting::exists(name) {
            set(name, value);
        }
    }
}

/// Sets a setting for the rest of the session, above every other source.
pub fn set(name: &CStr, value: &CStr) {
    // SAFETY: both are NUL-terminated and copied.
    unsafe {
        pg_sys::SetConfigOption(name.as_ptr(), value.as_ptr(), pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_OVERRIDE);
    }
}

/// Reads postgresql.conf again when a SIGHUP asked for it.
pub fn reload_if_asked() {
    // SAFETY: the pattern of every main loop of the server (interrupt.h).
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Waits until the latch is set or the time is over, answering interrupts (termination, barriers). Ends the process with the
/// postmaster.
pub fn wait(limit: Duration) {
    let ms = limit.as_millis().clamp(1, 3_600_000) as std::ffi::c_long;
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: MyLatch is this process's own latch.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as c_int, ms, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// Sets another process's latch; nothing happens when there is no such process of the server.
pub fn wake_process(pid: i32) {
    if pid != 0 {
        // SAFETY: the PGPROC lies in shared memory for ever; if its process has just ended, somebody wakes once for nothing.
        unsafe {
            let process = pg_sys::BackendPidGetProc(pid);
            if !process.is_null() {
                pg_sys::SetLatch(&raw mut (*process).procLatch);
            }
        }
    }
}

/// Ends a worker of ours (SIGTERM). Only for a process that is still one of the server's.
pub fn terminate(pid: i32) {
    // SAFETY: as pg_terminate_backend does it: the process is looked up first, then signalled.
    unsafe {
        if pid != 0 && !pg_sys::BackendPidGetProc(pid).is_null() {
            sys::kill(pid, sys::SIGTERM);
        }
    }
}

/// Process id of this process.
pub fn pid() -> i32 {
    // SAFETY: a variable of the process.
    unsafe { pg_sys::MyProcPid }
}

/// The server is a standby, or has not finished recovering.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// The process is one of pg_upgrade's server, a single-user backend or a bootstrap process: nothing of ours may run.
pub fn out_of_service() -> bool {
    // SAFETY: variables of the process.
    unsafe { pg_sys::IsBinaryUpgrade || !pg_sys::IsUnderPostmaster }
}

/// `_PG_init` runs because of shared_preload_libraries, in the postmaster of a normal server.
pub fn preloading() -> bool {
    // SAFETY: variables of the process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade }
}

thread_local! {
    static AT_EXIT: Cell<Option<fn()>> = const { Cell::new(None) };
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn run_at_exit(_code: c_int, _argument: pg_sys::Datum) {
    if let Some(f) = AT_EXIT.take() {
        f();
    }
}

/// Has `f` called when the process ends, however it ends short of a crash. Called before [`connect`], `f` runs after the process
/// has left the list of the database's sessions (callbacks run in reverse order; ipc.c). `f` must not raise.
pub fn at_exit(f: fn()) {
    AT_EXIT.set(Some(f));
    // SAFETY: the callback is a function of this library, which is never unloaded.
    unsafe { pg_sys::on_shmem_exit(Some(run_at_exit), pg_sys::Datum::from(0)) };
}

/// Who the session acts as, to be put back whatever happens in between.
#[derive(Clone, Copy)]
pub struct Identity {
    role: pg_sys::Oid,
    context: c_int,
}

impl Identity {
    pub fn current() -> Self {
        let (mut role, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: plain reads (miscinit.c).
        unsafe { pg_sys::GetUserIdAndSecContext(&mut role, &mut context) };
        Identity { role, context }
    }

    /// Acts as `role` until [`Identity::restore`]. Not scoped: it must survive the commits in the middle of a command, and after an
    /// error the aborting transaction brings back the role of its *last internal* transaction, which is `role` again.
    pub fn switch_to(self, role: pg_sys::Oid) {
        // SAFETY: plain write; the flag only forbids SET ROLE and the like.
        unsafe { pg_sys::SetUserIdAndSecContext(role, self.context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int) }
    }

    pub fn restore(self) {
        // SAFETY: plain write of what was read.
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.context) }
    }
}

/// A cancel that arrived too late for what it was meant for must not hit what comes next.
pub fn forget_cancel() {
    // SAFETY: plain write; whoever waits for a cancel has ended.
    unsafe { pg_sys::QueryCancelPending = 0 };
}

/// Rolls back after an error and makes the process usable again, as PostgresMain (postgres.c) does.
pub(super) fn abort() {
    forget_cancel();
    // SAFETY: valid in every transaction state.
    unsafe {
        pg_sys::AbortCurrentTransaction();
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
    }
}

/// Runs `f` in a transaction with a snapshot, which is committed when `f` returns `Ok` and rolled back otherwise. Errors of the
/// server come back as values; a termination ends the process. `activity` is what pg_stat_activity shows. Only in workers: there is
/// no transaction around it that would be left half undone.
pub fn transaction<T>(activity: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let identity = Identity::current();
    let activity = CString::new(activity).unwrap_or_default();
    let result = PgTryBuilder::new(AssertUnwindSafe(|| {
        // SAFETY: the process is outside a transaction.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        let value = f()?;
        // SAFETY: takes back what was pushed above and ends what was begun above.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        Ok(value)
    }))
    .catch_others(|caught| Err(Error::from(caught)))
    .execute();
    if result.is_err() {
        abort();
    }
    identity.restore();
    // SAFETY: outside a transaction; sends statistics and shows the process as idle.
    unsafe {
        pg_sys::pgstat_report_stat(false);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    result
}
