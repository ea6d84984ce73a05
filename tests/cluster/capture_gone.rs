//! What was captured when something goes away: a database, the extension, a transaction that flushed, a letter, a server.

use crate::capture::{LIMIT, Server, counted, on, text};
use indexpilot_tests::{Cluster, Result, Stop, poll_until};
use postgres::Client;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Databases that come and go, more than are captured at a time.
const DATABASES: usize = 70;

/// Waits until this database is captured.
fn registered(db: &mut Client) -> Result<()> {
    let registered = "SELECT value FROM indexpilot.status WHERE name = 'registered'";
    poll_until(LIMIT, "the database to be registered", || Ok(text(db, registered)? == "true"))
}

#[test]
fn databases_that_are_dropped_take_nothing_with_them() -> Result<()> {
    let small = Cluster::build("gone-databases").setting("indexpilot.capture_max_queries", 100);
    let mut server = Server::start(small.setting("indexpilot.capture_max_samples", 64))?;
    server.db.batch_execute("CREATE DATABASE model")?;
    server.cluster.connect("model", "postgres")?.batch_execute("CREATE TABLE u (id integer, v integer)")?;
    let before = server.figures()?;
    for n in 0..DATABASES {
        server.db.batch_execute(&format!("CREATE DATABASE db{n} TEMPLATE model"))?;
        let mut db = server.cluster.connect(&format!("db{n}"), "postgres")?;
        db.batch_execute("CREATE EXTENSION indexpilot")?;
        registered(&mut db)?;
        for statement in ["SELECT v FROM u WHERE id = 1", "SELECT id FROM u", "UPDATE u SET v = 1", "DELETE FROM u"] {
            db.batch_execute(statement)?;
        }
        // Some are dropped with statements that nobody flushed, some with sessions in them.
        match n % 3 {
            0 => db.batch_execute("SELECT indexpilot.capture_flush()")?,
            1 => drop(db),
            _ => {
                server.db.batch_execute(&format!("DROP DATABASE db{n} WITH (FORCE)"))?;
                continue;
            }
        }
        server.db.batch_execute(&format!("DROP DATABASE db{n} WITH (FORCE)"))?;
    }
    // Everything is as it was, but for what nobody takes: this database's own is not flushed here.
    let own = |figures: &str| -> Vec<String> {
        let kept = ["capture_templates = ", "capture_databases = ", "capture_samples = "];
        figures.split(", ").filter(|f| kept.iter().any(|k| f.starts_with(k))).map(str::to_owned).collect()
    };
    let mut after = before.clone();
    let _ = poll_until(LIMIT / 4, "all to be given back", || {
        after = server.figures()?;
        Ok(own(&after) == own(&before))
    });
    assert_eq!(own(&after), own(&before), "{after}");
    assert_eq!((server.status("databases_unserved")?, server.status("workers_refused")?), ("0".into(), "0".into()));
    server.expect_no_loss()?;
    // And there is room for another one.
    server.db.batch_execute("CREATE DATABASE another TEMPLATE model")?;
    let mut db = server.cluster.connect("another", "postgres")?;
    db.batch_execute("CREATE EXTENSION indexpilot")?;
    registered(&mut db)?;
    for _ in 0..5 {
        server.cluster.connect("another", "postgres")?.batch_execute("SELECT v FROM u WHERE id = 1")?;
    }
    poll_until(LIMIT / 4, "its statements", || {
        db.batch_execute("SELECT indexpilot.capture_flush()")?;
        Ok(text(&mut db, &counted(&on("u")))? == "select 5/0")
    })?;
    let samples = "SELECT (count(*) > 0)::text FROM indexpilot.workload_samples WHERE query = 'SELECT v FROM u WHERE id = 1'";
    assert_eq!(text(&mut db, samples)?, "true");
    server.expect_no_loss()
}

#[test]
fn letters_that_do_not_exist_in_utf8_spoil_nothing_else() -> Result<()> {
    let server = Server::named("gone-letters")?;
    let mut own = server.session()?;
    own.batch_execute("CREATE DATABASE windows TEMPLATE template0 ENCODING WIN1252 LOCALE 'C'")?;
    let mut db = server.cluster.connect("windows", "postgres")?;
    db.batch_execute(
        "CREATE TABLE words (id integer, word text); CREATE EXTENSION indexpilot; \
         CREATE FUNCTION find(x text) RETURNS integer LANGUAGE plpgsql AS $$ DECLARE r integer; \
           BEGIN SELECT id INTO r FROM words WHERE word = x; RETURN r; END $$",
    )?;
    registered(&mut db)?;
    db.batch_execute("SELECT indexpilot.capture_flush()")?;
    db.batch_execute("SELECT indexpilot.capture_reset()")?;
    // 0x81 is a letter of WIN1252 for the server, but none that has an equivalent.
    let script = server.cluster.data().with_file_name("letters.sql");
    let mut lines = Vec::new();
    for line in [
        &b"SELECT id FROM words WHERE word = 'a\x81b\xfc';"[..],
        b"SELECT id, '\x81\x8d\x8f\x90\x9d' FROM words WHERE word = '\x80';",
        b"PREPARE p(text) AS SELECT word FROM words WHERE word = $1;",
        b"EXECUTE p('c\x81');",
        b"SELECT find('d\x81');",
        b"SET indexpilot.tenant_id = 'e\x81';",
        b"UPDATE words SET id = 1 WHERE word = 'f';",
        b"RESET indexpilot.tenant_id;",
        b"DELETE FROM words WHERE word = 'gr\xfcn';",
    ] {
        lines.extend_from_slice(line);
        lines.push(b'\n');
    }
    fs::write(&script, lines)?;
    let mut psql = server.cluster.client_program("psql");
    psql.env("PGCLIENTENCODING", "WIN1252").args(["-qX", "-v", "ON_ERROR_STOP=1", "-d", "windows", "-f"]).arg(&script);
    server.cluster.run(&mut psql)?;
    let expected = "delete 1/0, nested select 1/0, select 1/0, select 1/0, select 1/0, update 1/0";
    let (calls, mut got) = (counted(&on("words")), String::new());
    let flushed = poll_until(LIMIT / 4, "the statements", || {
        db.batch_execute("SELECT indexpilot.capture_flush()")?;
        got = text(&mut db, &calls)?;
        Ok(got == expected)
    });
    assert_eq!(got, expected, "{flushed:?}\n{}", server.cluster.log_tail(20));
    flushed?;
    let kept = "SELECT count(*)::text FROM indexpilot.workload_samples WHERE query LIKE 'DELETE FROM words WHERE word = ''grün''%'";
    assert_eq!(text(&mut db, kept)?, "1");
    assert!(!server.cluster.log().contains("has no equivalent"), "{}", server.cluster.log_tail(20));
    Ok(())
}

/// A session with statements that it hands in at the end of its transaction.
fn in_a_transaction(server: &Server) -> Result<Client> {
    let mut session = server.session()?;
    session.batch_execute("BEGIN")?;
    for _ in 0..4 {
        session.batch_execute("SELECT v FROM t WHERE id = 1")?;
    }
    Ok(session)
}

/// Without the extension nothing is captured any more.
fn drop_extension(server: &mut Server) -> Result<()> {
    server.db.batch_execute("DROP EXTENSION indexpilot CASCADE")?;
    // Nobody can be asked but a session of a database that has it.
    server.db.batch_execute("CREATE DATABASE watch")?;
    let mut watch = server.cluster.connect("watch", "postgres")?;
    watch.batch_execute("SET indexpilot.capture = off; CREATE EXTENSION indexpilot")?;
    registered(&mut watch)?;
    let databases = "SELECT value FROM indexpilot.status WHERE name = 'capture_databases'";
    poll_until(LIMIT, "the database to be captured no longer", || Ok(text(&mut watch, databases)? == "1"))?;
    drop(watch);
    Ok(server.db.batch_execute("DROP DATABASE watch WITH (FORCE)")?)
}

/// Installs it again; nothing but what runs from now on is counted.
fn install_again(server: &mut Server) -> Result<()> {
    server.db.batch_execute("CREATE EXTENSION indexpilot")?;
    server.wait_for_worker()?;
    server.expect_counted("nothing old", &on("t"), "")
}

#[test]
fn what_sessions_had_before_the_extension_was_dropped_is_forgotten() -> Result<()> {
    let mut server = Server::named("gone-extension")?;
    let (leaves, mut stays) = (in_a_transaction(&server)?, in_a_transaction(&server)?);
    drop_extension(&mut server)?;
    drop(leaves);
    stays.batch_execute("COMMIT; SELECT v FROM t WHERE id = 1")?;
    let sessions = "SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'client backend'";
    poll_until(LIMIT, "the session to end", || Ok(text(&mut server.db, sessions)? == "2"))?;
    install_again(&mut server)?;
    for _ in 0..100 {
        stays.batch_execute("SELECT v, id FROM t WHERE id = 1")?;
    }
    server.run(&["SELECT v FROM t WHERE id = 1"; 3])?;
    server.expect_counted("something new", &on("t"), "select 100/0, select 3/0")?;
    server.expect_no_loss()
}

#[test]
fn what_a_transaction_had_before_the_extension_was_installed_again_is_forgotten() -> Result<()> {
    let mut server = Server::named("gone-extension-open")?;
    let mut open = in_a_transaction(&server)?;
    drop_extension(&mut server)?;
    install_again(&mut server)?;
    open.batch_execute("COMMIT")?;
    server.run(&["SELECT v, id FROM t WHERE id = 1"; 3])?;
    server.expect_counted("something new", &on("t"), "select 3/0")?;
    server.expect_no_loss()
}

#[test]
fn a_flush_that_is_rolled_back_loses_nothing() -> Result<()> {
    let mut server = Server::named("gone-flush")?;
    let figures = crate::capture::counted_as(
        "format('%s %s/%s %s rows, p99 %s', w.command, q.calls, q.errors, q.rows, q.p99_ms > 0)",
        &on("t"),
    );
    server.run(&["SELECT v FROM t WHERE id <= 3"; 3])?;
    server.run(&["SET indexpilot.tenant_id = 'acme'", "SELECT v FROM t WHERE id <= 3", "UPDATE t SET v = v WHERE id = 1"])?;
    assert!(server.run(&["SELECT 1 / (v - v), v FROM t WHERE id = 1"]).is_err());
    for how in
        ["BEGIN; SELECT indexpilot.capture_flush(); ROLLBACK", "BEGIN; SELECT indexpilot.capture_flush(); SELECT 1 / 0; COMMIT"]
    {
        for _ in 0..2 {
            let _ = server.db.batch_execute(how);
            let _ = server.db.batch_execute("ROLLBACK");
        }
    }
    let expected = "select 0/1 0 rows, p99 , select 4/0 12 rows, p99 t, update 1/0 1 rows, p99 t";
    server.expect("after rollbacks", &figures, expected)?;
    let tenants = format!(
        "SELECT string_agg(DISTINCT s.tenant_id || s.calls, ' ') FROM indexpilot.query_stats s \
         JOIN indexpilot.workload w ON w.id = s.workload_id WHERE w.command = 'select' AND s.calls > 0 AND {}",
        on("t")
    );
    server.expect("tenants", &tenants, "3 acme1")?;
    // Samples come again with the next executions.
    server.run(&["SELECT v FROM t WHERE id <= 3"; 4])?;
    let sampled = "SELECT (count(*) > 0)::text FROM indexpilot.workload_samples WHERE query = 'SELECT v FROM t WHERE id <= 3'";
    server.expect("a sample", sampled, "true")?;
    let expected = "select 0/1 0 rows, p99 , select 8/0 24 rows, p99 t, update 1/0 1 rows, p99 t";
    server.expect("it goes on", &figures, expected)?;
    server.expect_no_loss()
}

#[test]
fn a_flush_that_is_rolled_back_to_a_savepoint_loses_nothing() -> Result<()> {
    let mut server = Server::named("gone-flush-savepoint")?;
    server.run(&["SELECT v FROM t WHERE id <= 3"; 3])?;
    server.db.batch_execute("BEGIN; SAVEPOINT a; SELECT indexpilot.capture_flush(); ROLLBACK TO a; COMMIT")?;
    server.expect_counted("after a savepoint", &on("t"), "select 3/0")?;
    server.db.batch_execute("BEGIN; SAVEPOINT a; SELECT indexpilot.capture_flush(); RELEASE a; COMMIT")?;
    server.run(&["SELECT v FROM t WHERE id <= 3"; 3])?;
    server.db.batch_execute("BEGIN; SAVEPOINT a; SELECT indexpilot.capture_flush(); RELEASE a; COMMIT")?;
    server.expect_counted("once each", &on("t"), "select 6/0")?;
    server.expect_no_loss()
}

#[test]
fn a_file_that_cannot_be_removed_is_not_counted_twice() -> Result<()> {
    let mut server = Server::named("gone-file")?;
    server.run(&["SELECT v FROM t WHERE id = 7"; 10])?;
    server.cluster.stop(Stop::Fast)?;
    let directory = server.cluster.data().join("pg_stat");
    let (file, mode) = (directory.join("indexpilot.stat"), |mode| fs::Permissions::from_mode(mode));
    assert!(file.exists());
    fs::set_permissions(&directory, mode(0o500))?;
    server.cluster.start()?;
    server.reconnect()?;
    server.wait_for_worker()?;
    let first = server.flushed(&counted(&on("t")))?;
    server.db.batch_execute("CHECKPOINT")?;
    assert!(file.exists(), "nobody may remove it");
    assert!(server.cluster.log().contains("indexpilot.stat"), "{}", server.cluster.log_tail(20));
    // After a crash it is there still, and what it says counts once.
    server.cluster.stop(Stop::Immediate)?;
    fs::set_permissions(&directory, mode(0o700))?;
    server.cluster.start()?;
    server.reconnect()?;
    assert!(!file.exists(), "it is gone once it is read");
    server.wait_for_worker()?;
    server.expect_counted("once", &on("t"), "select 10/0")?;
    assert_eq!(first, "", "a file that cannot be removed is not used");
    server.cluster.restart(Stop::Immediate)?;
    server.reconnect()?;
    server.expect_counted("after another crash", &on("t"), "select 10/0")?;
    server.cluster.restart(Stop::Fast)?;
    server.reconnect()?;
    assert!(!file.exists());
    server.expect_counted("after a clean restart", &on("t"), "select 10/0")
}
