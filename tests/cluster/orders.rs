//! Beside other extensions with the same hooks: whatever the order in which the libraries are loaded, each counts the same.

use indexpilot_tests::{Cluster, Result, Stop, poll_until};
use postgres::Client;
use std::path::Path;
use std::time::Duration;

/// Statements of all kinds; some fail, and one is cancelled.
const STATEMENTS: &str = "\
PREPARE one(int) AS SELECT v FROM ordered WHERE id = $1; EXECUTE one(1); EXECUTE one(2); EXECUTE one(3);
SELECT twice(v), nested(20) FROM ordered WHERE id = 7;
BEGIN; DECLARE c CURSOR FOR SELECT v FROM ordered ORDER BY id; FETCH 5 FROM c; FETCH ALL FROM c; COMMIT;
BEGIN; SAVEPOINT a; SELECT 1/(v - v) FROM ordered WHERE id = 2; ROLLBACK TO a; UPDATE ordered SET v = v WHERE id = 3; COMMIT;
COPY (SELECT v FROM ordered WHERE id < 10) TO STDOUT;
EXPLAIN ANALYZE SELECT v FROM ordered WHERE id = 4;
INSERT INTO ordered VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET v = excluded.v;
DELETE FROM ordered WHERE id = -1;
SELECT o.v FROM ordered o JOIN ordered p ON p.id = o.v WHERE p.v IN (1, 2, 3) ORDER BY o.v LIMIT 2;
DO $$ BEGIN PERFORM v FROM ordered WHERE id = 5; UPDATE ordered SET v = v WHERE id = 6; END $$;
CALL moved();
SELECT nosuch FROM ordered;
SET statement_timeout = '50ms'; SELECT count(pg_sleep(1)) FROM ordered WHERE id < 3;
";

const TABLES: &str = "\
CREATE TABLE ordered (id integer PRIMARY KEY, v integer);
CREATE FUNCTION nested(n integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE x integer; y integer := 0;
BEGIN
  FOR i IN 1..n LOOP
    BEGIN SELECT v INTO x FROM ordered WHERE id = i; y := y + 1 / (x % 2); EXCEPTION WHEN division_by_zero THEN y := y + 1; END;
  END LOOP;
  RETURN y;
END $$;
CREATE FUNCTION twice(integer) RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT count(*) FROM ordered WHERE v = $1 OR v = 2 * $1';
CREATE PROCEDURE moved() LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1..4 LOOP UPDATE ordered SET v = v WHERE id = i; IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF; END LOOP;
END $$;
CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM v FROM ordered WHERE id = new.id + 50; RETURN new; END $$;
CREATE TRIGGER follow AFTER UPDATE ON ordered FOR EACH ROW EXECUTE FUNCTION follow();
";

/// The figures of one server, as text to compare: each extension's name, and a line for each of its counters.
type Figures = Vec<(&'static str, String)>;

#[test]
fn c13_the_order_of_libraries_changes_no_count() -> Result<()> {
    let mut cluster = Cluster::build("orders")
        .preload(false)
        .setting("compute_query_id", "auto")
        .setting("autovacuum", "off")
        .setting("max_parallel_workers_per_gather", "0")
        .setting("indexpilot.worker_interval", "10min")
        .setting("pg_stat_statements.track", "all")
        .setting("auto_explain.log_min_duration", "0")
        .setting("auto_explain.log_analyze", "on")
        .setting("auto_explain.log_nested_statements", "on")
        .setting("pg_qualstats.sample_rate", "1")
        .start()?;
    cluster.run(cluster.client_program("pgbench").args(["-i", "-q"]))?;
    cluster.connect("postgres", "postgres")?.batch_execute(TABLES)?;

    let directory = cluster.run(cluster.client_program("pg_config").arg("--pkglibdir"))?;
    let there = |library: &&str| Path::new(directory.trim()).join(format!("{library}.so")).exists();
    let libraries: Vec<&str> =
        ["indexpilot", "pg_stat_statements", "auto_explain", "pg_qualstats"].into_iter().filter(there).collect();
    let mut first: Option<Figures> = None;
    for order in orders(&libraries) {
        let loaded = order.join(", ");
        cluster.configure("shared_preload_libraries", &loaded)?;
        cluster.restart(Stop::Fast)?;
        let figures = count(&cluster, &libraries).map_err(|e| format!("{loaded}: {e}"))?;
        for (extension, counts) in &figures {
            assert!(!counts.is_empty(), "{extension} has counted nothing with {loaded}");
        }
        match &first {
            None => first = Some(figures),
            Some(first) => {
                for ((extension, before), (_, now)) in first.iter().zip(&figures) {
                    assert_eq!(before, now, "counts of {extension}, with {loaded}");
                }
            }
        }
    }
    let indexpilot = first.iter().flatten().find(|(extension, _)| *extension == "indexpilot");
    assert!(indexpilot.is_some_and(|(_, counts)| counts.contains(" 200 calls 0 errors 200 rows")), "{indexpilot:?}");
    Ok(())
}

/// All orders of some names.
fn orders<'a>(names: &[&'a str]) -> Vec<Vec<&'a str>> {
    let Some((first, rest)) = names.split_first() else { return vec![vec![]] };
    let mut all = Vec::new();
    for order in orders(rest) {
        for at in 0..=order.len() {
            let mut longer = order.clone();
            longer.insert(at, first);
            all.push(longer);
        }
    }
    all
}

/// Runs everything, and asks everybody.
fn count(cluster: &Cluster, libraries: &[&str]) -> Result<Figures> {
    let has = |library: &str| libraries.contains(&library);
    let mut db = cluster.connect("postgres", "postgres")?;
    db.batch_execute("SET client_min_messages = warning; SET indexpilot.capture = off; SET pg_stat_statements.track = none")?;
    db.batch_execute("SET auto_explain.log_min_duration = -1")?;
    for extension in libraries.iter().filter(|library| **library != "auto_explain") {
        db.batch_execute(&format!("CREATE EXTENSION IF NOT EXISTS {extension}"))?;
    }
    // What a scan finds before it may stop depends on where the rows lie.
    db.batch_execute("TRUNCATE ordered; INSERT INTO ordered SELECT i, i FROM generate_series(1, 100) i; ANALYZE ordered")?;
    poll_until(Duration::from_secs(60), "capture to begin", || {
        let captured = "SELECT value <> '0' FROM indexpilot.status WHERE name = 'capture_databases'";
        Ok(db.query_one(captured, &[])?.get(0))
    })?;
    db.batch_execute("SELECT indexpilot.capture_reset(), pg_stat_statements_reset()")?;
    if has("pg_qualstats") {
        db.batch_execute("SET pg_qualstats.enabled = off; SELECT pg_qualstats_reset()")?;
    }
    let log = cluster.log().len();

    let pgbench = |options: &[&str]| cluster.run(cluster.client_program("pgbench").arg("-n").args(options));
    pgbench(&["-S", "-M", "prepared", "-t", "200"])?;
    pgbench(&["-t", "50"])?;
    // One statement after the other, and on after those that fail.
    let file = cluster.data().join("orders.sql");
    std::fs::write(&file, STATEMENTS)?;
    cluster.run(cluster.client_program("psql").arg("-qXf").arg(&file))?;

    let mut figures = vec![(
        "indexpilot",
        list(
            &mut db,
            "SELECT indexpilot.capture_flush()",
            "SELECT format('%s %s %s calls %s errors %s rows', queryid, command, calls, errors, rows) FROM indexpilot.queries \
              WHERE tables && ARRAY['ordered', 'pgbench_accounts', 'pgbench_branches', 'pgbench_tellers', 'pgbench_history']::regclass[]",
        )?,
    )];
    if has("pg_stat_statements") {
        let lines = "SELECT format('%s %s %s calls %s rows', queryid, toplevel, calls, rows) FROM pg_stat_statements \
                      WHERE query ~ 'ordered|pgbench_'";
        figures.push(("pg_stat_statements", list(&mut db, "", lines)?));
    }
    if has("pg_qualstats") {
        let lines = "SELECT format('%s.%s %s %s: %s of %s', lrelid::regclass, lattnum, opno::regoperator, eval_type, sum(nbfiltered), \
                                   sum(occurences)) FROM pg_qualstats() \
                      WHERE lrelid::regclass::text ~ 'ordered|pgbench_' GROUP BY lrelid, lattnum, opno, eval_type";
        figures.push(("pg_qualstats", list(&mut db, "", lines)?));
    }
    if has("auto_explain") {
        let text = cluster.log();
        let explained =
            text[log..].lines().filter(|l| l.contains("Query Text:") && (l.contains("ordered") || l.contains("pgbench_")));
        figures.push(("auto_explain", format!("{} plans", explained.count())));
    }
    Ok(figures)
}

/// The rows of a query of one column, in order.
fn list(db: &mut Client, before: &str, query: &str) -> Result<String> {
    db.batch_execute(before)?;
    let mut lines: Vec<String> = db.query(query, &[])?.iter().map(|row| row.get(0)).collect();
    lines.sort();
    Ok(lines.join("\n"))
}
