//! Making the indexes of partitions parts of one of their table.

use super::facts::{self, Table};
use super::reconcile::{self, Index};
use super::{Failure, Still, run_within};
use crate::guc;
use crate::pg::error::{Error, Kind};
use pgrx::spi::{quote_identifier, quote_qualified_identifier};
use std::time::Duration;

/// Longest wait for a lock: whoever comes after us waits as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// The statement that makes an index of the table alone, whose partitions' are attached to it later. `form` is what comes after the
/// table's name.
pub fn parent_statement(name: &str, table: &Table, form: &str) -> String {
    format!("CREATE INDEX {} ON ONLY {} {form}", quote_identifier(name), quote_qualified_identifier(&table.schema, &table.name))
}

/// Makes an index of the partitioned table alone. Writes wait while it looks at the catalog, and not for any row.
pub fn make_parent(statement: &str, table_id: u32, table: &Table) -> Result<(), Failure> {
    let check = || match facts::table(table_id)? {
        Some(now) if now.partitioned && (&now.schema, &now.name) == (&table.schema, &table.name) => Ok(()),
        _ => Err(Error::new(Kind::InUse, "the table was dropped or renamed meanwhile")),
    };
    let still = Still { table: table_id, index: None, check: &check };
    run_within(PATIENCE, statement, Some(table.owner()), None, guc::apply_build_timeout(), Some(&still))
}

/// The statement that attaches the index of a partition to its table's.
pub fn statement(parent: &Index, index: &Index) -> String {
    let name = |i: &Index| quote_qualified_identifier(&i.schema, &i.name);
    format!("ALTER INDEX {} ATTACH PARTITION {}", name(parent), name(index))
}

/// Attaches it. Queries on the partition wait for a moment.
pub fn attach(parent: &Index, index: &Index) -> Result<(), Failure> {
    let check = || reconcile::unchanged(index).and_then(|_| reconcile::unchanged(parent)).map(|_| ());
    let still = Still { table: parent.table_id, index: Some(parent.oid), check: &check };
    run_within(PATIENCE, &statement(parent, index), Some(parent.owner()), None, guc::apply_build_timeout(), Some(&still))
}
