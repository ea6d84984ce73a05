//! Capture when statements fail: errors, cancels, terminations and crashes are counted as what they are, leave nothing behind in the
//! session or in shared memory, and reach the client as they would without us.

use crate::capture::{LIMIT, Server, column, counted, counted_as, make_pgbench_tables, on, pgbench, text};
use indexpilot_tests::{Cluster, Result, Stop, poll_until};
use postgres::Client;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::{fs, thread};

/// SQLSTATE of a statement that must fail.
fn code(session: &mut Client, sql: &str) -> Result<String> {
    match session.batch_execute(sql) {
        Ok(()) => Err(format!("{sql} does not fail").into()),
        Err(e) => Ok(e.code().map_or_else(|| e.to_string(), |c| c.code().to_owned())),
    }
}

/// Waits until the session sleeps in `pg_sleep`.
fn asleep(watch: &mut Client, pid: i32) -> Result<()> {
    let waits = format!("SELECT coalesce(max(wait_event), '') FROM pg_stat_activity WHERE pid = {pid}");
    poll_until(LIMIT, "the session to sleep", || Ok(text(watch, &waits)? == "PgSleep"))
}

fn pid(session: &mut Client) -> Result<i32> {
    Ok(session.query_one("SELECT pg_backend_pid()", &[])?.get(0))
}

#[test]
fn c1_an_error_counts_and_leaves_the_session_at_top_level() -> Result<()> {
    let mut server = Server::named("capture-c1")?;
    server.db.batch_execute(
        "CREATE FUNCTION boom(x integer) RETURNS integer LANGUAGE plpgsql AS $$ \
           BEGIN PERFORM v FROM t WHERE id = x; RAISE EXCEPTION 'boom'; END $$; \
         CREATE FUNCTION fails(x integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ \
           BEGIN PERFORM v FROM t WHERE id = 1 / (x - 1); RETURN x; END $$; \
         CREATE FUNCTION endless(x integer) RETURNS integer LANGUAGE plpgsql AS $$ \
           BEGIN RETURN (SELECT endless(x + 1) FROM t WHERE id = 1); END $$; \
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$; \
         CREATE TABLE guarded (id integer); CREATE TABLE late (id integer); \
         CREATE TRIGGER refuse AFTER INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION refuse(); \
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
    )?;
    server.reset()?;
    let mut session = server.session()?;
    // In the executor, in a function, while the plan is made, in utilities, and in a trigger after the statement.
    assert_eq!(code(&mut session, "SELECT 1 / (v - v) FROM t WHERE id = 5")?, "22012");
    assert_eq!(code(&mut session, "SELECT boom(v) FROM t WHERE id = 6")?, "P0001");
    assert_eq!(code(&mut session, "SELECT v FROM t WHERE id = fails(1)")?, "22012");
    assert_eq!(code(&mut session, "SELECT nosuch FROM t")?, "42703");
    assert_eq!(code(&mut session, "CREATE TABLE t (id integer)")?, "42P07");
    assert_eq!(code(&mut session, "CALL nosuch()")?, "42883");
    assert_eq!(code(&mut session, "DO $$ BEGIN PERFORM 1 / 0; END $$")?, "22012");
    assert_eq!(code(&mut session, "COPY (SELECT 1 / (v - v) FROM t) TO '/dev/null'")?, "22012");
    session.batch_execute("SELECT v, id FROM t WHERE id = 7")?;
    let expected = "nested select 1/0, select 0/1, select 0/1, select 0/1, select 1/0";
    server.expect_counted("errors on t", &on("t"), expected)?;

    session.batch_execute(
        "BEGIN; DECLARE c CURSOR FOR SELECT 10 / (v - 7), v FROM t WHERE id BETWEEN 5 AND 10 ORDER BY id; FETCH c",
    )?;
    assert_eq!(code(&mut session, "FETCH 5 FROM c")?, "22012");
    session.batch_execute("ROLLBACK")?;
    let cursor = format!("w.query LIKE '%BETWEEN%' AND {}", on("t"));
    server.expect_counted("a cursor", &cursor, "select 0/1")?;

    assert_eq!(code(&mut session, "INSERT INTO guarded VALUES (1)")?, "P0001");
    server.expect_counted("a trigger at the end", &on("guarded"), "insert 0/1")?;
    // The statement was over when the commit failed.
    assert_eq!(code(&mut session, "INSERT INTO late VALUES (1)")?, "P0001");
    server.expect_counted("a trigger at commit", &on("late"), "insert 1/0")?;

    assert_eq!(code(&mut session, "INSERT INTO t VALUES (1, 1)")?, "23505");
    server.expect("a violated key", &counted(&format!("w.command = 'insert' AND {}", on("t"))), "insert 0/1")?;
    let time = format!(
        "SELECT bool_and(s.error_ms > 0 AND s.total_ms = 0)::text FROM indexpilot.query_stats s \
         JOIN indexpilot.workload w ON w.id = s.workload_id WHERE s.errors > 0 AND {}",
        on("t")
    );
    server.expect("the time of what failed", &time, "true")?;
    server.expect_no_loss()?;

    // Far more statements inside one another than there is room to keep books of.
    server.reset()?;
    assert_eq!(code(&mut session, "SELECT endless(1)")?, "54001");
    session.batch_execute("SELECT v, id FROM t WHERE id = 7")?;
    server.expect_counted("after an endless recursion", &format!("w.query LIKE 'SELECT v, id%' AND {}", on("t")), "select 1/0")?;
    assert_eq!(server.status("capture_failures")?, "0");
    Ok(())
}

#[test]
fn c2_a_timeout_and_a_cancel_count_as_errors_with_their_time() -> Result<()> {
    let mut server = Server::named("capture-c2")?;
    let mut session = server.session()?;
    session.batch_execute("SET statement_timeout = '50ms'")?;
    assert_eq!(code(&mut session, "SELECT v, pg_sleep(60) FROM t WHERE id = 1")?, "57014");
    session.batch_execute("SET statement_timeout = 0")?;
    let time = format!(
        "SELECT bool_and(s.error_ms >= 40)::text FROM indexpilot.query_stats s JOIN indexpilot.workload w ON w.id = s.workload_id \
         WHERE {}",
        on("t")
    );
    server.expect_counted("a timeout", &on("t"), "select 0/1")?;
    server.expect("its time", &time, "true")?;

    let pid = pid(&mut session)?;
    let mut watch = server.session()?;
    thread::scope(|scope| -> Result<()> {
        let cancelled = scope.spawn(|| code(&mut session, "SELECT v, pg_sleep(60) FROM t WHERE id = 2"));
        asleep(&mut watch, pid)?;
        watch.batch_execute(&format!("SELECT pg_cancel_backend({pid})"))?;
        assert_eq!(cancelled.join().map_err(|_| "panic")??, "57014");
        Ok(())
    })?;
    server.expect_counted("a cancel", &on("t"), "select 0/2")?;
    session.batch_execute("SELECT v FROM t WHERE id = 1")?;
    server.expect_counted("the next statement", &on("t"), "select 0/2, select 1/0")?;
    server.expect_no_loss()
}

#[test]
fn c3_what_a_terminated_session_counted_is_not_lost() -> Result<()> {
    let mut server = Server::named("capture-c3")?;
    let mut session = server.session()?;
    for _ in 0..7 {
        session.batch_execute("SELECT v FROM t WHERE id = 1")?;
    }
    let pid = pid(&mut session)?;
    let mut watch = server.session()?;
    thread::scope(|scope| -> Result<()> {
        let ended = scope.spawn(|| code(&mut session, "SELECT v, pg_sleep(60) FROM t WHERE id = 2"));
        asleep(&mut watch, pid)?;
        watch.batch_execute(&format!("SELECT pg_terminate_backend({pid}, 60000)"))?;
        // Whether the last words of a session arrive is left to chance.
        let code = ended.join().map_err(|_| "panic")??;
        assert!(["57P01", "connection closed"].contains(&code.as_str()), "{code}");
        Ok(())
    })?;
    server.expect_counted("before and while it was terminated", &on("t"), "select 0/1, select 7/0")?;
    server.expect_no_loss()
}

#[test]
fn c3_terminations_at_any_moment_leave_the_counters_consistent() -> Result<()> {
    const KILLS: i64 = 40;
    let mut server = Server::named("capture-c3-storm")?;
    let mut watch = server.session()?;
    let (stop, seen, broken) = (AtomicBool::new(false), AtomicI64::new(0), AtomicI64::new(0));
    let cluster = &server.cluster;
    thread::scope(|scope| -> Result<()> {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    // The server may refuse while sessions that were ended have not left yet.
                    let Ok(mut session) = cluster.connect("postgres", "postgres") else { continue };
                    let _ = session.batch_execute("SET application_name = 'victim'");
                    while !stop.load(Relaxed) {
                        match session.batch_execute("SELECT count(*) FROM t WHERE v < 500") {
                            Ok(()) => seen.fetch_add(1, Relaxed),
                            Err(_) => break,
                        };
                    }
                    broken.fetch_add(1, Relaxed);
                }
            });
        }
        let kills = (0..KILLS).try_for_each(|kill| -> Result<()> {
            let before = seen.load(Relaxed);
            poll_until(LIMIT, "some statements", || Ok(seen.load(Relaxed) > before + kill % 7))?;
            let one = "SELECT count(pg_terminate_backend(pid))::text FROM (SELECT pid FROM pg_stat_activity \
                       WHERE application_name = 'victim' ORDER BY random() LIMIT 1) v";
            text(&mut watch, one).map(|_| ())
        });
        stop.store(true, Relaxed);
        kills
    })?;
    assert!(broken.load(Relaxed) >= KILLS);
    let left = "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'victim'";
    poll_until(LIMIT, "the sessions to leave", || Ok(text(&mut watch, left)? == "0"))?;
    // A statement may have completed whose answer was lost with its session.
    let seen = seen.load(Relaxed);
    let total = counted_as("(q.calls BETWEEN {seen} AND {seen} + 44 AND q.calls + q.errors <= {seen} + 44)::text", &on("t"));
    server.expect("completed statements", &total.replace("{seen}", &seen.to_string()), "true")?;
    // Nobody took a lock with him.
    server.run(&["SELECT v FROM t WHERE id = 1"])?;
    let after = format!("w.query LIKE 'SELECT v FROM t WHERE id = %' AND {}", on("t"));
    server.expect_counted("a new template", &after, "select 1/0")?;
    server.expect_no_loss()
}

#[test]
fn c4_a_thousand_errors_in_subtransactions_keep_the_books_balanced() -> Result<()> {
    let mut server = Server::named("capture-c4")?;
    server.db.batch_execute(
        "CREATE FUNCTION caught(n integer) RETURNS integer LANGUAGE plpgsql AS $$ DECLARE x integer; y integer := 0; \
           BEGIN FOR i IN 1..n LOOP \
             BEGIN SELECT 10 / (v % 2) INTO x FROM t WHERE id = i; \
             EXCEPTION WHEN division_by_zero THEN y := y + 1; END; \
           END LOOP; RETURN y; END $$; \
         CREATE FUNCTION left_open(n integer) RETURNS integer LANGUAGE plpgsql AS $$ DECLARE r record; y integer := 0; \
           BEGIN FOR i IN 1..n LOOP \
             BEGIN FOR r IN SELECT id FROM t WHERE id > i LOOP RAISE division_by_zero; END LOOP; \
             EXCEPTION WHEN division_by_zero THEN y := y + 1; END; \
           END LOOP; RETURN y; END $$",
    )?;
    server.reset()?;
    let mut session = server.session()?;
    let mut transaction = session.transaction()?;
    assert_eq!(transaction.query_one("SELECT caught(2000), (SELECT max(v) FROM t WHERE id = 1)", &[])?.get::<_, i32>(0), 1000);
    transaction.batch_execute("SELECT v FROM t WHERE id = 1")?;
    transaction.commit()?;
    server.expect_counted("in a function", &on("t"), "nested select 1000/1000, select 1/0, select 1/0")?;

    // The query of a loop is not at fault when the loop is left.
    server.reset()?;
    server.run(&["SELECT left_open(1000)", "SELECT v FROM t WHERE id = 1"])?;
    server.expect_counted("loops that were left", &on("t"), "nested select 1000/0, select 1/0")?;

    server.reset()?;
    let mut session = server.session()?;
    session.batch_execute("BEGIN; SELECT v FROM t WHERE id = 1")?;
    for _ in 0..1000 {
        session.batch_execute("SAVEPOINT a")?;
        assert_eq!(code(&mut session, "SELECT 1 / (v - v) FROM t WHERE id = 6")?, "22012");
        session.batch_execute("ROLLBACK TO a")?;
    }
    session.batch_execute("SELECT v FROM t WHERE id = 2; COMMIT")?;
    server.expect_counted("in a transaction", &on("t"), "select 0/1000, select 2/0")?;
    server.expect_no_loss()
}

#[test]
fn c15_a_statement_that_may_not_begin_leaves_nothing_behind() -> Result<()> {
    let mut server = Server::named("capture-c15")?;
    server.db.batch_execute("CREATE ROLE visitor LOGIN; CREATE TABLE open AS SELECT 1 AS n; GRANT SELECT ON open TO visitor")?;
    server.reset()?;
    let mut visitor = server.cluster.connect("postgres", "visitor")?;
    for _ in 0..200 {
        assert_eq!(code(&mut visitor, "SELECT v FROM t WHERE id = 1")?, "42501");
        assert_eq!(code(&mut visitor, "UPDATE t SET v = v WHERE id = 1")?, "42501");
    }
    for _ in 0..3 {
        visitor.batch_execute("SELECT n FROM open")?;
    }
    let role =
        counted_as("format('%s%s %s/%s', CASE WHEN w.nested THEN 'nested ' END, q.role_name, q.calls, q.errors)", &on("open"));
    server.expect("the next statements", &role, "visitor 3/0")?;
    let executed = counted_as("format('%s', q.calls)", &format!("q.calls > 0 AND {}", on("t")));
    server.expect("what never began", &executed, "")?;
    server.expect_no_loss()
}

#[test]
fn messages_reach_the_client_as_without_us() -> Result<()> {
    let mut server = Server::named("capture-messages")?;
    server.db.batch_execute(
        "CREATE FUNCTION f(n integer) RETURNS integer LANGUAGE plpgsql AS $$ DECLARE x integer; \
           BEGIN SELECT v / (v - n) INTO x FROM t WHERE id = n; RETURN x; END $$; \
         CREATE FUNCTION s(n integer) RETURNS integer LANGUAGE sql AS 'SELECT f(v) FROM t WHERE id = n FOR UPDATE'; \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM f(new.id); RETURN new; END $$; \
         CREATE TABLE noted (id integer CHECK (id > 0)); \
         CREATE TRIGGER note AFTER INSERT ON noted FOR EACH ROW EXECUTE FUNCTION note(); \
         CREATE TABLE child (id integer REFERENCES t)",
    )?;
    let script = server.cluster.data().with_file_name("messages.sql");
    fs::write(
        &script,
        "\\set VERBOSITY verbose\n\
         SELECT nosuch FROM t;\n\
         CREATE TABLE x (a nosuchtype);\n\
         INSERT INTO t VALUES (1, 1);\n\
         INSERT INTO noted VALUES (0);\n\
         INSERT INTO noted VALUES (3);\n\
         INSERT INTO child VALUES (0);\n\
         DO $$ BEGIN PERFORM 1 / 0; END $$;\n\
         SELECT v::text::date FROM t WHERE id = 1;\n\
         SELECT f(1);\n\
         SELECT s(2);\n\
         CALL nosuch();\n\
         PREPARE p(integer) AS SELECT v / $1 FROM t WHERE id = 1;\n\
         EXECUTE p(0);\n\
         EXECUTE p('x');\n\
         BEGIN; DECLARE c CURSOR FOR SELECT 1 / (v - 3) FROM t WHERE id < 5 ORDER BY id; FETCH 2 FROM c; FETCH 2 FROM c; COMMIT;\n\
         COPY (SELECT 1 / (v - v) FROM t) TO STDOUT;\n\
         EXPLAIN ANALYZE SELECT 1 / (v - v) FROM t;\n\
         CREATE TABLE y AS SELECT 1 / (v - v) FROM t;\n\
         SET statement_timeout = '20ms'; SELECT pg_sleep(60) FROM t LIMIT 1;\n",
    )?;
    let messages = |server: &Server| -> Result<String> {
        // What psql writes to stderr goes to a file, in order with the rest.
        let shell = "exec \"$0\" -d postgres -Xqa -f \"$1\" 2>&1";
        let psql = server.cluster.client_program("psql");
        let mut bash = Command::new("bash");
        bash.envs(psql.get_envs().filter_map(|(k, v)| Some((k, v?)))).args(["-c", shell]).arg(psql.get_program()).arg(&script);
        server.cluster.run(&mut bash)
    };
    let with = messages(&server)?;
    assert!(with.matches("ERROR:").count() >= 18, "{with}");
    server.cluster.configure("shared_preload_libraries", "")?;
    server.cluster.restart(Stop::Fast)?;
    let without = messages(&server)?;
    assert_eq!(with, without);
    Ok(())
}

#[test]
fn a_crash_begins_anew_and_nothing_hangs() -> Result<()> {
    let mut server = Server::start(Cluster::build("capture-crash").setting("restart_after_crash", "on"))?;
    make_pgbench_tables(&server.cluster)?;
    pgbench(&server.cluster, &["-S", "-c", "2", "-t", "100"])?;
    let accounts = format!("w.command = 'select' AND {}", on("pgbench_accounts"));
    server.expect_counted("before the crash", &accounts, "select 200/0")?;
    let epoch = server.status("capture_epoch")?;
    let mut victim = server.session()?;
    let pid = pid(&mut victim)?;
    thread::scope(|scope| -> Result<()> {
        let end = scope.spawn(|| victim.batch_execute("SELECT v, pg_sleep(60) FROM t WHERE id = 2").is_err());
        asleep(&mut server.db, pid)?;
        server.cluster.kill9(pid)?;
        assert!(end.join().map_err(|_| "panic")?);
        Ok(())
    })?;
    poll_until(LIMIT, "the server to notice", || Ok(server.cluster.log().contains("was terminated by signal 9")))?;
    poll_until(LIMIT, "the server to recover", || Ok(server.cluster.connect("postgres", "postgres").is_ok()))?;
    server.reconnect()?;
    assert_ne!(server.status("capture_epoch")?, epoch);
    // What was in the tables is there, what was in memory is gone, and capture goes on by itself.
    assert_eq!(text(&mut server.db, &counted(&accounts))?, "select 200/0");
    server.wait_for_capture()?;
    pgbench(&server.cluster, &["-S", "-c", "2", "-t", "100"])?;
    server.expect_counted("after the crash", &accounts, "select 200/0")?;
    let crashes = server.cluster.log().matches("terminated by signal").count();
    assert_eq!(crashes, 1, "{}", server.cluster.log_tail(40));
    assert!(column(&mut server.db, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'indexpilot launcher'")?.len() == 1);
    server.expect_no_loss()
}
