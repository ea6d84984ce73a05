//! What hypothetical indexes cost beside what HypoPG says of them, and what the real ones cost.
//!
//! HypoPG (1.3) stores equal values of a B-tree once for each row and counts a tuple's header for each column, so its B-trees are up to
//! four times too big, and scans that read much of one too dear. It has no statistics of expressions, so the planner's default of one row
//! in 200 makes them up to twenty times too dear. It gives B-trees no height, so a look-up costs a little too little. And it makes no
//! gin, gist and spgist indexes.

use indexpilot_tests::{Cluster, Result};
use std::fmt::Write as _;
use std::path::Path;

const TABLES: &str = "
    CREATE EXTENSION indexpilot;
    CREATE EXTENSION hypopg;
    CREATE TABLE sales (id int NOT NULL, customer int NOT NULL, status text NOT NULL, at timestamptz NOT NULL, total numeric NOT NULL,
                        email text NOT NULL, tags int[] NOT NULL, note text);
    INSERT INTO sales SELECT i, abs(hashint4(i)) % 5000, (ARRAY['new', 'paid', 'sent', 'done'])[1 + abs(hashint4(i + 7)) % 4],
        timestamptz '2024-01-01' + i * interval '1 minute', (abs(hashint4(i + 5)) % 100000) / 100.0, 'C' || abs(hashint4(i + 3)) % 9000 || '@x',
        ARRAY[abs(hashint4(i + 1)) % 100, abs(hashint4(i + 2)) % 1000], CASE WHEN i % 20 = 0 THEN 'note ' || i END
        FROM generate_series(1, 100000) i;
    SET max_parallel_workers_per_gather = 0;";

const CASES: &[(&str, &str)] = &[
    ("(customer)", "SELECT * FROM sales WHERE customer = 42"),
    ("(status)", "SELECT count(*) FROM sales WHERE status = 'paid'"),
    ("(customer, at DESC)", "SELECT * FROM sales WHERE customer = 42 ORDER BY at DESC LIMIT 3"),
    ("(status, customer, at, total)", "SELECT sum(total) FROM sales WHERE status = 'paid' AND customer < 500"),
    ("(customer) INCLUDE (total)", "SELECT customer, sum(total) FROM sales WHERE customer < 2000 GROUP BY customer"),
    ("(at)", "SELECT count(*) FROM sales WHERE at < '2024-01-20'"),
    ("(note)", "SELECT id FROM sales WHERE note IS NOT NULL"),
    ("(id) WHERE note IS NOT NULL", "SELECT id FROM sales WHERE note IS NOT NULL AND id < 50000"),
    ("(lower(email))", "SELECT * FROM sales WHERE lower(email) = 'c77@x'"),
    ("(lower(email))", "SELECT * FROM sales WHERE lower(email) IN ('c1@x', 'c2@x', 'c3@x')"),
    ("USING hash (customer)", "SELECT * FROM sales WHERE customer = 42"),
    ("USING brin (at)", "SELECT count(*) FROM sales WHERE at < '2024-01-05'"),
    ("USING gin (tags)", "SELECT * FROM sales WHERE tags @> ARRAY[7, 8]"),
    ("USING gin (tags)", "SELECT count(*) FROM sales WHERE tags && ARRAY[700, 800]"),
];

#[test]
fn costs_are_nearer_to_the_real_ones_than_hypopgs() -> Result<()> {
    let cluster = Cluster::build("whatif-hypopg").start()?;
    let directory = cluster.run(cluster.client_program("pg_config").arg("--pkglibdir"))?;
    if !Path::new(directory.trim()).join("hypopg.so").exists() {
        println!("HypoPG is not installed: nothing to compare with (make bench-select fetches it)");
        return Ok(());
    }
    let mut db = cluster.connect("postgres", "postgres")?;
    db.batch_execute(TABLES)?;
    db.batch_execute("VACUUM ANALYZE sales")?;
    let mut table = String::from("    real cost        ours      HypoPG   real pages    ours  HypoPG\n");
    let (mut ours_off, mut theirs_off): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    for (form, query) in CASES {
        let definition = format!("CREATE INDEX built ON sales {form}");
        let row = db
            .query_one("SELECT cost_after, estimated_bytes / 8192 FROM indexpilot.what_if($1, ARRAY[$2])", &[query, &definition])?;
        let (ours, our_pages): (f64, i64) = (row.get(0), row.get(1));
        // Where HypoPG cannot make an index, its cost is that of no index.
        let made = db.query_one("SELECT indexrelid FROM hypopg_create_index($1)", &[&definition]);
        let their_pages: Option<i64> = match &made {
            Ok(row) => Some(db.query_one("SELECT hypopg_relation_size($1) / 8192", &[&row.get::<_, u32>(0)])?.get(0)),
            Err(_) => None,
        };
        let theirs = cost(&mut db, query)?;
        db.batch_execute("SELECT hypopg_reset()")?;
        db.batch_execute(&definition)?;
        // Only ANALYZE gives a real index statistics of its expressions.
        if form.contains("lower") {
            db.batch_execute("ANALYZE sales")?;
        }
        let real = cost(&mut db, query)?;
        let pages: i64 = db.query_one("SELECT pg_relation_size('built') / 8192", &[])?.get(0);
        db.batch_execute("DROP INDEX built")?;
        ours_off.push((ours / real).ln().abs());
        theirs_off.push((theirs / real).ln().abs());
        let their_pages = their_pages.map_or_else(|| "none".to_owned(), |p| p.to_string());
        writeln!(table, "{real:13.2} {ours:11.2} {theirs:11.2} {pages:12} {our_pages:7} {their_pages:>7}  {form} | {query}")?;
    }
    println!("{table}");
    let worst = |off: &[f64]| off.iter().copied().fold(0.0, f64::max).exp() - 1.0;
    let mean = |off: &[f64]| (off.iter().sum::<f64>() / off.len() as f64).exp() - 1.0;
    println!(
        "off the real cost: ours {:.1} % on average, {:.1} % at worst; HypoPG {:.1} % and {:.1} %",
        100.0 * mean(&ours_off),
        100.0 * worst(&ours_off),
        100.0 * mean(&theirs_off),
        100.0 * worst(&theirs_off)
    );
    assert!(mean(&ours_off) < 0.02, "{table}");
    assert!(mean(&ours_off) < mean(&theirs_off), "{table}");
    Ok(())
}

/// Total cost of the plan of a query in this session.
fn cost(db: &mut postgres::Client, query: &str) -> Result<f64> {
    let lines = db.query(&format!("EXPLAIN {query}"), &[])?;
    let first: String = lines.first().ok_or("EXPLAIN returned nothing")?.get(0);
    let cost = first.split_once("..").and_then(|(_, rest)| rest.split_once(' ')).ok_or("EXPLAIN shows no cost")?.0;
    Ok(cost.parse()?)
}
