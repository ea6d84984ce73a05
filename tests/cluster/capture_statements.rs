//! Capture of every way in which a statement comes to run: cursors, utilities that contain a query, functions, triggers, DO and CALL.
//! Each counts once, on its own level, for the role that it ran as.

use crate::capture::{LIMIT, Server, column, counted, counted_as, on, text};
use indexpilot_tests::{Cluster, Result, poll_until};
use std::thread;

/// A function in plpgsql, one in SQL that is not inlined, a procedure that commits, and triggers, all working on `t`.
const FUNCTIONS: &str = "
CREATE FUNCTION one(x integer) RETURNS integer LANGUAGE plpgsql AS $$ DECLARE r integer;
  BEGIN SELECT v INTO r FROM t WHERE id = x; RETURN r; END $$;
CREATE FUNCTION many(n integer) RETURNS integer LANGUAGE plpgsql AS $$ DECLARE r record; s integer := 0;
  BEGIN FOR r IN SELECT id, v FROM t WHERE id <= n LOOP s := s + r.v; END LOOP; RETURN s; END $$;
CREATE FUNCTION dynamic(x integer) RETURNS integer LANGUAGE plpgsql AS $$ DECLARE r integer;
  BEGIN EXECUTE 'SELECT v, label, id FROM t WHERE id = $1' INTO r USING x; RETURN r; END $$;
CREATE FUNCTION in_sql(x integer) RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT count(*) FROM t WHERE id < x';
CREATE PROCEDURE steps(n integer) LANGUAGE plpgsql AS $$
  BEGIN FOR i IN 1..n LOOP UPDATE t SET v = v WHERE id = i; IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF; END LOOP; END $$;
";

#[test]
fn c5_a_cursor_is_one_execution_however_it_ends() -> Result<()> {
    let mut server = Server::named("capture-c5")?;
    let rows = counted_as("format('%s%s/%s %s', CASE WHEN w.nested THEN 'nested ' END, q.calls, q.errors, q.rows)", &on("t"));
    let ten = ["FETCH 10 FROM c"; 5].join("; ");
    // Opened outside and closed inside a subtransaction, with fetches in both.
    server.run(&[
        "BEGIN; DECLARE c CURSOR FOR SELECT id FROM t WHERE id <= 95",
        &ten,
        "SAVEPOINT a",
        &ten,
        "CLOSE c; ROLLBACK TO a; COMMIT",
    ])?;
    server.expect("closed in a subtransaction", &rows, "1/0 95")?;
    server.reset()?;
    // Opened in a subtransaction that is rolled back.
    server.run(&["BEGIN; SAVEPOINT a; DECLARE c CURSOR FOR SELECT id FROM t WHERE id <= 95", &ten, "ROLLBACK TO a; COMMIT"])?;
    server.expect("rolled back", &rows, "1/0 50")?;
    server.reset()?;
    server.run(&["BEGIN; DECLARE c CURSOR FOR SELECT id FROM t WHERE id <= 95", &ten, "COMMIT"])?;
    server.expect("left to the commit", &rows, "1/0 50")?;
    server.reset()?;
    server.run(&["BEGIN; DECLARE c CURSOR FOR SELECT id FROM t WHERE id <= 95", "COMMIT"])?;
    server.run(&["BEGIN; DECLARE c CURSOR FOR SELECT 1 / (v - v) FROM t WHERE id <= 95"])?;
    server.run(&["SELECT v FROM t WHERE id = 1"])?;
    server.expect("never fetched from", &rows, "1/0 1")?;
    server.reset()?;
    // A cursor that outlives its transaction is read to its end when that commits; what is fetched later comes from a copy.
    server.run(&["BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT id FROM t WHERE id <= 95", &ten, "COMMIT", &ten, "CLOSE c"])?;
    server.expect_counted("with hold", &on("t"), "select 1/0")?;
    server.expect_no_loss()
}

#[test]
fn c6_interleaved_statements_do_not_mix_their_figures() -> Result<()> {
    let mut server = Server::named("capture-c6")?;
    server.db.batch_execute(FUNCTIONS)?;
    server.reset()?;
    let mut session = server.session()?;
    session.batch_execute(
        "BEGIN; DECLARE a CURSOR FOR SELECT id, one(id) FROM t WHERE id <= 40; DECLARE b CURSOR FOR SELECT label FROM t WHERE id <= 30",
    )?;
    for _ in 0..10 {
        session.batch_execute("FETCH 4 FROM a; FETCH 3 FROM b; SELECT v FROM t WHERE id = 1")?;
    }
    session.batch_execute("CLOSE a; SELECT many(5); CLOSE b; COMMIT")?;
    let rows = counted_as("format('%s%s/%s %s', CASE WHEN w.nested THEN 'nested ' END, q.calls, q.errors, q.rows)", &on("t"));
    server.expect("two cursors, statements between", &rows, "1/0 30, 1/0 40, 10/0 10, nested 1/0 5, nested 40/0 40")?;

    // More of them than a session keeps books of: those beyond are left out and counted as such.
    server.reset()?;
    let mut transaction = session.transaction()?;
    let statement = transaction.prepare("SELECT id, v FROM t WHERE id > $1 AND id <= $1 + 20")?;
    let portals = (0..200i32).map(|n| Ok(transaction.bind(&statement, &[&n])?)).collect::<Result<Vec<_>>>()?;
    for _ in 0..2 {
        for portal in &portals {
            assert_eq!(transaction.query_portal(portal, 8)?.len(), 8);
        }
    }
    transaction.commit()?;
    let calls = counted_as("q.calls::text", &on("t"));
    poll_until(LIMIT / 6, "all of 200", || {
        let calls = server.flushed(&calls)?;
        Ok(calls.parse::<i64>().unwrap_or_default() + server.figure("capture_untracked")? == 200)
    })?;
    assert_eq!(server.status("capture_failures")?, "0");

    // The same with statements inside one another.
    server.db.batch_execute(
        "CREATE FUNCTION deep(n integer) RETURNS integer LANGUAGE plpgsql AS $$ \
           BEGIN RETURN CASE WHEN n > 0 THEN (SELECT deep(n - 1) FROM t WHERE id = n) ELSE 0 END; END $$",
    )?;
    let before = server.figure("capture_untracked")?;
    server.reset()?;
    session.batch_execute("SELECT deep(150)")?;
    session.batch_execute("SELECT v FROM t WHERE id = 1")?;
    server.expect_counted("the next statement", &format!("NOT w.nested AND {}", on("t")), "select 1/0")?;
    let calls = counted_as("q.calls::text", &format!("w.nested AND {}", on("t")));
    poll_until(LIMIT / 6, "all of them", || {
        let calls = server.flushed(&calls)?;
        Ok(calls.parse::<i64>().unwrap_or_default() + server.figure("capture_untracked")? - before == 151)
    })
}

#[test]
fn sessions_hand_in_what_they_have_when_they_are_asked() -> Result<()> {
    let mut server = Server::start(Cluster::build("capture-hand-in").setting("max_prepared_transactions", 2))?;
    // Idle, or in a transaction that failed; one that goes on hands in when it ends.
    let (mut idle, mut open, mut failed) = (server.session()?, server.session()?, server.session()?);
    for _ in 0..3 {
        idle.batch_execute("SELECT v FROM t WHERE id = 1")?;
    }
    open.batch_execute("BEGIN")?;
    failed.batch_execute("BEGIN")?;
    for _ in 0..3 {
        open.batch_execute("SELECT v, v FROM t WHERE id = 1")?;
        failed.batch_execute("SELECT v, v, v FROM t WHERE id = 1")?;
    }
    assert!(failed.batch_execute("SELECT nosuch").is_err());
    server.expect_counted("who is in no transaction", &on("t"), "select 3/0, select 3/0")?;
    open.batch_execute("UPDATE t SET v = v WHERE id = 1; PREPARE TRANSACTION 'two'")?;
    open.batch_execute("COMMIT PREPARED 'two'")?;
    failed.batch_execute("ROLLBACK; SELECT id FROM t WHERE id = 1")?;
    let expected = "select 1/0, select 3/0, select 3/0, select 3/0, update 1/0";
    server.expect_counted("they go on", &on("t"), expected)?;

    // Who is busy is not waited for, and hands in later.
    server.reset()?;
    let mut busy = server.session()?;
    let pid: i32 = busy.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    for _ in 0..2 {
        busy.batch_execute("SELECT v FROM t WHERE id = 2")?;
    }
    thread::scope(|scope| -> Result<()> {
        let sleeping = scope.spawn(|| busy.batch_execute("SELECT v FROM t WHERE id = 2; SELECT pg_sleep(60)").is_err());
        let waits = format!("SELECT coalesce(max(wait_event), '') FROM pg_stat_activity WHERE pid = {pid}");
        poll_until(LIMIT, "the session to sleep", || Ok(text(&mut server.db, &waits)? == "PgSleep"))?;
        server.db.batch_execute("SET statement_timeout = '20s'; SELECT indexpilot.capture_flush(); RESET statement_timeout")?;
        assert_eq!(text(&mut server.db, &waits)?, "PgSleep", "nobody's statement is disturbed");
        server.db.batch_execute(&format!("SELECT pg_cancel_backend({pid})"))?;
        assert!(sleeping.join().map_err(|_| "panic")?);
        Ok(())
    })?;
    server.expect_counted("who was busy", &on("t"), "select 3/0")?;
    server.expect_no_loss()
}

#[test]
fn c16_utilities_count_the_query_that_they_contain() -> Result<()> {
    let mut server = Server::named("capture-c16")?;
    server.db.batch_execute(FUNCTIONS)?;
    for (what, statements, expected) in [
        ("EXPLAIN", vec!["EXPLAIN SELECT v FROM t WHERE id = 9"], ""),
        ("EXPLAIN ANALYZE", vec!["EXPLAIN ANALYZE SELECT v FROM t WHERE id = 9"], ""),
        ("EXPLAIN EXECUTE", vec!["PREPARE p AS SELECT v FROM t", "EXPLAIN EXECUTE p", "EXPLAIN ANALYZE EXECUTE p"], ""),
        ("EXECUTE", vec!["PREPARE p(integer) AS SELECT v FROM t WHERE id = $1", "EXECUTE p(1)", "EXECUTE p(2)"], "select 2/0"),
        ("COPY", vec!["COPY (SELECT v FROM t WHERE id < 10) TO '/dev/null'"], "select 1/0"),
        ("COPY of a table", vec!["COPY t TO '/dev/null'"], ""),
        ("COPY RETURNING", vec!["COPY (UPDATE t SET v = v WHERE id = 1 RETURNING v) TO '/dev/null'"], "update 1/0"),
        ("CREATE TABLE AS", vec!["CREATE TABLE copy AS SELECT v FROM t WHERE id < 10"], "select 1/0"),
        ("SELECT INTO", vec!["SELECT v INTO copy2 FROM t WHERE id < 10"], "select 1/0"),
        ("CREATE TABLE AS EXECUTE", vec!["PREPARE p AS SELECT v FROM t", "CREATE TABLE copy3 AS EXECUTE p"], "select 1/0"),
        ("a materialised view", vec!["CREATE MATERIALIZED VIEW m AS SELECT v FROM t WHERE id < 9"], "select 1/0"),
        ("REFRESH", vec!["REFRESH MATERIALIZED VIEW m"], "select 1/0"),
        ("a view", vec!["CREATE VIEW w AS SELECT id, v FROM t WHERE v > 3", "SELECT v FROM w WHERE id = 1"], "select 1/0"),
        ("DO", vec!["DO $$ BEGIN PERFORM v FROM t WHERE id = 3; END $$"], "nested select 1/0"),
        ("CALL", vec!["CALL steps(5)"], "nested update 5/0"),
        ("a function", vec!["SELECT one(1), one(2)", "SELECT one(3)"], "nested select 3/0"),
        ("a loop", vec!["SELECT many(100)"], "nested select 1/0"),
        ("dynamic", vec!["SELECT dynamic(1), dynamic(2)"], "nested select 2/0"),
        ("a function in SQL", vec!["SELECT in_sql(10)"], "nested select 1/0"),
        ("a function in FROM", vec!["SELECT o, t.v FROM one(5) o JOIN t ON t.id = o"], "nested select 1/0, select 1/0"),
        ("PREPARE of a function", vec!["PREPARE p AS SELECT one(1)", "EXECUTE p"], "nested select 1/0"),
    ] {
        server.reset()?;
        server.run(&statements)?;
        // Something that is counted in any case, so that an empty answer is not one that comes too early.
        server.run(&["SELECT count(*) + 1 FROM t"])?;
        let counted = format!("{} AND coalesce(w.query, '') NOT LIKE 'SELECT count(*) +%'", on("t"));
        let last = counted_as("'seen'", "w.query LIKE 'SELECT count(*) +%'");
        server.expect(what, &last, "seen")?;
        server.expect_counted(what, &counted, expected)?;
    }
    server.expect_no_loss()
}

#[test]
fn triggers_and_constraints_count_as_nested_statements_of_their_owner() -> Result<()> {
    let mut server = Server::named("capture-triggers")?;
    server.db.batch_execute(
        "CREATE ROLE owner; CREATE ROLE clerk LOGIN; GRANT CREATE ON SCHEMA public TO owner; GRANT SELECT ON t TO owner; \
         SET ROLE owner; \
         CREATE TABLE parent (id integer PRIMARY KEY); CREATE TABLE child (id integer, parent_id integer REFERENCES parent); \
         CREATE TABLE audit (at timestamptz, id integer); \
         CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ \
           BEGIN INSERT INTO audit VALUES (now(), new.id); RETURN new; END $$; \
         CREATE TRIGGER log_it BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION log_it(); \
         CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ \
           BEGIN PERFORM v FROM t WHERE id = new.id; RETURN new; END $$; \
         CREATE CONSTRAINT TRIGGER look AFTER INSERT ON child DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION look(); \
         GRANT INSERT ON child TO clerk; INSERT INTO parent VALUES (1); RESET ROLE",
    )?;
    server.reset()?;
    let mut clerk = server.cluster.connect("postgres", "clerk")?;
    clerk.batch_execute("BEGIN; INSERT INTO child VALUES (1, 1), (2, 1), (3, 1); COMMIT")?;
    clerk.batch_execute("INSERT INTO child VALUES (4, 1)")?;
    let who = "format('%s%s %s %s/%s', CASE WHEN w.nested THEN 'nested ' END, q.role_name, w.command, q.calls, q.errors)";
    server.expect("the statements", &counted_as(who, &on("child")), "clerk insert 1/0, clerk insert 1/0")?;
    server.expect("the row trigger", &counted_as(who, &on("audit")), "nested owner insert 4/0")?;
    server.expect("the deferred trigger", &counted_as(who, &on("t")), "nested owner select 4/0")?;
    server.expect("the foreign key", &counted_as(who, &on("parent")), "nested owner select 4/0")?;
    server.expect_no_loss()
}

#[test]
fn nested_statements_are_left_out_when_only_the_top_is_asked_for() -> Result<()> {
    let mut server = Server::named("capture-top")?;
    server.db.batch_execute(FUNCTIONS)?;
    server.reset()?;
    server.run(&[
        "SET indexpilot.capture_track = 'top'",
        "SELECT one(1), v FROM t WHERE id = 1",
        "CALL steps(3)",
        "SELECT many(3)",
    ])?;
    server.expect_counted("top", &on("t"), "select 1/0")?;
    server.run(&["SET indexpilot.capture_track = 'all'", "SELECT one(1), v FROM t WHERE id = 1"])?;
    server.expect_counted("all", &on("t"), "nested select 1/0, select 2/0")?;
    // The same statement on both levels is two templates.
    server.reset()?;
    server.run(&["SELECT count(*) FROM t WHERE id < 10", "SELECT in_sql(10)"])?;
    server.expect_counted("both levels", &on("t"), "nested select 1/0, select 1/0")?;
    let (refused, setting) =
        (server.session()?.batch_execute("SET indexpilot.capture_track = 'some'"), "SHOW indexpilot.capture_track");
    assert_eq!(refused.expect_err("some is nothing").code().map(|c| c.code().to_owned()).as_deref(), Some("22023"));
    assert_eq!(column(&mut server.db, setting)?, ["all"]);
    Ok(())
}

#[test]
fn nested_statements_belong_to_the_tenant_of_their_caller() -> Result<()> {
    let mut server = Server::named("capture-nested-tenant")?;
    server.db.batch_execute(FUNCTIONS)?;
    server.reset()?;
    server.run(&["SET indexpilot.tenant_id = 'acme'", "SELECT one(1)", "RESET indexpilot.tenant_id", "SELECT one(2), one(3)"])?;
    let tenants = format!(
        "SELECT string_agg(s.tenant_id || '=' || s.calls, ' ' ORDER BY s.tenant_id) FROM (SELECT s.tenant_id, sum(s.calls) AS calls \
         FROM indexpilot.query_stats s JOIN indexpilot.workload w ON w.id = s.workload_id WHERE w.nested AND {} GROUP BY 1) s",
        on("t")
    );
    server.expect("calls by tenant", &tenants, "=2 acme=1")
}

#[test]
fn texts_of_functions_can_be_planned_by_themselves() -> Result<()> {
    let mut server = Server::named("capture-function-texts")?;
    server.db.batch_execute(
        "CREATE FUNCTION mixed(who text, low integer, OUT total bigint, OUT last text) LANGUAGE plpgsql AS $$ \
           DECLARE high integer := low + 5; r t%ROWTYPE; \
           BEGIN \
             total := (SELECT count(*) FROM t WHERE id BETWEEN low AND high); \
             SELECT * INTO r FROM t WHERE label = who AND id > mixed.low LIMIT 1; \
             UPDATE t SET v = v + high WHERE id = r.id; \
             last := r.label; \
             IF EXISTS (SELECT FROM t WHERE t.v = low) THEN low := low + 1; END IF; \
             PERFORM 1 FROM t WHERE v = high; \
           END $$",
    )?;
    server.reset()?;
    server.run(&["SELECT * FROM mixed('label 77', 70)"])?;
    let nested = format!("w.nested AND {}", on("t"));
    server.expect_counted(
        "all statements of the function",
        &nested,
        "nested select 1/0, nested select 1/0, nested select 1/0, \
                          nested select 1/0, nested update 1/0",
    )?;
    let samples = "SELECT s.query || ' | ' || s.parameter_types::text || ' | ' || coalesce(s.parameter_values::text, '') \
                   FROM indexpilot.workload_samples s JOIN indexpilot.workload w ON w.id = s.workload_id WHERE w.nested ORDER BY 1";
    poll_until(LIMIT, "the samples", || {
        server.db.batch_execute("SELECT indexpilot.capture_flush()")?;
        Ok(column(&mut server.db, samples)?.len() >= 5)
    })?;
    let samples = column(&mut server.db, samples)?;
    for sample in &samples {
        let text = sample.split(" | ").next().unwrap_or_default();
        assert!(!["low", "high", "who", "r.id", "INTO", "PERFORM", ":="].iter().any(|w| text.contains(w)), "{samples:#?}");
        // Without variables it is a text like any other for the parser.
        server.db.prepare(text).map_err(|e| format!("{sample}: {e}\n{samples:#?}"))?;
    }
    let values = samples.join("\n");
    for value in ["70", "75", "label 77", "77"] {
        assert!(values.contains(value), "{value} is not in {values}");
    }
    Ok(())
}

#[test]
fn statements_of_parallel_sessions_and_functions_add_up() -> Result<()> {
    let mut server = Server::named("capture-nested-load")?;
    server.db.batch_execute(FUNCTIONS)?;
    let script = server.cluster.data().with_file_name("calls.sql");
    std::fs::write(&script, "\\set id random(1, 10000)\nSELECT one(:id), dynamic(:id);\nCALL steps(2);\n")?;
    server.reset()?;
    let script = script.to_str().ok_or("path")?.to_owned();
    crate::capture::pgbench(&server.cluster, &["-f", &script, "-c", "4", "-j", "2", "-t", "300"])?;
    let expected = "nested select 1200/0, nested select 1200/0, nested update 2400/0";
    server.expect("nested ones", &counted(&on("t")), expected)?;
    server.expect_no_loss()
}
