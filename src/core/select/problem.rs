//! The choice as numbers: what each query costs with which candidates, what each candidate costs, and the limits.

use super::template::Templates;
use super::validate::Validated;
use super::{Config, write};
use crate::candidate::Candidate;
use crate::model::{Bytes, CandidateIdx, Catalog, Cost, PAGE, Query, QueryIdx, RelId, mean_ms_per_cost};
use crate::whatif::PlanCost;
use std::collections::{BTreeMap, BTreeSet};

/// Costs that differ by less than this share are the same.
const SAME: f64 = 1e-9;
/// Of the plans of a query, so many are mixed at each price.
const PREDICTED_PLANS: usize = 2;
/// A plan with more mixes of scans than this is mixed at some prices only.
const MAX_MIXES: usize = 48;
/// The price of size: for all candidates together so much of the least that the queries can cost.
const SIZE_PRICE: f64 = 1e-7;

/// A query's cost when exactly these candidates exist (or more, as far as the planner ignores the others).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Configuration {
    pub cost: Cost,
    /// Ascending, not empty.
    pub set: Vec<CandidateIdx>,
}

pub(super) struct QueryModel {
    /// Objective per hour and unit of planner cost.
    pub weight: f64,
    pub base: Cost,
    /// None needs a superset of another's candidates at no lower cost; the empty set at `base` is not listed.
    pub configurations: Vec<Configuration>,
    /// Its known plans and the prices of its scans.
    pub templates: Templates,
    /// Candidates that the planner could use for it; `None` when that is not known.
    pub offered: Option<BTreeSet<CandidateIdx>>,
    /// Candidates that are worth planning with.
    pub worthwhile: Vec<CandidateIdx>,
    /// The planner's answers: with these candidates the query costs this. No part of them does better.
    answers: Vec<(Vec<CandidateIdx>, Cost)>,
}

impl QueryModel {
    /// The least that the set can cost, from the answers for sets that hold it.
    fn floor(&self, set: &[CandidateIdx]) -> Cost {
        self.answers.iter().filter(|(with, _)| subset(set, with)).map(|(_, cost)| *cost).fold(0.0, f64::max)
    }
}

pub(super) struct Item {
    pub bytes: Bytes,
    pub pages: u64,
    pub table: RelId,
    /// Maintenance, objective per hour.
    pub write: f64,
    /// The tie-breaking price of its size, objective per hour.
    pub price: f64,
    /// It fits into the budget and its table may have one more index.
    pub usable: bool,
}

pub(super) struct Problem {
    pub queries: Vec<QueryModel>,
    /// The queries in canonical order.
    pub order: Vec<QueryIdx>,
    pub items: Vec<Item>,
    pub budget: Bytes,
    /// Indexes that each table may still get.
    pub room: BTreeMap<RelId, usize>,
    /// Sets that must not be chosen as a whole, because a query gets too expensive with them.
    pub forbidden: Vec<Vec<CandidateIdx>>,
    pub min_gain: f64,
    pub max_regression: f64,
    /// The whole objective without any candidate.
    total: f64,
}

impl Problem {
    pub fn new(queries: &[Query], order: &[QueryIdx], catalog: &Catalog, candidates: &[Candidate], config: &Config) -> Self {
        let mean = mean_ms_per_cost(queries);
        let hours = if config.hours > 0.0 { config.hours } else { 1.0 };
        let model = |q: &Query| QueryModel {
            weight: (q.weight_among(mean) / hours).max(0.0),
            base: q.shape.base_cost,
            configurations: Vec::new(),
            templates: Templates::default(),
            offered: None,
            worthwhile: Vec::new(),
            answers: Vec::new(),
        };
        let room: BTreeMap<RelId, usize> =
            catalog.tables.iter().map(|(rel, t)| (*rel, config.max_indexes_per_table.saturating_sub(t.indexes.len()))).collect();
        let item = |c: &Candidate| {
            let table = catalog.table(c.def.table);
            let write = table.map_or(0.0, |t| write::write_cost(&c.def, &c.size, t)) * mean.unwrap_or(1.0);
            let usable = c.size.bytes <= config.budget && room.get(&c.def.table).is_some_and(|r| *r > 0);
            Item { bytes: c.size.bytes, pages: c.size.bytes.div_ceil(PAGE), table: c.def.table, write, price: 0.0, usable }
        };
        Problem {
            queries: queries.iter().map(model).collect(),
            order: order.to_vec(),
            items: candidates.iter().map(item).collect(),
            budget: config.budget,
            room,
            forbidden: Vec::new(),
            min_gain: config.min_gain,
            max_regression: config.max_regression,
            total: 0.0,
        }
    }

    /// Sets the price of size, once it is known what the queries cost at worst and at best.
    pub fn price_sizes(&mut self) {
        let all: f64 = self.items.iter().map(|i| i.pages as f64).sum();
        let base: f64 = self.order.iter().map(|&q| self.queries[q].weight * self.queries[q].base).sum();
        self.total = base;
        let least = if base > 0.0 { self.lower_bound().max(base * SAME) } else { 1.0 };
        let per_page = SIZE_PRICE * least / all.max(1.0);
        for item in &mut self.items {
            item.price = per_page * item.pages as f64;
        }
    }

    /// Adds a configuration unless it gains too little or another is as good; true when it was added.
    pub fn add(&mut self, query: QueryIdx, set: &[CandidateIdx], cost: Cost) -> bool {
        let model = &mut self.queries[query];
        let cost = cost.max(model.floor(set));
        if set.is_empty() || !set.iter().all(|c| self.items[*c].usable) || !gains(model.base, cost, self.min_gain) {
            return false;
        }
        let slack = SAME * cost.abs();
        if model.configurations.iter().any(|other| subset(&other.set, set) && other.cost <= cost + slack) {
            return false;
        }
        model.configurations.retain(|other| !(subset(set, &other.set) && cost <= other.cost + slack));
        model.configurations.push(Configuration { cost, set: set.to_vec() });
        model.configurations.sort_by(|a, b| a.cost.total_cmp(&b.cost).then_with(|| a.set.cmp(&b.set)));
        true
    }

    /// Takes over the planner's answer for a query under the candidates `with`; true when there is something new. No part of `with`
    /// does better than the whole: what was predicted to is put right.
    pub fn answered(&mut self, query: QueryIdx, with: &[CandidateIdx], plan: &PlanCost) -> bool {
        let model = &mut self.queries[query];
        let slack = SAME * plan.cost.abs();
        let mut changed = model.templates.learn(plan);
        if !model.answers.iter().any(|(known, _)| known == with) {
            model.answers.push((with.to_vec(), plan.cost));
        }
        let mut raised = false;
        for c in model.configurations.iter_mut().filter(|c| c.cost < plan.cost - slack && subset(&c.set, with)) {
            c.cost = plan.cost;
            raised = true;
        }
        if raised {
            let all = std::mem::take(&mut model.configurations);
            for c in all {
                self.add(query, &c.set, c.cost);
            }
        }
        changed |= raised;
        self.add(query, &plan.used, plan.cost) || changed
    }

    /// Adds what the known plans make of a query's scans when candidates cost `price`; returns the sets that are new.
    pub fn predict(&mut self, query: QueryIdx, price: &dyn Fn(&Item, CandidateIdx) -> f64) -> Vec<Vec<CandidateIdx>> {
        let model = &self.queries[query];
        let of = |c: CandidateIdx| {
            let item = &self.items[c];
            if item.usable { price(item, c) } else { f64::INFINITY }
        };
        let mut mixes = model.templates.mixes(model.weight, &of);
        // Of several plans the one that is best at these prices.
        let total = |(set, cost): &(Vec<CandidateIdx>, Cost)| model.weight * cost + set.iter().map(|c| of(*c)).sum::<f64>();
        mixes.sort_by(|a, b| total(a).total_cmp(&total(b)).then_with(|| a.0.cmp(&b.0)));
        mixes.truncate(PREDICTED_PLANS);
        mixes.into_iter().filter(|(set, cost)| self.add(query, set, *cost)).map(|(set, _)| set).collect()
    }

    /// Adds every mix of the scans of those plans that have few.
    pub fn predict_all(&mut self, query: QueryIdx) {
        for (set, cost) in self.queries[query].templates.all_mixes(MAX_MIXES) {
            self.add(query, &set, cost);
        }
    }

    /// Candidates of `with` that matter to the query, ascending.
    pub fn relevant(&self, query: QueryIdx, with: &[CandidateIdx]) -> Vec<CandidateIdx> {
        let offered = self.queries[query].offered.as_ref();
        with.iter().copied().filter(|c| offered.is_none_or(|o| o.contains(c))).collect()
    }

    /// Takes over what validation found; true when there is something new.
    pub fn learn(&mut self, validated: &Validated) -> bool {
        let mut changed = false;
        for q in self.order.clone() {
            let with = self.relevant(q, &validated.set);
            changed |= self.answered(q, &with, &validated.plans[q]);
        }
        for set in &validated.regressions {
            if !self.forbidden.contains(set) {
                self.forbidden.push(set.clone());
                changed = true;
            }
        }
        changed
    }

    /// Differences of the objective up to this are rounding.
    pub fn rounding(&self) -> f64 {
        self.total * 1e-12
    }

    pub fn forbidden_len(&self) -> usize {
        self.forbidden.len()
    }

    /// A query's cost in the model: the cheapest configuration within the set.
    pub fn query_cost(&self, query: QueryIdx, chosen: &[bool]) -> Cost {
        let model = &self.queries[query];
        // Sorted by cost: the first that fits is the cheapest.
        model.configurations.iter().find(|c| c.set.iter().all(|i| chosen[*i])).map_or(model.base, |c| c.cost.min(model.base))
    }

    /// The objective in the model.
    pub fn objective(&self, chosen: &[bool]) -> f64 {
        let queries: f64 = self.order.iter().map(|&q| self.queries[q].weight * self.query_cost(q, chosen)).sum();
        queries + self.upkeep(chosen)
    }

    /// Maintenance and price of size of the set.
    pub fn upkeep(&self, chosen: &[bool]) -> f64 {
        self.items.iter().zip(chosen).filter(|(_, c)| **c).map(|(i, _)| i.write + i.price).sum()
    }

    /// No set of candidates does better than this in the model.
    pub fn lower_bound(&self) -> f64 {
        let best = |q: &QueryModel| q.configurations.first().map_or(q.base, |c| c.cost.min(q.base));
        self.order.iter().map(|&q| self.queries[q].weight * best(&self.queries[q])).sum()
    }

    pub fn bytes(&self, set: &[CandidateIdx]) -> Bytes {
        set.iter().fold(0, |sum: Bytes, c| sum.saturating_add(self.items[*c].bytes))
    }

    /// Within budget and the tables' limits, and not forbidden.
    pub fn feasible(&self, set: &[CandidateIdx]) -> bool {
        let mut per_table: BTreeMap<RelId, usize> = BTreeMap::new();
        for c in set {
            *per_table.entry(self.items[*c].table).or_default() += 1;
        }
        self.bytes(set) <= self.budget
            && per_table.iter().all(|(rel, n)| self.room.get(rel).is_some_and(|room| n <= room))
            && !self.forbidden.iter().any(|f| f.iter().all(|c| set.contains(c)))
    }

    /// True when the first set is to be preferred: a lower objective, or the same with less.
    pub fn better(&self, a: &Validated, b: &Validated) -> bool {
        let same = (a.objective - b.objective).abs() <= SAME * b.objective.abs();
        if same { (self.bytes(&a.set), &a.set) < (self.bytes(&b.set), &b.set) } else { a.objective < b.objective }
    }

    /// The set as one flag per candidate.
    pub fn flags(&self, set: &[CandidateIdx]) -> Vec<bool> {
        let mut flags = vec![false; self.items.len()];
        set.iter().for_each(|c| flags[*c] = true);
        flags
    }
}

/// True when the cost is lower than the base by at least the share `min_gain`.
pub(super) fn gains(base: Cost, cost: Cost, min_gain: f64) -> bool {
    base - cost > SAME * base.abs() && base - cost >= min_gain * base
}

/// Both ascending.
fn subset(small: &[CandidateIdx], large: &[CandidateIdx]) -> bool {
    small.len() <= large.len() && small.iter().all(|c| large.binary_search(c).is_ok())
}
