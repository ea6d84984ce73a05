//! A large system: thousands of templates over hundreds of tables, captured and then analysed, and the same texts given to `advise()`.
//! Bars: seconds and memory of the process that decides.

use super::data::cpu_of;
use crate::cardinality::own_memory;
use crate::claim;
use crate::options::Options;
use indexpilot_tests::{Cluster, Result, poll_until};
use postgres::{Client, NoTls};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const TABLES: usize = 500;
const ROWS: usize = 10_000;
/// Columns that queries compare and sort by.
const COLUMNS: usize = 12;
/// Bars of the issue.
const SECONDS: f64 = 120.0;
const MIB: u64 = 500;

/// What one run took.
struct Took {
    seconds: f64,
    cpu_s: f64,
    /// Most memory of its own beyond what it had before, MiB.
    mib: u64,
    proposed: i64,
}

/// Runs and prints; false when a bar was missed.
///
/// # Errors
/// When the server refuses.
pub fn run(options: &Options) -> Result<bool> {
    let cluster = Cluster::build("bench-scale")
        .setting("shared_buffers", "1GB")
        .setting("autovacuum", "off")
        .setting("synchronous_commit", "off")
        .setting("max_locks_per_transaction", "256")
        .setting("indexpilot.capture_max_queries", 2 * options.templates)
        .setting("indexpilot.capture_max_templates", 2 * options.templates)
        .setting("indexpilot.mode", "observe")
        .start()?;
    let mut client = cluster.connect("postgres", "postgres")?;
    println!("{TABLES} tables of {ROWS} rows, {} templates", options.templates);
    fill(&mut client)?;
    client.batch_execute("CREATE EXTENSION indexpilot")?;
    poll_until(Duration::from_secs(60), "the database to be captured", || {
        Ok(client.query_one("SELECT value <> '0' FROM indexpilot.status WHERE name = 'capture_databases'", &[])?.get(0))
    })?;
    let mut rng = StdRng::seed_from_u64(7);
    let texts: Vec<String> = (0..options.templates).map(|n| query(n, &mut rng)).collect();
    for text in &texts {
        client.batch_execute(text)?;
    }
    client.batch_execute("SELECT indexpilot.capture_flush()")?;
    let captured: i64 = client.query_one("SELECT count(*) FROM indexpilot.workload", &[])?.get(0);
    let mut held = true;
    println!("  {captured} templates captured\n");
    for (title, statement) in [
        (
            "analyze_and_create_indexes()",
            "SELECT count(*) FILTER (WHERE decision = 'propose') FROM indexpilot.analyze_and_create_indexes(dry_run => true)",
        ),
        ("advise()", "SELECT count(*) FILTER (WHERE decision = 'propose') FROM indexpilot.advise($1)"),
    ] {
        let took = timed(&cluster, statement, &texts)?;
        held &= claim(
            took.seconds <= SECONDS && took.mib <= MIB,
            &format!(
                "{title}: {:.1} s ({:.1} s of CPU), bar {SECONDS} s; {} MiB, bar {MIB}; {} indexes",
                took.seconds, took.cpu_s, took.mib, took.proposed
            ),
        );
    }
    Ok(held)
}

fn fill(client: &mut Client) -> Result<()> {
    let columns: Vec<String> =
        (0..COLUMNS).map(|c| format!("(n * {} % {})::int AS c{c}", 7919 + 2 * c, 10_usize.pow(1 + c as u32 % 4) + c)).collect();
    let select = format!("SELECT n AS id, {}, repeat('x', 60) AS filler FROM generate_series(1, {ROWS}) n", columns.join(", "));
    for table in 0..TABLES {
        client.batch_execute(&format!("CREATE TABLE t{table} AS {select}; ALTER TABLE t{table} ADD PRIMARY KEY (id)"))?;
    }
    Ok(client.batch_execute("VACUUM (ANALYZE)")?)
}

/// The n-th query: comparisons, ranges, orders and joins of a table with the next ones, each with columns of its own.
fn query(n: usize, rng: &mut StdRng) -> String {
    let table = n % TABLES;
    let mut columns: Vec<usize> = (0..COLUMNS).collect();
    for at in 0..4 {
        columns.swap(at, rng.random_range(at..COLUMNS));
    }
    let [a, b, c, d] = [columns[0], columns[1], columns[2], columns[3]];
    let value = rng.random_range(0..10);
    match n / TABLES % 5 {
        0 => format!("SELECT id, c{b} FROM t{table} WHERE c{a} = {value} AND c{c} > 5 ORDER BY c{d} LIMIT 10"),
        1 => format!("SELECT count(*) FROM t{table} WHERE c{a} BETWEEN {value} AND {value} + 2 AND c{b} = {value}"),
        2 => {
            let next = (table + 1) % TABLES;
            format!("SELECT x.id FROM t{table} x JOIN t{next} y ON x.c{a} = y.id WHERE y.c{b} = {value} AND x.c{c} = {value}")
        }
        3 => format!("SELECT c{a}, sum(c{b}) FROM t{table} WHERE c{c} = {value} GROUP BY c{a} ORDER BY c{a}"),
        _ => format!("SELECT * FROM t{table} WHERE c{a} = {value} AND c{b} = {value} AND c{c} < 3 ORDER BY id DESC LIMIT 5"),
    }
}

/// Runs a statement in a session of its own, whose memory is watched meanwhile.
fn timed(cluster: &Cluster, statement: &str, texts: &[String]) -> Result<Took> {
    let mut client = cluster.config("postgres", "postgres").connect(NoTls)?;
    client.batch_execute("SELECT count(*) FROM indexpilot.status")?;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let (before, cpu, start) = (own_memory(pid)?, cpu_of(pid)?, Instant::now());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let over = &over;
        let watch = scope.spawn(move || {
            let mut most = 0;
            while !over.load(Relaxed) {
                most = most.max(own_memory(pid).unwrap_or(0));
                thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let row = if statement.contains("$1") { client.query_one(statement, &[&texts]) } else { client.query_one(statement, &[]) };
        let seconds = start.elapsed().as_secs_f64();
        over.store(true, Relaxed);
        let most = watch.join().map_err(|_| "the watching thread panicked")?;
        let proposed = row?.get(0);
        Ok(Took { seconds, cpu_s: cpu_of(pid)? - cpu, mib: most.saturating_sub(before) / 1024, proposed })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn templates_differ() {
        let mut rng = StdRng::seed_from_u64(7);
        let texts: HashSet<String> = (0..2500).map(|n| query(n, &mut rng)).collect();
        assert_eq!(texts.len(), 2500);
    }
}
