//! What others do while an action waits or runs. Numbers in names are those of the project's catalogue of cases.

use crate::apply::{LIMIT, cluster, connect, enqueue, hasten, hold_snapshot, insert, logged, mid_build, reach, unusable, with};
use indexpilot_tests::{Cluster, Result, number, poll_until, text};
use postgres::Client;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

const SETTLED: [&str; 4] = ["built", "done", "failed", "blocked"];

/// Queues a build that is not due yet, so that something can happen before it.
fn enqueue_later(db: &mut Client, name: &str, keys: &str) -> Result<i64> {
    db.batch_execute("BEGIN")?;
    let id = enqueue(db, name, keys)?;
    db.execute("UPDATE indexpilot.actions SET not_before = now() + interval '1 hour' WHERE id = $1", &[&id])?;
    db.batch_execute("COMMIT")?;
    Ok(id)
}

/// What the action says of its last failure.
fn failure(db: &mut Client, id: i64) -> Result<String> {
    text(db, &format!("SELECT error_sqlstate || ' ' || error_message FROM indexpilot.actions WHERE id = {id}"))
}

/// Queues the drop of what an action built, as a rollback does.
fn take_back(db: &mut Client, id: i64) -> Result<i64> {
    let name = text(db, &format!("SELECT index_name FROM indexpilot.actions WHERE id = {id}"))?;
    insert(db, "drop", &name, &format!("DROP INDEX CONCURRENTLY crm.{name}"), Some(id))
}

fn indexes(db: &mut Client) -> Result<String> {
    text(
        db,
        "SELECT string_agg(indexrelid::regclass::text || ' ' || indisvalid, ', ' ORDER BY indexrelid::regclass::text) \
         FROM pg_index WHERE indrelid = to_regclass('crm.goods')",
    )
}

#[test]
fn d46_who_asks_in_a_transaction_is_answered_at_once() -> Result<()> {
    let cluster = cluster("apply-d46")?;
    let mut db = connect(&cluster)?;
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    reach(&mut db, id, &["built"])?;
    let mutation = number(&mut db, &format!("SELECT id FROM indexpilot.mutation_log WHERE action_id = {id}"))?;

    // A snapshot and a lock that a drop would wait for.
    let mut caller = connect(&cluster)?;
    caller.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM crm.goods WHERE price = 7")?;
    let since = Instant::now();
    caller.batch_execute(&format!("SELECT indexpilot.rollback({mutation})"))?;
    for wait in ["CALL indexpilot.wait_for_actions()", "DO 'BEGIN CALL indexpilot.wait_for_actions(); END'"] {
        caller.batch_execute("SAVEPOINT s")?;
        let refused = caller.batch_execute(wait).err().and_then(|e| e.as_db_error().map(|e| e.code().code().to_owned()));
        assert!(refused.as_deref().is_some_and(|code| ["55000", "2D000"].contains(&code)), "{wait}: {refused:?}");
        caller.batch_execute("ROLLBACK TO s")?;
    }
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(
        number(&mut db, "SELECT count(*) FROM indexpilot.actions WHERE kind = 'drop'")?,
        0,
        "nothing begins before the commit"
    );
    caller.batch_execute("COMMIT")?;
    caller.batch_execute("CALL indexpilot.wait_for_actions('1 minute')")?;
    assert_eq!(indexes(&mut db)?, "");
    assert_eq!(reach(&mut db, id, &["reverted"])?, "reverted");
    Ok(())
}

#[test]
fn d47_a_build_gives_up_on_transactions_that_do_not_end() -> Result<()> {
    let cluster =
        with(Cluster::build("apply-d47").setting("indexpilot.apply_build_timeout", "2s").setting("max_prepared_transactions", 2))?;
    let mut db = connect(&cluster)?;
    let given_up = |db: &mut Client, id: i64, code: &str| -> Result<()> {
        reach(db, id, &["queued"])?;
        poll_until(LIMIT, "the build to be given up", || {
            Ok(number(db, &format!("SELECT attempts::bigint FROM indexpilot.actions WHERE id = {id} AND state = 'queued'"))
                .unwrap_or(0)
                == 1)
        })?;
        let why = failure(db, id)?;
        assert!(why.starts_with(code), "{why}");
        assert_eq!(unusable(db)?, 0);
        Ok(())
    };
    let finish = |db: &mut Client, id: i64, index: &str| -> Result<()> {
        hasten(db, id)?;
        assert_eq!(reach(db, id, &SETTLED)?, "built", "{}", failure(db, id)?);
        Ok(db.batch_execute(&format!("DROP INDEX crm.{index}"))?)
    };

    // Who reads for long in one snapshot, as pg_dump does.
    let reader = hold_snapshot(&cluster)?;
    let id = enqueue(&mut db, "ip_reader", "price")?;
    mid_build(&mut db)?;
    given_up(&mut db, id, "57014")?;
    drop(reader);
    finish(&mut db, id, "ip_reader")?;

    // Whoever has written holds up the removal of what is left as well, and nobody else.
    let removal_waits = |db: &mut Client| {
        poll_until(LIMIT, "the build to be given up", || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'indexpilot builder' \
                       AND query LIKE 'DROP INDEX CONCURRENTLY %' AND wait_event_type = 'Lock'";
            Ok(number(db, sql)? == 1)
        })
    };
    let mut writer = connect(&cluster)?;
    writer.batch_execute("BEGIN; INSERT INTO crm.goods VALUES (0, 0)")?;
    let id = enqueue(&mut db, "ip_writer", "price")?;
    removal_waits(&mut db)?;
    db.batch_execute("INSERT INTO crm.goods VALUES (0, 0)")?;
    writer.batch_execute("INSERT INTO crm.goods VALUES (0, 0); COMMIT")?;
    given_up(&mut db, id, "57014")?;
    finish(&mut db, id, "ip_writer")?;

    // Whose transaction is prepared while the build waits for it already.
    writer.batch_execute("BEGIN; INSERT INTO crm.goods VALUES (0, 0)")?;
    let id = enqueue(&mut db, "ip_prepared", "price")?;
    poll_until(LIMIT, "the build to wait for the writer", || {
        Ok(number(&mut db, "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase = 'waiting for writers before build'")?
            == 1)
    })?;
    writer.batch_execute("PREPARE TRANSACTION 'left'")?;
    removal_waits(&mut db)?;
    db.batch_execute("COMMIT PREPARED 'left'")?;
    given_up(&mut db, id, "57014")?;
    // One that is there already is known beforehand.
    writer.batch_execute("BEGIN; INSERT INTO crm.goods VALUES (0, 0); PREPARE TRANSACTION 'left'")?;
    hasten(&mut db, id)?;
    poll_until(LIMIT, "the prepared transaction to be seen", || {
        let why = text(&mut db, &format!("SELECT blocked_reason FROM indexpilot.actions WHERE id = {id}"))?;
        Ok(why.contains("prepared"))
    })?;
    writer.batch_execute("COMMIT PREPARED 'left'")?;
    finish(&mut db, id, "ip_prepared")?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM crm.goods")?, 1005);
    Ok(())
}

#[test]
fn d48_no_client_fails_and_no_entry_is_lost_under_load() -> Result<()> {
    let cluster = cluster("apply-d48")?;
    let mut db = connect(&cluster)?;
    db.batch_execute("CREATE EXTENSION amcheck")?;
    cluster.run(cluster.client_program("pgbench").args(["-q", "-i", "-s", "1", "shop"]))?;
    let mut load = cluster
        .client_program("pgbench")
        .args(["-n", "-c", "3", "-T", "120", "shop"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let queue = |db: &mut Client, kind: &str, statement: &str| -> Result<()> {
        let row = db.query_one(
            "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause) \
             VALUES ($1, 'pgbench_accounts'::regclass, 'public', 'pgbench_accounts', 'public', 'ip_balance', $2, $2, 'test') RETURNING id",
            &[&kind, &statement],
        )?;
        let id = row.get(0);
        let state = reach(db, id, &SETTLED)?;
        assert!(["built", "done"].contains(&state.as_str()), "{kind}: {state} {}", failure(db, id)?);
        Ok(())
    };
    for _ in 0..3 {
        // Every transaction of the load changes a key of it.
        queue(&mut db, "create", "CREATE INDEX CONCURRENTLY ip_balance ON public.pgbench_accounts USING btree (abalance)")?;
        db.batch_execute("SELECT bt_index_check('ip_balance', true)")?;
        queue(&mut db, "reindex", "REINDEX INDEX CONCURRENTLY public.ip_balance")?;
        db.batch_execute("SELECT bt_index_parent_check('ip_balance', true)")?;
        queue(&mut db, "drop", "DROP INDEX CONCURRENTLY public.ip_balance")?;
    }
    assert!(load.try_wait()?.is_none(), "the load ended before the last action");
    load.kill()?;
    let said = load.wait_with_output()?;
    assert_eq!(String::from_utf8_lossy(&said.stderr), "", "{}", String::from_utf8_lossy(&said.stdout));
    assert!(number(&mut db, "SELECT count(*) FROM pgbench_history")? > 0);
    assert_eq!(unusable(&mut db)?, 0);
    Ok(())
}

#[test]
fn d49_data_that_cannot_be_indexed_fails_for_good_and_want_of_room_does_not() -> Result<()> {
    let cluster = with(Cluster::build("apply-d49").setting("indexpilot.apply_maintenance_work_mem", "1MB"))?;
    let mut db = connect(&cluster)?;
    // No compression makes this fit into a page of a B-tree.
    db.batch_execute(
        "ALTER TABLE crm.goods ADD label text; \
         UPDATE crm.goods SET label = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i) WHERE id = 7",
    )?;
    for (name, keys, code) in [("ip_wide", "label", "54000"), ("ip_zero", "(1 / (price - 7))", "22012")] {
        let id = enqueue(&mut db, name, keys)?;
        assert_eq!(reach(&mut db, id, &SETTLED)?, "failed");
        assert!(failure(&mut db, id)?.starts_with(code), "{}", failure(&mut db, id)?);
        assert_eq!(number(&mut db, &format!("SELECT attempts::bigint FROM indexpilot.actions WHERE id = {id}"))?, 1);
        assert_eq!(logged(&mut db, id)?, ["remove_unusable_index", "action_failed"]);
        assert_eq!(indexes(&mut db)?, "");
    }
    // Duplicates cannot stop one of ours: none is unique.
    let id = insert(&mut db, "create", "ip_unique", "CREATE UNIQUE INDEX CONCURRENTLY ip_unique ON crm.goods (price)", None)?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "failed");
    assert_eq!(indexes(&mut db)?, "");

    // No room for the files of the sort.
    db.batch_execute("INSERT INTO crm.goods SELECT i, i FROM generate_series(1, 200000) i")?;
    cluster.configure("temp_file_limit", "64kB")?;
    cluster.reload()?;
    let id = enqueue(&mut db, "ip_goods_price", "price, id")?;
    poll_until(LIMIT, "the first attempt to fail", || {
        Ok(failure(&mut db, id)?.starts_with("53400")
            && text(&mut db, &format!("SELECT state FROM indexpilot.actions WHERE id = {id}"))? == "queued")
    })?;
    assert_eq!(indexes(&mut db)?, "");
    cluster.configure("temp_file_limit", -1)?;
    cluster.reload()?;
    hasten(&mut db, id)?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "built");
    Ok(())
}

#[test]
fn d50_an_index_goes_to_the_table_it_was_meant_for_or_nowhere() -> Result<()> {
    let cluster = cluster("apply-d50")?;
    let mut db = connect(&cluster)?;
    let fails = |db: &mut Client, id: i64, why: &str| -> Result<()> {
        hasten(db, id)?;
        assert_eq!(reach(db, id, &SETTLED)?, "failed");
        assert!(failure(db, id)?.contains(why), "{}", failure(db, id)?);
        assert_eq!(number(db, "SELECT count(*) FROM pg_class WHERE relkind = 'i' AND relname LIKE 'ip\\_%'")?, 0);
        Ok(())
    };
    db.batch_execute("CREATE VIEW crm.ip_taken AS SELECT 1 AS n")?;
    let id = enqueue(&mut db, "ip_taken", "price")?;
    fails(&mut db, id, "the name ip_taken is taken by another relation")?;

    let id = enqueue_later(&mut db, "ip_moved", "price")?;
    db.batch_execute(
        "CREATE SCHEMA elsewhere; ALTER TABLE crm.goods SET SCHEMA elsewhere; CREATE TABLE crm.goods (price integer)",
    )?;
    fails(&mut db, id, "the table was called crm.goods when the action was queued, and is called elsewhere.goods now")?;
    db.batch_execute("DROP TABLE crm.goods; ALTER TABLE elsewhere.goods SET SCHEMA crm")?;

    let id = enqueue_later(&mut db, "ip_given_away", "price")?;
    db.batch_execute("CREATE ROLE heir; GRANT USAGE, CREATE ON SCHEMA crm TO heir; ALTER TABLE crm.goods OWNER TO heir")?;
    hasten(&mut db, id)?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "built");
    let owner = "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'crm.ip_given_away'::regclass";
    assert_eq!(text(&mut db, owner)?, "heir");
    db.batch_execute("DROP INDEX crm.ip_given_away")?;

    let id = enqueue_later(&mut db, "ip_dropped", "price")?;
    db.batch_execute("DROP TABLE crm.goods; CREATE TABLE crm.goods (id integer, price integer)")?;
    fails(&mut db, id, "the table does not exist any more")?;
    Ok(())
}

#[test]
fn d51_what_people_do_to_our_indexes_is_followed() -> Result<()> {
    let cluster = cluster("apply-d51")?;
    let mut db = connect(&cluster)?;
    // Rebuilt and renamed by a person, it is still the one that is taken back.
    let first = enqueue(&mut db, "ip_goods_price", "price")?;
    reach(&mut db, first, &["built"])?;
    db.batch_execute("REINDEX INDEX CONCURRENTLY crm.ip_goods_price")?;
    db.batch_execute("ALTER INDEX crm.ip_goods_price RENAME TO renamed")?;
    let mutation = number(&mut db, &format!("SELECT id FROM indexpilot.mutation_log WHERE action_id = {first}"))?;
    db.batch_execute(&format!("SELECT indexpilot.rollback({mutation})"))?;
    reach(&mut db, first, &["reverted"])?;
    assert_eq!(indexes(&mut db)?, "");

    // Dropped by a person, it is known to be gone, and can be brought back.
    let second = enqueue(&mut db, "ip_goods_id", "id")?;
    reach(&mut db, second, &["built"])?;
    db.batch_execute("DROP INDEX crm.ip_goods_id")?;
    reach(&mut db, second, &["reverted"])?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.managed_indexes WHERE dropped_at IS NULL")?, 0);
    let gone = format!("SELECT id FROM indexpilot.mutation_log WHERE action_id = {second} AND mutation = 'drop_index'");
    let gone = number(&mut db, &gone)?;
    db.batch_execute(&format!("SELECT indexpilot.rollback({gone})"))?;
    db.batch_execute("CALL indexpilot.wait_for_actions('1 minute')")?;
    assert_eq!(indexes(&mut db)?, "crm.ip_goods_id true");
    db.batch_execute("DROP INDEX crm.ip_goods_id")?;

    // Under its name there may be another one now, which is nobody's but theirs; and their use of ours keeps it.
    for (name, theirs) in [
        ("ip_plain", "DROP INDEX crm.ip_plain; CREATE INDEX ip_plain ON crm.goods (id)"),
        ("ip_key", "DROP INDEX crm.ip_key; ALTER TABLE crm.goods ADD CONSTRAINT ip_key UNIQUE (id)"),
        ("ip_order", "ALTER TABLE crm.goods CLUSTER ON ip_order"),
    ] {
        let id = enqueue(&mut db, name, "price")?;
        reach(&mut db, id, &["built"])?;
        // In one transaction, so that nobody notices in between.
        db.batch_execute(&format!("BEGIN; {theirs}"))?;
        let drop = take_back(&mut db, id)?;
        db.batch_execute("COMMIT")?;
        assert_eq!(reach(&mut db, drop, &SETTLED)?, "failed", "{name}: {}", indexes(&mut db)?);
        assert_eq!(number(&mut db, &format!("SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('crm.{name}')"))?, 1);
    }
    Ok(())
}

#[test]
fn d52_others_work_on_the_table_before_or_after_a_build() -> Result<()> {
    let cluster = cluster("apply-d52")?;
    let mut db = connect(&cluster)?;
    for theirs in
        ["CREATE INDEX CONCURRENTLY theirs ON crm.goods (id)", "VACUUM (FULL) crm.goods", "ALTER TABLE crm.goods ADD more integer"]
    {
        let holder = hold_snapshot(&cluster)?;
        let id = enqueue(&mut db, "ip_goods_price", "price")?;
        mid_build(&mut db)?;
        let mut other = connect(&cluster)?;
        let waits = thread::spawn(move || other.batch_execute(theirs));
        poll_until(LIMIT, "the other session to wait for the build", || {
            let sql = "SELECT count(*) FROM pg_stat_activity w JOIN pg_stat_activity b ON b.pid = ANY (pg_blocking_pids(w.pid)) \
                       WHERE w.wait_event_type = 'Lock' AND b.backend_type = 'indexpilot builder'";
            Ok(number(&mut db, sql)? == 1)
        })?;
        drop(holder);
        assert_eq!(reach(&mut db, id, &SETTLED)?, "built", "{theirs}");
        waits.join().map_err(|_| "the other session panicked")??;
        assert_eq!(unusable(&mut db)?, 0, "{theirs}");
        db.batch_execute("DROP INDEX crm.ip_goods_price")?;
        reach(&mut db, id, &["reverted"])?;
    }

    // Each waits for the other: the server ends one of them, and either way the table is as if that one had not begun.
    let mut holder = hold_snapshot(&cluster)?;
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    mid_build(&mut db)?;
    let altered = holder.batch_execute("ALTER TABLE crm.goods ADD last integer");
    holder.batch_execute("COMMIT")?;
    match altered {
        Ok(()) => assert_eq!(reach(&mut db, id, &["queued"])?, "queued"),
        Err(e) => assert_eq!(e.code().map(|c| c.code()), Some("40P01")),
    }
    poll_until(LIMIT, "the build to end", || {
        hasten(&mut db, id)?;
        Ok(["built", "verifying", "kept"]
            .contains(&text(&mut db, &format!("SELECT state FROM indexpilot.actions WHERE id = {id}"))?.as_str()))
    })?;
    assert_eq!(unusable(&mut db)?, 0);
    Ok(())
}

#[test]
fn d52_whoever_waits_for_a_build_comes_after_its_last_commit() -> Result<()> {
    let cluster = cluster("apply-d52-end")?;
    let mut db = connect(&cluster)?;
    // Holds up the last transaction of a build, in which the index was made usable, and in which the server lets go of the table.
    db.batch_execute(
        "CREATE FUNCTION crm.slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(7); END'; \
         CREATE EVENT TRIGGER slow ON ddl_command_end WHEN tag IN ('CREATE INDEX') EXECUTE FUNCTION crm.slow(); \
         SELECT pg_advisory_lock(7)",
    )?;
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    let waits_for_the_builder = "SELECT count(*) FROM pg_stat_activity w JOIN pg_stat_activity b ON b.pid = ANY (pg_blocking_pids(w.pid)) \
                                 WHERE b.backend_type = 'indexpilot builder'";
    poll_until(LIMIT, "the build to come to its end", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND backend_type = 'indexpilot builder'";
        Ok(number(&mut db, sql)? == 1)
    })?;
    let mut other = connect(&cluster)?;
    let waits = thread::spawn(move || other.batch_execute("VACUUM (FULL) crm.goods"));
    poll_until(LIMIT, "the other session to wait for the build", || Ok(number(&mut db, waits_for_the_builder)? == 1))?;
    db.batch_execute("SELECT pg_advisory_unlock(7)")?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "built");
    waits.join().map_err(|_| "the other session panicked")??;
    assert_eq!(unusable(&mut db)?, 0);
    // Nothing is held for longer than that.
    db.batch_execute("SET lock_timeout = '20s'")?;
    db.batch_execute("VACUUM (FULL) crm.goods")?;
    Ok(())
}

#[test]
fn d57_a_trigger_on_commands_that_fails_does_not_mislead() -> Result<()> {
    let cluster = cluster("apply-d57")?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE FUNCTION crm.veto() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''not today''; END'",
    )?;
    let veto = |db: &mut Client, tags: &str| -> Result<()> {
        let when = format!("CREATE EVENT TRIGGER veto ON ddl_command_end WHEN tag IN ({tags}) EXECUTE FUNCTION crm.veto()");
        Ok(db.batch_execute(&format!("DROP EVENT TRIGGER IF EXISTS veto; {when}"))?)
    };
    // An index becomes usable in the last transaction of its build, which is the trigger's too.
    veto(&mut db, "'CREATE INDEX'")?;
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "failed");
    // Whoever raises an error himself may quote anything.
    assert!(failure(&mut db, id)?.starts_with("P0001 the message may quote values"));
    assert_eq!(indexes(&mut db)?, "");
    assert_eq!(logged(&mut db, id)?, ["remove_unusable_index", "action_failed"]);

    // What it leaves is removed as soon as it may be.
    veto(&mut db, "'CREATE INDEX', 'DROP INDEX'")?;
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    poll_until(LIMIT, "the removal to fail", || Ok(failure(&mut db, id)?.starts_with("P0001")))?;
    assert_eq!(indexes(&mut db)?, "crm.ip_goods_price false");
    assert_eq!(reach(&mut db, id, &["building"])?, "building");
    db.batch_execute("DROP EVENT TRIGGER veto")?;
    hasten(&mut db, id)?;
    reach(&mut db, id, &["queued", "failed"])?;
    assert_eq!(indexes(&mut db)?, "");
    db.execute("SELECT indexpilot.cancel($1)", &[&id])?;

    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "built");
    veto(&mut db, "'DROP INDEX'")?;
    let drop = take_back(&mut db, id)?;
    // Nobody can use it any more, so it goes as soon as it may.
    poll_until(LIMIT, "the drop to fail", || Ok(failure(&mut db, drop)?.starts_with("P0001")))?;
    assert_eq!(reach(&mut db, drop, &["queued"])?, "queued");
    assert_eq!(indexes(&mut db)?, "crm.ip_goods_price false");
    db.batch_execute("DROP EVENT TRIGGER veto")?;
    hasten(&mut db, drop)?;
    assert_eq!(reach(&mut db, id, &["reverted"])?, "reverted");
    assert_eq!(indexes(&mut db)?, "");
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.managed_indexes WHERE dropped_at IS NULL")?, 0);

    // One that comes before it keeps it from beginning.
    db.batch_execute("CREATE EVENT TRIGGER veto ON ddl_command_start EXECUTE FUNCTION crm.veto()")?;
    let id = enqueue(&mut db, "ip_goods_id", "id")?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "failed");
    assert!(failure(&mut db, id)?.starts_with("P0001"));
    assert_eq!(indexes(&mut db)?, "");
    assert_eq!(logged(&mut db, id)?, ["action_failed"]);
    Ok(())
}
