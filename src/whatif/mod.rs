//! What-if: plans stored queries with indexes that do not exist, or without ones that do.
//!
//! Nothing is created: the planner is told of the indexes by a hook, for the one planner call that asks (see `hooks`).

pub mod cache;
mod definition;
#[cfg(any(test, feature = "pg_test"))]
mod forms_tests;
mod harvest;
mod hooks;
mod oracle;
#[cfg(any(test, feature = "pg_test"))]
mod planner_tests;
mod price;
mod profile;
#[cfg(any(test, feature = "pg_test"))]
mod rights_tests;
mod sampler;
mod shape;
#[cfg(any(test, feature = "pg_test"))]
mod shape_tests;
#[cfg(any(test, feature = "pg_test"))]
mod tests;

pub use crate::pg::planner::{Parameter, Sample, TenantKeys};
pub use crate::pg::shape::Expressions;
pub use definition::Hypothetical;
pub use hooks::init;
pub use oracle::Oracle;
pub use profile::profile;
pub use sampler::Sampler;
pub use shape::{common, shape, study};

use crate::guc;
use crate::pg::error::Result;
use crate::pg::planner;
use indexpilot_core::model::Cost;
use indexpilot_core::whatif::{Access, Leaf};
use pgrx::pg_sys;
use std::rc::Rc;

/// What the planner said.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Total cost of the best plan.
    pub cost: Cost,
    /// Positions in `with` of the indexes that the plan scans, ascending.
    pub used: Vec<usize>,
    /// Positions in `with` of the indexes that the planner found applicable, whether it used them or not, ascending.
    pub considered: Vec<usize>,
    /// Every index that the plan scans, real and hypothetical, each once.
    pub scanned: Vec<pg_sys::Oid>,
    /// Every relation that the plan depends on.
    pub relations: Vec<u32>,
    /// The scans of the plan.
    pub leaves: Vec<Leaf>,
    /// The plan as text, when asked for.
    pub explain: Option<String>,
}

/// Plans the sample as if the indexes `with` existed and those in `hide` did not. Indexes on tables that the query does not read
/// make no difference.
///
/// # Errors
/// As [`planner::with_statement`]; `Prerequisite` when the hooks are not installed; `InUse` when called while planning.
pub fn plan(sample: &Sample, with: &[Rc<Hypothetical>], hide: &[pg_sys::Oid], explain: bool) -> Result<Planned> {
    planner::with_statement(sample, guc::whatif_timeout(), |statement| {
        let session = hooks::Session::start(with, hide)?;
        let harvest = harvest::Harvest::start(&session);
        let plan = statement.plan();
        let relations = harvest.relations();
        let leaves = price::leaves(&plan.leaves(), &relations, &|oid| session.position(oid));
        let text = explain.then(|| plan.explain()).map(|mut text| {
            // EXPLAIN quotes the name because of the mark.
            for name in session.names() {
                text = text.replace(&format!("\"{name}\""), &name);
            }
            text
        });
        let scanned = plan.indexes();
        Ok(Planned {
            cost: plan.cost(),
            used: session.positions(&scanned),
            considered: session.considered(),
            scanned,
            relations: plan.relations(),
            leaves,
            explain: text,
        })
    })
}

/// What scans through the indexes `with` would cost the sample, and the scans that are there: one planner call prices all of them.
/// Indexes are known by their positions in `with`. With it the relations that the plan depends on.
///
/// # Errors
/// As [`plan`].
pub fn prices(sample: &Sample, with: &[Rc<Hypothetical>]) -> Result<(Vec<Access>, Vec<u32>)> {
    planner::with_statement(sample, guc::whatif_timeout(), |statement| {
        let session = hooks::Session::start(with, &[])?;
        let harvest = harvest::Harvest::prices_only(&session);
        let plan = statement.plan();
        let relations = harvest.relations();
        Ok((price::accesses(&relations, &|oid| session.position(oid)), plan.relations()))
    })
}
