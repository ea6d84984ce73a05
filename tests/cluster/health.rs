//! health_check() and the view status in bad times: whatever is wrong is said, and said no longer when it is mended.

use indexpilot_tests::{Builder, Cluster, Result, Stop, poll_until, text};
use postgres::Client;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

fn cluster(name: &str, more: impl FnOnce(Builder) -> Builder) -> Result<Cluster> {
    let cluster = more(Cluster::build(name))
        .setting("indexpilot.mode", "apply")
        .setting("indexpilot.select", "off")
        .setting("indexpilot.worker_interval", "200ms")
        .setting("indexpilot.guard_max_transaction_age", "1h")
        .setting("indexpilot.verify_delay", "1h")
        .setting("autovacuum", "off")
        .start()?;
    connect(&cluster)?.batch_execute(
        "CREATE EXTENSION indexpilot; CREATE TABLE goods (id integer, price integer); \
         INSERT INTO goods SELECT i, i % 100 FROM generate_series(1, 1000) i; CREATE INDEX theirs ON goods (price)",
    )?;
    says(&mut connect(&cluster)?, "worker", "ok", "the last visit of a worker was")?;
    Ok(cluster)
}

fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("postgres", "postgres")
}

fn figure(db: &mut Client, name: &str) -> Result<String> {
    text(db, &format!("SELECT value FROM indexpilot.status WHERE name = '{name}'"))
}

fn check(db: &mut Client, name: &str) -> Result<(String, String, String)> {
    let sql = "SELECT state, detail, coalesce(hint, '') FROM indexpilot.health_check() WHERE name = $1";
    let row = db.query_one(sql, &[&name])?;
    Ok((row.get(0), row.get(1), row.get(2)))
}

/// Waits until health_check() says so; returns the hint.
fn says(db: &mut Client, name: &str, state: &str, part: &str) -> Result<String> {
    let mut now = (String::new(), String::new(), String::new());
    let waited = poll_until(LIMIT, &format!("{name} to be {state} with \"{part}\""), || {
        now = check(db, name)?;
        Ok(now.0 == state && now.1.contains(part))
    });
    waited.map_err(|e| format!("{e}; it is {now:?}"))?;
    Ok(now.2)
}

fn signal(what: &str, pid: &str) -> Result<()> {
    match Command::new("kill").args([what, pid]).status()?.success() {
        true => Ok(()),
        false => Err(format!("kill {what} {pid} failed").into()),
    }
}

/// Queues the building of an index, as the worker does.
fn enqueue(db: &mut Client, name: &str, keys: &str) -> Result<i64> {
    let definition = format!("CREATE INDEX CONCURRENTLY {name} ON public.goods USING btree ({keys})");
    let row = db.query_one(
        "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause, actor) \
         VALUES ('create', 'goods'::regclass, 'public', 'goods', 'public', $1::text::name, $2, $2, 'test', 'indexpilot') RETURNING id",
        &[&name, &definition],
    )?;
    Ok(row.get(0))
}

#[test]
fn processes_that_are_gone_or_stuck_are_missed() -> Result<()> {
    let cluster = cluster("health-processes", |b| b)?;
    let mut db = connect(&cluster)?;
    says(&mut db, "launcher", "ok", "process ")?;
    let first = figure(&mut db, "launcher_pid")?;
    db.execute("SELECT pg_terminate_backend($1)", &[&first.parse::<i32>()?])?;
    says(&mut db, "launcher", "error", "no launcher runs")?;
    assert_eq!(figure(&mut db, "launcher_pid")?, "");
    says(&mut db, "launcher", "ok", "process ")?;

    // One that hangs is there, and yet nobody comes.
    let second = figure(&mut db, "launcher_pid")?;
    assert_ne!(first, second);
    poll_until(LIMIT, "nobody to be at work", || {
        signal("-STOP", &second)?;
        let nobody = figure(&mut db, "worker_pid")?.is_empty() && figure(&mut db, "builder_pid")?.is_empty();
        if !nobody {
            signal("-CONT", &second)?;
        }
        Ok(nobody)
    })?;
    let waiting = enqueue(&mut db, "a", "id")?;
    db.execute("UPDATE indexpilot.actions SET not_before = now() - interval '1 hour' WHERE id = $1", &[&waiting])?;
    let hint = says(&mut db, "actions_waiting", "warning", "1 actions wait for their turn, one of them for 36")?;
    assert!(hint.contains("says why nobody comes"), "{hint}");
    says(&mut db, "worker", "warning", "the last visit of a worker was")?;
    says(&mut db, "flush", "warning", "the last writing of what was captured was")?;
    signal("-CONT", &second)?;
    for name in ["worker", "flush", "actions_waiting"] {
        says(&mut db, name, "ok", "")?;
    }
    Ok(())
}

#[test]
fn visits_that_achieve_nothing_are_not_praised() -> Result<()> {
    let cluster = cluster("health-visits", |b| b)?;
    let mut db = connect(&cluster)?;
    db.batch_execute("ALTER TABLE indexpilot.analyses RENAME TO mislaid")?;
    let hint = says(&mut db, "worker", "warning", "of its steps failed")?;
    assert!(hint.contains("server's log"), "{hint}");
    assert_ne!(figure(&mut db, "last_visit_failures")?, "0");
    assert!(cluster.log().contains("indexpilot: worker: could not"), "{}", cluster.log_tail(20));
    db.batch_execute("ALTER TABLE indexpilot.mislaid RENAME TO analyses")?;
    says(&mut db, "worker", "ok", "the last visit of a worker was")?;
    assert_eq!(figure(&mut db, "last_visit_failures")?, "0");
    Ok(())
}

#[test]
fn a_table_that_somebody_has_locked_holds_up_nothing_else() -> Result<()> {
    let cluster = cluster("health-locked", |b| b)?;
    let (mut db, mut other) = (connect(&cluster)?, connect(&cluster)?);
    let ids = [enqueue(&mut db, "a", "id")?, enqueue(&mut db, "b", "price, id")?];
    let state = |db: &mut Client, id: i64| text(db, &format!("SELECT state FROM indexpilot.actions WHERE id = {id}"));
    for id in ids {
        poll_until(LIMIT, "the index", || Ok(["built", "verifying"].contains(&state(&mut db, id)?.as_str())))?;
    }
    let visit = |db: &mut Client| -> Result<f64> {
        db.batch_execute("SELECT 1 AS counted FROM indexpilot.control")?;
        let at = "SELECT extract(epoch FROM max(last_seen_at))::float8 FROM indexpilot.workload";
        Ok(db.query_one(at, &[])?.get::<_, Option<f64>>(0).unwrap_or(0.0))
    };
    // Nothing of ours is missing: no step looks at the table.
    other.batch_execute("BEGIN; LOCK TABLE goods IN ACCESS EXCLUSIVE MODE")?;
    let before = visit(&mut db)?;
    poll_until(LIMIT, "what is captured to be written", || Ok(visit(&mut db)? > before))?;
    assert_eq!(figure(&mut db, "last_visit_failures")?, "0");
    other.batch_execute("ROLLBACK")?;
    // One is: the step that looks closer gives up, and the others are taken.
    db.batch_execute("DROP INDEX a; CREATE INDEX a ON goods (price DESC)")?;
    db.batch_execute("UPDATE indexpilot.actions SET state = 'kept'")?;
    poll_until(LIMIT, "the drop to be noted", || Ok(state(&mut db, ids[0])? == "reverted"))?;
    other.batch_execute("BEGIN; LOCK TABLE goods IN ACCESS EXCLUSIVE MODE")?;
    db.batch_execute(&format!("UPDATE indexpilot.actions SET state = 'kept' WHERE id = {}", ids[0]))?;
    says(&mut db, "worker", "warning", "of its steps failed")?;
    let before = visit(&mut db)?;
    poll_until(LIMIT, "what is captured to be written", || Ok(visit(&mut db)? > before))?;
    assert!(cluster.log().contains("canceling statement due to lock timeout"), "{}", cluster.log_tail(20));
    other.batch_execute("ROLLBACK")?;
    poll_until(LIMIT, "the drop to be noted", || Ok(state(&mut db, ids[0])? == "reverted"))?;
    says(&mut db, "worker", "ok", "the last visit of a worker was")?;
    Ok(())
}

#[test]
fn a_build_that_waits_for_somebody_says_for_whom() -> Result<()> {
    let cluster = cluster("health-build", |b| b)?;
    let (mut db, mut other) = (connect(&cluster)?, connect(&cluster)?);
    other.batch_execute("BEGIN; INSERT INTO goods VALUES (0, 0)")?;
    let blocker = text(&mut other, "SELECT pg_backend_pid()::text")?;
    let id = enqueue(&mut db, "a", "id")?;
    says(&mut db, "actions_building", "ok", &format!("for processes {blocker}"))?;
    assert_eq!(check(&mut db, "unusable_indexes")?.0, "ok", "an action works on it");
    cluster.configure("indexpilot.guard_max_transaction_age", "1s")?;
    cluster.reload()?;
    says(&mut db, "actions_building", "warning", &format!("for processes {blocker}"))?;
    other.batch_execute("COMMIT")?;
    says(&mut db, "actions_building", "ok", "0 actions run")?;
    let state = format!("SELECT state FROM indexpilot.actions WHERE id = {id}");
    poll_until(LIMIT, "the index", || Ok(["built", "verifying"].contains(&text(&mut db, &state)?.as_str())))?;

    // Its drop in turn: the index is not valid any more, and it is no leftover.
    cluster.configure("indexpilot.guard_max_transaction_age", "1h")?;
    cluster.reload()?;
    other.batch_execute("BEGIN; SELECT count(*) FROM goods")?;
    db.batch_execute("SELECT indexpilot.rollback(max(id)) FROM indexpilot.mutation_log WHERE mutation = 'create_index'")?;
    let half = "SELECT (count(*) = 1)::text FROM pg_index WHERE indexrelid = to_regclass('a') AND NOT indisvalid";
    poll_until(LIMIT, "the drop to wait", || Ok(text(&mut db, half)? == "true"))?;
    let (state, detail, _) = check(&mut db, "unusable_indexes")?;
    assert_eq!((state.as_str(), detail.as_str()), ("ok", "0 unusable indexes of IndexPilot, 0 of others"));
    other.batch_execute("COMMIT")?;
    poll_until(LIMIT, "the drop", || Ok(text(&mut db, "SELECT to_regclass('a')::text")?.is_empty()))?;

    // A leftover of which no action knows.
    db.batch_execute("DELETE FROM indexpilot.managed_indexes; SELECT indexpilot.disable_system('test')")?;
    cluster.configure("indexpilot.mode", "off")?;
    cluster.reload()?;
    says(&mut db, "mode", "warning", "off")?;
    db.batch_execute(
        "COMMENT ON INDEX theirs IS 'indexpilot:00000000-0000-0000-0000-000000000000'; \
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'theirs'::regclass",
    )?;
    says(&mut db, "unusable_indexes", "warning", "1 unusable indexes of IndexPilot, 0 of others")?;
    assert_eq!(figure(&mut db, "unusable_indexes")?, "1");
    cluster.configure("indexpilot.mode", "apply")?;
    cluster.reload()?;
    says(&mut db, "unusable_indexes", "ok", "0 unusable indexes of IndexPilot, 0 of others")?;
    Ok(())
}

#[test]
fn hidden_indexes_that_plans_do_not_know_of_are_told() -> Result<()> {
    let mut cluster = cluster("health-hidden", |b| b)?;
    let mut db = connect(&cluster)?;
    db.batch_execute("SELECT indexpilot.hide_index('theirs', 'test')")?;
    says(&mut db, "hidden_indexes", "ok", "1 indexes are hidden from plans")?;
    assert_eq!(figure(&mut db, "hidden_indexes")?, "1");

    // Where the file goes nothing can be written.
    let directory = cluster.data().join("pg_stat");
    fs::set_permissions(&directory, Permissions::from_mode(0o500))?;
    db.batch_execute("SELECT indexpilot.show_index('theirs')")?;
    says(&mut db, "hidden_indexes", "warning", "could not be written")?;
    fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
    says(&mut db, "hidden_indexes", "ok", "0 indexes are hidden from plans")?;

    // Unreadable at the start: plans use what should be hidden, until a worker has looked.
    db.batch_execute("SELECT indexpilot.hide_index('theirs', 'test')")?;
    cluster.configure("indexpilot.mode", "off")?;
    cluster.stop(Stop::Fast)?;
    fs::write(directory.join("indexpilot.hidden"), "damaged")?;
    cluster.start()?;
    let mut db = connect(&cluster)?;
    let hint = says(&mut db, "hidden_indexes", "warning", "of 1 indexes plans do not know yet")?;
    assert!(hint.contains("mode other than off"), "{hint}");
    cluster.configure("indexpilot.mode", "apply")?;
    cluster.reload()?;
    says(&mut db, "hidden_indexes", "ok", "1 indexes are hidden from plans")?;

    let standby = cluster.standby("health-hidden-standby")?;
    says(&mut connect(&standby)?, "hidden_indexes", "ok", "on this one none is")?;
    Ok(())
}

#[test]
fn without_slots_and_where_nobody_comes_it_is_said() -> Result<()> {
    // The launchers, the server's own of logical replication and this one, take both.
    let cluster = Cluster::build("health-slots")
        .setting("max_worker_processes", 2)
        .setting("max_parallel_workers", 0)
        .setting("indexpilot.worker_interval", "200ms")
        .start()?;
    let mut db = connect(&cluster)?;
    db.batch_execute("CREATE EXTENSION indexpilot")?;
    let hint = says(&mut db, "slots", "warning", "the server has no slot for a worker")?;
    assert!(hint.contains("max_worker_processes"), "{hint}");
    says(&mut db, "worker", "warning", "the last visit of a worker is still to come")?;
    assert_eq!(figure(&mut db, "registered")?, "false");
    assert_ne!(figure(&mut db, "workers_refused")?, "0");

    // What this session does not count is not said to be counted.
    db.batch_execute("SET indexpilot.capture = off")?;
    says(&mut db, "stages", "warning", "indexpilot.capture (in this session)")?;
    assert_eq!(figure(&mut db, "capture")?, "false");
    Ok(())
}

#[test]
fn databases_that_there_is_no_room_to_capture_are_told() -> Result<()> {
    let cluster = Cluster::build("health-many").setting("indexpilot.mode", "observe").setting("autovacuum", "off").start()?;
    let mut admin = connect(&cluster)?;
    admin.batch_execute("CREATE DATABASE pattern IS_TEMPLATE true")?;
    cluster.connect("pattern", "postgres")?.batch_execute("CREATE EXTENSION indexpilot")?;
    // Two more than there is room for.
    for n in 1..=66 {
        admin.batch_execute(&format!("CREATE DATABASE many{n} TEMPLATE pattern STRATEGY file_copy"))?;
    }
    let mut db = cluster.connect("many1", "postgres")?;
    says(&mut db, "capture_databases", "warning", "64 databases are captured, and there is no room for 2 more")?;
    assert_eq!(figure(&mut db, "capture_databases")?, "64");
    let (mut captured, mut rest) = (Vec::new(), Vec::new());
    for n in 1..=66 {
        let mut many = cluster.connect(&format!("many{n}"), "postgres")?;
        let list = if figure(&mut many, "registered")? == "true" { &mut captured } else { &mut rest };
        list.push(many);
    }
    assert_eq!((captured.len(), rest.len()), (64, 2));
    says(&mut rest[0], "capture_databases", "warning", "that have the extension, this one among them")?;
    // The place of one that goes is another's, at the next visit.
    captured[0].batch_execute("DROP EXTENSION indexpilot")?;
    poll_until(LIMIT, "another one to be captured", || {
        Ok(figure(&mut rest[0], "registered")? == "true" || figure(&mut rest[1], "registered")? == "true")
    })?;
    assert_eq!(figure(&mut rest[0], "capture_databases_left_out")?, "1");
    Ok(())
}

#[test]
fn every_database_has_its_turn() -> Result<()> {
    // All visits together take far longer than the interval.
    let cluster = Cluster::build("health-turns")
        .setting("indexpilot.mode", "observe")
        .setting("indexpilot.worker_interval", "100ms")
        .setting("autovacuum", "off")
        .start()?;
    let mut admin = connect(&cluster)?;
    admin.batch_execute("CREATE DATABASE pattern IS_TEMPLATE true")?;
    cluster.connect("pattern", "postgres")?.batch_execute("CREATE EXTENSION indexpilot")?;
    for n in 1..=24 {
        admin.batch_execute(&format!("CREATE DATABASE many{n} TEMPLATE pattern STRATEGY file_copy"))?;
    }
    let mut db = cluster.connect("many1", "postgres")?;
    poll_until(LIMIT, "all of them to be visited", || Ok(figure(&mut db, "capture_databases")? == "24"))
}
