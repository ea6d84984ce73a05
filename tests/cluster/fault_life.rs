//! The processes through the life of a server: it stops in the middle of an analysis, fails over in the middle of a build, is told to
//! read its configuration a thousand times, runs without a postmaster.

use crate::fault::{cluster, connect};
use indexpilot_tests::{Cluster, Result, Stop, number, poll_until, text};
use postgres::Client;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// Queues the building of an index on `crm.goods`.
fn enqueue(db: &mut Client, name: &str, key: &str) -> Result<i64> {
    let statement = format!("CREATE INDEX CONCURRENTLY {name} ON crm.goods USING btree ({key})");
    indexpilot_tests::enqueue(db, "create", "crm.goods", name, &statement)
}

fn built(db: &mut Client, id: i64) -> Result<()> {
    let row =
        format!("SELECT concat_ws(' ', state, attempts, blocked_reason, error_message) FROM indexpilot.actions WHERE id = {id}");
    let mut now = String::new();
    let waited = poll_until(LIMIT, &format!("action {id} to be built"), || {
        db.execute(
            "UPDATE indexpilot.actions SET not_before = now() WHERE id = $1 AND state = 'queued' AND not_before > now()",
            &[&id],
        )?;
        now = text(db, &row)?;
        Ok(now.starts_with("built") || now.starts_with("verifying"))
    });
    waited.map_err(|e| format!("{e}; it is {now}").into())
}

/// Stops the server; what is printed is the figure, the bound leaves room for a busy machine.
fn stopped(cluster: &mut Cluster, amid: &str) -> Result<()> {
    let since = Instant::now();
    cluster.stop(Stop::Fast)?;
    let took = since.elapsed();
    println!("fast shutdown {amid}: {} ms", took.as_millis());
    assert!(took < Duration::from_secs(10), "{amid}: it took {took:?} to stop");
    Ok(())
}

#[test]
fn w35_a_fast_shutdown_does_not_wait_for_an_analysis() -> Result<()> {
    const TABLES: usize = 30;
    let mut cluster = Cluster::build("fault-analysis")
        .setting("indexpilot.worker_interval", "100ms")
        .setting("indexpilot.mode", "observe")
        .setting("autovacuum", "off")
        .start()?;
    let mut db = connect(&cluster)?;
    db.batch_execute("CREATE EXTENSION indexpilot")?;
    poll_until(LIMIT, "capture to begin", || {
        Ok(text(&mut db, "SELECT value FROM indexpilot.status WHERE name = 'registered'")? == "true")
    })?;
    for t in 0..TABLES {
        db.batch_execute(&format!(
            "CREATE TABLE t{t} (a integer, b integer, c integer, d integer, e integer); \
             INSERT INTO t{t} SELECT i, i % 1000, i % 100, i % 10, i FROM generate_series(1, 5000) i; ANALYZE t{t}"
        ))?;
    }
    let conditions = [
        ("a", "x.a = 1"),
        ("b", "x.b = 1 AND x.c = 2"),
        ("c", "x.c = 1 AND x.d > 8 ORDER BY x.e LIMIT 3"),
        ("d", "x.a > 4990 AND x.b < 3"),
    ];
    for t in 0..TABLES {
        for (n, (column, condition)) in conditions.iter().enumerate() {
            let other = (t + n + 1) % TABLES;
            db.batch_execute(&format!(
                "SELECT x.{column} FROM t{t} x WHERE {condition}; \
                 SELECT x.d FROM t{t} x JOIN t{other} y ON x.e = y.{column} WHERE {condition}"
            ))?;
        }
    }
    let templates = "SELECT count(*) FROM indexpilot.workload";
    poll_until(LIMIT, "all templates", || {
        db.batch_execute("SELECT indexpilot.capture_flush()")?;
        Ok(number(&mut db, templates)? >= 7 * TABLES as i64)
    })?;
    // From now on each visit analyses.
    cluster.configure("indexpilot.mode", "advise")?;
    for ms in [0, 150, 400, 1000, 2500] {
        cluster.restart(Stop::Fast)?;
        db = connect(&cluster)?;
        db.batch_execute("UPDATE indexpilot.control SET last_analysis_at = NULL")?;
        let running = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'indexpilot: analysing the workload' AND state = 'active' \
             AND clock_timestamp() - xact_start > interval '{ms} ms'"
        );
        poll_until(LIMIT, &format!("an analysis of {ms} ms"), || {
            db.batch_execute("UPDATE indexpilot.control SET last_analysis_at = NULL")?;
            Ok(number(&mut db, &running)? > 0)
        })?;
        stopped(&mut cluster, &format!("{ms} ms after an analysis began"))?;
        cluster.start()?;
        db = connect(&cluster)?;
    }
    // Undisturbed, it comes to its end.
    poll_until(LIMIT, "an analysis", || Ok(number(&mut db, "SELECT count(*) FROM indexpilot.recommendations")? > 0))?;
    Ok(())
}

#[test]
fn w35_a_fast_shutdown_does_not_wait_for_a_verdict() -> Result<()> {
    let mut cluster = cluster("fault-verdict")?;
    cluster.configure("indexpilot.verify_delay", "1s")?;
    cluster.reload()?;
    let mut db = connect(&cluster)?;
    let id = enqueue(&mut db, "a", "price")?;
    built(&mut db, id)?;
    let mut holder = connect(&cluster)?;
    holder.batch_execute("BEGIN; LOCK TABLE indexpilot.verification_figures IN SHARE MODE")?;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'indexpilot worker' AND wait_event_type = 'Lock' AND query LIKE '%verif%'";
    poll_until(LIMIT, "a verdict that waits", || Ok(number(&mut db, waits)? > 0))?;
    stopped(&mut cluster, "during verify")?;
    drop((db, holder));
    cluster.start()?;
    let mut db = connect(&cluster)?;
    poll_until(LIMIT, "a visit", || {
        Ok(!text(&mut db, "SELECT value FROM indexpilot.status WHERE name = 'last_visit_s'")?.is_empty())
    })
}

#[test]
fn a_visit_does_not_wait_for_people_with_its_snapshot() -> Result<()> {
    let cluster = cluster("fault-patience")?;
    let mut db = connect(&cluster)?;
    let mut person = connect(&cluster)?;
    person.batch_execute("BEGIN; LOCK TABLE indexpilot.index_trial IN ACCESS EXCLUSIVE MODE")?;
    poll_until(LIMIT, "a visit that gives up", || Ok(cluster.log().contains("canceling statement due to lock timeout")))?;
    let id = enqueue(&mut db, "a", "price")?;
    person.batch_execute("COMMIT")?;
    built(&mut db, id)
}

#[test]
fn w41_a_standby_takes_over_in_the_middle_of_a_build() -> Result<()> {
    let mut cluster = cluster("fault-failover")?;
    cluster.configure("hot_standby_feedback", "on")?;
    let standby = cluster.standby("fault-heir")?;
    let mut db = connect(&cluster)?;
    let done = enqueue(&mut db, "before", "id")?;
    built(&mut db, done)?;
    let mut gate = connect(&cluster)?;
    gate.batch_execute("SELECT pg_advisory_lock(3)")?;
    let id = enqueue(&mut db, "during", "crm.gated(price)")?;
    let mut there = connect(&standby)?;
    poll_until(LIMIT, "the standby to have the build", || {
        let begun = "SELECT count(*) FROM indexpilot.actions a, pg_index i WHERE a.state = 'building' AND NOT i.indisvalid";
        Ok(number(&mut there, begun)? == 1)
    })?;
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'indexpilot%'";
    assert_eq!(number(&mut there, ours)?, 0, "a standby has none of our processes");
    cluster.stop(Stop::Immediate)?;
    drop((db, gate));
    there.batch_execute("SELECT pg_promote()")?;
    poll_until(LIMIT, "the launcher", || Ok(number(&mut there, ours)? > 0))?;
    built(&mut there, id)?;
    let indexes = "SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY 1) FROM pg_index WHERE indrelid = 'crm.goods'::regclass AND indisvalid";
    assert_eq!(text(&mut there, indexes)?, "crm.before crm.during");
    assert_eq!(number(&mut there, "SELECT count(*) FROM pg_index WHERE NOT indisvalid")?, 0);
    there.batch_execute("SELECT bt_index_check('crm.during', true)")?;
    let logged = format!("SELECT string_agg(mutation, ' ' ORDER BY id) FROM indexpilot.mutation_log WHERE action_id = {id}");
    assert_eq!(text(&mut there, &logged)?, "remove_unusable_index action_retried analyze_table create_index");
    Ok(())
}

/// What a process holds: open files, and resident memory of its own in kilobytes.
fn holds(pid: i64) -> Result<(usize, u64)> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let anonymous = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).and_then(|l| l.split_whitespace().next());
    Ok((files, anonymous.ok_or("no RssAnon")?.parse()?))
}

#[test]
fn w43_reloads_and_visits_leave_nothing_behind() -> Result<()> {
    let cluster = cluster("fault-reloads")?;
    cluster.configure("indexpilot.worker_interval", "100ms")?;
    cluster.reload()?;
    let mut db = connect(&cluster)?;
    let launcher = number(&mut db, "SELECT pid::bigint FROM pg_stat_activity WHERE backend_type = 'indexpilot launcher'")?;
    let visits = |db: &mut Client, more: u32| -> Result<()> {
        let mut seen = 0;
        let mut last = 0;
        // Each visit has a process of its own.
        poll_until(LIMIT, &format!("{more} visits"), || {
            for _ in 0..20 {
                db.batch_execute("SELECT pg_reload_conf()")?;
                let pid = number(
                    db,
                    "SELECT coalesce(max(pid), 0)::bigint FROM pg_stat_activity WHERE backend_type = 'indexpilot worker'",
                )?;
                seen += u32::from(pid != 0 && pid != last);
                last = pid;
            }
            Ok(seen >= more)
        })
    };
    visits(&mut db, 10)?;
    let before = holds(launcher)?;
    let segments = "SELECT count(*) FROM pg_ls_dir('pg_dynshmem')";
    let shared = number(&mut db, segments)?;
    visits(&mut db, 60)?;
    assert_eq!(number(&mut db, "SELECT pid::bigint FROM pg_stat_activity WHERE backend_type = 'indexpilot launcher'")?, launcher);
    let after = holds(launcher)?;
    println!("the launcher: {} files and {} kB before, {} files and {} kB after", before.0, before.1, after.0, after.1);
    // The server itself closes and opens a file or two. What each of the visits left would show.
    assert!(after.0 <= before.0 + 5, "open files of the launcher: {} before, {} after", before.0, after.0);
    assert!(after.1 < before.1 + 1024, "memory of the launcher: {} kB before, {} kB after", before.1, after.1);
    assert_eq!(number(&mut db, segments)?, shared);
    let log = cluster.log();
    assert!(!log.contains("WARNING") && !log.contains("PANIC") && !log.contains("could not"), "{}", cluster.log_tail(30));
    Ok(())
}

#[test]
fn without_a_postmaster_nothing_of_ours_runs() -> Result<()> {
    let mut cluster = cluster("fault-single")?;
    let mut db = connect(&cluster)?;
    let id = enqueue(&mut db, "a", "price")?;
    built(&mut db, id)?;
    drop(db);
    cluster.stop(Stop::Fast)?;
    let statements = [
        "SELECT 'goods ' || count(*) FROM crm.goods WHERE price = 7",
        "SELECT 'version ' || value FROM indexpilot.status WHERE name = 'sql_version'",
        "SELECT 'unwell ' || name FROM indexpilot.health_check() WHERE state = 'error'",
        "SELECT indexpilot.capture_flush()",
        "REINDEX INDEX crm.a",
    ];
    let (said, errors) = cluster.single("postgres", &[], &statements.map(String::from))?;
    assert!(said.contains("goods 10"), "{said}\n{errors}");
    assert!(said.contains("version 0."), "{said}\n{errors}");
    assert!(!errors.contains("PANIC") && !errors.contains("indexpilot launcher"), "{errors}");
    cluster.start()?;
    let mut db = connect(&cluster)?;
    let id = enqueue(&mut db, "b", "id")?;
    built(&mut db, id)
}
