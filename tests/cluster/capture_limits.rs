//! Capture at its limits: more templates and tenants than there is room for, memory that does not grow, servers without query
//! identifiers, and a library that came too late.

use crate::capture::{LIMIT, Server, column, counted, counted_as, on, text};
use indexpilot_tests::{Cluster, Result, poll_until};
use postgres::Client;

/// A statement on `t` that has a template of its own for each number up to 2^17, and the number of rows 1.
fn variant(n: usize) -> String {
    let columns: Vec<&str> = (0..17).map(|bit| if n >> bit & 1 == 1 { "id" } else { "v" }).collect();
    format!("SELECT {} FROM t WHERE id = 1", columns.join(", "))
}

/// Runs them, many to a string.
fn run_variants(session: &mut Client, numbers: std::ops::Range<usize>) -> Result<()> {
    for start in numbers.clone().step_by(500) {
        let strings: Vec<String> = (start..(start + 500).min(numbers.end)).map(variant).collect();
        session.batch_execute(&strings.join("; "))?;
    }
    Ok(())
}

/// Calls and templates that reached the tables.
fn sum_of(table: &str) -> String {
    let calls = counted_as("q.calls::text", &on(table));
    format!("SELECT coalesce(sum(l::bigint), 0) || ' in ' || count(*) FROM unnest(string_to_array(({calls}), ', ')) l")
}

#[test]
fn c11_more_templates_than_there_is_room_for_are_counted_as_dropped() -> Result<()> {
    const TEMPLATES: i64 = 60_000;
    let mut server = Server::start(
        Cluster::build("capture-c11").setting("indexpilot.capture_max_queries", 100).setting("indexpilot.capture_max_samples", 8),
    )?;
    let (bytes, dropped) = (server.figure("shared_memory_bytes")?, server.figure("capture_dropped")?);
    let mut session = server.session()?;
    run_variants(&mut session, 0..TEMPLATES as usize)?;
    let counts = |server: &mut Server| -> Result<(i64, i64)> {
        let sum = server.flushed(&sum_of("t"))?;
        let calls = sum.split(' ').next().unwrap_or_default().parse()?;
        Ok((calls, server.figure("capture_dropped")? - dropped))
    };
    poll_until(LIMIT / 4, "every execution to be counted or dropped", || {
        let (calls, dropped) = counts(&mut server)?;
        Ok(calls + dropped == TEMPLATES)
    })
    .map_err(|e| format!("{e}: {:?} of {TEMPLATES}; {}", counts(&mut server), server.figures().unwrap_or_default()))?;
    assert!(counts(&mut server)?.0 >= 90, "{}", server.figures()?);
    assert!(server.figure("capture_templates")? <= 100, "{}", server.figures()?);
    assert_eq!(server.figure("shared_memory_bytes")?, bytes);
    assert_eq!(server.status("capture_failures")?, "0");
    // Room is made by those who take what was counted, and then new templates are counted again.
    poll_until(LIMIT, "room", || {
        server.db.batch_execute("SELECT indexpilot.capture_flush()")?;
        Ok(server.figure("capture_evicted")? >= 50)
    })?;
    drop(session);
    server.db.batch_execute("CREATE TABLE late (id integer)")?;
    server.run(&["SELECT id FROM late", "SELECT id FROM late", "SELECT id, id FROM late"])?;
    server.expect_counted("new templates", &on("late"), "select 1/0, select 2/0")
}

#[test]
fn c11_the_workload_in_the_tables_is_bounded_too() -> Result<()> {
    let mut server = Server::start(Cluster::build("capture-c11-tables").setting("indexpilot.capture_max_templates", 300))?;
    let mut session = server.session()?;
    for round in 0..10 {
        run_variants(&mut session, round * 200..(round + 1) * 200)?;
        server.db.batch_execute("SELECT indexpilot.capture_flush()")?;
    }
    server.cluster.configure("indexpilot.worker_interval", "200ms")?;
    server.cluster.reload()?;
    poll_until(LIMIT, "the worker to prune", || {
        Ok(text(&mut server.db, "SELECT (count(*) <= 300)::text FROM indexpilot.workload")? == "true")
    })?;
    let orphans = "SELECT count(*)::text FROM indexpilot.workload_sample s LEFT JOIN indexpilot.workload w ON w.id = s.workload_id \
                   WHERE w.id IS NULL";
    assert_eq!(text(&mut server.db, orphans)?, "0");
    // The newest are those that stay.
    run_variants(&mut session, 3000..3001)?;
    let newest = counted("w.query LIKE 'SELECT %' AND w.last_seen_at >= (SELECT max(last_seen_at) FROM indexpilot.workload)");
    poll_until(LIMIT, "the newest", || Ok(server.flushed(&newest)?.contains("select 1/0")))
}

#[test]
fn c11_tenants_beyond_the_limit_count_together() -> Result<()> {
    let mut server = Server::start(Cluster::build("capture-c11-tenants").setting("indexpilot.capture_max_tenants", 5))?;
    let bytes = server.figure("shared_memory_bytes")?;
    let mut session = server.session()?;
    for round in 0..2 {
        for tenant in 0..1000 {
            session.batch_execute(&format!("SET indexpilot.tenant_id = 'tenant {tenant}'; SELECT v FROM t WHERE id = 1"))?;
        }
        let sums = format!(
            "SELECT sum(s.calls) || ' ' || (count(DISTINCT s.tenant_id) <= 6) || ' ' || bool_or(s.tenant_id = '') || ' ' || \
             count(DISTINCT s.workload_id) FROM indexpilot.query_stats s JOIN indexpilot.workload w ON w.id = s.workload_id WHERE {}",
            on("t")
        );
        server.expect("calls, few tenants, the rest, one template", &sums, &format!("{} true true 1", 1000 * (round + 1)))?;
    }
    assert_eq!(server.figure("shared_memory_bytes")?, bytes);
    server.expect_no_loss()
}

#[test]
fn c14_without_query_identifiers_nothing_is_captured_and_status_says_so() -> Result<()> {
    let mut server = Server::start(Cluster::build("capture-c14").setting("compute_query_id", "off"))?;
    let before = server.figure("capture_without_queryid")?;
    server.run(&["SELECT v FROM t WHERE id = 1", "UPDATE t SET v = v WHERE id = 1"])?;
    poll_until(LIMIT / 6, "status to say so", || Ok(server.figure("capture_without_queryid")? >= before + 2))?;
    server.expect_counted("nothing", &on("t"), "")?;
    server.run(&["SET compute_query_id = on; SELECT v, id FROM t WHERE id = 1"])?;
    server.run(&["SET compute_query_id = on", "SELECT v, id FROM t WHERE id = 1"])?;
    poll_until(LIMIT / 6, "sessions that compute them", || Ok(server.flushed(&counted(&on("t")))?.starts_with("select ")))?;
    server.expect_no_loss()
}

#[test]
fn c18_a_session_with_more_templates_than_it_holds_loses_nothing() -> Result<()> {
    let mut server = Server::start(Cluster::build("capture-c18").setting("indexpilot.capture_max_queries", 20_000))?;
    let mut session = server.session()?;
    // In one transaction, so that a session hands in when it is full and not because a transaction ended.
    session.batch_execute("BEGIN")?;
    for _ in 0..3 {
        run_variants(&mut session, 0..4000)?;
    }
    session.batch_execute("COMMIT")?;
    server.expect("three times 4000 templates", &sum_of("t"), "12000 in 4000")?;
    server.expect_no_loss()
}

#[test]
fn memory_of_the_server_is_fixed_and_small() -> Result<()> {
    let mut server = Server::named("capture-memory")?;
    let bytes = server.figure("shared_memory_bytes")?;
    assert!((1 << 20..32 << 20).contains(&bytes), "{bytes}");
    let allocated = "SELECT sum(allocated_size)::text FROM pg_shmem_allocations WHERE name ILIKE 'indexpilot%'";
    let allocated: i64 = text(&mut server.db, allocated)?.parse()?;
    assert!(allocated <= 32 << 20 && allocated <= bytes + (1 << 20), "{allocated} allocated, {bytes} said");
    Ok(())
}

#[test]
fn a_library_that_is_loaded_later_or_bypassed_does_nothing() -> Result<()> {
    let bypassed = Cluster::build("capture-bypass").setting("indexpilot.startup_bypass", "on");
    for cluster in [bypassed, Cluster::build("capture-late").preload(false)] {
        let cluster = cluster.start()?;
        let mut session = cluster.connect("postgres", "postgres")?;
        session.batch_execute("LOAD 'indexpilot'; CREATE TABLE t (id integer); SELECT id FROM t; CREATE EXTENSION indexpilot")?;
        session.batch_execute("SELECT id FROM t")?;
        assert_eq!(column(&mut session, "SELECT value FROM indexpilot.status WHERE name = 'preloaded'")?, ["false"]);
        assert_eq!(column(&mut session, "SELECT count(*) FROM pg_shmem_allocations WHERE name ILIKE 'indexpilot%'")?, ["0"]);
        let ours = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'indexpilot%'";
        assert_eq!(column(&mut session, ours)?, ["0"]);
    }
    Ok(())
}
