//! The choice as a mixed-integer program.
//!
//! Tight formulation: y (0 or 1) per candidate; x (0 to 1, continuous) per query and configuration, the empty one included.
//! - Σ x of a query = 1
//! - for each query and candidate: Σ x of the configurations that use it ≤ y
//! - Σ pages·y ≤ budget; per table Σ y ≤ room; per forbidden set Σ y ≤ size - 1
//! - minimise Σ weight·cost·x + Σ (maintenance + price of size)·y
//!
//! With y fixed the best x is 0 or 1 by itself, so only y need be integer.
//!
//! A set that is known gives an upper bound: configurations so dear that the best for all other queries does not make up for it are left
//! out. What one query would cost without indexes can be thousands of times what all cost with them, and no solver likes such numbers.

use super::problem::{Configuration, Problem};
use crate::model::{CandidateIdx, PAGE};
use good_lp::solvers::highs::{HighsProblem, highs};
use good_lp::{Expression, ProblemVariables, SolverModel, Variable, constraint, variable};
use std::collections::BTreeMap;

/// The program's objective is scaled so that all queries together cost this much with the set that is known: the solver's tolerances are
/// absolute.
const SCALE: f64 = 1e5;

/// What a solver found.
#[derive(Clone, Debug, PartialEq)]
pub struct MilpResult {
    /// Value of each variable, in the order in which they were added.
    pub columns: Vec<f64>,
    /// Relative gap that is proved; infinite when none is.
    pub gap: f64,
    pub optimal: bool,
}

/// Solves a program. The extension's solver can be cancelled; [`Uninterruptible`] cannot.
pub trait Milp {
    /// Solves within the limit in seconds and to the relative gap. Deterministic as long as the time limit is not reached.
    ///
    /// # Errors
    /// A message when there is no feasible solution or the solver failed.
    fn solve(&mut self, problem: HighsProblem, time_limit_s: f64, gap: f64) -> Result<MilpResult, String>;
}

/// HiGHS as it is, on one thread: for tests and tools outside the server, since nothing can stop it.
pub struct Uninterruptible;

impl Milp for Uninterruptible {
    fn solve(&mut self, problem: HighsProblem, time_limit_s: f64, gap: f64) -> Result<MilpResult, String> {
        let mut model = problem.try_into_inner().map_err(|e| e.to_string())?;
        model.make_quiet();
        model.try_set_option("threads", 1).map_err(|e| format!("{e:?}"))?;
        model.try_set_option("parallel", "off").map_err(|e| format!("{e:?}"))?;
        model.try_set_option("random_seed", 0).map_err(|e| format!("{e:?}"))?;
        model.try_set_option("time_limit", time_limit_s).map_err(|e| format!("{e:?}"))?;
        model.try_set_option("mip_rel_gap", gap).map_err(|e| format!("{e:?}"))?;
        model.try_set_option("mip_heuristic_run_feasibility_jump", false).map_err(|e| format!("{e:?}"))?;
        let solved = model.try_solve().map_err(|e| format!("{e:?}"))?;
        let status = format!("{:?}", solved.status());
        if format!("{:?}", solved.primal_solution_status()) != "Feasible" {
            return Err(format!("no solution: {status}"));
        }
        Ok(MilpResult { columns: solved.get_solution().columns().to_vec(), gap: solved.mip_gap(), optimal: status == "Optimal" })
    }
}

/// The best set for the configurations known, and a bound that no set goes below. `known` are sets that one has already.
///
/// # Errors
/// A message when the solver found nothing or something that breaks a limit.
pub(super) fn choose(
    problem: &Problem,
    known: &[&[CandidateIdx]],
    milp: &mut dyn Milp,
    time_limit_s: f64,
    gap: f64,
) -> Result<(Vec<CandidateIdx>, f64), String> {
    let known = known.iter().copied().chain([[].as_slice()]).filter(|set| problem.feasible(set));
    let most = known.map(|set| problem.objective(&problem.flags(set))).fold(f64::INFINITY, f64::min);
    let Some((program, candidates, constant)) = build(problem, most) else { return Ok((Vec::new(), problem.lower_bound())) };
    let result = milp.solve(program, time_limit_s, gap)?;
    if result.columns.len() < candidates.len() {
        return Err("the solver returned too few values".into());
    }
    let mut set: Vec<CandidateIdx> = candidates.iter().zip(&result.columns).filter(|(_, v)| **v > 0.5).map(|(c, _)| *c).collect();
    set.sort_unstable();
    if !problem.feasible(&set) {
        return Err("the solver's set breaks a limit".into());
    }
    let found = problem.objective(&problem.flags(&set)) - constant;
    let proved = if result.gap.is_finite() { found * (1.0 - result.gap.clamp(0.0, 1.0)) } else { 0.0 };
    Ok((set, constant + proved))
}

/// The program, the candidate of each of its first variables, and what queries without any configuration cost (they are left out).
/// `None` when there is nothing to choose. No set that costs more than `most` is looked for.
fn build(problem: &Problem, most: f64) -> Option<(HighsProblem, Vec<CandidateIdx>, f64)> {
    let cost = |q: usize| problem.queries[q].weight * problem.queries[q].base;
    let (with, without): (Vec<usize>, Vec<usize>) =
        problem.order.iter().partition(|q| !problem.queries[**q].configurations.is_empty());
    let constant: f64 = without.iter().map(|q| cost(*q)).sum();
    let total: f64 = with.iter().map(|q| cost(*q)).sum();
    if total <= 0.0 {
        return None;
    }
    let scale = SCALE / total.min((most - constant).max(total * 1e-12));
    // What a query may cost beyond its best.
    let leeway = (most - problem.lower_bound()).max(0.0) + problem.rounding();
    let in_reach = |q: usize, cost: f64| {
        let model = &problem.queries[q];
        let least = model.configurations.first().map_or(model.base, |c| c.cost.min(model.base));
        model.weight * (cost - least) <= leeway
    };

    let mut variables = ProblemVariables::new();
    let mut y: BTreeMap<CandidateIdx, Variable> = BTreeMap::new();
    let mut candidates: Vec<CandidateIdx> =
        with.iter().flat_map(|&q| within(problem, q, &in_reach)).flat_map(|c| c.set.iter().copied()).collect();
    candidates.sort_unstable();
    candidates.dedup();
    let mut objective = Expression::from(0.0);
    for &c in &candidates {
        let chosen = variables.add(variable().binary());
        objective.add_mul(scale * (problem.items[c].write + problem.items[c].price), chosen);
        y.insert(c, chosen);
    }
    let mut rows = Vec::new();
    for &q in &with {
        let model = &problem.queries[q];
        let mut one = Expression::from(0.0);
        if in_reach(q, model.base) {
            let nothing = variables.add(variable().min(0.0).max(1.0));
            objective.add_mul(scale * model.weight * model.base, nothing);
            one += nothing;
        }
        let mut uses: BTreeMap<CandidateIdx, Expression> = BTreeMap::new();
        for configuration in within(problem, q, &in_reach) {
            let x = variables.add(variable().min(0.0).max(1.0));
            objective.add_mul(scale * model.weight * configuration.cost, x);
            one += x;
            for c in &configuration.set {
                *uses.entry(*c).or_insert_with(|| Expression::from(0.0)) += x;
            }
        }
        rows.push(constraint!(one == 1.0));
        rows.extend(uses.into_iter().map(|(c, x)| constraint!(x <= y[&c])));
    }
    let sum = |of: &mut dyn Iterator<Item = (f64, Variable)>| {
        of.fold(Expression::from(0.0), |mut sum, (factor, v)| {
            sum.add_mul(factor, v);
            sum
        })
    };
    let pages: u64 = candidates.iter().map(|c| problem.items[*c].pages).sum();
    if pages > problem.budget / PAGE {
        let used = sum(&mut candidates.iter().map(|c| (problem.items[*c].pages as f64, y[c])));
        rows.push(constraint!(used <= (problem.budget / PAGE) as f64));
    }
    for (rel, room) in &problem.room {
        let on_table: Vec<CandidateIdx> = candidates.iter().copied().filter(|c| problem.items[*c].table == *rel).collect();
        if on_table.len() > *room {
            rows.push(constraint!(sum(&mut on_table.iter().map(|c| (1.0, y[c]))) <= *room as f64));
        }
    }
    for set in problem.forbidden.iter().filter(|set| set.iter().all(|c| y.contains_key(c))) {
        rows.push(constraint!(sum(&mut set.iter().map(|c| (1.0, y[c]))) <= set.len() as f64 - 1.0));
    }
    let mut program = variables.minimise(objective).using(highs);
    for row in rows {
        program.add_constraint(row);
    }
    Some((program, candidates, constant))
}

fn within<'a>(
    problem: &'a Problem,
    query: usize,
    in_reach: &'a dyn Fn(usize, f64) -> bool,
) -> impl Iterator<Item = &'a Configuration> {
    problem.queries[query].configurations.iter().filter(move |c| in_reach(query, c.cost))
}
