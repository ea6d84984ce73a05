//! A good set without a solver: what gains most per byte first, then exchanges.

use super::SelectError;
use super::problem::Problem;
use crate::model::CandidateIdx;
use std::collections::BTreeSet;

/// Passes over all exchanges.
const MAX_PASSES: usize = 4;

/// The better of two runs: from nothing, and from `start` (which must keep the limits; otherwise it is not used).
pub(super) fn choose(
    problem: &Problem,
    start: &[CandidateIdx],
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<Vec<CandidateIdx>, SelectError> {
    let mut best = improve(problem, &[], interrupted)?;
    if !start.is_empty() && problem.feasible(start) {
        let other = improve(problem, start, interrupted)?;
        if problem.objective(&problem.flags(&other)) < problem.objective(&problem.flags(&best)) {
            best = other;
        }
    }
    Ok(best)
}

fn improve(
    problem: &Problem,
    start: &[CandidateIdx],
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<Vec<CandidateIdx>, SelectError> {
    // Whole configurations are added, so that indexes which only help together are found.
    let moves: BTreeSet<&[CandidateIdx]> =
        problem.queries.iter().flat_map(|q| &q.configurations).map(|c| c.set.as_slice()).collect();
    let mut state = State { problem, set: start.to_vec(), objective: problem.objective(&problem.flags(start)) };
    for _ in 0..MAX_PASSES {
        let before = state.objective;
        while state.add_best(&moves) {
            if interrupted() {
                return Err(SelectError::Cancelled);
            }
        }
        for out in state.set.clone() {
            if interrupted() {
                return Err(SelectError::Cancelled);
            }
            state.exchange(out, &moves);
        }
        if state.objective >= before {
            break;
        }
    }
    state.set.sort_unstable();
    Ok(state.set)
}

struct State<'p> {
    problem: &'p Problem,
    set: Vec<CandidateIdx>,
    objective: f64,
}

impl State<'_> {
    /// The set with the candidates of `add`, when it keeps the limits, and its objective.
    fn with(&self, base: &[CandidateIdx], add: &[CandidateIdx]) -> Option<(Vec<CandidateIdx>, f64)> {
        let mut set = base.to_vec();
        set.extend(add.iter().filter(|c| !base.contains(c)));
        if !self.problem.feasible(&set) {
            return None;
        }
        let objective = self.problem.objective(&self.problem.flags(&set));
        Some((set, objective))
    }

    /// Adds the configuration that gains most per byte; false when none gains.
    fn add_best(&mut self, moves: &BTreeSet<&[CandidateIdx]>) -> bool {
        let mut best: Option<(f64, Vec<CandidateIdx>, f64)> = None;
        for add in moves {
            let Some((set, objective)) = self.with(&self.set, add) else { continue };
            let bytes = self.problem.bytes(&set).saturating_sub(self.problem.bytes(&self.set)).max(1);
            let ratio = (self.objective - objective) / bytes as f64;
            if objective < self.objective && best.as_ref().is_none_or(|(r, ..)| ratio > *r) {
                best = Some((ratio, set, objective));
            }
        }
        best.is_some_and(|(_, set, objective)| {
            (self.set, self.objective) = (set, objective);
            true
        })
    }

    /// Removes `out`, or replaces it by the best configuration, when that lowers the objective.
    fn exchange(&mut self, out: CandidateIdx, moves: &BTreeSet<&[CandidateIdx]>) {
        let rest: Vec<CandidateIdx> = self.set.iter().copied().filter(|c| *c != out).collect();
        let alone = std::iter::once(&[][..]);
        let best = alone
            .chain(moves.iter().copied().filter(|m| !m.contains(&out)))
            .filter_map(|add| self.with(&rest, add))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((set, objective)) = best.filter(|(_, objective)| *objective < self.objective) {
            (self.set, self.objective) = (set, objective);
        }
    }
}
