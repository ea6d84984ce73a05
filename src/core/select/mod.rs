//! Which candidates to build: an integer program over what the planner says, checked with the planner.
//!
//! 1. [`explore`]: for each query, one question prices the scans that the candidates allow, and a few give plans. From these
//!    ([`template`]) come *configurations*: a set of candidates and the cost of the query with them, asked or predicted.
//! 2. [`milp`]: the best set of candidates for these configurations within budget and limits; [`greedy`] gives another set, and
//!    betters the solver's by exchanges.
//! 3. Validation: the planner prices every query under the chosen set. What it finds puts predictions right and becomes new plans and
//!    configurations; a set under which a query gets too expensive is forbidden; then step 2 again, until nothing changes or the
//!    time is over ([`search`]).
//! 4. The best validated set is returned, without indexes that no plan uses or that do not pay for themselves.
//!
//! The objective is a time per hour of workload: Σ weight·cost over the queries, what maintaining the indexes costs ([`mod@write`]), and
//! a price of size so small that it only decides between equals. Without measured times its unit is planner cost instead.

mod explain;
mod explore;
mod greedy;
mod milp;
mod problem;
mod search;
mod template;
#[cfg(test)]
mod tests;
mod validate;
mod write;

pub use milp::{Milp, MilpResult, Uninterruptible};
pub use write::write_cost;

use crate::candidate::{Candidate, Generated, Rejected, canonical_order};
use crate::model::{Bytes, CandidateIdx, Catalog, Cost, Query, QueryIdx};
use crate::whatif::{Cancelled, CostOracle, Unplannable};
use search::{Effort, Search};
use validate::Validated;

/// Limits of the choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Most bytes that all chosen indexes may take together.
    pub budget: Bytes,
    /// Seconds for everything, planner calls included.
    pub time_limit_s: f64,
    /// A query must get cheaper by this share of its cost (0 to 1) for an index to count as useful to it.
    pub min_gain: f64,
    /// No query may get dearer by more than this share of its cost, as the planner sees it.
    pub max_regression: f64,
    /// Most indexes on a table, existing ones included.
    pub max_indexes_per_table: usize,
    /// Hours that the workload spans (what `Query::calls` counts); figures are returned per hour.
    pub hours: f64,
}

/// An index that was chosen. Figures are in units of the objective per hour.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub candidate: CandidateIdx,
    /// Queries whose plan uses it, ascending.
    pub queries: Vec<QueryIdx>,
    /// What the queries would cost more without this index, the other chosen ones in place.
    pub saved: f64,
    /// What it costs to maintain.
    pub write_cost: f64,
}

/// How the returned set was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Milp,
    Greedy,
}

/// What [`solve`] decided. Objectives are per hour.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Most useful first.
    pub chosen: Vec<Choice>,
    pub candidates: Vec<Candidate>,
    /// What generation rejected, and one row per table and leading column of what was not chosen.
    pub rejected: Vec<Rejected>,
    /// For each query the planner's cost before and with the chosen indexes.
    pub costs: Vec<(Cost, Cost)>,
    pub objective_before: f64,
    pub objective_after: f64,
    /// How far the result may be from the best possible for the configurations considered, as a share of the result (0 to 1).
    pub gap: f64,
    pub method: Method,
    pub planner_calls: u64,
    /// Size of all chosen indexes.
    pub bytes: Bytes,
    /// Queries that the planner refused; they keep their cost and have no say.
    pub unplannable: Vec<(QueryIdx, Unplannable)>,
}

/// Why there is no selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectError {
    /// The user cancelled, or the worker must stop.
    Cancelled,
}

impl From<Cancelled> for SelectError {
    fn from(_: Cancelled) -> Self {
        SelectError::Cancelled
    }
}

impl std::fmt::Display for SelectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SelectError::Cancelled => f.write_str("index selection was cancelled"),
        }
    }
}

impl std::error::Error for SelectError {}

/// Chooses among the candidates. `elapsed_s` gives the seconds since the caller began to count; the time limit counts from there.
///
/// # Errors
/// [`SelectError::Cancelled`] when the oracle says so. Queries that the planner refuses and a solver that fails are not errors: see
/// [`Selection::unplannable`] and [`Selection::method`].
pub fn solve(
    queries: &[Query],
    catalog: &Catalog,
    generated: Generated,
    oracle: &mut dyn CostOracle,
    milp: &mut dyn Milp,
    elapsed_s: &mut dyn FnMut() -> f64,
    config: &Config,
) -> Result<Selection, SelectError> {
    let Generated { candidates, rejected } = generated;
    let mut search = Search::new(queries, catalog, &candidates, oracle, config);
    search.explore(&candidates, elapsed_s)?;
    let nothing = search.nothing()?;
    let (best, bound) = search.choose(nothing.clone(), Effort::Full, milp, elapsed_s)?;
    let Search { problem, mut memo, .. } = search;
    explain::selection(
        explain::Found { queries, catalog, candidates, rejected, problem: &problem, nothing, best, bound },
        &mut memo,
        config,
    )
}

/// The best choice for one budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub budget: Bytes,
    /// Of the chosen indexes together.
    pub bytes: Bytes,
    /// Positions in the candidates that were given, ascending.
    pub chosen: Vec<CandidateIdx>,
    /// Objective per hour, as in [`Selection`].
    pub objective_before: f64,
    pub objective_after: f64,
    /// Planner's cost of all queries times their calls.
    pub cost_before: Cost,
    pub cost_after: Cost,
    /// As in [`Selection`].
    pub gap: f64,
    pub method: Method,
    /// Questions asked so far, for this point and those before it.
    pub planner_calls: u64,
}

/// The best choice for each of several budgets, ascending: what each further byte buys. The questions about single queries are asked
/// once for all. `config.budget` is not looked at; the time limit holds for all together.
///
/// # Errors
/// As [`solve`].
#[expect(clippy::too_many_arguments, reason = "those of solve, and the budgets")]
pub fn frontier(
    queries: &[Query],
    catalog: &Catalog,
    candidates: &[Candidate],
    oracle: &mut dyn CostOracle,
    milp: &mut dyn Milp,
    elapsed_s: &mut dyn FnMut() -> f64,
    config: &Config,
    budgets: &[Bytes],
) -> Result<Vec<Point>, SelectError> {
    let mut budgets = budgets.to_vec();
    budgets.sort_unstable();
    budgets.dedup();
    let largest = Config { budget: budgets.last().copied().unwrap_or(0), ..config.clone() };
    let mut search = Search::new(queries, catalog, candidates, oracle, &largest);
    search.explore(candidates, elapsed_s)?;
    let nothing = search.nothing()?;
    let mut best = nothing.clone();
    let order = canonical_order(queries);
    let cost = |v: &Validated| -> Cost { order.iter().map(|&q| queries[q].calls * v.plans[q].cost).sum() };
    let mut points = Vec::new();
    for budget in budgets {
        search.problem.budget = budget;
        // What was best for less is a beginning.
        let (found, bound) = search.choose(best, Effort::Brief, milp, elapsed_s)?;
        best = found;
        points.push(Point {
            budget,
            bytes: search.problem.bytes(&best.set),
            chosen: best.set.clone(),
            objective_before: nothing.objective,
            objective_after: best.objective,
            cost_before: cost(&nothing),
            cost_after: cost(&best),
            gap: explain::gap(best.objective, bound),
            method: best.method,
            planner_calls: search.memo.calls(),
        });
    }
    Ok(points)
}
