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

    /// As text, when it is short and harmless.
    fn printed(value: &str) -> Option<String> {
        let sql = format!("SELECT {value}");
        Spi::connect(|client| {
            let row = client.select(&sql, None, &[]).unwrap().first();
            let oid = row.column_type_oid(1).unwrap().value();
            let mut buffer = [0u8; 256];
            let mut out = std::io::Cursor::new(&mut buffer[..]);
            let datum = row.get_datum_by_ordinal(1).unwrap().unwrap();
            // SAFETY: the value and its type are those of the row.
            unsafe { crate::pg::value::print(&mut out, oid, datum) }?;
            let end = out.position() as usize;
            Some(String::from_utf8(buffer[..end].to_vec()).unwrap())
        })
    }

    #[pg_test]
    fn values_are_printed_as_their_types_read_them() {
        for (kind, values) in [
            (
                "date",
                &[
                    "2000-01-01",
                    "2024-02-29",
                    "1999-12-31",
                    "infinity",
                    "-infinity",
                    "0001-01-01",
                    "4713-01-01 BC",
                    "5874897-12-31",
                ][..],
            ),
            (
                "timestamp",
                &["2024-02-29 23:59:59.999999", "1969-12-31 00:00:00.000001", "infinity", "0044-03-15 12:00:00.000000 BC"],
            ),
            ("bool", &["true", "false"]),
            ("int8", &["-9223372036854775808"]),
            ("name", &["", "a name"]),
            ("text", &["", "it's"]),
            ("numeric", &["-0.10", "NaN"]),
            ("inet", &["10.0.0.0/8"]),
            ("jsonb", &[r#"{"a": [1, null]}"#]),
            ("int2[]", &["{}", "{1,NULL,-3}"]),
            ("int4[]", &["{7}"]),
            ("int8[]", &["{9223372036854775807,0}"]),
            ("bool[]", &["{true,false}"]),
            ("numeric[]", &["{1.50,NaN}"]),
            ("varchar[]", &[r#"{a,"b c","",NULL,"null","x\"y","back\\slash","{","a,b"}"#]),
            ("text[]", &["{\"tab\there\",ä\u{a0}}"]),
        ] {
            for value in values {
                let literal = format!("$v${value}$v$::{kind}");
                let text = printed(&literal);
                assert_eq!(text.as_deref(), Some(*value), "{kind}");
            }
        }
        for value in [
            "'{{1,2}}'::int4[]",
            "'[0:1]={1,2}'::int4[]",
            "repeat('x', 257)",
            "array_fill('x'::text, ARRAY[100])",
            "'1 day'::interval",
        ] {
            assert_eq!(printed(value), None, "{value}");
        }
    }
}
