//! What samples of tables may tell, and to whom: expressions mean what the statement meant, whoever evaluates them, and rows are looked
//! at for those only who may read them.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use crate::pg::catalog;
    use crate::whatif::Hypothetical;
    use indexpilot_core::model::TableInfo;
    use indexpilot_core::size;
    use pgrx::prelude::*;
    use std::rc::Rc;

    /// A table of somebody who has a schema of his own name. No statistics, so that rows tell another size than they do.
    const SETUP: &str = "
        CREATE ROLE r_owner; CREATE ROLE r_reader;
        CREATE SCHEMA r; GRANT USAGE ON SCHEMA r TO PUBLIC;
        CREATE SCHEMA r_owner AUTHORIZATION r_owner;
        CREATE TABLE r.t AS SELECT i AS id, i % 7 AS few, repeat('x', 100) || i AS a, repeat('y', 100) || i AS b, i % 2 AS half
            FROM generate_series(1, 5000) i;
        ALTER TABLE r.t OWNER TO r_owner;";

    fn set_up() {
        Spi::run(SETUP).unwrap();
    }

    fn index(definition: &str) -> Rc<Hypothetical> {
        Hypothetical::parse(definition).unwrap_or_else(|e| panic!("{definition}: {e}"))
    }

    fn table() -> TableInfo {
        let rel = catalog::relation(Some("r"), "t").unwrap().unwrap();
        catalog::snapshot(&[rel]).unwrap().tables.remove(&rel).unwrap()
    }

    /// No rows were looked at for its size.
    fn described(index: &Hypothetical) -> bool {
        index.size == size::of(&index.def, &table())
    }

    #[pg_test]
    fn a_sampled_expression_is_that_of_the_statement() {
        set_up();
        // What the owner has under the same names would be found before what the statement means.
        Spi::run(
            "CREATE FUNCTION r.f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
                 'BEGIN IF current_user <> ''r_owner'' THEN RAISE ''run as %'', current_user; END IF; RETURN $1 % 7; END';
             SET ROLE r_owner;
             CREATE FUNCTION r_owner.f(int) RETURNS int IMMUTABLE LANGUAGE sql RETURN 1;
             CREATE FUNCTION r_owner.one(int, int) RETURNS int IMMUTABLE LANGUAGE sql RETURN 1;
             CREATE OPERATOR r_owner.+ (FUNCTION = r_owner.one, LEFTARG = int, RIGHTARG = int);
             RESET ROLE;
             SET search_path = \"$user\", r, pg_catalog;
             SET datestyle = 'SQL, DMY'; SET quote_all_identifiers = on",
        )
        .unwrap();
        for (expression, text) in
            [("f(id)", "r.f(id)"), ("(few + 0)", "(few + 0)"), ("(date '2024-02-03' + few)", "('2024-02-03'::date + few)")]
        {
            let found = index(&format!("CREATE INDEX ON t ({expression}) WHERE few < 9"));
            assert_eq!(found.statistics(1).map(|s| s.n_distinct), Some(7.0), "{expression}");
            assert_eq!(found.index.expression_texts, [text]);
            assert_eq!(found.index.predicate_text.as_deref(), Some("(few < 9)"));
        }
    }

    #[pg_test]
    fn rows_are_looked_at_for_who_may_read_them() {
        set_up();
        Spi::run("GRANT SELECT (a, few) ON r.t TO r_reader").unwrap();
        let all = ["(a)", "(a, b)", "(b)", "(a) INCLUDE (b)", "(a) WHERE few < 9", "USING hash (b)"];
        for columns in &all[..5] {
            assert!(!described(&index(&format!("CREATE INDEX ON r.t {columns}"))), "{columns}");
        }
        Spi::run("SET LOCAL ROLE r_reader").unwrap();
        let seen: Vec<bool> = all.map(|columns| !described(&index(&format!("CREATE INDEX ON r.t {columns}")))).into();
        Spi::run("RESET ROLE").unwrap();
        assert_eq!(seen, [true, false, false, false, true, false]);
    }

    #[pg_test]
    fn rows_that_policies_hide_are_not_looked_at() {
        set_up();
        Spi::run(
            "GRANT SELECT ON r.t TO r_reader;
             ALTER TABLE r.t ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON r.t USING (few = 1)",
        )
        .unwrap();
        assert!(!described(&index("CREATE INDEX ON r.t (b)")), "no policy is for a superuser");
        Spi::run("SET LOCAL ROLE r_reader").unwrap();
        let found = described(&index("CREATE INDEX ON r.t (b)"));
        Spi::run("RESET ROLE").unwrap();
        assert!(found);
    }

    #[pg_test]
    fn a_decision_is_explained_without_running_code_of_others() {
        set_up();
        // What a function of that kind does cannot be rolled back, so that it is seen whether it was run, and as whom.
        let spy = |name: &str| {
            format!(
                "CREATE FUNCTION r.{name}(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
                     'BEGIN PERFORM pg_catalog.pg_advisory_lock(4711, current_user::regrole::oid::int); RETURN $1; END'"
            )
        };
        Spi::run(&format!("CREATE ROLE r_third; {}; {}", spy("of_third"), spy("of_owner"))).unwrap();
        Spi::run(
            "ALTER FUNCTION r.of_third(int) OWNER TO r_third; ALTER FUNCTION r.of_owner(int) OWNER TO r_owner;
             GRANT pg_monitor TO r_reader; GRANT SELECT ON r.t TO r_reader; ANALYZE r.t;
             GRANT SELECT ON ALL TABLES IN SCHEMA indexpilot TO r_reader;
             GRANT EXECUTE ON FUNCTION indexpilot.explain_decision(bigint) TO r_reader;
             INSERT INTO indexpilot.workload (queryid, role_id, relations_hash) VALUES (1, 'r_reader'::regrole, 1);
             INSERT INTO indexpilot.workload_sample (workload_id, query, search_path)
                 SELECT id, 'SELECT a FROM r.t WHERE few = 3', 'pg_catalog' FROM indexpilot.workload;
             INSERT INTO indexpilot.analyses (cause) VALUES ('call')",
        )
        .unwrap();
        let explained = |key: &str| {
            let id = Spi::get_one::<i64>(&format!(
                "INSERT INTO indexpilot.recommendations (analysis_id, state, reason, reason_detail, table_id, table_schema, table_name,
                     columns, definition, index_def, workload_ids, details)
                 SELECT a.id, 'proposed', 'gain', '', 'r.t'::regclass, 'r', 't', '{{few}}',
                     'CREATE INDEX CONCURRENTLY ip_t ON r.t USING btree ({key})', '{{}}', ARRAY[w.id],
                     jsonb_build_object('queries', jsonb_build_array(jsonb_build_object('query', w.id)))
                 FROM indexpilot.analyses a, indexpilot.workload w RETURNING id"
            ))
            .unwrap()
            .unwrap();
            Spi::run("SET LOCAL ROLE r_reader").unwrap();
            let text = Spi::get_one::<String>(&format!("SELECT indexpilot.explain_decision({id})"));
            Spi::run("RESET ROLE").unwrap();
            text.unwrap().unwrap()
        };
        let ran_as = || {
            let roles = "SELECT coalesce(string_agg(objid::regrole::text, ' '), '') FROM pg_locks
                         WHERE locktype = 'advisory' AND classid = 4711";
            let roles = Spi::get_one::<String>(roles).unwrap();
            Spi::run("SELECT pg_advisory_unlock_all()").unwrap();
            roles.unwrap()
        };
        assert!(explained("few").contains("## Plans"), "plans are made for the reader");
        assert_eq!(ran_as(), "");
        assert!(!explained("(few + r.of_third(1))").contains("## Plans"), "nobody runs that for an explanation");
        assert_eq!(ran_as(), "");
        assert!(explained("(few + r.of_owner(1))").contains("## Plans"));
        assert_eq!(ran_as(), "r_owner", "the owner of the table alone is made to run what he wrote");
    }
}
