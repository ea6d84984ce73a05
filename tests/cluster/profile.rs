//! The worker plans new samples by itself, learns where statements name their tenant, and waits for nobody.

use indexpilot_tests::{Cluster, Result, Stop, number, poll_until};
use postgres::Client;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn notes(name: &str) -> Result<Cluster> {
    let cluster = Cluster::build(name)
        .setting("indexpilot.worker_interval", "200ms")
        .setting("indexpilot.mode", "observe")
        .setting("autovacuum", "off")
        .start()?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE EXTENSION indexpilot; \
         CREATE TABLE notes (tenant_id integer, body text); \
         INSERT INTO notes SELECT i % 10, 'note ' || i FROM generate_series(1, 1000) i; \
         ANALYZE notes; \
         SELECT indexpilot.bootstrap_genome_catalog()",
    )?;
    Ok(cluster)
}

fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("postgres", "postgres")
}

/// Runs a statement until the worker knows that a parameter names its tenant.
fn learned(db: &mut Client) -> Result<()> {
    poll_until(LIMIT, "the tenant to be learned", || {
        db.query("SELECT body FROM notes WHERE tenant_id = $1", &[&3])?;
        Ok(number(
            db,
            "SELECT count(*) FROM indexpilot.workload_profile p JOIN indexpilot.workload w ON w.id = p.workload_id \
              WHERE w.relations @> ARRAY['notes'::regclass::oid] AND p.tenant_source = '$1' AND w.plan_state = 'plannable' AND w.base_cost > 0",
        )? == 1)
    })
}

/// Executions that were counted for a tenant.
fn calls(db: &mut Client, tenant: &str) -> Result<i64> {
    Ok(db
        .query_one("SELECT COALESCE(sum(reads), 0)::bigint FROM indexpilot.table_usage WHERE table_name = 'notes'::regclass AND tenant_id = $1", &[&tenant])?
        .get(0))
}

#[test]
fn the_worker_profiles_and_teaches_again_after_a_restart() -> Result<()> {
    let mut cluster = notes("profile-restart")?;
    let mut db = connect(&cluster)?;
    learned(&mut db)?;
    poll_until(LIMIT, "tenant 4 to be counted", || {
        db.query("SELECT body FROM notes WHERE tenant_id = $1", &[&4])?;
        Ok(calls(&mut db, "4")? > 0)
    })?;
    drop(db);
    // Shared memory is made anew: what names the tenant is known from the tables.
    cluster.restart(Stop::Immediate)?;
    let mut db = connect(&cluster)?;
    poll_until(LIMIT, "tenant 5 to be counted", || {
        db.query("SELECT body FROM notes WHERE tenant_id = $1", &[&5])?;
        Ok(calls(&mut db, "5")? > 0)
    })
}

#[test]
fn a_template_that_is_locked_is_not_waited_for() -> Result<()> {
    let cluster = notes("profile-locked")?;
    let (mut db, mut other) = (connect(&cluster)?, connect(&cluster)?);
    learned(&mut db)?;
    // What is still to be written of the template would make the flush wait, which is another matter.
    db.batch_execute("SET indexpilot.tenant_id = 'last'")?;
    db.query("SELECT body FROM notes WHERE tenant_id = $1", &[&3])?;
    db.batch_execute("RESET indexpilot.tenant_id")?;
    poll_until(LIMIT, "everything to be written", || {
        db.batch_execute("SELECT indexpilot.capture_flush()")?;
        Ok(calls(&mut db, "last")? == 1)
    })?;
    let mut locks = other.transaction()?;
    locks.batch_execute("SELECT FROM indexpilot.workload WHERE relations @> ARRAY['notes'::regclass::oid] FOR UPDATE")?;
    // The worker must neither hang on the template that is locked, nor miss one that comes meanwhile.
    db.batch_execute("UPDATE indexpilot.genome_catalog SET tenant_key = false")?;
    poll_until(LIMIT, "another template to be profiled", || {
        db.batch_execute("SELECT count(*) FROM notes WHERE body = 'note 1'")?;
        Ok(number(
            &mut db,
            "SELECT count(*) FROM indexpilot.workload_field WHERE table_id = 'notes'::regclass AND attnum = 2 AND usage = 'filter'",
        )? > 0)
    })?;
    let forgotten = "SELECT count(*) FROM indexpilot.workload_profile WHERE tenant_source IS NULL AND workload_id IN \
                     (SELECT workload_id FROM indexpilot.workload_field WHERE table_id = 'notes'::regclass AND attnum = 1)";
    assert_eq!(number(&mut db, forgotten)?, 0, "the template is locked");
    locks.rollback()?;
    poll_until(LIMIT, "the locked template to be profiled", || Ok(number(&mut db, forgotten)? == 1))
}

#[test]
fn statements_under_policies_are_planned_as_their_role() -> Result<()> {
    let cluster = notes("profile-policies")?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE ROLE writer LOGIN; GRANT SELECT ON notes TO writer; \
         CREATE POLICY own ON notes TO writer USING (tenant_id = 6); ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    )?;
    let mut writer = cluster.connect("postgres", "writer")?;
    poll_until(LIMIT, "the statement to be profiled", || {
        assert_eq!(writer.query("SELECT tenant_id FROM notes WHERE body LIKE 'note 1%'", &[])?.len(), 11);
        Ok(number(
            &mut db,
            "SELECT count(*) FROM indexpilot.workload WHERE role_id = 'writer'::regrole AND plan_state <> 'pending'",
        )? > 0)
    })?;
    let row = db.query_one("SELECT plan_state, plan_error FROM indexpilot.workload WHERE role_id = 'writer'::regrole", &[])?;
    assert_eq!((row.get::<_, &str>(0), row.get::<_, Option<&str>>(1)), ("plannable", None));
    let filtered =
        "SELECT count(*) FROM indexpilot.workload_field WHERE table_id = 'notes'::regclass AND attnum = 1 AND usage = 'filter'";
    assert_eq!(number(&mut db, filtered)?, 1, "the policy's condition is one of the query's");
    Ok(())
}

/// Has every template profiled again, with nothing run again.
fn profile_again(db: &mut Client) -> Result<()> {
    Ok(db.batch_execute("UPDATE indexpilot.genome_catalog SET tenant_key = NOT tenant_key WHERE field_name = 'tenant_id'")?)
}

/// State, error and class of failure of the one template with that text.
fn state_of(db: &mut Client, text: &str) -> Result<Option<(String, String, String)>> {
    Ok(db
        .query_opt(
            "SELECT w.plan_state, COALESCE(w.plan_error, ''), COALESCE(p.failure, '') \
               FROM indexpilot.workload w JOIN indexpilot.workload_profile p ON p.workload_id = w.id WHERE w.query LIKE $1",
            &[&text],
        )?
        .map(|row| (row.get(0), row.get(1), row.get(2))))
}

#[test]
fn the_worker_runs_nothing_of_others_for_a_superuser() -> Result<()> {
    let cluster = notes("profile-trust")?;
    let mut db = connect(&cluster)?;
    let file = std::env::temp_dir().join(format!("indexpilot-profile-trust-{}", std::process::id()));
    db.batch_execute(&format!(
        "CREATE ROLE mallory LOGIN; CREATE SCHEMA shop; GRANT CREATE, USAGE ON SCHEMA shop TO mallory; SET ROLE mallory; \
         CREATE TABLE shop.wares (id integer); \
         CREATE FUNCTION shop.spill() RETURNS void LANGUAGE plpgsql AS $$BEGIN COPY (SELECT 1) TO '{}'; END$$; \
         CREATE FUNCTION shop.evil(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$BEGIN PERFORM shop.spill(); RETURN $1; END$$; \
         RESET ROLE",
        file.display()
    ))?;
    let state = |db: &mut Client, wanted: &str| {
        poll_until(LIMIT, &format!("the template to be {wanted}"), || {
            Ok(state_of(db, "%shop.wares%")?.is_some_and(|(state, _, _)| state == wanted))
        })
    };
    db.batch_execute("SELECT id FROM shop.wares WHERE id = 1")?;
    state(&mut db, "plannable")?;
    cluster.connect("postgres", "mallory")?.batch_execute(
        "ALTER TABLE shop.wares RENAME TO kept; CREATE VIEW shop.wares AS SELECT id FROM shop.kept WHERE id = shop.evil(1)",
    )?;
    profile_again(&mut db)?;
    state(&mut db, "unplannable")?;
    let (_, error, class) = state_of(&mut db, "%shop.wares%")?.unwrap_or_default();
    assert_eq!(error, "42501: function evil may not be run while a statement of a privileged role is planned");
    assert_eq!(class, "no_privilege");
    assert!(!file.exists(), "mallory's function ran as the superuser");
    Ok(())
}

#[test]
fn plan_errors_quote_no_values() -> Result<()> {
    let cluster = notes("profile-errors")?;
    let mut db = connect(&cluster)?;
    db.batch_execute("CREATE TABLE codes (code text)")?;
    // Again and again, since a sample that finds no place waits for another execution.
    poll_until(LIMIT, "the template to be profiled", || {
        db.batch_execute("SELECT FROM codes WHERE code = 'secret'")?;
        Ok(state_of(&mut db, "%FROM codes%")?.is_some())
    })?;
    db.batch_execute("ALTER TABLE codes ALTER code TYPE integer USING 1")?;
    profile_again(&mut db)?;
    let wanted = ("unplannable".to_owned(), "22P02: bad_value".to_owned(), "bad_value".to_owned());
    poll_until(LIMIT, "the template to be unplannable", || {
        Ok(state_of(&mut db, "%FROM codes%")?.is_some_and(|found| found.0 == "unplannable"))
    })?;
    assert_eq!(state_of(&mut db, "%FROM codes%")?, Some(wanted));
    Ok(())
}

#[test]
fn reports_are_planned_quickly_and_only_with_the_rights_to_run_them() -> Result<()> {
    let cluster = notes("profile-reports")?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE ROLE reporter LOGIN; GRANT USAGE ON SCHEMA indexpilot TO reporter; \
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA indexpilot TO reporter",
    )?;
    let mut reporter = cluster.connect("postgres", "reporter")?;
    for call in [
        "SELECT indexpilot.log_query_stat('SELECT FROM notes WHERE tenant_id = 1', 1.0)",
        "SELECT * FROM indexpilot.advise(ARRAY['SELECT FROM notes WHERE tenant_id = 1'])",
    ] {
        let error = reporter.batch_execute(call).expect_err("the role may not read the table");
        assert_eq!(error.code().map(|c| c.code()), Some("42501"), "{call}: {error:?}");
        assert!(
            error.as_db_error().is_some_and(|e| e.message().contains("permission denied for table notes")),
            "{call}: {error:?}"
        );
    }
    db.batch_execute("SET statement_timeout = '5s'")?;
    // An answer or an error, but at once; and the session goes on.
    let _ = db.batch_execute("SELECT indexpilot.log_query_stat('SELECT 1' || repeat('+1', 6000), 1.0)").map_err(|e| {
        assert_eq!(e.code().map(|c| c.code()), Some("54001"), "{e:?}");
    });
    db.batch_execute("BEGIN; SELECT count(*) FROM notes; COMMIT")?;
    Ok(())
}
