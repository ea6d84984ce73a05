//! The processes beside what administrators do: databases that are dropped, renamed, moved and copied, extensions that come and go,
//! settings that are meant for others, and a launcher that dies.

use indexpilot_tests::{Builder, Cluster, Result, Stop, number, poll_until, text};
use postgres::{Client, NoTls};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// A database `shop` that belongs to a role without any other right than to make databases, and two spare ones.
fn start(builder: Builder) -> Result<Cluster> {
    let cluster = builder
        .setting("indexpilot.worker_interval", "100ms")
        .setting("indexpilot.guard_max_transaction_age", "1h")
        .setting("indexpilot.guard_breaker_failures", 0)
        .setting("indexpilot.guard_max_index_share", 100)
        .setting("indexpilot.verify_delay", "1h")
        .setting("indexpilot.select", "off")
        .setting("allow_in_place_tablespaces", "on")
        .setting("autovacuum", "off")
        .start()?;
    let mut admin = cluster.connect("postgres", "postgres")?;
    for sql in [
        "CREATE ROLE shopkeeper LOGIN CREATEDB",
        "CREATE ROLE stranger LOGIN",
        "CREATE DATABASE shop OWNER shopkeeper",
        "CREATE TABLESPACE attic LOCATION ''",
        "GRANT CREATE ON TABLESPACE attic TO shopkeeper",
        "GRANT CREATE ON TABLESPACE pg_default TO shopkeeper",
    ] {
        admin.batch_execute(sql)?;
    }
    furnish(&mut connect(&cluster)?)?;
    Ok(cluster)
}

fn cluster(name: &str) -> Result<Cluster> {
    start(Cluster::build(name))
}

/// The extension, a table, and an expression whose index takes minutes to build.
fn furnish(db: &mut Client) -> Result<()> {
    Ok(db.batch_execute(
        "CREATE EXTENSION indexpilot; CREATE TABLE goods (id integer, price integer); \
         INSERT INTO goods SELECT i, i % 100 FROM generate_series(1, 1000) i; \
         CREATE FUNCTION slow(i integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql \
         AS $$ BEGIN PERFORM pg_catalog.pg_sleep(0.1); RETURN i; END $$",
    )?)
}

fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("shop", "postgres")
}

/// Queues the building of an index on `goods`.
fn enqueue(db: &mut Client, name: &str, key: &str) -> Result<i64> {
    let statement = format!("CREATE INDEX CONCURRENTLY {name} ON public.goods USING btree ({key})");
    indexpilot_tests::enqueue(db, "create", "public.goods", name, &statement)
}

fn built(db: &mut Client, id: i64) -> Result<()> {
    let row =
        format!("SELECT concat_ws(' ', state, attempts, blocked_reason, error_message) FROM indexpilot.actions WHERE id = {id}");
    let mut now = String::new();
    let waited = poll_until(LIMIT, &format!("action {id} to be built"), || {
        db.execute(
            "UPDATE indexpilot.actions SET not_before = now() WHERE id = $1 AND state = 'queued' AND not_before > now()",
            &[&id],
        )?;
        now = text(db, &row)?;
        Ok(now.starts_with("built") || now.starts_with("verifying"))
    });
    waited.map_err(|e| format!("{e}; it is {now}").into())
}

/// The actions and processes as they are, for the message of a wait in vain.
fn explained(db: &mut Client, error: impl std::fmt::Display) -> Box<dyn std::error::Error + Send + Sync> {
    let rows = "SELECT string_agg(concat_ws(' ', id, index_name, state, attempts, worker_pid, not_before - now(), blocked_reason, error_message), E'\n') \
                FROM indexpilot.actions WHERE state NOT IN ('cancelled', 'verifying')";
    let processes =
        "SELECT string_agg(concat_ws(' ', pid, backend_type, datname, state, wait_event, query), E'\n') FROM pg_stat_activity";
    let mut all = format!("{error}\n");
    for sql in [rows, processes] {
        all += &text(db, sql).unwrap_or_else(|e| e.to_string());
        all += "\n";
    }
    all.into()
}

/// Queues a build that takes long and waits until it runs; returns the builder's process.
fn long_build(db: &mut Client, name: &str) -> Result<i32> {
    enqueue(db, name, "(public.slow(price))")?;
    let sql = "SELECT a.pid FROM pg_stat_progress_create_index p JOIN pg_stat_activity a USING (pid) \
               WHERE p.phase LIKE 'building%' AND a.backend_type = 'indexpilot builder'";
    let mut pid = 0;
    let waited = poll_until(LIMIT, "the build to run", || {
        pid = db.query_opt(sql, &[])?.map_or(0, |row| row.get(0));
        Ok(pid != 0)
    });
    waited.map_err(|e| explained(db, e))?;
    Ok(pid)
}

/// What was queued is called off, so that nobody waits for it.
fn call_off(db: &mut Client) -> Result<()> {
    let waited = poll_until(LIMIT, "the builder to have cleared up", || {
        db.batch_execute("SELECT indexpilot.cancel(id) FROM indexpilot.actions WHERE state IN ('queued', 'building')")?;
        Ok(number(db, "SELECT count(*) FROM indexpilot.actions WHERE state IN ('queued', 'building')")? == 0)
    });
    waited.map_err(|e| explained(db, e))?;
    assert_eq!(number(db, "SELECT count(*) FROM pg_index WHERE NOT indisvalid")?, 0);
    Ok(())
}

fn pid_of(db: &mut Client, what: &str) -> Result<i64> {
    number(db, &format!("SELECT coalesce(max(pid), 0)::bigint FROM pg_stat_activity WHERE backend_type = 'indexpilot {what}'"))
}

fn launcher_again(db: &mut Client, old: i64) -> Result<()> {
    poll_until(LIMIT, "a new launcher", || Ok(![0, old].contains(&pid_of(db, "launcher")?)))
}

#[test]
fn w34_the_launcher_comes_back_and_goes_on_after_errors() -> Result<()> {
    let cluster = cluster("server-launcher")?;
    let mut db = connect(&cluster)?;
    let first = pid_of(&mut db, "launcher")?;
    db.execute("SELECT pg_terminate_backend($1)", &[&(first as i32)])?;
    launcher_again(&mut db, first)?;
    let id = enqueue(&mut db, "a", "id")?;
    built(&mut db, id)?;

    // An error in the middle of its round: it waits for the list of databases, and is cancelled.
    let launcher = pid_of(&mut db, "launcher")?;
    let mut holder = connect(&cluster)?;
    holder.batch_execute("BEGIN; LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE")?;
    // Not the view, which would wait for the same lock.
    let waits = format!("SELECT count(*) FROM pg_stat_get_activity({launcher}) WHERE wait_event_type = 'Lock'");
    poll_until(LIMIT, "the launcher to wait", || Ok(number(&mut db, &waits)? == 1))?;
    db.execute("SELECT pg_cancel_backend($1)", &[&(launcher as i32)])?;
    poll_until(LIMIT, "the error", || Ok(cluster.log().contains("the launcher could not do its round")))?;
    holder.batch_execute("ROLLBACK")?;
    let id = enqueue(&mut db, "b", "id")?;
    built(&mut db, id)?;
    assert_eq!(pid_of(&mut db, "launcher")?, launcher);

    // Killed, it takes the sessions with it, as any process of the server does; there is one of each afterwards.
    cluster.kill9(launcher as i32)?;
    poll_until(LIMIT, "the session to end", || Ok(db.batch_execute("SELECT 1").is_err()))?;
    poll_until(LIMIT, "the server to recover", || Ok(connect(&cluster).and_then(|mut db| text(&mut db, "SELECT ''")).is_ok()))?;
    let mut db = connect(&cluster)?;
    launcher_again(&mut db, launcher)?;
    let id = enqueue(&mut db, "c", "id")?;
    built(&mut db, id)?;
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'indexpilot launcher'";
    assert_eq!(number(&mut db, ours)?, 1);
    Ok(())
}

#[test]
fn w35_nobody_waits_for_a_standby_that_is_not_there() -> Result<()> {
    let mut cluster =
        start(Cluster::build("server-sync").setting("synchronous_standby_names", "nobody").setting("synchronous_commit", "local"))?;
    cluster.configure("synchronous_commit", "remote_apply")?;
    cluster.reload()?;
    let mut db = connect(&cluster)?;
    poll_until(LIMIT, "the setting", || Ok(text(&mut db, "SHOW synchronous_commit")? == "remote_apply"))?;
    db.batch_execute("SET synchronous_commit = local")?;
    let id = enqueue(&mut db, "a", "id")?;
    built(&mut db, id)?;
    long_build(&mut db, "b")?;
    let since = Instant::now();
    cluster.stop(Stop::Fast)?;
    assert!(since.elapsed() < Duration::from_secs(10), "it took {:?} to stop", since.elapsed());
    Ok(())
}

/// Commands on `shop` and what undoes them.
const COMMANDS: [(&str, &str); 4] = [
    ("CREATE DATABASE twin TEMPLATE shop", "DROP DATABASE twin"),
    ("ALTER DATABASE shop SET TABLESPACE attic", "ALTER DATABASE shop SET TABLESPACE pg_default"),
    ("ALTER DATABASE shop RENAME TO store", "ALTER DATABASE store RENAME TO shop"),
    ("ALTER DATABASE shop CONNECTION LIMIT 5", "ALTER DATABASE shop CONNECTION LIMIT -1"),
];

#[test]
fn w36_commands_on_a_database_succeed_while_we_work_in_it() -> Result<()> {
    let cluster = cluster("server-commands")?;
    for role in ["postgres", "shopkeeper"] {
        let mut session = cluster.connect("postgres", role)?;
        for (n, (command, back)) in COMMANDS.iter().enumerate() {
            let mut db = connect(&cluster)?;
            long_build(&mut db, &format!("i{n}_{role}"))?;
            drop(db);
            for sql in [command, back] {
                let since = Instant::now();
                session.batch_execute(sql).map_err(|e| format!("{role}: {sql}: {e:?}"))?;
                assert!(since.elapsed() < Duration::from_secs(10), "{role}: {sql}: it took {:?}", since.elapsed());
            }
            call_off(&mut connect(&cluster)?)?;
        }
        // Nobody of ours but those who visit: again and again, without an error.
        for round in 0..10 {
            for sql in [COMMANDS[2].0, COMMANDS[2].1, "CREATE DATABASE twin TEMPLATE shop", "DROP DATABASE twin"] {
                session.batch_execute(sql).map_err(|e| format!("{role}, round {round}: {sql}: {e:?}"))?;
            }
        }
    }
    // Given back, it is served as before.
    let mut db = connect(&cluster)?;
    let id = enqueue(&mut db, "last", "id")?;
    built(&mut db, id)?;
    Ok(())
}

#[test]
fn w36_a_database_goes_while_we_work_in_it() -> Result<()> {
    let cluster = cluster("server-drops")?;
    let mut admin = cluster.connect("postgres", "postgres")?;
    for (n, (role, options)) in
        [("postgres", ""), ("shopkeeper", ""), ("postgres", " WITH (FORCE)"), ("shopkeeper", " WITH (FORCE)")].iter().enumerate()
    {
        let name = format!("gone{n}");
        admin.batch_execute(&format!("CREATE DATABASE {name} OWNER shopkeeper"))?;
        let mut db = cluster.connect(&name, "postgres")?;
        furnish(&mut db)?;
        let pid = long_build(&mut db, "i")?;
        drop(db);
        // Who may not drop it disturbs nobody, with whatever word.
        let sql = format!("DROP DATABASE {name}{options}");
        let refused = cluster.connect("postgres", "stranger")?.batch_execute(&sql);
        assert!(refused.is_err_and(|e| e.code().is_some_and(|c| c.code() == "42501")));
        assert_eq!(number(&mut admin, &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"))?, 1);
        let since = Instant::now();
        cluster.connect("postgres", role)?.batch_execute(&sql).map_err(|e| format!("{role}: {sql}: {e:?}"))?;
        assert!(since.elapsed() < Duration::from_secs(10), "{role}: {sql}: it took {:?}", since.elapsed());
        assert_eq!(number(&mut admin, &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"))?, 0);
    }
    assert_eq!(number(&mut admin, "SELECT count(*) FROM pg_database WHERE datconnlimit = -2")?, 0);
    // Several rounds of the launcher later nobody has tried to go where nothing is.
    let mut db = connect(&cluster)?;
    for name in ["a", "b"] {
        let id = enqueue(&mut db, name, "id")?;
        built(&mut db, id)?;
    }
    assert!(!cluster.log().contains("does not exist"), "{}", cluster.log_tail(30));
    Ok(())
}

#[test]
fn w37_commands_elsewhere_wait_for_nobody_of_ours() -> Result<()> {
    let cluster = cluster("server-elsewhere")?;
    let mut admin = cluster.connect("postgres", "postgres")?;
    for sql in ["CREATE DATABASE other", "CREATE TABLESPACE spare LOCATION ''", "CREATE DATABASE third TABLESPACE attic"] {
        admin.batch_execute(sql)?;
    }
    let mut db = connect(&cluster)?;
    let pid = long_build(&mut db, "i")?;
    // Each of them asks every process of the server to close its files, and waits until all have.
    for sql in [
        "DROP DATABASE other",
        "ALTER DATABASE third SET TABLESPACE pg_default",
        "DROP TABLESPACE spare",
        "DROP DATABASE third",
        "DROP TABLESPACE attic",
    ] {
        let since = Instant::now();
        admin.batch_execute(sql)?;
        assert!(since.elapsed() < Duration::from_secs(10), "{sql}: it took {:?}", since.elapsed());
    }
    assert_eq!(pid_of(&mut db, "builder")?, i64::from(pid), "the build went on");
    Ok(())
}

#[test]
fn w38_the_extension_goes_and_comes_while_we_work() -> Result<()> {
    let cluster = cluster("server-extension")?;
    let mut db = connect(&cluster)?;
    let states = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    // Taken back: nothing has happened, and the build is recorded.
    db.batch_execute("CREATE FUNCTION brief(i integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.pg_sleep(0.002); RETURN i; END $$")?;
    let id = enqueue(&mut db, "brief", "(public.brief(price))")?;
    poll_until(LIMIT, "the build to run", || {
        Ok(number(&mut db, "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'building%'")? == 1)
    })?;
    db.batch_execute("BEGIN; DROP EXTENSION indexpilot CASCADE; ROLLBACK")?;
    db.batch_execute("ALTER EXTENSION indexpilot UPDATE")?;
    built(&mut db, id)?;

    // Gone in the middle of a build: the index is the user's, whole or not there; nobody is left, and all begins anew.
    for round in 0..3 {
        let pid = long_build(&mut db, &format!("left{round}"))?;
        let since = Instant::now();
        db.batch_execute("DROP EXTENSION indexpilot CASCADE")?;
        assert!(since.elapsed() < Duration::from_secs(10), "it took {:?}", since.elapsed());
        if round == 1 {
            db.batch_execute("CREATE EXTENSION indexpilot")?;
        }
        db.execute("SELECT pg_terminate_backend($1)", &[&pid])?;
        poll_until(LIMIT, "the builder to end", || Ok(pid_of(&mut db, "builder")? == 0))?;
        if round != 1 {
            db.batch_execute("CREATE EXTENSION indexpilot")?;
        }
        // What carries a tag of ours and cannot be used is removed by whoever comes next.
        poll_until(LIMIT, "what is unusable to be removed", || Ok(number(&mut db, states)? == 0))?;
        let id = enqueue(&mut db, &format!("again{round}"), "id")?;
        built(&mut db, id)?;
    }
    // Ended by an error instead, the builder removes what it has left itself.
    let pid = long_build(&mut db, "rest")?;
    db.batch_execute("DROP EXTENSION indexpilot CASCADE")?;
    assert_eq!(number(&mut db, states)?, 1);
    db.execute("SELECT pg_cancel_backend($1)", &[&pid])?;
    poll_until(LIMIT, "the builder to clear up", || Ok(number(&mut db, states)? == 0))?;
    db.batch_execute("CREATE EXTENSION indexpilot")?;
    // Dropped and made in one transaction, while visits go on.
    for _ in 0..5 {
        db.batch_execute("BEGIN; DROP EXTENSION indexpilot CASCADE; CREATE EXTENSION indexpilot; COMMIT")?;
    }
    let id = enqueue(&mut db, "last", "id")?;
    built(&mut db, id)?;
    let log = cluster.log();
    assert!(!log.contains("deadlock") && !log.contains("PANIC") && !log.contains("could not"), "{}", cluster.log_tail(30));
    Ok(())
}

#[test]
fn w38_whoever_drops_the_extension_does_not_meet_a_visit() -> Result<()> {
    let cluster = cluster("server-visits")?;
    let mut db = connect(&cluster)?;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'indexpilot%' AND wait_event_type = 'Lock'";
    let mut other = connect(&cluster)?;
    let drops = [
        "DROP EXTENSION indexpilot CASCADE",
        "ALTER EXTENSION indexpilot UPDATE; DROP EXTENSION IF EXISTS indexpilot CASCADE",
        "DROP SCHEMA indexpilot CASCADE",
        "DROP OWNED BY keeper CASCADE",
    ];
    db.batch_execute("CREATE ROLE keeper SUPERUSER")?;
    for drop in drops {
        // A visit that waits for one of the tables has used others before.
        for table in ["workload", "workload_stats", "actions", "index_trial"] {
            poll_until(LIMIT, "a visit", || {
                Ok(text(&mut other, "SELECT value FROM indexpilot.status WHERE name = 'registered'")? == "true")
            })?;
            other.batch_execute("SELECT id FROM goods WHERE id = 1; UPDATE goods SET price = 1 WHERE id = 1")?;
            db.batch_execute(&format!("BEGIN; LOCK TABLE indexpilot.{table} IN ACCESS EXCLUSIVE MODE"))?;
            poll_until(LIMIT, &format!("a visit that waits for {table}"), || Ok(number(&mut other, waits)? > 0))?;
            let since = Instant::now();
            db.batch_execute(drop).map_err(|e| format!("{drop}, with {table} locked: {e:?}"))?;
            assert!(since.elapsed() < Duration::from_secs(10), "{drop}: it took {:?}", since.elapsed());
            db.batch_execute("COMMIT; DROP SCHEMA IF EXISTS indexpilot; SET ROLE keeper; CREATE EXTENSION indexpilot; RESET ROLE")?;
        }
    }
    assert!(!cluster.log().contains("deadlock"), "{}", cluster.log_tail(30));
    Ok(())
}

#[test]
fn w40_there_is_one_builder_however_many_ask() -> Result<()> {
    let cluster = cluster("server-one")?;
    let mut db = connect(&cluster)?;
    db.batch_execute("INSERT INTO goods SELECT i, i % 100 FROM generate_series(1, 100000) i")?;
    for n in 0..3 {
        db.batch_execute(&format!("CREATE INDEX mine{n} ON goods (id)"))?;
    }
    let done = AtomicBool::new(false);
    let mut most = (0, 0);
    std::thread::scope(|scope| -> Result<()> {
        let (cluster, done) = (&cluster, &done);
        // Every commit of theirs asks for a builder and a visit.
        let askers: Vec<_> = (0..3)
            .map(|n| {
                scope.spawn(move || -> Result<()> {
                    let mut session = connect(cluster)?;
                    while !done.load(SeqCst) {
                        session.batch_execute(&format!(
                            "SELECT indexpilot.hide_index('mine{n}'); SELECT indexpilot.show_index('mine{n}')"
                        ))?;
                    }
                    Ok(())
                })
            })
            .collect();
        let ids: Vec<i64> = (0..6).map(|n| enqueue(&mut db, &format!("i{n}"), "id, price")).collect::<Result<_>>()?;
        let worked = poll_until(LIMIT, "all actions to be carried out", || {
            let row = db.query_one(
                "SELECT count(*) FILTER (WHERE backend_type = 'indexpilot builder'), count(*) FILTER (WHERE backend_type = 'indexpilot worker') \
                 FROM pg_stat_activity WHERE datname = 'shop'",
                &[],
            )?;
            let seen: (i64, i64) = (row.get(0), row.get(1));
            most = (most.0.max(seen.0), most.1.max(seen.1));
            Ok(number(&mut db, "SELECT count(*) FROM indexpilot.actions WHERE state IN ('built', 'verifying')")?
                == ids.len() as i64)
        });
        done.store(true, SeqCst);
        let worked = worked.map_err(|e| explained(&mut db, e));
        for asker in askers {
            asker.join().map_err(|_| "an asker panicked")??;
        }
        worked
    })?;
    assert_eq!(most, (1, 1), "builders and workers at the same time");
    assert_eq!(number(&mut db, "SELECT max(attempts)::bigint FROM indexpilot.actions")?, 1);
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.mutation_log WHERE mutation = 'create_index'")?, 6);
    Ok(())
}

#[test]
fn w44_databases_that_are_closed_are_passed_over_in_silence() -> Result<()> {
    let cluster = cluster("server-closed")?;
    let mut admin = cluster.connect("postgres", "postgres")?;
    let mut db = connect(&cluster)?;
    let closed = [
        ("closed", "ALTER DATABASE closed ALLOW_CONNECTIONS false"),
        ("pattern", "ALTER DATABASE pattern IS_TEMPLATE true ALLOW_CONNECTIONS false"),
        ("broken", "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'broken'"),
        ("crowded", "ALTER DATABASE crowded CONNECTION LIMIT 0"),
    ];
    for (name, close) in closed {
        admin.batch_execute(&format!("CREATE DATABASE {name}"))?;
        let mut session = cluster.connect(name, "postgres")?;
        furnish(&mut session)?;
        let id = enqueue(&mut session, "known", "id")?;
        built(&mut session, id)?;
        drop(session);
        admin.batch_execute(close)?;
    }
    let said = cluster.log().len();
    // A restart forgets what was known of them; a file tells it which were captured.
    let mut cluster = cluster;
    drop((admin, db));
    cluster.restart(Stop::Fast)?;
    let mut admin = cluster.connect("postgres", "postgres")?;
    db = connect(&cluster)?;
    for name in ["a", "b", "c"] {
        let id = enqueue(&mut db, name, "id")?;
        built(&mut db, id)?;
    }
    let visited = "SELECT string_agg(DISTINCT datname, ' ') FROM pg_stat_activity WHERE backend_type LIKE 'indexpilot%' \
                   AND datname IN ('closed', 'pattern', 'broken')";
    assert_eq!(text(&mut admin, visited)?, "");
    let log = cluster.log().split_off(said);
    let complaints: Vec<&str> =
        log.lines().filter(|l| l.contains("FATAL") || l.contains("ERROR") || l.contains("WARNING")).collect();
    let complaints: Vec<&&str> = complaints.iter().filter(|l| !l.contains("terminating")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    // A limit is for users.
    let mut crowded = cluster.connect("crowded", "postgres")?;
    let id = enqueue(&mut crowded, "a", "id")?;
    built(&mut crowded, id)?;
    // Open again, it is looked after.
    admin.batch_execute("ALTER DATABASE closed ALLOW_CONNECTIONS true")?;
    let mut opened = cluster.connect("closed", "postgres")?;
    let id = enqueue(&mut opened, "a", "id")?;
    built(&mut opened, id)
}

#[test]
fn w45_settings_that_are_meant_for_others_change_nothing() -> Result<()> {
    let mut cluster = cluster("server-settings")?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO PUBLIC; \
         CREATE TABLE trap.actions (id integer); CREATE TABLE trap.goods (id integer)",
    )?;
    let settings = [
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_deferrable", "on"),
        ("statement_timeout", "1ms"),
        ("lock_timeout", "1ms"),
        ("idle_in_transaction_session_timeout", "1ms"),
        ("search_path", "trap"),
        ("default_tablespace", "attic"),
        ("session_replication_role", "replica"),
        ("row_security", "on"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("statement_timeout", "1ms"),
        ("check_function_bodies", "off"),
        ("standard_conforming_strings", "off"),
        ("DateStyle", "SQL, DMY"),
        ("IntervalStyle", "sql_standard"),
        ("TimeZone", "Asia/Kathmandu"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "-5"),
        ("quote_all_identifiers", "on"),
    ];
    // The session that sets them must not fall to them itself.
    let mut admin = safe(&cluster, "postgres")?;
    for (name, value) in settings {
        for scope in ["SYSTEM", "DATABASE shop", "ROLE postgres", "ROLE ALL"] {
            admin.batch_execute(
                &format!("ALTER {scope} SET {name} = '{}'", value.replace('\'', "''")).replace("'SQL, DMY'", "'SQL', 'DMY'"),
            )?;
        }
    }
    drop((admin, db));
    cluster.restart(Stop::Fast)?;
    let mut db = safe(&cluster, "shop")?;
    let said = cluster.log().len();
    for (name, key) in [("a", "id"), ("b", "(public.slow(id / 1000))")] {
        if name == "b" {
            db.batch_execute("DELETE FROM public.goods WHERE id > 20")?;
        }
        let id = enqueue(&mut db, name, key)?;
        built(&mut db, id)?;
    }
    let place = "SELECT string_agg(DISTINCT schemaname || ' ' || coalesce(tablespace, 'default'), ', ') FROM pg_indexes WHERE indexname IN ('a', 'b')";
    assert_eq!(text(&mut db, place)?, "public default");
    let visit = "SELECT value FROM indexpilot.status WHERE name = 'last_visit_s'";
    assert!(text(&mut db, visit)?.parse::<u32>().is_ok_and(|s| s < 10));
    let unhealthy = "SELECT string_agg(name || ': ' || detail, '; ') FROM indexpilot.health_check() WHERE state = 'error'";
    assert_eq!(text(&mut db, unhealthy)?, "");
    let log = cluster.log().split_off(said);
    let complaints: Vec<&str> =
        log.lines().filter(|l| l.contains("indexpilot") && (l.contains("WARNING") || l.contains("ERROR"))).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    Ok(())
}

/// A session whose own settings are as they come.
fn safe(cluster: &Cluster, database: &str) -> Result<Client> {
    let options = "-c default_transaction_read_only=off -c default_transaction_isolation=read\\ committed -c default_transaction_deferrable=off \
                   -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c search_path=public \
                   -c default_tablespace= -c session_replication_role=origin -c standard_conforming_strings=on -c quote_all_identifiers=off";
    Ok(cluster.config(database, "postgres").options(options).connect(NoTls)?)
}
