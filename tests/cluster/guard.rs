//! The guard on a real server: every rule holds an action back when its cause is there, says so, and lets the action go when the
//! cause is gone.

use indexpilot_tests::{Builder, Cluster, Result, Stop, number, poll_until, text};
use postgres::Client;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A database whose worker acts by itself on what the tests queue, as if it had decided so.
fn cluster(name: &str, more: impl FnOnce(Builder) -> Builder) -> Result<Cluster> {
    let cluster = more(Cluster::build(name))
        .setting("indexpilot.mode", "apply")
        .setting("indexpilot.select", "off")
        .setting("indexpilot.worker_interval", "200ms")
        .setting("indexpilot.guard_max_transaction_age", "1h")
        .setting("indexpilot.verify_delay", "1h")
        .setting("indexpilot.capture", "off")
        .start()?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE EXTENSION indexpilot; CREATE TABLE goods (id integer, price integer) WITH (autovacuum_enabled = off); \
         INSERT INTO goods SELECT i, i % 100 FROM generate_series(1, 1000) i",
    )?;
    Ok(cluster)
}

fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("postgres", "postgres")
}

/// Changes settings, and waits until new processes have them.
fn set(cluster: &Cluster, settings: &[(&str, &str)]) -> Result<()> {
    for (name, value) in settings {
        cluster.configure(&format!("indexpilot.{name}"), value)?;
    }
    cluster.reload()?;
    poll_until(LIMIT, "the settings to hold", || {
        let mut db = connect(cluster)?;
        for (name, value) in settings {
            if text(&mut db, &format!("SHOW indexpilot.{name}"))? != *value {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// Queues the building of an index, as the worker does.
fn enqueue(db: &mut Client, name: &str, table: &str, keys: &str) -> Result<i64> {
    let definition = format!("CREATE INDEX CONCURRENTLY {name} ON public.{table} USING btree ({keys})");
    let row = db.query_one(
        "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause, actor) \
         VALUES ('create', $1::text::regclass, 'public', $1::text::name, 'public', $2::text::name, $3, $3, 'test', 'indexpilot') RETURNING id",
        &[&table, &name, &definition],
    )?;
    Ok(row.get(0))
}

/// The action is looked at again at once.
fn hasten(db: &mut Client, id: i64) -> Result<()> {
    db.execute("UPDATE indexpilot.actions SET not_before = now() WHERE id = $1 AND state IN ('queued', 'blocked')", &[&id])?;
    Ok(())
}

fn state(db: &mut Client, id: i64) -> Result<(String, String)> {
    let row =
        db.query_one("SELECT state, coalesce(blocked_reason, error_message, '') FROM indexpilot.actions WHERE id = $1", &[&id])?;
    Ok((row.get(0), row.get(1)))
}

/// Waits until the rule holds the action back, and returns what it says.
fn held(db: &mut Client, id: i64, expected: &str, rule: &str) -> Result<String> {
    let mut now = (String::new(), String::new());
    let waited = poll_until(LIMIT, &format!("rule {rule} to hold action {id} back"), || {
        hasten(db, id)?;
        now = state(db, id)?;
        Ok(now.0 == expected && now.1.starts_with(&format!("{rule}: ")))
    });
    waited.map_err(|e| format!("{e}; it is {now:?}"))?;
    let counted = db.query_one(
        "SELECT evaluated > 0 AND waited + refused > 0 AND action_id = $2 AND detail IS NOT NULL AND objected_at IS NOT NULL \
         FROM indexpilot.guard_metrics WHERE rule = $1",
        &[&rule, &id],
    )?;
    assert!(counted.get::<_, bool>(0), "guard_metrics of {rule}");
    Ok(now.1)
}

fn built(db: &mut Client, id: i64) -> Result<()> {
    let mut now = (String::new(), String::new());
    let waited = poll_until(LIMIT, &format!("action {id} to build its index"), || {
        hasten(db, id)?;
        now = state(db, id)?;
        Ok(["built", "verifying", "kept"].contains(&now.0.as_str()))
    });
    Ok(waited.map_err(|e| format!("{e}; it is {now:?}"))?)
}

/// With these settings the rule holds an action back; without them the index is built.
fn by_settings(cluster: &Cluster, rule: &str, expected: &str, with: &[(&str, &str)], without: &[(&str, &str)]) -> Result<()> {
    let mut db = connect(cluster)?;
    set(cluster, with)?;
    let id = enqueue(&mut db, &format!("by_{rule}"), "goods", "price")?;
    held(&mut db, id, expected, rule)?;
    set(cluster, without)?;
    built(&mut db, id)?;
    db.batch_execute(&format!("DROP INDEX by_{rule}"))?;
    Ok(())
}

#[test]
fn rules_on_settings_hold_actions_back_and_let_them_go() -> Result<()> {
    let cluster = cluster("guard-settings", |b| b)?;
    let mut db = connect(&cluster)?;
    by_settings(&cluster, "mode", "queued", &[("mode", "advise")], &[("mode", "apply")])?;
    by_settings(&cluster, "apply", "queued", &[("apply", "off")], &[("apply", "on")])?;
    by_settings(
        &cluster,
        "load",
        "queued",
        &[("guard_max_load", "1e-06"), ("guard_load_cooldown", "0")],
        &[("guard_max_load", "10000")],
    )?;
    by_settings(
        &cluster,
        "minor_version",
        "blocked",
        &[("guard_min_server_version", "999999")],
        &[("guard_min_server_version", "0")],
    )?;
    by_settings(
        &cluster,
        "rate_limit",
        "queued",
        &[("guard_max_actions_per_hour", "1")],
        &[("guard_max_actions_per_hour", "1000")],
    )?;
    by_settings(
        &cluster,
        "rate_limit_day",
        "queued",
        &[("guard_max_actions_per_day", "1")],
        &[("guard_max_actions_per_day", "1000")],
    )?;
    by_settings(
        &cluster,
        "index_cap",
        "blocked",
        &[("guard_max_indexes_per_table", "0")],
        &[("guard_max_indexes_per_table", "12")],
    )?;
    by_settings(&cluster, "index_total", "blocked", &[("guard_max_indexes", "0")], &[("guard_max_indexes", "500")])?;

    // The load has passed, and its cool-down has not.
    set(&cluster, &[("guard_max_load", "1e-06"), ("guard_load_cooldown", "1h")])?;
    let id = enqueue(&mut db, "cooling", "goods", "price")?;
    held(&mut db, id, "queued", "load")?;
    set(&cluster, &[("guard_max_load", "10000")])?;
    poll_until(LIMIT, "the cool-down to hold the action back", || {
        hasten(&mut db, id)?;
        Ok(state(&mut db, id)?.1.contains("the cool-down is 3600 s"))
    })?;
    set(&cluster, &[("guard_load_cooldown", "0")])?;
    built(&mut db, id)?;
    db.batch_execute("DROP INDEX cooling")?;

    // The window lies hours from now in the zone that is set, whatever the server's own.
    let hours = |from: i32, to: i32| {
        format!(
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'Asia/Kathmandu' + interval '{from} hours', 'HH24:00') || ' ' || \
             to_char(clock_timestamp() AT TIME ZONE 'Asia/Kathmandu' + interval '{to} hours', 'HH24:00')"
        )
    };
    let (far, near) = (text(&mut db, &hours(3, 5))?, text(&mut db, &hours(-2, 3))?);
    let ((far_start, far_end), (start, end)) = (far.split_once(' ').unwrap_or_default(), near.split_once(' ').unwrap_or_default());
    by_settings(
        &cluster,
        "window",
        "queued",
        &[("guard_window_start", far_start), ("guard_window_end", far_end), ("guard_window_timezone", "Asia/Kathmandu")],
        &[("guard_window_start", start), ("guard_window_end", end)],
    )?;
    Ok(())
}

/// Queues a drop or a rebuild of an index.
fn enqueue_on(db: &mut Client, kind: &str, index: &str) -> Result<i64> {
    let row = db.query_one(
        "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, index_id, definition, statement, cause, actor) \
         SELECT $1, 'goods'::regclass, 'public', 'goods', 'public', $2::text::name, $2::text::regclass, '', '', 'test', 'indexpilot' RETURNING id",
        &[&kind, &index],
    )?;
    Ok(row.get(0))
}

fn refuses_to_retire(db: &mut Client, index: &str) -> bool {
    let refusal = db.batch_execute(&format!("SELECT indexpilot.retire_index('{index}')"));
    refusal.err().and_then(|e| e.as_db_error().map(|e| e.message().ends_with("is protected"))).unwrap_or(false)
}

fn estimate(db: &mut Client, id: i64, bytes: Option<i64>) -> Result<()> {
    db.execute("UPDATE indexpilot.actions SET estimated_bytes = $2 WHERE id = $1", &[&id, &bytes])?;
    Ok(())
}

const MB: i64 = 1 << 20;

#[test]
fn rules_on_the_table_and_the_database_hold_actions_back() -> Result<()> {
    let cluster = cluster("guard-table", |b| b.setting("indexpilot.select_storage_budget", "10MB"))?;
    let mut db = connect(&cluster)?;

    db.batch_execute("SELECT indexpilot.disable_system('release day')")?;
    let a = enqueue(&mut db, "a", "goods", "price")?;
    assert!(held(&mut db, a, "queued", "disabled")?.contains("release day"));
    db.batch_execute("SELECT indexpilot.enable_system()")?;
    built(&mut db, a)?;

    db.batch_execute("CREATE TABLE theirs (n integer); ALTER EXTENSION plpgsql ADD TABLE theirs")?;
    let id = enqueue(&mut db, "of_theirs", "theirs", "n")?;
    assert!(held(&mut db, id, "blocked", "table_refused")?.contains("it belongs to an extension"));
    db.batch_execute("ALTER EXTENSION plpgsql DROP TABLE theirs")?;
    built(&mut db, id)?;

    // The table takes some kilobytes: three times that is little, and 16 MB are allowed to any.
    let b = enqueue(&mut db, "b", "goods", "price, id")?;
    estimate(&mut db, b, Some(50 * MB))?;
    held(&mut db, b, "blocked", "index_share")?;
    estimate(&mut db, b, Some(12 * MB))?;
    held(&mut db, b, "blocked", "storage_budget")?;
    estimate(&mut db, b, Some(MB))?;
    built(&mut db, b)?;

    // A petabyte, twice, is not free. What the index takes is.
    let rebuild = enqueue_on(&mut db, "reindex", "b")?;
    estimate(&mut db, rebuild, Some(1 << 50))?;
    held(&mut db, rebuild, "queued", "free_disk")?;
    estimate(&mut db, rebuild, None)?;
    poll_until(LIMIT, "the rebuild", || {
        hasten(&mut db, rebuild)?;
        Ok(state(&mut db, rebuild)?.0 == "done")
    })?;

    db.batch_execute("SELECT indexpilot.protect('a')")?;
    let drop = enqueue_on(&mut db, "drop", "a")?;
    held(&mut db, drop, "blocked", "protected")?;
    // Rebuilt, it has another OID; renamed, another name.
    db.batch_execute("REINDEX INDEX CONCURRENTLY a")?;
    assert!(refuses_to_retire(&mut db, "a"));
    let followed = "SELECT count(*) FROM indexpilot.protected_indexes WHERE index_id = 'a'::regclass";
    poll_until(LIMIT, "a worker to follow", || Ok(number(&mut db, followed)? == 1))?;
    db.batch_execute("ALTER INDEX a RENAME TO z")?;
    assert!(refuses_to_retire(&mut db, "z"));
    db.batch_execute("ALTER INDEX z RENAME TO a; SELECT indexpilot.unprotect('a')")?;
    poll_until(LIMIT, "the drop", || {
        hasten(&mut db, drop)?;
        Ok(state(&mut db, drop)?.0 == "done")
    })?;

    // Hardly anybody reads it.
    let written = |calls: i64| {
        format!(
            "INSERT INTO indexpilot.workload_stats SELECT id, '', now() - interval '1 minute' * id, {calls}, 0, 0, 0, 0, 0, 0, 0, '{{}}', 0, 0, 0, 0, 0 \
             FROM w"
        )
    };
    db.batch_execute(&format!(
        "WITH w AS (INSERT INTO indexpilot.workload (queryid, role_id, relations_hash, relations, command) \
         VALUES (1, 10, 1, ARRAY['goods'::regclass::oid], 'insert') RETURNING id) {}",
        written(5000)
    ))?;
    let c = enqueue(&mut db, "c", "goods", "id")?;
    held(&mut db, c, "blocked", "write_overhead")?;
    db.batch_execute(&format!(
        "WITH w AS (INSERT INTO indexpilot.workload (queryid, role_id, relations_hash, relations, command) \
         VALUES (2, 10, 1, ARRAY['goods'::regclass::oid], 'select') RETURNING id) {}",
        written(100)
    ))?;
    built(&mut db, c)?;
    Ok(())
}

#[test]
fn work_beside_holds_actions_back() -> Result<()> {
    let cluster = cluster("guard-beside", |b| {
        b.setting("max_prepared_transactions", 2)
            // The test drops an index and has it built again.
            .setting("indexpilot.guard_cooldown", 0)
            .setting("autovacuum_naptime", "1s")
            .setting("autovacuum_freeze_max_age", 100_000)
            .setting("autovacuum_vacuum_cost_delay", 0)
    })?;
    let mut db = connect(&cluster)?;

    let mut other = connect(&cluster)?;
    other.batch_execute("BEGIN; SELECT FROM goods")?;
    set(&cluster, &[("guard_max_transaction_age", "1s")])?;
    poll_until(LIMIT, "the transaction to be old", || {
        Ok(number(
            &mut db,
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND now() - xact_start > '1 s'",
        )? == 1)
    })?;
    let id = enqueue(&mut db, "a", "goods", "price")?;
    held(&mut db, id, "queued", "old_transactions")?;
    other.batch_execute("ROLLBACK")?;
    built(&mut db, id)?;

    // One on another table is in the way only when it is old.
    other.batch_execute("CREATE TABLE elsewhere (n integer)")?;
    other.batch_execute("BEGIN; INSERT INTO elsewhere VALUES (0); PREPARE TRANSACTION 'q'")?;
    poll_until(LIMIT, "the prepared transaction to be old", || {
        Ok(number(&mut db, "SELECT count(*) FROM pg_prepared_xacts WHERE clock_timestamp() - prepared > '1 s'")? == 1)
    })?;
    let id = enqueue(&mut db, "old_prepared", "goods", "price DESC")?;
    assert!(held(&mut db, id, "queued", "prepared_transactions")?.contains(" s old"));
    set(&cluster, &[("guard_max_transaction_age", "1h")])?;
    // The build itself waits for no prepared transaction of another table: it holds no snapshot.
    built(&mut db, id)?;
    other.batch_execute("COMMIT PREPARED 'q'")?;

    other.batch_execute("BEGIN; INSERT INTO goods VALUES (0, 0); PREPARE TRANSACTION 'p'")?;
    let id = enqueue(&mut db, "b", "goods", "id")?;
    held(&mut db, id, "queued", "prepared_transactions")?;
    other.batch_execute("COMMIT PREPARED 'p'")?;
    built(&mut db, id)?;

    // Two indexes, because one that a person dropped is not made again for a while.
    for (mode, keys) in [("SHARE UPDATE EXCLUSIVE", "id, price"), ("ACCESS EXCLUSIVE", "id, price DESC")] {
        other.batch_execute(&format!("BEGIN; LOCK TABLE goods IN {mode} MODE"))?;
        let id = enqueue(&mut db, "c", "goods", keys)?;
        held(&mut db, id, "queued", "running_ddl")?;
        other.batch_execute("ROLLBACK")?;
        built(&mut db, id)?;
        db.batch_execute("DROP INDEX c")?;
    }

    // Old enough that the server vacuums it whatever its own settings say, and slowly.
    db.batch_execute(
        "CREATE TABLE old AS SELECT i, repeat('x', 500) AS note FROM generate_series(1, 20000) i; \
         ALTER TABLE old SET (autovacuum_enabled = off, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1); \
         CREATE PROCEDURE age() LANGUAGE plpgsql AS $$ BEGIN \
         FOR i IN 1..100100 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$",
    )?;
    db.batch_execute("CALL age()")?;
    poll_until(LIMIT, "the vacuum", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'autovacuum: %public.old (to prevent wraparound)'";
        Ok(number(&mut db, sql)? == 1)
    })?;
    let id = enqueue(&mut db, "d", "old", "i")?;
    let why = held(&mut db, id, "queued", "running_ddl")?;
    assert!(why.contains("autovacuum worker"), "{why}");
    // The lock that any such work holds speaks first; the rule for the kind of work speaks too.
    let found = db.query_one(
        "SELECT f ->> 'verdict' FROM indexpilot.actions, jsonb_array_elements(guard) f WHERE id = $1 AND f ->> 'rule' = $2",
        &[&id, &"wraparound_vacuum"],
    )?;
    assert_eq!(found.get::<_, String>(0), "wait");
    Ok(())
}

#[test]
fn what_ddl_makes_of_an_index_while_it_is_looked_at_counts() -> Result<()> {
    let cluster = cluster("guard-ddl", |b| b)?;
    let (mut db, mut other) = (connect(&cluster)?, connect(&cluster)?);
    let id = enqueue(&mut db, "a", "goods", "price")?;
    built(&mut db, id)?;
    other.batch_execute("BEGIN; CLUSTER goods USING a")?;
    let drop = enqueue_on(&mut db, "drop", "a")?;
    let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                   WHERE a.backend_type = 'indexpilot builder' AND NOT l.granted AND l.relation = 'a'::regclass";
    poll_until(LIMIT, "the builder to wait for the index", || Ok(number(&mut db, waiting)? == 1))?;
    other.batch_execute("COMMIT")?;
    poll_until(LIMIT, "the drop to be given up", || Ok(["failed", "done"].contains(&state(&mut db, drop)?.0.as_str())))?;
    let (state, why) = state(&mut db, drop)?;
    assert!(state == "failed" && why.contains("its table is clustered by it"), "{state}: {why}");
    Ok(())
}

#[test]
fn what_went_wrong_holds_actions_back_across_restarts() -> Result<()> {
    let mut cluster = cluster("guard-past", |b| {
        b.setting("indexpilot.guard_breaker_failures", 2)
            .setting("indexpilot.guard_breaker_pause", "1h")
            .setting("indexpilot.guard_cooldown", "1h")
    })?;
    let mut db = connect(&cluster)?;
    for name in ["x", "y"] {
        let id = enqueue(&mut db, name, "goods", "(1 / (price - 7))")?;
        poll_until(LIMIT, "the build to fail", || Ok(state(&mut db, id)?.0 == "failed"))?;
    }
    let id = enqueue(&mut db, "a", "goods", "price")?;
    assert!(held(&mut db, id, "queued", "circuit_breaker")?.contains("2 actions in a row"));
    cluster.restart(Stop::Immediate)?;
    let mut db = connect(&cluster)?;
    held(&mut db, id, "queued", "circuit_breaker")?;

    // What a person asks for is not held back, and what comes of it closes the circuit.
    set(&cluster, &[("verify", "off")])?;
    let asked = enqueue(&mut db, "b", "goods", "id")?;
    db.execute("UPDATE indexpilot.actions SET actor = 'postgres' WHERE id = $1", &[&asked])?;
    built(&mut db, asked)?;
    poll_until(LIMIT, "the index to be kept", || Ok(state(&mut db, asked)?.0 == "kept"))?;
    built(&mut db, id)?;

    // The pause over, one action tries; the others wait for what becomes of it.
    set(&cluster, &[("verify", "on"), ("guard_breaker_pause", "1s")])?;
    for name in ["x", "y"] {
        let id = enqueue(&mut db, name, "goods", "(1 / (price - 7))")?;
        poll_until(LIMIT, "the build to fail", || Ok(state(&mut db, id)?.0 == "failed"))?;
    }
    let trial = enqueue(&mut db, "t", "goods", "price, id")?;
    built(&mut db, trial)?;
    let next = enqueue(&mut db, "n", "goods", "id, price")?;
    assert!(held(&mut db, next, "queued", "circuit_breaker")?.contains("the one that tries"));
    db.execute("UPDATE indexpilot.actions SET state = 'kept', verified_at = clock_timestamp() WHERE id = $1", &[&trial])?;
    built(&mut db, next)?;

    // Taken back: not again for an hour, the second time for two.
    for hours in [1, 2] {
        db.execute(
            "SELECT indexpilot.rollback(max(id)) FROM indexpilot.mutation_log WHERE mutation = 'create_index' AND index_name = 'n'",
            &[],
        )?;
        poll_until(LIMIT, "the index to go", || Ok(number(&mut db, "SELECT count(*) FROM pg_class WHERE relname = 'n'")? == 0))?;
        poll_until(LIMIT, "the drop to be recorded", || {
            Ok(number(&mut db, "SELECT count(*) FROM indexpilot.actions WHERE kind = 'drop' AND state <> 'done'")? == 0)
        })?;
        let again = enqueue(&mut db, "n", "goods", "id, price")?;
        let why = held(&mut db, again, "queued", "cooldown")?;
        let left: f64 = why.split("ends in ").nth(1).and_then(|t| t.trim_end_matches(" s").parse().ok()).ok_or(why)?;
        assert!((left - 3600.0 * f64::from(hours)).abs() < 120.0, "{left} s left, expected {hours} h");
        db.execute("UPDATE indexpilot.actions SET actor = 'postgres' WHERE id = $1", &[&again])?;
        built(&mut db, again)?;
    }
    Ok(())
}

#[test]
fn w42_a_clock_that_was_set_back_holds_nothing_back_for_ever() -> Result<()> {
    let cluster = cluster("guard-clock", |b| b.setting("indexpilot.guard_max_actions_per_hour", 1))?;
    let mut db = connect(&cluster)?;
    let first = enqueue(&mut db, "a", "goods", "price")?;
    built(&mut db, first)?;
    let second = enqueue(&mut db, "b", "goods", "id")?;
    held(&mut db, second, "queued", "rate_limit")?;
    // As if all that had been noted a year ahead.
    db.batch_execute(
        "UPDATE indexpilot.actions SET not_before = not_before + interval '1 year', queued_at = queued_at + interval '1 year', \
         started_at = started_at + interval '1 year', finished_at = finished_at + interval '1 year'; \
         UPDATE indexpilot.control SET last_analysis_at = now() + interval '1 year'",
    )?;
    poll_until(LIMIT, "the second index", || Ok(["built", "verifying", "kept"].contains(&state(&mut db, second)?.0.as_str())))?;
    Ok(())
}

#[test]
fn a_lagging_replica_holds_back_and_interrupts_builds() -> Result<()> {
    let cluster = cluster("guard-lag", |b| b.setting("indexpilot.guard_max_replica_lag", "1MB"))?;
    let standby = cluster.standby("guard-replica")?;
    let mut db = connect(&cluster)?;
    let mut replica = connect(&standby)?;
    let write = "CREATE TABLE IF NOT EXISTS filler (t text); INSERT INTO filler SELECT repeat(md5(i::text), 30) FROM generate_series(1, 5000) i";

    poll_until(LIMIT, "the replica to report", || {
        Ok(number(&mut db, "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn IS NOT NULL")? == 1)
    })?;
    replica.batch_execute("SELECT pg_wal_replay_pause()")?;
    db.batch_execute(write)?;
    let id = enqueue(&mut db, "a", "goods", "price")?;
    held(&mut db, id, "queued", "replica_lag")?;
    replica.batch_execute("SELECT pg_wal_replay_resume()")?;
    built(&mut db, id)?;

    // In the middle of a build: it is given up, nothing of it is left, and it is built when the replica has caught up.
    let mut holder = connect(&cluster)?;
    holder.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_am")?;
    let id = enqueue(&mut db, "b", "goods", "id")?;
    for stop in 1..=2 {
        poll_until(LIMIT, "the build to wait for old snapshots", || {
            hasten(&mut db, id)?;
            Ok(number(&mut db, "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase = 'waiting for old snapshots'")?
                == 1)
        })?;
        replica.batch_execute("SELECT pg_wal_replay_pause()")?;
        db.batch_execute(write)?;
        poll_until(LIMIT, "the build to be given up", || Ok(state(&mut db, id)?.0 == "queued"))?;
        let (_, why) = state(&mut db, id)?;
        assert!(why.starts_with("replica_lag: "), "{why}");
        assert_eq!(number(&mut db, "SELECT count(*) FROM pg_index WHERE NOT indisvalid")?, 0);
        let later = number(
            &mut db,
            &format!("SELECT extract(epoch FROM not_before - clock_timestamp())::bigint FROM indexpilot.actions WHERE id = {id}"),
        )?;
        let expected = if stop == 1 { 15..=31 } else { 100..=121 };
        assert!(expected.contains(&later), "tried again in {later} s");
        assert_eq!(number(&mut db, "SELECT stopped FROM indexpilot.guard_metrics WHERE rule = 'replica_lag'")?, stop);
        held(&mut db, id, "queued", "replica_lag")?;
        replica.batch_execute("SELECT pg_wal_replay_resume()")?;
    }
    holder.batch_execute("ROLLBACK")?;
    // Two attempts were interrupted, which would be all that an action has: they did not count.
    built(&mut db, id)?;
    let logged = db.query("SELECT mutation FROM indexpilot.mutation_log WHERE action_id = $1 ORDER BY id", &[&id])?;
    let logged: Vec<String> = logged.iter().map(|r| r.get(0)).collect();
    let once = ["remove_unusable_index", "action_interrupted"];
    assert_eq!(logged, [&once[..], &once[..], &["create_index"]].concat());
    Ok(())
}

#[test]
fn everything_goes_back_to_a_point_in_time() -> Result<()> {
    let cluster = cluster("guard-rollback", |b| b)?;
    let mut db = connect(&cluster)?;
    let there = |db: &mut Client, name: &str| {
        number(
            db,
            &format!(
                "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indisvalid AND c.relname = '{name}'"
            ),
        )
    };
    let (a, gone) = (enqueue(&mut db, "a", "goods", "price")?, enqueue(&mut db, "gone", "goods", "price, id")?);
    built(&mut db, a)?;
    built(&mut db, gone)?;
    let then = text(&mut db, "SELECT clock_timestamp()::text")?;

    let b = enqueue(&mut db, "b", "goods", "id")?;
    built(&mut db, b)?;
    db.execute(
        "SELECT indexpilot.rollback(max(id)) FROM indexpilot.mutation_log WHERE mutation = 'create_index' AND index_name = 'a'",
        &[],
    )?;
    poll_until(LIMIT, "the drop of a", || Ok(there(&mut db, "a")? == 0))?;
    poll_until(LIMIT, "it to be recorded", || {
        Ok(number(&mut db, "SELECT count(*) FROM indexpilot.mutation_log WHERE mutation = 'drop_index' AND index_name = 'a'")? == 1)
    })?;
    // Made and taken back since: nothing is left of it to be taken back.
    let c = enqueue(&mut db, "c", "goods", "id, price")?;
    built(&mut db, c)?;
    db.execute(
        "SELECT indexpilot.rollback(max(id)) FROM indexpilot.mutation_log WHERE mutation = 'create_index' AND index_name = 'c'",
        &[],
    )?;
    poll_until(LIMIT, "the drop of c", || Ok(there(&mut db, "c")? == 0))?;
    db.batch_execute("SELECT indexpilot.disable_system('test')")?;
    let waiting = enqueue(&mut db, "d", "goods", "price DESC")?;
    held(&mut db, waiting, "queued", "disabled")?;

    let rows = db.query(&format!("SELECT coalesce(statement, 'none') FROM indexpilot.rollback_to_preview('{then}')"), &[])?;
    let preview: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
    let create = "CREATE INDEX CONCURRENTLY a ON public.goods USING btree (price)";
    let expected = [
        &format!("SELECT indexpilot.cancel({waiting})"),
        "SELECT indexpilot.enable_system()",
        create,
        "DROP INDEX CONCURRENTLY public.b",
    ];
    assert_eq!(preview, expected);
    assert_eq!(there(&mut db, "b")?, 1, "a preview changes nothing");

    let rows = db.query(&format!("SELECT mutation_id IS NOT NULL, statement FROM indexpilot.rollback_to('{then}')"), &[])?;
    let done: Vec<String> = rows.iter().map(|r| r.get(1)).collect();
    assert_eq!(done, expected);
    assert_eq!(rows.iter().filter(|r| r.get(0)).count(), 3);
    poll_until(LIMIT, "all to be as it was", || {
        db.execute("UPDATE indexpilot.actions SET not_before = now() WHERE state IN ('queued', 'blocked')", &[])?;
        Ok((there(&mut db, "a")?, there(&mut db, "b")?, there(&mut db, "gone")?) == (1, 0, 1))
    })?;
    assert_eq!(state(&mut db, waiting)?.0, "cancelled");
    poll_until(LIMIT, "nothing to be left to do", || {
        Ok(number(&mut db, &format!("SELECT count(*) FROM indexpilot.rollback_to_preview('{then}')"))? == 0)
    })?;

    // What cannot come back stays, and the rest goes on.
    db.batch_execute("DROP TABLE goods")?;
    let rows = db.query("SELECT mutation_id, effect FROM indexpilot.rollback_to(now() - interval '1 day')", &[])?;
    assert!(rows.iter().all(|r| r.get::<_, Option<i64>>(0).is_none()), "{rows:?}");
    Ok(())
}

#[test]
fn health_and_status_tell_the_truth() -> Result<()> {
    let cluster = cluster("guard-health", |b| b)?;
    let mut db = connect(&cluster)?;
    let of = |db: &mut Client, name: &str| -> Result<(String, String)> {
        let row = db.query_one("SELECT state, detail FROM indexpilot.health_check() WHERE name = $1", &[&name])?;
        Ok((row.get(0), row.get(1)))
    };
    poll_until(LIMIT, "all to be well", || {
        Ok(number(&mut db, "SELECT count(*) FROM indexpilot.health_check() WHERE state <> 'ok' AND name <> 'stages'")? == 0)
    })
    .map_err(|e| format!("{e}; {:?}", db.query("SELECT h::text FROM indexpilot.health_check() h WHERE state <> 'ok'", &[])))?;
    assert_eq!(
        of(&mut db, "stages")?,
        ("warning".into(), "switched off: indexpilot.capture (in this session), indexpilot.select".into())
    );
    let figure = |db: &mut Client, name: &str| text(db, &format!("SELECT value FROM indexpilot.status WHERE name = '{name}'"));
    assert!(figure(&mut db, "last_visit_s")?.parse::<i64>()? < 60);
    assert_eq!(figure(&mut db, "circuit_breaker")?, "closed");

    let id = enqueue(&mut db, "x", "goods", "(1 / (price - 7))")?;
    poll_until(LIMIT, "the build to fail", || Ok(state(&mut db, id)?.0 == "failed"))?;
    let (warned, detail) = of(&mut db, "actions_failed")?;
    assert!(warned == "warning" && detail.contains("may quote values"), "{detail}");

    let a = enqueue(&mut db, "a", "goods", "price")?;
    built(&mut db, a)?;
    db.batch_execute("DROP INDEX a; CREATE INDEX theirs ON goods (id)")?;
    db.batch_execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'theirs'::regclass")?;
    let known = "SELECT count(*) FROM indexpilot.managed_indexes WHERE dropped_at IS NULL";
    poll_until(LIMIT, "the drop to be noticed", || Ok(number(&mut db, known)? == 0))?;
    assert_eq!(of(&mut db, "missing_indexes")?.0, "ok");
    // One that no action speaks of.
    db.batch_execute(
        "INSERT INTO indexpilot.managed_indexes (tag, table_schema, table_name, index_schema, index_name, definition) \
         VALUES (gen_random_uuid(), 'public', 'goods', 'public', 'lost', '')",
    )?;
    assert_eq!(of(&mut db, "missing_indexes")?.0, "warning");
    assert_eq!(of(&mut db, "unusable_indexes")?, ("warning".into(), "0 unusable indexes of IndexPilot, 1 of others".into()));

    set(&cluster, &[("guard_breaker_failures", "1")])?;
    let mut db = connect(&cluster)?;
    let id = enqueue(&mut db, "y", "goods", "(1 / (price - 7))")?;
    db.execute("UPDATE indexpilot.actions SET actor = 'postgres' WHERE id = $1", &[&id])?;
    poll_until(LIMIT, "the build to fail", || Ok(state(&mut db, id)?.0 == "failed"))?;
    assert_eq!(of(&mut db, "circuit_breaker")?.0, "warning");
    assert_eq!(figure(&mut db, "circuit_breaker")?, "open");

    db.batch_execute("SELECT indexpilot.disable_system('release day')")?;
    assert_eq!(of(&mut db, "switch")?, ("warning".into(), "disable_system() was called in this database: release day".into()));
    // A standby says that it is one.
    let standby = cluster.standby("guard-health-standby")?;
    assert_eq!(
        of(&mut connect(&standby)?, "launcher")?,
        ("ok".into(), "the server is a standby: it captures, and no worker runs".into())
    );
    Ok(())
}

#[test]
fn a_persons_word_outlives_that_of_a_rule() -> Result<()> {
    let cluster = cluster("guard-word", |b| b)?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "WITH a AS (INSERT INTO indexpilot.analyses (started_at, cause) VALUES (now() - interval '1 year', 'call') RETURNING id) \
         INSERT INTO indexpilot.recommendations (analysis_id, state, reason, reason_detail, table_id, table_schema, table_name, columns, \
                definition, index_def, decided_by) \
         SELECT a.id, r.state, r.reason, '', 'goods'::regclass, 'public', 'goods', '{price}', '', '{}', r.decided_by \
           FROM a, (VALUES ('not_recommended', 'no_gain', NULL::name), ('rejected', 'cooldown', NULL), ('rejected', 'gain', 'postgres')) \
                   AS r(state, reason, decided_by)",
    )?;
    let left = "SELECT string_agg(reason, ', ') FROM indexpilot.recommendations";
    poll_until(LIMIT, "old decisions to be forgotten", || Ok(text(&mut db, left)? == "gain"))?;
    Ok(())
}

#[test]
fn a_replica_that_has_a_replica_estimates_too() -> Result<()> {
    let cluster = cluster("guard-cascade", |b| b)?;
    let standby = cluster.standby("guard-cascade-1")?;
    let _last = standby.standby("guard-cascade-2")?;
    let mut db = connect(&standby)?;
    poll_until(LIMIT, "the last one to report", || {
        Ok(number(&mut db, "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn IS NOT NULL")? == 1)
    })?;
    let estimates = "SELECT count(*) FROM indexpilot.estimate_build_cost('CREATE INDEX ON goods (price)')";
    assert_eq!(number(&mut db, estimates)?, 2);
    Ok(())
}
