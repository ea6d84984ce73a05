//! Samples: the texts and values that capture keeps of what ran are whole, valid in the encoding of their database, bounded, and
//! absent where they are not wanted.

use crate::capture::{LIMIT, Server, column, counted, counted_as, on, text};
use indexpilot_tests::{Cluster, Result, Stop, poll_until};
use postgres::Client;
use std::{fs, thread};

/// Texts of the samples of templates that satisfy the condition, sorted.
fn samples(condition: &str) -> String {
    format!(
        "SELECT s.query FROM indexpilot.workload_samples s JOIN indexpilot.workload w ON w.id = s.workload_id \
         WHERE {condition} ORDER BY s.query COLLATE \"C\""
    )
}

/// Waits until there are as many samples, and returns them.
fn some_samples(server: &mut Server, condition: &str, count: usize) -> Result<Vec<String>> {
    let query = samples(condition);
    let waited = poll_until(LIMIT / 6, "the samples", || {
        server.db.batch_execute("SELECT indexpilot.capture_flush()")?;
        Ok(column(&mut server.db, &query)?.len() >= count)
    });
    let found = column(&mut server.db, &query)?;
    assert!(waited.is_ok(), "{} samples instead of {count}: {found:#?}; {}", found.len(), server.figures()?);
    Ok(found)
}

/// Everything in the extension's tables, and in its views, as text.
fn everything(db: &mut Client) -> Result<String> {
    let relations = "SELECT format('%I.%I', relnamespace::regnamespace, relname) FROM pg_class \
                     WHERE relnamespace = 'indexpilot'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') ORDER BY 1";
    let mut all = String::new();
    for relation in column(db, relations)? {
        all += &text(db, &format!("SELECT coalesce(string_agg(r::text, E'\\n'), '') FROM {relation} r"))?;
        all.push('\n');
    }
    Ok(all)
}

#[test]
fn c9_each_statement_of_a_string_is_kept_by_itself() -> Result<()> {
    let mut server = Server::named("capture-c9")?;
    server.run(&[
        "SET search_path = public, pg_catalog; /* lead */ SELECT v FROM t WHERE id = 77 ; SELECT v + 1 FROM t WHERE id = 78; -- end",
        "\n\n-- first\nSELECT id FROM t WHERE id = 79 -- last",
        "; ;SELECT v /* é ; 😀 */ + 2 FROM t WHERE label = 'ß;😀';;",
    ])?;
    let found = some_samples(&mut server, &on("t"), 4)?;
    let has = |text: &str| found.iter().any(|f| f == text);
    assert!(has("SELECT v + 1 FROM t WHERE id = 78"), "{found:#?}");
    assert!(has("SELECT v /* é ; 😀 */ + 2 FROM t WHERE label = 'ß;😀'"), "{found:#?}");
    assert!(found.iter().any(|f| f.ends_with("SELECT v FROM t WHERE id = 77")), "{found:#?}");
    assert!(found.iter().any(|f| f.contains("SELECT id FROM t WHERE id = 79")), "{found:#?}");
    let path = counted_as(
        "(SELECT string_agg(DISTINCT s.search_path, '; ') FROM indexpilot.workload_samples s WHERE s.workload_id = w.id)",
        "w.query LIKE 'SELECT v + $1 FROM t%'",
    );
    server.expect("search_path", &path, "public, pg_catalog")
}

#[test]
fn c9_a_long_statement_is_counted_and_never_cut() -> Result<()> {
    let mut server = Server::named("capture-c9-long")?;
    let mut session = server.session()?;
    // Characters of four bytes around every power of two up to 64 kB: each has a template of its own, by the number of its columns.
    let mut sent = Vec::new();
    for power in 10..=16 {
        for (n, short) in [-2i32, -1, 0, 1, 2].into_iter().enumerate() {
            let columns = ["v"; 40][..sent.len() + 1].join(", ");
            let head = format!("SELECT {columns} FROM t WHERE id = {n} AND label <> '");
            let emoji = ((1 << power) - head.len() as i32) / 4 + short;
            sent.push(format!("{head}{}'", "😀".repeat(emoji as usize)));
        }
    }
    for statement in &sent {
        session.batch_execute(statement)?;
    }
    let megabyte = format!("SELECT length('{}'), v FROM t WHERE id = 1", "x".repeat(1 << 20));
    session.batch_execute(&megabyte)?;
    session.batch_execute(&format!("{}SELECT v, v + 1 FROM t WHERE id = 1", " ".repeat(3 << 20)))?;
    let all = counted_as("q.calls::text", &on("t"));
    server.expect(
        "all of them",
        &format!("SELECT count(*) || ' ' || sum(l::integer) FROM unnest(string_to_array(({all}), ', ')) l"),
        "37 37",
    )?;
    let kept = column(&mut server.db, &samples(&on("t")))?;
    assert!(kept.len() >= 10 && kept.iter().all(|k| sent.contains(k) || k == "SELECT v, v + 1 FROM t WHERE id = 1"));
    assert!(server.figure("capture_samples_too_long")? >= 1);
    let lost = kept.len() as i64 + server.figure("capture_samples_too_long")? + server.figure("capture_samples_dropped")?;
    assert!(lost >= 37, "{} kept; {}", kept.len(), server.figures()?);
    server.expect_no_loss()
}

#[test]
fn c9_databases_with_other_encodings_are_captured() -> Result<()> {
    let mut server = Server::named("capture-c9-encodings")?;
    for (name, encoding) in [("ascii", "SQL_ASCII"), ("latin", "LATIN1")] {
        server.db.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'"))?;
        let mut db = server.cluster.connect(name, "postgres")?;
        db.batch_execute("CREATE TABLE words (id integer, word text); CREATE EXTENSION indexpilot")?;
        poll_until(LIMIT, "the database to be registered", || {
            Ok(text(&mut db, "SELECT value FROM indexpilot.status WHERE name = 'registered'")? == "true")
        })?;
        // The client speaks UTF-8; the server has what its own encoding makes of it.
        db.batch_execute("SET indexpilot.tenant_id = 'tenant ä'; SELECT id FROM words WHERE word = 'grün'")?;
        db.query("SELECT id, word FROM words WHERE word = $1", &[&"größer"])?;
        db.batch_execute("RESET indexpilot.tenant_id; SELECT word, 1 FROM words")?;
        // Bytes that are no character of UTF-8.
        let script = server.cluster.data().with_file_name("bytes.sql");
        fs::write(&script, b"SELECT id, id FROM words WHERE word = 'gr\xfcn \xff';\n")?;
        let mut psql = server.cluster.client_program("psql");
        psql.env("PGCLIENTENCODING", encoding).args(["-qX", "-v", "ON_ERROR_STOP=1", "-d", name, "-f"]).arg(&script);
        server.cluster.run(&mut psql)?;
        let calls = counted("w.relations @> ARRAY['words'::regclass::oid]");
        poll_until(LIMIT / 4, "the statements", || {
            db.batch_execute("SELECT indexpilot.capture_flush()")?;
            Ok(text(&mut db, &calls)? == "select 1/0, select 1/0, select 1/0, select 1/0")
        })
        .map_err(|e| format!("{encoding}: {e}"))?;
        let ours = "SELECT count(*)::text FROM indexpilot.workload_samples s JOIN indexpilot.workload w ON w.id = s.workload_id \
                    WHERE w.relations @> ARRAY['words'::regclass::oid] AND s.query LIKE 'SELECT word, 1%'";
        assert_eq!(text(&mut db, ours)?, "1", "{encoding}");
        if encoding == "LATIN1" {
            // What this database can say, it keeps.
            let tenant = "SELECT count(*)::text FROM indexpilot.query_stats WHERE tenant_id = 'tenant ä'";
            assert_ne!(
                text(&mut db, tenant)?,
                "0",
                "{:?}",
                column(&mut db, "SELECT DISTINCT tenant_id FROM indexpilot.query_stats")?
            );
            let words = "SELECT string_agg(word, ' ' ORDER BY word) FROM indexpilot.workload_samples s, \
                         unnest(ARRAY[s.query] || s.parameter_values) word WHERE word LIKE '%gr%'";
            let words = text(&mut db, words)?;
            assert!(words.contains("größer") && words.contains("'grün'"), "{words}");
        }
        // Everything can be read back, whatever is in it.
        everything(&mut db)?;
    }
    assert!(!server.cluster.log().contains("invalid byte sequence"), "{}", server.cluster.log_tail(20));
    server.expect_no_loss()
}

#[test]
fn c10_a_type_whose_output_fails_is_left_alone() -> Result<()> {
    let mut server = Server::named("capture-c10")?;
    server.db.batch_execute(
        "CREATE TYPE bad; \
         CREATE FUNCTION bad_in(cstring) RETURNS bad LANGUAGE internal IMMUTABLE STRICT AS 'textin'; \
         CREATE FUNCTION bad_out(bad) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'internal_out'; \
         CREATE TYPE bad (INPUT = bad_in, OUTPUT = bad_out, LIKE = text); \
         CREATE DOMAIN small AS integer CHECK (VALUE < 100000); CREATE TYPE mood AS ENUM ('calm', 'cross'); \
         CREATE TYPE pair AS (a integer, b bad); \
         CREATE FUNCTION uses(x bad, y small, z mood, p pair) RETURNS bigint LANGUAGE plpgsql AS $$ \
           BEGIN RETURN (SELECT count(*) FROM t WHERE x IS NOT NULL AND id < y AND z = 'calm' AND (p).a = 1); END $$",
    )?;
    assert!(server.db.batch_execute("SELECT 'x'::bad").is_err(), "the output function must fail");
    server.reset()?;
    server.run(&[
        "PREPARE p(bad, integer) AS SELECT v FROM t WHERE id = $2 AND $1 IS NOT NULL",
        "EXECUTE p('x', 7)",
        "EXECUTE p(NULL, 8)",
        "SET plan_cache_mode = force_generic_plan",
        "EXECUTE p('x', 9)",
        "SELECT uses('x', 10, 'calm', row(1, 'x'::bad)::pair)",
    ])?;
    server.expect_counted("the statements", &on("t"), "nested select 1/0, select 3/0")?;
    let values = "SELECT DISTINCT s.parameter_values::text FROM indexpilot.workload_samples s \
                  JOIN indexpilot.workload w ON w.id = s.workload_id WHERE NOT w.nested AND s.query LIKE '%t WHERE id = $2%' ORDER BY 1";
    let kept = column(&mut server.db, values)?;
    assert!(!kept.is_empty() && kept.iter().all(|k| ["{NULL,7}", "{NULL,8}", "{NULL,9}"].contains(&k.as_str())), "{kept:?}");
    let refusals = server.cluster.log().matches("cannot display").count();
    assert_eq!(refusals, 1, "only the statement of this test may have called it: {}", server.cluster.log_tail(10));
    server.expect_no_loss()
}

#[test]
fn a_flush_in_the_middle_of_a_statement_keeps_its_sample() -> Result<()> {
    let mut server = Server::named("capture-long-statement")?;
    let mut session = server.session()?;
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    thread::scope(|scope| -> Result<()> {
        let sleeping = scope.spawn(|| session.batch_execute("SELECT v, pg_sleep(60) FROM t WHERE id = 2").is_err());
        let waits = format!("SELECT coalesce(max(wait_event), '') FROM pg_stat_activity WHERE pid = {pid}");
        poll_until(LIMIT, "the session to sleep", || Ok(text(&mut server.db, &waits)? == "PgSleep"))?;
        // Its sample is taken when it begins, its figures come when it ends.
        server.db.batch_execute("SELECT indexpilot.capture_flush()")?;
        server.db.batch_execute("SELECT indexpilot.capture_flush()")?;
        server.db.batch_execute(&format!("SELECT pg_cancel_backend({pid})"))?;
        assert!(sleeping.join().map_err(|_| "panic")?);
        Ok(())
    })?;
    server.expect_counted("the statement", &on("t"), "select 0/1")?;
    assert_eq!(some_samples(&mut server, &on("t"), 1)?, ["SELECT v, pg_sleep(60) FROM t WHERE id = 2"]);
    Ok(())
}

#[test]
fn samples_spread_over_time_and_values_and_stay_few() -> Result<()> {
    let mut server = Server::named("capture-reservoir")?;
    let mut session = server.session()?;
    let statement = session.prepare("SELECT v FROM t WHERE id = $1")?;
    for phase in 0..10i32 {
        for id in phase * 400..(phase + 1) * 400 {
            session.query(&statement, &[&id])?;
        }
        server.db.batch_execute("SELECT indexpilot.capture_flush()")?;
    }
    server.expect_counted("all", &on("t"), "select 4000/0")?;
    let values: Vec<i32> = column(
        &mut server.db,
        &format!(
            "SELECT s.parameter_values[1] FROM indexpilot.workload_samples s JOIN indexpilot.workload w ON w.id = s.workload_id WHERE {}",
            on("t")
        ),
    )?
    .iter()
    .map(|v| Ok(v.parse()?))
    .collect::<Result<_>>()?;
    assert!((4..=64).contains(&values.len()), "{values:?}");
    let (early, late) = (values.iter().filter(|v| **v < 2000).count(), values.iter().filter(|v| **v >= 2000).count());
    assert!(early >= 1 && late >= 1, "{values:?}");
    let distinct: std::collections::BTreeSet<_> = values.iter().collect();
    assert!(distinct.len() >= 4, "{values:?}");
    Ok(())
}

#[test]
fn parameters_are_kept_as_their_types_read_them() -> Result<()> {
    let mut server = Server::named("capture-parameters")?;
    server.db.batch_execute(
        "CREATE TABLE typed (i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric, b boolean, t text, vc varchar(20), c char(4), \
           na name, d date, ts timestamp, tz timestamptz, u uuid, o oid, iv interval, j jsonb, a integer[], ta text[], ti time, by bytea)",
    )?;
    server.reset()?;
    let values = [
        ("i2", "int2", "-3"),
        ("i4", "int4", "2147483647"),
        ("i8", "int8", "-9223372036854775808"),
        ("f4", "float4", "1.5"),
        ("f8", "float8", "-1e-300"),
        ("n", "numeric", "12345678901234567890.123"),
        ("b", "boolean", "true"),
        ("t", "text", "it''s \"{,}\" \\ ä😀"),
        ("vc", "varchar", "v"),
        ("c", "char(4)", "ab"),
        ("na", "name", "somebody"),
        ("d", "date", "2024-02-29"),
        ("ts", "timestamp", "1999-12-31 23:59:59.999999"),
        ("tz", "timestamptz", "2024-06-01 12:00:00+02"),
        ("u", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("o", "oid", "4294967295"),
    ];
    let mut session = server.session()?;
    // The settings of the session that ran it are not those of the one that reads.
    session.batch_execute("SET DateStyle = 'German, DMY'; SET TimeZone = 'Asia/Tokyo'; SET extra_float_digits = -10; SET IntervalStyle = 'sql_standard'")?;
    for (column, kind, value) in values {
        session.batch_execute(&format!(
            "PREPARE p({kind}) AS SELECT 1 FROM typed WHERE {column} = $1; EXECUTE p('{value}'); DEALLOCATE p"
        ))?;
        session.batch_execute(&format!(
            "PREPARE p({kind}) AS SELECT 2, 2 FROM typed WHERE {column} = $1; EXECUTE p(NULL); DEALLOCATE p"
        ))?;
    }
    server.expect("all", &format!("SELECT count(*)::text FROM indexpilot.workload w WHERE {}", on("typed")), "32")?;
    for (column, kind, value) in values {
        let kept = format!(
            "SELECT coalesce(bool_and(s.parameter_values[1]::{kind} = '{value}'::{kind})::text, 'no value') \
             FROM indexpilot.workload_samples s WHERE s.query LIKE '%SELECT 1 FROM typed WHERE {column} = $1%'"
        );
        assert_eq!(text(&mut server.db, &kept)?, "true", "{column}");
    }
    Ok(())
}

#[test]
fn where_literals_are_not_wanted_there_are_none() -> Result<()> {
    let mut server = Server::start(Cluster::build("capture-literals").setting("indexpilot.capture_literals", "off"))?;
    server.db.batch_execute(
        "CREATE FUNCTION find(x text) RETURNS integer LANGUAGE plpgsql AS $$ DECLARE r integer; secret text := 'hidden' || 99; BEGIN \
           SELECT id INTO r FROM t WHERE label = x AND label <> 'hidden12'; \
           EXECUTE format('SELECT id FROM t WHERE label = %L LIMIT 1', x) INTO r; \
           PERFORM v FROM t WHERE label = secret; RETURN r; END $$",
    )?;
    server.reset()?;
    let mut session = server.session()?;
    session.batch_execute("SELECT v FROM t WHERE label = 'hidden01' AND id = 4711001")?;
    session.batch_execute("SELECT v FROM t WHERE label = $tag$hidden03$tag$ OR label = E'hid\\x64en4' OR label = U&'hidden05'")?;
    session.query("SELECT v, id FROM t WHERE label = $1", &[&"hidden07"])?;
    session.batch_execute("PREPARE p(text) AS SELECT id FROM t WHERE label = $1 AND id <> 4711002; EXECUTE p('hidden08')")?;
    session.batch_execute("UPDATE t SET label = 'hidden09' WHERE id = -4711003; INSERT INTO t VALUES (-4711004, 1, 'hidden10')")?;
    session.batch_execute("COPY (SELECT v FROM t WHERE label = 'hidden11') TO '/dev/null'")?;
    session.batch_execute("SELECT find('hidden13'); DO $$ BEGIN PERFORM v FROM t WHERE label = 'hidden14'; END $$")?;
    session.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT id FROM t WHERE label = 'hidden15'; FETCH 1 FROM c; COMMIT")?;
    let _ = session.batch_execute("SELECT 'hidden16'::integer FROM t WHERE id = 4711005");
    session.batch_execute("CREATE TABLE made AS SELECT v FROM t WHERE label = 'hidden19'")?;
    session.batch_execute("CREATE MATERIALIZED VIEW seen AS SELECT v FROM t WHERE label = 'hidden20'")?;
    session.batch_execute("REFRESH MATERIALIZED VIEW seen; SELECT /* hidden21 */ v, 1 FROM t WHERE id = 1 -- hidden22")?;
    drop(session);
    let templates = counted_as("q.calls::text", &format!("q.calls > 0 AND w.query IS NOT NULL AND {}", on("t")));
    server.expect(
        "templates with texts",
        &format!("SELECT (count(*) >= 10)::text FROM unnest(string_to_array(({templates}), ', '))"),
        "true",
    )?;
    let all = everything(&mut server.db)?;
    let secrets = (1..=22).map(|n| format!("hidden{n:02}")).chain((1..=5).map(|n| format!("471100{n}")));
    let mut kept: Vec<&str> = Vec::new();
    for secret in secrets.chain(["hid\\x64en".to_owned()]) {
        kept.extend(all.lines().filter(|line| line.contains(&secret)));
    }
    assert!(kept.is_empty(), "literals were kept: {kept:#?}");
    // What waits for the worker when the server stops is written to a file.
    server.run(&["SELECT label FROM t WHERE label = 'hidden17'", "SELECT label, id FROM t WHERE label = 'hidden18'"])?;
    server.cluster.stop(Stop::Fast)?;
    if let Ok(file) = fs::read(server.cluster.data().join("pg_stat/indexpilot.stat")) {
        assert!(!file.windows(6).any(|w| w == b"hidden"), "the file of a clean stop has literals");
    }
    assert!(!server.cluster.log().contains("indexpilot: hidden"));
    Ok(())
}

#[test]
fn a_full_ring_drops_and_counts_and_takes_more_once_it_is_empty() -> Result<()> {
    let mut server = Server::start(Cluster::build("capture-ring").setting("indexpilot.capture_max_samples", 8))?;
    let mut session = server.session()?;
    let statement = |n: usize| format!("SELECT {} FROM t WHERE id = {n}", ["v"; 200][..=n].join(", "));
    for n in 0..200 {
        session.batch_execute(&statement(n))?;
    }
    let all = counted_as("q.calls::text", &on("t"));
    let all = format!("SELECT count(*) || ' ' || sum(l::integer) FROM unnest(string_to_array(({all}), ', ')) l");
    server.expect("every execution", &all, "200 200")?;
    assert!(server.figure("capture_samples_dropped")? >= 150, "{}", server.figures()?);
    let kept = column(&mut server.db, &samples(&on("t")))?.len();
    assert!((1..=50).contains(&kept), "{kept} kept");
    // What found the ring full is sampled later, when it goes on running.
    poll_until(LIMIT, "a sample of each of them", || {
        for n in 0..200 {
            session.batch_execute(&statement(n))?;
            if n % 8 == 7 {
                server.db.batch_execute("SELECT indexpilot.capture_flush()")?;
            }
        }
        let sampled = format!(
            "SELECT count(DISTINCT s.workload_id)::text FROM indexpilot.workload_samples s \
                               JOIN indexpilot.workload w ON w.id = s.workload_id WHERE {}",
            on("t")
        );
        Ok(text(&mut server.db, &sampled)? == "200")
    })?;
    server.expect_no_loss()
}
