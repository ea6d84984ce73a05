//! Which candidates to build: an integer program over what the planner says, checked with the planner.
//!
//! 1. [`explore`]: for each query, a few dozen questions give *configurations*: a set of candidates and the cost of the query with
//!    exactly these.
//! 2. [`milp`]: the best set of candidates for these configurations within budget and limits; [`greedy`] gives another set.
//! 3. Validation: the planner prices every query under the chosen set. What it finds becomes new configurations; a set under which
//!    a query gets too expensive is forbidden; then step 2 again, until nothing changes or the time is over.
//! 4. The best validated set is returned, without indexes that no plan uses or that do not pay for themselves.
//!
//! The objective is a time per hour of workload: Σ weight·cost over the queries, what maintaining the indexes costs ([`mod@write`]), and
//! a price of size so small that it only decides between equals. Without measured times its unit is planner cost instead.

mod explain;
mod explore;
mod greedy;
mod milp;
mod problem;
mod template;
#[cfg(test)]
mod tests;
mod validate;
mod write;

pub use milp::{Milp, MilpResult, Uninterruptible};
pub use write::write_cost;

use crate::candidate::{Candidate, Generated, Rejected, canonical_order};
use crate::model::{Bytes, CandidateIdx, Catalog, Cost, Query, QueryIdx};
use crate::whatif::{Cancelled, CostOracle, Memo, Unplannable};
use problem::Problem;
use validate::{Ask, Validated};

/// Relative gap at which the solver may stop.
const GAP: f64 = 2e-3;
/// Rounds of solving and validating.
const MAX_ROUNDS: usize = 12;
/// Seconds that the greedy choice may take beyond the time limit: without it there might be no choice at all.
const GREEDY_EXTRA_S: f64 = 1.0;
/// Share of the time limit after which no more questions are asked about single queries.
const EXPLORE_SHARE: f64 = 0.6;

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
    let order = canonical_order(queries);
    let mut memo = Memo::new(oracle, queries, candidates.iter().map(|c| c.def.table).collect());
    let mut problem = Problem::new(queries, &order, catalog, &candidates, config);
    for &q in &order {
        let hurry = elapsed_s() > config.time_limit_s * EXPLORE_SHARE;
        explore::query(q, &mut problem, &mut memo, &candidates, config, hurry)?;
    }
    problem.price_sizes();

    let nothing = validate::set(&problem, &mut memo, &[], Ask::Exact)?;
    let mut best = Validated { method: Method::Milp, ..nothing.clone() };
    let mut bound = problem.lower_bound();
    let mut forbidden_before = usize::MAX;
    let mut seen: Vec<Vec<CandidateIdx>> = Vec::new();
    for round in 0..MAX_ROUNDS {
        let left = config.time_limit_s - elapsed_s();
        let mut sets = Vec::new();
        if left > 0.0 {
            // A solver that fails leaves the greedy set: the result says so by its method.
            let solved = milp::choose(&problem, milp, left, GAP).ok();
            bound = solved.as_ref().map_or_else(|| problem.lower_bound(), |(_, proved)| *proved);
            sets.extend(solved.map(|(set, _)| (Method::Milp, set)));
            if memo.interrupted() {
                return Err(SelectError::Cancelled);
            }
        }
        if round == 0 || sets.is_empty() {
            let mut go_on =
                || if memo.interrupted() { Err(Cancelled) } else { Ok(elapsed_s() < config.time_limit_s + GREEDY_EXTRA_S) };
            sets.push((Method::Greedy, greedy::choose(&problem, &mut go_on)?));
        }
        let mut changed = false;
        for (method, set) in sets {
            if seen.contains(&set) {
                continue;
            }
            seen.push(set.clone());
            let validated = validate::set(&problem, &mut memo, &set, Ask::Near)?;
            changed |= problem.learn(&validated);
            for &q in &order {
                changed |= !explore::predict(q, &mut problem, &set).is_empty();
            }
            if validated.allowed && problem.better(&validated, &best) {
                // What was inferred may be wrong by a little; what is returned is not.
                let exact = validate::set(&problem, &mut memo, &set, Ask::Exact)?;
                changed |= problem.learn(&exact);
                if exact.allowed && problem.better(&exact, &best) {
                    best = Validated { method, ..exact };
                }
            }
        }
        let news = changed || problem.forbidden_len() != forbidden_before;
        forbidden_before = problem.forbidden_len();
        if !news || elapsed_s() > config.time_limit_s {
            break;
        }
    }
    let tidied = validate::tidy(&problem, &mut memo, best.clone())?;
    let tidied = Validated { method: best.method, ..validate::set(&problem, &mut memo, &tidied.set, Ask::Exact)? };
    if tidied.allowed && !problem.better(&best, &tidied) {
        best = tidied;
    }
    explain::selection(
        explain::Found { queries, catalog, candidates, rejected, problem: &problem, nothing, best, bound },
        &mut memo,
        config,
    )
}
