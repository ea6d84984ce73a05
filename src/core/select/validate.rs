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

/// Takes out what no plan uses and what does not pay for itself beside the others.
pub(super) fn tidy(problem: &Problem, memo: &mut Memo<'_>, mut best: Validated) -> Result<Validated, Cancelled> {
    let used = |v: &Validated, c: CandidateIdx| v.plans.iter().any(|p| p.used.contains(&c));
    loop {
        let some_used: Vec<CandidateIdx> = best.set.iter().copied().filter(|c| used(&best, *c)).collect();
        if some_used.len() == best.set.len() {
            break;
        }
        let fewer = set(problem, memo, &some_used, Ask::Near)?;
        if !fewer.allowed || fewer.objective > best.objective * (1.0 + 1e-9) {
            break;
        }
        best = Validated { method: best.method, ..fewer };
    }
    let mut at = 0;
    while at < best.set.len() {
        let mut without = best.set.clone();
        without.remove(at);
        let fewer = set(problem, memo, &without, Ask::Near)?;
        if fewer.allowed && problem.better(&fewer, &best) {
            best = Validated { method: best.method, ..fewer };
        } else {
            at += 1;
        }
    }
    Ok(best)
}

/// Queries whose plan uses the candidate, ascending.
pub(super) fn users(validated: &Validated, candidate: CandidateIdx) -> Vec<QueryIdx> {
    (0..validated.plans.len()).filter(|q| validated.plans[*q].used.contains(&candidate)).collect()
}
