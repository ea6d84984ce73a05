//! Indexes that a share of the transactions sees: the share is kept, a transaction sees the same in all of its statements, each arm is
//! counted apart, and the verdict compares the arms of the same time.

use crate::trial::{LIMIT, connect, hidden, plan, reach, there, with};
use indexpilot_tests::{Cluster, Result, Stop, number, poll_until, text};
use postgres::Client;

/// A server on which new indexes are canaries, and a table `u` without an index.
fn server(name: &str, percent: u32) -> Result<(Cluster, Client)> {
    let cluster = with(Cluster::build(name).setting("indexpilot.apply_canary_percent", percent).setting("compute_query_id", "on"))?;
    let mut db = connect(&cluster)?;
    db.batch_execute(
        "CREATE TABLE u (id integer, a integer); INSERT INTO u SELECT i, i FROM generate_series(1, 20000) i; ANALYZE u; \
         INSERT INTO indexpilot.analyses (cause) VALUES ('call')",
    )?;
    poll_until(LIMIT, "capture to begin", || {
        db.batch_execute("SELECT id FROM u WHERE a = 1; SELECT indexpilot.capture_flush()")?;
        // With its text, by which the test finds it.
        Ok(number(&mut db, "SELECT count(*) FROM indexpilot.workload WHERE query LIKE 'SELECT id FROM u WHERE a = %'")? > 0)
    })?;
    Ok((cluster, db))
}

/// Has IndexPilot build an index on `u (a)`, which serves the query on `a`.
fn build(db: &mut Client, name: &str, key: &str) -> Result<i64> {
    let statement = format!("CREATE INDEX CONCURRENTLY {name} ON public.u USING btree ({key})");
    let row = db.query_one(
        "WITH r AS (INSERT INTO indexpilot.recommendations (analysis_id, state, reason, reason_detail, table_id, table_schema, table_name, \
             columns, definition, index_def, workload_ids) \
           SELECT a.id, 'applied', 'gain', '', 'u'::regclass, 'public', 'u', '{a}', '', '{}', \
                  ARRAY(SELECT w.id FROM indexpilot.workload w WHERE w.query LIKE 'SELECT id FROM u WHERE a = %') \
             FROM indexpilot.analyses a RETURNING id) \
         INSERT INTO indexpilot.actions (kind, recommendation_id, table_id, table_schema, table_name, index_schema, index_name, \
             definition, statement, cause) \
         SELECT 'create', r.id, 'u'::regclass, 'public', 'u', 'public', $1::text::name, $2, $2, 'test' FROM r RETURNING id",
        &[&name, &statement],
    )?;
    let id = row.get(0);
    reach(db, id, &["built", "verifying", "kept", "reverted"])?;
    Ok(id)
}

/// Transactions of which a session has so far seen one of the indexes, or none.
struct Watcher {
    db: Client,
    indexes: Vec<String>,
    seen: Vec<u32>,
    none: u32,
}

impl Watcher {
    fn new(cluster: &Cluster, indexes: &[&str]) -> Result<Self> {
        let mut db = connect(cluster)?;
        db.batch_execute("SET plan_cache_mode = force_generic_plan; PREPARE p(integer) AS SELECT id FROM u WHERE a = $1")?;
        Ok(Watcher { db, indexes: indexes.iter().map(|&i| i.to_owned()).collect(), seen: vec![0; indexes.len()], none: 0 })
    }

    /// One transaction with a kept plan and a new one, which must agree.
    fn step(&mut self) -> Result<()> {
        let asked: Vec<String> = self.indexes.iter().map(|i| format!("pg_stat_get_xact_numscans('{i}'::regclass)")).collect();
        let scans = format!("SELECT ARRAY[{}]", asked.join(", "));
        let mut work = self.db.transaction()?;
        let before: Vec<i64> = work.query_one(&scans, &[])?.get(0);
        work.batch_execute("EXECUTE p(5)")?;
        let between: Vec<i64> = work.query_one(&scans, &[])?.get(0);
        work.batch_execute("SELECT id FROM u WHERE a = 7")?;
        let after: Vec<i64> = work.query_one(&scans, &[])?.get(0);
        work.commit()?;
        let used = |from: &[i64], to: &[i64]| from.iter().zip(to).position(|(f, t)| t > f);
        let (kept, new) = (used(&before, &between), used(&between, &after));
        if kept != new {
            // The verdict may come in between, and shows the index to all, or to nobody, at once.
            let on_trial = number(&mut self.db, "SELECT count(*) FROM indexpilot.trials WHERE ended_at IS NULL")?;
            assert_eq!(on_trial, 0, "a transaction sees one and the same, not {kept:?} and {new:?}");
            return Ok(());
        }
        match new {
            Some(index) => self.seen[index] += 1,
            None => self.none += 1,
        }
        Ok(())
    }

    fn run(&mut self, transactions: u32) -> Result<()> {
        (0..transactions).try_for_each(|_| self.step())
    }
}

/// Five standard deviations around what a fair coin gives.
fn fair(seen: u32, of: u32, share: f64) {
    let (expected, deviation) = (f64::from(of) * share, (f64::from(of) * share * (1.0 - share)).sqrt());
    assert!((f64::from(seen) - expected).abs() < 5.0 * deviation, "{seen} of {of}, where {expected} are expected");
}

/// Calls of both statements of the watcher, by arm.
fn counted(db: &mut Client) -> Result<String> {
    db.batch_execute("SELECT indexpilot.capture_flush()")?;
    text(
        db,
        "SELECT string_agg(arm || ' ' || calls, ', ' ORDER BY arm) FROM (SELECT arm, sum(s.calls) AS calls \
           FROM indexpilot.trial_stats s JOIN indexpilot.workload w ON w.id = s.workload_id AND w.command = 'select' GROUP BY arm) x",
    )
}

#[test]
fn a_share_of_the_transactions_sees_a_canary() -> Result<()> {
    let (mut cluster, mut db) = server("canary-share", 20)?;
    cluster.configure("indexpilot.verify_delay", "1h")?;
    cluster.reload()?;
    let mut watchers = [Watcher::new(&cluster, &["u"])?, Watcher::new(&cluster, &["u"])?];
    for w in &mut watchers {
        // Their plans are older than the index.
        w.db.batch_execute("EXECUTE p(1); EXECUTE p(2)")?;
    }
    build(&mut db, "ip_u_a", "a")?;
    assert_eq!(
        text(&mut db, "SELECT state || ' ' || share_from || ' ' || share_until || ' ' || arm FROM indexpilot.index_trial")?,
        "trial 0 2000 a"
    );
    assert_eq!(
        text(&mut db, "SELECT kind || ' ' || percent || ' ' || index_a FROM indexpilot.trials WHERE ended_at IS NULL")?,
        "canary 20 ip_u_a"
    );
    assert_eq!(hidden(&mut db)?, "", "it is not hidden");
    for w in &mut watchers {
        w.indexes = vec!["ip_u_a".into()];
        w.run(800)?;
        fair(w.seen[0], 800, 0.2);
    }
    // What was counted in each arm is what was seen, to the last call; and all of it is in workload_stats too.
    let (seen, none) = (watchers.iter().map(|w| w.seen[0]).sum::<u32>(), watchers.iter().map(|w| w.none).sum::<u32>());
    let expected = format!("a {}, control {}", 2 * seen, 2 * none);
    poll_until(LIMIT, "all calls to be handed in", || Ok(counted(&mut db)? == expected)).map_err(|e| format!("{e}: {expected}"))?;
    let all = "SELECT sum(calls)::bigint FROM indexpilot.query_stats WHERE tables = ARRAY['u'::regclass] AND query ~ '^(SELECT id|PREPARE)'";
    assert!(number(&mut db, all)? >= i64::from(2 * (seen + none)));
    // A session that lives for one transaction draws too.
    let mut short = 0;
    for _ in 0..60 {
        let mut w = Watcher::new(&cluster, &["ip_u_a"])?;
        w.step()?;
        short += w.seen[0];
    }
    fair(short, 60, 0.2);
    // So it is after a restart, from the first transaction on.
    drop((watchers, db));
    cluster.restart(Stop::Immediate)?;
    let mut w = Watcher::new(&cluster, &["ip_u_a"])?;
    w.run(400)?;
    fair(w.seen[0], 400, 0.2);
    // Shown by a person, all see it, with the plans that are kept too.
    let mut db = connect(&cluster)?;
    db.batch_execute("SELECT indexpilot.show_index('ip_u_a')")?;
    (w.seen[0], w.none) = (0, 0);
    w.run(50)?;
    assert_eq!((w.seen[0], w.none), (50, 0));
    assert!(text(&mut db, "SELECT outcome FROM indexpilot.trials")?.starts_with("its index was shown to all"));
    Ok(())
}

#[test]
fn a_canary_that_helps_is_shown_to_all() -> Result<()> {
    let (cluster, mut db) = server("canary-kept", 50)?;
    let action = build(&mut db, "ip_u_a", "a")?;
    let mut w = Watcher::new(&cluster, &["ip_u_a"])?;
    let waited = poll_until(LIMIT, "the verdict", || {
        w.run(20)?;
        // Else a session tells once a second that it used an index, and the verdict comes as soon as that.
        w.db.batch_execute("SELECT pg_stat_force_next_flush()")?;
        Ok(text(&mut db, &format!("SELECT state FROM indexpilot.actions WHERE id = {action}"))? == "kept")
    });
    let said = text(&mut db, "SELECT string_agg(v::text, E'\\n' ORDER BY id) FROM indexpilot.verifications v")?;
    waited.map_err(|e| format!("{e}; verify says:\n{said}"))?;
    assert!(w.seen[0] > 0 && w.none > 0);
    // Who reads the verdict may do so a moment before all sessions are told.
    poll_until(LIMIT, "all transactions to see it", || {
        (w.seen[0], w.none) = (0, 0);
        w.run(50)?;
        Ok((w.seen[0], w.none) == (50, 0))
    })?;
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.index_trial")?, 0);
    let outcome = text(&mut db, "SELECT outcome FROM indexpilot.trials WHERE ended_at IS NOT NULL")?;
    assert!(outcome.starts_with("kept: query "), "{outcome}");
    let figures = "SELECT bool_and(calls_before >= 5 AND calls_after >= 5 AND change_ratio < 0.5) FROM indexpilot.verifications WHERE role = 'cited'";
    assert!(db.query_one(figures, &[])?.get::<_, bool>(0));
    Ok(())
}

#[test]
fn a_canary_that_harms_is_hidden_and_dropped() -> Result<()> {
    let (cluster, mut db) = server("canary-harm", 50)?;
    // A query that becomes slower for those who see the index, as figures that no machine can spoil.
    let action = build(&mut db, "ip_u_a", "a")?;
    db.batch_execute("SELECT indexpilot.disable_system('nothing may be dropped')")?;
    db.batch_execute(
        "INSERT INTO indexpilot.trial_stats (trial_id, workload_id, arm, calls, errors, total_ms, sum_squares_ms, histogram) \
         SELECT t.id, w.id, x.arm, 100, 0, 100 * x.ms, 101 * x.ms * x.ms, \
                (SELECT array_agg(CASE WHEN i = x.bucket THEN 100 ELSE 0 END::bigint ORDER BY i) FROM generate_series(1, 112) i) \
           FROM indexpilot.trials t, indexpilot.workload w, (VALUES ('control', 1.0, 41), ('a', 10.0, 54)) x(arm, ms, bucket) \
          WHERE w.query LIKE 'SELECT id FROM u WHERE a = %' ON CONFLICT (trial_id, workload_id, arm) DO UPDATE SET calls = excluded.calls, \
            total_ms = excluded.total_ms, sum_squares_ms = excluded.sum_squares_ms, histogram = excluded.histogram",
    )?;
    reach(&mut db, action, &["reverted"])?;
    assert_eq!(hidden(&mut db)?, "ip_u_a hidden queued");
    assert!(there(&mut db, "ip_u_a")?);
    let mut w = Watcher::new(&cluster, &["ip_u_a"])?;
    w.run(50)?;
    assert_eq!((w.seen[0], w.none), (0, 50));
    assert_eq!(number(&mut db, "SELECT count(*) FROM indexpilot.trials WHERE ended_at IS NOT NULL")?, 1);
    db.batch_execute("SELECT indexpilot.enable_system(); UPDATE indexpilot.actions SET not_before = now() WHERE state = 'queued'")?;
    poll_until(LIMIT, "the index to be dropped", || Ok(!there(&mut db, "ip_u_a")?))?;
    // Every write maintains a canary, whoever sees it: what it does to writes is measured against the time before.
    db.batch_execute("ALTER TABLE u ADD label text; SELECT indexpilot.enable_system()")?;
    let wide = "INSERT INTO u (label) SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 300)";
    for _ in 0..30 {
        db.batch_execute(wide)?;
    }
    db.batch_execute("DELETE FROM u WHERE id IS NULL; SELECT indexpilot.capture_flush()")?;
    let action = build(&mut db, "ip_u_label", "label")?;
    for _ in 0..30 {
        db.batch_execute(wide).expect_err("the row is too wide for the index");
    }
    reach(&mut db, action, &["reverted"])?;
    poll_until(LIMIT, "the index to be dropped", || Ok(!there(&mut db, "ip_u_label")?))?;
    Ok(())
}

#[test]
fn two_indexes_are_compared() -> Result<()> {
    let (cluster, mut db) = server("canary-compare", 100)?;
    db.batch_execute("CREATE INDEX u_a ON u (a); CREATE INDEX u_ab ON u (a, id); CREATE INDEX u_id ON u (id); CREATE TABLE other (a integer); CREATE INDEX other_a ON other (a)")?;
    let mut refused = |call: &str, code: &str| {
        let e = db.query(&format!("SELECT indexpilot.{call}"), &[]).expect_err(call);
        assert_eq!(e.code().map(|c| c.code()), Some(code), "{call}: {e}");
    };
    refused("start_trial('u_a', 'u_ab', 51)", "22023");
    refused("start_trial('u_a', percent => 0)", "22023");
    refused("start_trial('u_a', percent => 'NaN')", "22023");
    refused("start_trial('u_a', 'u_a')", "22023");
    refused("start_trial('u_a', 'other_a')", "22023");
    refused("start_trial('u')", "42809");
    refused("end_trial(4711)", "42704");
    refused("trial_report(4711)", "42704");
    let trial = number(&mut db, "SELECT indexpilot.start_trial('u_a', 'u_ab', 30)")?;
    let second = db.query("SELECT indexpilot.start_trial('u_id')", &[]).expect_err("one at a time");
    assert_eq!(second.code().map(|c| c.code()), Some("55006"), "{second}");
    let mut w = Watcher::new(&cluster, &["u_a", "u_ab"])?;
    w.run(1000)?;
    for (seen, share) in [(w.seen[0], 0.3), (w.seen[1], 0.3), (w.none, 0.4)] {
        fair(seen, 1000, share);
    }
    let expected = format!("a {}, b {}, control {}", 2 * w.seen[0], 2 * w.seen[1], 2 * w.none);
    poll_until(LIMIT, "all calls to be handed in", || Ok(counted(&mut db)? == expected)).map_err(|e| format!("{e}: {expected}"))?;
    // Both are faster than neither; the one that the planner likes less is as good.
    let report =
        format!("SELECT string_agg(arm || ' ' || effect, ', ' ORDER BY arm, workload_id) FROM indexpilot.trial_report({trial})");
    assert_eq!(text(&mut db, &report)?, "a faster, a faster, b faster, b faster");
    let end = db.query(&format!("SELECT indexpilot.end_trial({trial}, 'c')"), &[]).expect_err("there is no c");
    assert_eq!(end.code().map(|c| c.code()), Some("22023"), "{end}");
    db.batch_execute(&format!("SELECT indexpilot.end_trial({trial}, 'b')"))?;
    assert_eq!(text(&mut db, "SELECT string_agg(index_name || ' ' || state, ',') FROM indexpilot.hidden_indexes")?, "u_a hidden");
    (w.seen, w.none) = (vec![0, 0], 0);
    w.run(50)?;
    assert_eq!((w.seen.as_slice(), w.none), ([0, 50].as_slice(), 0));
    assert!(plan(&mut db, "SELECT id FROM u WHERE a = 5")?.contains("u_ab"));
    // One index with none, ended by dropping it.
    db.batch_execute("SELECT indexpilot.show_index('u_a'); SELECT indexpilot.start_trial('u_id', percent => 100)")?;
    assert!(plan(&mut db, "SELECT a FROM u WHERE id = 5")?.contains("u_id"));
    db.batch_execute("DROP INDEX u_id")?;
    poll_until(LIMIT, "the trial to end", || {
        Ok(number(&mut db, "SELECT count(*) FROM indexpilot.trials WHERE ended_at IS NULL")? == 0)
    })?;
    let outcomes = "SELECT string_agg(outcome, '; ' ORDER BY id) FROM indexpilot.trials";
    assert_eq!(text(&mut db, outcomes)?, "ended by postgres, keeping b; its index is gone");
    Ok(())
}
