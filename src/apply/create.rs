//! CREATE INDEX CONCURRENTLY.

use super::{Failure, MARK, run};
use crate::guc;
use pgrx::pg_sys::Oid;

/// Builds the index. `statement` must be a `CREATE INDEX CONCURRENTLY`; the index carries the tag from its first commit on. What an
/// error leaves behind is found by that tag ([`super::reconcile::tagged`]).
pub fn build(statement: &str, owner: Oid, tag: &str) -> Result<(), Failure> {
    run(statement, Some(owner), Some(&format!("{MARK}{tag}")), guc::apply_build_timeout())
}
