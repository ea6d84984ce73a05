//! Executions that come from elsewhere: the history in pg_stat_statements, what runs on a standby; and what bounds the tables.

use indexpilot_tests::{Builder, Cluster, Result, Stop, poll_until};
use postgres::Client;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn quick(builder: Builder) -> Builder {
    builder.setting("indexpilot.worker_interval", "200ms").setting("indexpilot.select", "off").setting("autovacuum", "off")
}

fn number(db: &mut Client, query: &str) -> Result<i64> {
    Ok(db.query_one(query, &[]).map_err(|e| format!("{query}: {e:?}"))?.get(0))
}

/// Creates database `shop` with a table of 20 000 rows.
fn shop(cluster: &Cluster) -> Result<Client> {
    cluster.connect("postgres", "postgres")?.batch_execute("CREATE DATABASE shop")?;
    let mut db = cluster.connect("shop", "postgres")?;
    db.batch_execute(
        "CREATE SCHEMA crm; CREATE TABLE crm.goods (id integer, price integer, label text); \
         INSERT INTO crm.goods SELECT i, i % 5000, repeat('label ', 20) || i FROM generate_series(1, 20000) i; ANALYZE crm.goods",
    )?;
    Ok(db)
}

/// Installs the extension and waits until the database is captured.
fn install(db: &mut Client) -> Result<()> {
    db.batch_execute("CREATE EXTENSION indexpilot; CREATE TABLE witness (n integer)")?;
    poll_until(LIMIT, "capture to begin", || {
        db.batch_execute("SELECT n FROM witness; SELECT indexpilot.capture_flush()")?;
        Ok(number(db, "SELECT count(*) FROM indexpilot.workload WHERE relations @> ARRAY['witness'::regclass::oid]")? > 0)
    })
}

/// Completed executions of the queries on `crm.goods` that a role ran.
fn calls(db: &mut Client, role: &str) -> Result<i64> {
    number(
        db,
        &format!(
            "SELECT coalesce(sum(calls), 0)::bigint FROM indexpilot.queries \
             WHERE role_name = '{role}' AND command = 'select' AND tables @> ARRAY['crm.goods'::regclass]"
        ),
    )
}

fn run(db: &mut Client, times: i64) -> Result<()> {
    for price in 0..times {
        db.batch_execute(&format!("SELECT label FROM goods WHERE price = {price}"))?;
    }
    Ok(())
}

/// Waits until what ran is in the tables.
fn reach(db: &mut Client, role: &str, wanted: i64) -> Result<()> {
    poll_until(LIMIT, &format!("{wanted} calls of {role}"), || {
        db.batch_execute("SELECT indexpilot.capture_flush()")?;
        Ok(calls(db, role)? == wanted)
    })
}

#[test]
fn history_of_pg_stat_statements_counts_once() -> Result<()> {
    let libraries = "shared_preload_libraries";
    let mut cluster = quick(Cluster::build("exchange-history").preload(false).setting(libraries, "pg_stat_statements")).start()?;
    let mut db = shop(&cluster)?;
    // In a schema of its own, and with a role whose search_path alone leads to the table.
    db.batch_execute(
        "CREATE SCHEMA \"st ats\"; CREATE EXTENSION pg_stat_statements SCHEMA \"st ats\"; \
         CREATE ROLE seller LOGIN; GRANT USAGE ON SCHEMA crm TO seller; GRANT SELECT ON crm.goods TO seller; \
         ALTER ROLE seller IN DATABASE shop SET search_path = crm",
    )?;
    run(&mut cluster.connect("shop", "seller")?, 40)?;
    let mut other = cluster.connect("postgres", "postgres")?;
    other.batch_execute("CREATE TABLE goods (price integer, label text)")?;
    run(&mut other, 3)?;
    drop((db, other));

    cluster.configure(libraries, "pg_stat_statements, indexpilot")?;
    cluster.restart(Stop::Fast)?;
    let mut db = cluster.connect("shop", "postgres")?;
    install(&mut db)?;
    let mut seller = cluster.connect("shop", "seller")?;
    run(&mut seller, 10)?;
    reach(&mut db, "seller", 10)?;
    let import = "SELECT indexpilot.import_pg_stat_statements()";
    assert!(number(&mut db, import)? > 0);
    assert_eq!(calls(&mut db, "seller")?, 50, "ten were captured, forty were history");
    number(&mut db, import)?;
    assert_eq!(calls(&mut db, "seller")?, 50, "nothing is taken over twice");
    run(&mut seller, 5)?;
    reach(&mut db, "seller", 55)?;
    number(&mut db, import)?;
    assert_eq!(calls(&mut db, "seller")?, 55, "what was captured is no history");
    db.batch_execute("SELECT \"st ats\".pg_stat_statements_reset()")?;
    run(&mut seller, 7)?;
    reach(&mut db, "seller", 62)?;
    number(&mut db, import)?;
    assert_eq!(calls(&mut db, "seller")?, 62, "totals that begin anew are known as such");
    // Nothing of another database, no commands without a plan, nothing of catalogs, nothing of our own.
    let strangers = "SELECT count(*) FROM indexpilot.imported_statements i JOIN indexpilot.workload w USING (queryid, role_id, nested) \
                     WHERE NOT w.relations && ARRAY['crm.goods'::regclass::oid, 'witness'::regclass::oid] \
                     AND NOT EXISTS (SELECT FROM unnest(w.relations) r JOIN pg_class c ON c.oid = r \
                                      WHERE c.relnamespace = 'indexpilot'::regnamespace) AND w.captured_calls = 0";
    assert_eq!(number(&mut db, strangers)?, 0);
    // Templates that go take their executions with them, and no import brings these back.
    let gone = "SELECT count(*) FROM indexpilot.queries WHERE tables @> ARRAY['crm.goods'::regclass] AND role_name = 'seller'";
    db.batch_execute(
        "DELETE FROM indexpilot.workload_stats; UPDATE indexpilot.workload SET last_seen_at = now() - interval '1 year'",
    )?;
    poll_until(LIMIT, "the retention", || Ok(number(&mut db, gone)? == 0))?;
    number(&mut db, import)?;
    assert_eq!(calls(&mut db, "seller")?, 0, "what was deleted is no history");
    run(&mut seller, 3)?;
    reach(&mut db, "seller", 3)?;
    db.batch_execute("SELECT indexpilot.capture_reset()")?;
    number(&mut db, import)?;
    assert_eq!(calls(&mut db, "seller")?, 0, "what was forgotten is no history");
    run(&mut seller, 2)?;
    db.batch_execute("SELECT indexpilot.capture_reset()")?;
    number(&mut db, import)?;
    assert_eq!(calls(&mut db, "seller")?, 0, "nor what was forgotten before it reached the tables");
    db.batch_execute("DROP OWNED BY seller; SELECT \"st ats\".pg_stat_statements_reset(); SELECT indexpilot.capture_reset()")?;
    number(&mut db, import)?;
    let left = "SELECT count(*) FROM indexpilot.imported_statements WHERE role_id = 'seller'::regrole";
    assert_eq!(number(&mut db, left)?, 0, "what pg_stat_statements has no more needs no memory");
    Ok(())
}

#[test]
fn a_view_planted_beside_those_of_pg_stat_statements_is_not_read() -> Result<()> {
    let libraries = "shared_preload_libraries";
    let cluster =
        quick(Cluster::build("exchange-planted").preload(false).setting(libraries, "pg_stat_statements, indexpilot")).start()?;
    let mut db = shop(&cluster)?;
    // Version 1.8 has no view of this name yet, so the name is free for whoever may create something there.
    db.batch_execute(
        "CREATE ROLE mallory LOGIN; GRANT CREATE ON SCHEMA public TO mallory; \
         CREATE EXTENSION pg_stat_statements VERSION '1.8'; CREATE EXTENSION indexpilot; SELECT label FROM crm.goods WHERE price = 1",
    )?;
    cluster.connect("shop", "mallory")?.batch_execute(
        "CREATE FUNCTION public.gain() RETURNS timestamptz LANGUAGE plpgsql AS \
           $$ BEGIN ALTER ROLE mallory SUPERUSER; RETURN now(); END $$; \
         CREATE VIEW public.pg_stat_statements_info AS SELECT public.gain() AS stats_reset; \
         GRANT SELECT ON public.pg_stat_statements_info TO PUBLIC",
    )?;
    assert!(number(&mut db, "SELECT indexpilot.import_pg_stat_statements()")? > 0);
    assert_eq!(calls(&mut db, "postgres")?, 1, "the statements themselves are taken over");
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper")?, 0);
    Ok(())
}

#[test]
fn history_alone_is_enough_for_advice() -> Result<()> {
    let libraries = "shared_preload_libraries";
    let cluster = quick(Cluster::build("exchange-advice").preload(false).setting(libraries, "pg_stat_statements, indexpilot"))
        .setting("indexpilot.capture", "off")
        .setting("search_path", "crm")
        .start()?;
    let mut db = shop(&cluster)?;
    db.batch_execute("CREATE EXTENSION pg_stat_statements")?;
    // Found by the search_path of postgresql.conf alone.
    run(&mut db, 30)?;
    db.batch_execute("CREATE EXTENSION indexpilot")?;
    assert!(number(&mut db, "SELECT indexpilot.import_pg_stat_statements()")? > 0);
    assert_eq!(calls(&mut db, "postgres")?, 30);
    let spread = "SELECT count(*) FROM indexpilot.query_stats WHERE tables @> ARRAY['crm.goods'::regclass] AND bucket_at <= now()";
    assert!(number(&mut db, spread)? > 0);
    let percentiles = "SELECT count(*) FROM indexpilot.queries WHERE tables @> ARRAY['crm.goods'::regclass] AND p95_ms IS NOT NULL";
    assert_eq!(number(&mut db, percentiles)?, 0, "there is no histogram, so no percentile is made up");
    let proposed = "SELECT count(*) FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['crm.goods'::regclass]) \
                    WHERE decision <> 'not_recommended' AND definition LIKE '%(price%'";
    assert_eq!(number(&mut db, proposed)?, 1);
    Ok(())
}

#[test]
fn documents_and_reports_are_in_the_encoding_of_the_database() -> Result<()> {
    let cluster = quick(Cluster::build("exchange-encoding")).start()?;
    cluster
        .connect("postgres", "postgres")?
        .batch_execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")?;
    let mut db = cluster.connect("latin", "postgres")?;
    install(&mut db)?;
    db.batch_execute(
        "CREATE TABLE words (word text); SELECT indexpilot.log_query_stat('SELECT word FROM words WHERE word = ''grün''', 2, 1, 'Käufer'); \
         SELECT indexpilot.capture_flush()",
    )?;
    let counted = "SELECT sum(calls)::bigint FROM indexpilot.query_stats WHERE tenant_id = 'Käufer'";
    assert_eq!(number(&mut db, counted)?, 1);
    let taken_back = "SELECT indexpilot.import_workload(jsonb_set(indexpilot.export_workload(), '{source,standby}', 'true'))";
    assert!(number(&mut db, taken_back)? > 0);
    assert_eq!(number(&mut db, counted)?, 2);
    let sampled = "SELECT count(*) FROM indexpilot.workload_samples WHERE query LIKE '%grün%' AND tenant_id = 'Käufer'";
    assert!(number(&mut db, sampled)? > 0);
    Ok(())
}

#[test]
fn what_a_standby_runs_counts_on_the_primary() -> Result<()> {
    let primary = quick(Cluster::build("exchange-primary")).start()?;
    let mut db = shop(&primary)?;
    install(&mut db)?;
    db.batch_execute(
        "CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA crm, indexpilot TO reader; GRANT SELECT ON crm.goods TO reader; \
         GRANT EXECUTE ON FUNCTION indexpilot.export_workload(interval) TO reader",
    )?;
    let standby = primary.standby("exchange-standby")?;
    let mut there = standby.connect("shop", "postgres")?;
    let mut reader = standby.connect("shop", "reader")?;
    let refused = reader.batch_execute("SELECT indexpilot.export_workload()").expect_err("would lose what others ran");
    assert_eq!(refused.code().map(|c| c.code().to_owned()), Some("42501".into()));
    let export = "SELECT indexpilot.export_workload()::text";
    // The first call begins capture there.
    there.query_one(export, &[])?;
    reader.batch_execute("SET search_path = crm")?;
    run(&mut reader, 20)?;
    let mut documents: Vec<String> = Vec::new();
    let import = |db: &mut Client, document: &str| -> Result<i64> {
        Ok(db.query_one("SELECT indexpilot.import_workload($1::text::jsonb)", &[&document])?.get(0))
    };
    poll_until(LIMIT, "what the standby ran", || {
        let document: String = there.query_one(export, &[])?.get(0);
        import(&mut db, &document)?;
        documents.push(document);
        Ok(calls(&mut db, "reader")? == 20)
    })?;
    for document in &documents {
        assert_eq!(import(&mut db, document)?, 0, "a document counts once");
    }
    let document: String = there.query_one(export, &[])?.get(0);
    import(&mut db, &document)?;
    assert_eq!(calls(&mut db, "reader")?, 20, "what was exported is not exported again");
    let sampled = "SELECT count(*) FROM indexpilot.workload_samples WHERE query LIKE 'SELECT label FROM goods WHERE price = %' \
                   AND search_path = 'crm'";
    assert!(number(&mut db, sampled)? > 0);
    let percentiles = "SELECT count(*) FROM indexpilot.queries WHERE role_name = 'reader' AND p95_ms > 0";
    assert_eq!(number(&mut db, percentiles)?, 1);
    assert!(!standby.log().contains("WARNING"), "{}", standby.log());
    Ok(())
}

#[test]
fn old_spans_are_joined_but_not_across_a_cut() -> Result<()> {
    let cluster = quick(Cluster::build("exchange-hours"))
        .setting("indexpilot.capture_max_tenants", 2)
        .setting("indexpilot.mode", "off")
        .start()?;
    let mut db = shop(&cluster)?;
    // An hour of spans of five minutes, four tenants in each, and an index that appeared at half past; made while no worker comes by.
    db.batch_execute(
        "CREATE EXTENSION indexpilot; \
         INSERT INTO indexpilot.workload (queryid, role_id, relations_hash, command) VALUES (4711, 'postgres'::regrole, 1, 'select'); \
         CREATE TABLE hour AS SELECT date_bin('1 hour', now() - interval '3 hours', '2000-01-01 00:00:00+00') AS began; \
         INSERT INTO indexpilot.actions (kind, state, table_id, table_schema, table_name, index_schema, index_name, definition, \
             statement, cause, finished_at) \
           SELECT 'create', 'kept', 1, '', '', '', '', '', '', '', began + interval '32 minutes' FROM hour; \
         INSERT INTO indexpilot.workload_stats (workload_id, tenant_id, bucket_at, calls, errors, error_ms, rows, total_ms, \
             sum_squares_ms, min_ms, max_ms, histogram, planner_cost, shared_blocks_hit, shared_blocks_read, temp_blocks, wal_bytes) \
           SELECT w.id, 't' || t, at, 10, 0, 0, 10, 10 * t, 100, t, t, ARRAY[0, 10], 100, 0, 0, 0, 0 \
             FROM indexpilot.workload w, hour, generate_series(1, 4) t, \
                  LATERAL (SELECT began + i * interval '5 minutes' FROM generate_series(0, 11) i \
                           UNION ALL SELECT began + interval '32 minutes') AS s(at)",
    )?;
    cluster.configure("indexpilot.mode", "observe")?;
    cluster.reload()?;
    let spans = "SELECT count(*) FROM indexpilot.workload_stats s, hour WHERE s.bucket_at < began + interval '1 hour'";
    poll_until(LIMIT, "the spans to be joined", || Ok(number(&mut db, spans)? == 6))?;
    let joined = "SELECT string_agg(format('%s+%s %s: %s', extract(hour FROM s.bucket_at - began), extract(minute FROM s.bucket_at - began), \
                  s.tenant_id, s.calls), ', ' ORDER BY s.bucket_at, s.tenant_id) FROM indexpilot.workload_stats s, hour WHERE s.bucket_at < began + interval '1 hour'";
    let joined: String = db.query_one(joined, &[])?.get(0);
    assert_eq!(joined, "0+0 : 140, 0+0 t3: 70, 0+0 t4: 70, 0+32 : 120, 0+32 t3: 60, 0+32 t4: 60");
    let whole = "SELECT min_ms = 1 AND max_ms = 4 AND calls = 520 AND p50_ms > 0 FROM indexpilot.queries WHERE queryid = 4711";
    assert!(db.query_one(whole, &[])?.get::<_, bool>(0));
    Ok(())
}

#[test]
fn the_tables_are_bounded() -> Result<()> {
    let cluster = quick(Cluster::build("exchange-bounds"))
        .setting("indexpilot.capture_max_templates", 10)
        .setting("indexpilot.capture_max_tenants", 2)
        .setting("indexpilot.capture_bucket", "1h")
        .start()?;
    let mut db = shop(&cluster)?;
    install(&mut db)?;
    // Forty templates, of which one takes long.
    let heavy = "SELECT pg_sleep(0.2) FROM crm.goods WHERE id = 1";
    db.batch_execute(heavy)?;
    for columns in 1..40 {
        db.batch_execute(&format!("SELECT {} FROM crm.goods LIMIT 1", vec!["id"; columns].join(", ")))?;
    }
    poll_until(LIMIT, "templates to be given up", || {
        db.batch_execute("SELECT indexpilot.capture_flush()")?;
        Ok(number(&mut db, "SELECT value::bigint FROM indexpilot.status WHERE name = 'templates_pruned'")? >= 30)
    })?;
    let templates = "SELECT count(*) FROM indexpilot.workload";
    poll_until(LIMIT, "no more templates than that", || Ok(number(&mut db, templates)? <= 10))?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.queries WHERE query ~ 'pg_sleep'")?, 1, "the heaviest stays");

    for tenant in 0..6 {
        db.batch_execute(&format!("SET indexpilot.tenant_id = 't{tenant}'; {heavy}"))?;
    }
    db.batch_execute("RESET indexpilot.tenant_id")?;
    let counted = "SELECT coalesce(sum(s.calls), 0)::bigint FROM indexpilot.query_stats s WHERE s.query ~ 'pg_sleep'";
    poll_until(LIMIT, "all executions to be counted", || {
        db.batch_execute("SELECT indexpilot.capture_flush()")?;
        Ok(number(&mut db, counted)? == 7)
    })?;
    let apart = "SELECT max(n) FROM (SELECT count(*) AS n FROM indexpilot.query_stats s \
                 WHERE s.query ~ 'pg_sleep' AND tenant_id <> '' GROUP BY bucket_at) t";
    assert_eq!(number(&mut db, apart)?, 2, "two tenants are counted apart, the others together");
    Ok(())
}
