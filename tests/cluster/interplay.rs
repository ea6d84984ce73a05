//! People and actions in each other's way: what is protected, cancelled, copied or asked for while something goes on.

use indexpilot_tests::{Cluster, Result, enqueue, number, poll_until, text};
use postgres::Client;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// A server on which only what a test asks for happens, and a table `t` with an index `theirs`.
fn server(name: &str, settings: &[(&str, &str)]) -> Result<(Cluster, Client)> {
    let base = [
        ("indexpilot.worker_interval", "200ms"),
        ("indexpilot.guard_max_transaction_age", "1h"),
        ("indexpilot.verify_delay", "1h"),
        ("indexpilot.verify_min_calls", "5"),
        ("indexpilot.capture_bucket", "1s"),
        ("indexpilot.select", "off"),
        ("autovacuum", "off"),
    ];
    let cluster = base.iter().chain(settings).fold(Cluster::build(name), |b, (name, value)| b.setting(name, value)).start()?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE EXTENSION indexpilot; CREATE TABLE t (id integer, a integer, label text); \
         INSERT INTO t SELECT i, i FROM generate_series(1, 5000) i; CREATE INDEX theirs ON t (a); ANALYZE t",
    )?;
    poll_until(LIMIT, "capture to begin", || {
        Ok(text(&mut db, "SELECT value FROM indexpilot.status WHERE name = 'registered'")? == "true")
    })?;
    Ok((cluster, db))
}

fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("postgres", "postgres")
}

fn create(db: &mut Client, table: &str, name: &str, keys: &str) -> Result<i64> {
    enqueue(db, "create", table, name, &format!("CREATE INDEX CONCURRENTLY {name} ON {table} USING btree ({keys})"))
}

/// Waits for a state of an action, whatever pauses it makes.
fn reach(db: &mut Client, id: i64, states: &[&str]) -> Result<()> {
    let mut now = String::new();
    let waited = poll_until(LIMIT, &format!("action {id} to be one of {states:?}"), || {
        db.execute("UPDATE indexpilot.actions SET not_before = now() WHERE id = $1 AND not_before > now()", &[&id])?;
        now = text(
            db,
            &format!("SELECT concat_ws(' ', state, blocked_reason, error_message) FROM indexpilot.actions WHERE id = {id}"),
        )?;
        Ok(states.iter().any(|s| now.split(' ').next() == Some(s)))
    });
    waited.map_err(|e| format!("{e}; it is {now}").into())
}

fn built(db: &mut Client, table: &str, name: &str, keys: &str) -> Result<i64> {
    let id = create(db, table, name, keys)?;
    reach(db, id, &["built", "verifying"])?;
    Ok(id)
}

fn usable(db: &mut Client, index: &str) -> Result<String> {
    text(db, &format!("SELECT (SELECT indisvalid::text FROM pg_index WHERE indexrelid = to_regclass('{index}'))"))
}

fn refused(db: &mut Client, sql: &str) -> String {
    let e = db.batch_execute(sql).expect_err(sql);
    e.code().map(|c| c.code().to_owned()).unwrap_or_default()
}

/// Too wide for an entry of a B-tree, and no compression makes it fit.
const WIDE: &str = "INSERT INTO t (label) SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 300)";

fn write(db: &mut Client, times: usize, fails: bool) -> Result<()> {
    for _ in 0..times {
        match fails {
            true => assert_eq!(refused(db, WIDE), "54000"),
            false => db.batch_execute(WIDE)?,
        }
    }
    Ok(())
}

#[test]
fn what_is_protected_under_another_name_is_not_dropped() -> Result<()> {
    let (_cluster, mut db) = server("interplay-renamed", &[])?;
    built(&mut db, "public.t", "ip_t", "id")?;
    db.batch_execute("SELECT indexpilot.disable_system('later')")?;
    let undo = "SELECT indexpilot.rollback((SELECT max(id) FROM indexpilot.mutation_log WHERE mutation = 'create_index'))";
    number(&mut db, undo)?;
    let drop = number(&mut db, "SELECT max(id) FROM indexpilot.actions WHERE kind = 'drop'")?;
    db.batch_execute(
        "ALTER INDEX ip_t RENAME TO orders_id; SELECT indexpilot.protect('orders_id'); SELECT indexpilot.enable_system()",
    )?;
    reach(&mut db, drop, &["blocked"])?;
    let why = text(&mut db, &format!("SELECT blocked_reason FROM indexpilot.actions WHERE id = {drop}"))?;
    assert!(why.starts_with("protected: "), "{why}");
    assert_eq!(usable(&mut db, "orders_id")?, "true");
    Ok(())
}

#[test]
fn what_is_protected_is_not_taken_back_whatever_it_does() -> Result<()> {
    let (_cluster, mut db) = server("interplay-spared", &[])?;
    write(&mut db, 30, false)?;
    db.batch_execute("DELETE FROM t WHERE id IS NULL")?;
    let id = built(&mut db, "public.t", "ip_t", "label")?;
    db.batch_execute("SELECT indexpilot.protect('ip_t')")?;
    write(&mut db, 30, true)?;
    reach(&mut db, id, &["kept"])?;
    let said = text(&mut db, "SELECT verdict || ': ' || reason FROM indexpilot.verifications WHERE role = 'summary'")?;
    assert!(said.starts_with("neutral: the index is protected, and stays though it does harm: query "), "{said}");
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.hidden_indexes")?, 0);
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.actions WHERE kind = 'drop'")?, 0);
    Ok(())
}

#[test]
fn one_index_does_not_answer_for_another() -> Result<()> {
    let (_cluster, mut db) = server("interplay-siblings", &[])?;
    write(&mut db, 30, false)?;
    db.batch_execute("DELETE FROM t WHERE id IS NULL; ALTER TABLE t ADD note text")?;
    let innocent = built(&mut db, "public.t", "ip_note", "note")?;
    let number_only = built(&mut db, "public.t", "ip_id", "id")?;
    let guilty = built(&mut db, "public.t", "ip_label", "label")?;
    write(&mut db, 30, true)?;
    reach(&mut db, guilty, &["reverted"]).map_err(|e| {
        let rows = "SELECT string_agg(concat_ws(' ', w.id, w.command, q.bucket_at, q.calls, q.errors, left(w.query, 20)), E'\n' ORDER BY q.bucket_at) \
                    FROM indexpilot.workload w JOIN indexpilot.workload_stats q ON q.workload_id = w.id WHERE w.command = 'insert'";
        let built = "SELECT string_agg(concat_ws(' ', id, finished_at), E'\n') FROM indexpilot.actions";
        format!("{e}\n{}\n{}", text(&mut db, rows).unwrap_or_default(), text(&mut db, built).unwrap_or_default())
    })?;
    poll_until(LIMIT, "the index to be dropped", || Ok(usable(&mut db, "ip_label")?.is_empty()))?;
    write(&mut db, 10, false)?;
    // A visit that has seen all of that.
    let written = Instant::now();
    poll_until(LIMIT, "a visit", || {
        let age: f64 = text(&mut db, "SELECT value FROM indexpilot.status WHERE name = 'last_visit_s'")?.parse()?;
        Ok(written.elapsed().as_secs_f64() > age + 2.0)
    })?;
    for other in [innocent, number_only] {
        assert_eq!(text(&mut db, &format!("SELECT state FROM indexpilot.actions WHERE id = {other}"))?, "verifying");
    }
    Ok(())
}

#[test]
fn a_drop_that_has_begun_is_brought_to_its_end() -> Result<()> {
    let (cluster, mut db) =
        server("interplay-begun", &[("indexpilot.apply_observe", "0"), ("indexpilot.apply_lock_timeout", "500ms")])?;
    let mut reader = connect(&cluster)?;
    reader.batch_execute("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE")?;
    let drop = number(&mut db, "SELECT indexpilot.retire_index('theirs')")?;
    poll_until(LIMIT, "the drop to begin", || Ok(usable(&mut db, "theirs")? == "false"))?;
    // However often it cannot get its locks, it does not end in an index that nobody uses and nobody drops.
    poll_until(LIMIT, "a third attempt", || {
        db.execute(
            "UPDATE indexpilot.actions SET not_before = now() WHERE id = $1 AND state = 'queued' AND not_before > now()",
            &[&drop],
        )?;
        Ok(number(&mut db, &format!("SELECT attempts::bigint FROM indexpilot.actions WHERE id = {drop}"))? > 2)
    })?;
    assert!(!db.query_one("SELECT indexpilot.cancel($1)", &[&drop])?.get::<_, bool>(0));
    assert_eq!(refused(&mut db, "SELECT indexpilot.show_index('theirs')"), "55000");
    reader.batch_execute("COMMIT")?;
    reach(&mut db, drop, &["done"])?;
    let undo = "SELECT indexpilot.rollback((SELECT max(id) FROM indexpilot.mutation_log WHERE mutation = 'drop_index'))";
    number(&mut db, undo)?;
    poll_until(LIMIT, "the index to be built again", || Ok(usable(&mut db, "theirs")? == "true"))
}

#[test]
fn a_copy_of_the_table_does_not_hold_up_a_build() -> Result<()> {
    let (cluster, mut db) = server("interplay-copied", &[])?;
    let mut writer = connect(&cluster)?;
    writer.batch_execute("BEGIN; INSERT INTO t VALUES (0, 0)")?;
    let id = create(&mut db, "public.t", "ip_t", "id")?;
    poll_until(LIMIT, "the build to begin", || Ok(usable(&mut db, "ip_t")? == "false"))?;
    db.batch_execute("CREATE TABLE t2 (LIKE t INCLUDING ALL)")?;
    let copies = "SELECT count(*) FROM pg_description d JOIN pg_index i ON i.indexrelid = d.objoid AND i.indrelid = 't2'::regclass \
                  WHERE d.description LIKE 'indexpilot:%'";
    assert_eq!(number(&mut db, copies)?, 1, "the comment is copied with the index");
    db.batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'indexpilot builder'")?;
    writer.batch_execute("COMMIT")?;
    reach(&mut db, id, &["built", "verifying"])?;
    assert_eq!(usable(&mut db, "ip_t")?, "true");
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_index WHERE indrelid = 't2'::regclass AND indisvalid")?, 2);
    Ok(())
}

#[test]
fn an_action_somebody_holds_does_not_hold_up_others() -> Result<()> {
    let (cluster, mut db) = server("interplay-held", &[])?;
    db.batch_execute("SELECT indexpilot.disable_system('later')")?;
    let held = create(&mut db, "public.t", "ip_held", "id")?;
    let other = create(&mut db, "public.t", "ip_other", "id, a")?;
    let mut person = connect(&cluster)?;
    person.batch_execute(&format!("BEGIN; SELECT indexpilot.cancel({held})"))?;
    db.batch_execute("SELECT indexpilot.enable_system()")?;
    // The update of what is held would wait, too.
    poll_until(LIMIT, "the other to be built", || {
        db.execute("UPDATE indexpilot.actions SET not_before = now() WHERE id = $1 AND not_before > now()", &[&other])?;
        Ok(usable(&mut db, "ip_other")? == "true")
    })?;
    person.batch_execute("COMMIT")?;
    assert_eq!(text(&mut db, &format!("SELECT state FROM indexpilot.actions WHERE id = {held}"))?, "cancelled");
    assert_eq!(usable(&mut db, "ip_held")?, "");
    Ok(())
}

#[test]
fn a_canary_without_room_is_seen_by_all() -> Result<()> {
    let (_cluster, mut db) = server("interplay-full", &[("indexpilot.apply_canary_percent", "50")])?;
    db.batch_execute(
        "CREATE TABLE many (a integer); \
         DO $$ BEGIN FOR i IN 1..512 LOOP EXECUTE format('CREATE INDEX many_%s ON many (a)', i); \
           PERFORM indexpilot.hide_index(format('many_%s', i)::regclass); END LOOP; END $$",
    )?;
    assert_eq!(refused(&mut db, "SELECT indexpilot.hide_index('theirs')"), "53400");
    built(&mut db, "public.t", "ip_one", "id")?;
    built(&mut db, "public.t", "ip_two", "id, a")?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.trials")?, 0);
    // What has its place can be changed.
    db.batch_execute("SELECT indexpilot.start_trial('many_1')")?;
    Ok(())
}

#[test]
fn who_asks_is_known() -> Result<()> {
    let (cluster, mut db) = server("interplay-asked", &[("indexpilot.mode", "advise"), ("indexpilot.apply_observe", "1h")])?;
    // Nobody asked for it, so it waits; until somebody does.
    db.batch_execute(
        "INSERT INTO indexpilot.analyses (cause) VALUES ('call'); \
         INSERT INTO indexpilot.recommendations (analysis_id, state, reason, reason_detail, table_id, table_schema, table_name, columns, \
           definition, index_def, index_name) \
         SELECT id, 'proposed', 'gain', '', 't'::regclass, 'public', 't', '{id}', 'CREATE INDEX CONCURRENTLY ip_t ON public.t USING btree (id)', \
           '{}', 'ip_t' FROM indexpilot.analyses",
    )?;
    let waits = number(
        &mut db,
        "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause, actor) \
         SELECT 'create', table_id, 'public', 't', 'public', 'ip_t', definition, definition, 'test', 'indexpilot' \
           FROM indexpilot.recommendations RETURNING id",
    )?;
    poll_until(LIMIT, "the reason", || {
        Ok(text(&mut db, &format!("SELECT blocked_reason FROM indexpilot.actions WHERE id = {waits}"))?
            .contains("nobody asked for it"))
    })?;
    let approved = number(&mut db, "SELECT indexpilot.approve(max(id)) FROM indexpilot.recommendations")?;
    assert_eq!(approved, waits);
    reach(&mut db, waits, &["built", "verifying"])?;
    assert_eq!(text(&mut db, &format!("SELECT actor FROM indexpilot.actions WHERE id = {waits}"))?, "postgres");
    // A role that is called as who acts when nobody asks.
    db.batch_execute("CREATE ROLE indexpilot LOGIN SUPERUSER")?;
    let mut namesake = cluster.connect("postgres", "indexpilot")?;
    let begun = number(&mut db, "SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint")?;
    let drop = number(&mut namesake, "SELECT indexpilot.retire_index('theirs')")?;
    assert_eq!(text(&mut db, &format!("SELECT actor FROM indexpilot.actions WHERE id = {drop}"))?, "\"indexpilot\"");
    // Going back to before takes in what is observed.
    db.batch_execute(&format!("SELECT indexpilot.rollback_to(to_timestamp({begun} / 1e6))"))?;
    assert_eq!(text(&mut db, &format!("SELECT state FROM indexpilot.actions WHERE id = {drop}"))?, "cancelled");
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.hidden_indexes")?, 0);
    assert_eq!(usable(&mut db, "theirs")?, "true");
    Ok(())
}

#[test]
fn what_an_error_quotes_is_for_the_log_of_the_server() -> Result<()> {
    let (cluster, mut db) = server("interplay-quoted", &[])?;
    db.batch_execute("INSERT INTO t (id, label) VALUES (-1, 'alice@example.com')")?;
    let id = enqueue(
        &mut db,
        "create",
        "public.t",
        "ip_quoted",
        "CREATE INDEX CONCURRENTLY ip_quoted ON public.t USING btree ((label::integer))",
    )?;
    reach(&mut db, id, &["failed"])?;
    let stored = "SELECT (SELECT string_agg(a::text, ' ') FROM indexpilot.actions a) || (SELECT string_agg(l::text, ' ') FROM indexpilot.mutation_log l)";
    let stored = text(&mut db, stored)?;
    assert!(stored.contains("22P02") && !stored.contains("alice"), "{stored}");
    assert!(cluster.log_tail(200).contains("alice@example.com"));
    Ok(())
}

#[test]
fn statements_are_in_the_encoding_of_the_database() -> Result<()> {
    let (cluster, mut db) = server("interplay-encoding", &[])?;
    db.batch_execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")?;
    let mut db = cluster.connect("latin", "postgres")?;
    db.batch_execute(
        "CREATE EXTENSION indexpilot; CREATE SCHEMA büro; CREATE TABLE büro.straße (id integer, status text); \
         INSERT INTO büro.straße SELECT i, CASE WHEN i % 10 = 0 THEN 'grün' ELSE 'rot' END FROM generate_series(1, 1000) i",
    )?;
    let statement = "CREATE INDEX CONCURRENTLY ip_grün ON \"büro\".\"straße\" USING btree (id) WHERE (status = 'grün'::text)";
    let id = enqueue(&mut db, "create", "büro.straße", "ip_grün", statement)?;
    reach(&mut db, id, &["built", "verifying"])?;
    let defined = text(&mut db, "SELECT pg_get_indexdef('büro.ip_grün'::regclass)")?;
    assert_eq!(defined, "CREATE INDEX \"ip_grün\" ON \"büro\".\"straße\" USING btree (id) WHERE (status = 'grün'::text)");
    assert_eq!(number(&mut db, "SELECT reltuples::bigint FROM pg_class WHERE oid = 'büro.ip_grün'::regclass")?, 100);
    let undo = "SELECT indexpilot.rollback((SELECT max(id) FROM indexpilot.mutation_log WHERE mutation = 'create_index'))";
    number(&mut db, undo)?;
    poll_until(LIMIT, "the index to be dropped", || Ok(usable(&mut db, "büro.\"ip_grün\"")?.is_empty()))
}

#[test]
fn who_cancels_twice_does_not_disturb_the_clearing_up() -> Result<()> {
    let (cluster, mut db) = server("interplay-twice", &[])?;
    // Neither a build nor a drop is done while somebody writes.
    let mut writer = connect(&cluster)?;
    writer.batch_execute("BEGIN; INSERT INTO t VALUES (0, 0)")?;
    let id = create(&mut db, "public.t", "ours", "id")?;
    let waits = |db: &mut Client, command: &str| {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'indexpilot builder' AND wait_event_type = 'Lock'";
        poll_until(LIMIT, command, || Ok(number(db, &format!("{sql} AND query LIKE '{command}%'"))? == 1))
    };
    let cancel = |db: &mut Client| text(db, &format!("SELECT indexpilot.cancel({id})::text"));
    waits(&mut db, "CREATE INDEX")?;
    assert_eq!(cancel(&mut db)?, "true");
    waits(&mut db, "DROP INDEX")?;
    for _ in 0..3 {
        assert_eq!(cancel(&mut db)?, "false", "it is cancelled already");
    }
    writer.batch_execute("COMMIT")?;
    reach(&mut db, id, &["cancelled"])?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_class WHERE relname = 'ours'")?, 0);
    assert!(!cluster.log().contains("could not"), "{}", cluster.log_tail(20));
    Ok(())
}
