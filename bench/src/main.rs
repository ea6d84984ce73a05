//! `make bench-*`: what IndexPilot costs, measured beside other extensions on throw-away servers.
//!
//! - `capture`: user instructions that one query costs more than on the bare server (`instructions`), and CPU time per transaction
//!   (`cpu`), for each of the `rivals`;
//! - `cardinality`: a million distinct queries and ten thousand tenants: memory and tables stay within their bounds.
//! - `select`: what the choice of indexes on TPC-H is worth, beside other advisors, in indexes that are really built;
//! - `select-real`: the time of its queries with those indexes, with Extend's, and without;
//! - `select-stars`: the same for ninety questions over 24 tables;
//! - `select-scale`: seconds and memory for thousands of templates over hundreds of tables;
//! - `verify`: how often the verdict on an index is right, under load.
//!
//! Each prints its figures beside the bars, and ends with 1 when a bar is missed.

mod cardinality;
mod cpu;
mod instructions;
mod options;
mod rivals;
mod select;
mod verdicts;

use indexpilot_tests::Result;
use options::{Command, Options};
use rivals::Rival;
use std::process::ExitCode;

fn main() -> ExitCode {
    match Options::read().and_then(|options| options.map_or(Ok(true), |o| run(&o))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            // The client's own text leaves out what the server said.
            let said = e.source().map(|s| format!(": {s}")).unwrap_or_default();
            eprintln!("indexpilot-bench: {e}{said}");
            ExitCode::FAILURE
        }
    }
}

/// False when a bar was missed.
fn run(options: &Options) -> Result<bool> {
    match options.command {
        Command::Capture => capture(options),
        Command::Cardinality => cardinality::run(options),
        Command::Select => select::tpch::run(options),
        Command::SelectReal => select::real::run(options),
        Command::SelectScale => select::scale::run(options),
        Command::SelectStars => select::stars::run(options),
        Command::Verify => verdicts::run(),
    }
}

fn capture(options: &Options) -> Result<bool> {
    let mut rivals: Vec<Rival> = rivals::start(options)?;
    let mut held = true;
    if options.instructions {
        held &= instructions::run(&mut rivals, options)?;
    }
    if options.cpu {
        // Its share drowns in the noise.
        rivals.retain(|rival| rival.kind.name != "query_id");
        cpu::run(&mut rivals, options)?;
    }
    Ok(held)
}

/// A claim with its figures, printed; returns whether it holds.
pub fn claim(holds: bool, text: &str) -> bool {
    println!("  {} {text}", if holds { "ok    " } else { "MISSED" });
    holds
}
