//! What a stored query does to tables and fields, and where it names its tenant.

use super::hooks::Session;
use super::{Sample, TenantKeys};
use crate::guc;
use crate::pg::error::Result;
use crate::pg::planner;
use indexpilot_core::profile::Statement;

/// Plans the sample with the database as it is and reads from statement and planner what it uses each field for, at all levels.
/// `keys` are the columns that say which tenant a row belongs to.
///
/// # Errors
/// As [`planner::with_statement`]; `Prerequisite` when the hooks are not installed.
pub fn profile(sample: &Sample, keys: &TenantKeys) -> Result<Statement> {
    planner::with_statement(sample, guc::whatif_timeout(), |statement| {
        let session = Session::record_fields()?;
        let cost = statement.plan().cost();
        let (relations, mut fields) = session.recorded();
        let (written, set) = statement.writes();
        fields.extend(set);
        Ok(Statement {
            cost,
            fields,
            read: relations.into_iter().map(|r| r.usage.rel).collect(),
            written,
            tenant: statement.tenant(keys, sample.parameters.len()),
        })
    })
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use super::*;
    use crate::pg::{catalog, role};
    use crate::whatif::Parameter;
    use indexpilot_core::model::{AttNum, RelId};
    use indexpilot_core::profile::{Comparison, FieldUse, Usage};
    use indexpilot_core::tenant::TenantSource;
    use pgrx::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn set_up() {
        Spi::run(
            "CREATE SCHEMA p;
             SET search_path = p;
             CREATE TABLE tenants (id int PRIMARY KEY, name text);
             CREATE TABLE notes (tenant_id int NOT NULL, id int, kind int, title text, body text, done boolean, at timestamptz,
                                 tags text[], PRIMARY KEY (tenant_id, id));
             CREATE TABLE events (tenant_id uuid, note_id int, what text DEFAULT 'x', at timestamptz);
             CREATE VIEW open_notes AS SELECT id AS note, tenant_id AS owner, title FROM notes WHERE NOT done AND kind = 7;
             INSERT INTO notes SELECT i % 10, i, i % 5, 'title ' || i, 'body', i % 2 = 0, now(), ARRAY['a'] FROM generate_series(1, 5000) i;
             ANALYZE notes;",
        )
        .unwrap();
    }

    fn rel(name: &str) -> RelId {
        catalog::relation(Some("p"), name).unwrap().unwrap()
    }

    fn column(table: &str, name: &str) -> AttNum {
        catalog::attribute(rel(table), name).unwrap().unwrap()
    }

    fn keys() -> TenantKeys {
        let key = |table: &str| (rel(table), BTreeSet::from([column(table, "tenant_id")]));
        BTreeMap::from([key("notes"), key("events")])
    }

    fn run(text: &str, parameters: usize) -> Statement {
        let parameter = Parameter { type_oid: pg_sys::InvalidOid, value: None, known: false };
        let sample = Sample {
            text: text.to_owned(),
            search_path: "p".to_owned(),
            role: role::current(),
            parameters: vec![parameter; parameters],
        };
        profile(&sample, &keys()).unwrap()
    }

    fn uses(statement: &Statement, table: &str, name: &str) -> Vec<(Usage, Option<Comparison>)> {
        let column = column(table, name);
        let of = |f: &&FieldUse| f.rel == rel(table) && f.column == column;
        let mut found: Vec<_> = statement.fields.iter().filter(of).map(|f| (f.usage, f.comparison)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    #[pg_test]
    fn every_use_of_a_field_is_read() {
        use Comparison as C;
        set_up();
        let s = run(
            "SELECT n.title, count(*) FROM notes n JOIN tenants t ON t.id = n.tenant_id
              WHERE (n.kind IN (1, 2) OR n.kind > 3) AND lower(n.title) = 'x' AND n.body LIKE 'a%' AND NOT n.done
                AND 5 < n.id AND n.tags @> ARRAY['a'] AND n.at IS NOT NULL AND t.name ~ '^a'
              GROUP BY n.title ORDER BY n.title",
            0,
        );
        let filter = |c| vec![(Usage::Filter, Some(c))];
        assert_eq!(uses(&s, "notes", "kind"), vec![(Usage::Filter, Some(C::In)), (Usage::Filter, Some(C::Range))]);
        assert_eq!(uses(&s, "notes", "body"), filter(C::Like));
        assert_eq!(uses(&s, "notes", "done"), filter(C::Equal));
        assert_eq!(uses(&s, "notes", "id"), filter(C::Range));
        assert_eq!(uses(&s, "notes", "tags"), filter(C::Other));
        assert_eq!(uses(&s, "notes", "at"), filter(C::Null));
        assert_eq!(uses(&s, "notes", "tenant_id"), vec![(Usage::Join, Some(C::Equal))]);
        assert_eq!(uses(&s, "tenants", "id"), vec![(Usage::Join, Some(C::Equal))]);
        assert_eq!(uses(&s, "tenants", "name"), filter(C::Like));
        assert_eq!(
            uses(&s, "notes", "title"),
            vec![(Usage::Filter, Some(C::Expression)), (Usage::Order, None), (Usage::Group, None), (Usage::Output, None)]
        );
        let greater = Spi::get_one::<pg_sys::Oid>("SELECT '>(int,int)'::regoperator::oid").unwrap().unwrap();
        let id = s.fields.iter().find(|f| f.rel == rel("notes") && f.column == column("notes", "id")).unwrap();
        assert_eq!(id.operator, greater.to_u32(), "the field is on the left");
        let done = s.fields.iter().find(|f| f.column == column("notes", "done") && f.rel == rel("notes")).unwrap();
        assert!((done.selectivity.unwrap() - 0.5).abs() < 0.05, "{done:?}");
        assert_eq!((s.written.len(), s.tenant), (0, None));
    }

    #[pg_test]
    fn what_is_written_is_read_from_the_statement() {
        set_up();
        let update = [(Usage::Update, None)];
        let s = run("UPDATE notes SET title = 'a', kind = kind + 1 WHERE id = 1", 0);
        assert_eq!(s.written, vec![rel("notes")]);
        assert_eq!(uses(&s, "notes", "title"), update);
        assert_eq!(uses(&s, "notes", "kind"), vec![(Usage::Output, None), (Usage::Update, None)]);
        let s = run("INSERT INTO events (note_id) VALUES (1), (2)", 0);
        assert_eq!(uses(&s, "events", "note_id"), [(Usage::Insert, None)]);
        assert_eq!(uses(&s, "events", "what"), [(Usage::Insert, None)], "a default is a value too");
        assert_eq!(uses(&s, "events", "at"), []);
        let s = run("INSERT INTO notes (tenant_id, id) VALUES (1, 2) ON CONFLICT (tenant_id, id) DO UPDATE SET body = 'b'", 0);
        assert_eq!(uses(&s, "notes", "body"), update);
        let s = run(
            "WITH gone AS (DELETE FROM events RETURNING note_id) UPDATE notes n SET done = true FROM gone g WHERE g.note_id = n.id",
            0,
        );
        assert_eq!(s.written, vec![rel("notes"), rel("events")]);
        assert_eq!(uses(&s, "notes", "done"), update);
        let s = run(
            "MERGE INTO notes n USING tenants t ON t.id = n.tenant_id WHEN MATCHED THEN UPDATE SET title = t.name
             WHEN NOT MATCHED THEN INSERT (tenant_id, id) VALUES (t.id, 0)",
            0,
        );
        assert_eq!(uses(&s, "notes", "title"), update);
        assert!(uses(&s, "notes", "id").contains(&(Usage::Insert, None)));
        let s = run("UPDATE open_notes SET title = 'b' WHERE note = 3", 0);
        assert_eq!((s.written.clone(), uses(&s, "notes", "title")), (vec![rel("notes")], update.to_vec()), "through a view");
    }

    #[pg_test]
    fn settings_that_only_the_application_has_are_unknown_values() {
        set_up();
        let selectivity = |condition: &str| {
            let s = run(&format!("SELECT count(*) FROM notes WHERE {condition}"), 0);
            let tenant = s.fields.iter().find(|f| f.column == column("notes", "tenant_id") && f.usage == Usage::Filter);
            tenant.and_then(|f| f.selectivity).unwrap()
        };
        for condition in [
            "tenant_id = current_setting('p.tenant')::int",
            "tenant_id = (SELECT current_setting('p.tenant', true))::int AND body IS NOT NULL",
            "tenant_id = NULLIF(current_setting('p.tenant', true), '')::int",
        ] {
            assert!((selectivity(condition) - 0.1).abs() < 0.01, "{condition}: {}", selectivity(condition));
        }
        Spi::run("SET p.tenant = '77'").unwrap();
        assert!(selectivity("tenant_id = current_setting('p.tenant')::int") < 0.01, "a value that the session has is used");
    }

    #[pg_test]
    fn a_refresh_is_planned_as_the_query_of_its_view() {
        set_up();
        Spi::run("CREATE MATERIALIZED VIEW kinds AS SELECT kind, count(*) FROM notes WHERE id > 5 GROUP BY kind").unwrap();
        let s = run("REFRESH MATERIALIZED VIEW kinds", 0);
        assert_eq!(s.read, vec![rel("notes")]);
        assert_eq!(uses(&s, "notes", "id"), [(Usage::Filter, Some(Comparison::Range))]);
    }

    #[pg_test]
    fn tenants_are_found_where_every_row_is_theirs() {
        set_up();
        let parameter = |n| Some(TenantSource::Parameter(n));
        let literal = |n| Some(TenantSource::Literal(n));
        let uuid = "'00000000-0000-0000-0000-000000000001'";
        for (text, parameters, wanted) in [
            ("SELECT * FROM notes WHERE kind = $1 AND tenant_id = $2".to_owned(), 2, parameter(2)),
            ("SELECT 'a' FROM notes WHERE kind = 3 AND 7 = tenant_id".into(), 0, literal(2)),
            (
                "SELECT * FROM notes n JOIN tenants t ON t.id = n.tenant_id AND n.tenant_id = 4 WHERE t.name = 'x'".into(),
                0,
                literal(0),
            ),
            ("UPDATE notes SET kind = $2 WHERE tenant_id = $1 AND id = $3".into(), 3, parameter(1)),
            ("DELETE FROM notes WHERE id = 4 AND tenant_id = 5".into(), 0, literal(1)),
            ("INSERT INTO notes (id, tenant_id) VALUES ($1, $2)".into(), 2, parameter(2)),
            (format!("SELECT * FROM events WHERE tenant_id = {uuid}"), 0, literal(0)),
            (format!("SELECT * FROM events WHERE tenant_id = {uuid}::uuid AND what = 'x'"), 0, literal(0)),
            ("SELECT * FROM events WHERE tenant_id = $1::text::uuid".into(), 1, parameter(1)),
            ("SELECT * FROM open_notes WHERE owner = $1".into(), 1, parameter(1)),
            ("SELECT * FROM (SELECT * FROM notes WHERE tenant_id = $1) n ORDER BY id".into(), 1, parameter(1)),
            ("WITH n AS (SELECT * FROM notes WHERE tenant_id = 8) SELECT count(*) FROM n".into(), 0, literal(0)),
            ("PREPARE x (int) AS SELECT * FROM notes WHERE tenant_id = $1".into(), 1, parameter(1)),
            // Not every row is of that tenant, or the value has no place of its own.
            ("SELECT * FROM notes WHERE tenant_id = 1 OR kind = 2".into(), 0, None),
            ("SELECT * FROM notes WHERE tenant_id <> 1".into(), 0, None),
            ("SELECT * FROM notes WHERE tenant_id = -1".into(), 0, None),
            ("SELECT * FROM notes WHERE tenant_id = kind".into(), 0, None),
            ("SELECT * FROM tenants t LEFT JOIN notes n ON n.tenant_id = 4".into(), 0, None),
            ("SELECT * FROM notes WHERE NOT tenant_id = 1".into(), 0, None),
            ("SELECT * FROM open_notes WHERE note = 1".into(), 0, None),
            ("INSERT INTO notes (id, tenant_id) VALUES (1, 2)".into(), 0, None),
            // Constants that were replaced by numbers beyond the statement's own parameters.
            ("SELECT * FROM notes WHERE tenant_id = $1".into(), 0, None),
        ] {
            assert_eq!(run(&text, parameters).tenant, wanted, "{text}");
        }
    }
}
