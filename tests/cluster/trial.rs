//! Hidden indexes on a real server: no plan of any session uses one, however old, and they stay hidden over restarts, crashes, rebuilds
//! and copies of the database. Numbers in names are those of the project's catalogue of cases.

use indexpilot_tests::{Builder, Cluster, Result, Stop, number, poll_until, text};
use postgres::Client;
use std::fs;
use std::process::Command;
use std::time::Duration;

pub const LIMIT: Duration = Duration::from_secs(60);
const FILE: &str = "pg_stat/indexpilot.hidden";

/// A server with the database `shop` and the table `t`, whose index on `a` every plan wants.
pub fn shop(name: &str) -> Result<Cluster> {
    with(Cluster::build(name))
}

pub fn with(builder: Builder) -> Result<Cluster> {
    let cluster = builder
        .setting("indexpilot.worker_interval", "200ms")
        .setting("indexpilot.guard_max_transaction_age", "1h")
        .setting("indexpilot.verify_delay", "1s")
        .setting("indexpilot.verify_min_calls", 5)
        .setting("indexpilot.select", "off")
        .setting("autovacuum", "off")
        .setting("max_prepared_transactions", "2")
        .start()?;
    cluster.connect("postgres", "postgres")?.batch_execute("CREATE DATABASE shop")?;
    connect(&cluster)?.batch_execute(
        "CREATE EXTENSION indexpilot; \
         CREATE TABLE t (id integer PRIMARY KEY, a integer, b integer); \
         INSERT INTO t SELECT i, i, i FROM generate_series(1, 20000) i; \
         CREATE INDEX t_a ON t (a); CREATE UNIQUE INDEX t_b ON t (b); \
         CREATE FUNCTION f(n integer) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT id FROM t WHERE a = n); END'; \
         ANALYZE t",
    )?;
    Ok(cluster)
}

pub fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("shop", "postgres")
}

pub fn plan(db: &mut Client, statement: &str) -> Result<String> {
    let rows = db.query(&format!("EXPLAIN (COSTS OFF) {statement}"), &[])?;
    Ok(rows.iter().map(|r| r.get::<_, String>(0)).collect::<Vec<_>>().join("\n"))
}

/// A new plan of this session uses the index on `a`.
fn used(db: &mut Client) -> Result<bool> {
    Ok(plan(db, "SELECT id FROM t WHERE a = 5")?.contains("t_a"))
}

/// A session that has made and kept its plans.
fn veteran(cluster: &Cluster) -> Result<Client> {
    let mut db = connect(cluster)?;
    db.batch_execute("SET plan_cache_mode = force_generic_plan; PREPARE p(integer) AS SELECT id FROM t WHERE a = $1")?;
    for _ in 0..7 {
        db.batch_execute("EXECUTE p(5); SELECT f(5)")?;
    }
    Ok(db)
}

/// What a session executes uses the index: its prepared statement, and the statement in its function. Both are really run.
fn executes_with(db: &mut Client) -> Result<(bool, bool)> {
    // What the session has counted and not handed in yet, which it does between transactions only.
    let scans = "SELECT pg_stat_get_xact_numscans('t_a'::regclass)";
    let mut run = |sql: &str| -> Result<bool> {
        let mut work = db.transaction()?;
        let before: i64 = work.query_one(scans, &[])?.get(0);
        work.batch_execute(sql)?;
        let after: i64 = work.query_one(scans, &[])?.get(0);
        work.commit()?;
        Ok(after > before)
    };
    Ok((run("EXECUTE p(5)")?, run("SELECT f(5)")?))
}

fn hide(db: &mut Client) -> Result<()> {
    assert!(number(db, "SELECT coalesce(indexpilot.hide_index('t_a', 'test'), 0)")? > 0, "it was hidden already");
    Ok(())
}

fn show(db: &mut Client) -> Result<()> {
    assert!(number(db, "SELECT coalesce(indexpilot.show_index('t_a', 'test'), 0)")? > 0, "it was not hidden");
    Ok(())
}

fn becomes(cluster: &Cluster, visible: bool) -> Result<()> {
    let mut db = connect(cluster)?;
    poll_until(LIMIT, &format!("the index to be {}", if visible { "used" } else { "hidden" }), || Ok(used(&mut db)? == visible))
}

#[test]
fn d55_every_session_notices_hide_and_show() -> Result<()> {
    let cluster = shop("trial-notice")?;
    let mut db = connect(&cluster)?;
    let mut veterans = [veteran(&cluster)?, veteran(&cluster)?];
    // The plans of a session that hides in a transaction of its own count too.
    veterans[0].batch_execute("SELECT 1")?;
    for round in 0..3 {
        for v in &mut veterans {
            assert_eq!(executes_with(v)?, (true, true), "round {round}, visible");
        }
        hide(&mut db)?;
        // At once, whatever time that is.
        for v in &mut veterans {
            assert_eq!(executes_with(v)?, (false, false), "round {round}, hidden");
            assert!(!used(v)?);
        }
        assert!(!used(&mut connect(&cluster)?)?, "a new session");
        show(&mut db)?;
    }
    // In its own transaction the session goes on as before, and does as all others when that is over.
    let own = &mut veterans[0];
    own.batch_execute("BEGIN; SELECT indexpilot.hide_index('t_a'); EXECUTE p(5); SELECT f(5)")?;
    assert!(used(own)?);
    own.batch_execute("COMMIT")?;
    assert_eq!(executes_with(own)?, (false, false));
    own.batch_execute("BEGIN; SELECT indexpilot.show_index('t_a'); EXECUTE p(5); SELECT f(5); COMMIT")?;
    assert_eq!(executes_with(own)?, (true, true));
    // What is rolled back leaves nothing, in whole or in part.
    own.batch_execute("BEGIN; SELECT indexpilot.hide_index('t_a'); ROLLBACK")?;
    own.batch_execute("BEGIN; SAVEPOINT s; SELECT indexpilot.hide_index('t_a'); ROLLBACK TO s; COMMIT")?;
    assert_eq!(executes_with(own)?, (true, true));
    assert_eq!(number(own, "SELECT count(*) FROM indexpilot.index_trial")?, 0);
    own.batch_execute("BEGIN; SAVEPOINT s; SELECT indexpilot.hide_index('t_a'); RELEASE s; COMMIT")?;
    assert_eq!(executes_with(own)?, (false, false));
    own.batch_execute("BEGIN; SELECT indexpilot.show_index('t_a'); SELECT indexpilot.hide_index('t_a'); COMMIT")?;
    assert_eq!(executes_with(own)?, (false, false));
    own.batch_execute("BEGIN; SELECT indexpilot.show_index('t_a'); ROLLBACK")?;
    assert_eq!(executes_with(own)?, (false, false));
    // A transaction that others will finish cannot do it.
    own.batch_execute("BEGIN; SELECT indexpilot.show_index('t_a')")?;
    let refused = own.batch_execute("PREPARE TRANSACTION 'x'").expect_err("it would take effect in another session");
    assert_eq!(refused.code().map(|c| c.code()), Some("0A000"), "{refused}");
    own.batch_execute("ROLLBACK")?;
    assert_eq!(executes_with(own)?, (false, false));
    // The parent's plans are on its parts too.
    db.batch_execute(
        "CREATE TABLE part (k integer, a integer) PARTITION BY RANGE (k); \
         CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (100000); \
         INSERT INTO part SELECT i, i FROM generate_series(1, 20000) i; CREATE INDEX part_a ON part (a); ANALYZE part; \
         PREPARE q(integer) AS SELECT k FROM part WHERE a = $1; SET plan_cache_mode = force_generic_plan",
    )?;
    let mut other = connect(&cluster)?;
    assert!(plan(&mut db, "EXECUTE q(5)")?.contains("part1_a_idx"));
    other.batch_execute("SELECT indexpilot.hide_index('part1_a_idx')")?;
    assert!(!plan(&mut db, "EXECUTE q(5)")?.contains("part1_a_idx"));
    other.batch_execute("SELECT indexpilot.show_index('part1_a_idx')")?;
    assert!(plan(&mut db, "EXECUTE q(5)")?.contains("part1_a_idx"));
    Ok(())
}

#[test]
fn d55_no_session_waits_for_the_file() -> Result<()> {
    let cluster = shop("trial-slow-disk")?;
    let (mut db, mut old) = (connect(&cluster)?, veteran(&cluster)?);
    assert_eq!(executes_with(&mut old)?, (true, true));
    // A disk that takes its time: who writes into a pipe waits for a reader.
    let pid = number(&mut db, "SELECT pg_backend_pid()::bigint")?;
    let pipe = cluster.data().join(format!("{FILE}.{pid}.tmp"));
    assert!(Command::new("mkfifo").args(["-m", "666"]).arg(&pipe).status()?.success());
    let hiding = std::thread::spawn(move || hide(&mut db));
    let told = poll_until(LIMIT, "the old session to be told", || Ok(executes_with(&mut old)? == (false, false)));
    let still = !hiding.is_finished();
    let free = old.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE NOWAIT; ROLLBACK");
    // What is written goes nowhere then: there is no file to be put in place.
    let aside = cluster.data().join("pipe");
    fs::rename(&pipe, &aside)?;
    let reader = fs::File::open(&aside)?;
    hiding.join().map_err(|_| "hide_index() failed")??;
    drop(reader);
    told?;
    free?;
    assert!(still, "it did not wait for the file");
    // What could not be written then, the worker writes.
    poll_until(LIMIT, "the file", || Ok(fs::metadata(cluster.data().join(FILE)).is_ok_and(|m| m.is_file())))
}

#[test]
fn a_hidden_index_still_does_its_duty() -> Result<()> {
    let cluster = shop("trial-duty")?;
    let mut db = connect(&cluster)?;
    db.batch_execute("CREATE TABLE child (b integer REFERENCES t (b)); CREATE EXTENSION amcheck")?;
    for index in ["t_a", "t_b", "t_pkey"] {
        db.batch_execute(&format!("SELECT indexpilot.hide_index('{index}')"))?;
    }
    assert!(plan(&mut db, "SELECT id FROM t WHERE b = 5")?.contains("Seq Scan"));
    let code = |result: std::result::Result<(), postgres::Error>| {
        result.err().and_then(|e| e.code().map(|c| c.code().to_owned())).unwrap_or_default()
    };
    assert_eq!(code(db.batch_execute("INSERT INTO t VALUES (30000, 1, 5)")), "23505");
    assert_eq!(code(db.batch_execute("INSERT INTO t VALUES (5, 1, 30000)")), "23505");
    assert_eq!(code(db.batch_execute("INSERT INTO child VALUES (-1)")), "23503");
    db.batch_execute("INSERT INTO child VALUES (7)")?;
    assert_eq!(code(db.batch_execute("DELETE FROM t WHERE b = 7")), "23503");
    // The arbiter of ON CONFLICT is found, and decides.
    db.batch_execute("INSERT INTO t VALUES (40000, 1, 5) ON CONFLICT (b) DO UPDATE SET a = -1")?;
    db.batch_execute("INSERT INTO t VALUES (5, 1, 40000) ON CONFLICT ON CONSTRAINT t_pkey DO NOTHING")?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM t WHERE b = 5 AND a = -1")?, 1);
    assert_eq!(number(&mut db, "SELECT count(*) FROM t")?, 20000);
    // Writes go on maintaining them, and so do the commands on tables.
    db.batch_execute("UPDATE t SET a = a + 1 WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 1 AND b <> 7")?;
    db.batch_execute("VACUUM t")?;
    db.batch_execute("INSERT INTO t SELECT i, i, i FROM generate_series(50001, 51000) i; CLUSTER t USING t_a; ANALYZE t")?;
    let check = "SELECT bt_index_check(i, true) FROM unnest(ARRAY['t_a', 't_b', 't_pkey']::regclass[]) i";
    db.batch_execute(check)?;
    db.batch_execute("SELECT indexpilot.show_index(index_id) FROM indexpilot.hidden_indexes")?;
    let rows = number(&mut db, "SELECT count(*) FROM t")?;
    db.batch_execute("SET enable_seqscan = off")?;
    assert!(plan(&mut db, "SELECT a FROM t WHERE a > -5")?.contains("t_a"));
    assert_eq!(number(&mut db, "SELECT count(a) FROM t WHERE a > -5")?, rows);
    Ok(())
}

#[test]
fn hidden_stays_hidden_over_restarts_and_crashes() -> Result<()> {
    let mut cluster = shop("trial-restart")?;
    // No worker: what is known after a start is what the file says.
    cluster.configure("indexpilot.mode", "off")?;
    cluster.reload()?;
    let mut db = connect(&cluster)?;
    hide(&mut db)?;
    for how in [Stop::Fast, Stop::Immediate] {
        cluster.restart(how)?;
        assert!(!used(&mut connect(&cluster)?)?, "after a restart ({how:?})");
    }
    cluster.kill_server()?;
    cluster.start()?;
    let mut db = connect(&cluster)?;
    assert!(!used(&mut db)?, "after the postmaster was killed");
    // A session that is killed has all of shared memory made anew.
    let pid = number(&mut db, "SELECT pg_backend_pid()::bigint")?;
    cluster.kill9(i32::try_from(pid)?)?;
    poll_until(LIMIT, "the server to recover", || Ok(connect(&cluster).and_then(|mut db| used(&mut db)).is_ok()))?;
    assert!(!used(&mut connect(&cluster)?)?, "after a session was killed");

    // The file as a crash between the commit and its writing would leave it: the worker sees to it. First missing, then too old.
    let file = cluster.data().join(FILE);
    cluster.stop(Stop::Fast)?;
    let hiding = fs::read(&file)?;
    fs::remove_file(&file)?;
    cluster.start()?;
    assert!(used(&mut connect(&cluster)?)?, "nothing but the file knows while no worker runs");
    cluster.configure("indexpilot.mode", "advise")?;
    cluster.reload()?;
    becomes(&cluster, false)?;
    poll_until(LIMIT, "the file to be written again", || Ok(fs::read(&file).is_ok_and(|now| now == hiding)))?;
    show(&mut connect(&cluster)?)?;
    cluster.stop(Stop::Fast)?;
    fs::write(&file, &hiding)?;
    cluster.start()?;
    becomes(&cluster, true)?;
    // Damaged: passed over, and the server starts.
    hide(&mut connect(&cluster)?)?;
    cluster.stop(Stop::Fast)?;
    let mut damaged = hiding.clone();
    damaged[12] ^= 1;
    fs::write(&file, &damaged)?;
    cluster.start()?;
    becomes(&cluster, false)?;
    assert!(cluster.log().contains("indexpilot.hidden\" is damaged"));
    assert_eq!(
        fs::read_dir(cluster.data().join("pg_stat"))?
            .filter(|f| f.as_ref().is_ok_and(|f| f.path().extension().is_some_and(|e| e == "tmp")))
            .count(),
        0
    );
    Ok(())
}

#[test]
fn hiding_follows_the_index() -> Result<()> {
    let cluster = shop("trial-follow")?;
    let mut db = connect(&cluster)?;
    let rows = "SELECT count(*) FROM indexpilot.index_trial";
    hide(&mut db)?;
    // Rebuilt by a person it has another OID, and is hidden again by the next visit.
    db.batch_execute("REINDEX INDEX CONCURRENTLY t_a")?;
    becomes(&cluster, false)?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.hidden_indexes WHERE index_id = 't_a'::regclass")?, 1);
    // A copy of the database hides what the original hid.
    let mut admin = cluster.connect("postgres", "postgres")?;
    drop(db);
    poll_until(LIMIT, "the database to be copied", || Ok(admin.batch_execute("CREATE DATABASE copy TEMPLATE shop").is_ok()))?;
    let mut copy = cluster.connect("copy", "postgres")?;
    poll_until(LIMIT, "the index of the copy to be hidden", || Ok(!used(&mut copy)?))?;
    // Without the extension nothing is hidden, at once, for plans that are kept too.
    let mut old = cluster.connect("copy", "postgres")?;
    old.batch_execute(
        "SET plan_cache_mode = force_generic_plan; PREPARE p(integer) AS SELECT id FROM t WHERE a = $1; EXECUTE p(1)",
    )?;
    assert!(!plan(&mut old, "EXECUTE p(1)")?.contains("t_a"));
    copy.batch_execute("BEGIN; DROP EXTENSION indexpilot; ROLLBACK")?;
    assert!(!used(&mut copy)?, "a rollback of DROP EXTENSION");
    // A visit of the worker at this moment can make it a deadlock, of which either may be the victim.
    poll_until(LIMIT, "the extension to go", || Ok(copy.batch_execute("DROP EXTENSION indexpilot").is_ok()))?;
    assert!(plan(&mut old, "EXECUTE p(1)")?.contains("t_a"));
    // A dropped one is forgotten; a new one of that name is another index.
    let mut db = connect(&cluster)?;
    assert!(!used(&mut db)?, "the original is as it was");
    db.batch_execute("DROP INDEX t_a")?;
    poll_until(LIMIT, "the row to go", || Ok(number(&mut db, rows)? == 0))?;
    db.batch_execute("CREATE INDEX t_a ON t (a)")?;
    assert!(used(&mut db)?);
    // So is one whose database is dropped: there is room for as many again.
    db.batch_execute("CREATE TABLE wide (a integer); DO 'BEGIN FOR i IN 1..513 LOOP EXECUTE format(''CREATE INDEX wide%s ON wide (a)'', i); END LOOP; END'")?;
    let all = "SELECT count(indexpilot.hide_index(indexrelid)) FROM pg_index WHERE indrelid = 'wide'::regclass";
    let full = number(&mut db, all).expect_err("there is room for 512");
    let full = full.downcast_ref::<postgres::Error>().and_then(|e| e.code().map(|c| c.code().to_owned()));
    assert_eq!(full.as_deref(), Some("53400"));
    assert_eq!(number(&mut db, rows)?, 0);
    assert_eq!(number(&mut db, &format!("{all} AND indexrelid <> 'wide1'::regclass"))?, 512);
    drop(db);
    poll_until(LIMIT, "the database to be dropped", || Ok(admin.batch_execute("DROP DATABASE shop").is_ok()))?;
    let size = fs::metadata(cluster.data().join(FILE))?.len();
    assert_eq!(size, 24, "the file still has entries");
    Ok(())
}

#[test]
fn a_standby_uses_all_of_its_indexes() -> Result<()> {
    let cluster = shop("trial-primary")?;
    hide(&mut connect(&cluster)?)?;
    let mut standby = cluster.standby("trial-standby")?;
    let mut there = connect(&standby)?;
    assert!(used(&mut there)?, "what is hidden is hidden on the primary server");
    let refused = there.batch_execute("SELECT indexpilot.show_index('t_a')").expect_err("it is read-only");
    assert_eq!(refused.code().map(|c| c.code()), Some("25006"), "{refused}");
    // Promoted, it is the primary server.
    cluster.connect("postgres", "postgres")?.batch_execute("SELECT 1")?;
    there.batch_execute("SELECT pg_promote()")?;
    becomes(&standby, false)?;
    standby.restart(Stop::Fast)?;
    assert!(!used(&mut connect(&standby)?)?);
    Ok(())
}

pub fn reach(db: &mut Client, action: i64, states: &[&str]) -> Result<()> {
    let mut now = String::new();
    let waited = poll_until(LIMIT, &format!("action {action} to be one of {states:?}"), || {
        now = text(db, &format!("SELECT state FROM indexpilot.actions WHERE id = {action}"))?;
        Ok(states.contains(&now.as_str()))
    });
    waited.map_err(|e| format!("{e}; it is {now}").into())
}

/// Waits until the worker has seen that the extension is installed: what ran before is not captured.
fn wait_for_capture(db: &mut Client) -> Result<()> {
    poll_until(LIMIT, "capture to begin", || {
        db.batch_execute("SELECT a FROM t WHERE id = 1; SELECT indexpilot.capture_flush()")?;
        Ok(number(db, "SELECT count(*) FROM indexpilot.workload WHERE relations @> ARRAY['t'::regclass::oid]")? > 0)
    })
}

/// Has IndexPilot build an index on `b, a`.
fn build(db: &mut Client, name: &str) -> Result<i64> {
    let statement = format!("CREATE INDEX CONCURRENTLY {name} ON public.t USING btree (b, a)");
    let row = db.query_one(
        "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause) \
         VALUES ('create', 't'::regclass, 'public', 't', 'public', $1::text::name, $2, $2, 'test') RETURNING id",
        &[&name, &statement],
    )?;
    let id = row.get(0);
    reach(db, id, &["built", "verifying", "kept"])?;
    Ok(id)
}

pub fn there(db: &mut Client, index: &str) -> Result<bool> {
    Ok(db.query_one("SELECT to_regclass($1) IS NOT NULL", &[&index])?.get(0))
}

/// `index state` of all hidden indexes.
pub fn hidden(db: &mut Client) -> Result<String> {
    text(
        db,
        "SELECT string_agg(index_name || ' ' || state || ' ' || action_state, ', ' ORDER BY index_name) FROM indexpilot.hidden_indexes",
    )
}

#[test]
fn d56_what_is_taken_back_is_hidden_at_once_and_dropped_when_it_may() -> Result<()> {
    let cluster = shop("trial-revert")?;
    let mut db = connect(&cluster)?;
    wait_for_capture(&mut db)?;
    let wanted = |db: &mut Client| {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(plan(db, "SELECT a FROM t WHERE b = 5")?.contains("ip_t_b"))
    };
    let created = |db: &mut Client, action: i64| {
        number(db, &format!("SELECT max(id) FROM indexpilot.mutation_log WHERE mutation = 'create_index' AND action_id = {action}"))
    };
    // A person takes an index back while actions may not start: it is out of all plans all the same.
    let action = build(&mut db, "ip_t_b")?;
    db.batch_execute("VACUUM t")?;
    assert!(wanted(&mut db)?, "the covering index must be what the planner prefers");
    db.batch_execute("SELECT indexpilot.disable_system('nothing may be dropped')")?;
    let mutation = created(&mut db, action)?;
    db.batch_execute(&format!("SELECT indexpilot.rollback({mutation})"))?;
    assert!(!wanted(&mut db)?);
    assert_eq!(hidden(&mut db)?, "ip_t_b hidden queued");
    // Called off, it is there again, as it was.
    let drop = number(&mut db, "SELECT max(id) FROM indexpilot.actions WHERE kind = 'drop'")?;
    assert!(db.query_one("SELECT indexpilot.cancel($1)", &[&drop])?.get::<_, bool>(0));
    assert!(wanted(&mut db)?);
    assert_eq!(hidden(&mut db)?, "");
    // Shown by a person, it is not dropped either.
    let retired = number(&mut db, "SELECT indexpilot.retire_index('ip_t_b')")?;
    assert!(!wanted(&mut db)?);
    assert_eq!(hidden(&mut db)?, "ip_t_b observing observing");
    assert_eq!(number(&mut db, "SELECT indexpilot.retire_index('ip_t_b')")?, retired, "twice is once");
    db.batch_execute("SELECT indexpilot.show_index('ip_t_b')")?;
    assert!(wanted(&mut db)?);
    reach(&mut db, retired, &["cancelled"])?;
    // Measured harm does the same by itself: in one transaction the verdict, the hiding, and the drop that waits for its turn.
    db.batch_execute("SELECT indexpilot.enable_system()")?;
    let wide = "INSERT INTO wide SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 300)";
    db.batch_execute("CREATE TABLE wide (label text)")?;
    for _ in 0..30 {
        db.batch_execute(wide)?;
    }
    db.batch_execute("TRUNCATE wide")?;
    let statement = "CREATE INDEX CONCURRENTLY ip_wide ON public.wide USING btree (label)";
    let harmful = number(
        &mut db,
        &format!(
            "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, \
             cause) VALUES ('create', 'wide'::regclass, 'public', 'wide', 'public', 'ip_wide', '{statement}', '{statement}', 'test') \
             RETURNING id"
        ),
    )?;
    reach(&mut db, harmful, &["built", "verifying"])?;
    db.batch_execute("SELECT indexpilot.disable_system('nothing may be dropped')")?;
    for _ in 0..30 {
        db.batch_execute(wide).expect_err("the row is too wide for the index");
    }
    reach(&mut db, harmful, &["reverted"])?;
    assert_eq!(hidden(&mut db)?, "ip_wide hidden queued");
    assert!(there(&mut db, "ip_wide")?);
    db.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off")?;
    assert!(!plan(&mut db, "SELECT label FROM wide WHERE label = ''")?.contains("ip_wide"));
    // A restart in between forgets nothing.
    drop_connections_and_restart(cluster, db)
}

fn drop_connections_and_restart(mut cluster: Cluster, db: Client) -> Result<()> {
    drop(db);
    cluster.restart(Stop::Immediate)?;
    let mut db = connect(&cluster)?;
    assert_eq!(hidden(&mut db)?, "ip_wide hidden queued");
    db.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off")?;
    assert!(!plan(&mut db, "SELECT label FROM wide WHERE label = ''")?.contains("ip_wide"));
    db.batch_execute("SELECT indexpilot.enable_system(); UPDATE indexpilot.actions SET not_before = now() WHERE state = 'queued'")?;
    poll_until(LIMIT, "the index to be dropped", || Ok(!there(&mut db, "ip_wide")?))?;
    poll_until(LIMIT, "it to be forgotten", || Ok(number(&mut db, "SELECT count(*) FROM indexpilot.index_trial")? == 0))?;
    let logged = "SELECT string_agg(mutation, ' ' ORDER BY id) FROM indexpilot.mutation_log WHERE index_name = 'ip_wide'";
    assert_eq!(text(&mut db, logged)?, "create_index hide_index revert_index drop_index");
    Ok(())
}

#[test]
fn d54_only_what_nobody_misses_is_dropped() -> Result<()> {
    let cluster = shop("trial-observe")?;
    let mut db = connect(&cluster)?;
    wait_for_capture(&mut db)?;
    // More than a way to rows: refused, and nothing is changed.
    db.batch_execute(
        "CREATE TABLE r (id integer PRIMARY KEY, a integer NOT NULL, b integer, c integer, d int4range, EXCLUDE USING gist (d WITH &&)); \
         CREATE UNIQUE INDEX r_unique ON r (a); ALTER TABLE r REPLICA IDENTITY USING INDEX r_unique; \
         CREATE INDEX r_cluster ON r (b); CLUSTER r USING r_cluster; CREATE INDEX r_c ON r (c); \
         CREATE TABLE part (k integer, a integer) PARTITION BY RANGE (k); \
         CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (10); CREATE INDEX part_a ON part (a)",
    )?;
    for index in ["r_pkey", "r_d_excl", "r_unique", "r_cluster", "part_a", "part1_a_idx", "t_b"] {
        let refused = db.query_one(&format!("SELECT indexpilot.retire_index('{index}')"), &[]).expect_err(index);
        assert_eq!(refused.code().map(|c| c.code()), Some("55000"), "{index}: {refused}");
    }
    db.batch_execute("SELECT indexpilot.protect('r_c')")?;
    db.query_one("SELECT indexpilot.retire_index('r_c')", &[]).expect_err("it is protected");
    db.batch_execute("SELECT indexpilot.unprotect('r_c')")?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.index_trial")?, 0);
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.actions")?, 0);
    // What has become more than that while it was observed is not dropped, and seen again.
    cluster.configure("indexpilot.apply_observe", "1s")?;
    cluster.reload()?;
    poll_until(LIMIT, "the setting to hold", || Ok(text(&mut db, "SHOW indexpilot.apply_observe")? == "1s"))?;
    db.batch_execute("SELECT indexpilot.disable_system('the test is not ready')")?;
    let adopted = number(&mut db, "SELECT indexpilot.retire_index('r_c', 'nobody uses it')")?;
    reach(&mut db, adopted, &["queued"])?;
    db.batch_execute("CLUSTER r USING r_c")?;
    db.batch_execute("SELECT indexpilot.enable_system(); UPDATE indexpilot.actions SET not_before = now()")?;
    reach(&mut db, adopted, &["failed"])?;
    assert!(there(&mut db, "r_c")?);
    assert_eq!(hidden(&mut db)?, "");
    // Nobody needs it, so it goes; and it can be had back.
    db.batch_execute("CREATE INDEX r_useless ON r (b, c)")?;
    let useless = number(&mut db, "SELECT indexpilot.retire_index('r_useless', 'nobody uses it')")?;
    reach(&mut db, useless, &["done", "failed", "cancelled"])?;
    assert_eq!(text(&mut db, &format!("SELECT state FROM indexpilot.actions WHERE id = {useless}"))?, "done");
    assert!(!there(&mut db, "r_useless")?);
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.index_trial")?, 0);
    let back = "SELECT indexpilot.rollback(max(id)) FROM indexpilot.mutation_log WHERE mutation = 'drop_index'";
    db.batch_execute(back)?;
    poll_until(LIMIT, "the index to be built again", || there(&mut db, "r_useless"))?;
    // A query becomes slow without it: the drop is called off long before its time, and the index is back.
    cluster.configure("indexpilot.apply_observe", "1h")?;
    cluster.reload()?;
    poll_until(LIMIT, "the setting to hold", || Ok(text(&mut db, "SHOW indexpilot.apply_observe")? == "1h"))?;
    let mut run = || -> Result<()> {
        for i in 0..40 {
            db.batch_execute(&format!("SELECT id FROM t WHERE a = {i}"))?;
        }
        Ok(())
    };
    // So many that one which waited for the processor does not hide what all others show.
    (0..10).try_for_each(|_| run())?;
    let mut watch = connect(&cluster)?;
    let missed = number(&mut watch, "SELECT indexpilot.retire_index('t_a', 'is it needed?')")?;
    assert!(!used(&mut watch)?);
    poll_until(LIMIT, "somebody to miss it", || {
        run()?;
        Ok(text(&mut watch, &format!("SELECT state FROM indexpilot.actions WHERE id = {missed}"))? == "cancelled")
    })?;
    assert!(used(&mut watch)?);
    let reason = text(&mut watch, &format!("SELECT error_message FROM indexpilot.actions WHERE id = {missed}"))?;
    assert!(reason.starts_with("the index is missed: query "), "{reason}");
    let verdict = format!("SELECT verdict FROM indexpilot.verifications WHERE action_id = {missed} AND role = 'summary'");
    assert_eq!(text(&mut watch, &verdict)?, "reverted");
    assert!(there(&mut watch, "t_a")?);
    Ok(())
}

#[test]
fn a_restored_database_uses_all_of_its_indexes() -> Result<()> {
    let cluster = shop("trial-restore")?;
    let mut db = connect(&cluster)?;
    hide(&mut db)?;
    let retired = number(&mut db, "SELECT indexpilot.retire_index(indexrelid) FROM pg_index WHERE indexrelid = 't_a'::regclass")?;
    assert_eq!(hidden(&mut db)?, "", "what a person has hidden stays hidden for that reason");
    assert_eq!(text(&mut db, &format!("SELECT state FROM indexpilot.actions WHERE id = {retired}"))?, "observing");
    let script = cluster.data().with_file_name("dump.sql");
    fs::write(&script, cluster.run(cluster.client_program("pg_dump").arg("shop"))?)?;
    db.batch_execute("CREATE DATABASE restored")?;
    cluster.run(cluster.client_program("psql").args(["-qX", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f"]).arg(&script))?;
    let mut restored = cluster.connect("restored", "postgres")?;
    restored.batch_execute("ANALYZE t")?;
    assert!(used(&mut restored)?);
    assert_eq!(number(&mut restored, "SELECT count(*) FROM indexpilot.index_trial")?, 0);
    // It is on its own: hiding there does nothing here, and the other way round.
    hide(&mut restored)?;
    assert!(!used(&mut restored)?);
    show(&mut db)?;
    assert!(used(&mut db)? && !used(&mut restored)?);
    assert_eq!(text(&mut db, &format!("SELECT state FROM indexpilot.actions WHERE id = {retired}"))?, "cancelled");
    Ok(())
}
