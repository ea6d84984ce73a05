//! Samples of expressions in a server: values of any width are looked at within little memory, and those that are too wide not at all.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use crate::pg::error::Result;
    use crate::pg::sampling::{Statistics, Subject, statistics};
    use crate::pg::{catalog, role, rows};
    use pgrx::{pg_sys, prelude::*};
    use std::time::Duration;

    fn set_up() {
        Spi::run("CREATE SCHEMA s; CREATE TABLE s.t AS SELECT i AS id, i % 7 AS few FROM generate_series(1, 20000) i").unwrap();
    }

    fn of(sql: &str) -> Option<Statistics> {
        sampled("t", sql, role::current()).unwrap()
    }

    fn sampled(table: &str, sql: &str, role: pg_sys::Oid) -> Result<Option<Statistics>> {
        let table = catalog::relation(Some("s"), table).unwrap().unwrap();
        let subject = Subject { table, sql, computed: true, role, most: f64::INFINITY, rows: 20_000.0, pages: 100.0, width: 32.0 };
        statistics(&subject, pg_sys::DEFAULT_COLLATION_OID, Duration::from_secs(60))
    }

    /// The largest resident size of the process so far, in bytes.
    fn peak() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    #[pg_test]
    fn wide_values_take_little_memory() {
        set_up();
        let narrow = of("few + 1").unwrap();
        assert_eq!((narrow.n_distinct, narrow.null_frac), (7.0, 0.0));
        let before = peak();
        // 20 000 values of 20 000 bytes: 400 MB, of which a part is held that comes from all of the table.
        let wide = of("CASE WHEN id % 2 = 0 THEN repeat('x', 20000) || few END").unwrap();
        assert!((0.4..0.6).contains(&wide.null_frac), "{wide:?}");
        assert!((19_000..21_000).contains(&wide.width), "{wide:?}");
        // Of 100 000 bytes: 2 GB, none of which is held.
        assert_eq!(of("repeat(md5(id::text), 3200)"), None);
        let more = peak() - before;
        assert!(more < 64 << 20, "{more} bytes");
    }

    #[pg_test]
    fn a_few_wide_values_are_left_out() {
        set_up();
        let found = of("CASE WHEN id % 1000 = 0 THEN repeat('x', 100000) ELSE few::text END").unwrap();
        assert_eq!((found.n_distinct, found.width), (7.0, 2), "{found:?}");
        assert_eq!(of("CASE WHEN id % 20 = 0 THEN repeat('x', 100000) ELSE few::text END"), None);
    }
    /// Sets the level of the transaction, as SET TRANSACTION would before its first query.
    fn isolate(level: u32) {
        // SAFETY: a variable of the backend; only what samples do with it is looked at until it is put back.
        unsafe { pg_sys::XactIsoLevel = level as i32 };
    }

    #[pg_test]
    fn a_serializable_transaction_has_no_samples() {
        set_up();
        let rel = catalog::relation(Some("s"), "t").unwrap().unwrap();
        let table = catalog::snapshot(&[rel]).unwrap().tables.remove(&rel).unwrap();
        let both = || (of("few + 1").is_some(), rows::sample(&table, &[1].into(), &[], Duration::from_secs(60)).is_some());
        assert_eq!(both(), (true, true));
        isolate(pg_sys::XACT_SERIALIZABLE);
        let found = both();
        isolate(pg_sys::XACT_READ_COMMITTED);
        assert_eq!(found, (false, false));
    }

    #[pg_test]
    fn a_privileged_role_reads_its_own_table_and_nothing_else_of_others() {
        set_up();
        Spi::run(
            "CREATE ROLE mallory; CREATE ROLE mighty; GRANT pg_write_server_files TO mighty;
             GRANT USAGE ON SCHEMA s TO PUBLIC; ALTER TABLE s.t OWNER TO mighty;
             CREATE TABLE s.theirs AS TABLE s.t; ALTER TABLE s.theirs OWNER TO mallory; GRANT SELECT ON s.theirs TO PUBLIC;
             CREATE TABLE s.other AS TABLE s.t; ALTER TABLE s.other OWNER TO mighty;
             CREATE FUNCTION s.good(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN i % 7; END';
             CREATE FUNCTION s.evil(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN i % 7; END';
             ALTER FUNCTION s.evil OWNER TO mallory",
        )
        .unwrap();
        let mighty = Spi::get_one::<pg_sys::Oid>("SELECT 'mighty'::regrole::oid").unwrap().unwrap();
        let found =
            |table, sql| sampled(table, sql, mighty).map(|s| s.map(|s| s.n_distinct)).map_err(|e| (e.sqlstate(), e.message));
        for sql in ["few + 1", "s.good(id)"] {
            assert_eq!(found("t", sql), Ok(Some(7.0)), "{sql}");
        }
        for (table, sql, what) in [
            ("t", "s.evil(id)", "function evil"),
            ("theirs", "few + 1", "relation theirs"),
            // A function of the server's that reads another relation, the role's own even: who names it may be somebody else.
            ("t", "length(table_to_xml('s.theirs', true, true, '')::text) + few", "relation theirs"),
            ("t", "length(table_to_xml('s.other', true, true, '')::text) + few", "relation other"),
        ] {
            let (state, message) = found(table, sql).unwrap_err();
            assert_eq!(state, "42501", "{sql}: {message}");
            assert!(message.starts_with(what), "{sql}: {message}");
        }
        // Policies are expressions that others may have had a hand in.
        Spi::run(
            "ALTER TABLE s.t ENABLE ROW LEVEL SECURITY; ALTER TABLE s.t FORCE ROW LEVEL SECURITY;
             CREATE POLICY p ON s.t USING (id > 5)",
        )
        .unwrap();
        assert_eq!(found("t", "few + 1").unwrap_err().0, "42501");
    }
}
