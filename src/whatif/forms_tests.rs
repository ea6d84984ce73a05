//! Hypothetical indexes of every form against real ones: the same plan, cost and size within bounds.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use crate::pg::role;
    use crate::whatif::{Hypothetical, Planned, Sample, plan, shape};
    use indexpilot_core::model::AccessMethod;
    use pgrx::prelude::*;

    const SETUP: &str = "
        CREATE SCHEMA f;
        SET search_path = f;
        SET max_parallel_workers_per_gather = 0;
        CREATE TABLE docs (id int NOT NULL, tenant int NOT NULL, kind text NOT NULL, title text NOT NULL, tags int[] NOT NULL,
                           body jsonb NOT NULL, words tsvector NOT NULL, at timestamptz NOT NULL, span int4range NOT NULL,
                           place point NOT NULL, address inet NOT NULL, price numeric NOT NULL, deleted_at timestamptz, flag boolean NOT NULL);
        CREATE FUNCTION h(i int, seed int, n int) RETURNS int LANGUAGE sql IMMUTABLE
            AS 'SELECT (abs(hashint4extended(i, seed) % 1000003) % n)::int';
        INSERT INTO docs SELECT i, h(i, 1, 200), (ARRAY['new', 'paid', 'sent', 'done', 'void'])[1 + h(i, 2, 100) / 24],
            'Title ' || md5(h(i, 3, 5000)::text), ARRAY[h(i, 4, 100), h(i, 5, 77), h(i, 6, 1000)],
            jsonb_build_object('kind', h(i, 7, 50), 'name', md5(h(i, 8, 3000)::text), 'n', i),
            to_tsvector('simple', 'w' || h(i, 9, 500) || ' v' || h(i, 10, 3000) || ' common u' || i),
            timestamptz '2024-01-01' + i * interval '1 minute', int4range(i, i + 1 + h(i, 11, 50)), point(h(i, 12, 317), h(i, 13, 211)),
            ('10.' || h(i, 14, 200) || '.' || h(i, 15, 250) || '.' || h(i, 16, 199))::inet, h(i, 17, 15000) / 100.0,
            CASE WHEN h(i, 18, 10) <> 0 THEN timestamptz '2025-01-01' END, h(i, 19, 20) = 0
            FROM generate_series(1, 40000) i;
        ANALYZE docs;";

    fn sample(text: &str) -> Sample {
        Sample { text: text.to_owned(), search_path: "f".to_owned(), role: role::current(), parameters: Vec::new() }
    }

    fn base(text: &str) -> Planned {
        plan(&sample(text), &[], &[], true).unwrap()
    }

    /// What a plan does, without costs, names of indexes and what a name that is not resolved yet leaves open.
    fn outline(explain: &str) -> String {
        let node = |line: &str| {
            let line = line.split("  (cost=").next().unwrap_or_default();
            let mut words: Vec<&str> = line.split(' ').filter(|w| !w.is_empty()).collect();
            if let Some(at) = words.iter().position(|w| *w == "using") {
                words.remove(at + 1);
            }
            if line.contains("Bitmap Index Scan") {
                words.truncate(words.iter().position(|w| *w == "on").unwrap_or(words.len()));
            }
            words.retain(|w| *w != "(hypothetical)");
            words.join(" ")
        };
        explain.lines().map(node).collect::<Vec<_>>().join("\n")
    }

    /// Compares each case; all that is out of bounds is reported at once.
    fn compare(cases: &[(&str, &str)]) {
        Spi::run(SETUP).unwrap();
        let mut faults = Vec::new();
        let mut table = String::new();
        let mut used = 0;
        for (form, condition) in cases {
            let definition = format!("CREATE INDEX built ON docs {form}");
            let query =
                if condition.starts_with("SELECT") { (*condition).to_owned() } else { format!("SELECT * FROM docs {condition}") };
            let hypothetical = Hypothetical::parse(&definition).unwrap_or_else(|e| panic!("{definition}: {e}"));
            let planned = plan(&sample(&query), std::slice::from_ref(&hypothetical), &[], true).unwrap();
            Spi::run(&definition).unwrap();
            if !hypothetical.index.expression_texts.is_empty() {
                Spi::run("ANALYZE docs").unwrap();
            }
            let real = base(&query);
            let pages = Spi::get_one::<i64>("SELECT pg_relation_size('f.built') / 8192").unwrap().unwrap() as f64;
            Spi::run("DROP INDEX built").unwrap();
            let (cost_bound, size_bound) = match hypothetical.index.method {
                AccessMethod::Btree => (0.05, 0.10),
                AccessMethod::Hash | AccessMethod::Brin => (0.05, 0.30),
                AccessMethod::Gin | AccessMethod::Gist | AccessMethod::Spgist => (0.25, 0.30),
            };
            let cost_error = planned.cost / real.cost - 1.0;
            let size_error = hypothetical.size.pages as f64 / pages - 1.0;
            let same = outline(planned.explain.as_deref().unwrap()) == outline(real.explain.as_deref().unwrap());
            used += planned.used.len();
            // An index of a few pages is a page or two off by its metadata.
            let size_fault = size_error.abs() > size_bound && (hypothetical.size.pages as f64 - pages).abs() > 2.0;
            let line = format!(
                "{:+6.1} % cost ({:.1} for {:.1}) {:+6.1} % size ({} for {pages}) {} {form} | {condition}",
                100.0 * cost_error,
                planned.cost,
                real.cost,
                100.0 * size_error,
                hypothetical.size.pages,
                if planned.used.is_empty() { "unused" } else { "used" },
            );
            if cost_error.abs() > cost_bound || size_fault || !same {
                faults.push(format!(
                    "{line}{}",
                    if same {
                        String::new()
                    } else {
                        format!("\n{}\ninstead of\n{}", planned.explain.unwrap(), real.explain.unwrap())
                    }
                ));
            }
            table.push_str(&line);
            table.push('\n');
        }
        pgrx::log!("hypothetical against real:\n{table}");
        assert!(faults.is_empty(), "{} of {} cases:\n{}\nall:\n{table}", faults.len(), cases.len(), faults.join("\n"));
        assert!(used * 10 >= cases.len() * 8, "only {used} of {} plans use the index:\n{table}", cases.len());
    }

    #[pg_test]
    fn p23_btree_of_every_form_is_as_the_real_one() {
        compare(&[
            ("(id)", "WHERE id = 77"),
            ("(id)", "WHERE id BETWEEN 100 AND 900"),
            ("(id)", "WHERE id IN (1, 2, 3, 500)"),
            ("(tenant)", "WHERE tenant = 7"),
            ("(tenant, at)", "WHERE tenant = 7 AND at > '2024-01-20'"),
            ("(tenant, at DESC)", "WHERE tenant = 7 ORDER BY at DESC LIMIT 10"),
            ("(tenant, at DESC NULLS LAST)", "WHERE tenant = 7 ORDER BY at DESC NULLS LAST LIMIT 10"),
            ("(at DESC)", "ORDER BY at LIMIT 3"),
            ("(tenant) INCLUDE (price)", "SELECT sum(price) FROM docs WHERE tenant = 9"),
            ("(tenant, kind, at, price)", "SELECT price FROM docs WHERE tenant = 9 AND kind = 'paid' AND at < '2024-01-10'"),
            ("(kind, tenant, at, price, id)", "SELECT id FROM docs WHERE tenant = 9 AND kind = 'paid' ORDER BY at"),
            ("(tenant) WHERE deleted_at IS NULL", "WHERE tenant = 30 AND deleted_at IS NULL"),
            ("(at) WHERE kind = 'void'", "WHERE kind = 'void' ORDER BY at LIMIT 5"),
            ("(id) WHERE flag", "WHERE flag AND id < 900"),
            ("(price) WHERE tenant < 20", "WHERE tenant < 10 AND price > 140"),
            ("(tenant, id) WHERE kind IN ('new', 'paid')", "WHERE kind = 'new' AND tenant = 3"),
            ("(lower(title))", "WHERE lower(title) = 'title x'"),
            ("(lower(title), tenant)", "WHERE lower(title) = 'title x' AND tenant = 5"),
            ("((body ->> 'name'))", "WHERE body ->> 'name' = 'abc'"),
            ("(((body ->> 'kind')::int))", "WHERE (body ->> 'kind')::int = 7"),
            ("((tenant + id))", "WHERE tenant + id < 100"),
            ("((price * 2)) WHERE deleted_at IS NULL", "WHERE price * 2 > 280 AND deleted_at IS NULL"),
            ("(title text_pattern_ops)", "WHERE title LIKE 'Title ab%'"),
            ("(title COLLATE \"C\")", "WHERE title COLLATE \"C\" < 'Title 1'"),
            ("(title COLLATE \"C\")", "WHERE title = 'Title 1'"),
            ("(deleted_at NULLS FIRST)", "WHERE deleted_at IS NULL ORDER BY deleted_at NULLS FIRST LIMIT 7"),
            ("(tags)", "WHERE tags = ARRAY[1,2,3]"),
            ("(address)", "WHERE address << '10.5.0.0/16'"),
            ("(id)", "SELECT a.id FROM docs a JOIN docs b ON b.id = a.tenant WHERE a.kind = 'void' AND a.price < 3"),
            ("(tenant, price)", "SELECT tenant, max(price) FROM docs GROUP BY tenant"),
        ]);
    }

    #[pg_test]
    fn p23_hash_and_brin_are_as_the_real_ones() {
        compare(&[
            ("USING hash (id)", "WHERE id = 77"),
            ("USING hash (title)", "WHERE title = 'Title x'"),
            ("USING hash (tenant)", "WHERE tenant = 3"),
            ("USING hash (deleted_at)", "WHERE deleted_at = '2026-01-01'"),
            ("USING hash (id) WHERE flag", "WHERE id = 40 AND flag"),
            ("USING hash (lower(title))", "WHERE lower(title) = 'title x'"),
            ("USING hash (tenant)", "SELECT a.id FROM docs a JOIN docs b ON b.tenant = a.id WHERE a.id < 3"),
            ("USING brin (id)", "WHERE id BETWEEN 1000 AND 3000"),
            ("USING brin (at)", "WHERE at < '2024-01-02'"),
            ("USING brin (id, at)", "WHERE at < '2024-01-02' AND id > 5"),
            ("USING brin (id int4_minmax_multi_ops)", "WHERE id BETWEEN 1000 AND 3000"),
            ("USING brin ((id + 1))", "WHERE id + 1 < 1000"),
            ("USING brin (span)", "WHERE span && int4range(500, 600)"),
            ("USING brin (id) WHERE flag", "WHERE id < 900 AND flag"),
        ]);
    }

    #[pg_test]
    fn p23_gin_is_as_the_real_one() {
        Spi::run("CREATE EXTENSION pg_trgm SCHEMA public; CREATE EXTENSION btree_gin SCHEMA public").unwrap();
        compare(&[
            ("USING gin (tags)", "WHERE tags @> ARRAY[7]"),
            ("USING gin (tags)", "WHERE tags @> ARRAY[7, 8]"),
            ("USING gin (tags)", "WHERE tags && ARRAY[7, 900]"),
            ("USING gin (tags)", "WHERE tags = ARRAY[7, 7, 7]"),
            ("USING gin (tags) WHERE flag", "WHERE tags @> ARRAY[40] AND flag"),
            ("USING gin (body)", "WHERE body @> '{\"kind\": 7}'"),
            ("USING gin (body)", "WHERE body ? 'kind' AND body @> '{\"n\": 700}'"),
            ("USING gin (body jsonb_path_ops)", "WHERE body @> '{\"kind\": 7}'"),
            ("USING gin (body jsonb_path_ops)", "WHERE body @> '{\"kind\": 7, \"n\": 107}'"),
            ("USING gin (words)", "WHERE words @@ 'w7'"),
            ("USING gin (words)", "WHERE words @@ 'w7 & v7'"),
            ("USING gin (words)", "WHERE words @@ 'v70:*'"),
            ("USING gin (to_tsvector('simple', title))", "WHERE to_tsvector('simple', title) @@ 'abc'"),
            ("USING gin (title public.gin_trgm_ops)", "WHERE title LIKE '%abcd%'"),
            ("USING gin (title public.gin_trgm_ops)", "WHERE title ILIKE '%abcde%'"),
            ("USING gin (lower(title) public.gin_trgm_ops)", "WHERE lower(title) LIKE '%abcdefgh%'"),
            ("USING gin (tenant, tags)", "WHERE tenant = 7 AND tags @> ARRAY[7]"),
            ("USING gin (tags)", "SELECT a.id FROM docs a JOIN docs b ON b.tags @> ARRAY[a.id] WHERE a.id < 4"),
        ]);
    }

    #[pg_test]
    fn p23_gist_and_spgist_are_as_the_real_ones() {
        Spi::run("CREATE EXTENSION pg_trgm SCHEMA public; CREATE EXTENSION btree_gist SCHEMA public").unwrap();
        compare(&[
            ("USING gist (span)", "WHERE span && int4range(500, 600)"),
            ("USING gist (span)", "WHERE span @> 700"),
            ("USING gist (place)", "WHERE place <@ box '((0,0),(9,9))'"),
            ("USING gist (place)", "ORDER BY place <-> point '(5,5)' LIMIT 5"),
            ("USING gist (address inet_ops)", "WHERE address << '10.5.0.0/16'"),
            ("USING gist (words)", "WHERE words @@ 'w7'"),
            ("USING gist (title public.gist_trgm_ops)", "WHERE title LIKE '%abcdef%'"),
            ("USING gist (tenant, span)", "WHERE tenant = 7 AND span && int4range(500, 6000)"),
            ("USING gist (span) INCLUDE (id)", "SELECT id FROM docs WHERE span && int4range(500, 600)"),
            ("USING gist (span) WHERE flag", "WHERE span && int4range(500, 600) AND flag"),
            ("USING spgist (place)", "WHERE place <@ box '((0,0),(9,9))'"),
            ("USING spgist (title)", "WHERE title = 'Title x'"),
            ("USING spgist (title)", "WHERE title ^@ 'Title abc'"),
            ("USING spgist (span)", "WHERE span && int4range(500, 600)"),
            ("USING spgist (address)", "WHERE address << '10.5.0.0/16'"),
        ]);
    }

    /// 300 000 lines, four of each order. State, kind and whether they are done go with the order, so that an index of some of them has all
    /// lines of an order or none; flags do so in part.
    const LINES: &str = "
        CREATE SCHEMA f;
        SET search_path = f;
        CREATE FUNCTION u(i int, salt int) RETURNS float8 LANGUAGE sql IMMUTABLE
            RETURN (hashint4extended(i, salt) & 2147483647) / 2147483648.0;
        CREATE TABLE lines AS
        SELECT o, i AS id, (u(i, 9) * 50)::int AS n, (u(i, 8) * 20)::int::numeric AS discount,
               (ARRAY['R', 'A', 'N', 'N'])[1 + (u(o, 1) * 3.999)::int]::char(1) AS state,
               (ARRAY['returned', 'all', 'normal', 'normal'])[1 + (u(o, 1) * 3.999)::int]::varchar(20) AS kind,
               CASE WHEN u(o, 2) > 0.5 THEN 'N' WHEN u(i, 7) < 0.5 THEN 'R' ELSE 'A' END AS flag, u(o, 2) < 0.3 AS done, CASE WHEN u(o, 3) < 0.8 THEN o END AS gone,
               timestamptz '2024-01-01' + o * interval '1 minute' AS at,
               'note ' || i AS note
        FROM (SELECT i, i / 4 AS o FROM generate_series(1, 300000) i) s;
        ANALYZE lines;";

    #[pg_test]
    fn p23_a_partial_index_is_as_large_as_its_rows_make_it() {
        Spi::run(LINES).unwrap();
        let (mut report, mut worst) = (String::new(), 0.0_f64);
        for form in [
            "(o) WHERE state = 'R'",
            "(o) WHERE flag = 'R'",
            "(o, state) WHERE state <> 'N'",
            "(o) INCLUDE (n) WHERE state = 'A'",
            "(o) WHERE kind IN ('returned', 'all')",
            "(o) WHERE gone IS NULL",
            "(o) WHERE done",
            "(o) WHERE NOT done AND gone IS NOT NULL",
            "(o) WHERE at < '2024-01-10'",
            // What the planner takes for independent.
            "(o) WHERE state = 'N' AND kind = 'normal'",
            "(o) WHERE kind = 'all' AND done IS NOT TRUE",
            "(o) WHERE discount > 15",
            "(n, o) WHERE discount = 3 OR done",
        ] {
            let found = Hypothetical::parse(&format!("CREATE INDEX ON lines {form}")).unwrap();
            let (_, condition) = form.split_once("WHERE").unwrap();
            let query = sample(&format!("SELECT 1 FROM lines WHERE {condition}"));
            let planned = shape(&query).unwrap().relations[0].rows;
            Spi::run(&format!("CREATE INDEX built ON lines {form}")).unwrap();
            let (pages, tuples) = Spi::get_two::<i64, f64>(
                "SELECT pg_relation_size('built') / 8192, reltuples::float8 FROM pg_class WHERE oid = 'built'::regclass",
            )
            .unwrap();
            Spi::run("DROP INDEX built").unwrap();
            let (pages, tuples) = (pages.unwrap() as f64, tuples.unwrap());
            let error = found.size.pages as f64 / pages - 1.0;
            // A page or two of metadata are not to be foreseen.
            if (found.size.pages as f64 - pages).abs() > 2.0 {
                worst = worst.max(error.abs());
            }
            report += &format!(
                "\n{form}: {pages} pages, foreseen {} ({:+.1} %), {tuples} rows, foreseen {:.0}, {:.0} by the planner",
                found.size.pages,
                100.0 * error,
                found.size.tuples,
                planned
            );
        }
        assert!(worst < 0.1, "{report}");
        pgrx::log!("{report}");
    }
}
