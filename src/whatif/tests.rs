//! What-if in a server: hypothetical indexes cost what real ones cost, nothing leaks, shapes are read as written.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use crate::pg::error::Kind;
    use crate::pg::{catalog, role};
    use crate::whatif::{Hypothetical, Oracle, Parameter, Planned, Sample, Sampler, plan, shape};
    use indexpilot_core::candidate::Candidate;
    use indexpilot_core::model::{AttNum, IndexDef, Key, Predicate, PredicateKind, QueryShape, RelId, RelationUse};
    use indexpilot_core::whatif::CostOracle;
    use pgrx::prelude::*;
    use std::rc::Rc;

    const SETUP: &str = "
        CREATE SCHEMA w;
        SET search_path = w;
        SET max_parallel_workers_per_gather = 0;
        CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL, region int NOT NULL, active boolean NOT NULL);
        CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL, status text NOT NULL, created timestamptz NOT NULL,
                             total numeric NOT NULL, note varchar(40));
        CREATE TABLE items (order_id int NOT NULL, product int NOT NULL, quantity int NOT NULL);
        INSERT INTO customers SELECT i, 'c' || i || '@example.org', i % 50, i % 10 = 0 FROM generate_series(1, 5000) i;
        INSERT INTO orders SELECT i, 1 + (i::bigint * 7919) % 5000, (ARRAY['new','paid','sent','done'])[1 + i % 4],
            timestamptz '2024-01-01' + i * interval '1 minute', i % 977,
            CASE WHEN i % 20 = 0 THEN 'note ' || i END FROM generate_series(1, 50000) i;
        INSERT INTO items SELECT 1 + (i::bigint * 31) % 50000, i % 1000, i % 7 FROM generate_series(1, 100000) i;
        ANALYZE customers; ANALYZE orders; ANALYZE items;";

    fn set_up() {
        Spi::run(SETUP).unwrap();
    }

    fn sample(text: &str) -> Sample {
        Sample { text: text.to_owned(), search_path: "w".to_owned(), role: role::current(), parameters: Vec::new() }
    }

    fn rel(name: &str) -> RelId {
        catalog::relation(Some("w"), name).unwrap().unwrap()
    }

    fn column(table: RelId, name: &str) -> AttNum {
        catalog::attribute(table, name).unwrap().unwrap()
    }

    fn sized(definition: &str) -> Rc<Hypothetical> {
        Hypothetical::parse(definition).unwrap()
    }

    fn base(text: &str) -> Planned {
        plan(&sample(text), &[], &[], false).unwrap()
    }

    fn uses(shape: &QueryShape, table: RelId) -> Vec<&RelationUse> {
        shape.relations.iter().filter(|r| r.rel == table).collect()
    }

    fn predicate(relation: &RelationUse, column: AttNum) -> Vec<PredicateKind> {
        let mut kinds: Vec<_> = relation.predicates.iter().filter(|p| p.column == column).map(|p| p.kind).collect();
        kinds.sort_unstable();
        kinds
    }

    #[pg_test]
    fn a_hypothetical_index_costs_what_the_real_one_costs() {
        set_up();
        let cases = [
            ("CREATE INDEX real ON orders (customer_id)", "SELECT * FROM orders WHERE customer_id = 42"),
            (
                "CREATE INDEX real ON orders (customer_id, created DESC)",
                "SELECT * FROM orders WHERE customer_id = 42 ORDER BY created DESC LIMIT 5",
            ),
            ("CREATE INDEX real ON orders (created DESC)", "SELECT * FROM orders ORDER BY created DESC LIMIT 20"),
            ("CREATE INDEX real ON orders (created)", "SELECT * FROM orders WHERE created BETWEEN '2024-01-05' AND '2024-01-06'"),
            (
                "CREATE INDEX real ON orders (status, customer_id) INCLUDE (total)",
                "SELECT sum(total) FROM orders WHERE status = 'paid' AND customer_id IN (1, 2, 3)",
            ),
            ("CREATE INDEX real ON customers (email)", "SELECT id FROM customers WHERE email = 'c77@example.org'"),
            ("CREATE INDEX real ON orders (note NULLS FIRST)", "SELECT id FROM orders WHERE note = 'note 40'"),
            ("CREATE INDEX real ON items (order_id)", "SELECT * FROM orders o JOIN items i ON i.order_id = o.id WHERE o.id < 50"),
            (
                "CREATE INDEX real ON items (product, quantity)",
                "SELECT product, count(*) FROM items WHERE product < 10 GROUP BY product",
            ),
        ];
        for (definition, query) in cases {
            let before = base(query).cost;
            let hypothetical = plan(&sample(query), &[sized(definition)], &[], true).unwrap();
            assert_eq!(hypothetical.used, [0], "{query}: {}", hypothetical.explain.unwrap());
            assert_eq!(hypothetical.considered, [0]);
            Spi::run(definition).unwrap();
            let real = base(query).cost;
            Spi::run("DROP INDEX real").unwrap();
            let error = (hypothetical.cost - real).abs() / real;
            assert!(error <= 0.05, "{definition}: {} instead of {real}, without {before}", hypothetical.cost);
            assert!(real < before, "{definition}: {real}, without {before}");
        }
    }

    #[pg_test]
    fn explain_names_the_hypothetical_index() {
        set_up();
        let planned = plan(
            &sample("SELECT * FROM orders WHERE customer_id = 42"),
            &[sized("CREATE INDEX ON orders (customer_id)")],
            &[],
            true,
        );
        let text = planned.unwrap().explain.unwrap();
        assert!(text.contains(" ip_orders_customer_id (hypothetical)"), "{text}");
        assert!(text.contains("cost="), "{text}");
    }

    #[pg_test]
    fn a_hidden_index_is_not_planned_with() {
        set_up();
        Spi::run("CREATE INDEX real ON orders (customer_id)").unwrap();
        let query = "SELECT * FROM orders WHERE customer_id = 42";
        let real = Spi::get_one::<pg_sys::Oid>("SELECT 'w.real'::regclass::oid").unwrap().unwrap();
        let hidden = plan(&sample(query), &[], &[real], true).unwrap();
        assert!(hidden.cost > 5.0 * base(query).cost);
        assert!(hidden.explain.unwrap().contains("Seq Scan"));
    }

    #[pg_test]
    fn indexes_on_other_tables_make_no_difference() {
        set_up();
        let query = "SELECT * FROM customers WHERE region = 3";
        let planned = plan(&sample(query), &[sized("CREATE INDEX ON orders (customer_id)")], &[], false).unwrap();
        assert_eq!((planned.cost, planned.used), (base(query).cost, vec![]));
    }

    #[pg_test]
    fn several_candidates_on_one_table_are_told_apart() {
        set_up();
        let with = [
            sized("CREATE INDEX ON orders (status)"),
            sized("CREATE INDEX ON orders (customer_id)"),
            sized("CREATE INDEX ON items (order_id)"),
        ];
        let query = "SELECT * FROM orders o JOIN items i ON i.order_id = o.id WHERE o.customer_id = 42";
        let planned = plan(&sample(query), &with, &[], false).unwrap();
        assert_eq!(planned.used, [1, 2]);
    }

    #[pg_test]
    fn functions_that_run_while_planning_see_the_database_as_it_is() {
        set_up();
        Spi::run("CREATE FUNCTION looked_up(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
                  'DECLARE r int; BEGIN SELECT customer_id INTO r FROM w.orders WHERE total = $1 ORDER BY id LIMIT 1; RETURN r; END'").unwrap();
        let with = [sized("CREATE INDEX ON orders (total)"), sized("CREATE INDEX ON orders (customer_id)")];
        let planned = plan(&sample("SELECT * FROM orders WHERE customer_id = looked_up(5)"), &with, &[], false).unwrap();
        assert_eq!(planned.used, [1]);
    }

    #[pg_test]
    fn an_error_while_planning_leaves_nothing_behind() {
        set_up();
        let query = "SELECT * FROM orders WHERE customer_id = 42";
        let with = [sized("CREATE INDEX ON orders (customer_id)")];
        let error = plan(&sample("SELECT 1 / 0 FROM orders WHERE customer_id = 42"), &with, &[], false).unwrap_err();
        assert_eq!(error.sqlstate(), "22012");
        Spi::run(&format!("PREPARE q AS {query}; EXECUTE q")).unwrap();
        let explained = Spi::explain(query).unwrap();
        assert!(!format!("{:?}", explained.0).contains("Index"), "{explained:?}");
        assert_eq!(plan(&sample(query), &with, &[], false).unwrap().used, [0]);
    }

    #[pg_test]
    fn statements_that_cannot_be_planned_are_refused() {
        set_up();
        for (text, state) in [
            ("VACUUM orders", "0A000"),
            ("SELECT 1; SELECT 2", "0A000"),
            ("", "0A000"),
            ("SELECT * INTO copy FROM orders", "0A000"),
            ("SHOW work_mem", "0A000"),
            ("SELEC 1", "42601"),
            ("SELECT missing FROM orders", "42703"),
            ("SELECT * FROM missing", "42P01"),
            ("SELECT $1", "42P18"),
        ] {
            let found = plan(&sample(text), &[], &[], false).map_err(|e| e.sqlstate());
            if text == "SELECT $1" {
                assert!(found.is_ok(), "{text}: {found:?}");
            } else {
                assert_eq!(found.map(|p| p.cost), Err(state.to_owned()), "{text}");
            }
        }
        let gone = Sample { role: pg_sys::Oid::from(4_000_000), ..sample("SELECT 1") };
        assert_eq!(plan(&gone, &[], &[], false).unwrap_err().kind, Kind::UndefinedObject);
    }

    #[pg_test]
    fn planning_writes_nothing() {
        set_up();
        Spi::run(
            "CREATE TABLE trace (i int);
             CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO w.trace VALUES (1); RETURN 1; END';
             CREATE FUNCTION calls() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN w.writes(); END'",
        )
        .unwrap();
        let error = plan(&sample("SELECT * FROM orders WHERE customer_id = calls()"), &[], &[], false).unwrap_err();
        assert_eq!(error.sqlstate(), "25006", "{error}");
        assert_eq!(Spi::get_one::<i64>("SELECT count(*) FROM trace").unwrap(), Some(0));
        Spi::run("INSERT INTO trace VALUES (1)").unwrap();
    }

    #[pg_test]
    fn planning_keeps_no_lock() {
        set_up();
        // Another table than those which the test itself has locked.
        let held = || {
            Spi::get_one::<i64>("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'pg_language'::regclass")
        };
        plan(&sample("SELECT * FROM pg_language"), &[], &[], false).unwrap();
        assert_eq!(held().unwrap(), Some(0));
    }

    #[pg_test]
    fn planning_is_limited_in_time() {
        set_up();
        Spi::run(
            "SET indexpilot.whatif_timeout = '50ms';
                  CREATE FUNCTION slow() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(10); RETURN 1; END'",
        )
        .unwrap();
        let error = plan(&sample("SELECT * FROM orders WHERE customer_id = slow()"), &[], &[], false).unwrap_err();
        assert_eq!(error.sqlstate(), "57014", "{error}");
        assert!(base("SELECT * FROM orders").cost > 0.0);
    }

    #[pg_test]
    fn parameters_are_planned_with_their_values() {
        set_up();
        let with_value = |value: Option<&str>, known| Sample {
            parameters: vec![Parameter { type_oid: pg_sys::INT4OID, value: value.map(str::to_owned), known }],
            ..sample("SELECT * FROM orders WHERE id < $1")
        };
        let few = plan(&with_value(Some("10"), true), &[], &[], false).unwrap().cost;
        let many = plan(&with_value(Some("49000"), true), &[], &[], false).unwrap().cost;
        let any = plan(&with_value(None, false), &[], &[], false).unwrap().cost;
        assert!(few < any && any < many, "{few} {any} {many}");
        let untyped = Sample {
            parameters: vec![Parameter { type_oid: pg_sys::InvalidOid, value: None, known: false }],
            ..sample("SELECT * FROM orders WHERE id < $1")
        };
        assert_eq!(plan(&untyped, &[], &[], false).unwrap().cost, any);
    }

    #[pg_test]
    fn a_query_is_planned_as_its_role_under_row_security() {
        set_up();
        Spi::run(
            "CREATE ROLE whatif_tenant;
                  GRANT USAGE ON SCHEMA w TO whatif_tenant;
                  GRANT SELECT ON orders TO whatif_tenant;
                  ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
                  CREATE POLICY own ON orders USING (customer_id = 42)",
        )
        .unwrap();
        let role = Spi::get_one::<pg_sys::Oid>("SELECT 'whatif_tenant'::regrole::oid").unwrap().unwrap();
        let tenants = Sample { role, ..sample("SELECT * FROM orders WHERE created > '2024-01-02'") };
        let orders = rel("orders");
        let customer = column(orders, "customer_id");
        assert_eq!(predicate(uses(&shape(&tenants).unwrap(), orders)[0], customer), [PredicateKind::Equal]);
        let mine = shape(&sample(&tenants.text)).unwrap();
        assert_eq!(predicate(uses(&mine, orders)[0], customer), []);
        let explained = plan(&tenants, &[sized("CREATE INDEX ON orders (customer_id)")], &[], true).unwrap();
        assert_eq!(explained.used, [0]);
        assert!(explained.explain.is_some());
        assert_eq!(role::current(), sample("").role);
    }

    #[pg_test]
    fn the_shape_of_a_join_with_order_and_limit() {
        set_up();
        let found = shape(&sample(
            "SELECT o.created, c.email, i.product FROM orders o JOIN customers c ON c.id = o.customer_id
             JOIN items i ON i.order_id = o.id
             WHERE o.status = 'paid' AND o.created >= '2024-01-03' AND o.created < '2024-01-04' AND c.region IN (1, 2)
             ORDER BY o.created DESC LIMIT 10",
        ))
        .unwrap();
        let (orders, customers, items) = (rel("orders"), rel("customers"), rel("items"));
        assert_eq!(found.relations.len(), 3);
        let o = uses(&found, orders)[0];
        assert_eq!(predicate(o, column(orders, "status")), [PredicateKind::Equal]);
        assert_eq!(predicate(o, column(orders, "created")), [PredicateKind::Range]);
        assert_eq!(predicate(o, column(orders, "customer_id")), [PredicateKind::Join]);
        assert_eq!(predicate(o, column(orders, "id")), [PredicateKind::Join]);
        assert_eq!(o.order, [Key::desc(column(orders, "created"))]);
        assert!(o.limited && !o.target && !o.whole_row);
        assert_eq!(o.needed, ["id", "customer_id", "status", "created"].map(|c| column(orders, c)));
        let selectivity = |r: &RelationUse, name: &str| {
            let column = column(r.rel, name);
            r.predicates.iter().find(|p: &&Predicate| p.column == column).unwrap().selectivity
        };
        assert!((selectivity(o, "status") - 0.25).abs() < 0.02);
        assert!((selectivity(o, "created") - 0.0288).abs() < 0.01, "{}", selectivity(o, "created"));
        assert!((selectivity(o, "customer_id") - 1.0 / 5000.0).abs() < 1e-4);
        let c = uses(&found, customers)[0];
        assert_eq!(predicate(c, column(customers, "region")), [PredicateKind::In]);
        assert_eq!(predicate(c, column(customers, "id")), [PredicateKind::Join]);
        assert!(c.order.is_empty() && !c.limited);
        assert_eq!(predicate(uses(&found, items)[0], column(items, "order_id")), [PredicateKind::Join]);
        assert!(found.base_cost > 0.0 && o.rows > 1.0);
    }

    #[pg_test]
    fn shapes_are_read_at_every_level() {
        set_up();
        let (orders, customers) = (rel("orders"), rel("customers"));
        let customer = column(orders, "customer_id");
        // A correlated subquery, a materialised CTE, a self-join, the arms of UNION ALL, min/max.
        let correlated =
            shape(&sample("SELECT c.id, (SELECT max(total) FROM orders o WHERE o.customer_id = c.id) FROM customers c")).unwrap();
        assert!(uses(&correlated, orders).iter().any(|r| predicate(r, customer) == [PredicateKind::Equal]), "{correlated:?}");
        let cte = shape(&sample("WITH x AS MATERIALIZED (SELECT * FROM orders WHERE customer_id = 1) SELECT * FROM x, customers"))
            .unwrap();
        assert_eq!(predicate(uses(&cte, orders)[0], customer), [PredicateKind::Equal]);
        assert_eq!(uses(&cte, customers).len(), 1);
        let own = shape(&sample("SELECT a.id FROM orders a JOIN orders b USING (customer_id) WHERE a.status = 'new'")).unwrap();
        assert_eq!(uses(&own, orders).len(), 2);
        assert!(uses(&own, orders).iter().all(|r| predicate(r, customer) == [PredicateKind::Join]));
        let union =
            shape(&sample("SELECT id FROM orders WHERE customer_id = 1 UNION ALL SELECT id FROM customers WHERE region = 2"))
                .unwrap();
        assert_eq!(predicate(uses(&union, orders)[0], customer), [PredicateKind::Equal]);
        assert_eq!(uses(&union, customers)[0].needed, ["id", "region"].map(|c| column(customers, c)));
        let highest = shape(&sample("SELECT max(total) FROM orders")).unwrap();
        assert!(uses(&highest, orders).iter().any(|r| r.limited && r.order[0].column == column(orders, "total")), "{highest:?}");
        let semi =
            shape(&sample("SELECT * FROM customers c WHERE EXISTS (SELECT FROM orders o WHERE o.customer_id = c.id)")).unwrap();
        assert_eq!(predicate(uses(&semi, orders)[0], customer), [PredicateKind::Join]);
        let outer = shape(&sample("SELECT * FROM customers c LEFT JOIN orders o ON o.customer_id = c.id")).unwrap();
        assert_eq!(predicate(uses(&outer, orders)[0], customer), [PredicateKind::Join]);
        assert_eq!(predicate(uses(&outer, customers)[0], column(customers, "id")), []);
    }

    #[pg_test]
    fn every_kind_of_condition_is_read() {
        set_up();
        let (orders, customers) = (rel("orders"), rel("customers"));
        use PredicateKind::{Equal, In, Range};
        let empty: &[PredicateKind] = &[];
        for (condition, name, kinds) in [
            ("orders WHERE 42 = customer_id", "customer_id", &[Equal][..]),
            ("orders WHERE 42 > customer_id", "customer_id", &[Range]),
            ("orders WHERE customer_id = 42::bigint", "customer_id", &[Equal]),
            ("orders WHERE customer_id = ANY (ARRAY[1, 2])", "customer_id", &[In]),
            ("orders WHERE customer_id = 1 OR customer_id = 2 OR customer_id IN (5, 6)", "customer_id", &[In]),
            ("orders WHERE customer_id = 1 OR id = 2", "customer_id", empty),
            ("orders WHERE note IS NULL", "note", &[Equal]),
            ("orders WHERE note IS NOT NULL", "note", empty),
            ("orders WHERE note = 'x'", "note", &[Equal]),
            ("orders WHERE note = 'x' COLLATE \"C\"", "note", empty),
            ("orders WHERE lower(note) = 'x'", "note", empty),
            ("orders WHERE customer_id + 0 = 1", "customer_id", empty),
            ("orders WHERE customer_id <> 1", "customer_id", empty),
            ("orders WHERE customer_id = (random() * 10)::int", "customer_id", empty),
            ("orders WHERE created > now()", "created", &[Range]),
            ("orders WHERE created > current_date", "created", &[Range]),
            ("orders WHERE customer_id = (SELECT 5)", "customer_id", &[Equal]),
            ("customers WHERE active", "active", &[Equal]),
            ("customers WHERE NOT active", "active", &[Equal]),
            ("customers WHERE active IS TRUE", "active", &[Equal]),
        ] {
            let table = if condition.starts_with("orders") { orders } else { customers };
            let found = shape(&sample(&format!("SELECT * FROM {condition}"))).unwrap();
            assert_eq!(predicate(uses(&found, table)[0], column(table, name)), kinds, "{condition}");
        }
        let grouped = shape(&sample("SELECT status, customer_id, count(*) FROM orders GROUP BY status, customer_id")).unwrap();
        let mut group = uses(&grouped, orders)[0].group.clone();
        group.sort_unstable();
        assert_eq!(group, [column(orders, "customer_id"), column(orders, "status")]);
        let locked = shape(&sample("SELECT id FROM orders WHERE id = 5 FOR UPDATE")).unwrap();
        assert!(locked.relations[0].whole_row);
    }

    #[pg_test]
    fn writes_have_a_target() {
        set_up();
        let (orders, items) = (rel("orders"), rel("items"));
        for text in [
            "INSERT INTO orders VALUES (0, 1, 'new', now(), 1)",
            "UPDATE orders SET status = 'done' WHERE customer_id = 7",
            "DELETE FROM orders WHERE customer_id = 7",
            "MERGE INTO orders o USING items i ON o.id = i.order_id WHEN MATCHED THEN UPDATE SET total = 0",
            "WITH x AS (INSERT INTO orders VALUES (0, 1, 'new', now(), 1) RETURNING id) SELECT * FROM x",
        ] {
            let found = shape(&sample(text)).unwrap();
            let target: Vec<_> = found.relations.iter().filter(|r| r.target).collect();
            assert_eq!(target.len(), 1, "{text}: {found:?}");
            assert!(target[0].rel == orders && target[0].whole_row, "{text}");
        }
        let copied = shape(&sample("INSERT INTO items SELECT id, 1, 1 FROM orders WHERE customer_id = 7")).unwrap();
        assert_eq!(predicate(uses(&copied, orders)[0], column(orders, "customer_id")), [PredicateKind::Equal]);
        assert!(uses(&copied, items)[0].target);
    }

    #[pg_test]
    fn definitions_are_looked_up() {
        set_up();
        let orders = rel("orders");
        let [customer, created, total] = ["customer_id", "created", "total"].map(|c| column(orders, c));
        let def =
            &sized("CREATE INDEX CONCURRENTLY ON orders USING btree (customer_id, created DESC NULLS LAST) INCLUDE (total)").def;
        let key = Key { nulls_first: false, ..Key::desc(created) };
        assert_eq!(*def, IndexDef::new(orders, vec![Key::asc(customer), key], [total]));
        for (text, state) in [
            ("CREATE UNIQUE INDEX ON orders (id)", "0A000"),
            ("CREATE INDEX ON orders (id) WITH (fillfactor = 50)", "0A000"),
            ("CREATE INDEX ON orders (id) TABLESPACE pg_default", "0A000"),
            ("CREATE INDEX ON orders USING hash (id, status)", "0A000"),
            ("CREATE INDEX ON orders USING hash (id) INCLUDE (status)", "0A000"),
            ("CREATE INDEX ON orders USING hash (id DESC)", "0A000"),
            ("CREATE INDEX ON orders USING gin (status)", "0A000"),
            ("CREATE INDEX ON orders USING nothing (id)", "42704"),
            ("CREATE INDEX ON orders (status nothing_ops)", "42704"),
            ("CREATE INDEX ON orders (id text_ops)", "42804"),
            ("CREATE INDEX ON orders (status COLLATE nowhere)", "42704"),
            ("CREATE INDEX ON orders (id COLLATE \"C\")", "42809"),
            ("CREATE INDEX ON orders ((random()))", "0A000"),
            ("CREATE INDEX ON orders ((created::text))", "0A000"),
            ("CREATE INDEX ON orders (id) WHERE created > now()", "0A000"),
            ("CREATE INDEX ON orders (id) WHERE id IN (SELECT 1)", "0A000"),
            ("CREATE INDEX ON orders (id) WHERE 1 / 0 = 1", "22012"),
            ("CREATE INDEX ON orders (id) INCLUDE ((lower(status)))", "0A000"),
            ("CREATE INDEX ON orders (lower(missing))", "42703"),
            ("CREATE INDEX ON orders (ctid)", "42703"),
            ("CREATE INDEX ON orders ((ctid::text))", "0A000"),
            ("CREATE INDEX ON missing (id)", "42P01"),
            ("CREATE INDEX ON nowhere.orders (id)", "42P01"),
            ("CREATE INDEX ON orders (missing)", "42703"),
            ("CREATE INDEX ON pg_stat_activity (pid)", "42809"),
            ("SELECT 1", "42601"),
            ("CREATE INDX", "42601"),
        ] {
            let error = Hypothetical::parse(text).map(|h| h.def.clone()).expect_err(text);
            assert_eq!(error.sqlstate(), state, "{text}: {error}");
        }
    }

    #[pg_test]
    fn the_snapshot_describes_tables() {
        set_up();
        Spi::run(
            "CREATE INDEX plain ON orders (customer_id, created DESC) INCLUDE (total);
                  CREATE INDEX part ON orders (id) WHERE total > 5;
                  CREATE TEMPORARY TABLE short (i int); CREATE VIEW v AS SELECT 1;
                  CREATE TABLE kinds (i int, n numeric, j json, b jsonb, t text, a int[], x xid, p point, d date);
                  CREATE TABLE parent (i int) PARTITION BY LIST (i)",
        )
        .unwrap();
        let named = |name: &str| catalog::relation(None, name).unwrap().unwrap();
        Spi::run("SET search_path = w, pg_temp").unwrap();
        let tables = ["orders", "short", "v", "kinds", "parent", "pg_class"].map(named);
        let found = catalog::snapshot(&tables).unwrap();
        assert_eq!(found.tables.len(), 6);
        let orders = found.table(tables[0]).unwrap();
        assert_eq!((orders.schema.as_str(), orders.name.as_str(), orders.refused.as_deref()), ("w", "orders", None));
        assert!((orders.rows - 50000.0).abs() < 1.0 && orders.bytes > 2_000_000);
        let status = orders.columns.iter().find(|c| c.name == "status").unwrap();
        assert_eq!((status.n_distinct, status.align, status.sortable, status.dedup), (4.0, 4, true, true));
        let created = orders.columns.iter().find(|c| c.name == "created").unwrap();
        assert!(created.correlation > 0.99 && created.avg_width == 8 && created.n_distinct > 40000.0);
        let note = orders.columns.iter().find(|c| c.name == "note").unwrap();
        assert!((note.null_frac - 0.95).abs() < 0.02);
        let plain = orders.indexes.iter().find(|i| i.name == "plain").unwrap();
        let [customer, created, total] = ["customer_id", "created", "total"].map(|c| column(tables[0], c));
        assert_eq!(plain.def, Some(IndexDef::new(tables[0], vec![Key::asc(customer), Key::desc(created)], [total])));
        assert!(plain.valid && !plain.unique && plain.bytes > 0);
        let part = orders.indexes.iter().find(|i| i.name == "part").unwrap().def.clone().unwrap();
        assert_eq!(part.predicate.as_deref(), Some("(total > '5'::numeric)"));
        assert!(orders.indexes.iter().any(|i| i.unique && i.name == "orders_pkey" && i.def.is_some()));
        for (table, refused) in [(1, true), (2, true), (3, false), (4, true), (5, true)] {
            assert_eq!(found.table(tables[table]).unwrap().refused.is_some(), refused, "{table}");
        }
        let kinds: Vec<_> =
            found.table(tables[3]).unwrap().columns.iter().map(|c| (c.name.as_str(), c.sortable, c.dedup)).collect();
        let expected = [
            ("i", true, true),
            ("n", true, false),
            ("j", false, false),
            ("b", true, false),
            ("t", true, true),
            ("a", true, false),
            ("x", false, false),
            ("p", false, false),
            ("d", true, true),
        ];
        assert_eq!(kinds, expected);
    }

    #[pg_test]
    fn the_oracle_averages_samples() {
        set_up();
        let candidates: Vec<Candidate> = ["CREATE INDEX ON orders (status)", "CREATE INDEX ON orders (customer_id)"]
            .map(sized)
            .map(|index| Candidate { def: index.def.clone(), size: index.size, queries: vec![0] })
            .into();
        let catalog = catalog::snapshot(&[rel("orders")]).unwrap();
        let texts = ["SELECT * FROM orders WHERE customer_id = 42", "SELECT * FROM orders WHERE customer_id < 40"];
        let mut oracle = Oracle::new(vec![texts.map(sample).into(), vec![]], &candidates, &catalog, &mut Sampler::default());
        let without = oracle.cost(0, &[]).unwrap();
        assert_eq!(without.cost, (base(texts[0]).cost + base(texts[1]).cost) / 2.0);
        let with = oracle.cost(0, &[0, 1]).unwrap();
        assert_eq!(with.used, [1]);
        assert!(with.cost < without.cost);
        assert!(oracle.cost(1, &[]).is_err());
        assert!(!oracle.interrupted());
    }
}
