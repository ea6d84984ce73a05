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

/// Word for word those that the bars were measured with: capture reads the text, so its length is part of the cost.
const WORKLOADS: [Workload; 3] = [
    Workload {
        name: "prepared select",
        bar: 950.0,
        share: 1,
        prepare: Some("prepare p(int) as select abalance from pgbench_accounts where aid = $1;"),
        query: |i| format!("execute p({i});"),
    },
    Workload {
        name: "simple select",
        bar: 2500.0,
        share: 1,
        prepare: None,
        query: |i| format!("select abalance from pgbench_accounts where aid = {i};"),
    },
    Workload {
        name: "three-table join",
        bar: 6500.0,
        share: 4,
        prepare: None,
        query: |i| {
            format!(
                "select a.aid, b.bid, count(*) from pgbench_accounts a join pgbench_branches b on b.bid=a.bid \
                 left join pgbench_tellers t on t.bid=b.bid and t.tid > 3 \
                 where a.aid between {i} and {} and b.bbalance >= 0 group by 1,2 order by 1;",
                i + 5
            )
        },
    },
];

/// Measures and prints; false when a bar was missed, an error when somebody did not count what was run.
pub fn run(rivals: &mut [Rival], options: &Options) -> Result<bool> {
    println!("\nuser instructions per query (callgrind, postgres --single)\n");
    println!("  {:18} {:20} {:>12} {:>10} {:>8} {:>8} {:>8}", "", "", "a query", "added", "ratio", "bar", "counted");
    for rival in rivals.iter_mut() {
        rival.cluster.stop(Stop::Fast)?;
    }
    let mut missed = Vec::new();
    for workload in &WORKLOADS {
        let (short, long) = (options.runs.0 / workload.share, options.runs.1 / workload.share);
        let mut none = 0.0;
        for rival in rivals.iter() {
            // Whatever happens only once in the life of a server, such as the first samples of a query, happens here.
            let before = counted(rival)?;
            plain(rival, &workload.statements(long))?;
            let after = counted(rival)?;
            let warming = workload.statements(long).len() - workload.prepare.iter().len();
            let all = match (before, after) {
                (Some(before), Some(after)) if after - before != warming as i64 => {
                    let (name, what) = (rival.kind.name, workload.name);
                    return Err(format!(
                        "{name} counted {} of {warming} executions of {what}: they were not captured",
                        after - before
                    )
                    .into());
                }
                (Some(_), Some(_)) => "all",
                _ => "–",
            };
            let each = (under_callgrind(rival, workload, long, "long")? as f64
                - under_callgrind(rival, workload, short, "short")? as f64)
                / (long - short) as f64;
            let expected = (short + long + 2) as i64;
            let now = counted(rival)?;
            if let (Some(after), Some(now)) = (after, now)
                && now - after != expected
            {
                return Err(format!("{} counted {} of {expected} executions under callgrind", rival.kind.name, now - after).into());
            }
            if rival.kind.name == "none" {
                none = each;
            }
            let (own, added) = (rival.kind.name == "indexpilot", each - none);
            let bar = if own { format!("{:.0}", workload.bar) } else { String::new() };
            println!(
                "  {:18} {:20} {each:>12.0} {added:>+10.0} {:>8.4} {bar:>8} {all:>8}",
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

impl Workload {
    /// One query that reads the rows into memory, then as many of the kind as asked for.
    fn statements(&self, queries: usize) -> Vec<String> {
        let warm = format!("SELECT count(abalance) FROM pgbench_accounts WHERE aid <= {}", queries + 10);
        let all = self.prepare.map(str::to_owned).into_iter().chain([warm]).chain((1..=queries).map(self.query));
        all.collect()
    }
}

/// Runs statements as fast as the server can; returns what it printed.
fn plain(rival: &Rival, statements: &[String]) -> Result<String> {
    let (stdout, stderr) = rival.cluster.single("postgres", &[], statements)?;
    no_errors(rival, &stderr)?;
    Ok(stdout)
}

/// How many statements the extension has counted so far; `None` when there is none. Counts survive the end of a server; asking for
/// them is work that must not be measured, so it has a server of its own.
fn counted(rival: &Rival) -> Result<Option<i64>> {
    let Some(counted) = rival.kind.counted else { return Ok(None) };
    let statements: Vec<String> = rival.kind.flush().into_iter().chain([counted]).map(str::to_owned).collect();
    let printed = plain(rival, &statements)?;
    let figure = printed.lines().find_map(figure);
    figure.map(Some).ok_or_else(|| format!("{} did not tell its counts:\n{printed}", rival.kind.name).into())
}

/// Instructions of a run; its profile is kept.
fn under_callgrind(rival: &Rival, workload: &Workload, queries: usize, run: &str) -> Result<u64> {
    // Written by the server's user, so it lies beside the data first.
    let profile = rival.cluster.data().join("callgrind.out");
    let out = format!("--callgrind-out-file={}", profile.display());
    let valgrind = ["valgrind", "--tool=callgrind", "--trace-children=no", &out];
    let (_, stderr) = rival.cluster.single("postgres", &valgrind, &workload.statements(queries))?;
    no_errors(rival, &stderr)?;
    std::fs::copy(&profile, profiles()?.join(format!("{}.{}.{run}.callgrind", rival.kind.name, workload.name.replace(' ', "-"))))?;
    std::fs::remove_file(&profile)?;
    let collected = stderr.lines().find_map(|l| l.split_once("Collected : "));
    collected.and_then(|(_, n)| n.trim().parse().ok()).ok_or_else(|| format!("callgrind counted nothing:\n{stderr}").into())
}

fn no_errors(rival: &Rival, stderr: &str) -> Result<()> {
    match stderr.lines().find(|l| ["ERROR:", "FATAL:", "PANIC:"].iter().any(|e| l.contains(e))) {
        Some(error) => Err(format!("{}: {error}", rival.kind.name).into()),
        None => Ok(()),
    }
}

/// The figure in a line like ` 1: counted = "17" (typeid = 20, len = 8, typmod = -1, byval = t)`.
fn figure(line: &str) -> Option<i64> {
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
        assert_eq!(super::figure(line), Some(1200));
        assert_eq!(super::figure("\t 1: counted\t(typeid = 20, len = 8, typmod = -1, byval = t)"), None);
    }
}
