//! What others change after the builder has looked at an action and before its command begins.

use crate::apply::{LIMIT, cluster, connect, enqueue, hasten, insert, reach};
use indexpilot_tests::{Cluster, Result, number, poll_until, text};
use postgres::Client;

/// Queues an action, and does `theirs` when the builder has reviewed it and is about to begin.
fn surprise(cluster: &Cluster, db: &mut Client, queue: impl Fn(&mut Client) -> Result<i64>, theirs: &str) -> Result<i64> {
    let mode = |mode: &str| -> Result<()> {
        cluster.configure("indexpilot.mode", mode)?;
        cluster.reload()
    };
    mode("off")?;
    poll_until(LIMIT, "our processes to end", || {
        Ok(number(db, "SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('indexpilot builder', 'indexpilot worker')")?
            == 0)
    })?;
    let id = queue(db)?;
    // It can be read, but nobody can note that he begins.
    let mut holder = connect(cluster)?;
    holder.batch_execute("BEGIN; LOCK TABLE indexpilot.actions IN SHARE MODE")?;
    mode("advise")?;
    poll_until(LIMIT, "the builder to be about to begin", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'indexpilot builder' AND wait_event = 'relation' \
                   AND query = 'indexpilot: starting an action'";
        Ok(number(db, sql)? == 1)
    })?;
    db.batch_execute(theirs)?;
    holder.batch_execute("COMMIT")?;
    Ok(id)
}

/// Waits until an attempt was given up and the action is queued again, and returns why.
fn retried(db: &mut Client, id: i64) -> Result<String> {
    let why = format!("SELECT error_sqlstate || ' ' || error_message FROM indexpilot.actions WHERE id = {id} AND state = 'queued'");
    let mut said = String::new();
    poll_until(LIMIT, "the attempt to be given up", || {
        said = db.query_opt(&why, &[])?.and_then(|row| row.get::<_, Option<String>>(0)).unwrap_or_default();
        Ok(!said.is_empty())
    })?;
    Ok(said)
}

fn there(db: &mut Client) -> Result<String> {
    text(
        db,
        "SELECT string_agg(regexp_replace(pg_get_indexdef(indexrelid), '^.* INDEX (.*) ON .*USING', '\\1'), ', ' ORDER BY indexrelid) \
         FROM pg_index WHERE indrelid = 'crm.goods'::regclass",
    )
}

#[test]
fn a_drop_looks_once_more_at_what_it_drops() -> Result<()> {
    let cluster = cluster("apply-gap-drop")?;
    let mut db = connect(&cluster)?;
    let built = enqueue(&mut db, "ip_price", "price")?;
    reach(&mut db, built, &["built"])?;
    let queue = |db: &mut Client| insert(db, "drop", "ip_price", "DROP INDEX CONCURRENTLY crm.ip_price", Some(built));

    let drop = surprise(&cluster, &mut db, queue, "ALTER TABLE crm.goods CLUSTER ON ip_price")?;
    assert_eq!(reach(&mut db, drop, &["done", "failed"])?, "failed");
    let why = text(&mut db, &format!("SELECT error_message FROM indexpilot.actions WHERE id = {drop}"))?;
    assert_eq!(why, "the index must not be dropped: its table is clustered by it");
    assert_eq!(there(&mut db)?, "ip_price btree (price)");
    db.batch_execute("ALTER TABLE crm.goods SET WITHOUT CLUSTER")?;

    // Under its name there is another one, which a command with that name would drop.
    let theirs = "ALTER INDEX crm.ip_price RENAME TO ip_old; CREATE INDEX ip_price ON crm.goods (id)";
    let drop = surprise(&cluster, &mut db, queue, theirs)?;
    let why = retried(&mut db, drop)?;
    assert_eq!(why, "55006 the index was changed by somebody else, and is crm.ip_old now");
    hasten(&mut db, drop)?;
    assert_eq!(reach(&mut db, drop, &["done", "failed"])?, "done");
    assert_eq!(there(&mut db)?, "ip_price btree (id)");
    Ok(())
}

#[test]
fn a_build_and_a_rebuild_look_once_more_at_their_relations() -> Result<()> {
    let cluster = cluster("apply-gap-create")?;
    let mut db = connect(&cluster)?;
    let queue = |db: &mut Client| enqueue(db, "ip_price", "price");
    let theirs = "ALTER TABLE crm.goods RENAME TO old; CREATE TABLE crm.goods (LIKE crm.old); ALTER TABLE crm.goods OWNER TO clerk";
    let id = surprise(&cluster, &mut db, queue, theirs)?;
    assert_eq!(retried(&mut db, id)?, "55006 the table was dropped, renamed or given away while the build began");
    hasten(&mut db, id)?;
    assert_eq!(reach(&mut db, id, &["built", "failed"])?, "failed");
    assert_eq!(number(&mut db, "SELECT count(*) FROM pg_class WHERE relname = 'ip_price'")?, 0, "nowhere");

    db.batch_execute("CREATE INDEX theirs ON crm.goods (id)")?;
    let queue = |db: &mut Client| insert(db, "reindex", "theirs", "REINDEX INDEX CONCURRENTLY crm.theirs", None);
    let theirs = "ALTER INDEX crm.theirs RENAME TO renamed; CREATE INDEX theirs ON crm.goods (price)";
    let id = surprise(&cluster, &mut db, queue, theirs)?;
    assert_eq!(retried(&mut db, id)?, "55006 the index was changed by somebody else, and is crm.renamed now");
    Ok(())
}
