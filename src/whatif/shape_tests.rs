//! What queries want beyond plain columns: expressions, patterns, containment, conditions for partial indexes.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use crate::pg::{catalog, role};
    use crate::whatif::{Expressions, Hypothetical, Parameter, Sample, Sampler, common, plan, study};
    use indexpilot_core::model::{
        AccessMethod as A, ExistingIndex, FIRST_EXPRESSION, IndexDef, Key, OpClass as O, Predicate, PredicateKind as K, QueryShape,
        RelId, RelationUse, TableInfo,
    };
    use pgrx::prelude::*;

    const SETUP: &str = "
        CREATE SCHEMA s;
        SET search_path = s;
        CREATE TYPE mood AS ENUM ('glad', 'sad');
        CREATE TABLE docs (id int PRIMARY KEY, title text NOT NULL, code varchar(20), fixed char(8), plain text COLLATE \"C\",
            body text, state text NOT NULL, done boolean NOT NULL, deleted timestamptz, at timestamp NOT NULL, a int, b int,
            tags text[], data jsonb, words tsvector, span int4range, place point, area box, net inet, feeling mood);
        INSERT INTO docs SELECT i, 'Title ' || i, 'c' || i, 'f' || i, 'p' || i, 'body of ' || i,
            (ARRAY['open', 'closed', 'closed', 'closed'])[1 + i % 4], i % 10 = 0, CASE WHEN i % 20 = 0 THEN now() END,
            timestamp '2024-01-01' + i * interval '1 minute', i % 100, i, ARRAY['t' || i % 50], jsonb_build_object('k', 'v' || i % 30),
            to_tsvector('english', 'word' || i), int4range(i, i + 10), point(i, i), box(point(i, i), point(i + 1, i + 1)),
            ('10.0.' || i % 250 || '.1')::inet, 'glad' FROM generate_series(1, 5000) i;
        ANALYZE docs;";

    fn set_up() {
        Spi::run(SETUP).unwrap();
    }

    fn sample(text: &str) -> Sample {
        Sample { text: text.to_owned(), search_path: "s".to_owned(), role: role::current(), parameters: Vec::new() }
    }

    fn docs() -> RelId {
        catalog::relation(Some("s"), "docs").unwrap().unwrap()
    }

    /// Column, kind, and what serves it.
    type Shown = (String, K, Vec<(A, O)>);

    struct Read {
        usage: RelationUse,
        table: TableInfo,
    }

    impl Read {
        fn of(sample: &Sample) -> Read {
            let mut expressions = Expressions::default();
            let shape = study(sample, &mut expressions).unwrap().shape;
            Read::new(&shape, &expressions)
        }

        fn new(shape: &QueryShape, expressions: &Expressions) -> Read {
            let usage = shape.relations.iter().find(|r| r.rel == docs()).unwrap().clone();
            let table = catalog::snapshot_with(&[docs()], expressions).unwrap().tables.remove(&docs()).unwrap();
            Read { usage, table }
        }

        fn predicates(&self) -> Vec<Shown> {
            let shown = |p: &Predicate| (self.table.column_name(p.column), p.kind, p.by.clone());
            self.usage.predicates.iter().map(shown).collect()
        }

        /// What predicates are on, in alphabetical order.
        fn restricted(&self) -> Vec<String> {
            let mut columns: Vec<String> = self.predicates().into_iter().map(|p| p.0).collect();
            columns.sort_unstable();
            columns
        }

        fn conditions(&self) -> Vec<&str> {
            self.usage.conditions.iter().map(|c| c.sql.as_str()).collect()
        }

        fn keys(&self, keys: &[Key]) -> Vec<String> {
            keys.iter().map(|k| self.table.column_name(k.column)).collect()
        }
    }

    fn read(condition: &str) -> Read {
        Read::of(&sample(&format!("SELECT * FROM docs WHERE {condition}")))
    }

    #[pg_test]
    fn a_column_by_the_alias_of_a_join_is_spelled_as_its_own() {
        set_up();
        Spi::run("CREATE TABLE notes (id int, note text)").unwrap();
        let text = "SELECT 1 FROM (docs JOIN notes USING (id)) AS j WHERE lower(j.title) = 'x'";
        assert_eq!(Read::of(&sample(text)).restricted(), ["id", "lower(title)"]);
    }

    #[pg_test]
    fn constants_are_spelled_alike_under_every_setting() {
        set_up();
        Spi::run("UPDATE docs SET at = '2024-04-03'; ANALYZE docs; SET datestyle = 'SQL, DMY'").unwrap();
        let read = Read::of(&sample("SELECT 1 FROM docs WHERE at = '03/04/2024' AND a = 1"));
        assert!(read.conditions().iter().any(|c| c.contains("2024-04-03")), "{:?}", read.conditions());
    }

    #[pg_test]
    fn expressions_are_columns_with_numbers_of_their_own() {
        set_up();
        Spi::run("CREATE FUNCTION s.twice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 2 * $1; END'").unwrap();
        for (condition, text, kind) in [
            ("lower(title) = 'x'", "lower(title)", K::Equal),
            ("'x' = lower(title)", "lower(title)", K::Equal),
            ("lower(code) = 'x'", "lower((code)::text)", K::Equal),
            ("date_trunc('day', at) = '2024-01-02'", "date_trunc('day'::text, at)", K::Equal),
            ("at::date >= '2024-01-02'", "(at)::date", K::Range),
            ("data ->> 'k' = 'v1'", "(data ->> 'k'::text)", K::Equal),
            ("(data ->> 'k') IN ('v1', 'v2')", "(data ->> 'k'::text)", K::In),
            ("(data ->> 'k')::text IS NULL", "(data ->> 'k'::text)", K::Equal),
            ("a + b > 100", "(a + b)", K::Range),
            ("a + b = 100 OR a + b = 5", "(a + b)", K::In),
            ("twice(a) = 10", "s.twice(a)", K::Equal),
            ("coalesce(code, title) = 'x'", "COALESCE(code, (title)::character varying)", K::Equal),
        ] {
            let found = read(condition);
            if condition.starts_with("coalesce") {
                // How the server spells the casts in it differs between versions.
                assert!(found.predicates().iter().any(|p| p.0.starts_with("COALESCE(") && p.1 == kind), "{:?}", found.predicates());
            } else {
                assert_eq!(found.predicates(), [(text.to_owned(), kind, vec![])], "{condition}");
            }
            let column = found.table.column(found.usage.predicates[0].column).unwrap();
            assert!(column.attnum >= FIRST_EXPRESSION && column.sortable && !column.reads.is_empty(), "{condition}: {column:?}");
            assert!(column.reads.iter().all(|c| found.usage.needed.contains(c)), "{condition}");
            assert!(found.usage.needed.iter().all(|c| *c < FIRST_EXPRESSION));
        }
        for condition in [
            "a + b = (random() * 10)::int",
            "at::timestamptz = '2024-01-02'",
            "now() - deleted > interval '1 day'",
            "a + b <> 100",
            "lower(title) = body",
            "(SELECT 1) + a = 2",
            "place <-> '(1,2)' < 5",
        ] {
            assert_eq!(read(condition).predicates(), [], "{condition}");
        }
    }

    #[pg_test]
    fn expressions_are_sorted_grouped_and_joined_by() {
        set_up();
        let found = Read::of(&sample("SELECT id FROM docs ORDER BY lower(title) DESC, a LIMIT 5"));
        assert_eq!(found.keys(&found.usage.order), ["lower(title)", "a"]);
        assert!(found.usage.limited && found.usage.order[0].descending);
        let found = Read::of(&sample("SELECT date_trunc('day', at), count(*) FROM docs GROUP BY 1"));
        let group: Vec<String> = found.usage.group.iter().map(|c| found.table.column_name(*c)).collect();
        assert_eq!(group, ["date_trunc('day'::text, at)"]);
        let found = Read::of(&sample("SELECT 1 FROM (VALUES ('x'), ('y')) v (x) LEFT JOIN docs ON lower(title) = v.x"));
        assert_eq!(found.predicates(), [("lower(title)".to_owned(), K::Join, vec![])]);
        let found = Read::of(&sample("SELECT 1 FROM pg_class c JOIN docs ON a + b = c.relnatts"));
        assert!(found.predicates().iter().any(|p| p.1 == K::Join && p.0.contains("a + b")), "{:?}", found.predicates());
    }

    #[pg_test]
    fn an_expression_has_statistics() {
        set_up();
        let found = read("lower(title) = 'x' AND a + b = 5 AND data ->> 'k' = 'v1' AND NOT lower(code) > 'c'");
        let of = |name: &str| found.table.columns.iter().find(|c| c.name == name).unwrap();
        let title = of("lower(title)");
        assert!(title.n_distinct > 4000.0 && (8..=12).contains(&title.avg_width) && title.dedup, "{title:?}");
        assert_eq!((of("(a + b)").avg_width, of("(a + b)").align), (4, 4));
        assert_eq!(of("lower((code)::text)").type_name, "text");
        Spi::run("CREATE STATISTICS s.known ON (data ->> 'k') FROM docs; ANALYZE docs").unwrap();
        let found = read("data ->> 'k' = 'v1'");
        let known = found.table.columns.iter().find(|c| c.attnum >= FIRST_EXPRESSION).unwrap();
        assert!((known.n_distinct - 30.0).abs() < 1.0, "{known:?}");
        assert!((found.usage.predicates[0].selectivity - 1.0 / 30.0).abs() < 0.01);
    }

    #[pg_test]
    fn patterns_with_a_fixed_beginning_are_ranges() {
        set_up();
        let c_locale =
            Spi::get_one::<bool>("SELECT datcollate IN ('C', 'POSIX') FROM pg_database WHERE datname = current_database()")
                .unwrap()
                .unwrap();
        let by = |class| if c_locale { vec![] } else { vec![(A::Btree, class)] };
        for (condition, column, by) in [
            ("title LIKE 'Ti%'", "title", by(O::TextPattern)),
            ("title ~ '^Ti'", "title", by(O::TextPattern)),
            ("title ^@ 'Ti'", "title", by(O::TextPattern)),
            ("starts_with(title, 'Ti')", "title", by(O::TextPattern)),
            ("code LIKE 'c1%'", "code", by(O::VarcharPattern)),
            ("fixed LIKE 'f1%'", "fixed", by(O::BpcharPattern)),
            ("plain LIKE 'p1%'", "plain", vec![]),
            ("lower(title) LIKE 'ti%'", "lower(title)", by(O::TextPattern)),
            ("net << '10.0.1.0/24'", "net", vec![]),
            ("title LIKE 'A%' OR title LIKE 'B%'", "title", by(O::TextPattern)),
        ] {
            let found = read(condition);
            let prefix: Vec<_> = found.predicates().into_iter().filter(|p| p.1 == K::Prefix).collect();
            assert_eq!(prefix, [(column.to_owned(), K::Prefix, by)], "{condition}");
        }
        for condition in ["title LIKE '%x%'", "title ILIKE 'ti%'", "title ~ 'x'", "title NOT LIKE 'x%'", "title LIKE body"] {
            let found = read(condition);
            assert!(found.predicates().iter().all(|p| p.1 != K::Prefix), "{condition}: {:?}", found.predicates());
        }
        let bound = |value: Option<&str>| {
            let parameter = Parameter { type_oid: pg_sys::TEXTOID, value: value.map(str::to_owned), known: value.is_some() };
            Read::of(&Sample { parameters: vec![parameter], ..sample("SELECT * FROM docs WHERE title LIKE $1") })
        };
        assert!(bound(Some("Title 1%")).predicates().iter().any(|p| p.1 == K::Prefix));
        assert!(bound(None).predicates().iter().all(|p| p.1 != K::Prefix));
    }

    #[pg_test]
    fn what_no_btree_searches_names_what_does() {
        set_up();
        let gin = vec![(A::Gin, O::Default)];
        let jsonb_any = vec![(A::Gin, O::Default), (A::Gin, O::JsonbPath)];
        let both = vec![(A::Gist, O::Default), (A::Spgist, O::Default)];
        for (condition, column, by) in [
            ("tags @> ARRAY['t1']", "tags", gin.clone()),
            ("ARRAY['t1'] <@ tags", "tags", gin.clone()),
            ("tags && ARRAY['t1', 't2']", "tags", gin.clone()),
            ("data @> '{\"k\": \"v1\"}'", "data", jsonb_any.clone()),
            ("data ? 'k'", "data", gin.clone()),
            ("data ?| ARRAY['k', 'l']", "data", gin.clone()),
            ("data @? '$.k'", "data", jsonb_any.clone()),
            ("data @@ '$.k == \"v1\"'", "data", jsonb_any.clone()),
            ("words @@ to_tsquery('english', 'word7')", "words", vec![(A::Gin, O::Default), (A::Gist, O::Default)]),
            (
                "to_tsvector('english', body) @@ to_tsquery('english', 'seven')",
                "to_tsvector('english'::regconfig, body)",
                vec![(A::Gin, O::Default), (A::Gist, O::Default)],
            ),
            ("span @> 7", "span", both.clone()),
            ("7 <@ span", "span", both.clone()),
            ("span && int4range(1, 5)", "span", both.clone()),
            ("place <@ box '(1,1),(5,5)'", "place", both.clone()),
            ("area && box '(1,1),(5,5)'", "area", both),
            ("net << '10.0.1.0/24'", "net", vec![(A::Spgist, O::Default)]),
            ("data @> '{\"k\": 1}' OR data ? 'l'", "data", gin.clone()),
        ] {
            let found = read(condition);
            let search: Vec<_> = found.predicates().into_iter().filter(|p| p.1 == K::Search).collect();
            assert_eq!(search, [(column.to_owned(), K::Search, by)], "{condition}");
            let selectivity = found.usage.predicates[0].selectivity;
            assert!(selectivity > 0.0 && selectivity <= 1.0, "{condition}: {selectivity}");
        }
        for condition in
            ["NOT tags @> ARRAY['t1']", "'t1' = ANY (tags)", "title ILIKE '%x%'", "feeling > 'glad'", "span @> 7 OR data ? 'k'"]
        {
            let found = read(condition);
            assert!(found.predicates().iter().all(|p| p.1 != K::Search), "{condition}: {:?}", found.predicates());
        }
    }

    #[pg_test]
    fn trigrams_serve_parts_of_texts_where_they_are_installed() {
        set_up();
        let there = Spi::get_one::<bool>("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm')");
        assert_eq!(there.unwrap(), Some(true), "the server's contrib modules are part of the set-up");
        Spi::run("CREATE SCHEMA ext; CREATE EXTENSION pg_trgm SCHEMA ext").unwrap();
        let by = vec![(A::Gin, O::GinTrigram), (A::Gist, O::GistTrigram)];
        for (condition, column) in [
            ("title LIKE '%itle 7%'", "title"),
            ("title ILIKE '%TITLE 7%'", "title"),
            ("title ~ 'itle [78]'", "title"),
            ("code LIKE '%c7%'", "code"),
            ("lower(body) LIKE '%of 7%'", "lower(body)"),
        ] {
            let search: Vec<_> = read(condition).predicates().into_iter().filter(|p| p.1 == K::Search).collect();
            assert_eq!(search, [(column.to_owned(), K::Search, by.clone())], "{condition}");
        }
    }

    #[pg_test]
    fn conditions_without_parameters_are_noted() {
        set_up();
        for (condition, texts) in [
            ("state = 'open'", &["(state = 'open'::text)"][..]),
            ("deleted IS NULL", &["(deleted IS NULL)"]),
            ("deleted IS NOT NULL AND NOT done", &["(NOT done)", "(deleted IS NOT NULL)"]),
            ("done", &["done"]),
            ("state IN ('open', 'new')", &["(state = ANY ('{open,new}'::text[]))"]),
            ("a BETWEEN 5 AND 10", &["(a <= 10)", "(a >= 5)"]),
            ("state = 'open' OR done", &["((state = 'open'::text) OR done)"]),
            ("at > now()", &[]),
            ("at > current_date", &[]),
            ("a = (random() * 10)::int", &[]),
            ("a = (SELECT 5)", &[]),
            ("ctid = '(0,1)'", &[]),
        ] {
            let found = read(condition);
            assert_eq!(found.conditions(), texts, "{condition}");
            for c in &found.usage.conditions {
                assert!(c.selectivity > 0.0 && c.selectivity <= 1.0 && !c.columns.is_empty(), "{condition}: {c:?}");
            }
        }
        let open = &read("state = 'open'").usage.conditions[0];
        assert!((open.selectivity - 0.25).abs() < 0.02, "{open:?}");
        let view = "CREATE VIEW open_docs AS SELECT * FROM docs WHERE state = 'open' AND deleted IS NULL";
        Spi::run(view).unwrap();
        let found = Read::of(&sample("SELECT * FROM open_docs WHERE id > 7"));
        assert_eq!(found.conditions(), ["(deleted IS NULL)", "(id > 7)", "(state = 'open'::text)"]);
    }

    #[pg_test]
    fn no_index_depends_on_the_value_of_a_parameter() {
        set_up();
        let text = |value: &str| Parameter { type_oid: pg_sys::TEXTOID, value: Some(value.into()), known: true };
        let found = Read::of(&Sample {
            parameters: vec![text("closed"), text("k"), text("z")],
            ..sample("SELECT * FROM docs WHERE state = $1 AND data ->> $2 = 'v1' AND data ->> 'k2' = $3 AND NOT done AND a = 5")
        });
        assert_eq!(found.conditions(), ["(NOT done)", "(a = 5)"]);
        assert_eq!(found.restricted(), ["(data ->> 'k2'::text)", "a", "done", "state"]);
    }

    #[pg_test]
    fn samples_agree_on_constants_or_they_do_not_count() {
        set_up();
        let read = |texts: &[&str], certain| {
            let mut expressions = Expressions::default();
            let shaped = texts.iter().map(|t| study(&sample(t), &mut expressions).unwrap()).collect();
            Read::new(&common(shaped, certain, &expressions).unwrap(), &expressions)
        };
        let texts = [
            "SELECT * FROM docs WHERE state = 'open' AND id = 7 AND data ->> 'a' = 'x' AND lower(title) = 'x' AND deleted IS NULL",
            "SELECT * FROM docs WHERE state = 'open' AND id = 8 AND data ->> 'b' = 'x' AND lower(title) = 'y' AND deleted IS NULL",
        ];
        let both = read(&texts, false);
        assert_eq!(both.conditions(), ["(deleted IS NULL)", "(state = 'open'::text)"]);
        assert_eq!(both.restricted(), ["deleted", "id", "lower(title)", "state"]);
        let one = read(&texts[..1], false);
        assert_eq!(one.conditions(), ["(deleted IS NULL)"], "another execution may have another constant");
        assert_eq!(one.restricted(), ["(data ->> 'a'::text)", "deleted", "id", "lower(title)", "state"]);
        let categories =
            "state IN ('open', 'new') AND state <> 'lost' AND (done OR state = 'open') AND feeling = 'sad' AND NOT done";
        let of_categories = read(&[&format!("SELECT * FROM docs WHERE {categories} AND a IN (1, 2) AND at > '2024-01-05'")], true);
        assert_eq!(of_categories.conditions().len(), 5, "{:?}", of_categories.conditions());
        Spi::run("CREATE TABLE few (a int, b text); INSERT INTO few SELECT i, 'b' || i FROM generate_series(1, 8) i").unwrap();
        let unknown = [study(&sample("SELECT * FROM few WHERE b = 'b1' AND a > 2"), &mut Expressions::default()).unwrap()];
        let unknown = common(unknown.to_vec(), true, &Expressions::default()).unwrap();
        assert_eq!(unknown.relations[0].conditions, [], "nobody has counted the values");
        let prepared = Sample {
            parameters: vec![Parameter { type_oid: pg_sys::INT4OID, value: Some("7".into()), known: true }],
            ..sample("SELECT * FROM docs WHERE state = 'open' AND id = $1")
        };
        let mut expressions = Expressions::default();
        let shaped = study(&prepared, &mut expressions).unwrap();
        let prepared = Read::new(&common(vec![shaped], false, &expressions).unwrap(), &expressions);
        assert_eq!(prepared.conditions(), ["(state = 'open'::text)"], "what changes is a parameter");
        let given = read(&texts[..1], true);
        assert_eq!(given.conditions(), ["(deleted IS NULL)", "(state = 'open'::text)"], "one of many values is an example");
        assert_eq!(given.predicates().len(), 5);
    }

    #[pg_test]
    fn the_same_expression_has_one_number_in_an_analysis() {
        set_up();
        let mut expressions = Expressions::default();
        let mut column = |text: &str| study(&sample(text), &mut expressions).unwrap().shape.relations[0].predicates[0].column;
        let first = column("SELECT 1 FROM docs WHERE lower(title) = 'a'");
        let other = column("SELECT 1 FROM docs WHERE lower(body) = 'a'");
        let again = column("SELECT id FROM docs d WHERE d.a IN (SELECT 1) AND 'b' = lower(d.title) ORDER BY lower(d.body)");
        assert_eq!((first, other), (FIRST_EXPRESSION, FIRST_EXPRESSION + 1));
        assert!(again == first || again < FIRST_EXPRESSION);
    }

    #[pg_test]
    fn the_planner_takes_the_indexes_that_are_read_from_a_query() {
        set_up();
        Spi::run("CREATE EXTENSION pg_trgm; CREATE FUNCTION s.twice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 2 * $1; END'")
            .unwrap();
        for condition in [
            "lower(title) = 'x' AND state = 'open'",
            "lower(code) = 'x' AND deleted IS NULL",
            "date_trunc('day', at) = '2024-01-02' AND NOT done",
            "at::date = '2024-01-02' AND state IN ('open', 'new')",
            "data ->> 'k' = 'v1' AND data ->> 'l' = 'v2'",
            "(data -> 'k' ->> 'x')::int = 5 AND a < 10",
            "a + b = 100 AND (state = 'open' OR done)",
            "twice(b) = 10 AND feeling = 'sad'",
            "coalesce(code, 'none') = 'x' AND a BETWEEN 5 AND 7",
            "CASE WHEN done THEN a ELSE b END = 5 AND span @> 7",
            "title LIKE 'Ti%' AND code LIKE 'c1%' AND fixed LIKE 'f1%' AND lower(body) LIKE 'b%'",
            "title LIKE '%itle 77%' AND lower(body) ILIKE '%of 77%'",
            "tags @> ARRAY['t1'] AND data @> '{\"k\": \"v1\"}' AND words @@ to_tsquery('english', 'word7')",
            "to_tsvector('english', body) @@ to_tsquery('english', 'seven') AND data -> 'k' ? 'x'",
            "place <@ box '(1,1),(5,5)' AND area && box '(1,1),(5,5)' AND net << '10.0.1.0/24'",
        ] {
            let query = sample(&format!("SELECT * FROM docs WHERE {condition}"));
            let found = Read::of(&query);
            assert!(!found.usage.predicates.is_empty(), "{condition}");
            let considered = |def: IndexDef| {
                let index = Hypothetical::of(&def, &found.table, &mut Sampler::default())
                    .unwrap_or_else(|e| panic!("{condition}: {def:?}: {e}"));
                let planned = plan(&query, std::slice::from_ref(&index), &[], true).unwrap();
                assert_eq!(planned.considered, [0], "{condition}: {}\n{}", index.description, planned.explain.unwrap());
            };
            for predicate in &found.usage.predicates {
                let plain = vec![(A::Btree, O::Default)];
                for (method, class) in if predicate.by.is_empty() { &plain } else { &predicate.by } {
                    let def = IndexDef::new(docs(), vec![Key::asc(predicate.column).with(*class)], []).by(*method);
                    considered(def.clone());
                    for c in &found.usage.conditions {
                        considered(def.clone().partial(&c.sql));
                    }
                }
            }
        }
    }

    #[pg_test]
    fn existing_indexes_of_every_form_are_known() {
        set_up();
        Spi::run(
            "CREATE INDEX i_lower ON docs (lower(title), a DESC);
             CREATE INDEX i_other ON docs (upper(title));
             CREATE INDEX i_open ON docs (a) WHERE state IN ('open', 'new') AND deleted IS NULL;
             CREATE INDEX i_pattern ON docs (title text_pattern_ops);
             CREATE INDEX i_hash ON docs USING hash (title);
             CREATE INDEX i_brin ON docs USING brin (at);
             CREATE INDEX i_gin ON docs USING gin (data jsonb_path_ops);
             CREATE INDEX i_gist ON docs USING gist (span);
             CREATE INDEX i_collate ON docs (title COLLATE \"C\");
             CREATE INDEX i_minmax ON docs USING brin (a int4_minmax_multi_ops);",
        )
        .unwrap();
        let mut expressions = Expressions::default();
        study(&sample("SELECT 1 FROM docs WHERE lower(title) = 'a'"), &mut expressions).unwrap();
        let table = catalog::snapshot_with(&[docs()], &expressions).unwrap().tables.remove(&docs()).unwrap();
        let column = |name: &str| table.columns.iter().find(|c| c.name == name).unwrap().attnum;
        let def = |name: &str| {
            let index: &ExistingIndex = table.indexes.iter().find(|i| i.name == name).unwrap();
            index.def.clone()
        };
        let lower = def("i_lower").unwrap();
        assert_eq!(lower.keys, [Key::asc(FIRST_EXPRESSION), Key::desc(column("a"))]);
        let open = def("i_open").unwrap();
        assert_eq!(open.predicate.as_deref(), Some("((deleted IS NULL) AND (state = ANY ('{open,new}'::text[])))"));
        assert_eq!(open.keys, [Key::asc(column("a"))]);
        assert_eq!(def("i_pattern").unwrap().keys, [Key::asc(column("title")).with(O::TextPattern)]);
        let one = |name: &str| def(name).map(|d| (d.method, d.keys[0].column, d.keys[0].opclass));
        assert_eq!(one("i_hash"), Some((A::Hash, column("title"), O::Default)));
        assert_eq!(one("i_brin"), Some((A::Brin, column("at"), O::Default)));
        assert_eq!(one("i_gin"), Some((A::Gin, column("data"), O::JsonbPath)));
        assert_eq!(one("i_gist"), Some((A::Gist, column("span"), O::Default)));
        for unknown in ["i_other", "i_collate", "i_minmax"] {
            assert_eq!(def(unknown), None, "{unknown}");
        }
    }

    #[pg_test]
    fn an_index_is_read_as_the_owner_of_its_table() {
        set_up();
        Spi::run(
            "CREATE TABLE seen (who name);
             CREATE ROLE shape_owner; GRANT USAGE, CREATE ON SCHEMA s TO shape_owner; GRANT INSERT ON seen TO shape_owner;
             SET ROLE shape_owner;
             CREATE FUNCTION s.spy(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
                 'BEGIN IF current_user <> ''shape_owner'' THEN RAISE ''run as %'', current_user; END IF; RETURN $1; END';
             CREATE TABLE s.owned (i int, j int);
             CREATE INDEX i_spy ON s.owned (i) WHERE j = s.spy(5);
             RESET ROLE",
        )
        .unwrap();
        let owned = catalog::relation(Some("s"), "owned").unwrap().unwrap();
        let table = catalog::snapshot(&[owned]).unwrap().tables.remove(&owned).unwrap();
        let def = table.indexes[0].def.as_ref().expect("the owner may run his own function");
        assert_eq!(def.predicate.as_deref(), Some("(j = 5)"));
    }
}
