//! A good set without a solver: what gains most per byte first, then exchanges.

use super::problem::Problem;
use crate::model::{Bytes, CandidateIdx, Cost, QueryIdx, RelId};
use crate::whatif::Cancelled;
use std::collections::{BTreeMap, BTreeSet};

/// Passes over all exchanges.
const MAX_PASSES: usize = 3;

/// A set that keeps all limits. `go_on` is asked often: when it says no, the set found so far is returned.
///
/// # Errors
/// What `go_on` returns.
pub(super) fn choose(
    problem: &Problem,
    go_on: &mut dyn FnMut() -> Result<bool, Cancelled>,
) -> Result<Vec<CandidateIdx>, Cancelled> {
    // Whole configurations are added, so that indexes which only help together are found.
    let moves: BTreeSet<&[CandidateIdx]> =
        problem.queries.iter().flat_map(|q| &q.configurations).map(|c| c.set.as_slice()).collect();
    let moves: Vec<&[CandidateIdx]> = moves.into_iter().collect();
    let mut state = State::new(problem);
    for _ in 0..MAX_PASSES {
        let mut changed = false;
        while go_on()? && state.add_best(&moves) {
            changed = true;
        }
        for out in state.set() {
            if !go_on()? {
                return Ok(state.set());
            }
            changed |= state.exchange(out, &moves);
        }
        if !changed {
            break;
        }
    }
    Ok(state.set())
}

/// A set under change, with what each query costs under it: a change is priced by the queries it touches.
struct State<'p> {
    problem: &'p Problem,
    chosen: Vec<bool>,
    bytes: Bytes,
    per_table: BTreeMap<RelId, usize>,
    costs: Vec<Cost>,
    /// By candidate, the queries with a configuration that uses it, ascending.
    users: Vec<Vec<QueryIdx>>,
}

impl<'p> State<'p> {
    fn new(problem: &'p Problem) -> Self {
        let mut users = vec![BTreeSet::new(); problem.items.len()];
        for &q in &problem.order {
            problem.queries[q].configurations.iter().flat_map(|c| &c.set).for_each(|c| {
                users[*c].insert(q);
            });
        }
        State {
            problem,
            chosen: vec![false; problem.items.len()],
            bytes: 0,
            per_table: BTreeMap::new(),
            costs: problem.queries.iter().map(|q| q.base).collect(),
            users: users.into_iter().map(|u| u.into_iter().collect()).collect(),
        }
    }

    /// Ascending.
    fn set(&self) -> Vec<CandidateIdx> {
        (0..self.chosen.len()).filter(|c| self.chosen[*c]).collect()
    }

    fn flip(&mut self, flipped: &[CandidateIdx]) {
        for &c in flipped {
            let item = &self.problem.items[c];
            let on_table = self.per_table.entry(item.table).or_default();
            if self.chosen[c] {
                self.bytes -= item.bytes;
                *on_table -= 1;
            } else {
                self.bytes += item.bytes;
                *on_table += 1;
            }
            self.chosen[c] = !self.chosen[c];
        }
    }

    fn feasible(&self) -> bool {
        self.bytes <= self.problem.budget
            && self.per_table.iter().all(|(rel, n)| *n == 0 || self.problem.room.get(rel).is_some_and(|room| n <= room))
            && !self.problem.forbidden.iter().any(|f| f.iter().all(|c| self.chosen[*c]))
    }

    /// How much the objective falls when the candidates change sides, whatever the limits.
    fn gain(&mut self, flipped: &[CandidateIdx]) -> f64 {
        let mut touched: Vec<QueryIdx> = flipped.iter().flat_map(|c| self.users[*c].iter().copied()).collect();
        touched.sort_unstable();
        touched.dedup();
        flipped.iter().for_each(|c| self.chosen[*c] = !self.chosen[*c]);
        let saved: f64 = touched
            .into_iter()
            .map(|q| self.problem.queries[q].weight * (self.costs[q] - self.problem.query_cost(q, &self.chosen)))
            .sum();
        let upkeep: f64 = flipped
            .iter()
            .map(|c| {
                let item = &self.problem.items[*c];
                if self.chosen[*c] { item.write + item.price } else { -item.write - item.price }
            })
            .sum();
        flipped.iter().for_each(|c| self.chosen[*c] = !self.chosen[*c]);
        saved - upkeep
    }

    /// Like [`Self::gain`]; `None` when there is none or the new set breaks a limit.
    fn allowed_gain(&mut self, flipped: &[CandidateIdx]) -> Option<f64> {
        self.flip(flipped);
        let feasible = self.feasible();
        self.flip(flipped);
        feasible.then(|| self.gain(flipped)).filter(|gain| *gain > self.problem.rounding())
    }

    fn make(&mut self, flipped: &[CandidateIdx]) {
        self.flip(flipped);
        for q in flipped.iter().flat_map(|c| &self.users[*c]) {
            self.costs[*q] = self.problem.query_cost(*q, &self.chosen);
        }
    }

    /// Candidates of the move that are not in the set.
    fn new_in(&self, add: &[CandidateIdx]) -> Vec<CandidateIdx> {
        add.iter().copied().filter(|c| !self.chosen[*c]).collect()
    }

    /// Adds the configuration that gains most per byte; false when none gains.
    fn add_best(&mut self, moves: &[&[CandidateIdx]]) -> bool {
        let mut best: Option<(f64, Vec<CandidateIdx>)> = None;
        for add in moves {
            let new = self.new_in(add);
            if new.is_empty() {
                continue;
            }
            let Some(gain) = self.allowed_gain(&new) else { continue };
            let ratio = gain / self.problem.bytes(&new).max(1) as f64;
            if best.as_ref().is_none_or(|(r, _)| ratio > *r) {
                best = Some((ratio, new));
            }
        }
        best.is_some_and(|(_, new)| {
            self.make(&new);
            true
        })
    }

    /// Removes `out`, or replaces it by the best configuration, when that gains; false when it does not.
    fn exchange(&mut self, out: CandidateIdx, moves: &[&[CandidateIdx]]) -> bool {
        if !self.chosen[out] {
            return false;
        }
        let mut best = self.allowed_gain(&[out]).map(|gain| (gain, vec![out]));
        for add in moves.iter().filter(|m| !m.contains(&out)) {
            let new = self.new_in(add);
            // What shares no query with `out` gains after its removal only what it would gain now, did the limits allow.
            let shares = new.iter().any(|c| self.users[*c].iter().any(|q| self.users[out].binary_search(q).is_ok()));
            if new.is_empty() || !(shares || self.gain(&new) > self.problem.rounding()) {
                continue;
            }
            let flipped: Vec<CandidateIdx> = std::iter::once(out).chain(new).collect();
            let Some(gain) = self.allowed_gain(&flipped) else { continue };
            if best.as_ref().is_none_or(|(g, _)| gain > *g) {
                best = Some((gain, flipped));
            }
        }
        best.is_some_and(|(_, flipped)| {
            self.make(&flipped);
            true
        })
    }
}
