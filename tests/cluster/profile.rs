//! The worker plans new samples by itself, learns where statements name their tenant, and waits for nobody.

use indexpilot_tests::{Cluster, Result, Stop, poll_until};
use postgres::Client;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn number(db: &mut Client, sql: &str) -> Result<i64> {
    Ok(db.query_one(sql, &[])?.get(0))
}

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
