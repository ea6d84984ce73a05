//! CREATE INDEX CONCURRENTLY.

use super::facts::{self, Table};
use super::{Failure, MARK, Still, run};
use crate::guc;
use crate::pg::error::{Error, Kind};

/// Builds the index on the table with OID `table_id`. `statement` must be a `CREATE INDEX CONCURRENTLY`; the index carries the tag from
/// its first commit on. What an error leaves behind is found by that tag ([`super::reconcile::tagged`]).
pub fn build(statement: &str, table_id: u32, table: &Table, tag: &str) -> Result<(), Failure> {
    let check = || match facts::table(table_id)? {
        Some(now) if (&now.schema, &now.name, now.owner()) == (&table.schema, &table.name, table.owner()) => Ok(()),
        _ => Err(Error::new(Kind::InUse, "the table was dropped, renamed or given away while the build began")),
    };
    let still = Still { table: table_id, index: None, check: &check };
    run(statement, Some(table.owner()), Some(&format!("{MARK}{tag}")), guc::apply_build_timeout(), Some(&still))
}
