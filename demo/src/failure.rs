//! The demo's one error type: a sentence for the person at the terminal.
//!
//! PostgreSQL's errors are spelled out with detail and hint, because the client library's own text leaves both away.

use std::fmt;

pub type Result<T> = std::result::Result<T, Failure>;

/// What went wrong, in words.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Failure(message.into())
    }

    /// The same failure, with what was being done in front.
    pub fn during(self, doing: &str) -> Self {
        Failure(format!("{doing}: {}", self.0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<postgres::Error> for Failure {
    fn from(error: postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else { return Failure(error.to_string()) };
        let mut text = format!("{} ({})", db.message(), db.code().code());
        for (label, part) in [("detail", db.detail()), ("hint", db.hint()), ("where", db.where_())] {
            if let Some(part) = part {
                text.push_str(&format!("; {label}: {part}"));
            }
        }
        Failure(text)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure(error.to_string())
    }
}

impl From<fmt::Error> for Failure {
    fn from(error: fmt::Error) -> Self {
        Failure(error.to_string())
    }
}
