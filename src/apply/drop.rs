//! DROP INDEX CONCURRENTLY.

use super::reconcile::{self, Index};
use super::{Class, Failure, REMOVAL_LIMIT, Still, run};
use crate::guc;
use crate::pg::error::{Error, Kind};
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_qualified_identifier;
use std::time::Duration;

/// The statement that drops the index.
pub fn statement(index: &Index) -> String {
    format!("DROP INDEX CONCURRENTLY {}", quote_qualified_identifier(&index.schema, &index.name))
}

/// Why it must never be dropped; `None` when it may. The server would refuse some of these itself; all of them are said here.
pub fn refusal(index: &Index) -> Option<String> {
    let reasons = [
        (index.constraint, "a constraint needs it"),
        (index.unique, "it is unique: it may be what keeps duplicates out, or what ON CONFLICT relies on"),
        (index.replica_identity, "it is the replica identity of its table"),
        (index.clustered, "its table is clustered by it"),
        (index.partitioned, "it belongs to a partitioned table"),
        (index.attached, "it is a part of an index of a partitioned table"),
        (index.needed, "another object depends on it"),
    ];
    reasons.iter().find(|(applies, _)| *applies).map(|(_, why)| (*why).to_owned())
}

/// Drops a valid index.
pub fn carry_out(index: &Index) -> Result<(), Failure> {
    drop(index, Some(index.owner()), guc::apply_build_timeout(), &|now| match refusal(now) {
        Some(why) => Err(Error::new(Kind::WrongObject, format!("the index must not be dropped: {why}"))),
        None => Ok(()),
    })
}

/// The command knows the index by its name, which must still be that of this very index when it begins; and `fit` looks at it then.
fn drop(index: &Index, run_as: Option<Oid>, limit: Duration, fit: &dyn Fn(&Index) -> Result<(), Error>) -> Result<(), Failure> {
    let check = || fit(&reconcile::unchanged(index)?);
    let still = Still { table: index.table_id, index: Some(index.oid), check: &check };
    run(&statement(index), run_as, None, limit, Some(&still))
}

/// Removes an index that an interrupted command left unusable. The owner's rights may have changed since; a drop runs no code of
/// users, so the session's own role may do it then. An index that is gone meanwhile is no failure.
pub fn remove(index: &Index) -> Result<(), Failure> {
    let unusable = |now: &Index| match now.valid {
        true => Err(Error::new(Kind::InUse, "the index was made usable")),
        false => Ok(()),
    };
    let result = match drop(index, Some(index.owner()), REMOVAL_LIMIT, &unusable) {
        Err(failure) if failure.class == Class::Privilege => drop(index, None, REMOVAL_LIMIT, &unusable),
        other => other,
    };
    match result {
        Err(failure) if failure.error.sqlstate() == "42704" => Ok(()),
        other => other,
    }
}
