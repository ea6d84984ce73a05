//! Errors as PostgreSQL reports them: the one place that chooses SQLSTATEs.
//!
//! Messages follow the server's style guide: the primary message in lower case and without a period, detail and hint as sentences,
//! the hint a command where there is one.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};

pub type Result<T> = std::result::Result<T, Error>;

/// What kind of trouble; each has one SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The library was not preloaded, or a state that the call needs is not there.
    Prerequisite,
    /// The transaction or the server is read-only.
    ReadOnly,
    InvalidParameter,
    UndefinedTable,
    UndefinedColumn,
    UndefinedObject,
    Syntax,
    NotSupported,
    /// The object is of the wrong kind for the call.
    WrongObject,
    /// There is no room for more.
    LimitExceeded,
    /// Something else already does this.
    InUse,
    /// The caller may not do or see this.
    Privilege,
    Cancelled,
    Internal,
    /// An error of the server that was caught, with its own SQLSTATE.
    Server(PgSqlErrorCode),
}

impl Kind {
    fn code(self) -> PgSqlErrorCode {
        use PgSqlErrorCode as C;
        match self {
            Kind::Prerequisite => C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Kind::ReadOnly => C::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            Kind::InvalidParameter => C::ERRCODE_INVALID_PARAMETER_VALUE,
            Kind::UndefinedTable => C::ERRCODE_UNDEFINED_TABLE,
            Kind::UndefinedColumn => C::ERRCODE_UNDEFINED_COLUMN,
            Kind::UndefinedObject => C::ERRCODE_UNDEFINED_OBJECT,
            Kind::Syntax => C::ERRCODE_SYNTAX_ERROR,
            Kind::NotSupported => C::ERRCODE_FEATURE_NOT_SUPPORTED,
            Kind::WrongObject => C::ERRCODE_WRONG_OBJECT_TYPE,
            Kind::LimitExceeded => C::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            Kind::InUse => C::ERRCODE_OBJECT_IN_USE,
            Kind::Privilege => C::ERRCODE_INSUFFICIENT_PRIVILEGE,
            Kind::Cancelled => C::ERRCODE_QUERY_CANCELED,
            Kind::Internal => C::ERRCODE_INTERNAL_ERROR,
            Kind::Server(code) => code,
        }
    }
}

/// An error on its way to the client.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), detail: None, hint: None }
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A state that the code cannot explain.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(Kind::Internal, message)
    }

    /// The five characters of the SQLSTATE.
    pub fn sqlstate(&self) -> String {
        sqlstate(self.kind.code())
    }

    /// Reports the error: this never returns.
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(self.kind.code(), self.message, "indexpilot");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        // What `report(ERROR)` does, but with a type that says that it does not return: pgrx turns it into an ereport at the guard.
        std::panic::panic_any(report)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.sqlstate(), self.message)
    }
}

impl std::error::Error for Error {}

impl From<CaughtError> for Error {
    fn from(caught: CaughtError) -> Self {
        let (CaughtError::PostgresError(e) | CaughtError::ErrorReport(e) | CaughtError::RustPanic { ereport: e, .. }) = caught;
        Error {
            kind: Kind::Server(e.sql_error_code()),
            message: e.message().to_owned(),
            detail: e.detail().map(str::to_owned),
            hint: e.hint().map(str::to_owned),
        }
    }
}

impl From<pgrx::spi::Error> for Error {
    fn from(e: pgrx::spi::Error) -> Self {
        Error::internal(format!("query on IndexPilot's own tables failed: {e}"))
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Self {
        Error::internal(format!("document of IndexPilot's own tables has another form than expected: {e}"))
    }
}

/// `MAKE_SQLSTATE` undone: six bits a character (`utils/elog.h`).
fn sqlstate(code: PgSqlErrorCode) -> String {
    let code = code as i32;
    (0..5).map(|i| char::from((((code >> (6 * i)) & 0x3F) as u8) + b'0')).collect()
}

/// Unwraps at the border to SQL: the error goes to the client.
pub fn or_raise<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|e| e.raise())
}
