//! How often the verdict on an index is right: 70 tables under load, whose indexes are built all at once and judged by what is measured.
//!
//! Twenty indexes do harm, each in one of three ways: a write computes an expensive expression; the planner takes the new index for a
//! query that is slower with it; updates are no longer heap-only, and no query gains. Fifty help a query, some a lot and some less, on
//! tables that are written to as well. Two sessions run everything over and over and get in each other's way, and while the indexes are
//! built all of it is slower.

use crate::claim;
use indexpilot_tests::{Cluster, Result, poll_until};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const HARMFUL: usize = 20;
const HELPFUL: usize = 50;
/// Bars of the issue.
const LEAST_RIGHT: i64 = 19;
const MOST_WRONG: i64 = 1;
const SESSIONS: usize = 2;
const ROWS: i32 = 20_000;
/// Calls that each query shall have had before any index is built.
const CALLS: i64 = 150;
/// For how long an index is watched at most.
const OBSERVATION: &str = "3min";

/// How an index does harm.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    Write,
    Plan,
    HeapOnly,
}

impl Harm {
    fn of(i: usize) -> Self {
        [Harm::Write, Harm::Plan, Harm::HeapOnly][i % 3]
    }

    /// What the index is on.
    fn keys(self) -> &'static str {
        match self {
            Harm::Write => "public.slow(b)",
            Harm::Plan | Harm::HeapOnly => "b",
        }
    }

    fn statements(self, table: &str, n: usize) -> String {
        match self {
            Harm::Write => format!("INSERT INTO {table} VALUES (2, {n})"),
            // The rows wanted are the last ones in the order of b, which the planner does not know.
            Harm::Plan => format!("SELECT * FROM {table} WHERE a = 1 ORDER BY b LIMIT 1"),
            Harm::HeapOnly => format!("UPDATE {table} SET b = b + 1 WHERE id = {}; SELECT count(*) FROM {table}", n % 200),
        }
    }
}

/// Values of the column that a helpful index is on: the fewer there are, the less it helps.
fn values(i: usize) -> usize {
    [5000, 2000, 500][i % 3]
}

/// Runs and prints; false when a bar was missed.
pub fn run() -> Result<bool> {
    let mut builder = Cluster::build("bench-verify");
    for (name, value) in [
        ("mode", "apply"),
        ("select", "off"),
        ("worker_interval", "200ms"),
        ("capture_bucket", "1s"),
        ("verify_delay", "5s"),
        ("verify_timeout", OBSERVATION),
        ("guard_max_actions_per_hour", "1000"),
        ("guard_max_actions_per_day", "1000"),
        ("guard_breaker_failures", "0"),
        ("guard_max_writes_per_read", "1e9"),
        ("guard_max_load", "0"),
    ] {
        builder = builder.setting(&format!("indexpilot.{name}"), value);
    }
    let cluster = builder.start()?;
    let mut db = connect(&cluster)?;
    prepare(&mut db)?;
    println!("\n{HARMFUL} harmful and {HELPFUL} helpful indexes, {SESSIONS} sessions of load, verdicts within {OBSERVATION}");
    let over = AtomicBool::new(false);
    let took = thread::scope(|scope| -> Result<Duration> {
        let sessions: Vec<_> = (0..SESSIONS).map(|_| scope.spawn(|| load(&cluster, &over).map_err(|e| e.to_string()))).collect();
        let took = judged(&mut db);
        over.store(true, Relaxed);
        for session in sessions {
            session.join().map_err(|_| "a session's thread panicked")??;
        }
        took
    })?;
    report(&mut db, took)
}

fn connect(cluster: &Cluster) -> Result<Client> {
    cluster.connect("postgres", "postgres")
}

fn prepare(db: &mut Client) -> Result<()> {
    db.batch_execute(
        "CREATE EXTENSION indexpilot; \
         CREATE FUNCTION slow(i integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$ \
           DECLARE n integer := 0; BEGIN FOR k IN 1..3000 LOOP n := n + k % 7; END LOOP; RETURN i + n; END $$; \
         CREATE TABLE aside1 AS SELECT generate_series(1, 2000) i; CREATE TABLE aside2 AS TABLE aside1; CREATE TABLE aside3 AS TABLE aside1",
    )?;
    for i in 0..HARMFUL {
        let (columns, rows) = match Harm::of(i) {
            // Few rows: all of them are computed when the index is built.
            Harm::Write => ("2 AS a, b", 500),
            Harm::Plan => ("(b > 19900)::integer AS a, b", ROWS),
            Harm::HeapOnly => ("b AS id, b, repeat('x', 50) AS pad", 200),
        };
        db.batch_execute(&format!(
            "CREATE TABLE harmful{i} WITH (fillfactor = 40, autovacuum_enabled = off) AS \
               SELECT {columns} FROM (SELECT b FROM generate_series(1, {rows}) b ORDER BY random()) s; ANALYZE harmful{i}"
        ))?;
        if Harm::of(i) == Harm::HeapOnly {
            db.batch_execute(&format!("ALTER TABLE harmful{i} ADD PRIMARY KEY (id)"))?;
        }
    }
    for i in 0..HELPFUL {
        db.batch_execute(&format!(
            "CREATE TABLE helpful{i} AS SELECT b % {} AS a, b, repeat('x', 50) AS pad FROM generate_series(1, {ROWS}) b; ANALYZE helpful{i}",
            values(i)
        ))?;
    }
    // What fills the tables is no workload.
    poll_until(Duration::from_secs(60), "the database to be captured", || {
        Ok(text(db, "SELECT value FROM indexpilot.status WHERE name = 'registered'")? == "true")
    })?;
    Ok(db.batch_execute("SELECT indexpilot.capture_reset()")?)
}

fn text(db: &mut Client, sql: &str) -> Result<String> {
    Ok(db.query_one(sql, &[])?.get::<_, Option<String>>(0).unwrap_or_default())
}

fn load(cluster: &Cluster, over: &AtomicBool) -> Result<()> {
    let mut db = connect(cluster)?;
    let mut n = 0;
    while !over.load(Relaxed) {
        for i in 0..HARMFUL {
            n += 1;
            db.batch_execute(&Harm::of(i).statements(&format!("harmful{i}"), n))?;
        }
        for i in 0..HELPFUL {
            n += 1;
            db.batch_execute(&format!("SELECT * FROM helpful{i} WHERE a = {}", n % values(i)))?;
            if n % 4 == 0 {
                db.batch_execute(&format!("INSERT INTO helpful{i} VALUES ({}, {n})", n % values(i)))?;
            }
        }
        db.batch_execute("SELECT count(*) FROM aside1; SELECT count(*) FROM aside2; SELECT count(*) FROM aside3")?;
    }
    Ok(())
}

/// Has the indexes built, and waits for all verdicts; returns how long that took.
fn judged(db: &mut Client) -> Result<Duration> {
    let called = format!(
        "SELECT (count(*) >= {})::text FROM indexpilot.queries WHERE command = 'select' AND cardinality(tables) = 1 AND calls >= {CALLS}",
        HELPFUL + HARMFUL * 2 / 3
    );
    poll_until(Duration::from_secs(300), "enough calls before", || Ok(text(db, &called)? == "true"))?;
    let start = Instant::now();
    db.batch_execute("INSERT INTO indexpilot.analyses (cause) VALUES ('call')")?;
    for i in 0..HARMFUL {
        queue(db, &format!("harmful{i}"), Harm::of(i).keys())?;
    }
    for i in 0..HELPFUL {
        queue(db, &format!("helpful{i}"), "a")?;
    }
    let mut open = String::new();
    poll_until(Duration::from_secs(900), "all verdicts", || {
        open = text(
            db,
            "SELECT string_agg(table_name || ' ' || state || ' ' || coalesce(blocked_reason, error_message, ''), '; ') \
             FROM indexpilot.actions WHERE kind = 'create' AND state NOT IN ('kept', 'reverted')",
        )?;
        Ok(open.is_empty())
    })
    .map_err(|e| format!("{e}: {open}"))?;
    Ok(start.elapsed())
}

/// Queues an index as the worker does, with the queries on the table as those that it is for.
fn queue(db: &mut Client, table: &str, keys: &str) -> Result<()> {
    let name = format!("{table}_index");
    let definition = format!("CREATE INDEX CONCURRENTLY {name} ON public.{table} USING btree ({keys})");
    db.execute(
        "WITH r AS (INSERT INTO indexpilot.recommendations (analysis_id, state, reason, reason_detail, table_id, table_schema, \
           table_name, columns, definition, index_def, workload_ids) \
         SELECT max(a.id), 'applied', 'gain', '', $1::text::regclass, 'public', $1::text::name, '{}', $3, '{}', \
           ARRAY(SELECT w.id FROM indexpilot.workload w WHERE w.relations @> ARRAY[$1::text::regclass::oid] AND w.command = 'select') \
         FROM indexpilot.analyses a RETURNING id) \
         INSERT INTO indexpilot.actions (kind, recommendation_id, table_id, table_schema, table_name, index_schema, index_name, \
           definition, statement, cause, actor) \
         SELECT 'create', r.id, $1::text::regclass, 'public', $1::text::name, 'public', $2::text::name, $3, $3, 'bench', 'indexpilot' FROM r",
        &[&table, &name, &definition],
    )?;
    Ok(())
}

/// A verdict with its reason.
struct Given {
    table: String,
    verdict: String,
    reason: String,
    /// What was measured of each query.
    figures: String,
    /// Seconds after the build.
    after: f64,
}

fn report(db: &mut Client, took: Duration) -> Result<bool> {
    let rows = db.query(
        "SELECT a.table_name::text, v.verdict, v.reason, extract(epoch FROM a.verified_at - a.finished_at)::float8, \
           (SELECT string_agg(format('%s %s: %s calls %s ms, then %s calls %s ms, p %s', q.role, q.reason, q.calls_before, \
              round(q.mean_ms_before::numeric, 3), q.calls_after, round(q.mean_ms_after::numeric, 3), round(q.p_value::numeric, 4)), '; ') \
            FROM indexpilot.verifications q WHERE q.action_id = a.id AND q.role <> 'summary') \
         FROM indexpilot.actions a JOIN indexpilot.verifications v ON v.action_id = a.id AND v.role = 'summary' \
         WHERE a.kind = 'create' ORDER BY a.id",
        &[],
    )?;
    let given = rows.iter().map(|r| Given {
        table: r.get(0),
        verdict: r.get(1),
        reason: r.get(2),
        after: r.get(3),
        figures: r.get::<_, Option<String>>(4).unwrap_or_default(),
    });
    let (harmful, helpful): (Vec<Given>, Vec<Given>) = given.partition(|v| v.table.starts_with("harmful"));
    let number = |of: &[Given], verdict: &str| of.iter().filter(|v| v.verdict == verdict).count() as i64;
    for v in harmful.iter().filter(|v| v.verdict != "reverted").chain(helpful.iter().filter(|v| v.verdict != "kept")) {
        println!("    {:10} {}: {}\n               {}", v.table, v.verdict, v.reason, v.figures);
    }
    for (kind, of) in [("harmful", &harmful), ("helpful", &helpful)] {
        let mut seconds: Vec<f64> = of.iter().map(|v| v.after).collect();
        seconds.sort_by(f64::total_cmp);
        let (middle, last) = (seconds.get(seconds.len() / 2), seconds.last());
        if let (Some(middle), Some(last)) = (middle, last) {
            println!("    {kind}: the verdict came {middle:.0} s after the build in the middle, {last:.0} s at the latest");
        }
    }
    println!("    all of it took {:.0} s\n", took.as_secs_f64());
    let (right, wrong) = (number(&harmful, "reverted"), number(&helpful, "reverted"));
    let mut held = claim(
        harmful.len() == HARMFUL && right >= LEAST_RIGHT,
        &format!("harmful indexes taken back: {right} of {HARMFUL}, bar {LEAST_RIGHT}"),
    );
    held &= claim(
        helpful.len() == HELPFUL && wrong <= MOST_WRONG,
        &format!("helpful indexes taken back: {wrong} of {HELPFUL}, bar {MOST_WRONG}; {} kept", number(&helpful, "kept")),
    );
    // A verdict is soon followed by deeds.
    let gone = "SELECT (count(*) = 0)::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                JOIN indexpilot.actions a ON a.index_name = c.relname AND a.kind = 'create' AND a.state = 'reverted'";
    let dropped = poll_until(Duration::from_secs(120), "the drops", || Ok(text(db, gone)? == "true"));
    held &= claim(dropped.is_ok(), "what was taken back is gone");
    Ok(held)
}
