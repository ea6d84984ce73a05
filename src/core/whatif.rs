//! What the planner would say: the question as a trait, and a memory of the answers.

use crate::model::{CandidateIdx, Cost, Query, QueryIdx, RelId};
use std::collections::{BTreeMap, HashMap};

/// One way to read one relation of a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// Number of the relation within the query: a self-join has two.
    pub relation: u32,
    /// The candidate that is read; `None` for what is there already.
    pub index: Option<CandidateIdx>,
    /// The relations whose values it is given, as a hash; 0 when none.
    pub outer: u32,
    /// One of several processes that share the work.
    pub parallel: bool,
    /// The order of its rows as far as it is of use, one number a column.
    pub order: Vec<u32>,
    /// Of one scan.
    pub cost: Cost,
}

/// A scan of a plan. What reads the same relation with the same values given, as parallel and at least in this order, can stand in
/// its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// `None` when nothing can stand in its place.
    pub relation: Option<u32>,
    /// The candidates it reads; none for what is there already.
    pub indexes: Vec<CandidateIdx>,
    pub outer: u32,
    pub parallel: bool,
    /// The order that the plan relies on.
    pub order: Vec<u32>,
    /// How often it is run; `None` when not known.
    pub times: Option<f64>,
    /// Of one scan.
    pub cost: Cost,
}

/// The planner's answer for one query and one set of candidates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanCost {
    pub cost: Cost,
    /// Candidates that the plan uses.
    pub used: Vec<CandidateIdx>,
    /// Its scans.
    pub leaves: Vec<Leaf>,
}

/// The planner refused a query: SQLSTATE and message as PostgreSQL gave them.
#[derive(Clone, Debug, PartialEq)]
pub struct Unplannable {
    pub sqlstate: String,
    pub message: String,
}

/// Asks the planner what a query costs when the candidates `with` exist beside the indexes that are there.
pub trait CostOracle {
    ///
    /// # Errors
    /// The planner's refusal.
    fn cost(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<PlanCost, Unplannable>;
    /// What each scan that the candidates `with` allow would cost, and those that are there: one planner call.
    ///
    /// # Errors
    /// The planner's refusal.
    fn prices(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<Vec<Access>, Unplannable>;
    /// True when the user cancelled or the worker must stop.
    fn interrupted(&mut self) -> bool;
}

/// The user cancelled, or the worker must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

/// An oracle with a memory. Candidates on tables that a query does not read are left out of the question, so that sets which
/// differ only in them are one question. A query that the planner refused once is not asked again.
pub struct Memo<'o> {
    oracle: &'o mut dyn CostOracle,
    query_tables: Vec<Vec<RelId>>,
    candidate_table: Vec<RelId>,
    known: HashMap<(QueryIdx, Vec<CandidateIdx>), PlanCost>,
    /// What was asked and answered for each query, for inference.
    asked: Vec<Vec<(Vec<CandidateIdx>, PlanCost)>>,
    failed: BTreeMap<QueryIdx, Unplannable>,
    calls: u64,
}

impl<'o> Memo<'o> {
    /// `candidate_table` holds the table of each candidate, by its index.
    pub fn new(oracle: &'o mut dyn CostOracle, queries: &[Query], candidate_table: Vec<RelId>) -> Self {
        let tables = |q: &Query| q.shape.relations.iter().map(|r| r.rel).collect();
        Memo {
            oracle,
            query_tables: queries.iter().map(tables).collect(),
            candidate_table,
            known: HashMap::new(),
            asked: vec![Vec::new(); queries.len()],
            failed: BTreeMap::new(),
            calls: 0,
        }
    }

    /// The planner's own answer, or `None` when it refuses the query.
    pub fn exact(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<Option<PlanCost>, Cancelled> {
        let with = self.relevant(query, with);
        if self.failed.contains_key(&query) {
            return Ok(None);
        }
        if let Some(plan) = self.known.get(&(query, with.clone())) {
            return Ok(Some(plan.clone()));
        }
        if self.oracle.interrupted() {
            return Err(Cancelled);
        }
        self.calls += 1;
        match self.oracle.cost(query, &with) {
            Ok(mut plan) => {
                plan.used.sort_unstable();
                plan.used.dedup();
                plan.used.retain(|c| with.binary_search(c).is_ok());
                self.asked[query].push((with.clone(), plan.clone()));
                self.known.insert((query, with), plan.clone());
                Ok(Some(plan))
            }
            Err(_) if self.oracle.interrupted() => Err(Cancelled),
            Err(error) => {
                self.failed.insert(query, error);
                Ok(None)
            }
        }
    }

    /// What each scan that the candidates allow would cost; nothing when the planner refuses the query.
    pub fn prices(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<Vec<Access>, Cancelled> {
        let with = self.relevant(query, with);
        if self.failed.contains_key(&query) {
            return Ok(Vec::new());
        }
        if self.oracle.interrupted() {
            return Err(Cancelled);
        }
        self.calls += 1;
        match self.oracle.prices(query, &with) {
            Ok(accesses) => Ok(accesses),
            Err(_) if self.oracle.interrupted() => Err(Cancelled),
            Err(error) => {
                self.failed.insert(query, error);
                Ok(Vec::new())
            }
        }
    }

    /// Like [`Self::exact`], but without a call when an earlier answer decides: if a larger set was asked and the plan used only
    /// candidates that are in `with`, the planner would choose the same plan. (True of a planner that takes the cheapest plan of
    /// all it considers; use `exact` where the answer must be the planner's.)
    pub fn inferred(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<Option<PlanCost>, Cancelled> {
        let with = self.relevant(query, with);
        let within = |small: &[CandidateIdx], large: &[CandidateIdx]| small.iter().all(|c| large.binary_search(c).is_ok());
        if !self.failed.contains_key(&query)
            && let Some((_, plan)) =
                self.asked[query].iter().find(|(asked, plan)| within(&with, asked) && within(&plan.used, &with))
        {
            return Ok(Some(plan.clone()));
        }
        self.exact(query, &with)
    }

    /// Candidates of `with` on tables that the query reads, sorted.
    pub fn relevant(&self, query: QueryIdx, with: &[CandidateIdx]) -> Vec<CandidateIdx> {
        let mut with: Vec<CandidateIdx> =
            with.iter().copied().filter(|c| self.query_tables[query].contains(&self.candidate_table[*c])).collect();
        with.sort_unstable();
        with.dedup();
        with
    }

    pub fn interrupted(&mut self) -> bool {
        self.oracle.interrupted()
    }

    /// Questions that went to the planner.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Queries that the planner refused, and why.
    pub fn failed(&self) -> &BTreeMap<QueryIdx, Unplannable> {
        &self.failed
    }

    /// Every set that was asked for a query, with its answer, in the order of asking.
    pub fn answers(&self, query: QueryIdx) -> &[(Vec<CandidateIdx>, PlanCost)] {
        &self.asked[query]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::model::PredicateKind;

    struct Planner {
        cancelled: bool,
    }

    impl CostOracle for Planner {
        fn cost(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<PlanCost, Unplannable> {
            if query == 1 {
                return Err(Unplannable { sqlstate: "42P01".into(), message: "relation is gone".into() });
            }
            let used: Vec<_> = with.iter().copied().filter(|c| *c == 1).collect();
            Ok(PlanCost { cost: if used.is_empty() { 100.0 } else { 10.0 }, used, leaves: Vec::new() })
        }

        fn prices(&mut self, _: QueryIdx, _: &[CandidateIdx]) -> Result<Vec<Access>, Unplannable> {
            Ok(Vec::new())
        }

        fn interrupted(&mut self) -> bool {
            self.cancelled
        }
    }

    #[test]
    fn asks_only_what_it_cannot_know() {
        let on = |rel| vec![fixture::usage(rel, &[(1, PredicateKind::Equal, 0.1)])];
        let queries = [fixture::query(1, 1.0, 100.0, on(1)), fixture::query(2, 1.0, 100.0, on(1))];
        let mut planner = Planner { cancelled: false };
        let mut memo = Memo::new(&mut planner, &queries, vec![RelId(1), RelId(1), RelId(1), RelId(2)]);
        assert_eq!(memo.exact(0, &[2, 1, 0, 3]).unwrap().unwrap().cost, 10.0);
        assert_eq!(memo.exact(0, &[0, 1, 2]).unwrap().unwrap().used, vec![1]);
        assert_eq!(memo.calls(), 1, "the order and candidates on other tables do not matter");
        assert_eq!(memo.inferred(0, &[1]).unwrap().unwrap().cost, 10.0);
        assert_eq!(memo.calls(), 1, "the plan used only 1");
        assert_eq!(memo.exact(0, &[1]).unwrap().unwrap().cost, 10.0);
        assert_eq!(memo.inferred(0, &[0]).unwrap().unwrap().cost, 100.0);
        assert_eq!(memo.calls(), 3);
        assert_eq!(memo.exact(1, &[]).unwrap(), None);
        assert_eq!(memo.exact(1, &[1]).unwrap(), None);
        assert_eq!((memo.calls(), memo.failed().len()), (4, 1));
    }

    #[test]
    fn stops_when_cancelled() {
        let queries = [fixture::query(1, 1.0, 1.0, Vec::new())];
        let mut planner = Planner { cancelled: true };
        assert_eq!(Memo::new(&mut planner, &queries, Vec::new()).exact(0, &[]), Err(Cancelled));
    }
}
