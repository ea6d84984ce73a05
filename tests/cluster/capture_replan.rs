//! Samples are for planning: of all that a mixed workload ran, almost every template can be planned again, from nothing but its text,
//! its parameters, its search path and its role.

use crate::capture::{LIMIT, Server, column, make_pgbench_tables, pgbench, said, text};
use crate::capture_replan_mix::{FUNCTIONS, PREPARED, STATEMENTS, TABLES};
use indexpilot_tests::{Cluster, Result, poll_until};
use postgres::Client;
use postgres::types::{ToSql, Type};
use std::fs;
use std::path::Path;

/// Share of the templates that must end as plannable.
const BAR: f64 = 0.99;

/// The eight tables of TPC-H with a few rows.
const TPCH: &str = "
CREATE SCHEMA tpch; SET search_path = tpch;
CREATE TABLE region (r_regionkey integer, r_name char(25), r_comment varchar(152));
CREATE TABLE nation (n_nationkey integer, n_name char(25), n_regionkey integer, n_comment varchar(152));
CREATE TABLE part (p_partkey integer, p_name varchar(55), p_mfgr char(25), p_brand char(10), p_type varchar(25), p_size integer,
  p_container char(10), p_retailprice decimal(15,2), p_comment varchar(23));
CREATE TABLE supplier (s_suppkey integer, s_name char(25), s_address varchar(40), s_nationkey integer, s_phone char(15),
  s_acctbal decimal(15,2), s_comment varchar(101));
CREATE TABLE partsupp (ps_partkey integer, ps_suppkey integer, ps_availqty integer, ps_supplycost decimal(15,2), ps_comment varchar(199));
CREATE TABLE customer (c_custkey integer, c_name varchar(25), c_address varchar(40), c_nationkey integer, c_phone char(15),
  c_acctbal decimal(15,2), c_mktsegment char(10), c_comment varchar(117));
CREATE TABLE orders (o_orderkey integer, o_custkey integer, o_orderstatus char(1), o_totalprice decimal(15,2), o_orderdate date,
  o_orderpriority char(15), o_clerk char(15), o_shippriority integer, o_comment varchar(79));
CREATE TABLE lineitem (l_orderkey integer, l_partkey integer, l_suppkey integer, l_linenumber integer, l_quantity decimal(15,2),
  l_extendedprice decimal(15,2), l_discount decimal(15,2), l_tax decimal(15,2), l_returnflag char(1), l_linestatus char(1),
  l_shipdate date, l_commitdate date, l_receiptdate date, l_shipinstruct char(25), l_shipmode char(10), l_comment varchar(44));
INSERT INTO nation SELECT i, 'nation ' || i, i % 5, '' FROM generate_series(1, 25) i;
INSERT INTO orders SELECT i, i % 50, 'O', i, date '1995-01-01' + i, '1-URGENT', 'clerk', 0, '' FROM generate_series(1, 500) i;
INSERT INTO lineitem SELECT i / 4, i % 100, i % 10, i % 4, 1, i, 0.05, 0.1, 'R', 'O', date '1995-01-01' + i / 4, date '1995-01-01' + i / 4,
  date '1995-01-03' + i / 4, '', 'AIR', '' FROM generate_series(1, 2000) i;
ANALYZE; RESET search_path;
";

/// A table that shows a role the rows of its tenant, by a setting of the application, and its own notes.
const ROW_SECURITY: &str = "
CREATE SCHEMA portal; CREATE ROLE portal_user LOGIN;
CREATE TABLE portal.documents (id integer PRIMARY KEY, tenant_id integer NOT NULL, title text NOT NULL, body text);
CREATE TABLE portal.notes (id integer, document_id integer, author name NOT NULL DEFAULT current_user, words text);
INSERT INTO portal.documents SELECT i, i % 10, 'title ' || i, 'body' FROM generate_series(1, 500) i;
INSERT INTO portal.notes SELECT i, i % 500, 'portal_user', 'note ' || i FROM generate_series(1, 500) i;
ALTER TABLE portal.documents ENABLE ROW LEVEL SECURITY; ALTER TABLE portal.notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_tenant ON portal.documents USING (tenant_id = current_setting('app.tenant')::integer);
CREATE POLICY by_author ON portal.notes USING (author = current_user);
CREATE FUNCTION portal.matching(what text) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
  RETURN (SELECT count(*) FROM portal.documents WHERE title = what); END $$;
GRANT USAGE ON SCHEMA portal TO portal_user; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA portal TO portal_user;
ANALYZE portal.documents; ANALYZE portal.notes;
";

const PORTAL: &[&str] = &[
    "SELECT title FROM documents WHERE id = {n}",
    "SELECT d.title, n.words FROM documents d JOIN notes n ON n.document_id = d.id WHERE d.title LIKE 'title {n}%'",
    "SELECT count(*) FROM notes WHERE words = 'note {n}'",
    "UPDATE documents SET body = 'new {n}' WHERE id = {n}",
    "INSERT INTO notes (id, document_id, words) VALUES ({n}, 1, 'x')",
    "DELETE FROM notes WHERE id = {n} AND words = 'x'",
    "SELECT portal.matching('title {n}')",
];

fn run_all(session: &mut Client, statements: &[&str], n: usize) -> Result<()> {
    for statement in statements {
        let statement = statement.replace("{n}", &n.to_string());
        session.batch_execute(&statement).map_err(|e| format!("{statement}: {}", said(&e)))?;
    }
    Ok(())
}

/// Runs each with a number and a text, often enough for a generic plan.
fn run_prepared(session: &mut Client, round: usize) -> Result<()> {
    for sql in PREPARED {
        // As drivers do: types left to the server, or given.
        let statement = match round % 2 {
            0 => session.prepare(sql),
            _ => session.prepare_typed(sql, &[Type::INT4, Type::TEXT]),
        }
        .map_err(|e| format!("{sql}: {}", said(&e)))?;
        for i in 0..7i32 {
            let (small, large, words) = (i + 1, i64::from(i) + 1, format!("{}", 190 + i));
            let values: Vec<&(dyn ToSql + Sync)> = statement
                .params()
                .iter()
                .map(|kind| -> &(dyn ToSql + Sync) {
                    match *kind {
                        Type::INT4 => &small,
                        Type::INT8 => &large,
                        _ => &words,
                    }
                })
                .collect();
            session.query(&statement, &values).map_err(|e| format!("{sql}: {}", said(&e)))?;
        }
    }
    Ok(())
}

/// The analytic queries of the demonstration.
fn analytic() -> Result<Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/queries");
    let mut files: Vec<_> = fs::read_dir(folder)?.map(|f| Ok(f?.path())).collect::<Result<_>>()?;
    files.sort();
    files.iter().map(|f| Ok(fs::read_to_string(f)?)).collect()
}

#[test]
fn almost_everything_that_was_captured_can_be_planned_again() -> Result<()> {
    let mut server = Server::start(
        Cluster::build("capture-replan")
            .setting("indexpilot.worker_interval", "200ms")
            .setting("indexpilot.capture_max_samples", 4096),
    )?;
    server.db.batch_execute(TPCH)?;
    server.db.batch_execute(ROW_SECURITY)?;
    make_pgbench_tables(&server.cluster)?;
    let paths = [("north", "north, public"), ("south", "\"$user\", south"), ("Far East", "\"Far East\", pg_catalog, public")];
    for (schema, _) in paths {
        server.db.batch_execute(&format!("CREATE SCHEMA \"{schema}\"; SET search_path = \"{schema}\"; {TABLES}"))?;
        server.db.batch_execute(FUNCTIONS).map_err(|e| said(&e))?;
    }
    server.db.batch_execute("RESET search_path")?;
    server.reset()?;

    for round in 1..=3 {
        for (_, path) in paths {
            let mut session = server.session()?;
            session.batch_execute(&format!("SET search_path = {path}"))?;
            run_all(&mut session, STATEMENTS, round + 7)?;
            run_prepared(&mut session, round)?;
        }
        let mut portal = server.cluster.connect("postgres", "portal_user")?;
        portal.batch_execute(&format!("SET search_path = portal; SET app.tenant = '{round}'"))?;
        run_all(&mut portal, PORTAL, round)?;
        let find = portal.prepare("SELECT body FROM documents WHERE title = $1")?;
        for n in 0..7 {
            portal.query(&find, &[&format!("title {n}")])?;
        }
        let mut analyst = server.session()?;
        analyst.batch_execute("SET search_path = tpch")?;
        for query in analytic()? {
            analyst.batch_execute(&query).map_err(|e| format!("{query}: {}", said(&e)))?;
        }
    }
    for protocol in ["simple", "extended", "prepared"] {
        pgbench(&server.cluster, &["-M", protocol, "-t", "50", "-c", "2"])?;
        pgbench(&server.cluster, &["-M", protocol, "-t", "50", "-c", "2", "-S"])?;
    }

    // The worker tries what it has samples of.
    server.db.batch_execute("SELECT indexpilot.capture_flush()")?;
    server.cluster.configure("indexpilot.worker_interval", "200ms")?;
    server.cluster.reload()?;
    let pending = "SELECT count(*)::text FROM indexpilot.workload WHERE plan_state = 'pending' AND command <> 'utility'";
    let mut left = String::new();
    let planned = poll_until(LIMIT, "the worker to plan everything", || {
        left = text(&mut server.db, pending)?;
        Ok(left == "0")
    });
    let of =
        |state: &str| format!("SELECT count(*) FILTER (WHERE {state})::text FROM indexpilot.workload WHERE command <> 'utility'");
    let number = |server: &mut Server, state: &str| -> Result<f64> { Ok(text(&mut server.db, &of(state))?.parse()?) };
    let (all, nested) = (number(&mut server, "true")?, number(&mut server, "nested")?);
    let plannable = number(&mut server, "plan_state = 'plannable'")?;
    let failures = "SELECT format('%s%s %s: %s | %s | %s', CASE WHEN w.nested THEN 'nested ' END, w.command, w.plan_state, w.plan_error, \
                    coalesce(s.query, w.query, 'no text, tables ' || w.relations::regclass[]::text), s.parameter_types::regtype[]::text) \
                    FROM indexpilot.workload w LEFT JOIN LATERAL (SELECT * FROM indexpilot.workload_sample s WHERE s.workload_id = w.id \
                    ORDER BY s.id DESC LIMIT 1) s ON true WHERE w.plan_state <> 'plannable' AND w.command <> 'utility' ORDER BY w.id";
    let failures = column(&mut server.db, failures)?;
    let share = plannable / all;
    println!("{plannable} of {all} templates can be planned again ({:.2} %), {nested} of all are nested", share * 100.0);
    println!("{}", failures.join("\n"));
    println!("{}", server.figures()?);
    assert!(all >= 400.0 && nested >= 150.0, "the mix is not what it should be");
    assert!(planned.is_ok(), "{left} templates were never tried; {} failures", failures.len());
    assert!(share >= BAR, "{:.2} % can be planned again:\n{}", share * 100.0, failures.join("\n"));
    decisions_are_explained(&mut server)?;
    server.expect_no_loss()
}

/// What the extension itself says of it, and that an analysis decides on costs of the planner and has a reason for every query.
fn decisions_are_explained(server: &mut Server) -> Result<()> {
    server.db.batch_execute("SET indexpilot.candidate_min_table_size = 0")?;
    let decided = text(&mut server.db, "SELECT count(*)::text FROM indexpilot.analyze_and_create_indexes(dry_run => true)")?;
    let figures = "SELECT format('%s %s', name, value) FROM indexpilot.get_explain_usage_stats() ORDER BY name";
    println!("{decided} decisions\n{}", column(&mut server.db, figures)?.join("\n"));
    let reasons =
        "SELECT format('%s %s', reason, count(*)) FROM indexpilot.query_advice GROUP BY reason ORDER BY count(*) DESC, reason";
    let reasons = column(&mut server.db, reasons)?;
    println!("{}", reasons.join("\n"));
    for (name, bar) in [("coverage", 0.95), ("success_rate", BAR), ("sample_success_rate", BAR), ("decision_coverage", 0.95)] {
        let value = format!("SELECT value::text FROM indexpilot.get_explain_usage_stats() WHERE name = '{name}'");
        let value: f64 = text(&mut server.db, &value)?.parse()?;
        assert!(value >= bar, "{name} is {value}");
    }
    assert!(decided.parse::<u32>()? > 20, "{decided} decisions");
    let silent =
        "SELECT count(*)::text FROM indexpilot.query_advice WHERE reason IS NULL OR reason = 'not_analysed' OR reason_detail = ''";
    assert_eq!(text(&mut server.db, silent)?, "0", "queries without a reason: {}", reasons.join(", "));
    Ok(())
}
