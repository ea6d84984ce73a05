//! REINDEX INDEX CONCURRENTLY.

use super::reconcile::{self, Index};
use super::{Failure, Still, run};
use crate::guc;
use crate::pg::error::{Error, Kind};
use pgrx::spi::quote_qualified_identifier;

/// The statement that rebuilds the index.
pub fn statement(index: &Index) -> String {
    format!("REINDEX INDEX CONCURRENTLY {}", quote_qualified_identifier(&index.schema, &index.name))
}

/// Rebuilds the index, which gets a new OID. What an error leaves behind is found by [`super::reconcile::copies`].
pub fn rebuild(index: &Index) -> Result<(), Failure> {
    let check = || match refusal(&reconcile::unchanged(index)?) {
        Some(why) => Err(Error::new(Kind::WrongObject, format!("the index must not be rebuilt: {why}"))),
        None => Ok(()),
    };
    let still = Still { table: index.table_id, index: Some(index.oid), check: &check };
    run(&statement(index), Some(index.owner()), None, guc::apply_build_timeout(), Some(&still))
}

/// Why it must not be rebuilt by us; `None` when it may.
pub fn refusal(index: &Index) -> Option<String> {
    if index.unique && index.on_conflict_defect {
        // Until PostgreSQL 19 an INSERT ... ON CONFLICT can fail while a unique index of its table is rebuilt concurrently.
        return Some("it is unique, and INSERT ... ON CONFLICT could fail while it is rebuilt".into());
    }
    if index.partitioned {
        return Some("it belongs to a partitioned table".into());
    }
    None
}
