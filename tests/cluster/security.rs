//! S58, S59, S61 and S62: what a malicious owner of tables can make run because IndexPilot indexes them gains him nothing; names are taken as
//! they are; and who was given no right can do nothing.

use indexpilot_tests::{Cluster, Result, Stop, number, poll_until, text};
use postgres::Client;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn cluster(name: &str) -> Result<Cluster> {
    let cluster = Cluster::build(name)
        .setting("indexpilot.worker_interval", "200ms")
        .setting("indexpilot.guard_max_transaction_age", "1h")
        .setting("indexpilot.verify_delay", "1h")
        .setting("indexpilot.select_storage_share", 1)
        .setting("autovacuum", "off")
        .start()?;
    connect(&cluster)?.batch_execute(
        "CREATE ROLE mallory LOGIN; CREATE SCHEMA den AUTHORIZATION mallory; GRANT ALL ON SCHEMA public TO mallory; \
         GRANT ALL ON DATABASE postgres TO mallory",
    )?;
    Ok(cluster)
}

fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("postgres", "postgres")
}

/// SQLSTATE of a statement that must fail, and its message.
fn refusal(db: &mut Client, sql: &str) -> Result<(String, String)> {
    match db.batch_execute(sql) {
        Ok(()) => Err(format!("{sql} does not fail").into()),
        Err(e) => {
            let e = e.as_db_error().ok_or_else(|| format!("{sql}: {e}"))?;
            Ok((e.code().code().to_owned(), e.message().to_owned()))
        }
    }
}

/// Queues an action on a table of schema `den`, and waits for its end.
fn act(db: &mut Client, kind: &str, table: &str, index: &str, statement: &str) -> Result<String> {
    let id: i64 = db
        .query_one(
            "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause) \
             VALUES ($1, format('den.%I', $2::text)::regclass, 'den', $2::text::name, 'den', $3::text::name, $4, $4, 'test') RETURNING id",
            &[&kind, &table, &index, &statement],
        )?
        .get(0);
    let mut state = String::new();
    let waited = poll_until(LIMIT, &format!("the end of {statement}"), || {
        db.execute("UPDATE indexpilot.actions SET not_before = now() WHERE id = $1 AND state = 'queued'", &[&id])?;
        state = text(db, &format!("SELECT state FROM indexpilot.actions WHERE id = {id}"))?;
        Ok(!matches!(state.as_str(), "queued" | "building"))
    });
    let why = format!("SELECT concat_ws(' ', state, blocked_reason, error_message) FROM indexpilot.actions WHERE id = {id}");
    match waited {
        Ok(()) => Ok(state),
        Err(e) => Err(format!("{e}: {}", text(db, &why)?).into()),
    }
}

/// What mallory's code tries wherever it runs; each attempt leaves a row with who it was and what came of it.
const LOOT: &str = r#"
    CREATE TABLE den.loot (at text, acts_as text, mighty boolean, tried text, outcome text);
    GRANT ALL ON den.loot TO PUBLIC;
    CREATE FUNCTION den.try(place text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
    DECLARE attempt text; outcome text;
    BEGIN
      FOREACH attempt IN ARRAY ARRAY[
        'RESET ROLE', 'RESET SESSION AUTHORIZATION', 'SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'SET ROLE NONE',
        'SELECT set_config(''role'', ''postgres'', false)', 'SELECT set_config(''session_authorization'', ''postgres'', false)',
        'ALTER ROLE mallory SUPERUSER', 'CREATE ROLE heir SUPERUSER', 'GRANT pg_execute_server_program TO mallory',
        'COPY (SELECT 1) TO PROGRAM ''true''', 'SELECT pg_read_file(''PG_VERSION'')', 'ALTER SYSTEM SET indexpilot.mode = off',
        'SELECT indexpilot.disable_system(''mine'')', 'UPDATE indexpilot.actions SET statement = ''DROP TABLE vault''',
        'DELETE FROM indexpilot.mutation_log', 'SELECT * FROM vault', 'DROP TABLE vault', 'CREATE EXTENSION dblink',
        'SET session_preload_libraries = ''den''', 'LOAD ''auto_explain''', 'SET log_statement = ''all''']
      LOOP
        BEGIN
          EXECUTE attempt;
          outcome := 'done';
        EXCEPTION WHEN OTHERS THEN outcome := SQLSTATE;
        END;
        INSERT INTO den.loot SELECT place, current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), attempt, outcome;
      END LOOP;
    END $$;
    CREATE FUNCTION den.key(i integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
      IF i = 1 THEN PERFORM den.try('index expression'); END IF; RETURN i; END $$;
    CREATE FUNCTION den.same(a integer, b integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
      IF a = 1 THEN PERFORM den.try('operator'); END IF; RETURN a = b; END $$;
    CREATE OPERATOR den.=== (LEFTARG = integer, RIGHTARG = integer, FUNCTION = den.same);
    CREATE FUNCTION den.watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
      -- What it tries would fire it again.
      IF coalesce(current_setting('den.busy', true), '') <> 'yes' THEN
        PERFORM set_config('den.busy', 'yes', false); PERFORM den.try('event trigger'); PERFORM set_config('den.busy', '', false);
      END IF; END $$;
    CREATE TABLE den.bait (id integer, price integer);
    INSERT INTO den.bait SELECT i, i FROM generate_series(1, 100) i;
"#;

/// Names that would win over the server's own if they were ever looked up by a path of users: for each of the server's functions that
/// our queries call, one that fits them better or as well.
const DECOYS: &str = r#"
    CREATE FUNCTION public.fell() RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO den.loot VALUES
      ('decoy', current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), 'a name of ours', 'done'); END $$;
    CREATE FUNCTION public.to_jsonb(record) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN PERFORM public.fell(); RETURN '{}'; END $$;
    CREATE FUNCTION public.count(bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM public.fell(); RETURN 0; END $$;
    CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM public.fell(); RETURN '-infinity'; END $$;
    CREATE FUNCTION public.same_name(a name, b name) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.fell(); RETURN true; END $$;
    CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = name, FUNCTION = public.same_name);
    CREATE FUNCTION public.arrow(a jsonb, b text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.fell(); RETURN NULL; END $$;
    CREATE OPERATOR public.->> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = public.arrow);
    CREATE TABLE public.pg_class (oid oid); CREATE TABLE public.pg_index (indexrelid oid);
    CREATE TABLE public.actions (id bigint); CREATE VIEW public.pg_namespace AS SELECT public.now()::text AS nspname;
"#;

#[test]
fn s58_code_of_a_malicious_owner_gains_nothing() -> Result<()> {
    let cluster = cluster("security-owner")?;
    let mut db = connect(&cluster)?;
    db.batch_execute("CREATE EXTENSION indexpilot; CREATE TABLE vault (secret text); REVOKE ALL ON vault FROM PUBLIC")?;
    let mut mallory = cluster.connect("postgres", "mallory")?;
    mallory.batch_execute(LOOT)?;
    mallory.batch_execute(DECOYS)?;
    // Everything that mallory may set for sessions of others; and a DBA who let an event trigger run his code.
    for target in ["DATABASE postgres", "ROLE postgres", "ROLE ALL"] {
        db.batch_execute(&format!("ALTER {target} SET search_path = public, den, pg_catalog"))?;
    }
    db.batch_execute(
        "CREATE EVENT TRIGGER before ON ddl_command_start EXECUTE FUNCTION den.watch(); \
         CREATE EVENT TRIGGER after ON ddl_command_end EXECUTE FUNCTION den.watch(); \
         CREATE EVENT TRIGGER gone ON sql_drop EXECUTE FUNCTION den.watch()",
    )?;
    db = connect(&cluster)?;
    db.batch_execute("SET search_path = pg_catalog")?;
    // What runs in the DBA's own session is the DBA's affair.
    mallory.batch_execute("TRUNCATE den.loot")?;
    let create = "CREATE INDEX CONCURRENTLY trap ON den.bait USING btree (den.key(price)) WHERE id OPERATOR(den.===) id";
    let state = act(&mut db, "create", "bait", "trap", create)?;
    let places = "SELECT string_agg(DISTINCT at, ', ') FROM den.loot";
    if state == "built" || state == "verifying" {
        assert_eq!(text(&mut db, places)?, "event trigger, index expression, operator");
        assert_eq!(act(&mut db, "reindex", "bait", "trap", "REINDEX INDEX CONCURRENTLY den.trap")?, "done");
        // A trigger that writes before a DROP INDEX CONCURRENTLY makes it fail for everybody.
        db.batch_execute("DROP EVENT TRIGGER before")?;
        assert_eq!(act(&mut db, "drop", "bait", "trap", "DROP INDEX CONCURRENTLY den.trap")?, "done");
    } else {
        // Or the function is not trusted in the first place, and nothing but the trigger has run.
        assert!(state == "blocked" || state == "failed", "{state}");
    }
    let gained = "SELECT string_agg(concat_ws(' ', at, acts_as, mighty, tried, outcome), E'\n') FROM den.loot \
                  WHERE acts_as <> 'mallory' OR mighty OR outcome = 'done'";
    assert_eq!(text(&mut db, gained)?, "");
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_roles WHERE rolsuper")?, 1);
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.actions WHERE statement LIKE 'DROP TABLE%'")?, 0);
    Ok(())
}

#[test]
fn s58_analyses_and_views_run_nothing_of_others() -> Result<()> {
    let cluster = cluster("security-analysis")?;
    let mut db = connect(&cluster)?;
    db.batch_execute("CREATE EXTENSION indexpilot")?;
    let mut mallory = cluster.connect("postgres", "mallory")?;
    mallory.batch_execute(LOOT)?;
    mallory.batch_execute(DECOYS)?;
    // A table that the DBA has queried becomes a view with code; its statistics invite an index on an expression.
    db.batch_execute("SELECT id FROM den.bait WHERE price = 7; SELECT indexpilot.capture_flush()")?;
    mallory.batch_execute(
        "INSERT INTO den.bait SELECT i, i FROM generate_series(1, 20000) i; ANALYZE den.bait; \
         ALTER TABLE den.bait RENAME TO hook; CREATE VIEW den.bait AS SELECT * FROM den.hook WHERE den.key(1) = 1; TRUNCATE den.loot",
    )?;
    for path in ["public, den, pg_catalog", "den, public, pg_catalog", "pg_catalog"] {
        db.batch_execute(&format!("SET search_path = {path}"))?;
        for call in [
            "SELECT pg_catalog.count(*) FROM indexpilot.analyze_and_create_indexes(dry_run => true)",
            "SELECT pg_catalog.count(*) FROM indexpilot.advise(ARRAY['SELECT id FROM den.bait WHERE price = 7'])",
            "SELECT cost_after FROM indexpilot.what_if('SELECT id FROM den.hook WHERE price = 7', ARRAY['CREATE INDEX ON den.hook (den.key(price))'])",
            "SELECT state FROM indexpilot.health_check()",
            "SELECT value FROM indexpilot.status",
            "SELECT calls FROM indexpilot.queries",
            "SELECT * FROM indexpilot.get_recent_mutations()",
            "SELECT * FROM indexpilot.get_query_stats()",
            "SELECT indexpilot.bootstrap_genome_catalog()",
            "SELECT indexpilot.export_workload() IS NULL",
            "SELECT * FROM indexpilot.timeline",
            "SELECT * FROM indexpilot.get_table_size_info()",
            "SELECT indexpilot.capture_flush()",
        ] {
            // Some are refused, since they would have to run mallory's code; that is as good.
            let _ = db.batch_execute(call);
        }
    }
    let ran =
        "SELECT string_agg(DISTINCT concat_ws(' ', at, acts_as), ', ') FROM den.loot WHERE acts_as <> 'mallory' OR at = 'decoy'";
    assert_eq!(text(&mut db, ran)?, "");
    assert_eq!(text(&mut db, "SELECT pg_catalog.string_agg(tried, ', ') FROM den.loot WHERE outcome = 'done'")?, "");
    Ok(())
}

#[test]
fn s58_nobody_prepares_the_schema_for_the_extension() -> Result<()> {
    let cluster = cluster("security-schema")?;
    let mut db = connect(&cluster)?;
    let mut mallory = cluster.connect("postgres", "mallory")?;
    let create = "CREATE EXTENSION indexpilot";
    mallory.batch_execute("CREATE SCHEMA indexpilot")?;
    let (code, message) = refusal(&mut db, create)?;
    assert_eq!((code.as_str(), message.as_str()), ("55000", "schema \"indexpilot\" belongs to role \"mallory\""));
    // Taken over with what mallory has put there.
    mallory.batch_execute(
        "CREATE FUNCTION indexpilot.may_see(oid, name) RETURNS boolean LANGUAGE sql AS 'SELECT true'; GRANT CREATE ON SCHEMA indexpilot TO mallory",
    )?;
    db.batch_execute("ALTER SCHEMA indexpilot OWNER TO postgres")?;
    let (_, message) = refusal(&mut db, create)?;
    assert_eq!(message, "schema \"indexpilot\" is not empty: it holds function indexpilot.may_see(oid,name)");
    db.batch_execute("DROP FUNCTION indexpilot.may_see(oid, name); GRANT CREATE ON SCHEMA indexpilot TO mallory")?;
    let (_, message) = refusal(&mut db, create)?;
    assert_eq!(message, "others may make objects in schema \"indexpilot\": mallory");
    db.batch_execute("REVOKE CREATE ON SCHEMA indexpilot FROM mallory; CREATE EXTENSION indexpilot; DROP EXTENSION indexpilot")?;
    // What DROP EXTENSION left is fit for the next one.
    db.batch_execute(create)?;
    assert_eq!(refusal(&mut mallory, "CREATE TABLE indexpilot.more (id integer)")?.0, "42501");
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_proc WHERE proname = 'check_schema'")?, 0);
    Ok(())
}

/// Names that need care: quotes of all kinds, dollars, lines, words of SQL, the longest there is, other scripts.
const NAMES: [&str; 8] = [
    "se\"lect",
    "it's",
    "$$body$$",
    "two\nlines",
    "table",
    "back\\slash",
    "{\"json\": null}",
    "Größenverhältnisse_überall_und_immer_wieder_neu_gezählt",
];

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[test]
fn s59_names_are_taken_as_they_are() -> Result<()> {
    let cluster = cluster("security-names")?;
    let mut db = connect(&cluster)?;
    db.batch_execute("CREATE EXTENSION indexpilot")?;
    poll_until(LIMIT, "capture to begin", || {
        Ok(text(&mut db, "SELECT value FROM indexpilot.status WHERE name = 'registered'")? == "true")
    })?;
    for quoted in NAMES.map(quote) {
        db.batch_execute(&format!(
            "CREATE SCHEMA {quoted}; CREATE ROLE {quoted}; GRANT ALL ON SCHEMA {quoted} TO {quoted}; \
             CREATE TABLE {quoted}.{quoted} (id integer, {quoted} integer); \
             INSERT INTO {quoted}.{quoted} SELECT i, i FROM generate_series(1, 30000) i; ANALYZE {quoted}.{quoted}; \
             ALTER TABLE {quoted}.{quoted} OWNER TO {quoted}"
        ))?;
    }
    // The rows above are not the workload: they would count as writes that every index makes dearer.
    db.batch_execute("SELECT pg_stat_force_next_flush()")?;
    db.batch_execute("SELECT pg_stat_reset()")?;
    for quoted in NAMES.map(quote) {
        for n in 0..20 {
            db.batch_execute(&format!("SELECT id FROM {quoted}.{quoted} WHERE {quoted} = {n}"))?;
        }
    }
    db.batch_execute("SELECT indexpilot.bootstrap_genome_catalog()")?;
    let decisions =
        "SELECT concat_ws(' ', decision, table_name, reason, reason_detail) FROM indexpilot.analyze_and_create_indexes()";
    let decisions: Vec<String> = db.query(decisions, &[])?.iter().map(|r| r.get(0)).collect();
    let built = decisions.iter().filter(|d| d.starts_with("create")).count();
    assert_eq!(built, NAMES.len(), "{decisions:#?}");
    db.batch_execute("CALL indexpilot.wait_for_actions('1 minute')")?;
    let there = "SELECT count(*) FROM indexpilot.managed_indexes m JOIN pg_namespace n ON n.nspname = m.index_schema \
                 JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = m.index_name JOIN pg_index i ON i.indexrelid = c.oid \
                 WHERE i.indisvalid AND m.table_name = n.nspname AND m.table_name = ANY ($1) AND c.relowner::regrole::text::name IS NOT NULL \
                   AND pg_get_userbyid(c.relowner) = m.table_name";
    let names: Vec<&str> = NAMES.to_vec();
    let found: i64 = db.query_one(there, &[&names])?.get(0);
    assert_eq!(found, NAMES.len() as i64, "{}", cluster.log_tail(20));
    // Hidden, shown and taken back again, each by its name.
    db.batch_execute(
        "SELECT indexpilot.hide_index(format('%I.%I', index_schema, index_name)::regclass, 'it''s \"odd\"') FROM indexpilot.managed_indexes; \
         SELECT indexpilot.show_index(format('%I.%I', index_schema, index_name)::regclass) FROM indexpilot.managed_indexes; \
         SELECT indexpilot.rollback(id) FROM indexpilot.mutation_log WHERE mutation = 'create_index'",
    )?;
    db.batch_execute("CALL indexpilot.wait_for_actions('1 minute')")?;
    let left = "SELECT count(*) FROM pg_class WHERE relkind = 'i' AND relname LIKE 'ip\\_%'";
    assert_eq!(number(&mut db, left)?, 0, "{}", cluster.log_tail(20));
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.mutation_log WHERE mutation = 'drop_index'")?, NAMES.len() as i64);
    Ok(())
}

/// The extension blocks no queries of others; what it can block are its own acts, and those of nobody else.
#[test]
fn s61_what_blocks_us_stays_and_locks_nobody_out() -> Result<()> {
    let mut cluster = cluster("security-blocks")?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE EXTENSION indexpilot; GRANT USAGE ON SCHEMA den TO PUBLIC; CREATE TABLE den.wares (id integer, price integer); \
         INSERT INTO den.wares SELECT i, i FROM generate_series(1, 1000) i; ALTER TABLE den.wares OWNER TO mallory",
    )?;
    let create = "CREATE INDEX CONCURRENTLY held ON den.wares USING btree (price)";
    let state = act(&mut db, "create", "wares", "held", create)?;
    assert!(state == "built" || state == "verifying", "{state}");
    db.batch_execute("SELECT indexpilot.protect('den.held'); SELECT indexpilot.disable_system('not now')")?;
    cluster.restart(Stop::Immediate)?;
    let mut db = connect(&cluster)?;
    for call in ["hide_index('den.held')", "retire_index('den.held')", "rollback(1)"] {
        assert_eq!(refusal(&mut db, &format!("SELECT indexpilot.{call}"))?.0, "55000", "{call}");
    }
    let drop = "DROP INDEX CONCURRENTLY den.held";
    let id = number(
        &mut db,
        &format!(
            "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause) \
             VALUES ('drop', 'den.wares'::regclass, 'den', 'wares', 'den', 'held', '{drop}', '{drop}', 'test') RETURNING id"
        ),
    )?;
    let rules = format!(
        "SELECT string_agg(f->>'rule', ' ') FROM indexpilot.actions, jsonb_array_elements(guard) f WHERE id = {id} AND f->>'verdict' <> 'pass'"
    );
    poll_until(LIMIT, "the guard to hold it", || {
        let held = text(&mut db, &rules)?;
        Ok(held.contains("protected") && held.contains("disabled"))
    })
    .map_err(|e| format!("{e}: {:?}", text(&mut db, &format!("SELECT guard::text FROM indexpilot.actions WHERE id = {id}"))))?;
    // People and their programs go on, the owner drops what is his, and whoever switched it off can switch it on.
    cluster.run(cluster.client_program("pg_dump").arg("postgres"))?;
    cluster
        .connect("postgres", "mallory")?
        .batch_execute("DECLARE c CURSOR WITH HOLD FOR SELECT * FROM den.wares WHERE price = 7; FETCH c; DROP INDEX den.held")?;
    db.batch_execute("SELECT indexpilot.enable_system()")?;
    assert_eq!(text(&mut db, "SELECT value FROM indexpilot.status WHERE name = 'disabled'")?, "false");
    Ok(())
}

#[test]
fn s62_who_was_given_no_right_can_do_nothing() -> Result<()> {
    let cluster = cluster("security-rights")?;
    let mut db = connect(&cluster)?;
    db.batch_execute("CREATE EXTENSION indexpilot; CREATE ROLE monitor LOGIN IN ROLE pg_monitor")?;
    // The schema alone opens nothing.
    db.batch_execute("GRANT USAGE ON SCHEMA indexpilot TO PUBLIC")?;
    let calls = "SELECT format(CASE prokind WHEN 'p' THEN 'CALL %s(%s)' ELSE 'SELECT %s(%s)' END, oid::regproc, \
                   (SELECT string_agg(format('NULL::%s', format_type(t, NULL)), ', ') FROM unnest(proargtypes) t)) \
                 FROM pg_proc WHERE pronamespace = 'indexpilot'::regnamespace AND prokind <> 'a' AND NOT proisstrict";
    let calls: Vec<String> = db.query(calls, &[])?.iter().map(|r| r.get(0)).collect();
    assert!(calls.len() > 20, "{calls:?}");
    let allowed = "SELECT string_agg(oid::regprocedure::text, ', ') FROM pg_proc \
                   WHERE pronamespace = 'indexpilot'::regnamespace AND has_function_privilege('mallory', oid, 'EXECUTE')";
    assert_eq!(text(&mut db, allowed)?, "");
    let mut mallory = cluster.connect("postgres", "mallory")?;
    for call in &calls {
        assert_eq!(refusal(&mut mallory, call)?.0, "42501", "{call}");
    }
    let relations =
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'indexpilot'::regnamespace AND relkind IN ('r', 'v', 'S')";
    for relation in db.query(relations, &[])? {
        let relation: String = relation.get(0);
        assert_eq!(refusal(&mut mallory, &format!("SELECT * FROM {relation}"))?.0, "42501", "{relation}");
    }
    let rights = "SELECT count(*) FROM pg_class WHERE relnamespace = 'indexpilot'::regnamespace AND relkind IN ('r', 'v', 'S') \
                  AND (has_table_privilege('mallory', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') \
                       OR has_any_column_privilege('mallory', oid, 'SELECT, INSERT, UPDATE, REFERENCES'))";
    assert_eq!(number(&mut db, rights)?, 0);
    for statement in [
        "DROP EXTENSION indexpilot",
        "ALTER EXTENSION indexpilot UPDATE",
        "DROP SCHEMA indexpilot CASCADE",
        "DROP OWNED BY postgres",
    ] {
        assert_eq!(refusal(&mut mallory, statement)?.0, "42501", "{statement}");
    }
    let settings =
        "SELECT name FROM pg_settings WHERE name LIKE 'indexpilot.%' AND context IN ('superuser', 'sighup', 'postmaster')";
    for setting in db.query(settings, &[])? {
        let setting: String = setting.get(0);
        let set = format!("SELECT set_config('{setting}', current_setting('{setting}'), false)");
        let code = refusal(&mut mallory, &set)?.0;
        assert!(code == "42501" || code == "55P02", "{setting}: {code}");
    }
    // Who monitors reads: whatever he may call changes nothing.
    let mut monitor = cluster.connect("postgres", "monitor")?;
    monitor.batch_execute("SET default_transaction_read_only = on")?;
    for call in &calls {
        if let Err(e) = monitor.batch_execute(call) {
            let code = e.code().map(|c| c.code().to_owned()).unwrap_or_default();
            assert_ne!(code, "25006", "{call} would have written");
        }
    }
    // Functions that run with their owner's rights, or by names, are bound to a path.
    let loose = "SELECT string_agg(oid::regprocedure::text, ', ') FROM pg_proc WHERE pronamespace = 'indexpilot'::regnamespace \
                 AND (prosecdef OR prolang = (SELECT oid FROM pg_language WHERE lanname = 'sql')) \
                 AND NOT 'search_path=pg_catalog, pg_temp' = ANY (coalesce(proconfig, '{}'))";
    assert_eq!(text(&mut db, loose)?, "");
    Ok(())
}
