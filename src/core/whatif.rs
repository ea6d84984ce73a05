//! temporary
use crate::model::*;
#[derive(Clone, Debug, PartialEq)]
pub struct PlanCost { pub cost: Cost, pub used: Vec<CandidateIdx> }
#[derive(Clone, Debug, PartialEq)]
pub struct Unplannable { pub sqlstate: String, pub message: String }
pub trait CostOracle {
    fn cost(&mut self, query: QueryIdx, with: &[CandidateIdx]) -> Result<PlanCost, Unplannable>;
    fn interrupted(&mut self) -> bool;
}
