//! CREATE INDEX CONCURRENTLY.

use super::facts::{self, Table};
use super::{Failure, MARK, Still, run};
use crate::guc;
use crate::pg::error::{Error, Kind};
use crate::pg::lock;

/// Builds the index on the table with OID `table_id`. `statement` must be a `CREATE INDEX CONCURRENTLY`; the index carries the tag from
/// its first commit on. What an error leaves behind is found by that tag ([`super::reconcile::tagged`]).
///
/// The server lets go of the table in its last transaction, before that commits (DefineIndex, indexcmds.c): a VACUUM FULL that waited would
/// meet a catalog entry that is being changed, and fail. So the table is held here until the commit.
pub fn build(statement: &str, table_id: u32, table: &Table, tag: &str) -> Result<(), Failure> {
    let check = || match facts::table(table_id)? {
        Some(now) if (&now.schema, &now.name, now.owner()) == (&table.schema, &table.name, table.owner()) => {
            lock::against_ddl_over_commits(table_id);
            Ok(())
        }
        _ => Err(Error::new(Kind::InUse, "the table was dropped, renamed or given away while the build began")),
    };
    let still = Still { table: table_id, index: None, check: &check };
    run(statement, Some(table.owner()), Some(&format!("{MARK}{tag}")), guc::apply_build_timeout(), Some(&still))?;
    lock::allow_ddl(table_id);
    Ok(())
}
