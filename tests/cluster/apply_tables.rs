//! What can be indexed and what not, whose code a build runs, what is known of an expression afterwards, and how far a build is.

use crate::apply::{LIMIT, cluster, connect, enqueue, hold_snapshot, insert, logged, mid_build, reach, unusable};
use indexpilot_tests::{Result, number, poll_until, text};
use postgres::Client;

const SETTLED: [&str; 4] = ["built", "done", "failed", "blocked"];

/// Queues the building of an index on a table of schema `crm`.
fn build(db: &mut Client, table: &str, name: &str, statement: &str) -> Result<i64> {
    let row = db.query_one(
        "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause) \
         VALUES ('create', ('crm.' || $1::text)::regclass, 'crm', $1::text::name, 'crm', $2::text::name, $3, $3, 'test') RETURNING id",
        &[&table, &name, &statement],
    )?;
    Ok(row.get(0))
}

#[test]
fn materialized_views_are_tables_to_index() -> Result<()> {
    let cluster = cluster("apply-matview")?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE MATERIALIZED VIEW crm.sums AS SELECT i AS id, i % 20000 AS price, 'label ' || i AS label FROM generate_series(1, 60000) i; \
         ALTER MATERIALIZED VIEW crm.sums OWNER TO clerk; ANALYZE crm.sums",
    )?;
    let query = "SELECT label FROM crm.sums WHERE price = 7";
    let definition =
        text(&mut db, &format!("SELECT definition FROM indexpilot.advise(ARRAY['{query}']) WHERE decision = 'propose'"))?;
    let name =
        definition.strip_prefix("CREATE INDEX CONCURRENTLY ").and_then(|d| d.split(' ').next()).unwrap_or_default().to_owned();
    assert!(definition.contains("(price"), "{definition}");
    let id = build(&mut db, "sums", &name, &definition)?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "built");
    let owner = format!("SELECT relowner::regrole::text FROM pg_class WHERE oid = 'crm.{name}'::regclass");
    assert_eq!(text(&mut db, &owner)?, "clerk");
    let plan = |db: &mut Client| -> Result<String> {
        let rows = db.query(&format!("EXPLAIN {query}"), &[])?;
        Ok(rows.iter().map(|r| r.get::<_, String>(0)).collect())
    };
    assert!(plan(&mut db)?.contains(&name));
    // It is made anew with its data, and is the same index.
    db.batch_execute("REFRESH MATERIALIZED VIEW crm.sums; ANALYZE crm.sums")?;
    assert!(plan(&mut db)?.contains(&name));
    assert_eq!(reach(&mut db, id, &SETTLED)?, "built");
    let mutation = number(&mut db, &format!("SELECT id FROM indexpilot.mutation_log WHERE action_id = {id}"))?;
    db.batch_execute(&format!("SELECT indexpilot.rollback({mutation})"))?;
    reach(&mut db, id, &["reverted"])?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_index WHERE indrelid = 'crm.sums'::regclass")?, 0);
    Ok(())
}

#[test]
fn what_may_have_no_index_of_ours_is_refused_with_the_reason() -> Result<()> {
    let cluster = cluster("apply-refusals")?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE UNLOGGED TABLE crm.unlogged (n integer); \
         CREATE TABLE crm.partitioned (n integer) PARTITION BY RANGE (n); \
         CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing; \
         CREATE FOREIGN TABLE crm.remote (n integer) SERVER nowhere; \
         CREATE VIEW crm.seen AS SELECT 1 AS n; \
         CREATE TABLE crm.of_extension (n integer); ALTER EXTENSION plpgsql ADD TABLE crm.of_extension",
    )?;
    for (table, why) in [
        ("unlogged", "it is unlogged"),
        ("partitioned", "it is partitioned"),
        ("remote", "it is a foreign table"),
        ("seen", "it is not a table"),
        ("of_extension", "it belongs to an extension"),
    ] {
        let id = build(&mut db, table, "ip_n", &format!("CREATE INDEX CONCURRENTLY ip_n ON crm.{table} USING btree (n)"))?;
        assert_eq!(reach(&mut db, id, &SETTLED)?, "blocked", "{table}");
        let reason = text(&mut db, &format!("SELECT blocked_reason FROM indexpilot.actions WHERE id = {id}"))?;
        assert!(reason.contains(why), "{table}: {reason}");
        db.batch_execute(&format!("SELECT indexpilot.cancel({id})"))?;
    }
    // Whose names are elsewhere.
    db.batch_execute("CREATE TEMP TABLE fleeting (n integer)")?;
    for (table, why) in [
        ("fleeting", "it is temporary"),
        ("pg_class", "it is a table of the server"),
        ("indexpilot.control", "it is a table of IndexPilot"),
    ] {
        let row = db.query_one(
            "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause) \
             SELECT 'create', c.oid, c.relnamespace::regnamespace::text, c.relname, c.relnamespace::regnamespace::text, 'ip_n', s, s, 'test' \
             FROM pg_class c, format('CREATE INDEX CONCURRENTLY ip_n ON %s USING btree (n)', c.oid::regclass) s \
             WHERE c.oid = $1::text::regclass RETURNING id",
            &[&table],
        )?;
        let id: i64 = row.get(0);
        assert_eq!(reach(&mut db, id, &SETTLED)?, "blocked", "{table}");
        let reason = text(&mut db, &format!("SELECT blocked_reason FROM indexpilot.actions WHERE id = {id}"))?;
        assert!(reason.contains(why), "{table}: {reason}");
        db.batch_execute(&format!("SELECT indexpilot.cancel({id})"))?;
    }
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_class WHERE relname = 'ip_n'")?, 0);
    Ok(())
}

#[test]
fn an_expression_runs_code_of_the_tables_owner_only_and_has_statistics() -> Result<()> {
    let cluster = cluster("apply-expression")?;
    let mut db = connect(&cluster)?;
    for (name, owner) in [("own", "clerk"), ("foreign_code", "stranger")] {
        db.batch_execute(&format!(
            "CREATE FUNCTION crm.{name}(n integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS \
               'BEGIN IF n = 42 THEN RAISE LOG ''{name} ran as %'', current_user; END IF; RETURN n % 10; END'; \
             ALTER FUNCTION crm.{name}(integer) OWNER TO {owner}"
        ))?;
    }
    let id = enqueue(&mut db, "ip_foreign", "(crm.foreign_code(price))")?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "failed");
    let why = text(&mut db, &format!("SELECT error_message FROM indexpilot.actions WHERE id = {id}"))?;
    assert!(why.contains("function foreign_code may not be run"), "{why}");
    assert_eq!(logged(&mut db, id)?, ["action_failed"]);
    assert!(!cluster.log().contains("foreign_code ran as"));
    let id = enqueue(&mut db, "ip_condition", "id) WHERE (crm.foreign_code(price) > 3")?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "failed");
    assert!(!cluster.log().contains("foreign_code ran as"));

    let id = enqueue(&mut db, "ip_own", "(crm.own(price))")?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "built");
    assert!(cluster.log().contains("own ran as clerk"));
    assert!(!cluster.log().contains("own ran as postgres"));
    // Without them the planner would guess, and the verdict would be on its guess.
    assert_eq!(number(&mut db, "SELECT n_distinct::bigint FROM pg_stats WHERE schemaname = 'crm' AND tablename = 'ip_own'")?, 10);
    assert_eq!(logged(&mut db, id)?, ["analyze_table", "create_index"]);

    // An index on columns needs none.
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "built");
    assert_eq!(logged(&mut db, id)?, ["create_index"]);
    Ok(())
}

#[test]
fn a_running_build_shows_how_far_it_is_and_can_be_cancelled() -> Result<()> {
    let cluster = cluster("apply-progress")?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE ROLE reader LOGIN; GRANT pg_monitor TO reader; \
         CREATE FUNCTION crm.slow(i integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql \
           AS $$ BEGIN PERFORM pg_catalog.pg_sleep(0.01); RETURN i; END $$",
    )?;
    let mut reader = cluster.connect("shop", "reader")?;
    let id = enqueue(&mut db, "ip_slow", "(crm.slow(price))")?;
    let mut seen: Vec<(f64, String)> = Vec::new();
    poll_until(LIMIT, "the time that is left to be told", || {
        let sql = "SELECT action_id, phase, percent, remaining_s FROM indexpilot.action_progress WHERE percent IS NOT NULL";
        let Some(row) = reader.query_opt(sql, &[])? else { return Ok(false) };
        assert_eq!(row.get::<_, i64>(0), id);
        seen.push((row.get(2), row.get(1)));
        Ok(row.get::<_, Option<f64>>(3).is_some_and(|s| s > 0.0 && s < 600.0))
    })?;
    assert!(seen.windows(2).all(|w| w[0].0 <= w[1].0), "it never goes back: {seen:?}");
    assert!(seen.iter().all(|(percent, _)| (0.0..100.0).contains(percent)), "{seen:?}");
    assert!(seen.last().is_some_and(|(_, phase)| phase.starts_with("building index")), "{seen:?}");
    db.batch_execute(&format!("SELECT indexpilot.cancel({id})"))?;
    assert_eq!(reach(&mut db, id, &["cancelled", "built", "failed"])?, "cancelled");
    assert_eq!(unusable(&mut db)?, 0);
    assert_eq!(number(&mut reader, "SELECT count(*) FROM indexpilot.action_progress")?, 0);

    // Nobody knows when a transaction will end.
    let holder = hold_snapshot(&cluster)?;
    let id = enqueue(&mut db, "ip_goods_price", "price")?;
    mid_build(&mut db)?;
    let row = reader.query_one("SELECT phase, percent, remaining_s, waits_for FROM indexpilot.action_progress", &[])?;
    assert_eq!(row.get::<_, String>(0), "waiting for old snapshots");
    assert!(row.get::<_, f64>(1) > 90.0);
    assert_eq!(row.get::<_, Option<f64>>(2), None);
    let held_by = number(
        &mut db,
        "SELECT pid::bigint FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND state = 'idle in transaction'",
    )?;
    assert_eq!(row.get::<_, Option<i32>>(3).map(i64::from), Some(held_by));
    drop(holder);
    assert_eq!(reach(&mut db, id, &SETTLED)?, "built");
    // A rebuild and a drop are seen as well.
    let id = insert(&mut db, "drop", "ip_goods_price", "DROP INDEX CONCURRENTLY crm.ip_goods_price", Some(id))?;
    assert_eq!(reach(&mut db, id, &SETTLED)?, "done");
    Ok(())
}
