//! The configurations of one query, within a limited number of questions.

use super::Config;
use super::problem::{Item, Problem, gains};
use super::template::Templates;
use crate::candidate::Candidate;
use crate::model::{CandidateIdx, PAGE, QueryIdx, RelId};
use crate::whatif::{Cancelled, Memo, PlanCost};
use std::collections::BTreeSet;

/// Most planner calls for one query.
const MAX_CALLS: u64 = 60;
/// Sets of alternatives: what the planner would use if it could not have what it used before.
const MAX_ALTERNATIVES: usize = 4;
/// Steps towards less storage.
const MAX_RELAXED: usize = 16;
/// Candidates tried alone, and left out one by one.
const MAX_SINGLES: usize = 8;
/// Prices of a page at which plans are mixed, each four times the one before; the dearest is the query's whole cost for the budget.
const PRICE_STEPS: i32 = 14;

/// Asks about the query and fills in its plans and configurations. With `hurry` only three questions are asked: the price of every
/// scan, and the plan without and with the candidates.
pub(super) fn query(
    q: QueryIdx,
    problem: &mut Problem,
    memo: &mut Memo<'_>,
    candidates: &[Candidate],
    config: &Config,
    hurry: bool,
) -> Result<(), Cancelled> {
    let everything: Vec<CandidateIdx> = (0..candidates.len()).filter(|c| problem.items[*c].usable).collect();
    if memo.relevant(q, &everything).is_empty() {
        return Ok(());
    }
    let Some(base) = memo.exact(q, &[])? else { return Ok(()) };
    problem.queries[q].base = base.cost;
    problem.queries[q].offered = Some(Default::default());
    let mut all: Vec<CandidateIdx> = everything.into_iter().filter(|c| candidates[*c].queries.binary_search(&q).is_ok()).collect();
    if all.is_empty() || problem.queries[q].weight <= 0.0 {
        return Ok(());
    }
    let templates = Templates::new(memo.prices(q, &all)?);
    problem.queries[q].offered = templates.offered();
    if problem.queries[q].offered.is_some() {
        let worthwhile = templates.worthwhile(&|c| problem.items[c].bytes);
        all.retain(|c| worthwhile.contains(c));
    }
    problem.queries[q].templates = templates;
    problem.queries[q].worthwhile = all.clone();
    problem.answered(q, &[], &base);
    if all.is_empty() {
        return Ok(());
    }
    let Some(best) = memo.exact(q, &all)? else { return Ok(()) };
    problem.answered(q, &all, &best);
    if !gains(base.cost, best.cost, config.min_gain) {
        return Ok(());
    }
    if hurry {
        predict(q, problem, &[]);
        return Ok(());
    }

    let calls_before = memo.calls();
    let mut round = Round { q, problem, memo, calls_before };
    // What instead of all that was used, again and again.
    let mut left = all.clone();
    let mut used = best.used.clone();
    for _ in 0..MAX_ALTERNATIVES {
        left.retain(|c| !used.contains(c));
        match round.ask(&left)? {
            Some(plan) if !plan.used.is_empty() => used = plan.used,
            _ => break,
        }
    }
    round.relax(all.clone(), best.used.clone(), &[])?;
    // From the other end: the smallest of each kind. Long joins have so many middle sizes that the way down does not come there.
    let narrow: Vec<CandidateIdx> = all.iter().copied().filter(|c| plain(&candidates[*c])).collect();
    if narrow.len() < all.len()
        && let Some(plan) = round.ask(&narrow)?
    {
        round.relax(narrow, plan.used, &[])?;
    }
    // Each table by itself.
    let tables: BTreeSet<RelId> = best.used.iter().map(|c| candidates[*c].def.table).collect();
    for table in tables.iter().filter(|_| tables.len() > 1) {
        let there: Vec<CandidateIdx> = all.iter().copied().filter(|c| candidates[*c].def.table == *table).collect();
        round.ask(&there)?;
    }
    // What instead of one of those used; what one alone does.
    for one in best.used.iter().take(MAX_SINGLES) {
        let without: Vec<CandidateIdx> = all.iter().copied().filter(|c| c != one).collect();
        round.ask(&without)?;
        round.ask(&[*one])?;
    }
    // Where the known plans point to.
    for set in predict(q, round.problem, &[]) {
        round.ask(&set)?;
    }
    predict(q, round.problem, &[]);
    round.problem.predict_all(q);
    // When there are few, each alone: what the prices do not show.
    if all.len() <= MAX_SINGLES {
        for one in &all {
            round.ask(&[*one])?;
        }
    }
    Ok(())
}

/// Asks what the query would use beside what is `chosen` already, with less and less storage for it; true when something was learned.
pub(super) fn refine(
    q: QueryIdx,
    problem: &mut Problem,
    memo: &mut Memo<'_>,
    chosen: &[CandidateIdx],
    min_gain: f64,
) -> Result<bool, Cancelled> {
    let mut with: Vec<CandidateIdx> = problem.relevant(q, chosen);
    let known = with.clone();
    with.extend(problem.queries[q].worthwhile.iter().copied().filter(|c| problem.items[*c].bytes <= problem.budget));
    with.sort_unstable();
    with.dedup();
    if with.len() == known.len() {
        return Ok(false);
    }
    let now = problem.query_cost(q, &problem.flags(chosen));
    let calls_before = memo.calls();
    let mut round = Round { q, problem, memo, calls_before };
    let Some(best) = round.ask(&with)? else { return Ok(false) };
    if !gains(now, best.cost, min_gain) {
        return Ok(false);
    }
    round.relax(with, best.used, &known)?;
    Ok(round.memo.calls() > calls_before)
}

/// Adds configurations for a range of prices of storage; what is in `chosen` is free. Returns the sets that are new.
pub(super) fn predict(q: QueryIdx, problem: &mut Problem, chosen: &[CandidateIdx]) -> Vec<Vec<CandidateIdx>> {
    let free: BTreeSet<CandidateIdx> = chosen.iter().copied().collect();
    let worth = problem.queries[q].weight * problem.queries[q].base;
    let pages = (problem.budget / PAGE).max(1) as f64;
    let mut new = Vec::new();
    for step in 0..PRICE_STEPS {
        let a_page = if step == 0 { 0.0 } else { worth / pages * 4.0_f64.powi(step + 1 - PRICE_STEPS) };
        let price = |item: &Item, c: CandidateIdx| {
            if free.contains(&c) { 0.0 } else { item.write + item.price + a_page * item.pages as f64 }
        };
        new.extend(problem.predict(q, &price));
    }
    new.sort();
    new.dedup();
    new
}

/// One column and nothing else.
fn plain(candidate: &Candidate) -> bool {
    let def = &candidate.def;
    def.keys.len() == 1 && def.include.is_empty() && def.predicate.is_none()
}

struct Round<'p, 'm, 'o> {
    q: QueryIdx,
    problem: &'p mut Problem,
    memo: &'m mut Memo<'o>,
    calls_before: u64,
}

impl Round<'_, '_, '_> {
    /// Plans for less and less storage: without the largest of what was used, and what is as large on its table, again and again. What
    /// is `free` stays.
    fn relax(&mut self, mut left: Vec<CandidateIdx>, mut used: Vec<CandidateIdx>, free: &[CandidateIdx]) -> Result<(), Cancelled> {
        for _ in 0..MAX_RELAXED {
            let items = &self.problem.items;
            let paid = used.iter().copied().filter(|c| !free.contains(c));
            let Some(largest) = paid.max_by_key(|c| (items[*c].bytes, *c)) else { break };
            let (bytes, table) = (items[largest].bytes, items[largest].table);
            left.retain(|c| free.contains(c) || items[*c].table != table || items[*c].bytes < bytes);
            match self.ask(&left)? {
                Some(plan) => used = plan.used,
                None => break,
            }
        }
        Ok(())
    }

    /// The plan with these candidates, noted; `None` when the questions are used up or the query failed.
    fn ask(&mut self, with: &[CandidateIdx]) -> Result<Option<PlanCost>, Cancelled> {
        if with.is_empty() || self.memo.calls() - self.calls_before >= MAX_CALLS {
            return Ok(None);
        }
        let plan = self.memo.inferred(self.q, with)?;
        if let Some(plan) = &plan {
            self.problem.answered(self.q, with, plan);
        }
        Ok(plan)
    }
}
