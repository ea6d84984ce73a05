//! A contest on one set of data: what a set of indexes costs and gains, foreseen and built, and what choosing it took.

use super::advice::{self, Advice};
use super::built::{self, Workshop};
use super::data::{Data, PLAIN, Session};
use super::extend::{Extend, Sizes};
use super::query::Query;
use crate::options::Options;
use indexpilot_tests::{Result, target_dir};
use serde_json::{Value, json};
use std::path::PathBuf;

pub const MB: f64 = 1e6;

/// An index whose size is compared with what was foreseen.
const NOTABLE: i64 = 1_000_000;

pub struct Contest<'a> {
    pub data: &'a Data,
    pub options: &'a Options,
    /// The queries whose costs are summed.
    pub counted: Vec<Query>,
    pub session: Session,
    pub workshop: Workshop,
    /// Cost of the counted queries without indexes.
    pub baseline: f64,
    before: Vec<f64>,
    reports: Vec<Value>,
}

/// A set as it is worth when built.
pub struct Found {
    pub who: String,
    pub budget_mb: i64,
    pub bytes: i64,
    pub real: f64,
    pub planner_calls: u64,
}

impl Found {
    pub fn fits(&self) -> bool {
        self.bytes <= self.budget_mb * MB as i64
    }
}

impl<'a> Contest<'a> {
    /// # Errors
    /// When the server refuses.
    pub fn open(data: &'a Data, options: &'a Options, counted: Vec<Query>) -> Result<Self> {
        let mut workshop = Workshop::open(data)?;
        let before = workshop.costs(&counted, &[])?;
        let session = data.session(PLAIN)?;
        Ok(Contest { data, options, counted, session, workshop, baseline: before.iter().sum(), before, reports: Vec::new() })
    }

    /// IndexPilot's sets, one for each budget; `beside` adds to a line.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn ours(&mut self, title: &str, asked: &[Query], heads: &str, beside: &dyn Fn(i64) -> String) -> Result<Vec<Found>> {
        println!("\nIndexPilot, {title}");
        head(heads);
        let mut all = Vec::new();
        for &budget in &self.options.budgets {
            let advice = advice::ask(&mut self.session, asked, budget * MB as i64, self.options.max_columns, self.options.limit)?;
            all.push(self.judge(&format!("IndexPilot, {title}"), budget, &advice, &beside(budget))?);
        }
        Ok(all)
    }

    /// The frontier of all budgets, asked for at once.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn frontier(&mut self) -> Result<()> {
        let budgets: Vec<i64> = self.options.budgets.iter().map(|mb| mb * MB as i64).collect();
        let counted = self.counted.clone();
        let points = advice::frontier(&mut self.session, &counted, &budgets, self.options.max_columns, self.options.limit)?;
        println!(
            "\nIndexPilot, advise_frontier() for the queries in the sum: all budgets in one call\n  {:>7} {:>7} {:>7} {:>8}",
            "budget", "indexes", "MB", "built"
        );
        for (budget, advice) in &points {
            let statements = advice.statements();
            let bytes: i64 = self.workshop.build(&statements)?.iter().sum();
            let cost: f64 = self.workshop.costs(&counted, &statements)?.iter().sum();
            println!(
                "  {:>7.0} {:>7} {:>7.1} {:>8.4}",
                *budget as f64 / MB,
                statements.len(),
                bytes as f64 / MB,
                cost / self.baseline
            );
        }
        let calls: u64 = points.iter().map(|(_, a)| a.planner_calls).max().unwrap_or(0);
        if let Some((_, last)) = points.last() {
            println!("  in all {:.2} CPU s, {:.2} s, {calls} planner calls", last.cpu_s, last.wall_s);
        }
        Ok(())
    }

    /// The rival's sets; none when it is not wanted or cannot be had.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn rival(&mut self, widths: &[usize]) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        if !self.options.rivals.is_empty() && !self.options.rivals.iter().any(|r| r == "extend") {
            return Ok(all);
        }
        let mut session = self.data.session(PLAIN)?;
        let counted = self.counted.clone();
        let Some(mut extend) = Extend::new(&mut session, self.data.schema(), &counted, Sizes::Real)? else {
            println!("\nExtend is left out: HypoPG is not installed");
            return Ok(all);
        };
        for width in widths {
            println!("\nExtend over HypoPG with real sizes, width {width}, asked for the queries in the sum");
            head("");
            for &budget in &self.options.budgets {
                let advice = extend.choose(budget * MB as i64, *width, &mut self.workshop)?;
                all.push(self.judge(&format!("Extend, width {width}"), budget, &advice, "")?);
            }
        }
        Ok(all)
    }

    /// Builds a set, prints its line and keeps it for the report.
    fn judge(&mut self, who: &str, budget_mb: i64, advice: &Advice, beside: &str) -> Result<Found> {
        let statements = advice.statements();
        let sizes = self.workshop.build(&statements)?;
        let foreseen = advice::what_if(&mut self.session, &self.counted, &statements)?;
        let real = self.workshop.costs(&self.counted, &statements)?;
        let share = |costs: &[f64]| costs.iter().sum::<f64>() / self.baseline;
        let found = Found {
            who: who.to_owned(),
            budget_mb,
            bytes: sizes.iter().sum(),
            real: share(&real),
            planner_calls: advice.planner_calls,
        };
        println!(
            "  {budget_mb:>7} {:>7} {:>7.1} {:>8.1} {:>8.4} {:>8.4} {:>8} {:>7.2} {:>7.2} {:>7}  {beside}",
            advice.indexes.len(),
            found.bytes as f64 / MB,
            advice.bytes() as f64 / MB,
            share(&foreseen),
            found.real,
            advice.gap.map_or("–".to_owned(), |g| format!("{g:.4}")),
            advice.cpu_s,
            advice.wall_s,
            advice.planner_calls,
        );
        let indexes = advice.indexes.iter().zip(&sizes).map(|((statement, estimated), size)| {
            json!({ "definition": built::essence(statement), "estimated_bytes": estimated, "bytes": size })
        });
        let queries =
            self.counted.iter().enumerate().map(
                |(at, q)| json!({ "query": q.name, "before": self.before[at], "hypothetical": foreseen[at], "real": real[at] }),
            );
        self.reports.push(json!({
            "who": who, "budget_mb": budget_mb, "real_bytes": found.bytes, "estimated_bytes": advice.bytes(),
            "hypothetical": share(&foreseen), "real": found.real, "gap": advice.gap, "cpu_s": advice.cpu_s, "wall_s": advice.wall_s,
            "planner_calls": advice.planner_calls, "indexes": indexes.collect::<Vec<_>>(), "queries": queries.collect::<Vec<_>>(),
        }));
        std::fs::write(self.report(), serde_json::to_string_pretty(&json!({ "baseline": self.baseline, "runs": self.reports }))?)?;
        Ok(found)
    }

    /// The file with all sets, and the cost of each query.
    fn report(&self) -> PathBuf {
        target_dir().join(format!("bench-select-{}.json", self.data.schema()))
    }

    /// How well the sizes were foreseen, over all indexes that are large enough to matter.
    pub fn close(self) {
        let mut errors: Vec<(f64, &str)> = Vec::new();
        let ours = self.reports.iter().filter(|r| r["who"].as_str().is_some_and(|w| w.starts_with("IndexPilot")));
        for index in ours.filter_map(|r| r["indexes"].as_array()).flatten() {
            let (estimated, size) = (index["estimated_bytes"].as_i64().unwrap_or(0), index["bytes"].as_i64().unwrap_or(0));
            let definition = index["definition"].as_str().unwrap_or_default();
            if size > NOTABLE && !errors.iter().any(|(_, d)| *d == definition) {
                errors.push((estimated as f64 / size as f64 - 1.0, definition));
            }
        }
        errors.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
        println!("\nsizes of {} indexes over 1 MB, foreseen over real; the worst", errors.len());
        for (error, definition) in errors.iter().take(5) {
            println!("  {:>+7.1} %  {definition}", 100.0 * error);
        }
        println!("\nsets, and the cost of each query: {}", self.report().display());
    }
}

/// Heads of the columns of a set's line.
fn head(others: &str) {
    println!(
        "  {:>7} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7}  {others}",
        "budget", "indexes", "MB", "foreseen", "what-if", "built", "gap", "CPU s", "s", "calls"
    );
}
