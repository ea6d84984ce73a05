//! Verdicts on a real server: an index that harms writes, or takes heap-only updates away for nothing, is taken back by itself; one
//! that nobody uses is not praised; one that pays stays.

use indexpilot_tests::{Cluster, Result, poll_until};
use postgres::Client;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

/// A worker that judges within seconds, and decides nothing by itself.
fn cluster(name: &str, timeout: &str) -> Result<Cluster> {
    let cluster = Cluster::build(name)
        .setting("indexpilot.mode", "apply")
        .setting("indexpilot.select", "off")
        .setting("indexpilot.worker_interval", "200ms")
        .setting("indexpilot.capture_bucket", "1s")
        .setting("indexpilot.verify_delay", "1s")
        .setting("indexpilot.verify_timeout", timeout)
        .setting("indexpilot.verify_min_calls", 10)
        .setting("autovacuum", "off")
        .start()?;
    connect(&cluster)?.batch_execute(
        "CREATE EXTENSION indexpilot; \
         CREATE TABLE goods (id integer PRIMARY KEY, price integer, note text) WITH (fillfactor = 40); \
         INSERT INTO goods SELECT i, i % 100, 'x' FROM generate_series(1, 2000) i; ANALYZE goods; \
         CREATE FUNCTION slow(i integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$ \
           DECLARE n integer := 0; BEGIN FOR k IN 1..3000 LOOP n := n + k % 7; END LOOP; RETURN i + n; END $$",
    )?;
    let mut db = connect(&cluster)?;
    poll_until(LIMIT, "capture to begin", || {
        Ok(text(&mut db, "SELECT value FROM indexpilot.status WHERE name = 'registered'")? == "true")
    })?;
    Ok(cluster)
}

fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("postgres", "postgres")
}

fn text(db: &mut Client, sql: &str) -> Result<String> {
    Ok(db.query_one(sql, &[])?.get::<_, Option<String>>(0).unwrap_or_default())
}

/// Queues an index and waits until it is measured.
fn build(db: &mut Client, name: &str, keys: &str) -> Result<i64> {
    let definition = format!("CREATE INDEX CONCURRENTLY {name} ON public.goods USING btree ({keys})");
    let id: i64 = db
        .query_one(
            "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause, actor) \
             VALUES ('create', 'goods'::regclass, 'public', 'goods', 'public', $1::text::name, $2, $2, 'test', 'indexpilot') RETURNING id",
            &[&name, &definition],
        )?
        .get(0);
    poll_until(LIMIT, "the index to be measured", || Ok(state(db, id)? == "verifying"))?;
    Ok(id)
}

fn state(db: &mut Client, id: i64) -> Result<String> {
    text(db, &format!("SELECT state FROM indexpilot.actions WHERE id = {id}"))
}

/// Works until there is a verdict, and returns it with its reason.
fn verdict(db: &mut Client, id: i64, mut work: impl FnMut() -> Result<()>) -> Result<(String, String)> {
    poll_until(LIMIT, "the verdict", || {
        work()?;
        Ok(["kept", "reverted"].contains(&state(db, id)?.as_str()))
    })?;
    let row =
        db.query_one("SELECT verdict, reason FROM indexpilot.verifications WHERE action_id = $1 AND role = 'summary'", &[&id])?;
    Ok((row.get(0), row.get(1)))
}

#[test]
fn an_index_that_slows_writes_is_taken_back() -> Result<()> {
    let cluster = cluster("verify-writes", "1h")?;
    let (mut db, mut writer) = (connect(&cluster)?, connect(&cluster)?);
    let insert = writer.prepare("INSERT INTO goods VALUES ($1, 1, 'new')")?;
    let mut next = 10_000;
    let mut write = |n: i32| -> Result<()> {
        for _ in 0..n {
            next += 1;
            writer.execute(&insert, &[&next])?;
        }
        Ok(())
    };
    write(200)?;
    let id = build(&mut db, "harm", "public.slow(price)")?;
    let (verdict, reason) = verdict(&mut db, id, || write(50))?;
    assert_eq!(verdict, "reverted", "{reason}");
    assert!(reason.contains("were lost since the change"), "{reason}");
    poll_until(LIMIT, "the index to go", || Ok(text(&mut db, "SELECT to_regclass('harm')::text")?.is_empty()))?;
    let figures =
        "SELECT looks >= 1 AND lost_ms > saved_ms AND drift = 1 AND observation_s = 3600 FROM indexpilot.verification_figures";
    assert!(db.query_one(figures, &[])?.get::<_, bool>(0));
    // The same index is not proposed or built again for a while.
    let again =
        "SELECT count(*)::text FROM indexpilot.timeline WHERE index_name = 'harm' AND event IN ('reverted', 'revert_index')";
    assert_eq!(text(&mut db, again)?, "2");
    Ok(())
}

#[test]
fn an_index_that_takes_heap_only_updates_away_for_nothing_is_taken_back() -> Result<()> {
    let cluster = cluster("verify-hot", "6s")?;
    let (mut db, mut writer) = (connect(&cluster)?, connect(&cluster)?);
    let update = writer.prepare("UPDATE goods SET price = price + 1 WHERE id = $1")?;
    let mut next = 0;
    let mut write = |n: i32| -> Result<()> {
        for _ in 0..n {
            next = next % 2000 + 1;
            writer.execute(&update, &[&next])?;
        }
        writer.batch_execute("SELECT pg_stat_force_next_flush()")?;
        Ok(())
    };
    write(600)?;
    poll_until(LIMIT, "the updates to be counted", || {
        let sql = "SELECT (n_tup_hot_upd > 500)::text FROM pg_stat_user_tables WHERE relname = 'goods'";
        Ok(text(&mut db, sql)? == "true")
    })?;
    let id = build(&mut db, "cold", "price")?;
    let (verdict, reason) = verdict(&mut db, id, || write(50))?;
    assert_eq!(verdict, "reverted", "{reason}");
    assert!(reason.contains("of the updates are heap-only instead of"), "{reason}");
    let figures = "SELECT hot_share_before > 0.8 AND hot_share_after < 0.2 AND updates >= 100 FROM indexpilot.verification_figures";
    assert!(db.query_one(figures, &[])?.get::<_, bool>(0));
    Ok(())
}

#[test]
fn an_index_that_nobody_uses_is_not_praised() -> Result<()> {
    let cluster = cluster("verify-unused", "4s")?;
    let (mut db, mut reader) = (connect(&cluster)?, connect(&cluster)?);
    let mut read = || -> Result<()> { Ok(reader.batch_execute("SELECT count(*) FROM goods WHERE note = 'x'")?) };
    for _ in 0..30 {
        read()?;
    }
    let id = build(&mut db, "idle", "note, price")?;
    let (verdict, reason) = verdict(&mut db, id, &mut read)?;
    assert_eq!(verdict, "neutral", "{reason}");
    assert!(reason.contains("no plan has used the index"), "{reason}");
    assert_eq!(text(&mut db, "SELECT scans::text FROM indexpilot.verification_figures")?, "0");
    Ok(())
}
