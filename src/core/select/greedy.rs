//! A good set without a solver: what gains most per byte first, then exchanges.

use super::problem::Problem;
use crate::model::{Bytes, CandidateIdx, Cost, QueryIdx, RelId};
use crate::whatif::Cancelled;
use std::collections::{BTreeMap, BTreeSet};

/// Passes over all exchanges.
const MAX_PASSES: usize = 3;

/// A set that keeps all limits, no worse than `begin`, which keeps them too. `go_on` is asked often: when it says no, the set found so far is returned.
///
/// # Errors
/// What `go_on` returns.
pub(super) fn choose(
    problem: &Problem,
    begin: &[CandidateIdx],
    go_on: &mut dyn FnMut() -> Result<bool, Cancelled>,
) -> Result<Vec<CandidateIdx>, Cancelled> {
    let mut state = State::new(problem);
    state.make(begin);
    for _ in 0..MAX_PASSES {
        let mut changed = false;
        while go_on()? && state.add_best() {
            changed = true;
        }
        for out in state.set() {
            if !go_on()? {
                return Ok(state.set());
            }
            changed |= state.exchange(out);
        }
        if !changed {
            break;
        }
    }
    Ok(state.set())
}

/// A configuration that could be added as a whole, so that indexes which only help together are found.
struct Move<'p> {
    set: &'p [CandidateIdx],
    /// Queries whose cost it can change, ascending.
    touched: Vec<QueryIdx>,
    /// What is known of it beside the present set; `None` when that must be counted anew.
    known: Option<Worth>,
}

/// What a move is worth.
#[derive(Clone)]
struct Worth {
    /// Its candidates that are not in the set.
    new: Vec<CandidateIdx>,
    /// How much the objective falls, whatever the limits.
    gain: f64,
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
    moves: Vec<Move<'p>>,
    /// By query, the moves that touch it.
    touching: Vec<Vec<usize>>,
}

impl<'p> State<'p> {
    fn new(problem: &'p Problem) -> Self {
        let mut users = vec![BTreeSet::new(); problem.items.len()];
        for &q in &problem.order {
            problem.queries[q].configurations.iter().flat_map(|c| &c.set).for_each(|c| {
                users[*c].insert(q);
            });
        }
        let users: Vec<Vec<QueryIdx>> = users.into_iter().map(|u| u.into_iter().collect()).collect();
        let sets: BTreeSet<&[CandidateIdx]> =
            problem.queries.iter().flat_map(|q| &q.configurations).map(|c| c.set.as_slice()).collect();
        let mut touching = vec![Vec::new(); problem.queries.len()];
        let mut moves = Vec::with_capacity(sets.len());
        for set in sets {
            let touched = touched(&users, set);
            touched.iter().for_each(|q| touching[*q].push(moves.len()));
            moves.push(Move { set, touched, known: None });
        }
        State {
            problem,
            chosen: vec![false; problem.items.len()],
            bytes: 0,
            per_table: BTreeMap::new(),
            costs: problem.queries.iter().map(|q| q.base).collect(),
            users,
            moves,
            touching,
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
        let touched = touched(&self.users, flipped);
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

    fn make(&mut self, flipped: &[CandidateIdx]) {
        self.flip(flipped);
        for q in touched(&self.users, flipped) {
            self.costs[q] = self.problem.query_cost(q, &self.chosen);
            for at in &self.touching[q] {
                self.moves[*at].known = None;
            }
        }
    }

    /// Counts what the moves are worth that a change has touched: most are as before.
    fn count(&mut self) {
        for at in 0..self.moves.len() {
            if self.moves[at].known.is_none() {
                let new: Vec<CandidateIdx> = self.moves[at].set.iter().copied().filter(|c| !self.chosen[*c]).collect();
                let gain = if new.is_empty() { 0.0 } else { self.gain(&new) };
                self.moves[at].known = Some(Worth { new, gain });
            }
        }
    }

    /// Adds the configuration that gains most per byte; false when none gains.
    fn add_best(&mut self) -> bool {
        self.count();
        let mut best: Option<(f64, Vec<CandidateIdx>)> = None;
        for at in 0..self.moves.len() {
            let Some(Worth { new, gain }) = &self.moves[at].known else { continue };
            let ratio = gain / self.problem.bytes(new).max(1) as f64;
            if *gain <= self.problem.rounding() || best.as_ref().is_some_and(|(r, _)| ratio <= *r) {
                continue;
            }
            let new = new.clone();
            if self.allows(&new) {
                best = Some((ratio, new));
            }
        }
        best.is_some_and(|(_, new)| {
            self.make(&new);
            true
        })
    }

    /// Removes `out`, or replaces it by the best configuration, when that gains; false when it does not.
    fn exchange(&mut self, out: CandidateIdx) -> bool {
        if !self.chosen[out] {
            return false;
        }
        self.count();
        let removal = self.gain(&[out]);
        let mut best = (removal > self.problem.rounding() && self.allows(&[out])).then(|| (removal, vec![out]));
        let queries = self.users[out].clone();
        for at in 0..self.moves.len() {
            let m = &self.moves[at];
            let Some(Worth { new, gain }) = &m.known else { continue };
            if new.is_empty() || m.set.contains(&out) {
                continue;
            }
            // What shares no query with `out` gains beside its removal what it gains now.
            let shares = m.touched.iter().any(|q| queries.binary_search(q).is_ok());
            let apart = removal + gain;
            let flipped: Vec<CandidateIdx> = std::iter::once(out).chain(new.iter().copied()).collect();
            let gain = if shares { self.gain(&flipped) } else { apart };
            if gain > self.problem.rounding() && best.as_ref().is_none_or(|(g, _)| gain > *g) && self.allows(&flipped) {
                best = Some((gain, flipped));
            }
        }
        best.is_some_and(|(_, flipped)| {
            self.make(&flipped);
            true
        })
    }

    /// The set with these candidates on the other side keeps all limits.
    fn allows(&mut self, flipped: &[CandidateIdx]) -> bool {
        self.flip(flipped);
        let feasible = self.feasible();
        self.flip(flipped);
        feasible
    }
}

/// Queries with a configuration that uses one of the candidates, ascending.
fn touched(users: &[Vec<QueryIdx>], set: &[CandidateIdx]) -> Vec<QueryIdx> {
    let mut touched: Vec<QueryIdx> = set.iter().flat_map(|c| users[*c].iter().copied()).collect();
    touched.sort_unstable();
    touched.dedup();
    touched
}
