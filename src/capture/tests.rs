//! Tests inside a server, and functions that let a cluster test look at what capture has (built with the feature `pg_test` only).

use pgrx::prelude::*;

fn database() -> pg_sys::Oid {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::MyDatabaseId }
}

#[pg_schema]
mod capture_test {
    use super::*;
    use crate::capture;

    #[pg_extern]
    fn register() -> bool {
        capture::register_database(database())
    }

    #[pg_extern]
    fn unregister() {
        capture::unregister_database(database());
    }

    #[pg_extern]
    fn clear() {
        capture::clear(database());
    }

    /// Figures by name; none without preload.
    #[pg_extern]
    fn status() -> TableIterator<'static, (name!(name, String), name!(value, i64))> {
        let s = capture::status();
        let figures = [
            ("entries", s.entries),
            ("evicted", s.evicted),
            ("dropped", s.dropped),
            ("samples_dropped", s.samples_dropped),
            ("samples_too_long", s.samples_too_long),
            ("without_queryid", s.without_queryid),
            ("untracked", s.untracked),
            ("failures", s.failures),
            ("bytes", s.bytes),
            ("epoch_us", s.epoch),
        ];
        let rows: Vec<_> = figures.into_iter().filter(|_| s.active).map(|(name, value)| (name.to_owned(), value as i64)).collect();
        TableIterator::new(rows)
    }

    /// Takes the counters, one document for each template.
    #[pg_extern]
    fn stats() -> SetOfIterator<'static, pgrx::JsonB> {
        let all: Vec<_> = capture::take_stats(database())
            .into_iter()
            .map(|c| {
                pgrx::JsonB(serde_json::json!({
                    "role": c.role, "tenant": c.tenant, "queryid": c.queryid as i64, "relations_hash": c.relations_hash as i64,
                    "relations": c.relations, "truncated": c.relations_truncated, "command": c.command, "calls": c.calls,
                    "errors": c.errors, "error_ms": c.error_ms, "rows": c.rows, "total_ms": c.total_ms,
                    "sum_squares_ms": c.sum_squares_ms, "min_ms": c.min_ms, "max_ms": c.max_ms,
                    "histogram": c.histogram.iter().sum::<u64>(), "planner_cost": c.planner_cost,
                    "hit": c.shared_blocks_hit, "read": c.shared_blocks_read, "temp": c.temp_blocks, "wal": c.wal_bytes,
                }))
            })
            .collect();
        SetOfIterator::new(all)
    }

    /// Takes the samples, one document each.
    #[pg_extern]
    fn samples() -> SetOfIterator<'static, pgrx::JsonB> {
        let all: Vec<_> = capture::take_samples(database())
            .into_iter()
            .map(|s| {
                let parameters: Vec<_> = s
                    .parameters
                    .iter()
                    .map(|p| serde_json::json!({"type": p.type_oid, "value": p.value, "known": p.known}))
                    .collect();
                pgrx::JsonB(serde_json::json!({
                    "role": s.role, "tenant": s.tenant, "queryid": s.queryid as i64, "relations": s.relations, "text": s.text,
                    "search_path": s.search_path, "parameters": parameters, "literals": s.literals,
                }))
            })
            .collect();
        SetOfIterator::new(all)
    }
}

#[pg_schema]
mod tests {
    use super::*;
    use crate::capture;

    fn all() -> Vec<capture::Captured> {
        capture::collect(database(), std::time::Duration::ZERO);
        capture::take_stats(database())
    }

    fn calls() -> u64 {
        all().iter().map(|c| c.calls).sum()
    }

    #[pg_test]
    fn statements_of_functions_are_counted_as_nested() {
        assert!(capture::register_database(database()));
        calls();
        Spi::run("CREATE TABLE nested_test (a int)").unwrap();
        Spi::run("SELECT count(*) FROM nested_test").unwrap();
        let taken = all();
        assert_eq!(taken.iter().filter(|c| !c.relations.is_empty()).map(|c| (c.calls, c.nested)).collect::<Vec<_>>(), [(1, true)]);
    }

    #[pg_test]
    fn own_work_ends_with_its_guard() {
        let guard = crate::pg::own::work();
        assert!(crate::pg::own::working());
        drop(guard);
        assert!(!crate::pg::own::working());
    }

    #[pg_test]
    fn values_are_printed_as_their_types_read_them() {
        for days in [
            "2000-01-01",
            "2024-02-29",
            "1999-12-31",
            "1970-01-01",
            "infinity",
            "-infinity",
            "0001-01-01",
            "4713-01-01 BC",
            "5874897-12-31",
        ] {
            let n = Spi::get_one::<pgrx::datum::Date>(&format!("SELECT '{days}'::date")).unwrap().unwrap();
            let mut buffer = [0u8; 64];
            let mut out = std::io::Cursor::new(&mut buffer[..]);
            crate::pg::value::date(&mut out, n.into_inner()).unwrap();
            let end = out.position() as usize;
            assert_eq!(std::str::from_utf8(&buffer[..end]).unwrap(), days);
        }
        for stamp in ["2024-02-29 23:59:59.999999", "1969-12-31 00:00:00.000001", "infinity", "0044-03-15 12:00:00.000000 BC"] {
            let us = Spi::get_one::<pgrx::datum::Timestamp>(&format!("SELECT '{stamp}'::timestamp")).unwrap().unwrap();
            let mut buffer = [0u8; 64];
            let mut out = std::io::Cursor::new(&mut buffer[..]);
            crate::pg::value::timestamp(&mut out, us.into_inner(), false).unwrap();
            let end = out.position() as usize;
            assert_eq!(std::str::from_utf8(&buffer[..end]).unwrap(), stamp);
        }
    }
}
