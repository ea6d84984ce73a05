//! What a stored query wants of its tables.

use super::Sample;
use super::hooks::Session;
use crate::guc;
use crate::pg::error::Result;
use crate::pg::planner;
use indexpilot_core::model::{QueryShape, RelId, RelationUse};

/// Plans the sample with the database as it is and reads from the planner what the query wants of each table, at all levels:
/// subqueries, CTEs and the arms of UNION too. Tables that are only inserted into appear as targets.
///
/// # Errors
/// As [`planner::with_statement`]; `Prerequisite` when the hooks are not installed.
pub fn shape(sample: &Sample) -> Result<QueryShape> {
    planner::with_statement(sample, guc::whatif_timeout(), |statement| {
        let session = Session::record()?;
        let base_cost = statement.plan().cost();
        let mut relations = session.relations();
        for target in statement.insert_targets() {
            relations.push(inserted_into(target));
        }
        Ok(QueryShape { relations, base_cost })
    })
}

/// A table that is only written to: it offers an index nothing but work.
fn inserted_into(rel: RelId) -> RelationUse {
    RelationUse {
        rel,
        predicates: Vec::new(),
        conditions: Vec::new(),
        order: Vec::new(),
        limited: false,
        group: Vec::new(),
        needed: Vec::new(),
        whole_row: true,
        target: true,
        rows: 0.0,
    }
}
