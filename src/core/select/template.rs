//! What a query would cost under indexes it was never planned with, from plans and prices that are known.
//!
//! A plan is a cost plus its scans. When another scan of the same relation can stand in a scan's place, the plan costs that much more
//! or less (INUM: Papadomanolakis, Dash and Ailamaki, VLDB 2007). So a few planner calls tell the cost under very many sets: nearly
//! enough to know where to look, and what is found there is asked of the planner.

use crate::model::{CandidateIdx, Cost};
use crate::whatif::{Access, Leaf, PlanCost};
use std::collections::{BTreeMap, BTreeSet};

/// Costs that differ by less than this share are the same.
const SAME: f64 = 1e-3;
/// Plans kept for a query.
const MAX_PLANS: usize = 24;

/// The scans that can stand in for one another: relation, values given, parallel.
type Place = (u32, u32, bool);

#[derive(Clone, Debug)]
struct Offer {
    cost: Cost,
    index: Option<CandidateIdx>,
    order: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Plan {
    cost: Cost,
    leaves: Vec<Leaf>,
}

/// Known plans of one query, and the price of every scan that its plans could have.
#[derive(Clone, Debug, Default)]
pub(super) struct Templates {
    /// By cost, ascending.
    offers: BTreeMap<Place, Vec<Offer>>,
    plans: Vec<Plan>,
}

impl Templates {
    pub fn new(accesses: Vec<Access>) -> Self {
        let mut offers: BTreeMap<Place, Vec<Offer>> = BTreeMap::new();
        for a in accesses {
            let place = (a.relation, a.outer, a.parallel);
            offers.entry(place).or_default().push(Offer { cost: a.cost, index: a.index, order: a.order });
        }
        for place in offers.values_mut() {
            place.sort_by(|a, b| a.cost.total_cmp(&b.cost).then_with(|| (a.index, &a.order).cmp(&(b.index, &b.order))));
        }
        Templates { offers, plans: Vec::new() }
    }

    /// The candidates that the planner could use at all; `None` when no prices are known.
    pub fn offered(&self) -> Option<BTreeSet<CandidateIdx>> {
        (!self.offers.is_empty()).then(|| self.offers.values().flatten().filter_map(|o| o.index).collect())
    }

    /// The candidates that are worth planning with: in some place one is cheaper than what is there, and no other is at once as
    /// cheap, as small and as well ordered. `bytes` gives a candidate's size.
    pub fn worthwhile(&self, bytes: &dyn Fn(CandidateIdx) -> u64) -> BTreeSet<CandidateIdx> {
        let mut worthwhile = BTreeSet::new();
        for offers in self.offers.values() {
            for (at, offer) in offers.iter().enumerate() {
                let Some(index) = offer.index else { continue };
                let size = bytes(index);
                let beaten = |other: &Offer| {
                    let smaller = other.index.is_none_or(|i| i != index && (bytes(i), i) < (size, index));
                    smaller && other.cost <= offer.cost * (1.0 + SAME) && other.order.starts_with(&offer.order)
                };
                // Ascending: what beats it is before it, or after it within the tolerance.
                let near = offers[at..].iter().take_while(|o| o.cost <= offer.cost * (1.0 + SAME));
                if !offers[..at].iter().chain(near).any(beaten) {
                    worthwhile.insert(index);
                }
            }
        }
        worthwhile
    }

    /// Notes a plan; true when it is new.
    pub fn learn(&mut self, plan: &PlanCost) -> bool {
        let known = |p: &Plan| (p.cost - plan.cost).abs() <= 1e-9 * plan.cost.abs() && p.leaves == plan.leaves;
        if plan.leaves.is_empty() || self.plans.len() >= MAX_PLANS || self.plans.iter().any(known) {
            return false;
        }
        self.plans.push(Plan { cost: plan.cost, leaves: plan.leaves.clone() });
        true
    }

    /// For each plan its cheapest mix of scans when using a candidate costs `price` (infinite: it is not to be had), and `weight` is
    /// what a unit of cost weighs against it: the candidates, and the cost of the query.
    pub fn mixes(&self, weight: f64, price: &dyn Fn(CandidateIdx) -> f64) -> Vec<(Vec<CandidateIdx>, Cost)> {
        self.plans.iter().filter_map(|plan| self.mix(plan, weight, price)).collect()
    }

    /// Every mix of the scans of a plan that has at most `most` of them: the candidates, and the cost of the query.
    pub fn all_mixes(&self, most: usize) -> Vec<(Vec<CandidateIdx>, Cost)> {
        let mut all = Vec::new();
        for plan in &self.plans {
            let choices: Vec<Vec<(f64, &[CandidateIdx])>> = plan.leaves.iter().map(|leaf| self.choices(leaf)).collect();
            let mixes = choices.iter().map(Vec::len).try_fold(1_usize, |n, c| n.checked_mul(c).filter(|n| *n <= most));
            if mixes.is_none() {
                continue;
            }
            let mut partial: Vec<(Vec<CandidateIdx>, Cost)> = vec![(Vec::new(), plan.cost)];
            for choice in &choices {
                let with = |(set, cost): &(Vec<CandidateIdx>, Cost)| {
                    let (set, cost) = (set.clone(), *cost);
                    choice
                        .iter()
                        .map(move |(more, indexes)| (set.iter().chain(*indexes).copied().collect(), cost + more))
                        .collect::<Vec<_>>()
                };
                partial = partial.iter().flat_map(with).collect();
            }
            all.extend(partial);
        }
        for (set, cost) in &mut all {
            set.sort_unstable();
            set.dedup();
            *cost = cost.max(0.0);
        }
        all
    }

    /// What can stand in a scan's place, the scan itself first: how much more the plan costs then, and the candidates it takes.
    fn choices<'a>(&'a self, leaf: &'a Leaf) -> Vec<(f64, &'a [CandidateIdx])> {
        let mut choices = vec![(0.0, leaf.indexes.as_slice())];
        if let (Some(relation), Some(times)) = (leaf.relation, leaf.times) {
            let mut seen: BTreeSet<Option<CandidateIdx>> = BTreeSet::from([leaf.indexes.first().copied()]);
            let offers = self.offers.get(&(relation, leaf.outer, leaf.parallel)).into_iter().flatten();
            // Ascending: the first of an index is its cheapest.
            for offer in offers.filter(|o| o.order.starts_with(&leaf.order)) {
                if seen.insert(offer.index) {
                    choices.push((times * (offer.cost - leaf.cost), offer.index.as_slice()));
                }
            }
        }
        choices
    }

    fn mix(&self, plan: &Plan, weight: f64, price: &dyn Fn(CandidateIdx) -> f64) -> Option<(Vec<CandidateIdx>, Cost)> {
        let mut set: BTreeSet<CandidateIdx> = BTreeSet::new();
        let mut cost = plan.cost;
        // What leaves no choice first: it is paid for then.
        let (free, fixed): (Vec<&Leaf>, Vec<&Leaf>) = plan.leaves.iter().partition(|l| l.relation.is_some() && l.times.is_some());
        for c in fixed.iter().flat_map(|l| &l.indexes) {
            if !price(*c).is_finite() {
                return None;
            }
            set.insert(*c);
        }
        for leaf in free {
            let to_pay = |c: &CandidateIdx| if set.contains(c) { 0.0 } else { price(*c) };
            let total = |(more, indexes): &(f64, &[CandidateIdx])| weight * more + indexes.iter().map(to_pay).sum::<f64>();
            // The first of the cheapest.
            let (_, (more, indexes)) = self
                .choices(leaf)
                .into_iter()
                .map(|c| (total(&c), c))
                .filter(|(t, _)| t.is_finite())
                .min_by(|a, b| a.0.total_cmp(&b.0))?;
            cost += more;
            set.extend(indexes);
        }
        Some((set.into_iter().collect(), cost.max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(relation: u32, index: Option<CandidateIdx>, order: &[u32], cost: Cost) -> Access {
        Access { relation, index, outer: 0, parallel: false, order: order.to_vec(), cost }
    }

    fn leaf(relation: Option<u32>, indexes: &[CandidateIdx], order: &[u32], times: Option<f64>, cost: Cost) -> Leaf {
        Leaf { relation, indexes: indexes.to_vec(), outer: 0, parallel: false, order: order.to_vec(), times, cost }
    }

    fn two_tables() -> Templates {
        Templates::new(vec![
            access(0, None, &[], 100.0),
            access(0, Some(0), &[7], 10.0),
            access(0, Some(1), &[], 5.0),
            access(1, None, &[], 50.0),
            access(1, Some(2), &[], 20.0),
        ])
    }

    #[test]
    fn a_mix_stays_with_what_is_there_when_candidates_are_too_dear() {
        let mut t = two_tables();
        assert!(t.learn(&PlanCost {
            cost: 160.0,
            used: Vec::new(),
            leaves: vec![leaf(Some(0), &[], &[], Some(1.0), 100.0), leaf(Some(1), &[], &[], Some(1.0), 50.0)],
        }));
        assert_eq!(t.mixes(1.0, &|_| 0.0), vec![(vec![1, 2], 35.0)]);
        assert_eq!(t.mixes(1.0, &|c| if c == 1 { 200.0 } else { 0.0 }), vec![(vec![0, 2], 40.0)]);
        assert_eq!(t.mixes(1.0, &|_| 60.0), vec![(vec![1], 65.0)]);
        assert_eq!(t.mixes(1.0, &|_| f64::INFINITY), vec![(vec![], 160.0)]);
    }

    #[test]
    fn order_and_unknown_places_bind() {
        let mut t = two_tables();
        t.learn(&PlanCost { cost: 15.0, used: vec![0], leaves: vec![leaf(Some(0), &[0], &[7], Some(2.0), 10.0)] });
        t.learn(&PlanCost { cost: 12.0, used: vec![2], leaves: vec![leaf(None, &[2], &[], None, 20.0)] });
        assert_eq!(t.mixes(1.0, &|_| 0.0), vec![(vec![0], 15.0), (vec![2], 12.0)], "the cheaper scan is not ordered");
        assert_eq!(t.mixes(1.0, &|_| f64::INFINITY), vec![], "nothing else is ordered");
    }

    #[test]
    fn the_worthwhile_are_those_that_nothing_smaller_beats() {
        let t = two_tables();
        let same = |_| 100;
        assert_eq!(t.worthwhile(&same).into_iter().collect::<Vec<_>>(), vec![0, 1, 2], "0 is dearer but ordered");
        let t = Templates::new(vec![access(0, None, &[], 9.0), access(0, Some(0), &[], 10.0), access(0, Some(1), &[], 5.0)]);
        assert_eq!(t.worthwhile(&same).into_iter().collect::<Vec<_>>(), vec![1]);
    }
}
