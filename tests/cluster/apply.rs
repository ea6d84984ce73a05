//! Actions on a real server: they are carried out by the builder, survive its death, and never stand in the way of the server.

use indexpilot_tests::{Cluster, Result, Stop, number, poll_until, text};
use postgres::Client;
use std::time::{Duration, Instant};

pub const LIMIT: Duration = Duration::from_secs(60);

pub fn cluster(name: &str) -> Result<Cluster> {
    with(Cluster::build(name))
}

/// A cluster with a database `shop` that belongs to a role without any other right. Its table `goods` belongs to a role that cannot
/// even log in.
pub fn with(builder: indexpilot_tests::Builder) -> Result<Cluster> {
    let cluster = builder
        .setting("indexpilot.worker_interval", "200ms")
        .setting("indexpilot.guard_max_transaction_age", "1h")
        .setting("indexpilot.verify_delay", "1h")
        // Its locks would make actions wait now and then.
        .setting("autovacuum", "off")
        .start()?;
    let mut admin = cluster.connect("postgres", "postgres")?;
    for sql in [
        "CREATE ROLE shopkeeper LOGIN CREATEDB",
        "CREATE ROLE stranger LOGIN",
        "CREATE ROLE clerk",
        "CREATE DATABASE shop OWNER shopkeeper",
    ] {
        admin.batch_execute(sql)?;
    }
    connect(&cluster)?.batch_execute(
        "CREATE EXTENSION indexpilot; \
         CREATE SCHEMA crm; GRANT ALL ON SCHEMA crm TO clerk; \
         CREATE TABLE crm.goods (id integer, price integer); \
         INSERT INTO crm.goods SELECT i, i % 100 FROM generate_series(1, 1000) i; \
         ALTER TABLE crm.goods OWNER TO clerk; \
         CREATE TABLE crm.other (id integer)",
    )?;
    Ok(cluster)
}

pub fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("shop", "postgres")
}

/// Queues the building of an index on `crm.goods`.
pub fn enqueue(db: &mut Client, name: &str, keys: &str) -> Result<i64> {
    let statement = format!("CREATE INDEX CONCURRENTLY {name} ON crm.goods USING btree ({keys})");
    insert(db, "create", name, &statement, None)
}

pub fn insert(db: &mut Client, kind: &str, name: &str, statement: &str, reverts: Option<i64>) -> Result<i64> {
    let row = db.query_one(
        "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause, reverts) \
         VALUES ($1, 'crm.goods'::regclass, 'crm', 'goods', 'crm', $2::text::name, $3, $3, 'test', $4) RETURNING id",
        &[&kind, &name, &statement, &reverts],
    )?;
    Ok(row.get(0))
}

/// Waits until the action is in one of the states, and returns it.
pub fn reach(db: &mut Client, id: i64, states: &[&str]) -> Result<String> {
    let mut state = String::new();
    let waited = poll_until(LIMIT, &format!("action {id} to be one of {states:?}"), || {
        // Once built, an index is watched; with which success is not the matter here.
        let sql =
            "SELECT CASE WHEN state IN ('verifying', 'kept') THEN 'built' ELSE state END FROM indexpilot.actions WHERE id = $1";
        state = db.query_one(sql, &[&id])?.get(0);
        Ok(states.contains(&state.as_str()))
    });
    waited.map_err(|e| format!("{e}; it is {state}"))?;
    Ok(state)
}

pub fn unusable(db: &mut Client) -> Result<i64> {
    number(db, "SELECT count(*) FROM pg_index WHERE NOT (indisvalid AND indisready AND indislive)")
}

pub fn logged(db: &mut Client, id: i64) -> Result<Vec<String>> {
    let rows = db.query("SELECT mutation FROM indexpilot.mutation_log WHERE action_id = $1 ORDER BY id", &[&id])?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// The action is due at once, whatever back-off it has.
pub fn hasten(db: &mut Client, id: i64) -> Result<()> {
    db.execute("UPDATE indexpilot.actions SET not_before = now() WHERE id = $1", &[&id])?;
    Ok(())
}

/// A transaction with a snapshot, which every concurrent build waits for in its last phase.
pub fn hold_snapshot(cluster: &Cluster) -> Result<Client> {
    let mut db = connect(cluster)?;
    db.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_am")?;
    Ok(db)
}

/// Waits until the builder is in the middle of a build, and returns its process id.
pub fn mid_build(db: &mut Client) -> Result<i32> {
    let mut pid = 0;
    poll_until(LIMIT, "the build to wait for old snapshots", || {
        let row = db.query_opt(
            "SELECT p.pid FROM pg_stat_progress_create_index p JOIN pg_stat_activity a USING (pid) \
             WHERE a.backend_type = 'indexpilot builder' AND p.phase = 'waiting for old snapshots'",
            &[],
        )?;
        pid = row.map_or(0, |r| r.get(0));
        Ok(pid != 0)
    })?;
    assert_eq!(unusable(db)?, 1, "the index is there and cannot be used yet");
    Ok(pid)
}

#[test]
fn builds_as_the_owner_and_takes_back() -> Result<()> {
    let cluster = cluster("apply-build")?;
    let mut db = connect(&cluster)?;
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    assert_eq!(reach(&mut db, id, &["built", "failed", "blocked"])?, "built");
    let comment = text(&mut db, "SELECT obj_description('crm.ip_goods_price'::regclass)")?;
    assert_eq!(comment, text(&mut db, &format!("SELECT 'indexpilot:' || tag FROM indexpilot.actions WHERE id = {id}"))?);
    assert_eq!(text(&mut db, "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'crm.ip_goods_price'::regclass")?, "clerk");
    assert_eq!(unusable(&mut db)?, 0);
    assert_eq!(logged(&mut db, id)?, ["create_index"]);
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.managed_indexes WHERE dropped_at IS NULL")?, 1);
    assert!(number(&mut db, &format!("SELECT index_bytes FROM indexpilot.actions WHERE id = {id}"))? > 0);

    let before = number(&mut db, "SELECT 'crm.ip_goods_price'::regclass::oid::bigint")?;
    let rebuild = insert(&mut db, "reindex", "ip_goods_price", "REINDEX INDEX CONCURRENTLY crm.ip_goods_price", None)?;
    assert_eq!(reach(&mut db, rebuild, &["done", "failed", "blocked"])?, "done");
    assert_ne!(number(&mut db, "SELECT 'crm.ip_goods_price'::regclass::oid::bigint")?, before);

    // Renamed and rebuilt, it is still known by its tag.
    db.batch_execute("ALTER INDEX crm.ip_goods_price RENAME TO renamed")?;
    let drop = insert(&mut db, "drop", "ip_goods_price", "DROP INDEX CONCURRENTLY crm.ip_goods_price", Some(id))?;
    assert_eq!(reach(&mut db, drop, &["done", "failed", "blocked"])?, "done");
    assert_eq!(reach(&mut db, id, &["reverted"])?, "reverted");
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_index WHERE indrelid = 'crm.goods'::regclass")?, 0);
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.managed_indexes WHERE dropped_at IS NULL")?, 0);
    assert_eq!(logged(&mut db, drop)?, ["drop_index"]);
    Ok(())
}

#[test]
fn a_terminated_build_is_cleared_up_and_retried_once() -> Result<()> {
    let cluster = cluster("apply-sigterm")?;
    let mut db = connect(&cluster)?;
    let blocker = hold_snapshot(&cluster)?;
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    for attempt in 1..=2 {
        let pid = mid_build(&mut db)?;
        db.execute("SELECT pg_terminate_backend($1)", &[&pid])?;
        let expected = if attempt == 1 { "queued" } else { "failed" };
        assert_eq!(reach(&mut db, id, &["queued", "failed", "built"])?, expected);
        assert_eq!(unusable(&mut db)?, 0);
        assert_eq!(number(&mut db, &format!("SELECT attempts::bigint FROM indexpilot.actions WHERE id = {id}"))?, attempt);
        hasten(&mut db, id)?;
    }
    assert_eq!(logged(&mut db, id)?, ["remove_unusable_index", "action_retried", "remove_unusable_index", "action_failed"]);
    drop(blocker);
    Ok(())
}

#[test]
fn a_held_up_rename_gives_the_database_back() -> Result<()> {
    let cluster = cluster("apply-rename")?;
    let mut db = connect(&cluster)?;
    let blocker = hold_snapshot(&cluster)?;
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    mid_build(&mut db)?;
    // Fails, because sessions other than ours are connected.
    let refused = cluster.connect("postgres", "shopkeeper")?.batch_execute("ALTER DATABASE shop RENAME TO store");
    assert!(refused.is_err_and(|e| e.code().is_some_and(|c| c.code() == "55006")));
    drop(blocker);
    reach(&mut db, id, &["queued"])?;
    hasten(&mut db, id)?;
    assert_eq!(reach(&mut db, id, &["built", "failed", "blocked"])?, "built");
    Ok(())
}

#[test]
fn w39_without_slots_actions_wait() -> Result<()> {
    // The server's logical replication launcher and ours take both.
    let mut cluster = with(Cluster::build("apply-slots").setting("max_worker_processes", 2))?;
    let mut db = connect(&cluster)?;
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    let refused = "SELECT value::bigint FROM indexpilot.status WHERE name = 'workers_refused'";
    poll_until(LIMIT, "the launcher to have asked three times", || Ok(number(&mut db, refused)? >= 3))?;
    assert_eq!(cluster.log().matches("the server has no slot left for a worker").count(), 1, "it is said once");
    assert_eq!(reach(&mut db, id, &["queued"])?, "queued");
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'indexpilot launcher'")?, 1);
    cluster.configure("max_worker_processes", 8)?;
    cluster.restart(Stop::Fast)?;
    let mut db = connect(&cluster)?;
    assert_eq!(reach(&mut db, id, &["built", "failed", "blocked"])?, "built");
    Ok(())
}

#[test]
fn what_cannot_be_built_is_said_and_leaves_nothing() -> Result<()> {
    let cluster = cluster("apply-failures")?;
    let mut db = connect(&cluster)?;

    let id = enqueue(&mut db, "ip_goods_zero", "(1 / (price - 7))")?;
    assert_eq!(reach(&mut db, id, &["built", "failed", "blocked"])?, "failed");
    assert_eq!(text(&mut db, &format!("SELECT error_sqlstate FROM indexpilot.actions WHERE id = {id}"))?, "22012");
    assert_eq!(number(&mut db, &format!("SELECT attempts::bigint FROM indexpilot.actions WHERE id = {id}"))?, 1);
    assert_eq!(logged(&mut db, id)?, ["remove_unusable_index", "action_failed"]);

    db.batch_execute("REVOKE CREATE ON SCHEMA crm FROM clerk")?;
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    reach(&mut db, id, &["blocked"])?;
    let reason = text(&mut db, &format!("SELECT blocked_reason FROM indexpilot.actions WHERE id = {id}"))?;
    assert!(reason.contains("GRANT CREATE ON SCHEMA crm TO clerk"), "{reason}");
    db.batch_execute("GRANT CREATE ON SCHEMA crm TO clerk")?;
    hasten(&mut db, id)?;
    assert_eq!(reach(&mut db, id, &["built", "failed"])?, "built");

    // Not ours: never dropped, whoever asks for it here.
    db.batch_execute("CREATE INDEX theirs ON crm.goods (id); CREATE UNIQUE INDEX keeper ON crm.goods (id)")?;
    for name in ["theirs", "keeper"] {
        let id = insert(&mut db, "drop", name, &format!("DROP INDEX CONCURRENTLY crm.{name}"), None)?;
        assert_eq!(reach(&mut db, id, &["done", "failed"])?, "failed");
    }
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_class WHERE relname IN ('theirs', 'keeper')")?, 2);

    db.batch_execute("ALTER TABLE crm.goods RENAME TO wares; ALTER TABLE crm.other RENAME TO goods")?;
    db.execute(
        "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause) \
         VALUES ('create', 'crm.wares'::regclass, 'crm', 'goods', 'crm', 'ip_renamed', '', 'CREATE INDEX CONCURRENTLY ip_renamed ON crm.goods (id)', 'test')",
        &[],
    )?;
    let id = number(&mut db, "SELECT max(id) FROM indexpilot.actions")?;
    assert_eq!(reach(&mut db, id, &["built", "failed", "blocked"])?, "failed");
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_class WHERE relname = 'ip_renamed'")?, 0);
    assert_eq!(unusable(&mut db)?, 0);
    Ok(())
}

#[test]
fn unusable_indexes_of_ours_are_removed_and_others_are_not() -> Result<()> {
    let cluster = cluster("apply-orphans")?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE INDEX ours ON crm.goods (price); CREATE INDEX theirs ON crm.goods (price); \
         COMMENT ON INDEX crm.ours IS 'indexpilot:00000000-0000-4000-8000-000000000000'; \
         SET allow_system_table_mods = on; \
         UPDATE pg_index SET indisvalid = false WHERE indexrelid IN ('crm.ours'::regclass, 'crm.theirs'::regclass)",
    )?;
    poll_until(LIMIT, "the orphan to be removed", || {
        Ok(number(&mut db, "SELECT count(*) FROM pg_class WHERE relname = 'ours'")? == 0)
    })?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_class WHERE relname = 'theirs'")?, 1);
    // The removal is logged in a transaction of its own, after it.
    poll_until(LIMIT, "the removal to be logged", || {
        Ok(number(&mut db, "SELECT count(*) FROM indexpilot.mutation_log WHERE mutation = 'remove_unusable_index'")? == 1)
    })?;
    Ok(())
}

#[test]
fn the_launcher_comes_back_and_mode_off_stops_everything() -> Result<()> {
    let cluster = cluster("apply-launcher")?;
    let mut db = connect(&cluster)?;
    let pid = "SELECT coalesce(max(pid), 0)::bigint FROM pg_stat_activity WHERE backend_type = 'indexpilot launcher'";
    let first = number(&mut db, pid)?;
    db.execute("SELECT pg_terminate_backend($1)", &[&(first as i32)])?;
    poll_until(LIMIT, "a new launcher", || Ok(![0, first].contains(&number(&mut db, pid)?)))?;
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    assert_eq!(reach(&mut db, id, &["built", "failed", "blocked"])?, "built");

    cluster.configure("indexpilot.mode", "off")?;
    cluster.reload()?;
    poll_until(LIMIT, "the setting", || Ok(text(&mut db, "SHOW indexpilot.mode")? == "off"))?;
    let id = enqueue(&mut db, "ip_goods_id", "id")?;
    // Ten times as long as until the next visit: nothing may happen.
    let since = Instant::now();
    poll_until(LIMIT, "two seconds", || {
        assert_eq!(reach(&mut db, id, &["queued"])?, "queued");
        Ok(since.elapsed() > Duration::from_secs(2))
    })?;
    cluster.configure("indexpilot.mode", "advise")?;
    cluster.reload()?;
    assert_eq!(reach(&mut db, id, &["built", "failed", "blocked"])?, "built");
    Ok(())
}

#[test]
fn a_standby_has_no_workers() -> Result<()> {
    let cluster = cluster("apply-primary")?;
    let standby = cluster.standby("apply-standby")?;
    let mut db = standby.connect("postgres", "postgres")?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'indexpilot%'")?, 0);
    Ok(())
}
