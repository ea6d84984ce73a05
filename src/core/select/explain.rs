//! The result: what each chosen index brings, and why the others were left.

use super::problem::Problem;
use super::validate::{self, Ask, Validated, users};
use super::{Choice, Config, SelectError, Selection};
use crate::candidate::{Candidate, Rejected};
use crate::ddl;
use crate::model::{AttNum, CandidateIdx, Catalog, Cost, PAGE, Query, QueryIdx, Reason, RelId};
use crate::whatif::{Cancelled, Memo};
use std::collections::BTreeMap;

/// All that the search found.
pub(super) struct Found<'a> {
    pub queries: &'a [Query],
    pub catalog: &'a Catalog,
    pub candidates: Vec<Candidate>,
    pub rejected: Vec<Rejected>,
    pub problem: &'a Problem,
    /// The empty set.
    pub nothing: Validated,
    pub best: Validated,
    pub bound: f64,
}

pub(super) fn selection(found: Found<'_>, memo: &mut Memo<'_>, config: &Config) -> Result<Selection, SelectError> {
    let Found { queries, catalog, candidates, mut rejected, problem, nothing, best, bound } = found;
    let mut chosen = Vec::new();
    for &c in &best.set {
        let without: Vec<CandidateIdx> = best.set.iter().copied().filter(|other| *other != c).collect();
        let saved = query_objective(problem, &validate::set(problem, memo, &without, Ask::Near)?) - query_objective(problem, &best);
        chosen.push(Choice { candidate: c, queries: users(&best, c), saved: saved.max(0.0), write_cost: problem.items[c].write });
    }
    chosen.sort_by(|a, b| b.saved.total_cmp(&a.saved).then(a.candidate.cmp(&b.candidate)));

    let judge = Judge { queries, catalog, candidates: &candidates, problem, best: &best, config };
    rejected.extend(judge.not_chosen(memo)?);
    let objective_after = best.objective;
    let failed = memo.failed().clone();
    Ok(Selection {
        costs: nothing.plans.iter().zip(&best.plans).map(|(before, after)| (before.cost, after.cost)).collect(),
        objective_before: nothing.objective,
        objective_after,
        gap: gap(objective_after, bound),
        method: best.method,
        planner_calls: memo.calls(),
        bytes: problem.bytes(&best.set),
        unplannable: failed.into_iter().collect(),
        chosen,
        rejected,
        candidates,
    })
}

/// How far the objective may be above the best possible, as a share of it.
pub(super) fn gap(objective: f64, bound: f64) -> f64 {
    let gap = if objective > 0.0 { ((objective - bound) / objective).clamp(0.0, 1.0) } else { 0.0 };
    if gap < 1e-9 { 0.0 } else { gap }
}

fn query_objective(problem: &Problem, validated: &Validated) -> f64 {
    problem.order.iter().map(|&q| problem.queries[q].weight * validated.plans[q].cost).sum()
}

/// Why one candidate was left.
struct Verdict {
    candidate: CandidateIdx,
    reason: Reason,
    detail: String,
    /// What it would bring: the most telling candidate of a group speaks for it.
    gain: f64,
}

struct Judge<'a> {
    queries: &'a [Query],
    catalog: &'a Catalog,
    candidates: &'a [Candidate],
    problem: &'a Problem,
    best: &'a Validated,
    config: &'a Config,
}

impl Judge<'_> {
    /// One row per table and leading column among the candidates that were not chosen.
    fn not_chosen(&self, memo: &Memo<'_>) -> Result<Vec<Rejected>, Cancelled> {
        let mut groups: BTreeMap<(RelId, AttNum), Verdict> = BTreeMap::new();
        for c in (0..self.candidates.len()).filter(|c| !self.best.set.contains(c)) {
            let def = &self.candidates[c].def;
            let (Some(first), Some(verdict)) = (def.keys.first(), self.verdict(c, memo)) else { continue };
            let rank = |v: &Verdict| (v.gain, v.reason != Reason::Covered);
            match groups.entry((def.table, first.column)) {
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(verdict);
                }
                std::collections::btree_map::Entry::Occupied(mut taken) => {
                    if rank(&verdict) > rank(taken.get()) {
                        taken.insert(verdict);
                    }
                }
            }
        }
        let row = |v: Verdict| {
            let Candidate { def, queries, .. } = &self.candidates[v.candidate];
            Rejected { def: def.clone(), reason: v.reason, detail: v.detail, queries: queries.clone() }
        };
        Ok(groups.into_values().map(row).collect())
    }

    fn verdict(&self, c: CandidateIdx, memo: &Memo<'_>) -> Option<Verdict> {
        let candidate = &self.candidates[c];
        let item = &self.problem.items[c];
        let table = self.catalog.table(candidate.def.table)?;
        let name = ddl::outline(&candidate.def, table);
        let unit = if self.queries.iter().any(|q| q.ms_per_cost().is_some()) { "ms" } else { "cost units" };
        let verdict = |reason, detail, gain| Some(Verdict { candidate: c, reason, detail, gain });

        let covering = self.best.set.iter().find(|s| self.candidates[**s].def.covers(&candidate.def));
        if let Some(s) = covering {
            let chosen = ddl::outline(&self.candidates[*s].def, table);
            return verdict(Reason::Covered, format!("The chosen index on {chosen} serves every scan that {name} would."), 0.0);
        }
        let table_full = self.problem.room.get(&candidate.def.table).is_none_or(|room| *room == 0);
        if table_full {
            let (have, most) = (table.indexes.len(), self.config.max_indexes_per_table);
            return verdict(Reason::TableCap, format!("The table has {have} indexes, and the limit is {most}."), 0.0);
        }
        if item.bytes > self.problem.budget {
            let detail =
                format!("{name} would take {}, more than the whole budget of {}.", size(item.bytes), size(self.problem.budget));
            return verdict(Reason::Budget, detail, 0.0);
        }
        // Alone, and beside what was chosen: the model's figures, which cost no questions.
        let alone = self.saving(&[], c);
        if alone <= 0.0 {
            return verdict(Reason::NoGain, self.no_gain(c, memo, &name), 0.0);
        }
        if alone <= item.write {
            let write = item.write;
            let detail = format!("{name} would save {alone:.3} {unit} per hour and cost {write:.3} {unit} per hour to maintain.");
            return verdict(Reason::WriteCost, detail, alone);
        }
        let beside = self.saving(&self.best.set, c);
        if beside <= item.write {
            let detail = format!(
                "{name} would save {alone:.3} {unit} per hour alone, but only {:.3} beside the chosen indexes, and cost {:.3} to maintain.",
                beside.max(0.0),
                item.write
            );
            return verdict(Reason::Covered, detail, alone);
        }
        let on_table = self.best.set.iter().filter(|s| self.problem.items[**s].table == item.table).count();
        if self.problem.room.get(&item.table).is_some_and(|room| on_table >= *room) {
            let detail = format!(
                "{name} would save {beside:.3} {unit} per hour more, but the table would have more than {} indexes.",
                self.config.max_indexes_per_table
            );
            return verdict(Reason::TableCap, detail, alone);
        }
        let left = self.problem.budget.saturating_sub(self.problem.bytes(&self.best.set));
        if item.bytes > left {
            let detail = format!(
                "{name} would save {beside:.3} {unit} per hour more, but takes {}, and {} of the budget are left; others save more per byte.",
                size(item.bytes),
                size(left)
            );
            return verdict(Reason::Budget, detail, alone);
        }
        let detail = format!(
            "{name} would save {beside:.3} {unit} per hour by itself, but nothing that pays when planned with the chosen indexes."
        );
        verdict(Reason::NoGain, detail, alone)
    }

    /// What the queries cost less with the candidate beside `set`, in the model.
    fn saving(&self, set: &[CandidateIdx], c: CandidateIdx) -> f64 {
        let before = self.problem.flags(set);
        let mut after = before.clone();
        after[c] = true;
        let cost = |flags: &[bool], q: QueryIdx| self.problem.query_cost(q, flags);
        let queries = self.problem.order.iter();
        queries.map(|&q| self.problem.queries[q].weight * (cost(&before, q) - cost(&after, q))).sum()
    }

    /// The best that the planner said of the candidate: alone if it was asked, else with others.
    fn no_gain(&self, c: CandidateIdx, memo: &Memo<'_>, name: &str) -> String {
        let mut alone: Option<(f64, Cost, Cost, QueryIdx)> = None;
        let mut offered = false;
        let mut used = false;
        for &q in &self.candidates[c].queries {
            let base = self.problem.queries[q].base;
            for (with, plan) in memo.answers(q) {
                offered |= with.contains(&c);
                used |= plan.used.contains(&c);
                let gain = if base > 0.0 { 1.0 - plan.cost / base } else { 0.0 };
                if with[..] == [c] && alone.is_none_or(|(g, ..)| gain > g) {
                    alone = Some((gain, base, plan.cost, q));
                }
            }
        }
        match alone {
            Some((gain, base, cost, q)) => format!(
                "{name} alone makes query {} cheaper by {:.1} % at best (cost {base:.2} to {cost:.2}), less than the limit of {:.1} %.",
                self.queries[q].id,
                gain.max(0.0) * 100.0,
                self.config.min_gain * 100.0
            ),
            None if used => format!("The planner uses {name} only together with other candidates that were not chosen."),
            None if offered => format!("With all candidates at hand the planner did not use {name} for any query."),
            None => format!("No query that could use {name} could be planned in the time given."),
        }
    }
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / (1024.0 * 1024.0);
    if mib >= 1.0 { format!("{mib:.1} MiB") } else { format!("{} KiB", bytes.div_ceil(PAGE) * PAGE / 1024) }
}
