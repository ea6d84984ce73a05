//! Capture on throw-away clusters: the counts are exact, whatever the protocol, the number of sessions and the time of the flush.
//! The other `capture_*` files use the server of this one. Tests of numbered cases (C1 to C18, S60) have the number in their names.

use indexpilot_tests::{Builder, Cluster, Result, poll_until};
use postgres::{Client, SimpleQueryMessage};
use std::time::Duration;
use std::{fs, thread};

/// For what must happen, sooner or later.
pub const LIMIT: Duration = Duration::from_secs(60);
/// For figures that must become those expected: sessions hand in what they counted within a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster whose database `postgres` is captured, with a table `t` of 10 000 rows, and a session that looks at the figures. Nobody
/// else moves them to the tables: the worker comes once an hour.
pub struct Server {
    pub cluster: Cluster,
    pub db: Client,
}

impl Server {
    pub fn start(builder: Builder) -> Result<Self> {
        let cluster = builder
            .setting("indexpilot.mode", "observe")
            .setting("indexpilot.worker_interval", "1h")
            .setting("autovacuum", "off")
            .start()?;
        let db = observer(&cluster)?;
        let mut server = Server { cluster, db };
        server.db.batch_execute(
            "CREATE TABLE t (id integer PRIMARY KEY, v integer, label text); \
             INSERT INTO t SELECT i, i, 'label ' || i FROM generate_series(1, 10000) i; ANALYZE t; \
             CREATE EXTENSION indexpilot",
        )?;
        server.wait_for_capture()?;
        Ok(server)
    }

    /// With default settings.
    pub fn named(name: &str) -> Result<Self> {
        Self::start(Cluster::build(name))
    }

    /// Waits until the database is captured, then forgets what ran so far.
    pub fn wait_for_capture(&mut self) -> Result<()> {
        self.wait_for_worker()?;
        self.reset()
    }

    /// Waits for the first visit of the worker, which registers the database, to be over: nobody else flushes then.
    pub fn wait_for_worker(&mut self) -> Result<()> {
        poll_until(LIMIT, "the database to be registered", || Ok(self.status("registered")? == "true"))?;
        let workers = "SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'indexpilot worker'";
        poll_until(LIMIT, "the worker to leave", || Ok(text(&mut self.db, workers)? == "0"))
    }

    /// Forgets what ran so far.
    pub fn reset(&mut self) -> Result<()> {
        self.db.batch_execute("SELECT indexpilot.capture_flush()")?;
        Ok(self.db.batch_execute("SELECT indexpilot.capture_reset()")?)
    }

    /// After a restart: looks at the figures again.
    pub fn reconnect(&mut self) -> Result<()> {
        self.db = observer(&self.cluster)?;
        Ok(())
    }

    /// A further session.
    pub fn session(&self) -> Result<Client> {
        self.cluster.connect("postgres", "postgres")
    }

    /// Runs statements in a session of their own, one simple query each.
    pub fn run(&self, statements: &[&str]) -> Result<()> {
        let mut session = self.session()?;
        for statement in statements {
            session.batch_execute(statement).map_err(|e| format!("{statement}: {}", said(&e)))?;
        }
        Ok(())
    }

    /// The first column of the only row, once what was captured is in the tables.
    pub fn flushed(&mut self, sql: &str) -> Result<String> {
        self.db.batch_execute("SELECT indexpilot.capture_flush()")?;
        text(&mut self.db, sql)
    }

    /// The query must have this answer sooner or later, and then keep it.
    pub fn expect(&mut self, what: &str, sql: &str, expected: &str) -> Result<()> {
        let mut got = self.flushed(sql)?;
        let waited = poll_until(PATIENCE, what, || {
            got = self.flushed(sql)?;
            Ok(got == expected)
        });
        if waited.is_ok() {
            got = self.flushed(sql)?;
        }
        assert_eq!(got, expected, "{what}: {sql}\n{}", self.figures()?);
        Ok(())
    }

    /// What was counted: `command calls/errors` of every template that satisfies the condition, sorted; see [`counted`].
    pub fn expect_counted(&mut self, what: &str, condition: &str, expected: &str) -> Result<()> {
        self.expect(what, &counted(condition), expected)
    }

    /// A figure of view status.
    pub fn status(&mut self, name: &str) -> Result<String> {
        text(&mut self.db, &format!("SELECT value FROM indexpilot.status WHERE name = '{name}'"))
    }

    /// The same as a number.
    pub fn figure(&mut self, name: &str) -> Result<i64> {
        let value = self.status(name)?;
        Ok(value.split(' ').next().unwrap_or_default().parse().map_err(|e| format!("status {name} is \"{value}\": {e}"))?)
    }

    /// All figures of capture, for messages.
    pub fn figures(&mut self) -> Result<String> {
        let all = "SELECT string_agg(name || ' = ' || coalesce(value, ''), ', ') FROM indexpilot.status WHERE name LIKE 'capture%'";
        text(&mut self.db, all)
    }

    /// Nothing went wrong inside capture, and nothing was left out.
    pub fn expect_no_loss(&mut self) -> Result<()> {
        for name in ["capture_dropped", "capture_failures", "capture_untracked"] {
            assert_eq!(self.status(name)?, "0", "{name}; {}", self.figures()?);
        }
        Ok(())
    }
}

/// A session that is not captured itself: where shared memory is full, it must not take the last place.
fn observer(cluster: &Cluster) -> Result<Client> {
    let mut db = cluster.connect("postgres", "postgres")?;
    db.batch_execute("SET indexpilot.capture = off")?;
    Ok(db)
}

/// A load; the tables of pgbench are left as they are.
pub fn pgbench(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    cluster.run(cluster.client_program("pgbench").arg("-n").args(arguments)).map(|_| ())
}

/// Makes the tables of pgbench.
pub fn make_pgbench_tables(cluster: &Cluster) -> Result<()> {
    cluster.run(cluster.client_program("pgbench").args(["-q", "-i", "-s", "1"])).map(|_| ())
}

/// The first column of the first row, as text.
pub fn text(db: &mut Client, sql: &str) -> Result<String> {
    Ok(column(db, sql)?.into_iter().next().ok_or_else(|| format!("{sql} returns no row"))?)
}

/// The first column of all rows, as text.
pub fn column(db: &mut Client, sql: &str) -> Result<Vec<String>> {
    let messages = db.simple_query(sql).map_err(|e| format!("{sql}: {}", said(&e)))?;
    let value = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(value).collect())
}

/// What the server said.
pub fn said(error: &postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |e| format!("{} ({})", e.message(), e.code().code()))
}

/// The condition that a template works on the table.
pub fn on(table: &str) -> String {
    format!("w.relations @> ARRAY['{table}'::regclass::oid]")
}

/// What was counted, as a query: `command calls/errors` of each template, with `nested` before it when it ran inside a function.
/// Condition and columns may use `w` (table workload) and `q` (view queries).
pub fn counted(condition: &str) -> String {
    counted_as(
        "format('%s%s %s/%s', CASE WHEN w.nested THEN 'nested ' END, w.command, coalesce(q.calls, 0), coalesce(q.errors, 0))",
        condition,
    )
}

/// Another expression over the same templates.
pub fn counted_as(expression: &str, condition: &str) -> String {
    format!(
        "SELECT coalesce(string_agg(line, ', ' ORDER BY line COLLATE \"C\"), '') FROM (SELECT {expression} AS line \
         FROM indexpilot.workload w JOIN indexpilot.queries q ON q.id = w.id AND q.calls IS NOT NULL WHERE {condition}) l"
    )
}

/// Memory of a process that is its own, in kB.
fn anonymous_kb(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn a_portal_that_is_fetched_in_parts_is_one_execution() -> Result<()> {
    let mut server = Server::named("capture-portal")?;
    let mut session = server.session()?;
    let mut transaction = session.transaction()?;
    let statement = transaction.prepare("SELECT id FROM t WHERE id <= $1")?;
    let portal = transaction.bind(&statement, &[&95i32])?;
    let mut fetches = 0;
    while transaction.query_portal(&portal, 10)?.len() == 10 {
        fetches += 1;
    }
    assert_eq!(fetches, 9);
    transaction.commit()?;
    server.expect("the portal", &counted_as("format('%s/%s, %s rows', q.calls, q.errors, q.rows)", &on("t")), "1/0, 95 rows")?;
    let values = "SELECT string_agg(DISTINCT s.parameter_types::text || s.parameter_values::text, ' ') \
                  FROM indexpilot.workload_samples s WHERE s.query LIKE 'SELECT id FROM t WHERE id <= $1%'";
    server.expect("its parameter", values, "{integer}{95}")
}

#[test]
fn figures_of_an_execution_are_true() -> Result<()> {
    let mut server = Server::named("capture-figures")?;
    let mut session = server.session()?;
    for id in 1..=1000i32 {
        session.query("SELECT v FROM t WHERE id >= $1 AND id < $1 + 2", &[&id])?;
    }
    session.batch_execute("UPDATE t SET v = v WHERE id <= 100")?;
    let figures = "format('%s %s %s, hit %s, wal %s, times %s', w.command, q.calls, q.rows, q.shared_blocks_hit >= q.calls * 2, \
                   q.wal_bytes > 1000, q.min_ms > 0 AND q.min_ms <= q.mean_ms AND q.mean_ms <= q.max_ms \
                   AND q.p50_ms <= q.p95_ms AND q.p95_ms <= q.p99_ms AND q.p50_ms BETWEEN q.min_ms * 0.8 AND q.max_ms * 1.25 \
                   AND abs(q.total_ms / q.calls - q.mean_ms) < 1e-6)";
    let expected = "select 1000 2000, hit t, wal f, times t, update 1 100, hit t, wal t, times t";
    server.expect("figures", &counted_as(figures, &on("t")), expected)?;
    server.expect_no_loss()
}

#[test]
fn writes_of_pgbench_are_counted_exactly() -> Result<()> {
    let mut server = Server::named("capture-tpcb")?;
    make_pgbench_tables(&server.cluster)?;
    for protocol in ["simple", "extended", "prepared"] {
        server.reset()?;
        pgbench(&server.cluster, &["-M", protocol, "-c", "3", "-t", "200"])?;
        server.expect_counted(protocol, &on("pgbench_accounts"), "select 600/0, update 600/0")?;
        for table in ["pgbench_tellers", "pgbench_branches"] {
            // At its start it asks how many branches there are.
            let updates = format!("w.command = 'update' AND {}", on(table));
            server.expect_counted(protocol, &updates, "update 600/0")?;
        }
        server.expect_counted(protocol, &on("pgbench_history"), "insert 600/0")?;
    }
    server.expect_no_loss()
}

#[test]
fn nothing_is_lost_between_flushes() -> Result<()> {
    let mut server = Server::named("capture-flushes")?;
    make_pgbench_tables(&server.cluster)?;
    server.reset()?;
    let mut flusher = server.session()?;
    let cluster = &server.cluster;
    thread::scope(|scope| -> Result<()> {
        let load = scope.spawn(|| pgbench(cluster, &["-S", "-M", "prepared", "-c", "4", "-j", "2", "-t", "5000"]));
        let mut flushes = 0;
        while !load.is_finished() || flushes < 10 {
            flusher.batch_execute("SELECT indexpilot.capture_flush()")?;
            flushes += 1;
        }
        load.join().map_err(|_| "pgbench panicked")?
    })?;
    server.expect_counted("all of them", &on("pgbench_accounts"), "select 20000/0")?;
    server.expect_no_loss()
}

#[test]
fn only_what_is_to_be_captured_is() -> Result<()> {
    let mut server = Server::named("capture-which")?;
    // The server's own tables are no workload, whatever the statement does with them.
    server.run(&["SELECT count(*) FROM pg_class", "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"])?;
    server.run(&["SELECT v FROM t JOIN pg_class c ON c.oid = t.id WHERE t.id = 1"])?;
    server.expect_counted("a catalog beside a table", &on("t"), "select 1/0")?;
    let alone = counted("w.query ILIKE '%pg_class%' AND w.relations = '{}'");
    server.expect("catalogs alone", &alone, "")?;
    server.run(&["SELECT 42 AS x, 43", "SELECT 44 AS x, 45"])?;
    server.expect_counted("no table at all", "w.query LIKE 'SELECT $1 AS %' AND w.relations = '{}'", "select 2/0")?;

    server.reset()?;
    server.run(&["SET indexpilot.capture = off; SELECT v FROM t WHERE id = 1", "SELECT v, id FROM t WHERE id = 1"])?;
    server.run(&[
        "SET indexpilot.capture = off",
        "SELECT v FROM t WHERE id = 1",
        "SET indexpilot.capture = on",
        "SELECT v FROM t",
    ])?;
    server.expect_counted("capture off", &on("t"), "select 1/0")?;

    // Of a partitioned table only the parent counts: which partitions are read depends on the values.
    server.db.batch_execute(
        "CREATE TABLE part (id integer, v integer) PARTITION BY RANGE (id); \
         CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (10); \
         CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (10) TO (20)",
    )?;
    server.reset()?;
    server.run(&["SELECT v FROM part WHERE id = 1", "SELECT v FROM part WHERE id = 11", "SELECT v FROM part WHERE id = 99"])?;
    let relations = counted_as("format('%s %s', q.calls, q.tables)", &on("part"));
    server.expect("partitions", &relations, "3 {part}")?;
    server.expect_counted("a partition itself", &on("part_low"), "")?;

    // In another database the extension is not installed.
    server.db.batch_execute("CREATE DATABASE plain")?;
    let mut plain = server.cluster.connect("plain", "postgres")?;
    plain.batch_execute("CREATE TABLE u (id integer); SELECT id FROM u")?;
    plain.batch_execute("SELECT id FROM u")?;
    plain.batch_execute("CREATE EXTENSION indexpilot")?;
    poll_until(LIMIT, "the other database to be captured", || {
        plain.batch_execute("SELECT id + 1 FROM u; SELECT indexpilot.capture_flush()")?;
        Ok(!text(&mut plain, &counted("w.query LIKE 'SELECT id + $1 FROM u%'"))?.is_empty())
    })?;
    assert_eq!(text(&mut plain, &counted("w.query LIKE 'SELECT id FROM u%'"))?, "");
    server.expect_no_loss()
}

#[test]
fn tables_of_one_session_are_not_captured() -> Result<()> {
    let mut server = Server::named("capture-temporary")?;
    server.run(&[
        "CREATE TEMP TABLE mine (LIKE t)",
        "SELECT v FROM mine WHERE id = 1",
        "SELECT t.v FROM t JOIN mine USING (id)",
        "INSERT INTO mine SELECT * FROM t WHERE id = 11",
        "UPDATE t SET v = t.v FROM mine WHERE mine.id = t.id",
        "SELECT v FROM t WHERE id = 1",
    ])?;
    server.expect_counted("what another session can plan", &on("t"), "select 1/0")?;
    let gone = "EXISTS (SELECT FROM unnest(w.relations) r WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = r))";
    server.expect_counted("a table that is gone", gone, "")?;
    assert_eq!(server.figure("capture_temporary")?, 4, "{}", server.figures()?);
    Ok(())
}

#[test]
fn statements_that_differ_in_constants_alone_count_together() -> Result<()> {
    let mut server = Server::named("capture-alike")?;
    let mut wrong = Vec::new();
    let all = format!(
        "SELECT coalesce(sum(q.calls), 0)::text FROM indexpilot.queries q JOIN indexpilot.workload w USING (id) WHERE {}",
        on("t")
    );
    for (templates, statements) in [
        (
            1,
            &["SELECT v FROM t WHERE id = 1", "select v from t where id=2", "SELECT v /* all */ FROM t\n WHERE id = 3 -- of them"]
                [..],
        ),
        (1, &["SELECT id FROM t WHERE label = 'a'", "SELECT id FROM t WHERE label = E'b\\n'"]),
        (1, &["SELECT id FROM t WHERE label > 'it''s'", "SELECT id FROM t WHERE label > $tag$ it's $tag$"]),
        (1, &["SELECT id FROM t WHERE label > 'it''s'", "SELECT id FROM t WHERE label > U&'c'"]),
        (1, &["SELECT id FROM t WHERE v > 1.5", "SELECT id FROM t WHERE v > .5e-3"]),
        (1, &["SELECT v FROM t WHERE id > -1 AND v < 5", "SELECT v FROM t WHERE id > 1 AND v < -5"]),
        (1, &["UPDATE t SET v = v + 0 WHERE id = 1", "UPDATE t SET v = v + -0 WHERE id = 1"]),
        (2, &["SELECT v FROM t WHERE id = 1", "SELECT v FROM t WHERE id >= 1"]),
        (2, &["SELECT id FROM t WHERE label = 'a'", "SELECT id FROM t WHERE label = 'a' AND v = 1"]),
        (2, &["SELECT v FROM t ORDER BY id LIMIT 1", "SELECT v FROM t ORDER BY id DESC LIMIT 1"]),
        (2, &["SELECT v - 1 FROM t", "SELECT v + 1 FROM t"]),
    ] {
        server.reset()?;
        server.run(statements)?;
        poll_until(PATIENCE, "all executions", || Ok(server.flushed(&all)? == statements.len().to_string()))?;
        let counted = server.flushed(&counted(&on("t")))?;
        if counted.split(", ").count() != templates {
            wrong.push(format!("{statements:?}: {counted}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn each_tenant_has_counters_of_its_own() -> Result<()> {
    let mut server = Server::named("capture-tenants")?;
    let long = "ä".repeat(40);
    let mut session = server.session()?;
    for (tenant, calls) in [("acme", 2), ("äther", 1), (long.as_str(), 3), ("", 1)] {
        session.batch_execute(&format!("SET indexpilot.tenant_id = '{tenant}'"))?;
        for _ in 0..calls {
            session.batch_execute("SELECT v FROM t WHERE id = 1")?;
        }
    }
    // A name that is too long is cut between characters.
    let tenants = format!(
        "SELECT string_agg(s.tenant_id || '=' || s.calls, ' ' ORDER BY s.calls, s.tenant_id COLLATE \"C\") FROM (SELECT tenant_id, \
         sum(calls) AS calls FROM indexpilot.query_stats s JOIN indexpilot.workload w ON w.id = s.workload_id WHERE {} GROUP BY 1) s",
        on("t")
    );
    server.expect("calls by tenant", &tenants, &format!("=1 äther=1 acme=2 {}=3", "ä".repeat(31)))
}

#[test]
fn c7_a_parallel_query_counts_once() -> Result<()> {
    let mut server = Server::named("capture-c7")?;
    let mut session = server.session()?;
    session.batch_execute(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; \
         SET max_parallel_workers_per_gather = 4; ALTER TABLE t SET (parallel_workers = 4)",
    )?;
    let plan = column(&mut session, "EXPLAIN (ANALYZE, COSTS OFF) SELECT label FROM t WHERE v % 2 = 0")?.join("\n");
    assert!(plan.contains("Workers Launched: ") && !plan.contains("Workers Launched: 0"), "{plan}");
    for _ in 0..5 {
        session.batch_execute("SELECT label FROM t WHERE v % 2 = 0")?;
        session.batch_execute("SELECT count(*) FROM t")?;
    }
    let rows = counted_as("format('%s/%s %s', q.calls, q.errors, q.rows)", &on("t"));
    server.expect("leaders alone", &rows, "5/0 25000, 5/0 5")
}

#[test]
fn c8_a_generic_plan_run_10000_times_is_counted_exactly_and_takes_no_memory() -> Result<()> {
    let mut server = Server::named("capture-c8")?;
    let mut session = server.session()?;
    session.batch_execute("SET plan_cache_mode = force_generic_plan")?;
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let statement = session.prepare("SELECT v FROM t WHERE id = $1")?;
    session.batch_execute("PREPARE again(integer) AS SELECT v, id FROM t WHERE id = $1")?;
    let mut run = |times: i32| -> Result<()> {
        for id in 1..=times {
            session.query_one(&statement, &[&id])?;
            session.batch_execute(&format!("EXECUTE again({id})"))?;
        }
        Ok(())
    };
    run(2000)?;
    let before = anonymous_kb(pid)?;
    run(8000)?;
    let after = anonymous_kb(pid)?;
    assert!(after < before + 512, "{before} kB before, {after} kB after");
    server.expect_counted("both", &on("t"), "select 10000/0, select 10000/0")?;
    server.expect_no_loss()
}

#[test]
fn c12_a_hot_query_of_256_sessions_is_counted_exactly() -> Result<()> {
    let mut server = Server::start(Cluster::build("capture-c12").setting("max_connections", 300))?;
    let script = server.cluster.data().with_file_name("hot.sql");
    fs::write(&script, "\\set id random(1, 10000)\nSELECT v FROM t WHERE id = :id;\n")?;
    let script = script.to_str().ok_or("path")?.to_owned();
    pgbench(&server.cluster, &["-f", &script, "-M", "prepared", "-c", "256", "-j", "2", "-t", "50"])?;
    server.expect_counted("256 sessions", &on("t"), "select 12800/0")?;
    server.expect_no_loss()
}
