//! DROP INDEX CONCURRENTLY.

use super::reconcile::Index;
use super::{Class, Failure, REMOVAL_LIMIT, qualified, run};
use crate::guc;

/// The statement that drops the index.
pub fn statement(index: &Index) -> String {
    format!("DROP INDEX CONCURRENTLY {}", qualified(&index.schema, &index.name))
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
    run(&statement(index), Some(index.owner()), None, guc::apply_build_timeout())
}

/// Removes an index that an interrupted command left unusable. The owner's rights may have changed since; a drop runs no code of
/// users, so the session's own role may do it then. An index that is gone meanwhile is no failure.
pub fn remove(index: &Index) -> Result<(), Failure> {
    let result = match run(&statement(index), Some(index.owner()), None, REMOVAL_LIMIT) {
        Err(failure) if failure.class == Class::Privilege => run(&statement(index), None, None, REMOVAL_LIMIT),
        other => other,
    };
    match result {
        Err(failure) if failure.error.sqlstate() == "42704" => Ok(()),
        other => other,
    }
}
