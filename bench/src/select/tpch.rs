//! TPC-H at scale 1, beside published advisors.

use super::anchors::{ANCHORS, EXTEND, TOOLS};
use super::contest::{Contest, MB};
use super::data::{self, Data, PLAIN};
use super::extend::{Extend, Sizes};
use super::query;
use crate::claim;
use crate::options::Options;
use indexpilot_demo::{tpch, ui};
use indexpilot_tests::Result;

/// What a faithful copy of Extend may miss the original's figures by: statistics are a sample.
const TOLERANCE: f64 = 0.002;

pub fn data(scale: f64) -> Result<Data> {
    data::start(&format!("tpch-{scale}"), "tpch", |client| {
        let bar = ui::Bar::new("loading TPC-H", tpch::rows(scale));
        tpch::load(client, scale, &bar)?;
        bar.done("");
        Ok(())
    })
}

/// Runs and prints; false when somebody else does better, or a set is larger than its budget.
///
/// # Errors
/// When the server refuses.
pub fn run(options: &Options) -> Result<bool> {
    let data = data(options.tpch_scale)?;
    let all = query::analytic(options.tpch_queries.clone())?;
    let counted = query::counted(&all);
    let known = query::is_tpch(&all) && options.tpch_scale == 1.0;
    let mut contest = Contest::open(&data, options, counted.clone())?;
    println!(
        "\n{} queries, {} of them in the sum; planner cost without indexes {:.0}. Costs are relative to that, MB are 10^6 bytes",
        all.len(),
        counted.len(),
        contest.baseline
    );
    let anchor = |budget: i64| ANCHORS.iter().find(|a| a.budget_mb == budget).filter(|_| known);
    let beside =
        |budget: i64| anchor(budget).map_or(String::new(), |a| format!("{:>8.4} {:>8.4}  {}", a.best.2, a.program.1, a.best.0));
    let ours = contest.ours("asked for the queries in the sum", &counted, "    best  program  of others", &beside)?;
    if all.len() > counted.len() {
        contest.ours("asked for all queries", &all, "    best  program  of others", &beside)?;
    }
    contest.frontier()?;
    let rivals = contest.rival(&[2, 3])?;
    let mut held = true;
    println!();
    for found in &ours {
        let figures = anchor(found.budget_mb).map(|a| (a.best.2.min(a.program.1), "published"));
        let rival = rivals.iter().filter(|r| r.budget_mb == found.budget_mb).map(|r| (r.real, r.who.as_str()));
        if let Some((cost, who)) = rival.chain(figures).min_by(|a, b| a.0.total_cmp(&b.0)) {
            let (mb, real) = (found.bytes as f64 / MB, found.real);
            let budget = found.budget_mb;
            held &= claim(
                found.fits() && real <= cost,
                &format!("{budget} MB: {real:.4} of the cost in {mb:.1} MB, {cost:.4} is the best of others ({who})"),
            );
        }
    }
    if known && !rivals.is_empty() {
        held &= faithful(&data, &mut contest)?;
    }
    if known {
        println!("\nothers without a budget");
        for (name, mb, hypothetical, real) in TOOLS {
            println!("  {name:30} {mb:>5} MB  what-if {hypothetical:.4}  built {real:.4}");
        }
    }
    contest.close();
    Ok(held)
}

/// Whether our Extend, with HypoPG's sizes, reaches what the original did.
fn faithful(data: &Data, contest: &mut Contest<'_>) -> Result<bool> {
    let mut session = data.session(PLAIN)?;
    let Some(mut extend) = Extend::new(&mut session, data.schema(), &contest.counted, Sizes::Hypopg)? else { return Ok(true) };
    println!("\nExtend with HypoPG's sizes and costs, as the original was run");
    let mut held = true;
    for (budget, width, expected) in EXTEND {
        let advice = extend.choose(budget * MB as i64, width, &mut contest.workshop)?;
        let cost = extend.last_cost() / contest.baseline;
        held &= claim(
            cost <= expected + TOLERANCE,
            &format!("width {width}, {budget} MB: {cost:.4}, the original {expected:.4}; {} planner calls", advice.planner_calls),
        );
    }
    Ok(held)
}
