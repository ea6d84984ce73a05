//! Partitioned tables: one decision, an index of its own for each partition.

use crate::apply::{LIMIT, cluster, connect, hold_snapshot, mid_build, unusable};
use indexpilot_tests::{Result, Stop, number, poll_until, text};
use postgres::Client;

const QUERY: &str = "SELECT note FROM crm.sales WHERE customer = 7";

/// Sales of three months, one of them divided once more, one with its columns in another order; a foreign one is left out.
fn sales(db: &mut Client) -> Result<()> {
    Ok(db.batch_execute(
        "CREATE TABLE crm.sales (id integer, day date, customer integer, note text) PARTITION BY RANGE (day); \
         CREATE TABLE crm.jan PARTITION OF crm.sales FOR VALUES FROM ('2026-01-01') TO ('2026-02-01'); \
         CREATE TABLE crm.feb (note text, gone integer, customer integer, day date, id integer); \
         ALTER TABLE crm.feb DROP COLUMN gone; \
         ALTER TABLE crm.sales ATTACH PARTITION crm.feb FOR VALUES FROM ('2026-02-01') TO ('2026-03-01'); \
         CREATE TABLE crm.mar PARTITION OF crm.sales FOR VALUES FROM ('2026-03-01') TO ('2026-04-01') PARTITION BY HASH (id); \
         CREATE TABLE crm.mar0 PARTITION OF crm.mar FOR VALUES WITH (MODULUS 2, REMAINDER 0); \
         CREATE TABLE crm.mar1 PARTITION OF crm.mar FOR VALUES WITH (MODULUS 2, REMAINDER 1); \
         INSERT INTO crm.sales SELECT i, date '2026-01-01' + i % 90, i % 5000, 'note ' || i FROM generate_series(1, 90000) i; \
         ALTER TABLE crm.sales OWNER TO clerk; ALTER TABLE crm.jan OWNER TO clerk; ALTER TABLE crm.feb OWNER TO clerk; \
         ALTER TABLE crm.mar OWNER TO clerk; ALTER TABLE crm.mar0 OWNER TO clerk; ALTER TABLE crm.mar1 OWNER TO clerk; \
         ANALYZE crm.jan; ANALYZE crm.feb; ANALYZE crm.mar0; ANALYZE crm.mar1",
    )?)
}

/// Has the query run, and asks for decisions. Returns the number of the one that is taken up.
fn decide(db: &mut Client) -> Result<i64> {
    // Often enough to outweigh the writes of the beginning.
    for _ in 0..100 {
        db.batch_execute(QUERY)?;
    }
    let sql = "SELECT recommendation_id FROM indexpilot.analyze_and_create_indexes() WHERE decision = 'create'";
    let rows = db.query(sql, &[])?;
    assert_eq!(rows.len(), 1, "one decision");
    Ok(rows[0].get(0))
}

/// Indexes in schema `crm`, by table.
fn indexed(db: &mut Client) -> Result<String> {
    text(
        db,
        "SELECT string_agg(indrelid::regclass::text || ' ' || substring(pg_get_indexdef(indexrelid) FROM '\\((.*)\\)'), ', ' \
           ORDER BY indrelid::regclass::text) \
         FROM pg_index JOIN pg_class t ON t.oid = indrelid WHERE relnamespace = 'crm'::regnamespace AND relname ~ '^(sales|jan|feb|mar|apr)' \
           AND indisvalid",
    )
}

fn states(db: &mut Client) -> Result<String> {
    text(
        db,
        "SELECT string_agg(table_name || ' ' || CASE WHEN state IN ('verifying', 'kept') THEN 'built' ELSE state END, ', ' \
           ORDER BY table_name, id) FROM indexpilot.actions",
    )
}

fn settle(db: &mut Client, wanted: &str) -> Result<()> {
    let mut seen = String::new();
    let waited = poll_until(LIMIT, "the actions to settle", || {
        db.batch_execute("UPDATE indexpilot.actions SET not_before = now() WHERE state = 'queued' AND not_before > now()")?;
        seen = states(db)?;
        Ok(seen == wanted)
    });
    waited.map_err(|e| format!("{e}: {seen}, not {wanted}").into())
}

const ALL: &str = "crm.feb customer, crm.jan customer, crm.mar0 customer, crm.mar1 customer";

#[test]
fn d53_a_decision_on_a_partitioned_table_is_carried_out_on_its_partitions() -> Result<()> {
    let cluster = cluster("apply-parts")?;
    let mut db = connect(&cluster)?;
    sales(&mut db)?;
    let decided = decide(&mut db)?;
    db.batch_execute("CALL indexpilot.wait_for_actions('1 minute')")?;
    assert_eq!(indexed(&mut db)?, ALL);
    assert_eq!(states(&mut db)?, "feb built, jan built, mar0 built, mar1 built");
    let ours = format!(
        "SELECT count(*) FROM indexpilot.actions a JOIN indexpilot.managed_indexes m USING (tag) JOIN pg_class c ON c.oid = a.index_id \
         WHERE a.recommendation_id = {decided} AND c.relowner = 'clerk'::regrole AND NOT c.relispartition"
    );
    assert_eq!(number(&mut db, &ours)?, 4);
    let definition = text(&mut db, &format!("SELECT definition FROM indexpilot.recommendations WHERE id = {decided}"))?;
    assert!(definition.starts_with("CREATE INDEX ip_sales_customer_"), "{definition}");
    let close = format!(
        "SELECT round(100 * r.estimated_bytes / sum(a.index_bytes))::bigint FROM indexpilot.recommendations r \
         JOIN indexpilot.actions a ON a.recommendation_id = r.id WHERE r.id = {decided} GROUP BY r.estimated_bytes"
    );
    let close = number(&mut db, &close)?;
    assert!((85..=115).contains(&close), "{close} % of the size was foreseen");
    // Plans before and after, and nothing more to be gained.
    let explained = text(&mut db, &format!("SELECT indexpilot.explain_decision({decided})"))?;
    assert!(explained.contains("Seq Scan on jan") && explained.contains("on ip_feb_customer_"), "{explained}");
    let again = "SELECT count(*) FROM indexpilot.analyze_and_create_indexes() WHERE decision = 'create'";
    assert_eq!(number(&mut db, again)?, 0);
    let why =
        format!("SELECT string_agg(reason, ' ') FROM indexpilot.advise(ARRAY['{QUERY}']) WHERE definition ~ '[(]customer[)]$'");
    assert_eq!(text(&mut db, &why)?, "already_exists");

    // In the caller's transaction it is all of them, or none.
    let built = "SELECT count(*) FROM indexpilot.actions WHERE state IN ('built', 'verifying', 'kept')";
    let before = number(&mut db, built)?;
    db.batch_execute("BEGIN; SET LOCAL indexpilot.candidate_min_table_size = 0")?;
    // As often as it takes, whatever the machine makes of the times.
    for _ in 0..300 {
        db.batch_execute("SELECT count(*) FROM crm.sales WHERE id = 77")?;
    }
    db.batch_execute("SELECT indexpilot.analyze_and_create_indexes(concurrently => false)")?;
    assert_eq!(number(&mut db, built)?, before + 4);
    assert_eq!(indexed(&mut db)?.matches(" id").count(), 4);
    db.batch_execute("ROLLBACK")?;
    assert_eq!(indexed(&mut db)?, ALL);

    // Verified by the queries on the partitioned table, and taken back one by one.
    let cited = "SELECT count(DISTINCT action_id) FROM indexpilot.verifications WHERE role = 'cited'";
    cluster.configure("indexpilot.verify_delay", "1s")?;
    cluster.configure("indexpilot.verify_min_calls", 3)?;
    cluster.reload()?;
    poll_until(LIMIT, "the verdicts", || {
        db.batch_execute(QUERY)?;
        Ok(number(&mut db, cited)? == 4)
    })?;
    let mutation = "SELECT id FROM indexpilot.mutation_log WHERE mutation = 'create_index' AND table_name = 'jan'";
    let mutation = number(&mut db, mutation)?;
    db.batch_execute(&format!("SELECT indexpilot.rollback({mutation})"))?;
    db.batch_execute("CALL indexpilot.wait_for_actions('1 minute')")?;
    assert_eq!(indexed(&mut db)?, ALL.replace("crm.jan customer, ", ""));
    Ok(())
}

#[test]
fn d53_a_rollout_goes_on_after_a_crash_and_follows_the_partitions() -> Result<()> {
    let mut cluster = cluster("apply-parts-change")?;
    let mut db = connect(&cluster)?;
    sales(&mut db)?;
    // Somebody has an index like it on one of them.
    db.batch_execute("CREATE INDEX theirs ON crm.feb (customer)")?;
    let holder = hold_snapshot(&cluster)?;
    decide(&mut db)?;
    mid_build(&mut db)?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.actions WHERE state = 'building'")?, 1);
    // The power goes off; when the next one is being built, one of those that wait is dropped, one is detached, and a new one comes.
    cluster.configure("indexpilot.apply", "off")?;
    cluster.restart(Stop::Immediate)?;
    drop(holder);
    let mut db = connect(&cluster)?;
    let holder = hold_snapshot(&cluster)?;
    // Not before the snapshot is there, or one is built already.
    cluster.configure("indexpilot.apply", "on")?;
    cluster.reload()?;
    mid_build(&mut db)?;
    let first = text(&mut db, "SELECT table_name FROM indexpilot.actions WHERE state = 'building'")?;
    let sql = "SELECT table_name::text FROM indexpilot.actions WHERE state = 'queued' ORDER BY attempts";
    let waiting: Vec<String> = db.query(sql, &[])?.iter().map(|row| row.get(0)).collect();
    let [dropped, detached] = &waiting[..] else { return Err(format!("two should wait: {waiting:?}").into()) };
    assert_eq!(number(&mut db, "SELECT sum(attempts) FROM indexpilot.actions")?, 2, "what was interrupted waits with them");
    let parent = if detached.starts_with("mar") { "mar" } else { "sales" };
    db.batch_execute(&format!(
        "DROP TABLE crm.{dropped}; ALTER TABLE crm.{parent} DETACH PARTITION crm.{detached}; \
         CREATE TABLE crm.apr PARTITION OF crm.sales FOR VALUES FROM ('2026-04-01') TO ('2026-05-01'); ALTER TABLE crm.apr OWNER TO clerk"
    ))?;
    drop(holder);
    let mut wanted =
        ["apr built".to_owned(), format!("{first} built"), format!("{dropped} cancelled"), format!("{detached} cancelled")];
    wanted.sort();
    settle(&mut db, &wanted.join(", "))?;
    assert_eq!(unusable(&mut db)?, 0);
    assert_eq!(indexed(&mut db)?, format!("crm.apr customer, crm.feb customer, crm.{first} customer"));

    // Whoever built the last looks once more for new ones.
    poll_until(LIMIT, "the builder to end", || {
        Ok(number(&mut db, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'indexpilot builder'")? == 0)
    })?;
    // So does a visit that began before that.
    visited(&mut db)?;
    // Later ones get it in mode apply, where IndexPilot acts by itself.
    db.batch_execute(
        "CREATE TABLE crm.mary PARTITION OF crm.sales FOR VALUES FROM ('2026-05-01') TO ('2026-06-01'); \
         ALTER TABLE crm.mary OWNER TO clerk",
    )?;
    // As each visit does it, this one comes after the table.
    visited(&mut db)?;
    assert!(!states(&mut db)?.contains("mary"));
    cluster.configure("indexpilot.mode", "apply")?;
    cluster.configure("indexpilot.select", "off")?;
    cluster.reload()?;
    poll_until(LIMIT, "the new partition to get its index", || Ok(states(&mut db)?.contains("mary built")))
}

/// Waits until two workers have begun and ended.
fn visited(db: &mut Client) -> Result<()> {
    let sql = "SELECT coalesce(max(pid), 0)::bigint FROM pg_stat_activity WHERE backend_type = 'indexpilot worker'";
    for there in [true, false, true, false] {
        poll_until(LIMIT, "a worker to come or go", || Ok((number(db, sql)? != 0) == there))?;
    }
    Ok(())
}

#[test]
fn indexes_of_partitions_are_attached_when_the_setting_says_so() -> Result<()> {
    let cluster = cluster("apply-attach")?;
    let mut db = connect(&cluster)?;
    sales(&mut db)?;
    // Of partitions of partitions none are.
    db.batch_execute("ALTER TABLE crm.sales DETACH PARTITION crm.mar; DROP TABLE crm.mar")?;
    cluster.configure("indexpilot.verify", "off")?;
    cluster.reload()?;
    decide(&mut db)?;
    db.batch_execute("CALL indexpilot.wait_for_actions('1 minute')")?;
    settle(&mut db, "feb built, jan built")?;
    let attached = "SELECT coalesce(string_agg(i.indrelid::regclass::text || ' ' || i.indisvalid, ', ' ORDER BY i.indrelid::regclass::text), '') \
                    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relispartition OR c.relkind = 'I'";
    visited(&mut db)?;
    assert_eq!(text(&mut db, attached)?, "", "not unless it is asked for");

    // Somebody reads one of them for long.
    let mut reader = connect(&cluster)?;
    reader.batch_execute("BEGIN; SELECT count(*) FROM crm.jan WHERE customer = 7")?;
    cluster.configure("indexpilot.apply_attach_partitions", "on")?;
    cluster.reload()?;
    let failed = "SELECT count(*) FROM indexpilot.mutation_log WHERE mutation = 'attach_index_failed'";
    poll_until(LIMIT, "an index not to be attached", || Ok(number(&mut db, failed)? == 1))?;
    assert_eq!(text(&mut db, attached)?, "crm.feb true, crm.sales false");
    reader.batch_execute("COMMIT")?;
    // The pause is over.
    db.batch_execute(
        "UPDATE indexpilot.mutation_log SET logged_at = now() - interval '1 hour' WHERE mutation = 'attach_index_failed'",
    )?;
    poll_until(LIMIT, "the rest to be attached", || Ok(text(&mut db, attached)? == "crm.feb true, crm.jan true, crm.sales true"))?;
    let logged =
        "SELECT string_agg(details ->> 'statement', '; ' ORDER BY id) FROM indexpilot.mutation_log WHERE mutation = 'attach_index'";
    poll_until(LIMIT, "each command to be logged", || {
        let said = text(&mut db, logged)?;
        Ok(said.contains(" ON ONLY ") && said.matches("ATTACH PARTITION").count() == 2)
    })?;
    let owner = "SELECT relowner::regrole::text FROM pg_class WHERE relkind = 'I'";
    assert_eq!(text(&mut db, owner)?, "clerk");

    // A new one comes with it, and none goes alone.
    db.batch_execute("CREATE TABLE crm.apr PARTITION OF crm.sales FOR VALUES FROM ('2026-04-01') TO ('2026-05-01')")?;
    let mutation = "SELECT id FROM indexpilot.mutation_log WHERE mutation = 'create_index' AND table_name = 'jan'";
    let mutation = number(&mut db, mutation)?;
    db.batch_execute(&format!("SELECT indexpilot.rollback({mutation})"))?;
    let drop = "SELECT state || ': ' || coalesce(error_message, '') FROM indexpilot.actions WHERE kind = 'drop'";
    let refused = "failed: the index must not be dropped: it is a part of an index of a partitioned table";
    poll_until(LIMIT, "the drop to be refused", || Ok(text(&mut db, drop)? == refused))?;
    visited(&mut db)?;
    assert_eq!(indexed(&mut db)?, "crm.apr customer, crm.feb customer, crm.jan customer, crm.sales customer");
    Ok(())
}
