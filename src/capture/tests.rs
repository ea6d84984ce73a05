//! Tests inside a server.

use pgrx::prelude::*;

fn database() -> pg_sys::Oid {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::MyDatabaseId }
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
