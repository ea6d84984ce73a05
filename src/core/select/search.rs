//! The search itself: explore once, then solve and validate in turn for a budget.

use super::problem::Problem;
use super::validate::{self, Ask, Validated};
use super::{Config, Method, Milp, SelectError, explore, greedy, milp};
use crate::candidate::{Candidate, canonical_order};
use crate::model::{CandidateIdx, Catalog, Query, QueryIdx};
use crate::whatif::{Cancelled, CostOracle, Memo};

/// Relative gap at which the solver may stop.
pub(super) const GAP: f64 = 2e-3;
/// Rounds of solving and validating.
const MAX_ROUNDS: usize = 16;
/// Seconds that the greedy choice may take beyond the time limit: without it there might be no choice at all.
const GREEDY_EXTRA_S: f64 = 1.0;
/// Share of the time limit after which no more questions are asked about single queries.
const EXPLORE_SHARE: f64 = 0.6;

pub(super) struct Search<'a> {
    pub problem: Problem,
    pub memo: Memo<'a>,
    order: Vec<QueryIdx>,
    config: &'a Config,
}

impl<'a> Search<'a> {
    pub fn new(
        queries: &[Query],
        catalog: &Catalog,
        candidates: &[Candidate],
        oracle: &'a mut dyn CostOracle,
        config: &'a Config,
    ) -> Self {
        let order = canonical_order(queries);
        let memo = Memo::new(oracle, queries, candidates.iter().map(|c| c.def.table).collect());
        Search { problem: Problem::new(queries, &order, catalog, candidates, config), memo, order, config }
    }

    /// Asks about every query by itself.
    pub fn explore(&mut self, candidates: &[Candidate], elapsed_s: &mut dyn FnMut() -> f64) -> Result<(), SelectError> {
        for &q in &self.order {
            let hurry = elapsed_s() > self.config.time_limit_s * EXPLORE_SHARE;
            explore::query(q, &mut self.problem, &mut self.memo, candidates, self.config, hurry)?;
        }
        self.problem.price_sizes();
        Ok(())
    }

    /// The empty set.
    pub fn nothing(&mut self) -> Result<Validated, SelectError> {
        let nothing = validate::set(&self.problem, &mut self.memo, &[], Ask::Exact)?;
        Ok(Validated { method: Method::Milp, ..nothing })
    }

    /// The best set for the problem's budget that was found, beginning with `best`, and a bound that no set goes below.
    pub fn choose(
        &mut self,
        mut best: Validated,
        milp: &mut dyn Milp,
        elapsed_s: &mut dyn FnMut() -> f64,
    ) -> Result<(Validated, f64), SelectError> {
        let mut bound = self.problem.lower_bound();
        let mut forbidden_before = usize::MAX;
        let mut seen: Vec<Vec<CandidateIdx>> = Vec::new();
        for round in 0..MAX_ROUNDS {
            let left = self.config.time_limit_s - elapsed_s();
            let mut sets = Vec::new();
            if left > 0.0 {
                // A solver that fails leaves the greedy set: the result says so by its method.
                let solved = milp::choose(&self.problem, milp, left, GAP).ok();
                bound = solved.as_ref().map_or_else(|| self.problem.lower_bound(), |(_, proved)| *proved);
                sets.extend(solved.map(|(set, _)| (Method::Milp, set)));
                if self.memo.interrupted() {
                    return Err(SelectError::Cancelled);
                }
            }
            if round == 0 || sets.is_empty() {
                let (memo, limit) = (&mut self.memo, self.config.time_limit_s + GREEDY_EXTRA_S);
                let mut go_on = || if memo.interrupted() { Err(Cancelled) } else { Ok(elapsed_s() < limit) };
                sets.push((Method::Greedy, greedy::choose(&self.problem, &mut go_on)?));
            }
            let mut changed = false;
            for (method, set) in sets {
                if !seen.contains(&set) {
                    seen.push(set.clone());
                    changed |= self.consider(&set, method, &mut best)?;
                }
            }
            let news = changed || self.problem.forbidden_len() != forbidden_before;
            forbidden_before = self.problem.forbidden_len();
            if !news || elapsed_s() > self.config.time_limit_s {
                break;
            }
        }
        let tidied = validate::tidy(&self.problem, &mut self.memo, best.clone())?;
        let tidied = Validated { method: best.method, ..validate::set(&self.problem, &mut self.memo, &tidied.set, Ask::Exact)? };
        if tidied.allowed && !self.problem.better(&best, &tidied) {
            best = tidied;
        }
        Ok((best, bound))
    }

    /// Validates a set and takes it over when it is better; true when something was learned.
    fn consider(&mut self, set: &[CandidateIdx], method: Method, best: &mut Validated) -> Result<bool, SelectError> {
        let validated = validate::set(&self.problem, &mut self.memo, set, Ask::Near)?;
        let mut changed = self.problem.learn(&validated);
        for &q in &self.order {
            changed |= !explore::predict(q, &mut self.problem, set).is_empty();
        }
        if validated.allowed && self.problem.better(&validated, best) {
            // What was inferred may be wrong by a little; what is returned is not.
            let exact = validate::set(&self.problem, &mut self.memo, set, Ask::Exact)?;
            changed |= self.problem.learn(&exact);
            if exact.allowed && self.problem.better(&exact, best) {
                *best = Validated { method, ..exact };
            }
        }
        Ok(changed)
    }
}
