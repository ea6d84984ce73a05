//! U63 and U64: the extension goes along when a server is upgraded or dumped and restored as a whole, and does no harm while the
//! library and the objects of a database are of different versions.

use indexpilot_tests::{Builder, Cluster, Result, Stop, number, poll_until, text};
use postgres::Client;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn quick(name: &str) -> Builder {
    Cluster::build(name)
        .setting("indexpilot.worker_interval", "100ms")
        .setting("indexpilot.guard_max_transaction_age", "1h")
        .setting("indexpilot.verify_delay", "1h")
        .setting("indexpilot.select", "off")
        .setting("autovacuum", "off")
}

/// A table, and the extension unless it is there.
fn furnish(db: &mut Client) -> Result<()> {
    Ok(db.batch_execute(
        "CREATE EXTENSION IF NOT EXISTS indexpilot; CREATE TABLE goods (id integer, price integer); \
         INSERT INTO goods SELECT i, i % 100 FROM generate_series(1, 1000) i; ANALYZE goods",
    )?)
}

fn enqueue(db: &mut Client, name: &str, key: &str) -> Result<i64> {
    let statement = format!("CREATE INDEX CONCURRENTLY {name} ON public.goods USING btree ({key})");
    indexpilot_tests::enqueue(db, "create", "public.goods", name, &statement)
}

fn build(db: &mut Client, name: &str, key: &str) -> Result<i64> {
    let id = enqueue(db, name, key)?;
    built(db, id)?;
    Ok(id)
}

fn built(db: &mut Client, id: i64) -> Result<()> {
    poll_until(LIMIT, &format!("action {id} to be built"), || {
        db.execute(
            "UPDATE indexpilot.actions SET not_before = now() WHERE id = $1 AND state = 'queued' AND not_before > now()",
            &[&id],
        )?;
        let state = text(db, &format!("SELECT state FROM indexpilot.actions WHERE id = {id}"))?;
        Ok(state == "built" || state == "verifying")
    })
}

/// What is ours, row by row, without what an installation measures for itself.
fn owned(db: &mut Client) -> Result<String> {
    let mut all = String::new();
    for table in ["managed_indexes", "mutation_log"] {
        all += &text(db, &format!("SELECT string_agg(t::text, E'\\n' ORDER BY t::text) FROM indexpilot.{table} t"))?;
    }
    Ok(all)
}

#[test]
fn u63_pg_upgrade_takes_everything_along() -> Result<()> {
    let mut old = quick("upgrade-old").start()?;
    let mut db = old.connect("postgres", "postgres")?;
    furnish(&mut db)?;
    let id = build(&mut db, "a", "price")?;
    db.batch_execute("SELECT indexpilot.hide_index('a', 'a test')")?;
    let (kept, oid) = (owned(&mut db)?, number(&mut db, "SELECT 'a'::regclass::oid::bigint")?);
    drop(db);
    old.stop(Stop::Fast)?;
    let (mut new, said) = old.upgrade("upgrade-new")?;
    assert!(said.contains("Upgrade Complete"), "{said}");
    new.start()?;
    let mut db = new.connect("postgres", "postgres")?;
    assert_eq!(owned(&mut db)?, kept);
    assert_eq!(number(&mut db, "SELECT 'a'::regclass::oid::bigint")?, oid);
    // The visit finds in the table what the new server's shared memory cannot know.
    poll_until(LIMIT, "the index to be hidden again", || {
        let plan = db.query("EXPLAIN SELECT * FROM goods WHERE price = 7", &[])?;
        Ok(!plan.iter().any(|line| line.get::<_, &str>(0).contains("Index")))
    })?;
    db.batch_execute("SET enable_seqscan = off")?;
    let plan = db.query("EXPLAIN SELECT * FROM goods WHERE price = 7", &[])?;
    assert!(!plan.iter().any(|line| line.get::<_, &str>(0).contains("Index")));
    assert_eq!(text(&mut db, &format!("SELECT state FROM indexpilot.actions WHERE id = {id}"))?, "verifying");
    build(&mut db, "b", "id")?;
    assert!(!new.log().contains("WARNING"), "{}", new.log_tail(30));
    Ok(())
}

#[test]
fn u63_pg_dumpall_takes_templates_along() -> Result<()> {
    let old = quick("upgrade-dumped").start()?;
    old.connect("template1", "postgres")?.batch_execute("CREATE EXTENSION indexpilot")?;
    let mut admin = old.connect("postgres", "postgres")?;
    admin.batch_execute("CREATE DATABASE shop")?;
    let mut db = old.connect("shop", "postgres")?;
    furnish(&mut db)?;
    build(&mut db, "a", "price")?;
    let kept = owned(&mut db)?;
    let dump = old.run(old.client_program("pg_dumpall").arg("--no-role-passwords"))?;
    let script = old.data().with_file_name("all.sql");
    std::fs::write(&script, dump)?;

    let new = quick("upgrade-restored").start()?;
    let said = new.run(new.client_program("psql").args(["-qX", "-d", "postgres", "-f"]).arg(&script))?;
    assert!(!said.contains("ERROR"), "{said}");
    let mut db = new.connect("shop", "postgres")?;
    assert_eq!(owned(&mut db)?, kept);
    assert_eq!(text(&mut db, "SELECT string_agg(indexname, ' ') FROM pg_indexes WHERE tablename = 'goods'")?, "a");
    build(&mut db, "b", "id")?;
    // A new database has the extension from its birth, without anybody's CREATE EXTENSION in it.
    let mut admin = new.connect("postgres", "postgres")?;
    admin.batch_execute("CREATE DATABASE another")?;
    let mut db = new.connect("another", "postgres")?;
    furnish(&mut db)?;
    build(&mut db, "a", "price")?;
    // And the template is nobody's to work in.
    assert_eq!(number(&mut admin, "SELECT count(*) FROM pg_stat_activity WHERE datname = 'template1'")?, 0);
    assert!(!new.log().contains("WARNING"), "{}", new.log_tail(30));
    Ok(())
}

/// SQLSTATE and hint of a statement that must fail.
fn refusal(db: &mut Client, sql: &str) -> Result<(String, String)> {
    match db.batch_execute(sql) {
        Ok(()) => Err(format!("{sql} does not fail").into()),
        Err(e) => {
            let e = e.as_db_error().ok_or_else(|| format!("{sql}: {e}"))?;
            Ok((e.code().code().to_owned(), e.hint().unwrap_or_default().to_owned()))
        }
    }
}

/// What versions differ in, here.
const COLUMNS: [(&str, &str); 2] = [("actions", "state"), ("workload", "queryid")];

fn set_version(db: &mut Client, version: &str) -> Result<()> {
    Ok(db.batch_execute(&format!("UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'indexpilot'"))?)
}

#[test]
fn u64_library_and_objects_of_different_versions_do_no_harm() -> Result<()> {
    let mut cluster = quick("upgrade-mixed").start()?;
    let mut db = cluster.connect("postgres", "postgres")?;
    furnish(&mut db)?;
    build(&mut db, "a", "price")?;
    let library = text(&mut db, "SELECT extversion FROM pg_extension WHERE extname = 'indexpilot'")?;
    let counted = "SELECT coalesce(sum(s.calls), 0)::bigint FROM indexpilot.workload_stats s JOIN indexpilot.workload w ON w.id = s.workload_id \
                   WHERE w.command = 'select' AND w.relations @> ARRAY['goods'::regclass::oid]";
    for (ran, (version, column)) in [("0.0.9", "price"), ("99.0", "id")].into_iter().enumerate() {
        // Of another version its tables are others, too.
        set_version(&mut db, version)?;
        for (table, column) in COLUMNS {
            db.batch_execute(&format!("ALTER TABLE indexpilot.{table} RENAME {column} TO other_{column}"))?;
        }
        let warned = format!(
            "WARNING:  indexpilot: worker: nothing is done in database 5: The library is of version {library}, the objects in this database of {version}."
        );
        poll_until(LIMIT, "the worker to say so", || Ok(cluster.log().contains(&warned)))?;
        for call in [
            "SELECT indexpilot.capture_flush()",
            "SELECT * FROM indexpilot.analyze_and_create_indexes()",
            "SELECT indexpilot.hide_index('a')",
            "SELECT indexpilot.disable_system('x')",
            "SELECT indexpilot.rollback(1)",
        ] {
            let (code, hint) = refusal(&mut db, call)?;
            assert_eq!(code, "55000", "{call}");
            assert!(hint.contains("ALTER EXTENSION indexpilot UPDATE"), "{call}: {hint}");
        }
        let health = "SELECT string_agg(concat_ws(' ', name, state), ', ') FROM indexpilot.health_check()";
        assert_eq!(text(&mut db, health)?, "version error, preload ok");
        let shown = "SELECT value FROM indexpilot.status WHERE name = 'sql_version'";
        assert_eq!(text(&mut db, shown)?, version);
        // Capture goes on, over a restart too, and users notice nothing.
        db.batch_execute(&format!("SELECT id, price FROM goods WHERE {column} = 7"))?;
        if column == "id" {
            drop(db);
            cluster.restart(Stop::Fast)?;
            db = cluster.connect("postgres", "postgres")?;
            poll_until(LIMIT, "the worker to say so again", || Ok(cluster.log().matches(&warned).count() == 2))?;
        } else {
            assert_eq!(cluster.log().matches(&warned).count(), 1, "it is said once");
        }
        for (table, column) in COLUMNS {
            db.batch_execute(&format!("ALTER TABLE indexpilot.{table} RENAME other_{column} TO {column}"))?;
        }
        set_version(&mut db, &library)?;
        build(&mut db, &format!("on_{column}"), "id")?;
        poll_until(LIMIT, "what ran meanwhile to be counted", || {
            db.batch_execute("SELECT indexpilot.capture_flush()")?;
            Ok(number(&mut db, counted)? == ran as i64 + 1)
        })?;
    }
    let log = cluster.log();
    let wrong: Vec<&str> =
        log.lines().filter(|l| l.contains("indexpilot: worker: could not") || l.contains("does not exist")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Dropping it needs no version.
    db.batch_execute("UPDATE pg_extension SET extversion = '0.0.9' WHERE extname = 'indexpilot'; DROP EXTENSION indexpilot")?;
    Ok(())
}
