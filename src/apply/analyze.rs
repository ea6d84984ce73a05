//! ANALYZE of a table that has a new index on an expression: until then the planner guesses what the expression is like.

use super::reconcile::Index;
use super::{Failure, run};
use crate::guc;
use pgrx::spi::quote_qualified_identifier;

/// The statement, of the whole table: with columns named, the expressions of its indexes are left out (analyze.c).
pub fn statement(index: &Index) -> String {
    format!("ANALYZE {}", quote_qualified_identifier(&index.table_schema, &index.table_name))
}

/// Analyses the table of the index as its owner.
pub fn table_of(index: &Index) -> Result<(), Failure> {
    run(&statement(index), Some(index.owner()), None, guc::apply_build_timeout(), None)
}
