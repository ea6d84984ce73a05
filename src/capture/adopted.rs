//! Query identifiers of statements that the server gives none: the query inside DECLARE CURSOR, CREATE TABLE AS and REFRESH.
//!
//! Such a query is planned and then started with nothing of its kind in between, so one place is enough; its position in the text
//! tells whether it is still the same.

use crate::pg::single::Single;

static LAST: Single<Option<(u64, i32)>> = Single::new(None);

/// The query that was just planned, and where it begins in its text.
pub fn remember(queryid: u64, location: i32) {
    LAST.with(|last| *last = Some((queryid, location)));
}

/// The identifier of the query that is started now.
pub fn take(location: i32) -> Option<u64> {
    LAST.with(|last| last.take().filter(|(_, at)| *at == location).map(|(queryid, _)| queryid)).flatten()
}
