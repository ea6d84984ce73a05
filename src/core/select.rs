//! temporary
pub struct MilpResult { pub columns: Vec<f64>, pub gap: f64, pub optimal: bool }
pub trait Milp { fn solve(&mut self, problem: good_lp::solvers::highs::HighsProblem, time_limit_s: f64, gap: f64) -> Result<MilpResult, String>; }
