//! The life of an installation: it is dumped and restored, dropped, loaded without preload, put on a standby, and left alone with a
//! workload, where it finds what helps and takes back what harms.

use indexpilot_tests::{Builder, Cluster, Result, number, poll_until, text};
use postgres::{Client, IsolationLevel};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Settings that make the loop quick and keep chance out of it.
fn quick(builder: Builder) -> Builder {
    builder
        .setting("indexpilot.worker_interval", "200ms")
        .setting("indexpilot.guard_max_transaction_age", "1h")
        .setting("autovacuum", "off")
}

/// A cluster with a database `shop`, in which the extension is installed and captures, and a table with 200 000 rows in it.
fn shop(builder: Builder) -> Result<Cluster> {
    let cluster = quick(builder).start()?;
    cluster.connect("postgres", "postgres")?.batch_execute("CREATE DATABASE shop")?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE SCHEMA crm; \
         CREATE TABLE crm.goods (id integer, price integer, label text); \
         INSERT INTO crm.goods SELECT i, i % 20000, 'label ' || i FROM generate_series(1, 200000) i; \
         ANALYZE crm.goods",
    )?;
    // The rows above are not the workload: they would count as writes that every index makes dearer.
    db.batch_execute("SELECT pg_stat_force_next_flush()")?;
    db.batch_execute("SELECT pg_stat_reset()")?;
    db.batch_execute("CREATE EXTENSION indexpilot")?;
    wait_for_capture(&mut db)?;
    Ok(cluster)
}

fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("shop", "postgres")
}

/// Waits until the worker has seen that the extension is installed: what ran before is not captured.
fn wait_for_capture(db: &mut Client) -> Result<()> {
    db.batch_execute("CREATE TABLE captured (n integer)")?;
    poll_until(LIMIT, "capture to begin", || {
        db.batch_execute("SELECT n FROM captured; SELECT indexpilot.capture_flush()")?;
        Ok(number(db, "SELECT count(*) FROM indexpilot.workload WHERE relations @> ARRAY['captured'::regclass::oid]")? > 0)
    })?;
    Ok(db.batch_execute("DROP TABLE captured; SELECT indexpilot.capture_reset()")?)
}

/// Has an index on `crm.goods` built as a call would; returns the number of the action once it is built.
fn build(db: &mut Client, name: &str, key: &str, recommendation: Option<i64>) -> Result<i64> {
    let statement = format!("CREATE INDEX CONCURRENTLY {name} ON crm.goods USING btree ({key})");
    let row = db.query_one(
        "INSERT INTO indexpilot.actions (kind, recommendation_id, table_id, table_schema, table_name, index_schema, index_name, \
         definition, statement, cause) VALUES ('create', $1, 'crm.goods'::regclass, 'crm', 'goods', 'crm', $2::text::name, $3, $3, 'test') \
         RETURNING id",
        &[&recommendation, &name, &statement],
    )?;
    let id = row.get(0);
    reach(db, id, &["built", "verifying"])?;
    Ok(id)
}

/// Waits until the action is in one of the states.
fn reach(db: &mut Client, id: i64, states: &[&str]) -> Result<()> {
    let mut now = String::new();
    let waited = poll_until(LIMIT, &format!("action {id} to be one of {states:?}"), || {
        now = text(db, &format!("SELECT state FROM indexpilot.actions WHERE id = {id}"))?;
        Ok(states.contains(&now.as_str()))
    });
    waited.map_err(|e| format!("{e}; it is {now}").into())
}

/// SQLSTATE, and message with hint, of a statement that must fail.
fn refusal(db: &mut Client, sql: &str) -> Result<(String, String)> {
    match db.batch_execute(sql) {
        Ok(()) => Err(format!("{sql} does not fail").into()),
        Err(e) => {
            let e = e.as_db_error().ok_or_else(|| format!("{sql}: {e}"))?;
            Ok((e.code().code().to_owned(), format!("{}; {}", e.message(), e.hint().unwrap_or_default())))
        }
    }
}

/// What needs no more than the library: it finds the index for a query, and plans through it.
fn advises(db: &mut Client) -> Result<()> {
    let advice = db.query(
        "SELECT definition FROM indexpilot.advise(ARRAY['SELECT label FROM crm.goods WHERE price = 7']) WHERE decision = 'propose'",
        &[],
    )?;
    let definitions: Vec<String> = advice.iter().map(|r| r.get(0)).collect();
    assert!(matches!(definitions.as_slice(), [one] if one.contains("(price")), "{definitions:?}");
    let cheaper = "SELECT cost_after < cost_before / 10 FROM indexpilot.what_if('SELECT label FROM crm.goods WHERE price = 7', \
                   ARRAY['CREATE INDEX ON crm.goods (price)'])";
    assert!(db.query_one(cheaper, &[])?.get::<_, bool>(0));
    Ok(())
}

/// What users own, row by row.
fn owned(db: &mut Client) -> Result<Vec<String>> {
    ["genome_catalog", "expression_profile", "managed_indexes", "switch", "mutation_log"]
        .iter()
        .map(|table| text(db, &format!("SELECT string_agg(t::text, E'\\n' ORDER BY t::text) FROM indexpilot.{table} t")))
        .collect()
}

#[test]
fn u65_a_restored_database_goes_on_where_the_old_one_was() -> Result<()> {
    let cluster = shop(Cluster::build("life-dump").setting("indexpilot.verify_delay", "1h"))?;
    let mut db = connect(&cluster)?;
    db.batch_execute("SELECT label FROM crm.goods WHERE label = 'a secret of 4711 people'; SELECT indexpilot.capture_flush()")?;
    let kept = "SELECT count(*) FROM indexpilot.workload_sample WHERE query LIKE '%a secret of 4711 people%'";
    poll_until(LIMIT, "the sample to be kept", || Ok(number(&mut db, kept)? > 0))?;
    db.batch_execute(
        "SELECT indexpilot.bootstrap_genome_catalog(); SELECT indexpilot.initialize_tenant_expression('acme'); \
         SELECT indexpilot.disable_field('acme', 'crm.goods', 'label', 'not sold')",
    )?;
    // The log is about the second action, so that numbers which begin anew would be seen.
    build(&mut db, "ip_goods_id", "id", None)?;
    let action = build(&mut db, "ip_goods_price", "price", None)?;
    let mutation = number(&mut db, &format!("SELECT id FROM indexpilot.mutation_log WHERE action_id = {action}"))?;
    db.batch_execute("SELECT indexpilot.protect('crm.ip_goods_id'); SELECT indexpilot.disable_system('release day')")?;
    let (before, last) = (owned(&mut db)?, number(&mut db, "SELECT max(id) FROM indexpilot.mutation_log")?);
    assert!(before.iter().all(|rows| !rows.is_empty()), "{before:?}");

    let dump = cluster.run(cluster.client_program("pg_dump").arg("shop"))?;
    assert!(!dump.contains("a secret of 4711 people"), "a dump has no literals of the workload");
    db.batch_execute("CREATE DATABASE copy")?;
    let script = cluster.data().with_file_name("dump.sql");
    std::fs::write(&script, dump)?;
    cluster.run(cluster.client_program("psql").args(["-qX", "-v", "ON_ERROR_STOP=1", "-d", "copy", "-f"]).arg(&script))?;

    let mut copy = cluster.connect("copy", "postgres")?;
    copy.batch_execute("ANALYZE crm.goods")?;
    assert_eq!(owned(&mut copy)?, before);
    assert_eq!(number(&mut copy, "SELECT indexpilot.log_audit_event('restored', 'test')")?, last + 1);
    assert_eq!(number(&mut copy, "SELECT indexpilot.bootstrap_genome_catalog()")?, 0, "the genome is complete");
    let last_field = number(&mut copy, "SELECT max(id) FROM indexpilot.genome_catalog")?;
    copy.batch_execute("ALTER TABLE crm.goods ADD COLUMN colour text")?;
    assert_eq!(number(&mut copy, "SELECT indexpilot.bootstrap_genome_catalog()")?, 1);
    let colour = "SELECT id FROM indexpilot.genome_catalog WHERE field_name = 'colour'";
    assert!(number(&mut copy, colour)? > last_field);

    // What people have forbidden stays forbidden.
    let health = "SELECT state || ' ' || detail FROM indexpilot.health_check() WHERE name = 'switch'";
    assert_eq!(text(&mut copy, health)?, "warning disable_system() was called in this database: release day");
    copy.batch_execute("SELECT indexpilot.enable_system()")?;
    let (code, message) = refusal(&mut copy, "SELECT indexpilot.retire_index('crm.ip_goods_id')")?;
    assert!(code == "55000" && message.contains("is protected"), "{code} {message}");
    assert!(copy.query_one("SELECT indexpilot.unprotect('crm.ip_goods_id')", &[])?.get::<_, bool>(0));

    // The index is still known to be ours, and what was done to it can still be taken back.
    copy.batch_execute(&format!("SELECT indexpilot.rollback({mutation})"))?;
    copy.batch_execute("CALL indexpilot.wait_for_actions('1 minute')")?;
    let number_given_again = format!("SELECT count(*) FROM indexpilot.actions WHERE id <= {action}");
    assert_eq!(number(&mut copy, &number_given_again)?, 0, "the log would mean another action by its number");
    let indexes = "SELECT string_agg(indexname, ' ') FROM pg_indexes WHERE schemaname = 'crm'";
    assert_eq!(text(&mut copy, indexes)?, "ip_goods_id");
    assert_eq!(
        text(&mut copy, "SELECT string_agg(index_name, ' ') FROM indexpilot.managed_indexes WHERE dropped_at IS NULL")?,
        "ip_goods_id"
    );
    advises(&mut copy)?;
    Ok(())
}

#[test]
fn a_dropped_extension_leaves_the_indexes_and_no_process() -> Result<()> {
    let cluster = shop(Cluster::build("life-drop").setting("indexpilot.verify_delay", "1h"))?;
    let mut db = connect(&cluster)?;
    build(&mut db, "ip_goods_price", "price", None)?;
    // A second database, where visits go on: each of them is a round of the launcher.
    db.batch_execute("CREATE DATABASE other")?;
    let mut other = cluster.connect("other", "postgres")?;
    other.batch_execute("CREATE EXTENSION indexpilot")?;
    wait_for_capture(&mut other)?;
    other.batch_execute("CREATE TABLE witness (n integer)")?;
    let mut visits = |times: i64, db: &mut Client, check: &mut dyn FnMut(&mut Client) -> Result<()>| -> Result<()> {
        let seen = "SELECT coalesce(sum(s.calls), 0)::bigint FROM indexpilot.workload_stats s \
                    JOIN indexpilot.workload w ON w.id = s.workload_id AND w.relations @> ARRAY['witness'::regclass::oid]";
        for _ in 0..times {
            let before = number(&mut other, seen)?;
            other.batch_execute("SELECT n FROM witness")?;
            poll_until(LIMIT, "a visit of the other database", || {
                check(db)?;
                Ok(number(&mut other, seen)? > before)
            })?;
        }
        Ok(())
    };
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'indexpilot%' AND datname = 'shop'";

    db.batch_execute("DROP EXTENSION indexpilot CASCADE")?;
    // One last visit finds that the extension is gone.
    visits(2, &mut db, &mut |_| Ok(()))?;
    poll_until(LIMIT, "our processes to leave", || Ok(number(&mut db, ours)? == 0))?;
    visits(5, &mut db, &mut |db| {
        let back = text(db, &format!("SELECT string_agg(a::text, E'\n') FROM ({}) a", ours.replace("count(*)", "*")))?;
        assert_eq!(back, "", "a process came back");
        Ok(())
    })?;
    assert_eq!(text(&mut db, "SELECT indisvalid::text FROM pg_index WHERE indexrelid = 'crm.ip_goods_price'::regclass")?, "true");
    db.batch_execute("SET enable_seqscan = off")?;
    let plan = db.query("EXPLAIN SELECT label FROM crm.goods WHERE price = 7", &[])?;
    assert!(plan.iter().any(|line| line.get::<_, &str>(0).contains("ip_goods_price")));
    db.batch_execute("RESET enable_seqscan; DELETE FROM crm.goods WHERE price = 7")?;
    // The schema stays, as PostgreSQL has it, and is empty.
    let left = "SELECT count(*) FROM pg_class c FULL JOIN pg_proc p ON false \
                WHERE 'indexpilot' IN (c.relnamespace::regnamespace::text, p.pronamespace::regnamespace::text)";
    assert_eq!(number(&mut db, left)?, 0);

    db.batch_execute("CREATE EXTENSION indexpilot")?;
    wait_for_capture(&mut db)?;
    build(&mut db, "ip_goods_label", "label", None)?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_index WHERE indisvalid AND indrelid = 'crm.goods'::regclass")?, 2);
    Ok(())
}

#[test]
fn every_statement_of_every_protocol_is_counted() -> Result<()> {
    let cluster = shop(Cluster::build("life-pgbench").setting("indexpilot.mode", "observe"))?;
    let mut db = connect(&cluster)?;
    cluster.run(cluster.client_program("pgbench").args(["-q", "-i", "-s", "1", "shop"]))?;
    let counted = "SELECT coalesce(sum(calls), 0)::bigint FROM indexpilot.queries \
                   WHERE command = 'select' AND query LIKE 'SELECT abalance FROM pgbench_accounts WHERE aid = $1%'";
    for (done, protocol) in [(1000, "simple"), (2000, "extended"), (3000, "prepared")] {
        cluster.run(cluster.client_program("pgbench").args(["-S", "-n", "-c", "2", "-t", "500", "-M", protocol, "shop"]))?;
        poll_until(LIMIT, &format!("{done} calls, the last of protocol {protocol}"), || {
            db.batch_execute("SELECT indexpilot.capture_flush()")?;
            Ok(number(&mut db, counted)? >= done)
        })?;
        assert_eq!(number(&mut db, counted)?, done);
    }
    let roles = "SELECT count(DISTINCT role_name) FROM indexpilot.queries WHERE query LIKE '%pgbench_accounts%'";
    assert_eq!(number(&mut db, roles)?, 1);
    assert_eq!(number(&mut db, "SELECT coalesce(sum(errors), 0)::bigint FROM indexpilot.queries WHERE query LIKE '%pgbench%'")?, 0);
    for figure in ["capture_dropped", "capture_without_queryid", "capture_failures", "capture_untracked"] {
        assert_eq!(text(&mut db, &format!("SELECT value FROM indexpilot.status WHERE name = '{figure}'"))?, "0", "{figure}");
    }
    for table in ["analyses", "recommendations", "actions"] {
        assert_eq!(number(&mut db, &format!("SELECT count(*) FROM indexpilot.{table}"))?, 0, "{table}");
    }
    Ok(())
}

#[test]
fn without_preload_it_advises_and_says_what_it_needs() -> Result<()> {
    let cluster = Cluster::build("life-unloaded").preload(false).start()?;
    let mut db = cluster.connect("postgres", "postgres")?;
    db.batch_execute(
        "CREATE EXTENSION indexpilot; CREATE SCHEMA crm; CREATE TABLE crm.goods (id integer, price integer, label text); \
         INSERT INTO crm.goods SELECT i, i % 20000, 'label ' || i FROM generate_series(1, 200000) i; ANALYZE crm.goods",
    )?;
    for call in [
        "SELECT * FROM indexpilot.analyze_and_create_indexes()",
        "SELECT indexpilot.capture_flush()",
        "SELECT indexpilot.rollback(1)",
        "CALL indexpilot.wait_for_actions()",
    ] {
        let (code, message) = refusal(&mut db, call)?;
        assert_eq!(code, "55000", "{call}: {message}");
        assert!(message.contains("shared_preload_libraries"), "{call}: {message}");
    }
    advises(&mut db)?;
    assert_eq!(text(&mut db, "SELECT value FROM indexpilot.status WHERE name = 'preloaded'")?, "false");
    assert_eq!(number(&mut db, "SELECT indexpilot.bootstrap_genome_catalog()")?, 3);
    Ok(())
}

#[test]
fn a_standby_advises_and_changes_nothing() -> Result<()> {
    let cluster = shop(Cluster::build("life-primary").setting("indexpilot.mode", "apply").setting("indexpilot.select", "off"))?;
    let standby = cluster.standby("life-standby")?;
    let mut db = connect(&standby)?;
    for call in [
        "SELECT * FROM indexpilot.analyze_and_create_indexes()",
        "SELECT indexpilot.disable_system('test')",
        "SELECT indexpilot.bootstrap_genome_catalog()",
    ] {
        let (code, message) = refusal(&mut db, call)?;
        assert_eq!(code, "25006", "{call}: {message}");
        assert!(message.contains("recovery"), "{call}: {message}");
    }
    advises(&mut db)?;
    assert_eq!(text(&mut db, "SELECT value FROM indexpilot.status WHERE name = 'mode'")?, "apply");
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'indexpilot%'")?, 0);
    assert!(!standby.log().contains("WARNING"), "{}", standby.log());
    Ok(())
}

#[test]
fn left_alone_it_builds_what_pays_and_keeps_it() -> Result<()> {
    let cluster = shop(
        Cluster::build("life-loop")
            .setting("indexpilot.mode", "observe")
            .setting("indexpilot.verify_delay", "1s")
            .setting("indexpilot.verify_min_calls", 5)
            .setting("indexpilot.capture_bucket", "1s"),
    )?;
    let mut db = connect(&cluster)?;
    let mut run = |price: i32| {
        db.batch_execute(&format!("SELECT label FROM crm.goods WHERE price = {price}"))?;
        // Else a session tells once a second that it used an index, and the verdict comes as soon as that.
        db.batch_execute("SELECT pg_stat_force_next_flush()")
    };
    for price in 0..40 {
        run(price)?;
    }
    let mut watch = connect(&cluster)?;
    // Nothing was analysed yet, so the first visit in this mode does it.
    cluster.configure("indexpilot.mode", "apply")?;
    cluster.reload()?;
    poll_until(LIMIT, "an index to be kept", || {
        run(7)?;
        Ok(number(&mut watch, "SELECT count(*) FROM indexpilot.actions WHERE kind = 'create' AND state = 'kept'")? == 1)
    })?;
    assert_eq!(number(&mut watch, "SELECT count(*) FROM indexpilot.actions")?, 1);
    assert_eq!(number(&mut watch, "SELECT count(*) FROM pg_index WHERE indisvalid AND indrelid = 'crm.goods'::regclass")?, 1);
    let actor = "SELECT actor || ' ' || (verified_at > finished_at)::text FROM indexpilot.actions";
    assert_eq!(text(&mut watch, actor)?, "indexpilot true");
    let verdicts = "SELECT string_agg(role || ' ' || verdict, ', ' ORDER BY id) FROM indexpilot.verifications";
    let verdicts = text(&mut watch, verdicts)?;
    assert!(verdicts.starts_with("summary kept, cited kept"), "{verdicts}");
    let figures = "SELECT calls_before >= 40 AND calls_after >= 5 AND change_ratio < 0.5 AND p_value < 0.01 \
                   FROM indexpilot.verifications WHERE role = 'cited'";
    assert!(watch.query_one(figures, &[])?.get::<_, bool>(0));
    let logged = "SELECT string_agg(mutation, ' ' ORDER BY id) FROM indexpilot.mutation_log";
    assert_eq!(text(&mut watch, logged)?, "reset_workload create_index keep_index");
    Ok(())
}

/// What a client of the shop does, over and over.
fn client(cluster: &Cluster, first: i32, over: &AtomicBool) -> Result<i32> {
    let mut db = connect(cluster)?;
    let mut n = first;
    while !over.load(Relaxed) {
        n += 2;
        db.batch_execute(&format!(
            "SELECT label FROM crm.goods WHERE price = {}; BEGIN; SELECT id, total FROM crm.orders WHERE customer = {} AND state = 'open'; \
             INSERT INTO crm.orders VALUES ({n}, {}, 'open', 1); UPDATE crm.orders SET total = total + 1 WHERE id = {}; COMMIT",
            n % 20_000,
            n % 3000,
            n % 3000,
            n % 1000
        ))?;
    }
    Ok((n - first) / 2)
}

#[test]
fn under_load_it_acts_alone_tells_the_truth_and_disturbs_nobody() -> Result<()> {
    let cluster = shop(
        Cluster::build("life-load")
            .setting("indexpilot.mode", "observe")
            .setting("indexpilot.verify_delay", "2s")
            .setting("indexpilot.verify_min_calls", 10)
            .setting("indexpilot.capture_bucket", "1s"),
    )?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE TABLE crm.orders (id integer, customer integer, state text, total integer); \
         INSERT INTO crm.orders SELECT i, i % 3000, CASE WHEN i % 10 = 0 THEN 'open' ELSE 'done' END, i FROM generate_series(1, 100000) i; \
         ANALYZE crm.orders; SELECT indexpilot.capture_reset()",
    )?;
    let over = AtomicBool::new(false);
    let worked = std::thread::scope(|scope| -> Result<i32> {
        let clients = [1, 2].map(|first| {
            let (cluster, over) = (&cluster, &over);
            scope.spawn(move || client(cluster, first, over).map_err(|e| e.to_string()))
        });
        let watched = (|| -> Result<()> {
            let known = "SELECT count(*) FROM indexpilot.queries WHERE calls >= 50 AND 'crm.orders'::regclass = ANY (tables) AND command <> 'insert'";
            poll_until(LIMIT, "the workload to be known", || Ok(number(&mut db, known)? >= 2))?;
            cluster.configure("indexpilot.mode", "apply")?;
            cluster.reload()?;
            // Whatever it does at the moment, its state can be asked for, and nothing is broken.
            poll_until(Duration::from_secs(120), "all of it to be done", || {
                let broken =
                    text(&mut db, "SELECT string_agg(h::text, '; ') FROM indexpilot.health_check() h WHERE state = 'error'")?;
                assert_eq!(broken, "");
                let queued = "SELECT count(*) FROM indexpilot.actions WHERE state IN ('queued', 'building')";
                let figure =
                    "SELECT sum(value::bigint)::bigint FROM indexpilot.status WHERE name IN ('actions_queued', 'actions_building')";
                // Of one moment, so they agree.
                let mut moment = db.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start()?;
                let both: bool = moment.query_one(&format!("SELECT ({queued}) = ({figure})"), &[])?.get(0);
                assert!(both, "status counts other actions than there are");
                moment.commit()?;
                let done = "SELECT count(*) >= 2 AND bool_and(state IN ('kept', 'reverted', 'done', 'failed', 'cancelled')) FROM indexpilot.actions";
                Ok(db.query_one(done, &[])?.get(0))
            })
        })();
        over.store(true, Relaxed);
        let mut rounds = 0;
        for client in clients {
            rounds += client.join().map_err(|_| "a client panicked")??;
        }
        watched.map(|()| rounds)
    })?;
    assert!(worked > 100, "{worked} rounds of the clients");
    let outcomes = text(
        &mut db,
        "SELECT string_agg(format('%s %s %s %s', kind, state, definition, error_message), E'\\n') FROM indexpilot.actions",
    )?;
    assert_eq!(
        number(&mut db, "SELECT count(*) FROM indexpilot.actions WHERE state <> 'kept' OR kind <> 'create'")?,
        0,
        "{outcomes}"
    );
    let faster = "SELECT count(*) FROM indexpilot.verifications WHERE role = 'cited' AND reason = 'faster' AND change_ratio < 0.5";
    assert!(number(&mut db, faster)? >= 2, "{outcomes}");
    // No statement of the clients failed, nor did one of ours.
    assert_eq!(
        number(
            &mut db,
            "SELECT coalesce(sum(errors), 0)::bigint FROM indexpilot.queries WHERE tables && ARRAY['crm.orders'::regclass]"
        )?,
        0
    );
    let complaints: Vec<String> = cluster
        .log()
        .lines()
        .filter(|l| ["WARNING:", "ERROR:", "FATAL:", "PANIC:"].iter().any(|w| l.contains(w)))
        .map(str::to_owned)
        .collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    poll_until(LIMIT, "all to be well", || {
        Ok(number(&mut db, "SELECT count(*) FROM indexpilot.health_check() WHERE state <> 'ok'")? == 0)
    })
    .map_err(|e| format!("{e}; {:?}", db.query("SELECT h::text FROM indexpilot.health_check() h WHERE state <> 'ok'", &[])))?;
    Ok(())
}

/// A cluster whose worker judges soon and analyses nothing.
fn judging(name: &str, delay: &str) -> Result<Cluster> {
    shop(
        Cluster::build(name)
            .setting("indexpilot.mode", "apply")
            .setting("indexpilot.select", "off")
            .setting("indexpilot.verify_delay", delay)
            .setting("indexpilot.verify_min_calls", 5),
    )
}

/// Waits until the index of the action is taken back, and checks every trace of that.
fn taken_back(db: &mut Client, action: i64) -> Result<()> {
    reach(db, action, &["reverted"])?;
    let drop = number(db, &format!("SELECT id FROM indexpilot.actions WHERE kind = 'drop' AND reverts = {action}"))?;
    reach(db, drop, &["done"])?;
    assert_eq!(number(db, "SELECT count(*) FROM pg_index WHERE indrelid = 'crm.goods'::regclass")?, 0);
    assert_eq!(text(db, &format!("SELECT state FROM indexpilot.actions WHERE id = {action}"))?, "reverted");
    assert_eq!(text(db, &format!("SELECT actor FROM indexpilot.actions WHERE id = {drop}"))?, "indexpilot");
    let summary = format!("SELECT verdict FROM indexpilot.verifications WHERE role = 'summary' AND action_id = {action}");
    assert_eq!(text(db, &summary)?, "reverted");
    let logged = "SELECT string_agg(mutation, ' ' ORDER BY id) FROM indexpilot.mutation_log WHERE index_name = 'ip_goods_harm'";
    assert_eq!(text(db, logged)?, "create_index hide_index revert_index drop_index");
    assert_eq!(number(db, "SELECT count(*) FROM indexpilot.managed_indexes WHERE dropped_at IS NULL")?, 0);
    Ok(())
}

#[test]
fn an_index_that_slows_its_query_is_taken_back() -> Result<()> {
    let cluster = judging("life-slower", "1s")?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE FUNCTION measured(at timestamptz, ms float8, bucket integer) RETURNS void LANGUAGE sql AS $$ \
           INSERT INTO indexpilot.workload_stats (workload_id, bucket_at, calls, errors, error_ms, rows, total_ms, sum_squares_ms, \
             min_ms, max_ms, histogram, planner_cost, shared_blocks_hit, shared_blocks_read, temp_blocks, wal_bytes) \
           SELECT w.id, at, 100, 0, 0, 100, 100 * ms, 101 * ms * ms, ms, ms, \
             (SELECT array_agg(CASE WHEN i = bucket THEN 100 ELSE 0 END::bigint ORDER BY i) FROM generate_series(1, 112) i), \
             100, 0, 0, 0, 0 FROM indexpilot.workload w WHERE w.queryid = 4711 $$; \
         INSERT INTO indexpilot.workload (queryid, role_id, relations_hash, relations, command, query) \
           VALUES (4711, 'postgres'::regrole, 1, ARRAY['crm.goods'::regclass::oid], 'select', 'SELECT'); \
         INSERT INTO indexpilot.analyses (cause) VALUES ('call'); \
         SELECT measured(now() - interval '1 hour', 1, 41)",
    )?;
    let recommendation = number(
        &mut db,
        "INSERT INTO indexpilot.recommendations (analysis_id, state, reason, reason_detail, table_id, table_schema, table_name, \
           columns, definition, index_def, workload_ids) \
         SELECT a.id, 'applied', 'gain', '', 'crm.goods'::regclass, 'crm', 'goods', '{price}', '', '{}', ARRAY[w.id] \
           FROM indexpilot.analyses a, indexpilot.workload w WHERE w.queryid = 4711 RETURNING id",
    )?;
    let action = build(&mut db, "ip_goods_harm", "price", Some(recommendation))?;
    // Only what plans use can have slowed them.
    reach(&mut db, action, &["verifying"])?;
    db.batch_execute(
        "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM crm.goods WHERE price = 7; \
         SELECT pg_stat_force_next_flush()",
    )?;
    db.batch_execute("SELECT measured(clock_timestamp(), 10, 54)")?;
    taken_back(&mut db, action)?;
    let cited =
        "SELECT calls_before || ' ' || calls_after || ' ' || change_ratio FROM indexpilot.verifications WHERE role = 'cited'";
    assert_eq!(text(&mut db, cited)?, "100 100 10");
    Ok(())
}

#[test]
fn an_index_that_makes_writes_fail_is_taken_back() -> Result<()> {
    // The first look is not waited for.
    let cluster = judging("life-failing", "1h")?;
    let mut db = connect(&cluster)?;
    // Too wide for an entry of a B-tree, and no compression makes it fit.
    let write = "INSERT INTO crm.goods (label) SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 300)";
    for _ in 0..30 {
        db.batch_execute(write)?;
    }
    db.batch_execute("DELETE FROM crm.goods WHERE id IS NULL")?;
    let action = build(&mut db, "ip_goods_harm", "label", None)?;
    for _ in 0..30 {
        assert_eq!(refusal(&mut db, write)?.0, "54000");
    }
    taken_back(&mut db, action)?;
    db.batch_execute(write)?;
    let reason = text(&mut db, "SELECT reason FROM indexpilot.verifications WHERE role = 'summary'")?;
    assert!(reason.contains("fails in 100.0 % of its executions instead of 0.0 %"), "{reason}");
    Ok(())
}
