//! The configurations of one query, within a limited number of questions.

use super::Config;
use super::problem::{Problem, gains};
use crate::candidate::Candidate;
use crate::model::{CandidateIdx, QueryIdx};
use crate::whatif::{Cancelled, Memo, PlanCost};

/// Most planner calls for one query.
const MAX_CALLS: u64 = 40;
/// Of these, for candidates alone, so that pairs get their turn.
const MAX_SINGLES: usize = 20;
/// Sets of alternatives: what the planner would use if it could not have what it used before.
const MAX_ALTERNATIVES: usize = 4;

/// Asks about the query and fills in its configurations. With `hurry` only two questions are asked: without and with all candidates.
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
    let all: Vec<CandidateIdx> = everything.into_iter().filter(|c| candidates[*c].queries.binary_search(&q).is_ok()).collect();
    if all.is_empty() || problem.queries[q].weight <= 0.0 {
        return Ok(());
    }
    let Some(best) = memo.exact(q, &all)? else { return Ok(()) };
    problem.add(q, &best.used, best.cost);
    if hurry || !gains(base.cost, best.cost, config.min_gain) {
        return Ok(());
    }

    let mut round = Round { q, problem, memo, calls_before: 0 };
    round.calls_before = round.memo.calls();
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
    // What instead of one of those used; what remains of the best set without one of them.
    for one in &best.used {
        let without = |set: &[CandidateIdx]| set.iter().copied().filter(|c| c != one).collect::<Vec<_>>();
        round.ask(&without(&all))?;
        if best.used.len() > 2 {
            round.ask(&without(&best.used))?;
        }
    }
    // Each alone, those used first, then the most promising.
    let mut singles: Vec<(f64, CandidateIdx)> = Vec::new();
    let rest = all.iter().filter(|c| !best.used.contains(c));
    for &c in best.used.iter().chain(rest).take(MAX_SINGLES.max(best.used.len())) {
        if let Some(plan) = round.ask(&[c])?
            && plan.used == [c]
        {
            singles.push((base.cost - plan.cost, c));
        }
    }
    // Pairs on different tables, the largest gains first.
    let table = |c: CandidateIdx| candidates[c].def.table;
    let mut pairs: Vec<(f64, CandidateIdx, CandidateIdx)> = Vec::new();
    for (i, (gain_a, a)) in singles.iter().enumerate() {
        pairs.extend(singles[i + 1..].iter().filter(|(_, b)| table(*a) != table(*b)).map(|(gain_b, b)| (gain_a + gain_b, *a, *b)));
    }
    pairs.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
    for (_, a, b) in pairs {
        round.ask(&[a, b])?;
    }
    Ok(())
}

struct Round<'p, 'm, 'o> {
    q: QueryIdx,
    problem: &'p mut Problem,
    memo: &'m mut Memo<'o>,
    calls_before: u64,
}

impl Round<'_, '_, '_> {
    /// The plan with these candidates, noted as a configuration; `None` when the questions are used up or the query failed.
    fn ask(&mut self, with: &[CandidateIdx]) -> Result<Option<PlanCost>, Cancelled> {
        if with.is_empty() || self.memo.calls() - self.calls_before >= MAX_CALLS {
            return Ok(None);
        }
        let plan = self.memo.inferred(self.q, with)?;
        if let Some(plan) = &plan {
            self.problem.add(self.q, &plan.used, plan.cost);
        }
        Ok(plan)
    }
}
