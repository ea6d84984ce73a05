//! S60: what one role or tenant ran is nobody else's business. Without rights there is nothing to see; with rights on the views, the
//! texts, literals, errors and identifiers of other roles stay hidden; and nobody becomes another tenant by saying so.

use crate::capture::{LIMIT, Server, column, counted_as, on, text};
use indexpilot_tests::{Cluster, Result, poll_until};
use postgres::{Client, NoTls};

/// Two roles that run statements on `t`, for a tenant each, with names of columns and literals that tell whose they are; `alice` also
/// runs one that cannot be planned again, and whose error has a literal in it.
fn server_of_two(name: &str) -> Result<Server> {
    let mut server = Server::start(Cluster::build(name).setting("indexpilot.worker_interval", "200ms"))?;
    server.db.batch_execute(
        "CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE auditor LOGIN IN ROLE pg_monitor; \
         GRANT SELECT, UPDATE ON t TO alice, bob; \
         ALTER ROLE alice SET indexpilot.tenant_id = 'alices tenant'; ALTER ROLE bob SET indexpilot.tenant_id = 'bobs tenant'; \
         CREATE FUNCTION checked(x text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ \
           BEGIN IF coalesce(current_setting('app.ok', true), '') = '' THEN RAISE 'no % here', x; END IF; RETURN x; END $$",
    )?;
    for who in ["alice", "bob"] {
        let mut session = server.cluster.connect("postgres", who)?;
        for n in 0..5 {
            session.batch_execute(&format!("SELECT v AS {who}s_column FROM t WHERE label = '{who}s secret {n}'"))?;
        }
        session.query(&format!("SELECT id AS {who}s_key FROM t WHERE label = $1"), &[&format!("{who}s secret 6")])?;
        session.batch_execute(&format!("SET app.ok = 'yes'; UPDATE t SET v = v WHERE label = checked('{who}s secret 7')"))?;
        session.batch_execute(&format!("UPDATE t SET v = v WHERE label = checked('{who}s secret 8') AND v > 1"))?;
        let _ = session.batch_execute(&format!("SELECT '{who}s secret 9'::integer FROM t"));
    }
    let seen = counted_as("q.role_name::text", "q.role_name IN ('alice', 'bob') AND w.query IS NOT NULL");
    poll_until(LIMIT / 4, "all templates with their texts", || Ok(server.flushed(&seen)?.split(", ").count() >= 8))?;
    // So that they are planned, by the worker or by an analysis.
    server.db.batch_execute("SELECT count(*) FROM indexpilot.analyze_and_create_indexes(dry_run => true)")?;
    Ok(server)
}

/// What a role can read through the views and functions that it may use, with what it cannot read left out.
fn readable(session: &mut Client, server: &mut Server) -> Result<String> {
    let views =
        "SELECT format('indexpilot.%I', relname) FROM pg_class WHERE relnamespace = 'indexpilot'::regnamespace AND relkind = 'v'";
    let functions = "SELECT format('indexpilot.%I()', proname) FROM pg_proc WHERE pronamespace = 'indexpilot'::regnamespace \
                     AND prokind = 'f' AND pronargs = pronargdefaults AND has_function_privilege('pg_monitor', oid, 'EXECUTE')";
    let mut all = String::new();
    for source in column(&mut server.db, views)?.into_iter().chain(column(&mut server.db, functions)?) {
        match text(session, &format!("SELECT coalesce(string_agg(r::text, E'\\n'), '') FROM {source} r")) {
            Ok(rows) => all += &format!("{source}: {rows}\n"),
            Err(e) if e.to_string().ends_with("(42501)") => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

fn refused(session: &mut Client, sql: &str) -> Result<bool> {
    match session.batch_execute(sql) {
        Ok(()) => Ok(false),
        Err(e) => Ok(e.code().is_some_and(|c| c.code() == "42501")),
    }
}

#[test]
fn s60_without_rights_there_is_nothing_to_see() -> Result<()> {
    let mut server = server_of_two("capture-s60-none")?;
    let rights = "SELECT count(*)::text FROM ( \
        SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'indexpilot'::regnamespace AND relkind IN ('r', 'v', 'S') \
           AND (has_table_privilege('bob', oid, 'SELECT') OR has_table_privilege('bob', oid, 'INSERT, UPDATE, DELETE, TRUNCATE')) \
        UNION ALL SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'indexpilot'::regnamespace \
           AND has_function_privilege('bob', oid, 'EXECUTE') \
        UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = 'indexpilot' AND has_schema_privilege('bob', oid, 'USAGE')) r";
    assert_eq!(text(&mut server.db, rights)?, "0");
    let mut bob = server.cluster.connect("postgres", "bob")?;
    for relation in ["workload", "workload_sample", "query_stats", "queries", "workload_samples", "status"] {
        assert!(refused(&mut bob, &format!("SELECT * FROM indexpilot.{relation}"))?, "{relation}");
    }
    for call in ["capture_flush()", "capture_reset()", "get_system_status()", "analyze_and_create_indexes()", "what_if('SELECT 1')"]
    {
        assert!(refused(&mut bob, &format!("SELECT indexpilot.{call}"))?, "{call}");
    }
    Ok(())
}

#[test]
fn s60_who_may_read_the_views_sees_only_what_he_ran() -> Result<()> {
    let mut server = server_of_two("capture-s60-views")?;
    // Everything that may be read is granted, but the tables below the views.
    let grants = "SELECT string_agg(g, '; ') FROM ( \
        SELECT format('GRANT SELECT ON indexpilot.%I TO bob', relname) AS g FROM pg_class \
         WHERE relnamespace = 'indexpilot'::regnamespace AND relkind = 'v' \
        UNION ALL SELECT format('GRANT EXECUTE ON FUNCTION %s TO bob', oid::regprocedure) FROM pg_proc \
         WHERE pronamespace = 'indexpilot'::regnamespace AND prokind IN ('f', 'a') AND has_function_privilege('pg_monitor', oid, 'EXECUTE')) g";
    let grants = text(&mut server.db, grants)?;
    server.db.batch_execute(&format!("GRANT USAGE ON SCHEMA indexpilot TO bob; {grants}"))?;
    let mut bob = server.cluster.connect("postgres", "bob")?;
    let bobs = readable(&mut bob, &mut server)?;
    assert!(bobs.contains("bobs_column") && bobs.contains("bobs secret"), "bob does not see his own: {bobs}");
    for word in ["alices_column", "alices_key", "alices secret"] {
        let lines: Vec<&str> = bobs.lines().filter(|l| l.contains(word)).collect();
        assert!(lines.is_empty(), "bob sees {word}: {lines:#?}");
    }
    // Nor does he learn from an identifier which statement it is that another role runs.
    let queryids = "SELECT w.queryid::text FROM indexpilot.workload w WHERE w.role_id = 'alice'::regrole \
                    AND w.queryid NOT IN (SELECT o.queryid FROM indexpilot.workload o WHERE o.role_id = 'bob'::regrole)";
    for queryid in column(&mut server.db, queryids)? {
        let lines: Vec<&str> = bobs.lines().filter(|l| l.contains(&queryid)).collect();
        assert!(lines.is_empty(), "bob sees the query identifier {queryid}: {lines:#?}");
    }
    // A function of his own in a condition is given nothing that the view would hide.
    bob.batch_execute(
        "CREATE TEMP TABLE leaked (what text); \
         CREATE FUNCTION pg_temp.leak(x text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ \
           BEGIN INSERT INTO leaked VALUES (x); RETURN true; END $$",
    )?;
    let columns = "SELECT format('SELECT count(*) FROM indexpilot.%I v WHERE pg_temp.leak(v.%I::text)', c.relname, a.attname) \
                   FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                   WHERE c.relnamespace = 'indexpilot'::regnamespace AND c.relkind = 'v'";
    for query in column(&mut server.db, columns)? {
        let _ = bob.batch_execute(&query);
    }
    let tried = "SELECT (count(*) FILTER (WHERE what LIKE '%bobs\\_%') > 0)::text FROM leaked";
    assert_eq!(text(&mut bob, tried)?, "true");
    let leaked = "SELECT coalesce(string_agg(DISTINCT what, ' '), '') FROM leaked WHERE what LIKE '%alices\\_%' OR what LIKE '%alices secret%'";
    assert_eq!(text(&mut bob, leaked)?, "");
    // Who may read all statistics sees everything.
    let mut auditor = server.cluster.connect("postgres", "auditor")?;
    let all = readable(&mut auditor, &mut server)?;
    for word in ["alices_column", "alices_key", "alices secret", "bobs_column", "bobs secret"] {
        assert!(all.contains(word), "the auditor does not see {word}");
    }
    Ok(())
}

#[test]
fn s60_nobody_becomes_another_tenant_by_saying_so() -> Result<()> {
    let mut server = server_of_two("capture-s60-tenant")?;
    let mut bob = server.cluster.connect("postgres", "bob")?;
    bob.batch_execute("SELECT label AS plain FROM t WHERE id = 1")?;
    for attempt in [
        "SET indexpilot.tenant_id = 'alices tenant'",
        "SET SESSION indexpilot.tenant_id = 'alices tenant'",
        "BEGIN; SET LOCAL indexpilot.tenant_id = 'alices tenant'",
        "SELECT set_config('indexpilot.tenant_id', 'alices tenant', false)",
        "RESET indexpilot.tenant_id",
        "ALTER ROLE bob SET indexpilot.tenant_id = 'alices tenant'",
        "ALTER ROLE bob RESET indexpilot.tenant_id",
        "CREATE FUNCTION pg_temp.f() RETURNS integer LANGUAGE sql SET indexpilot.tenant_id = 'alices tenant' AS 'SELECT 1'",
        "SET indexpilot.capture = off",
        "SET indexpilot.capture_literals = off",
        "SET indexpilot.capture_track = 'top'",
    ] {
        assert!(refused(&mut bob, attempt)?, "{attempt} is not refused");
        let _ = bob.batch_execute("ROLLBACK");
        bob.batch_execute("SELECT label AS plain FROM t WHERE id = 1")?;
    }
    let options = server.cluster.config("postgres", "bob").options("-c indexpilot.tenant_id=alices_tenant").connect(NoTls);
    let code = options.err().and_then(|e| e.code().map(|c| c.code().to_owned()));
    assert_eq!(code.as_deref(), Some("42501"));
    let tenants = format!(
        "SELECT string_agg(DISTINCT s.tenant_id, ', ') || ' ' || sum(s.calls) FROM indexpilot.query_stats s \
         JOIN indexpilot.workload w ON w.id = s.workload_id WHERE w.query LIKE 'SELECT label AS plain%' AND {}",
        on("t")
    );
    server.expect("whom bob worked for", &tenants, "bobs tenant 12")?;
    // Who was given the right may.
    server.db.batch_execute("GRANT SET ON PARAMETER indexpilot.tenant_id TO bob")?;
    bob.batch_execute("SET indexpilot.tenant_id = 'a third'; SELECT label AS plain FROM t WHERE id = 1")?;
    bob.batch_execute("SELECT label AS plain FROM t WHERE id = 1")?;
    server.expect(
        "a right to speak for tenants",
        &tenants.replace("DISTINCT s.tenant_id", "DISTINCT s.tenant_id || ''"),
        "a third, bobs tenant 14",
    )
}
