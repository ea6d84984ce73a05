//! Verdicts on a real server: an index that misleads the planner, harms writes, or takes heap-only updates away for nothing, is taken
//! back by itself; one that nobody uses is not praised. How often verdicts are right is measured by `make bench-verify`.

use indexpilot_tests::{Cluster, Result, poll_until, text};
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

/// Queues an index as the worker does, for the queries of the recommendation.
fn queue(db: &mut Client, table: &str, name: &str, keys: &str, recommendation: Option<i64>) -> Result<i64> {
    let definition = format!("CREATE INDEX CONCURRENTLY {name} ON public.{table} USING btree ({keys})");
    let row = db.query_one(
        "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, \
           cause, actor, recommendation_id) \
         VALUES ('create', $1::text::regclass, 'public', $1::text::name, 'public', $2::text::name, $3, $3, 'test', 'indexpilot', $4) RETURNING id",
        &[&table, &name, &definition, &recommendation],
    )?;
    Ok(row.get(0))
}

/// Queues an index and waits until it is measured.
fn build(db: &mut Client, name: &str, keys: &str) -> Result<i64> {
    build_for(db, "goods", name, keys, None)
}

fn build_for(db: &mut Client, table: &str, name: &str, keys: &str, recommendation: Option<i64>) -> Result<i64> {
    let id = queue(db, table, name, keys, recommendation)?;
    poll_until(LIMIT, "the index to be measured", || Ok(state(db, id)? == "verifying"))?;
    Ok(id)
}

/// A decision that names all captured queries on a table; waits until there is one.
fn recommend(db: &mut Client, table: &str) -> Result<i64> {
    let queries = "SELECT count(*)::text FROM indexpilot.queries WHERE command = 'select' AND $1::text::regclass = ANY (tables) AND calls >= 20";
    poll_until(LIMIT, "the queries to be known", || Ok(db.query_one(queries, &[&table])?.get::<_, String>(0) != "0"))?;
    db.batch_execute("INSERT INTO indexpilot.analyses (cause) VALUES ('call')")?;
    let row = db.query_one(
        "INSERT INTO indexpilot.recommendations (analysis_id, state, reason, reason_detail, table_id, table_schema, table_name, \
           columns, definition, index_def, workload_ids) \
         SELECT max(a.id), 'applied', 'gain', '', $1::text::regclass, 'public', $1::text::name, '{}', '', '{}', \
           ARRAY(SELECT w.id FROM indexpilot.workload w WHERE w.relations @> ARRAY[$1::text::regclass::oid] AND w.command = 'select') \
         FROM indexpilot.analyses a RETURNING id",
        &[&table],
    )?;
    Ok(row.get(0))
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
    let told = "SELECT count(*)::text FROM indexpilot.timeline WHERE index_name = 'harm' AND event IN ('reverted', 'revert_index')";
    assert_eq!(text(&mut db, told)?, "2");
    Ok(())
}

/// The index that the planner takes for [`LAST_ROWS`]: the rows wanted are the last ones in its order, which the planner does not know.
const MISLEADING: &str = "b";
const LAST_ROWS: &str = "SELECT * FROM orders WHERE a = 1 ORDER BY b LIMIT 1";

fn plan(db: &mut Client) -> Result<String> {
    let rows = db.query(&format!("EXPLAIN (COSTS OFF) {LAST_ROWS}"), &[])?;
    Ok(rows.iter().map(|r| r.get::<_, String>(0)).collect::<Vec<_>>().join("\n"))
}

/// The index is taken back because of the query on `orders`: hidden at once, then dropped. Returns the reason.
fn misled_and_taken_back(db: &mut Client, reader: &mut Client, id: i64) -> Result<String> {
    assert!(plan(db)?.contains("misleading"), "{}", plan(db)?);
    let (verdict, reason) = verdict(db, id, || (0..10).try_for_each(|_| Ok(reader.batch_execute(LAST_ROWS)?)))?;
    assert_eq!(verdict, "reverted", "{reason}");
    // Whether or not it is dropped already.
    assert!(!plan(db)?.contains("misleading"), "{}", plan(db)?);
    poll_until(LIMIT, "the index to go", || Ok(text(db, "SELECT to_regclass('misleading')::text")?.is_empty()))?;
    let logged = format!(
        "SELECT string_agg(m.mutation, ' ' ORDER BY m.id) FROM indexpilot.mutation_log m JOIN indexpilot.actions a ON a.id = m.action_id \
         WHERE {id} IN (a.id, a.reverts)"
    );
    poll_until(LIMIT, "the drop to be logged", || Ok(text(db, &logged)?.contains("drop_index")))?;
    assert_eq!(text(db, &logged)?, "create_index hide_index revert_index drop_index");
    Ok(reason)
}

#[test]
fn an_index_that_misleads_the_planner_is_taken_back() -> Result<()> {
    let cluster = cluster("verify-plan", "1h")?;
    cluster.configure("indexpilot.guard_cooldown", "1h")?;
    cluster.reload()?;
    let (mut db, mut reader) = (connect(&cluster)?, connect(&cluster)?);
    db.batch_execute(
        "CREATE TABLE orders AS SELECT (b > 19900)::integer AS a, b, repeat('x', 50) AS pad \
           FROM (SELECT b FROM generate_series(1, 20000) b ORDER BY random()) s; ANALYZE orders",
    )?;
    let mut read = || (0..30).try_for_each(|_| reader.batch_execute(LAST_ROWS));
    read()?;
    // The decision named the query.
    let recommendation = recommend(&mut db, "orders")?;
    let id = build_for(&mut db, "orders", "misleading", MISLEADING, Some(recommendation))?;
    let reason = misled_and_taken_back(&mut db, &mut reader, id)?;
    assert!(reason.contains("no query that the decision named became faster"), "{reason}");
    let figures = "SELECT mean_ms_after > mean_ms_before AND p_value < 0.01 AND calls_before >= 20 AND calls_after >= 10 AND role = 'cited' \
                   FROM indexpilot.verifications WHERE role <> 'summary' AND action_id = $1 AND reason = 'slower'";
    assert!(db.query_one(figures, &[&id])?.get::<_, bool>(0));
    let plans = "SELECT scans > 0 AND observation_s < 600 FROM indexpilot.verification_figures WHERE action_id = $1";
    assert!(db.query_one(plans, &[&id])?.get::<_, bool>(0));

    // The loser waits.
    let again = queue(&mut db, "orders", "misleading", MISLEADING, None)?;
    let why = format!("SELECT state || ' ' || blocked_reason FROM indexpilot.actions WHERE id = {again}");
    poll_until(LIMIT, "the cool-down to hold it back", || Ok(text(&mut db, &why)?.starts_with("queued cooldown: ")))?;

    // Built all the same, as nobody's: the query is one of the others on the table now.
    cluster.configure("indexpilot.guard_cooldown", "0")?;
    cluster.reload()?;
    for _ in 0..30 {
        reader.batch_execute(LAST_ROWS)?;
    }
    poll_until(LIMIT, "the index to be measured", || {
        db.execute("UPDATE indexpilot.actions SET not_before = now() WHERE id = $1 AND state = 'queued'", &[&again])?;
        Ok(state(&mut db, again)? == "verifying")
    })?;
    let reason = misled_and_taken_back(&mut db, &mut reader, again)?;
    assert!(reason.contains("were lost since the change"), "{reason}");

    // It lost twice, so it waits twice as long.
    cluster.configure("indexpilot.guard_cooldown", "1h")?;
    cluster.reload()?;
    let third = queue(&mut db, "orders", "misleading", MISLEADING, None)?;
    let why = format!("SELECT blocked_reason FROM indexpilot.actions WHERE id = {third}");
    poll_until(LIMIT, "the cool-down to hold it back", || Ok(text(&mut db, &why)?.starts_with("cooldown: ")))?;
    let why = text(&mut db, &why)?;
    assert!(why.contains("2 times by now"), "{why}");
    let left: f64 = why.split("ends in ").nth(1).and_then(|t| t.trim_end_matches(" s").parse().ok()).ok_or("no time is told")?;
    assert!((7000.0..=7200.0).contains(&left), "{why}");
    Ok(())
}

#[test]
fn rare_queries_are_observed_for_longer() -> Result<()> {
    let cluster = cluster("verify-rate", "1h")?;
    let (mut db, mut reader) = (connect(&cluster)?, connect(&cluster)?);
    db.batch_execute("CREATE TABLE rare AS SELECT i % 100 AS price, 'x' AS note FROM generate_series(1, 2000) i; ANALYZE rare")?;
    let mut read = |table: &str, n: i32| -> Result<()> {
        (0..n).try_for_each(|_| Ok(reader.batch_execute(&format!("SELECT count(*) FROM {table} WHERE note = 'x'"))?))
    };
    // An index on the price does nothing for or against them.
    for table in ["goods", "rare"] {
        read(table, 30)?;
    }
    let (often, rarely) = (recommend(&mut db, "goods")?, recommend(&mut db, "rare")?);
    // As if the first of the thirty had run a day ago.
    db.batch_execute(
        "UPDATE indexpilot.workload_stats SET bucket_at = bucket_at - interval '1 day' WHERE workload_id = \
           (SELECT id FROM indexpilot.workload WHERE relations @> ARRAY['rare'::regclass::oid] AND command = 'select')",
    )?;
    let slow = build_for(&mut db, "rare", "of_rare", "price", Some(rarely))?;
    let quick = build_for(&mut db, "goods", "of_goods", "price", Some(often))?;
    let (verdict, reason) = verdict(&mut db, quick, || {
        read("goods", 10)?;
        read("rare", 10)
    })?;
    // Chance may speak against it where the machine is busy; nothing speaks for it.
    assert_ne!(verdict, "kept", "{reason}");
    let observed = "SELECT f.observation_s FROM indexpilot.verification_figures f WHERE f.action_id = $1 AND f.looks > 0";
    let seconds: f64 = db.query_one(observed, &[&quick])?.get(0);
    assert!((1.0..120.0).contains(&seconds), "{seconds} s for a query that runs all the time");
    poll_until(LIMIT, "a look at the other index", || {
        read("rare", 10)?;
        Ok(!db.query(observed, &[&slow])?.is_empty())
    })?;
    assert_eq!(db.query_one(observed, &[&slow])?.get::<_, f64>(0), 3600.0, "thirty calls a day: as long as there is");
    assert_eq!(state(&mut db, slow)?, "verifying");
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
    // Beside other tables, which tell what the machine is to be blamed for.
    db.batch_execute("CREATE TABLE c1 AS TABLE goods; CREATE TABLE c2 AS TABLE goods; CREATE TABLE c3 AS TABLE goods")?;
    let mut read = || -> Result<()> {
        ["goods", "c1", "c2", "c3"]
            .iter()
            .try_for_each(|t| Ok(reader.batch_execute(&format!("SELECT count(*) FROM {t} WHERE note = 'x'"))?))
    };
    for _ in 0..30 {
        read()?;
    }
    let id = build(&mut db, "idle", "note, price")?;
    let (verdict, reason) = verdict(&mut db, id, &mut read)?;
    // Chance may speak against it where the machine is busy; nothing speaks for it.
    assert_ne!(verdict, "kept", "{reason}");
    if verdict == "neutral" {
        assert!(reason.contains("no plan has used the index"), "{reason}");
    }
    assert_eq!(text(&mut db, "SELECT scans::text FROM indexpilot.verification_figures")?, "0");
    Ok(())
}
