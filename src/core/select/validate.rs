//! What a set of candidates is really worth: every query priced by the planner with the whole set.

use super::Method;
use super::problem::Problem;
use crate::model::{CandidateIdx, QueryIdx};
use crate::whatif::{Cancelled, Memo, PlanCost};

/// A set as the planner sees it.
#[derive(Clone, Debug)]
pub(super) struct Validated {
    /// Ascending.
    pub set: Vec<CandidateIdx>,
    /// By query.
    pub plans: Vec<PlanCost>,
    /// Objective per hour.
    pub objective: f64,
    /// It keeps all limits, the bound on regressions included.
    pub allowed: bool,
    /// Candidates that together made a query too expensive.
    pub regressions: Vec<Vec<CandidateIdx>>,
    pub method: Method,
}

/// What an index must save of a query's cost, it saves in part only beside others that serve the same query. With less than so much of it,
/// it is there for nothing.
const FELT: f64 = 0.1;

/// How sure an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The planner's own answer for exactly these candidates on its tables.
    Exact,
    /// An earlier answer for more candidates will do when its plan uses only these; candidates that the planner could not use are
    /// left out.
    Near,
}

/// Prices the set.
pub(super) fn set(problem: &Problem, memo: &mut Memo<'_>, set: &[CandidateIdx], ask: Ask) -> Result<Validated, Cancelled> {
    // Of thousands of queries it takes a while even when every answer is known.
    if memo.interrupted() {
        return Err(Cancelled);
    }
    let mut set = set.to_vec();
    set.sort_unstable();
    let mut plans: Vec<PlanCost> = problem.queries.iter().map(|q| PlanCost { cost: q.base, ..PlanCost::default() }).collect();
    let mut regressions = Vec::new();
    for &q in &problem.order {
        let relevant = memo.relevant(q, &set);
        if relevant.is_empty() {
            continue;
        }
        let plan = match ask {
            Ask::Exact => memo.exact(q, &relevant)?,
            Ask::Near => memo.inferred(q, &problem.relevant(q, &relevant))?,
        };
        let Some(plan) = plan else { continue };
        if plan.cost > problem.queries[q].base * (1.0 + problem.max_regression) {
            // The plan's own candidates are to blame; if it uses none, their presence is.
            regressions.push(if plan.used.is_empty() { relevant } else { plan.used.clone() });
        }
        plans[q] = plan;
    }
    let queries: f64 = problem.order.iter().map(|&q| problem.queries[q].weight * plans[q].cost).sum();
    let objective = queries + problem.upkeep(&problem.flags(&set));
    let allowed = regressions.is_empty() && problem.feasible(&set);
    Ok(Validated { set, plans, objective, allowed, regressions, method: Method::Greedy })
}

/// Takes out what no plan uses and what does not pay for itself beside the others. What is returned is as the planner itself sees it.
pub(super) fn tidy(problem: &Problem, memo: &mut Memo<'_>, best: &Validated) -> Result<Validated, Cancelled> {
    let foreseen = fewer(problem, memo, best)?;
    let mut removed: Vec<CandidateIdx> = largest_first(problem, &best.set);
    removed.retain(|c| !foreseen.set.contains(c));
    loop {
        let kept: Vec<CandidateIdx> = best.set.iter().copied().filter(|c| !removed.contains(c)).collect();
        let exact = set(problem, memo, &kept, Ask::Exact)?;
        let before = removed.len();
        // What was inferred was wrong of some queries: they get back what their plans used or, if that is not it, half of what they could
        // use, that which was taken out last.
        for &q in problem.order.iter().filter(|q| exact.plans[**q].cost > foreseen.plans[**q].cost * (1.0 + 1e-6)) {
            let used = |c: &CandidateIdx| best.plans[q].used.contains(c);
            let mut back: Vec<CandidateIdx> = removed.iter().copied().filter(used).collect();
            if back.is_empty() {
                let on_tables = memo.relevant(q, &removed);
                back.extend(removed.iter().copied().filter(|c| on_tables.contains(c)));
                back.drain(..back.len() / 2);
            }
            removed.retain(|c| !back.contains(c));
        }
        if removed.len() == before {
            let tidied = Validated { method: best.method, ..exact };
            return Ok(if tidied.allowed { tidied } else { best.clone() });
        }
    }
}

/// The set without those members, as far as that can be told from earlier answers.
fn fewer(problem: &Problem, memo: &mut Memo<'_>, best: &Validated) -> Result<Validated, Cancelled> {
    let mut best = best.clone();
    for c in largest_first(problem, &best.set) {
        let without: Vec<CandidateIdx> = best.set.iter().copied().filter(|other| *other != c).collect();
        let fewer = set(problem, memo, &without, Ask::Near)?;
        if fewer.allowed && (problem.better(&fewer, &best) || !worth(problem, c, &best, &fewer)) {
            best = Validated { method: best.method, ..fewer };
        }
    }
    Ok(best)
}

/// Of two that can stand for each other the smaller one stays.
fn largest_first(problem: &Problem, set: &[CandidateIdx]) -> Vec<CandidateIdx> {
    let mut members = set.to_vec();
    members.sort_by_key(|c| (std::cmp::Reverse(problem.items[*c].bytes), *c));
    members
}

/// Without the member its queries would be dearer by a share that is felt. The shares of several queries count together.
fn worth(problem: &Problem, member: CandidateIdx, with: &Validated, without: &Validated) -> bool {
    let share = |q: QueryIdx| 1.0 - with.plans[q].cost / without.plans[q].cost.max(f64::MIN_POSITIVE);
    users(with, member).into_iter().map(share).sum::<f64>() >= FELT * problem.min_gain
}

/// Queries whose plan uses the candidate, ascending.
pub(super) fn users(validated: &Validated, candidate: CandidateIdx) -> Vec<QueryIdx> {
    (0..validated.plans.len()).filter(|q| validated.plans[*q].used.contains(&candidate)).collect()
}
