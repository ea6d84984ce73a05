//! Running one utility command as if a client had sent it: the only way in which a concurrent build, rebuild or drop can run.
//!
//! `CREATE INDEX CONCURRENTLY` commits several times by itself, so it is refused in functions (and so through SPI) and it outlives
//! every memory context and snapshot of its first transaction. It therefore goes through a portal with `isTopLevel` true, exactly
//! as `exec_simple_query` (postgres.c) does it.

use super::bgworker::{Identity, abort};
use super::error::{Error, Result};
use super::time::TimeoutScope;
use super::{compat, encoding};
use pgrx::pg_sys::{self, PgTryBuilder};
use std::ffi::{CStr, CString};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// One utility command.
pub struct Command<'a> {
    /// Exactly one statement.
    pub sql: &'a str,
    /// Role that runs it; the session's own role is back afterwards whatever happened.
    pub run_as: pg_sys::Oid,
    /// Comment that a `CREATE INDEX` gives its index. It commits together with the catalog entry, so that even a half-built index
    /// that outlives a crash carries it.
    pub comment: Option<&'a str>,
    /// Done first in the transaction in which the command begins, as the session's own role; its error is the command's. It must not give
    /// the transaction a number, since a concurrent drop has to be the first to write.
    pub before: Option<&'a dyn Fn() -> Result<()>>,
    /// The command is cancelled after this time. Waits for single locks are limited by `lock_timeout`, which the caller sets.
    pub limit: Duration,
}

/// Runs the command in a transaction of its own. Only in a background worker, and outside a transaction.
///
/// An error comes back as a value once the transaction was rolled back; what the command had already committed stays, which is what
/// reconciling is for. A termination does not come back: the process ends here.
pub fn run(command: &Command<'_>) -> Result<()> {
    let comment = command.comment.map(CString::new).transpose().map_err(|_| Error::internal("comment contains a zero byte"))?;
    // The server reads it until the end.
    let mut statement = None;
    let identity = Identity::current();
    // SAFETY: TopMemoryContext always exists. Parse and plan trees must outlive the commits in the middle of the command.
    let context = unsafe {
        pg_sys::AllocSetContextCreateExtended(
            pg_sys::TopMemoryContext,
            c"indexpilot command".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    };
    let result = PgTryBuilder::new(AssertUnwindSafe(|| {
        // SAFETY: the process is outside a transaction, as every caller between two transaction() calls is.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
        }
        let sql = encoding::to_server(command.sql).map_err(|_| Error::internal("statement contains a zero byte"))?;
        let sql: &CStr = statement.insert(sql);
        // SAFETY: lives until it is taken back below.
        unsafe {
            pg_sys::debug_query_string = sql.as_ptr();
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, sql.as_ptr());
        }
        let _limit = TimeoutScope::new(command.limit);
        if let Some(before) = command.before {
            before()?;
        }
        identity.switch_to(command.run_as);
        // SAFETY: in a transaction, with a context that lives until the end of this function.
        unsafe { execute(sql, comment.as_deref(), context)? };
        // SAFETY: ends the transaction begun above, or the one that the command itself began after its last internal commit.
        unsafe { pg_sys::CommitTransactionCommand() };
        Ok(())
    }))
    .catch_others(|caught| Err(Error::from(caught)))
    .execute();
    if result.is_err() {
        abort();
    }
    identity.restore();
    // SAFETY: no portal refers to the trees any more: PortalDrop or the abort removed it.
    unsafe {
        pg_sys::debug_query_string = std::ptr::null();
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        pg_sys::MemoryContextDelete(context);
        pg_sys::pgstat_report_stat(true);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    result
}

/// # Safety
/// In a transaction; `context` outlives it.
unsafe fn execute(sql: &CStr, comment: Option<&CStr>, context: pg_sys::MemoryContext) -> Result<()> {
    // SAFETY: the steps of exec_simple_query, in its order; every pointer comes from the step before and lives in `context`.
    unsafe {
        let caller = pg_sys::MemoryContextSwitchTo(context);
        let parsed = pg_sys::pg_parse_query(sql.as_ptr());
        if pg_sys::list_length(parsed) != 1 {
            return Err(Error::internal("exactly one statement was expected"));
        }
        let raw = pg_sys::list_nth(parsed, 0).cast::<pg_sys::RawStmt>();
        let statement = (*raw).stmt;
        if let Some(comment) = comment {
            if (*statement).type_ != pg_sys::NodeTag::T_IndexStmt {
                return Err(Error::internal("a CREATE INDEX statement was expected"));
            }
            (*statement.cast::<pg_sys::IndexStmt>()).idxcomment = pg_sys::pstrdup(comment.as_ptr());
        }
        let tag = pg_sys::CreateCommandTag(statement);
        let needs_snapshot = pg_sys::analyze_requires_snapshot(raw);
        if needs_snapshot {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        let queries = pg_sys::pg_analyze_and_rewrite_fixedparams(raw, sql.as_ptr(), std::ptr::null(), 0, std::ptr::null_mut());
        let plans = pg_sys::pg_plan_queries(queries, sql.as_ptr(), 0, std::ptr::null_mut());
        if needs_snapshot {
            pg_sys::PopActiveSnapshot();
        }
        pgrx::check_for_interrupts!();
        let portal = pg_sys::CreatePortal(c"".as_ptr(), true, true);
        (*portal).visible = false;
        pg_sys::PortalDefineQuery(portal, std::ptr::null(), sql.as_ptr(), tag, plans, std::ptr::null_mut());
        pg_sys::PortalStart(portal, std::ptr::null_mut(), 0, std::ptr::null_mut());
        let mut format = 0i16;
        pg_sys::PortalSetResultFormat(portal, 1, &mut format);
        let receiver = pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone);
        pg_sys::MemoryContextSwitchTo(caller);
        let mut done = pg_sys::QueryCompletion { commandTag: tag, nprocessed: 0 };
        compat::portal_run(portal, receiver, &mut done);
        // The receiver for DestNone is static: nothing to destroy.
        pg_sys::PortalDrop(portal, false);
        Ok(())
    }
}
