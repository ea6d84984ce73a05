//! The planner as the judge of what a query costs with a set of candidates.

use super::{Hypothetical, Planned, Sample, plan};
use crate::pg::solver;
use indexpilot_core::candidate::Candidate;
use indexpilot_core::ddl;
use indexpilot_core::model::{CandidateIdx, Catalog, QueryIdx};
use indexpilot_core::whatif::{CostOracle, PlanCost, Unplannable};
use std::rc::Rc;

/// Plans the samples of queries with candidates. A query costs the mean of its samples' costs.
pub struct Oracle {
    /// Samples by query.
    samples: Vec<Vec<Sample>>,
    /// `None` for one that the server would not make, so that no query gains by it.
    candidates: Vec<Option<Rc<Hypothetical>>>,
}

impl Oracle {
    /// `samples[query]` are the statements to plan for the query; `candidates` in the order in which [`CandidateIdx`] counts them, on
    /// tables of the snapshot.
    pub fn new(samples: Vec<Vec<Sample>>, candidates: &[Candidate], catalog: &Catalog) -> Self {
        let resolved = |c: &Candidate| {
            let table = catalog.table(c.def.table)?;
            match Hypothetical::of(&c.def, table) {
                Ok(index) => Some(index),
                Err(error) => {
                    pgrx::debug1!("indexpilot: whatif: {} is left out: {error}", ddl::describe(&c.def, table));
                    None
                }
            }
        };
        Oracle { samples, candidates: candidates.iter().map(resolved).collect() }
    }
}

impl CostOracle for Oracle {
    fn cost(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<PlanCost, Unplannable> {
        let samples = self.samples.get(query).map_or(&[][..], Vec::as_slice);
        if samples.is_empty() {
            return Err(Unplannable { sqlstate: "55000".to_owned(), message: "no sample of the query was captured".to_owned() });
        }
        let resolved = |c: &CandidateIdx| self.candidates.get(*c).cloned().flatten().map(|index| (*c, index));
        let (with, indexes): (Vec<CandidateIdx>, Vec<Rc<Hypothetical>>) = with.iter().filter_map(resolved).unzip();
        let (mut total, mut used) = (0.0, Vec::new());
        for sample in samples {
            let Planned { cost, used: positions, .. } =
                plan(sample, &indexes, &[], false).map_err(|e| Unplannable { sqlstate: e.sqlstate(), message: e.message })?;
            total += cost;
            used.extend(positions.into_iter().filter_map(|p| with.get(p).copied()));
        }
        used.sort_unstable();
        used.dedup();
        Ok(PlanCost { cost: total / samples.len() as f64, used })
    }

    fn interrupted(&mut self) -> bool {
        solver::interrupt_pending()
    }
}
