//! User instructions per query, counted by callgrind.
//!
//! The server runs as a single process (`postgres --single`) under valgrind, which counts the same for the same work however busy the
//! machine is. Start and end of the server, and the first executions, cost as much in a short run as in a long one: the difference
//! of two runs, by the number of queries that one has more, is what one query costs.

use crate::claim;
use crate::options::Options;
use crate::rivals::Rival;
use indexpilot_tests::{Result, Stop, target_dir};
use std::path::PathBuf;

/// A kind of query, and how many instructions IndexPilot may add to one.
struct Workload {
    name: &'static str,
    bar: f64,
    /// Executions for each that the options ask for: long queries need fewer.
    share: usize,
    prepare: Option<&'static str>,
    query: fn(usize) -> String,
}

const WORKLOADS: [Workload; 3] = [
    Workload {
        name: "prepared select",
        bar: 950.0,
        share: 1,
        prepare: Some("PREPARE p(int) AS SELECT abalance FROM pgbench_accounts WHERE aid = $1"),
        query: |i| format!("EXECUTE p({i})"),
    },
    Workload {
        name: "simple select",
        bar: 2500.0,
        share: 1,
        prepare: None,
        query: |i| format!("SELECT abalance FROM pgbench_accounts WHERE aid = {i}"),
    },
    Workload {
        name: "three-table join",
        bar: 6500.0,
        share: 4,
        prepare: None,
        query: |i| {
            format!(
                "SELECT a.aid, b.bid, count(*) FROM pgbench_accounts a JOIN pgbench_branches b ON b.bid = a.bid \
                 LEFT JOIN pgbench_tellers t ON t.bid = b.bid AND t.tid > 3 \
                 WHERE a.aid BETWEEN {i} AND {} AND b.bbalance >= 0 GROUP BY 1, 2 ORDER BY 1",
                i + 5
            )
        },
    },
];

/// What one run of the single-user server found.
struct Run {
    /// Zero without valgrind.
    instructions: u64,
    /// How many statements the extension counted; `None` without one.
    counted: Option<i64>,
}

/// Measures and prints; false when a bar was missed, an error when somebody did not count what was run.
pub fn run(rivals: &mut [Rival], options: &Options) -> Result<bool> {
    println!("\nuser instructions per query (callgrind, postgres --single)\n");
    println!("  {:18} {:20} {:>12} {:>10} {:>8} {:>8} {:>12}", "", "", "a query", "added", "ratio", "bar", "counted");
    for rival in rivals.iter_mut() {
        rival.cluster.stop(Stop::Fast)?;
    }
    let mut missed = Vec::new();
    for workload in &WORKLOADS {
        let (short, long) = (options.runs.0 / workload.share, options.runs.1 / workload.share);
        let mut none = 0.0;
        for rival in rivals.iter() {
            // Whatever happens only once in the life of a server, such as the first samples of a query, has happened.
            single(rival, workload, long, None)?;
            let a = single(rival, workload, short, Some("short"))?;
            let b = single(rival, workload, long, Some("long"))?;
            let each = (b.instructions as f64 - a.instructions as f64) / (long - short) as f64;
            let counted = match (a.counted, b.counted) {
                (None, None) => "–".to_owned(),
                (Some(a), Some(b)) if b - a == (long - short) as i64 => format!("{b} of {b}"),
                (a, b) => {
                    let (a, b) = (a.unwrap_or(0), b.unwrap_or(0));
                    return Err(format!(
                        "{} counted {a} of {short} and {b} of {long} executions: {} was not captured",
                        rival.kind.name, workload.name
                    )
                    .into());
                }
            };
            if rival.kind.counted.is_none() {
                none = each;
            }
            let (own, added) = (rival.kind.name == "indexpilot", each - none);
            let bar = if own { format!("{:.0}", workload.bar) } else { String::new() };
            println!(
                "  {:18} {:20} {each:>12.0} {added:>+10.0} {:>8.4} {bar:>8} {counted:>12}",
                workload.name,
                rival.kind.name,
                each / none
            );
            if own {
                missed.push((workload, added));
            }
        }
    }
    println!();
    let mut held = true;
    for (workload, added) in missed {
        held &= claim(added <= workload.bar, &format!("{}: {added:+.0} instructions, bar {:.0}", workload.name, workload.bar));
    }
    println!("  profiles of the long runs: {}", profiles()?.display());
    for rival in rivals.iter_mut() {
        rival.cluster.start()?;
    }
    Ok(held)
}

/// Runs some queries; under callgrind when the run has a name, under which its profile is kept. What was counted is asked for in
/// servers of their own before and after: flushing and asking are no part of a query's cost.
fn single(rival: &Rival, workload: &Workload, queries: usize, run: Option<&str>) -> Result<Run> {
    let before = count(rival)?;
    let mut statements = vec![format!("SELECT count(abalance) FROM pgbench_accounts WHERE aid <= {}", queries + 10)];
    statements.extend(workload.prepare.map(str::to_owned));
    statements.extend((1..=queries).map(workload.query));

    // Written by the server's user, so it lies beside the data until it is known to be good.
    let profile = rival.cluster.data().join("callgrind.out");
    let out = format!("--callgrind-out-file={}", profile.display());
    let valgrind = ["valgrind", "--tool=callgrind", "--trace-children=no", &out];
    let under: &[&str] = if run.is_some() { &valgrind } else { &[] };
    let (_, stderr) = execute(rival, under, &statements)?;
    let instructions = match run {
        None => 0,
        Some(name) => {
            let to = format!("{}.{}.{name}.callgrind", rival.kind.name, workload.name.replace(' ', "-"));
            std::fs::copy(&profile, profiles()?.join(to))?;
            std::fs::remove_file(&profile)?;
            let collected = stderr.lines().find_map(|l| l.split_once("Collected : "));
            collected.and_then(|(_, n)| n.trim().parse().ok()).ok_or_else(|| format!("callgrind counted nothing:\n{stderr}"))?
        }
    };
    // The query that warms the table is on it too.
    let counted = before.zip(count(rival)?).map(|(before, after)| after - before - 1);
    Ok(Run { instructions, counted })
}

/// Statements on pgbench_accounts that the rival has counted since its server was made.
fn count(rival: &Rival) -> Result<Option<i64>> {
    let Some(counted) = rival.kind.counted else { return Ok(None) };
    let statements: Vec<String> = rival.kind.flush().into_iter().chain([counted]).map(str::to_owned).collect();
    let (stdout, _) = execute(rival, &[], &statements)?;
    let figure = stdout.lines().find_map(self::counted);
    Ok(Some(figure.ok_or_else(|| format!("{} said nothing of what it counted", rival.kind.name))?))
}

fn execute(rival: &Rival, under: &[&str], statements: &[String]) -> Result<(String, String)> {
    let (stdout, stderr) = rival.cluster.single("postgres", under, statements)?;
    match stderr.lines().find(|l| ["ERROR:", "FATAL:", "PANIC:"].iter().any(|e| l.contains(e))) {
        Some(error) => Err(format!("{}: {error}", rival.kind.name).into()),
        None => Ok((stdout, stderr)),
    }
}

/// The figure in a line like ` 1: counted = "17" (typeid = 20, len = 8, typmod = -1, byval = t)`.
fn counted(line: &str) -> Option<i64> {
    line.split_once("counted = \"")?.1.split_once('"')?.0.parse().ok()
}

fn profiles() -> Result<PathBuf> {
    let dir = target_dir().join("bench");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_are_found_in_what_a_single_user_server_prints() {
        let line = "\t 1: counted = \"1200\"\t(typeid = 20, len = 8, typmod = -1, byval = t)";
        assert_eq!(super::counted(line), Some(1200));
        assert_eq!(super::counted("\t 1: counted\t(typeid = 20, len = 8, typmod = -1, byval = t)"), None);
    }
}
