//! The soak: clients of pgbench write, while indexes on their tables are created, hidden, shown, rebuilt and dropped one after the other,
//! and the worker analyses and acts by itself. No client may see an error, and every index must be right to the last entry.
//!
//! It takes `SOAK_SECONDS` (15); `make soak` gives it ten minutes.

use indexpilot_tests::{Cluster, Result, number, poll_until, text};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(180);

/// What is built: columns that every transaction changes (so that updates are no longer heap-only), columns of tables that only grow, and
/// of tables whose few rows everybody meets at.
const KEYS: [(&str, &str); 7] = [
    ("pgbench_accounts", "abalance"),
    ("pgbench_history", "aid, mtime"),
    ("pgbench_tellers", "tbalance"),
    ("pgbench_branches", "bbalance"),
    ("pgbench_accounts", "bid, abalance DESC"),
    ("pgbench_history", "(delta % 100), tid"),
    ("pgbench_tellers", "bid, tbalance, tid"),
];

/// What was done, for the report.
#[derive(Debug, Default)]
struct Tally {
    created: u32,
    hidden: u32,
    rebuilt: u32,
    retired: u32,
    /// Retired in vain, as queries became slower.
    missed: u32,
    taken_back: u32,
    checked: u32,
}

fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("postgres", "postgres")
}

fn enqueue(db: &mut Client, kind: &str, table: &str, name: &str, statement: &str) -> Result<i64> {
    indexpilot_tests::enqueue(db, kind, &format!("public.{table}"), name, statement)
}

/// Waits until the action is in one of the states, and fails when it ends in another.
fn reach(db: &mut Client, id: i64, states: &[&str]) -> Result<String> {
    let row = format!(
        "SELECT concat_ws(' ', state, attempts, blocked_reason, error_sqlstate, error_message) FROM indexpilot.actions WHERE id = {id}"
    );
    let mut now = String::new();
    let waited = poll_until(LIMIT, &format!("action {id}"), || {
        db.execute("UPDATE indexpilot.actions SET not_before = now() WHERE id = $1 AND state IN ('queued', 'blocked') AND not_before > now()", &[&id])?;
        now = text(db, &row)?;
        let state = now.split(' ').next().unwrap_or_default();
        if matches!(state, "failed" | "cancelled") && !states.contains(&state) {
            return Err(format!("action {id} ended: {now}").into());
        }
        Ok(states.contains(&state))
    });
    waited.map_err(|e| format!("{e}; it is {now}"))?;
    Ok(now.split(' ').next().unwrap_or_default().to_owned())
}

/// One index from its birth to its end.
fn cycle(db: &mut Client, n: usize, tally: &mut Tally) -> Result<()> {
    let (table, key) = KEYS[n % KEYS.len()];
    let name = format!("soak_{n}");
    let statement = format!("CREATE INDEX CONCURRENTLY {name} ON public.{table} USING btree ({key})");
    let id = enqueue(db, "create", table, &name, &statement)?;
    reach(db, id, &["built", "verifying"])?;
    tally.created += 1;
    let check = format!("SELECT bt_index_check('public.{name}', true)");
    db.batch_execute(&check)?;
    db.batch_execute(&format!("SELECT indexpilot.hide_index('public.{name}'); SELECT indexpilot.show_index('public.{name}')"))?;
    tally.hidden += 1;
    let rebuild = enqueue(db, "reindex", table, &name, &format!("REINDEX INDEX CONCURRENTLY public.{name}"))?;
    reach(db, rebuild, &["done"])?;
    tally.rebuilt += 1;
    db.batch_execute(&check)?;
    tally.checked += 2;
    // Retired: hidden, watched, and then dropped. The watch may find, on a busy machine, that queries have become slower.
    if !n.is_multiple_of(2) {
        let retired = number(db, &format!("SELECT indexpilot.retire_index('public.{name}')"))?;
        if reach(db, retired, &["done", "cancelled"])? == "done" {
            tally.retired += 1;
            return Ok(());
        }
        tally.missed += 1;
    }
    let log = "FROM indexpilot.mutation_log WHERE mutation = 'create_index'";
    db.batch_execute(&format!("SELECT indexpilot.rollback(id) {log} AND action_id = {id}"))?;
    let drop = number(db, &format!("SELECT max(id) FROM indexpilot.actions WHERE reverts = {id}"))?;
    reach(db, drop, &["done"])?;
    tally.taken_back += 1;
    Ok(())
}

#[test]
fn d48_clients_notice_nothing_while_indexes_come_and_go() -> Result<()> {
    let seconds: u64 = std::env::var("SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(15);
    let cluster = Cluster::build("soak")
        .setting("indexpilot.mode", "apply")
        .setting("indexpilot.worker_interval", "500ms")
        .setting("indexpilot.select_interval", "1min")
        .setting("indexpilot.apply_observe", "1s")
        .setting("indexpilot.verify_delay", "1h")
        .setting("indexpilot.guard_max_transaction_age", "1h")
        .setting("indexpilot.guard_max_actions_per_hour", 1000)
        .setting("indexpilot.guard_max_actions_per_day", 10000)
        .setting("indexpilot.guard_cooldown", 0)
        .setting("indexpilot.guard_max_index_share", 100)
        .setting("autovacuum_naptime", "5s")
        .start()?;
    cluster.run(cluster.client_program("pgbench").args(["-q", "-i", "-s", "2"]))?;
    let mut db = connect(&cluster)?;
    db.batch_execute("CREATE EXTENSION indexpilot; CREATE EXTENSION amcheck")?;
    let (mut tally, mut cycles) = (Tally::default(), 0);
    let done = AtomicBool::new(false);
    let (said, read) = std::thread::scope(|scope| -> Result<(String, u32)> {
        let (cluster, done) = (&cluster, &done);
        let seconds_of = seconds.to_string();
        let writers = scope.spawn(move || {
            // Prepared, so that plans are kept over every change; an error ends a client, and pgbench with it.
            let clients = ["-n", "-c", "4", "-j", "1", "-M", "prepared", "-T", &seconds_of];
            cluster.run(cluster.client_program("pgbench").args(clients))
        });
        // What an index would help, and the loop may find for itself.
        let reader = scope.spawn(move || -> Result<u32> {
            let mut session = connect(cluster)?;
            let mut times = 0;
            while !done.load(SeqCst) {
                session
                    .batch_execute(&format!("SELECT count(*) FROM pgbench_accounts WHERE filler = 'x' AND bid = {}", times % 2))?;
                times += 1;
            }
            Ok(times)
        });
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut worked = Ok(());
        while worked.is_ok() && !writers.is_finished() && (cycles == 0 || Instant::now() < end) {
            worked = cycle(&mut db, cycles, &mut tally);
            cycles += 1;
        }
        done.store(true, SeqCst);
        let read = reader.join().map_err(|_| "the reader panicked")??;
        let said = writers.join().map_err(|_| "pgbench could not be run")??;
        worked.map(|()| (said, read))
    })
    .map_err(|e| format!("{e}\n{}", cluster.log_tail(20)))?;
    let checks = "SELECT count(bt_index_check(c.oid, true)) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                  JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree' WHERE c.relkind = 'i' AND i.indisvalid";
    let checked: i64 = db
        .query_one(&checks.replace("count(bt_index_check(c.oid, true))", "count(*)"), &[])
        .and_then(|row| db.batch_execute(checks).map(|()| row.get(0)))?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_index WHERE NOT indisvalid")?, 0, "unusable indexes are left");
    let log = cluster.log();
    let errors: Vec<&str> =
        log.lines().filter(|l| l.contains("client backend ERROR") || l.contains("PANIC") || l.contains("FATAL")).collect();
    let warnings = log.lines().filter(|l| l.contains("indexpilot") && l.contains("WARNING")).count();
    let deadlocks = number(&mut db, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")?;
    let retried = number(&mut db, "SELECT count(*) FROM indexpilot.mutation_log WHERE mutation = 'action_retried'")?;
    let by_itself = number(&mut db, "SELECT count(*) FROM indexpilot.actions WHERE actor = 'indexpilot' AND kind = 'create'")?;
    let figures: Vec<&str> =
        said.lines().filter(|l| l.contains("actually processed") || l.contains("failed") || l.starts_with("tps")).collect();
    println!("soak of {seconds} s: {}; {read} reads", figures.join("; "));
    println!(
        "{tally:?}, {checked} indexes right at the end; {by_itself} more built by itself; {retried} actions retried, {deadlocks} deadlocks, {warnings} warnings"
    );
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(said.contains("number of failed transactions: 0 (0.000%)"), "{said}");
    assert_eq!((deadlocks, warnings), (0, 0), "{}", cluster.log_tail(30));
    // Every row that was written is there, once.
    let balance = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history) \
                   AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(tbalance) FROM pgbench_tellers)";
    assert!(db.query_one(balance, &[])?.get::<_, bool>(0));
    Ok(())
}
