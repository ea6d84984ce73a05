//! What the choice of indexes is worth: `select` on TPC-H at scale 1, in bytes and costs of indexes that are really built, beside what
//! others reach (`anchors`) and a rival that is run here (`extend`).

mod advice;
mod anchors;
mod built;
mod data;
mod extend;
mod query;

use crate::claim;
use crate::options::Options;
use advice::Advice;
use anchors::{ANCHORS, EXTEND, TOOLS};
use built::Workshop;
use data::{Data, PLAIN, Session};
use extend::{Extend, Sizes};
use indexpilot_demo::{tpch, ui};
use indexpilot_tests::{Result, target_dir};
use query::Query;
use serde_json::json;

const MB: f64 = 1e6;

/// An index whose size is compared with what was foreseen.
const NOTABLE: i64 = 1_000_000;

/// TPC-H at scale 1.
fn tpch_data(scale: f64) -> Result<Data> {
    data::start(&format!("tpch-{scale}"), "tpch", |client| {
        let bar = ui::Bar::new("loading TPC-H", tpch::rows(scale));
        tpch::load(client, scale, &bar)?;
        bar.done("");
        Ok(())
    })
}

/// Runs and prints; false when somebody else does better.
pub fn run(options: &Options) -> Result<bool> {
    let data = tpch_data(options.tpch_scale)?;
    let all = query::analytic(options.tpch_queries.clone())?;
    let counted = query::counted(&all);
    let known = query::is_tpch(&all) && options.tpch_scale == 1.0;
    let mut session = data.session(PLAIN)?;
    let mut workshop = Workshop::open(&data)?;
    let baseline: f64 = sum(&workshop.costs(&counted, &[])?);
    println!("\n{} queries, {} of them in the sum; planner cost without indexes {baseline:.0}", all.len(), counted.len());
    let mut reports = Vec::new();
    let mut held = true;
    for (title, asked) in [("asked for the queries in the sum", &counted), ("asked for all queries", &all)] {
        if asked.len() == counted.len() && title.ends_with("all queries") {
            continue;
        }
        println!("\n{title}; costs over those in the sum, relative to no index; MB are 10^6 bytes");
        head("    best  program");
        for &budget in &options.budgets {
            let advice = advice::ask(&mut session, asked, budget * MB as i64, options.max_columns, options.limit)?;
            let found = judge(&mut workshop, &mut session, &counted, baseline, &advice)?;
            let anchor = ANCHORS.iter().find(|a| a.budget_mb == budget).filter(|_| known);
            let others = anchor.map_or(String::new(), |a| format!("{:>8.4} {:>8.4}", a.best.2, a.program.1));
            print(budget, &advice, &found, &others);
            if let Some(anchor) = anchor {
                held &= found.real <= anchor.best.2.min(anchor.program.1) && found.bytes <= budget * MB as i64;
            }
            reports.push(report(title, budget, &advice, &found));
        }
    }
    if options.rivals.is_empty() || options.rivals.iter().any(|r| r == "extend") {
        let mut rival = data.session(PLAIN)?;
        match Extend::new(&mut rival, "tpch", &counted, Sizes::Real)? {
            None => println!("\nExtend is left out: HypoPG is not installed"),
            Some(mut extend) => {
                println!("\nExtend over HypoPG, asked for the queries in the sum, with real sizes");
                head("");
                for width in [2, 3] {
                    for &budget in &options.budgets {
                        let advice = extend.choose(budget * MB as i64, width, &mut workshop)?;
                        let found = judge(&mut workshop, &mut session, &counted, baseline, &advice)?;
                        print(budget, &advice, &found, &format!("width {width}"));
                        reports.push(report(&format!("Extend, width {width}"), budget, &advice, &found));
                    }
                }
            }
        }
        if known {
            held &= faithful(&mut rival, &counted, &mut workshop, baseline)?;
        }
    }
    if known {
        println!("\nothers without a budget");
        for (name, mb, hypothetical, real) in TOOLS {
            println!("  {name:30} {mb:>5} MB  what-if {hypothetical:.4}  built {real:.4}");
        }
    }
    sizes(&reports);
    let file = target_dir().join("bench-select-tpch.json");
    std::fs::write(&file, serde_json::to_string_pretty(&json!({ "baseline": baseline, "runs": reports }))?)?;
    println!("\nsets and costs of each query: {}", file.display());
    Ok(held)
}

/// A set as it is worth when built.
struct Found {
    bytes: i64,
    foreseen: f64,
    real: f64,
    indexes: serde_json::Value,
    queries: serde_json::Value,
}

/// Heads of the columns that [`print`] fills.
fn head(others: &str) {
    println!(
        "  {:>7} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7}  {others}",
        "budget", "indexes", "MB", "foreseen", "what-if", "built", "gap", "CPU s", "s", "calls"
    );
}

fn print(budget: i64, advice: &Advice, found: &Found, others: &str) {
    println!(
        "  {budget:>7} {:>7} {:>7.1} {:>8.1} {:>8.4} {:>8.4} {:>8} {:>7.2} {:>7.2} {:>7}  {others}",
        advice.indexes.len(),
        found.bytes as f64 / MB,
        advice.bytes() as f64 / MB,
        found.foreseen,
        found.real,
        advice.gap.map_or("–".to_owned(), |g| format!("{g:.4}")),
        advice.cpu_s,
        advice.wall_s,
        advice.planner_calls,
    );
}

fn report(who: &str, budget: i64, advice: &Advice, found: &Found) -> serde_json::Value {
    json!({
        "who": who, "budget_mb": budget, "real_bytes": found.bytes, "estimated_bytes": advice.bytes(), "hypothetical": found.foreseen,
        "real": found.real, "gap": advice.gap, "cpu_s": advice.cpu_s, "wall_s": advice.wall_s, "planner_calls": advice.planner_calls,
        "indexes": found.indexes, "queries": found.queries,
    })
}

/// Whether our Extend, with HypoPG's sizes, reaches what the original did.
fn faithful(session: &mut Session, queries: &[Query], workshop: &mut Workshop, baseline: f64) -> Result<bool> {
    const TOLERANCE: f64 = 0.002;
    let Some(mut extend) = Extend::new(session, "tpch", queries, Sizes::Hypopg)? else { return Ok(true) };
    println!("\nthe same with HypoPG's sizes and costs, as the original was run");
    let mut held = true;
    for (budget, width, expected) in EXTEND {
        let advice = extend.choose(budget * MB as i64, width, workshop)?;
        let cost = extend.last_cost() / baseline;
        held &= claim(
            cost <= expected + TOLERANCE,
            &format!("width {width}, {budget} MB: {cost:.4}, the original {expected:.4}; {} planner calls", advice.planner_calls),
        );
    }
    Ok(held)
}

fn judge(workshop: &mut Workshop, session: &mut Session, queries: &[Query], baseline: f64, advice: &Advice) -> Result<Found> {
    let statements = advice.statements();
    let sizes = workshop.build(&statements)?;
    let before = workshop.costs(queries, &[])?;
    let foreseen = advice::what_if(session, queries, &statements)?;
    let real = workshop.costs(queries, &statements)?;
    let indexes = advice.indexes.iter().zip(&sizes).map(|((statement, estimated), size)| {
        json!({ "definition": built::essence(statement), "estimated_bytes": estimated, "bytes": size })
    });
    let each = queries
        .iter()
        .enumerate()
        .map(|(at, q)| json!({ "query": q.name, "before": before[at], "hypothetical": foreseen[at], "real": real[at] }));
    Ok(Found {
        bytes: sizes.iter().sum(),
        foreseen: sum(&foreseen) / baseline,
        real: sum(&real) / baseline,
        indexes: indexes.collect(),
        queries: each.collect(),
    })
}

fn sum(costs: &[f64]) -> f64 {
    costs.iter().sum()
}

/// How well the sizes were foreseen, over all indexes that are large enough to matter.
fn sizes(reports: &[serde_json::Value]) {
    let mut errors: Vec<(f64, String)> = Vec::new();
    for index in reports.iter().filter_map(|r| r["indexes"].as_array()).flatten() {
        let (estimated, size) = (index["estimated_bytes"].as_i64().unwrap_or(0), index["bytes"].as_i64().unwrap_or(0));
        let definition = index["definition"].as_str().unwrap_or_default().to_owned();
        if size > NOTABLE && !errors.iter().any(|(_, d)| *d == definition) {
            errors.push((estimated as f64 / size as f64 - 1.0, definition));
        }
    }
    errors.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
    println!("\nsizes of {} indexes over 1 MB, foreseen over real; the worst", errors.len());
    for (error, definition) in errors.iter().take(5) {
        println!("  {:>+7.1} %  {definition}", 100.0 * error);
    }
}
