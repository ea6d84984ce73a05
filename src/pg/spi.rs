//! Queries on IndexPilot's own tables and on the catalogs. Rows come back and parameters go in as JSON, so that a row is a serde
//! struct and no value is ever pasted into SQL.
//!
//! Every query runs as the bootstrap superuser (callers were checked by EXECUTE rights before) and with
//! `search_path = pg_catalog, pg_temp`, so neither the caller's rights nor the caller's schemas and operators matter. None runs where the
//! tables are of another version than the library.

use super::error::{Error, Kind, Result};
use super::role::RoleScope;
use super::{encoding, extension, own};
use pgrx::datum::DatumWithOid;
use pgrx::{AnyElement, FromDatum, Spi, pg_sys};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::cell::Cell;
use std::ffi::CString;

thread_local! {
    /// Only reading: what is run now.
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// What `f` asks for gives the transaction no number, so it must not write. In a transaction with an active snapshot.
pub fn reading<T>(f: impl FnOnce() -> T) -> T {
    struct Scope;
    impl Drop for Scope {
        fn drop(&mut self) {
            READING.set(false);
        }
    }
    READING.set(true);
    let _scope = Scope;
    f()
}

/// Settings changed here are put back when it is dropped; after an ERROR the aborting transaction does so itself.
pub struct SettingScope {
    nest: i32,
}

impl SettingScope {
    pub fn new(settings: &[(&std::ffi::CStr, &std::ffi::CStr)]) -> Self {
        // SAFETY: the pattern of function-local settings (fmgr.c, fmgr_security_definer): open a level, set, close the level.
        let nest = unsafe { pg_sys::NewGUCNestLevel() };
        for (name, value) in settings {
            // SAFETY: both are NUL-terminated and copied by the server.
            unsafe {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_SUSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
        }
        SettingScope { nest }
    }

    /// The fixed search path of everything that IndexPilot runs for itself.
    pub fn safe_search_path() -> Self {
        SettingScope::new(&[(c"search_path", c"pg_catalog, pg_temp")])
    }
}

impl Drop for SettingScope {
    fn drop(&mut self) {
        // While an error unwinds, the (sub)transaction that aborts closes the level, and it may be gone already.
        if !std::thread::panicking() {
            // SAFETY: closes the level that new() opened.
            unsafe { pg_sys::AtEOXact_GUC(true, self.nest) };
        }
    }
}

/// A document as a parameter of type jsonb.
fn document(value: &Value) -> Result<DatumWithOid<'static>> {
    // SAFETY: a value of that type.
    Ok(unsafe { DatumWithOid::new(jsonb(value)?, pg_sys::JSONBOID) })
}

/// A document as a result of type jsonb, in the encoding of the database.
pub fn to_jsonb(value: &Value) -> Result<Option<AnyElement>> {
    let datum = jsonb(value)?;
    // SAFETY: a value of that type.
    Ok(unsafe { AnyElement::from_polymorphic_datum(datum, false, pg_sys::JSONBOID) })
}

/// A document that a function was given as jsonb, which SQL declares it to be.
pub fn from_jsonb(given: &AnyElement) -> Result<Value> {
    // SAFETY: the output function of jsonb returns a NUL-terminated text.
    let text = unsafe {
        let text = pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(pg_sys::F_JSONB_OUT), given.datum());
        encoding::to_utf8(std::ffi::CStr::from_ptr(text).to_bytes())
    };
    Ok(serde_json::from_str(&text)?)
}

fn jsonb(value: &Value) -> Result<pg_sys::Datum> {
    let text = CString::new(encoding::document(value)).map_err(|_| Error::internal("document contains a zero byte"))?;
    // SAFETY: the input function of jsonb reads a NUL-terminated text, and raises where it is none.
    Ok(unsafe {
        pg_sys::OidInputFunctionCall(pg_sys::Oid::from(pg_sys::F_JSONB_IN), text.as_ptr().cast_mut(), pg_sys::InvalidOid, -1)
    })
}

/// Rows of a query: SELECT, or INSERT / UPDATE / DELETE with RETURNING. `$1` is `args` as jsonb.
pub fn rows<T: DeserializeOwned>(sql: &str, args: Value) -> Result<Vec<T>> {
    let encoding = if encoding::unknown() { "SQL_ASCII" } else { "UTF8" };
    let sql =
        format!("WITH q AS ({sql}) SELECT pg_catalog.convert_to(pg_catalog.to_jsonb(q)::pg_catalog.text, '{encoding}') FROM q");
    let documents = run(&sql, args)?;
    documents.into_iter().map(|d| serde_json::from_value(d).map_err(Error::from)).collect()
}

/// The only row of a query that returns one row at most.
pub fn row<T: DeserializeOwned>(sql: &str, args: Value) -> Result<Option<T>> {
    Ok(rows(sql, args)?.into_iter().next())
}

/// The single column of the first row of a query, if there is one and it is not NULL.
pub fn value<T: DeserializeOwned>(sql: &str, args: Value) -> Result<Option<T>> {
    let first: Option<serde_json::Map<String, Value>> = row(sql, args)?;
    match first.and_then(|m| m.into_values().next()) {
        None | Some(Value::Null) => Ok(None),
        Some(v) => Ok(Some(serde_json::from_value(v)?)),
    }
}

/// A command of which the names are the user's, in the encoding of the database; as the current role.
///
/// # Errors
/// Those of the server are raised.
pub fn command(sql: &str) -> Result<()> {
    let sql = encoding::to_server(sql).map_err(|_| Error::internal("statement contains a zero byte"))?;
    // SAFETY: in a transaction; the text lives until the call returns, and an error ends the connection with its subtransaction.
    let code = unsafe {
        pg_sys::SPI_connect();
        let code = pg_sys::SPI_execute(sql.as_ptr(), false, 0);
        pg_sys::SPI_finish();
        code
    };
    if code < 0 {
        return Err(Error::internal(format!("SPI_execute returned {code}")));
    }
    Ok(())
}

/// A command without result; returns the number of rows it touched.
pub fn execute(sql: &str, args: Value) -> Result<u64> {
    extension::require_same_version()?;
    let _work = own::work();
    let _role = RoleScope::owner();
    let _path = SettingScope::safe_search_path();
    Spi::connect_mut(|client| {
        let args = [document(&args)?];
        let done = client.update(sql, None, &args)?;
        Ok(done.len() as u64)
    })
}

fn run(sql: &str, args: Value) -> Result<Vec<Value>> {
    extension::require_same_version()?;
    let _work = own::work();
    let _role = RoleScope::owner();
    let _path = SettingScope::safe_search_path();
    // SAFETY: reads a variable of the backend.
    let only_read = READING.get() || unsafe { pg_sys::RecoveryInProgress() };
    Spi::connect_mut(|client| {
        let args = [document(&args)?];
        let mut found = Vec::new();
        // update() gives the transaction a number first, and a standby has none to give.
        let tuples = if only_read { client.select(sql, None, &args)? } else { client.update(sql, None, &args)? };
        for tuple in tuples {
            if let Some(document) = tuple.get::<Vec<u8>>(1)? {
                found.push(serde_json::from_str(&String::from_utf8_lossy(&document))?);
            }
        }
        Ok(found)
    })
}

/// Fails with a clear error where nothing may be written: on a standby and in a read-only transaction.
pub fn require_writable(what: &str) -> Result<()> {
    // SAFETY: both read variables of the backend.
    let (recovery, read_only) = unsafe { (pg_sys::RecoveryInProgress(), pg_sys::XactReadOnly) };
    if recovery {
        return Err(Error::new(Kind::ReadOnly, format!("cannot execute {what} during recovery"))
            .detail("This server is a standby; IndexPilot changes nothing here.")
            .hint("Connect to the primary server and call it there."));
    }
    if read_only {
        return Err(Error::new(Kind::ReadOnly, format!("cannot execute {what} in a read-only transaction"))
            .detail("The call writes to IndexPilot's tables.")
            .hint("Call it in a transaction started with START TRANSACTION READ WRITE."));
    }
    Ok(())
}

/// Fails when a procedure was called where it may not commit: inside a transaction block or from a function.
pub fn require_nonatomic_call(fcinfo: pg_sys::FunctionCallInfo, what: &str) -> Result<()> {
    // SAFETY: the server hands every function its call info; for CALL the context is a CallContext node (functioncmds.c).
    let atomic = unsafe {
        let context = (*fcinfo).context;
        context.is_null() || (*context).type_ != pg_sys::NodeTag::T_CallContext || (*context.cast::<pg_sys::CallContext>()).atomic
    };
    if atomic {
        return Err(Error::new(Kind::Prerequisite, format!("{what} cannot run inside a transaction block"))
            .detail("A build waits for every older transaction to end, so it would wait for this one for ever.")
            .hint("Commit first, then CALL it as a statement of its own."));
    }
    Ok(())
}

/// Ends the transaction of a procedure, waits without holding a snapshot, and begins a new one. Cancels and terminations are heeded.
pub fn commit_and_wait(pause: std::time::Duration) -> Result<()> {
    // SAFETY: the sequence that PL/pgSQL uses for COMMIT (pl_exec.c, exec_stmt_commit): a nonatomic SPI level, then SPI_commit,
    // which starts the next transaction itself; only called where require_nonatomic_call() passed.
    unsafe {
        pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32);
        pg_sys::SPI_commit();
        pg_sys::SPI_finish();
    }
    super::time::sleep(pause);
    Ok(())
}
