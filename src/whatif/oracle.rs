//! The planner as the judge of what a query costs with a set of candidates.

use super::cache::{self, Surroundings};
use super::{Hypothetical, Planned, Sample, Sampler};
use crate::pg::error::Error;
use crate::pg::solver;
use indexpilot_core::candidate::Candidate;
use indexpilot_core::ddl;
use indexpilot_core::model::{CandidateIdx, Catalog, Query, QueryIdx, RelId};
use indexpilot_core::whatif::{Access, CostOracle, PlanCost, Unplannable};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Candidates that the server would make, the indexes that they are, and the identities of these.
type Resolved = (Vec<CandidateIdx>, (Vec<Rc<Hypothetical>>, Vec<u64>));

/// Plans the samples of queries with candidates. A query costs the mean of its samples' costs.
pub struct Oracle {
    /// Samples by query.
    samples: Vec<Vec<Sample>>,
    /// With their identities; `None` for one that the server would not make, so that no query gains by it.
    candidates: Vec<Option<(Rc<Hypothetical>, u64)>>,
    /// What every plan is made with.
    known: Vec<(Rc<Hypothetical>, u64)>,
    around: Surroundings,
}

impl Oracle {
    /// `samples[query]` are the statements to plan for the query; `candidates` in the order in which [`CandidateIdx`] counts them, on
    /// tables of the snapshot.
    pub fn new(samples: Vec<Vec<Sample>>, candidates: &[Candidate], catalog: &Catalog, sampler: &mut Sampler) -> Self {
        let mut resolved = |c: &Candidate| {
            let table = catalog.table(c.def.table)?;
            match Hypothetical::of(&c.def, table, sampler) {
                Ok(index) => {
                    let identity = cache::identity(&index);
                    Some((index, identity))
                }
                Err(error) => {
                    pgrx::debug1!("indexpilot: whatif: {} is left out: {error}", ddl::describe(&c.def, table));
                    None
                }
            }
        };
        let candidates = candidates.iter().map(&mut resolved).collect();
        let known = sampler.known().iter().map(|k| (Rc::clone(k), cache::identity(k))).collect();
        Oracle { samples, candidates, known, around: Surroundings::now() }
    }

    /// Plans the queries again that use an expression whose statistics are known now: they were planned without.
    pub fn rebase(&mut self, queries: &mut [Query]) {
        let tables: BTreeSet<RelId> = self.known.iter().map(|(k, _)| k.def.table).collect();
        for (at, query) in queries.iter_mut().enumerate() {
            if query.shape.relations.iter().any(|r| tables.contains(&r.rel))
                && let Ok(planned) = self.cost(at, &[])
            {
                query.shape.base_cost = planned.cost;
            }
        }
    }

    /// Those of the candidates that the server would make, with their identities, and after them what every plan is made with.
    fn resolved(&self, with: &[CandidateIdx]) -> Resolved {
        let resolved = |c: &CandidateIdx| self.candidates.get(*c).cloned().flatten().map(|index| (*c, index));
        let (with, mut indexes): Resolved = with.iter().filter_map(resolved).unzip();
        indexes.extend(self.known.iter().cloned());
        (with, indexes)
    }
}

impl CostOracle for Oracle {
    fn cost(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<PlanCost, Unplannable> {
        let samples = self.samples.get(query).map_or(&[][..], Vec::as_slice);
        if samples.is_empty() {
            return Err(Unplannable { sqlstate: "55000".to_owned(), message: "no sample of the query was captured".to_owned() });
        }
        let (with, (indexes, identities)) = self.resolved(with);
        let (mut total, mut used, mut leaves) = (0.0, Vec::new(), Vec::new());
        for (at, sample) in samples.iter().enumerate() {
            let planned = cache::plan(&self.around, sample, &indexes, &identities, &[], false).map_err(refusal)?;
            let Planned { cost, used: positions, .. } = planned;
            total += cost;
            // The first sample, which is also the one that is priced, stands for the others.
            if at == 0 {
                leaves = planned.leaves;
            }
            used.extend(positions.into_iter().filter_map(|p| with.get(p).copied()));
        }
        used.sort_unstable();
        used.dedup();
        for leaf in &mut leaves {
            leaf.indexes = leaf.indexes.iter().filter_map(|p| with.get(*p).copied()).collect();
        }
        Ok(PlanCost { cost: total / samples.len() as f64, used, leaves })
    }

    fn prices(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<Vec<Access>, Unplannable> {
        let Some(sample) = self.samples.get(query).and_then(|s| s.first()) else { return Ok(Vec::new()) };
        let (with, (indexes, identities)) = self.resolved(with);
        let mut accesses = cache::prices(&self.around, sample, &indexes, &identities).map_err(refusal)?;
        for access in &mut accesses {
            access.index = access.index.and_then(|p| with.get(p).copied());
        }
        Ok(accesses)
    }

    fn interrupted(&mut self) -> bool {
        !solver::answer_barrier() || solver::interrupt_pending()
    }
}

fn refusal(e: Error) -> Unplannable {
    Unplannable { sqlstate: e.sqlstate(), message: e.message }
}
