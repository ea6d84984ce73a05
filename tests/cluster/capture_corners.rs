//! Corners of capture: whose tenant and which level a statement has when cursors, functions, partitions and event triggers come
//! together, and what an error in a subtransaction leaves behind.

use crate::capture::{LIMIT, Server, counted, counted_as, on, said, text};
use indexpilot_tests::{Result, poll_until};
use postgres::Client;

/// A function that reads `t`.
const ONE: &str = "CREATE FUNCTION one(x integer) RETURNS integer LANGUAGE plpgsql AS $$ DECLARE r integer; \
                   BEGIN SELECT v INTO r FROM t WHERE id = x; RETURN r; END $$;";

/// A table whose statements name their tenant.
fn with_notes(server: &mut Server) -> Result<()> {
    server.db.batch_execute(
        "CREATE TABLE notes (tenant_id text, id integer); \
         INSERT INTO notes VALUES ('acme', 1), ('zeta', 2), ('moon', 3), ('teacher', 4); ANALYZE notes; \
         SELECT indexpilot.bootstrap_genome_catalog(); \
         UPDATE indexpilot.genome_catalog SET tenant_key = field_name = 'tenant_id' WHERE table_name = 'notes'",
    )?;
    server.reset()
}

/// An analysis studies new samples first, and learns from them, as the worker does at its next visit.
fn profile(server: &mut Server) -> Result<()> {
    Ok(server.db.batch_execute("SELECT indexpilot.analyze_and_create_indexes(dry_run => true)")?)
}

/// Runs something until it is known where it names its tenant.
fn learn(server: &mut Server, mut run: impl FnMut() -> Result<()>) -> Result<()> {
    let known = "SELECT count(*)::text FROM indexpilot.workload_profile WHERE tenant_source IS NOT NULL";
    let before = text(&mut server.db, known)?;
    run()?;
    poll_until(LIMIT, "the tenant to be learned", || {
        profile(server)?;
        Ok(text(&mut server.db, known)? != before)
    })
}

/// Calls by tenant of the templates that satisfy the condition.
fn by_tenant(condition: &str) -> String {
    format!(
        "SELECT string_agg(s.tenant_id || '=' || s.calls, ' ' ORDER BY s.tenant_id COLLATE \"C\") FROM (SELECT s.tenant_id, \
         sum(s.calls) AS calls FROM indexpilot.query_stats s JOIN indexpilot.workload w ON w.id = s.workload_id \
         WHERE {condition} GROUP BY 1) s"
    )
}

/// The statement must fail with this code.
fn fails(session: &mut Client, sql: &str, code: &str) -> Result<()> {
    let error = session.batch_execute(sql).err().ok_or_else(|| format!("{sql} does not fail"))?;
    assert_eq!(error.code().map(|c| c.code()), Some(code), "{sql}: {}", said(&error));
    Ok(())
}

#[test]
fn a_session_forgets_where_a_template_named_its_tenant() -> Result<()> {
    let mut server = Server::named("corners-forgotten-tenant")?;
    with_notes(&mut server)?;
    let mut session = server.session()?;
    let statement = session.prepare("SELECT id FROM notes WHERE tenant_id = $1")?;
    let mut run = |tenant: &str, times: usize| -> Result<()> {
        for _ in 0..times {
            session.query(&statement, &[&tenant])?;
        }
        Ok(())
    };
    learn(&mut server, || run("teacher", 3))?;
    run("acme", 2)?;
    run("zeta", 5)?;
    let calls = by_tenant(&on("notes"));
    server.expect("learned", &calls, "=3 acme=2 zeta=5")?;
    // The column is no tenant's any more: whoever runs it now, it is not the one who ran it last.
    server.db.batch_execute("UPDATE indexpilot.genome_catalog SET tenant_key = false")?;
    let unknown = "SELECT bool_and(tenant_source IS NULL)::text FROM indexpilot.workload_profile";
    poll_until(LIMIT, "the tenant to be forgotten", || {
        profile(&mut server)?;
        Ok(text(&mut server.db, unknown)? == "true")
    })?;
    run("moon", 4)?;
    server.expect("forgotten", &calls, "=7 acme=2 zeta=5")?;
    // And it is learned again.
    server.db.batch_execute("UPDATE indexpilot.genome_catalog SET tenant_key = true WHERE field_name = 'tenant_id'")?;
    poll_until(LIMIT, "the tenant to be learned again", || {
        profile(&mut server)?;
        Ok(text(&mut server.db, unknown)? == "false")
    })?;
    run("moon", 6)?;
    server.expect("learned again", &calls, "=7 acme=2 moon=6 zeta=5")?;
    server.expect_no_loss()
}

#[test]
fn an_open_cursor_gives_its_tenant_to_nobody_else() -> Result<()> {
    let mut server = Server::named("corners-cursor-tenant")?;
    server.db.batch_execute(ONE)?;
    with_notes(&mut server)?;
    let mut session = server.session()?;
    learn(&mut server, || Ok(session.batch_execute("SELECT one(id) FROM notes WHERE tenant_id = 'teacher'")?))?;
    for statement in [
        "BEGIN; SET LOCAL indexpilot.tenant_id = 'acme'",
        "DECLARE c CURSOR FOR SELECT one(id) FROM t WHERE id <= 4",
        "FETCH 2 FROM c",
        "SET LOCAL indexpilot.tenant_id = ''",
        "SELECT one(id) FROM notes WHERE tenant_id = 'zeta'",
        "SELECT one(7)",
        // It still belongs to the tenant that opened it.
        "FETCH 1 FROM c",
        "SELECT one(id) FROM notes WHERE tenant_id = 'moon'",
        "COMMIT",
    ] {
        session.batch_execute(statement).map_err(|e| format!("{statement}: {}", said(&e)))?;
    }
    // The one without a tenant before it was learned, and the one of nobody.
    server.expect("nested", &by_tenant(&format!("w.nested AND {}", on("t"))), "=2 acme=3 moon=1 zeta=1")?;
    server.expect("the cursor", &by_tenant(&format!("NOT w.nested AND {}", on("t"))), "acme=1")?;
    server.expect("their callers", &by_tenant(&on("notes")), "=1 moon=1 zeta=1")?;
    server.expect_no_loss()
}

#[test]
fn a_cursor_whose_fetch_failed_in_a_subtransaction_is_over() -> Result<()> {
    let mut server = Server::named("corners-failed-fetch")?;
    let mut session = server.session()?;
    session.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT 10 / (v - 7), v FROM t WHERE id BETWEEN 5 AND 10 ORDER BY id")?;
    session.batch_execute("FETCH 1 FROM c; SAVEPOINT a")?;
    fails(&mut session, "FETCH 5 FROM c", "22012")?;
    session.batch_execute("ROLLBACK TO a")?;
    fails(&mut session, "FETCH 1 FROM c", "55000")?;
    session.batch_execute("ROLLBACK TO a; CLOSE c")?;
    // What comes after it takes its memory, and much longer.
    for _ in 0..5 {
        session.batch_execute("SELECT relname, pg_sleep(0.2) FROM pg_class LIMIT 1")?;
        session.query("SELECT relname, relkind, pg_sleep(0.1) FROM pg_class LIMIT 1", &[])?;
    }
    session.batch_execute("COMMIT")?;
    server.expect_counted("the cursor", &on("t"), "select 0/1")?;
    let short = format!(
        "SELECT coalesce(string_agg((s.error_ms < 100)::text || s.rows, ' '), '') FROM indexpilot.query_stats s \
         JOIN indexpilot.workload w ON w.id = s.workload_id WHERE {}",
        on("t")
    );
    server.expect("its time", &short, "true0")?;
    server.expect_counted("catalogs", "w.query LIKE '%pg_class%'", "")?;

    // As many of them as a session keeps books of, and more, closed or not: nothing of them is left.
    server.reset()?;
    session.batch_execute("BEGIN")?;
    for n in 0..100 {
        session.batch_execute(&format!("DECLARE c{n} CURSOR FOR SELECT 10 / (v - 7) FROM t WHERE id = 7; SAVEPOINT a"))?;
        fails(&mut session, &format!("FETCH 5 FROM c{n}"), "22012")?;
        session.batch_execute("ROLLBACK TO a")?;
        if n % 2 == 0 {
            session.batch_execute(&format!("CLOSE c{n}"))?;
        }
        session.batch_execute("SELECT v FROM t WHERE id = 1")?;
    }
    session.batch_execute("COMMIT; SELECT v FROM t WHERE id = 1")?;
    server.expect_counted("all of them", &on("t"), "select 0/100, select 101/0")?;
    server.expect_no_loss()
}

#[test]
fn what_a_client_sends_is_nested_in_nothing() -> Result<()> {
    let mut server = Server::named("corners-own")?;
    server.db.batch_execute("CREATE MATERIALIZED VIEW m AS SELECT id, label FROM t WHERE id < 9")?;
    server.reset()?;
    let mut session = server.session()?;
    session.batch_execute("SELECT v FROM t WHERE id = 1; SELECT v FROM t WHERE id = 2")?;
    session.query("SELECT v FROM t WHERE id = $1", &[&3i32])?;
    session.batch_execute("PREPARE p(integer) AS SELECT v, id FROM t WHERE id = $1; EXECUTE p(1); EXECUTE p(2)")?;
    session.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT v, v FROM t WHERE id < 9; FETCH 3 FROM c; FETCH 3 FROM c; COMMIT")?;
    let mut transaction = session.transaction()?;
    let statement = transaction.prepare("SELECT v, v, v FROM t WHERE id < $1")?;
    let portal = transaction.bind(&statement, &[&9i32])?;
    while !transaction.query_portal(&portal, 3)?.is_empty() {}
    transaction.commit()?;
    session.batch_execute("CREATE TABLE other AS SELECT id, v FROM t WHERE id < 9")?;
    session.batch_execute("COPY (SELECT label FROM t WHERE id < 9) TO '/dev/null'")?;
    session.batch_execute("REFRESH MATERIALIZED VIEW m")?;
    session.batch_execute("UPDATE t SET v = v WHERE id = 1; DELETE FROM t WHERE id = -1")?;
    let calls = counted_as("format('%s%s', CASE WHEN w.nested THEN 'nested ' END, q.calls)", &on("t"));
    server.expect("calls", &calls, "1, 1, 1, 1, 1, 1, 1, 1, 2, 2")?;
    server.expect_no_loss()
}

/// Executions of `function` while an executor starts, to choose among partitions.
fn while_partitions_are_chosen(name: &str, body: &str) -> Result<()> {
    let mut server = Server::named(name)?;
    server.db.batch_execute(&format!(
        "CREATE TABLE part (id integer, v integer) PARTITION BY RANGE (id); \
         CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (10); \
         CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (10) TO (20); \
         INSERT INTO part VALUES (1, 1), (11, 11); \
         CREATE FUNCTION chosen() RETURNS integer LANGUAGE plpgsql STABLE AS $$ {body} $$"
    ))?;
    server.reset()?;
    let mut session = server.session()?;
    let plan = crate::capture::column(&mut session, "EXPLAIN SELECT v FROM part WHERE id = chosen()")?.join("\n");
    assert!(plan.contains("Subplans Removed: 1"), "{plan}");
    session.batch_execute("SET plan_cache_mode = force_generic_plan; PREPARE p AS SELECT v FROM part WHERE id = chosen()")?;
    for _ in 0..3 {
        assert_eq!(text(&mut session, "EXECUTE p")?, "1");
    }
    server.expect_counted("the statement", &on("part"), "select 3/0")?;
    server.expect_counted("not the client's", &format!("NOT w.nested AND {}", on("t")), "")?;
    let enough = "SELECT (coalesce(sum(q.calls), 0) >= 3)::text FROM indexpilot.queries q JOIN indexpilot.workload w USING (id) \
                  WHERE w.nested AND";
    server.expect("the function's", &format!("{enough} {}", on("t")), "true")?;
    server.expect_no_loss()
}

#[test]
fn statements_of_functions_that_choose_partitions_are_nested() -> Result<()> {
    while_partitions_are_chosen("corners-pruning", "DECLARE r integer; BEGIN SELECT v INTO r FROM t WHERE id = 1; RETURN r; END")
}

#[test]
fn loops_of_functions_that_choose_partitions_are_nested() -> Result<()> {
    let body = "DECLARE r record; BEGIN FOR r IN SELECT v FROM t WHERE id = 1 LOOP RETURN r.v; END LOOP; END";
    while_partitions_are_chosen("corners-pruning-loop", body)
}

/// The statement of an event trigger's function around commands that contain a query.
fn in_event_triggers(name: &str, body: &str) -> Result<()> {
    let mut server = Server::named(name)?;
    server.db.batch_execute(&format!(
        "CREATE TABLE u (id integer, v integer); CREATE MATERIALIZED VIEW m AS SELECT id FROM u; \
         CREATE FUNCTION look() RETURNS event_trigger LANGUAGE plpgsql AS $$ {body} $$; \
         CREATE EVENT TRIGGER before ON ddl_command_start EXECUTE FUNCTION look(); \
         CREATE EVENT TRIGGER after ON ddl_command_end EXECUTE FUNCTION look()"
    ))?;
    server.reset()?;
    server.run(&["CREATE TABLE other AS SELECT v FROM u", "REFRESH MATERIALIZED VIEW m"])?;
    server.expect_counted("their queries", &on("u"), "select 1/0, select 1/0")?;
    server.expect_counted("the triggers", &on("t"), "nested select 4/0")?;
    server.expect_no_loss()
}

#[test]
fn statements_of_event_triggers_are_nested() -> Result<()> {
    in_event_triggers("corners-events", "BEGIN PERFORM v FROM t WHERE id = 1; END")
}

#[test]
fn loops_of_event_triggers_are_nested() -> Result<()> {
    let body = "DECLARE r record; BEGIN FOR r IN SELECT v FROM t WHERE id = 1 LOOP NULL; END LOOP; END";
    in_event_triggers("corners-event-loops", body)
}

#[test]
fn subtransactions_deeper_than_can_be_remembered_keep_statements_nested() -> Result<()> {
    let mut server = Server::named("corners-deep")?;
    // Each level of the recursion is a subtransaction, in which a statement runs; the deepest 40 end in an error, and every level runs
    // another statement afterwards. (Procedures, since a function that calls itself keeps a statement open at each level.)
    server.db.batch_execute(
        "CREATE PROCEDURE deep(n integer) LANGUAGE plpgsql AS $$ DECLARE r integer; BEGIN \
           BEGIN \
             UPDATE t SET v = v WHERE id = n; \
             IF n > 0 THEN CALL deep(n - 1); END IF; \
             IF n < 40 THEN RAISE EXCEPTION 'level %', n; END IF; \
           EXCEPTION WHEN raise_exception THEN SELECT v + 1 INTO r FROM t WHERE id = 1; END; \
           SELECT v + 2, id INTO r FROM t WHERE id = 1; END $$",
    )?;
    server.reset()?;
    let mut session = server.session()?;
    session.batch_execute("CALL deep(150)")?;
    session.batch_execute("BEGIN; CALL deep(150); SELECT v, v FROM t WHERE id = 1; COMMIT")?;
    session.batch_execute("SELECT v, v FROM t WHERE id = 1")?;
    let expected = "nested select 302/0, nested select 80/0, nested update 302/0, select 2/0";
    server.expect("all levels", &counted(&on("t")), expected)?;
    server.expect_no_loss()
}
