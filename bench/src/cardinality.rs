//! More queries and tenants than there is room for: what is kept stays bounded, what is not kept is counted, nothing fails.
//!
//! All settings are the defaults. First every query has a template of its own and the next tenant; then few templates run for
//! every tenant. Columns in an order of their own make a template: five of sixteen are 1 048 576. Amid the flood, a query that was
//! there before it is counted to the last call; after it, a new one finds room.

use crate::claim;
use crate::options::Options;
use indexpilot_tests::{Cluster, Result, poll_until};
use postgres::{Client, NoTls};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const SESSIONS: usize = 2;
const COLUMNS: usize = 16;
/// A query that goes on through both parts, without a tenant, and after how many others it runs.
const STEADY: &str = "RESET indexpilot.tenant_id; SELECT n FROM steady WHERE n = 1";
const STEADY_EVERY: usize = 100;
/// How soon after the flood a new query must be counted.
const RECOVERY: Duration = Duration::from_secs(60);
/// Templates of the second part.
const FEW: usize = 10;
/// What a session's own memory may grow by once its first tenth is done, kB: caches of the server itself are full by then.
const SESSION_GROWTH: u64 = 2048;
/// What a worker may need, kB.
const WORKER: u64 = 256 * 1024;
/// Bar of the issue: shared memory at the defaults.
const SHARED: i64 = 32 << 20;

/// What one session ran, and its own memory (kB) after a tenth and at the end.
struct Session {
    executed: u64,
    steady: i64,
    early: u64,
    late: u64,
}

/// Runs and prints; false when a bound was missed.
pub fn run(options: &Options) -> Result<bool> {
    if options.queries > COLUMNS.pow(5) {
        return Err(format!("there are only {} distinct queries", COLUMNS.pow(5)).into());
    }
    let cluster = Cluster::build("bench-cardinality").start()?;
    let mut client = cluster.connect("postgres", "postgres")?;
    let columns: Vec<String> = (0..COLUMNS).map(|c| format!("c{c:x} int DEFAULT {c}")).collect();
    client.batch_execute(&format!(
        "CREATE TABLE wide (id int PRIMARY KEY, {}); INSERT INTO wide VALUES (1); \
         CREATE TABLE steady AS SELECT 1 AS n; CREATE TABLE later AS SELECT 1 AS n; CREATE EXTENSION indexpilot",
        columns.join(", ")
    ))?;
    poll_until(Duration::from_secs(60), "the database to be captured", || {
        Ok(status(&mut client)?.get("capture_databases").is_some_and(|n| n != "0"))
    })?;
    client.batch_execute(STEADY)?;
    client.batch_execute("SELECT indexpilot.capture_flush()")?;
    let shared = shared_memory(&mut client)?;

    println!(
        "\n{} distinct queries, {} tenants, {SESSIONS} sessions, all settings at their defaults",
        options.queries, options.tenants
    );
    let tenant = |n: usize| format!("SET indexpilot.tenant_id = 'tenant {:05}'; ", n % options.tenants);
    let distinct = |n: usize| tenant(n) + &query(n);
    let (first, workers) = watched(&cluster, options.queries, &distinct)?;
    let few = |n: usize| tenant(n / FEW) + &query(n % FEW);
    println!("then {FEW} of them for every tenant");
    let (second, more_workers) = watched(&cluster, options.tenants * FEW, &few)?;
    let worker = workers.max(more_workers);
    let (steady, start) = (1 + first.iter().chain(&second).map(|s| s.steady).sum::<i64>(), Instant::now());
    let recovered = poll_until(RECOVERY, "a new query to be counted", || {
        client.batch_execute("SELECT n FROM later")?;
        Ok(calls(&mut client, "later")? > 0)
    });
    let recovery = start.elapsed().as_secs_f64();

    client.batch_execute("SELECT indexpilot.capture_flush()")?;
    let after = status(&mut client)?;
    let figure = |name: &str| after.get(name).and_then(|v| v.parse::<i64>().ok()).unwrap_or(0);
    println!("\n  status");
    let mut names: Vec<&String> = after.keys().filter(|n| n.starts_with("capture") || n.starts_with("workload")).collect();
    names.sort();
    for name in names {
        println!("    {name:36} {}", after[name]);
    }
    println!("  tables");
    for row in client.query(
        "SELECT c.relname::text, (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM indexpilot.%I', c.relname), false, true, '')))[1]::text::bigint, \
                pg_total_relation_size(c.oid) FROM pg_class c WHERE c.relnamespace = 'indexpilot'::regnamespace AND c.relkind = 'r' \
            AND (c.relname LIKE 'workload%' OR c.relname LIKE 'query%') ORDER BY 1",
        &[],
    )? {
        println!("    {:36} {:>9} rows {:>6} MB", row.get::<_, String>(0), row.get::<_, i64>(1), row.get::<_, i64>(2) >> 20);
    }
    let most: i64 = client
        .query_one(
            "SELECT coalesce(max(n), 0) FROM (SELECT count(DISTINCT tenant_id) AS n FROM indexpilot.query_stats GROUP BY workload_id) t",
            &[],
        )?
        .get(0);
    println!("    most tenants of one template         {most:>9}\n");

    let mut held = true;
    let now = shared_memory(&mut client)?;
    held &= claim(now == shared && shared <= SHARED, &format!("shared memory: {shared} bytes before, {now} after, bar {SHARED}"));
    for (part, sessions) in [("distinct queries", &first), ("few queries", &second)] {
        for s in sessions {
            let text =
                format!("a session of {} {part}: {} kB of its own after a tenth, {} kB at its end", s.executed, s.early, s.late);
            held &= claim(s.late <= s.early + SESSION_GROWTH, &text);
        }
    }
    held &= claim(worker <= WORKER, &format!("workers: at most {worker} kB of their own, bar {WORKER}"));
    let (evicted, dropped) = (figure("capture_evicted"), figure("capture_dropped"));
    held &= claim(
        evicted + dropped > 0,
        &format!("what did not fit was counted: {evicted} templates evicted, {dropped} executions dropped"),
    );
    held &= claim(figure("capture_failures") == 0, &format!("failures inside capture: {}", figure("capture_failures")));
    let counted = calls(&mut client, "steady")?;
    held &= claim(counted == steady, &format!("the query that went on all the time: {counted} of its {steady} calls counted"));
    held &= claim(
        recovered.is_ok(),
        &format!("a new query after the flood: counted within {recovery:.0} s, bar {} s", RECOVERY.as_secs()),
    );
    let complaints: Vec<String> = cluster
        .log()
        .lines()
        .filter(|l| ["ERROR:", "FATAL:", "PANIC:", "WARNING:"].iter().any(|w| l.contains(w)))
        .map(str::to_owned)
        .collect();
    held &= claim(complaints.is_empty(), &format!("complaints in the server's log: {}", complaints.len()));
    for line in complaints.iter().take(5) {
        println!("           {line}");
    }
    Ok(held)
}

/// The n-th query.
fn query(n: usize) -> String {
    let columns: Vec<String> = (0..5).map(|digit| format!("c{:x}", n / COLUMNS.pow(digit) % COLUMNS)).collect();
    format!("SELECT {} FROM wide WHERE id = 1", columns.join(", "))
}

/// Runs a part in some sessions; also returns the most that a worker of IndexPilot had of its own meanwhile (kB).
fn watched(cluster: &Cluster, count: usize, text: &(dyn Fn(usize) -> String + Sync)) -> Result<(Vec<Session>, u64)> {
    let (done, over, start) = (AtomicUsize::new(0), AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|part| {
                let done = &done;
                let config = cluster.config("postgres", "postgres");
                scope.spawn(move || session(&mut config.connect(NoTls)?, (part..count).step_by(SESSIONS), text, done))
            })
            .collect();
        let over = &over;
        let watch = scope.spawn(move || -> Result<u64> {
            let mut client = cluster.connect("postgres", "postgres")?;
            client.batch_execute("SET indexpilot.capture = off")?;
            let mut most = 0;
            while !over.load(Relaxed) {
                for row in client.query("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'indexpilot%'", &[])? {
                    // It may have ended meanwhile.
                    most = most.max(own_memory(row.get(0)).unwrap_or(0));
                }
                thread::sleep(Duration::from_millis(50));
            }
            Ok(most)
        });
        let sessions: Vec<Result<Session>> =
            sessions.into_iter().map(|s| s.join().unwrap_or_else(|_| Err("a session's thread panicked".into()))).collect();
        over.store(true, Relaxed);
        let most = watch.join().unwrap_or_else(|_| Err("the watching thread panicked".into()))?;
        let seconds = start.elapsed().as_secs_f64();
        println!("  {} executions in {seconds:.0} s, {:.0} a second", done.load(Relaxed), done.load(Relaxed) as f64 / seconds);
        Ok((sessions.into_iter().collect::<Result<_>>()?, most))
    })
}

fn session(
    client: &mut Client,
    numbers: impl ExactSizeIterator<Item = usize>,
    text: &(dyn Fn(usize) -> String + Sync),
    done: &AtomicUsize,
) -> Result<Session> {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let (count, mut early, mut executed, mut steady) = (numbers.len(), 0, 0, 0);
    for n in numbers {
        client.batch_execute(&text(n))?;
        executed += 1;
        done.fetch_add(1, Relaxed);
        if executed % STEADY_EVERY == 0 {
            client.batch_execute(STEADY)?;
            steady += 1;
        }
        if executed == count.div_ceil(10) {
            early = own_memory(pid)?;
        }
    }
    Ok(Session { executed: executed as u64, steady, early, late: own_memory(pid)? })
}

/// Memory that a process has of its own, kB: without what it shares.
pub fn own_memory(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    Ok(line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).ok_or("/proc does not tell the memory of a process")?)
}

/// Bytes of shared memory under the extension's name, as the server knows them.
fn shared_memory(client: &mut Client) -> Result<i64> {
    let sum = "SELECT coalesce(sum(allocated_size), 0)::bigint FROM pg_shmem_allocations WHERE name LIKE 'indexpilot%'";
    Ok(client.query_one(sum, &[])?.get(0))
}

/// Calls of the queries on a table, as far as they have come to the tables of the extension.
fn calls(client: &mut Client, table: &str) -> Result<i64> {
    let sum = "SELECT coalesce(sum(calls), 0)::bigint FROM indexpilot.queries WHERE $1::text::regclass = ANY (tables)";
    Ok(client.query_one(sum, &[&table])?.get(0))
}

fn status(client: &mut Client) -> Result<HashMap<String, String>> {
    let rows = client.query("SELECT name, value FROM indexpilot.status WHERE value IS NOT NULL", &[])?;
    Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn queries_are_distinct() {
        assert_eq!(super::query(0x12345), "SELECT c5, c4, c3, c2, c1 FROM wide WHERE id = 1");
        assert_eq!((0..5000).map(super::query).collect::<HashSet<_>>().len(), 5000);
    }
}
