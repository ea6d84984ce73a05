//! Time, not cost: the TPC-H queries run with no index, with IndexPilot's sets and with Extend's, in turn.
//!
//! Rounds are interleaved, so that what else the machine does disturbs all alike, and medians are compared. A query that takes longer
//! than the timeout counts as the timeout, and is not tried again with that set.

use super::advice;
use super::anchors::ANCHORS;
use super::built::Workshop;
use super::contest::MB;
use super::data::PLAIN;
use super::extend::{Extend, Sizes};
use super::query::{self, Query};
use super::tpch;
use crate::claim;
use crate::options::Options;
use indexpilot_tests::{Result, target_dir};
use postgres::error::SqlState;
use rand::seq::SliceRandom;
use serde_json::json;
use std::time::Instant;

/// A query that takes this much longer than without an index was harmed.
const SLOWER: f64 = 1.1;
/// Below this many milliseconds a difference is noise.
const FELT: f64 = 20.0;

struct Side {
    name: String,
    statements: Vec<String>,
    cost: f64,
    /// Milliseconds of each query in each round.
    times: Vec<Vec<f64>>,
    cancelled: Vec<bool>,
}

/// Runs and prints; false when the whole takes longer than with Extend's set.
///
/// # Errors
/// When the server refuses.
pub fn run(options: &Options) -> Result<bool> {
    let data = tpch::data(options.tpch_scale)?;
    let all = query::analytic(options.tpch_queries.clone())?;
    let counted = query::counted(&all);
    let mut workshop = Workshop::open(&data)?;
    let mut session = data.session(PLAIN)?;
    let baseline: f64 = workshop.costs(&counted, &[])?.iter().sum();
    let mut reports = Vec::new();
    let mut held = true;
    for &budget in &options.budgets {
        let bytes = budget * MB as i64;
        let mut sides = vec![("no index".to_owned(), Vec::new())];
        let own = advice::ask(&mut session, &counted, bytes, options.max_columns, options.limit)?;
        sides.push(("IndexPilot".to_owned(), own.statements()));
        if all.len() > counted.len() {
            let own = advice::ask(&mut session, &all, bytes, options.max_columns, options.limit)?;
            sides.push(("IndexPilot, all".to_owned(), own.statements()));
        }
        sides.extend(extend(&data, &counted, bytes, &mut workshop, options)?);
        let mut sides: Vec<Side> = sides.into_iter().map(|(name, statements)| Side::new(name, statements, all.len())).collect();
        for side in &mut sides {
            workshop.build(&side.statements)?;
            side.cost = workshop.costs(&counted, &side.statements)?.iter().sum::<f64>() / baseline;
        }
        measure(&mut sides, &all, &mut workshop, options)?;
        held &= print(budget, &sides, &all, &counted);
        let side = |s: &Side| {
            let ms: Vec<_> =
                (0..all.len()).map(|q| json!({ "query": all[q].name, "ms": s.median(q), "cancelled": s.cancelled[q] })).collect();
            json!({ "side": s.name, "indexes": s.statements, "cost": s.cost, "queries": ms })
        };
        reports.push(json!({ "budget_mb": budget, "sides": sides.iter().map(side).collect::<Vec<_>>() }));
    }
    workshop.show(&[])?;
    let file = target_dir().join("bench-select-real.json");
    std::fs::write(&file, serde_json::to_string_pretty(&json!(reports))?)?;
    println!("\nall times: {}", file.display());
    Ok(held)
}

/// Extend's set, of the width whose set is worth more when built, and how it does beside the published best.
fn extend(
    data: &super::data::Data,
    counted: &[Query],
    bytes: i64,
    workshop: &mut Workshop,
    options: &Options,
) -> Result<Option<(String, Vec<String>)>> {
    let mut session = data.session(PLAIN)?;
    if !options.rivals.is_empty() && !options.rivals.iter().any(|r| r == "extend") {
        return Ok(None);
    }
    let Some(mut extend) = Extend::new(&mut session, data.schema(), counted, Sizes::Real)? else {
        println!("Extend is left out: HypoPG is not installed");
        return Ok(None);
    };
    let mut best: Option<(f64, String, Vec<String>)> = None;
    for width in [2, 3] {
        let set = extend.choose(bytes, width, workshop)?.statements();
        let cost: f64 = workshop.costs(counted, &set)?.iter().sum();
        if best.as_ref().is_none_or(|(least, _, _)| cost < *least) {
            best = Some((cost, format!("Extend, width {width}"), set));
        }
    }
    Ok(best.map(|(_, name, set)| (name, set)))
}

impl Side {
    fn new(name: String, statements: Vec<String>, queries: usize) -> Self {
        Side { name, statements, cost: 1.0, times: vec![Vec::new(); queries], cancelled: vec![false; queries] }
    }

    fn median(&self, query: usize) -> f64 {
        let mut times = self.times[query].clone();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(0.0)
    }

    fn total(&self, queries: impl Iterator<Item = usize>) -> f64 {
        queries.map(|q| self.median(q)).sum()
    }
}

fn measure(sides: &mut [Side], queries: &[Query], workshop: &mut Workshop, options: &Options) -> Result<()> {
    let timeout = options.timeout.as_millis() as f64;
    let mut order: Vec<usize> = (0..sides.len()).collect();
    // The first round brings data into memory, and is not counted.
    for round in 0..=options.rounds {
        for (at, query) in queries.iter().enumerate() {
            order.shuffle(&mut rand::rng());
            for &side in &order {
                let side = &mut sides[side];
                if side.cancelled[at] {
                    continue;
                }
                workshop.show(&side.statements)?;
                workshop.session.client.batch_execute(&format!("SET statement_timeout = {timeout}"))?;
                let start = Instant::now();
                let result = workshop.session.client.query(&query.sql, &[]);
                let ms = start.elapsed().as_secs_f64() * 1000.0;
                workshop.session.client.batch_execute("RESET statement_timeout")?;
                match result {
                    Err(e) if e.code() == Some(&SqlState::QUERY_CANCELED) => {
                        side.cancelled[at] = true;
                        side.times[at] = vec![timeout];
                    }
                    Err(e) => return Err(format!("{}: {e}", query.name).into()),
                    Ok(_) if round > 0 => side.times[at].push(ms),
                    Ok(_) => {}
                }
            }
        }
    }
    Ok(())
}

fn print(budget: i64, sides: &[Side], queries: &[Query], counted: &[Query]) -> bool {
    println!("\n{budget} MB: median milliseconds, > for at least, * for more than {SLOWER} times as long as without an index");
    print!("  {:24}", "query");
    sides.iter().for_each(|s| print!(" {:>16}", s.name));
    println!();
    let mut harmed = vec![Vec::new(); sides.len()];
    for (at, query) in queries.iter().enumerate() {
        print!("  {:24}", query.name);
        for (number, side) in sides.iter().enumerate() {
            let (ms, without) = (side.median(at), sides[0].median(at));
            let slower = ms > SLOWER * without && ms > without + FELT;
            if slower {
                harmed[number].push(query.name.as_str());
            }
            let (more, star) = (if side.cancelled[at] { ">" } else { "" }, if slower { "*" } else { " " });
            print!(" {:>15}{star}", format!("{more}{ms:.0}"));
        }
        println!();
    }
    let of = |name: &str| counted.iter().any(|q| q.name == name);
    let in_sum = || (0..queries.len()).filter(|q| of(&queries[*q].name));
    for (label, figure) in [
        ("all", &(|s: &Side| format!("{:.0}", s.total(0..queries.len()))) as &dyn Fn(&Side) -> String),
        ("those in the sum", &|s: &Side| format!("{:.0}", s.total(in_sum()))),
        ("relative", &|s: &Side| format!("{:.3}", s.total(in_sum()) / sides[0].total(in_sum()))),
        ("relative cost", &|s: &Side| format!("{:.3}", s.cost)),
    ] {
        print!("  {label:24}");
        sides.iter().for_each(|s| print!(" {:>15} ", figure(s)));
        println!();
    }
    if let Some(anchor) = ANCHORS.iter().find(|a| a.budget_mb == budget) {
        println!(
            "  published at this budget: {} {:.4}, integer program {:.4} of the cost",
            anchor.best.0, anchor.best.2, anchor.program.1
        );
    }
    for (side, harmed) in sides.iter().zip(&harmed).skip(1) {
        println!(
            "  slower than without an index with {}'s set: {}",
            side.name,
            if harmed.is_empty() { "none".into() } else { harmed.join(", ") }
        );
    }
    let rival = sides.iter().find(|s| s.name.starts_with("Extend"));
    rival.is_none_or(|rival| {
        let (own, theirs) = (sides[1].total(in_sum()), rival.total(in_sum()));
        claim(own <= theirs, &format!("{budget} MB: {own:.0} ms in all, with {}'s set {theirs:.0}", rival.name))
    })
}
