//! The search itself: explore once, then solve and validate in turn for a budget.

use super::problem::Problem;
use super::validate::{self, Ask, Validated};
use super::{Config, Method, Milp, SelectError, explore, greedy, milp};
use crate::candidate::{Candidate, canonical_order};
use crate::model::{CandidateIdx, Catalog, Query, QueryIdx};
use crate::whatif::{Cancelled, CostOracle, Memo};

/// Relative gap at which the solver may stop.
pub(super) const GAP: f64 = 1e-2;
/// The same as long as the planner still contradicts the model: the last percent takes most of the time, of a model that is wrong.
pub(super) const LOOSE_GAP: f64 = 2e-2;
/// Times that queries are asked what they would like beside what is chosen.
const MAX_REFINED: usize = 2;
/// Questions for a query on average after which no set is refined.
const MAX_CALLS_PER_QUERY: u64 = 32;
/// Rounds of solving and validating.
const MAX_ROUNDS: usize = 24;
/// Seconds that the greedy choice may take when the time is over, from when it begins: without it there might be no choice at all.
const GREEDY_EXTRA_S: f64 = 1.0;
/// Share of the time limit after which no more questions are asked about single queries.
const EXPLORE_SHARE: f64 = 0.6;

/// How much is done for one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    Full,
    /// One of several budgets, each of which begins with what was found for the one before.
    Brief,
}

pub(super) struct Search<'a> {
    pub problem: Problem,
    pub memo: Memo<'a>,
    order: Vec<QueryIdx>,
    /// The costliest first: where time is best spent.
    by_worth: Vec<QueryIdx>,
    /// Beyond so many questions no set is refined.
    most_calls: u64,
    /// Some queries were asked about in a hurry.
    hurried: bool,
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
        let problem = Problem::new(queries, &order, catalog, candidates, config);
        let mut by_worth = order.clone();
        let worth = |q: QueryIdx| problem.queries[q].weight * problem.queries[q].base;
        by_worth.sort_by(|a, b| worth(*b).total_cmp(&worth(*a)));
        let most_calls = MAX_CALLS_PER_QUERY * queries.len() as u64;
        Search { problem, memo, order, by_worth, most_calls, hurried: false, config }
    }

    /// Asks about every query by itself.
    pub fn explore(&mut self, candidates: &[Candidate], elapsed_s: &mut dyn FnMut() -> f64) -> Result<(), SelectError> {
        for &q in &self.by_worth {
            let hurry = elapsed_s() > self.config.time_limit_s * EXPLORE_SHARE;
            self.hurried |= hurry;
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
        effort: Effort,
        milp: &mut dyn Milp,
        elapsed_s: &mut dyn FnMut() -> f64,
    ) -> Result<(Validated, f64), SelectError> {
        let first = best.clone();
        let mut tidied = false;
        let mut bound = self.problem.lower_bound();
        let mut forbidden_before = usize::MAX;
        let mut refined = 0;
        let mut gap = LOOSE_GAP;
        let mut seen: Vec<Vec<CandidateIdx>> = Vec::new();
        for round in 0..MAX_ROUNDS {
            let greedy = if round == 0 { Some(self.greedy(&[], elapsed_s)?) } else { None };
            let left = self.config.time_limit_s - elapsed_s();
            let mut sets = Vec::new();
            if left > 0.0 {
                let mut known = vec![best.set.as_slice()];
                known.extend(greedy.as_deref());
                // A solver that fails leaves the greedy set: the result says so by its method.
                let solved = milp::choose(&self.problem, &known, milp, left, gap).ok();
                bound = solved.as_ref().map_or_else(|| self.problem.lower_bound(), |(_, proved)| *proved);
                // Within its gap the solver leaves what is easily found.
                let improved = solved.map(|(set, _)| self.greedy(&set, elapsed_s)).transpose()?;
                sets.extend(improved.map(|set| (Method::Milp, set)));
                if self.memo.interrupted() {
                    return Err(SelectError::Cancelled);
                }
            }
            match greedy {
                Some(set) => sets.push((Method::Greedy, set)),
                None if sets.is_empty() => sets.push((Method::Greedy, self.greedy(&[], elapsed_s)?)),
                None => {}
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
            if elapsed_s() > self.config.time_limit_s {
                break;
            }
            if !news && tidied {
                break;
            }
            if !news && gap > GAP && effort == Effort::Full {
                gap = GAP;
                continue;
            }
            // Nothing new in the model: what would the queries like to have beside what is chosen?
            let most = if effort == Effort::Full { MAX_REFINED } else { 1 };
            if !news && (refined >= most || !self.refine(&best.set, elapsed_s)?) {
                // Nothing. What they could do without leaves room for something else.
                if effort == Effort::Brief || !self.tidy(&mut best)? {
                    break;
                }
                (tidied, gap) = (true, LOOSE_GAP);
            }
            refined += usize::from(!news);
        }
        self.tidy(&mut best)?;
        if self.problem.better(&first, &best) {
            best = first;
        }
        // What was not asked could be better than what the model knows.
        Ok((best, if self.hurried { bound.min(self.problem.lower_bound()) } else { bound }))
    }

    fn greedy(&mut self, begin: &[CandidateIdx], elapsed_s: &mut dyn FnMut() -> f64) -> Result<Vec<CandidateIdx>, SelectError> {
        let (memo, limit) = (&mut self.memo, self.config.time_limit_s.max(elapsed_s()) + GREEDY_EXTRA_S);
        let mut go_on = || if memo.interrupted() { Err(Cancelled) } else { Ok(elapsed_s() < limit) };
        Ok(greedy::choose(&self.problem, begin, &mut go_on)?)
    }

    /// Takes out of a set what is not worth its place; true when there was something.
    fn tidy(&mut self, best: &mut Validated) -> Result<bool, SelectError> {
        let tidied = validate::tidy(&self.problem, &mut self.memo, best)?;
        let fewer = tidied.set.len() < best.set.len();
        self.problem.learn(&tidied);
        *best = tidied;
        Ok(fewer)
    }

    /// Asks about every query beside a set; true when something was learned.
    fn refine(&mut self, set: &[CandidateIdx], elapsed_s: &mut dyn FnMut() -> f64) -> Result<bool, SelectError> {
        let mut learned = false;
        for &q in &self.by_worth {
            if self.memo.calls() >= self.most_calls || elapsed_s() > self.config.time_limit_s {
                break;
            }
            learned |= explore::refine(q, &mut self.problem, &mut self.memo, set, self.config.min_gain)?;
            explore::predict(q, &mut self.problem, set);
        }
        Ok(learned)
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
