//! What foreign keys without an index cost: the query that the server runs on the referencing table for each row that goes from the
//! referenced one, as a part of the workload.

use crate::pg::error::Result;
use crate::pg::references::{self, Reference};
use crate::pg::{catalog, planner};
use crate::store;
use crate::whatif::{Parameter, Sample};
use indexpilot_core::ddl;
use indexpilot_core::model::{AttNum, Bytes, Catalog, ForeignKey, RelId, TableInfo};
use pgrx::pg_sys;
use pgrx::spi::quote_identifier;
use std::collections::BTreeMap;

/// Rarer checks make no index pay.
const MIN_CHECKS_PER_HOUR: f64 = 0.01;

/// Checks that one analysis weighs at most: those that read most.
const MAX_CHECKS: usize = 100;

/// The check of a foreign key without an index.
pub struct Check {
    /// Name of the foreign key, of the first one where several are on the same columns.
    pub name: String,
    pub checks_per_hour: f64,
    /// Size of the table, all of which a check reads.
    bytes: Bytes,
    pub sample: Sample,
}

/// The foreign keys of the database, each with the work that it makes.
pub fn keys() -> Result<Vec<(Reference, ForeignKey)>> {
    let updates: BTreeMap<(RelId, AttNum), f64> = store::profile::updates_per_hour()?.into_iter().collect();
    let rate = |table, column| updates.get(&(table, column)).copied().unwrap_or(0.0);
    Ok(references::all()?.into_iter().map(|r| (r.key(rate), r)).map(|(key, r)| (r, key)).collect())
}

/// Writes them into the snapshot.
pub fn note(catalog: &mut Catalog, keys: &[(Reference, ForeignKey)]) {
    for (reference, key) in keys {
        if let Some(table) = catalog.tables.get_mut(&RelId(reference.table))
            && !table.foreign_keys.contains(key)
        {
            table.foreign_keys.push(key.clone());
        }
    }
}

/// Checks on tables without a fitting index, but for those that `captured`, the texts of the workload, have already: with nested
/// statements captured, the server's own queries are among them. At most the [`MAX_CHECKS`] heaviest. `tables` are the only ones that matter, unless it is empty.
///
/// # Errors
/// Of the queries on catalogs.
pub fn checks(keys: &[(Reference, ForeignKey)], captured: &[&str], tables: &[u32]) -> Result<Vec<Check>> {
    let wanted = |r: &Reference, key: &ForeignKey| {
        !r.indexed && key.checks >= MIN_CHECKS_PER_HOUR && (tables.is_empty() || tables.contains(&r.table))
    };
    let mut found: Vec<Check> = Vec::new();
    for (reference, key) in keys.iter().filter(|(r, key)| wanted(r, key)) {
        let Some(table) = catalog::snapshot(&[RelId(reference.table)])?.tables.remove(&RelId(reference.table)) else { continue };
        if captured.iter().any(|text| is_check(text, &table, &key.columns)) {
            continue;
        }
        let parameter = Parameter { type_oid: pg_sys::InvalidOid, value: None, known: false };
        let text = ddl::foreign_key_check(&table, &key.columns, &|name| quote_identifier(name));
        match found.iter_mut().find(|c| c.sample.text == text) {
            Some(same) => same.checks_per_hour += key.checks,
            None => found.push(Check {
                name: reference.name.clone(),
                bytes: table.bytes,
                checks_per_hour: key.checks,
                sample: Sample {
                    text,
                    search_path: planner::search_path(),
                    role: pg_sys::Oid::from(reference.owner),
                    parameters: vec![parameter; key.columns.len()],
                },
            }),
        }
    }
    Ok(heaviest(found, MAX_CHECKS))
}

/// Those that read most, heaviest first; equals stay as they are.
fn heaviest(mut checks: Vec<Check>, most: usize) -> Vec<Check> {
    let read = |c: &Check| c.checks_per_hour * c.bytes as f64;
    checks.sort_by(|a, b| read(b).total_cmp(&read(a)));
    checks.truncate(most);
    checks
}

/// The text is a query by which the server enforces a foreign key of the table (ri_triggers.c), which quotes all names.
fn is_check(text: &str, table: &TableInfo, columns: &[AttNum]) -> bool {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let target = format!("ONLY {}.{} ", quoted(&table.schema), quoted(&table.name));
    let column = |c: &AttNum| text.contains(&format!("OPERATOR(pg_catalog.=) {}", quoted(&table.column_name(*c))));
    text.contains(&target) && columns.iter().all(column)
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use super::*;
    use crate::pg::role;
    use pgrx::prelude::*;

    fn set_up() {
        Spi::run(
            "CREATE SCHEMA r; SET search_path = r;
             CREATE TABLE parent (id int PRIMARY KEY, a int, b int, UNIQUE (a, b));
             CREATE TABLE child (i int REFERENCES parent, a int, \"B x\" int, j int REFERENCES parent (id),
                                 FOREIGN KEY (a, \"B x\") REFERENCES parent (a, b));
             CREATE INDEX ON child (\"B x\", a, i);
             CREATE INDEX ON child (j) WHERE i > 5;
             CREATE INDEX ON child USING brin (i);
             CREATE INDEX ON child (a, i, \"B x\");
             CREATE TABLE hashed (i int REFERENCES parent, j int REFERENCES parent (id), k int REFERENCES parent (id));
             CREATE INDEX ON hashed USING hash (i);
             CREATE INDEX ON hashed USING brin (j);
             CREATE INDEX ON hashed (abs(k), k);",
        )
        .unwrap();
    }

    fn references() -> Vec<Reference> {
        references_of("child")
    }

    fn references_of(table: &str) -> Vec<Reference> {
        let table = catalog::relation(Some("r"), table).unwrap().unwrap();
        references::all().unwrap().into_iter().filter(|r| r.table == table.0).collect()
    }

    #[pg_test]
    fn only_an_index_that_finds_equal_values_serves_a_foreign_key() {
        set_up();
        let found: Vec<_> = references_of("hashed").into_iter().map(|r| r.indexed).collect();
        assert_eq!(found, [true, false, false]);
    }

    #[pg_test]
    fn foreign_keys_know_whether_an_index_serves_them() {
        set_up();
        let found = references();
        let indexed: Vec<_> = found.iter().map(|r| (r.columns.clone(), r.keys.clone(), r.indexed)).collect();
        assert_eq!(indexed, [(vec![1], vec![1], false), (vec![2, 3], vec![2, 3], true), (vec![4], vec![1], false)]);
        let key = found[1].key(|_, column| f64::from(column));
        assert_eq!((key.columns.as_slice(), key.checks), (&[2, 3][..], 3.0 + found[1].deletes));
    }

    #[pg_test]
    fn a_check_is_planned_unless_it_was_captured() {
        set_up();
        let keys: Vec<_> = references().into_iter().map(|r| (r.key(|_, _| 7.0), r)).map(|(k, r)| (r, k)).collect();
        let texts = |captured: &[&str], tables: &[u32]| {
            let found = checks(&keys, captured, tables).unwrap();
            found.into_iter().map(|c| c.sample.text).collect::<Vec<_>>()
        };
        let all = texts(&[], &[]);
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[0].contains("ONLY r.child") && all[0].contains("i OPERATOR(pg_catalog.=) $1"), "{all:?}");
        let captured = "DELETE FROM ONLY \"r\".\"child\" WHERE $1 OPERATOR(pg_catalog.=) \"i\"";
        assert_eq!(texts(&[captured], &[]), all[1..]);
        assert!(texts(&[], &[1]).is_empty());
        let found = checks(&keys, &[], &[]).unwrap();
        assert_eq!(found.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["child_i_fkey", "child_j_fkey"]);
        let mut weighted = found;
        for (check, (rate, bytes)) in weighted.iter_mut().zip([(5.0, 8192), (1.0, 81920)]) {
            (check.checks_per_hour, check.bytes) = (rate, bytes);
        }
        assert_eq!(heaviest(weighted, 1).iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["child_j_fkey"]);
        let shape = crate::whatif::shape(&checks(&keys, &[], &[]).unwrap()[0].sample).unwrap();
        assert_eq!(shape.relations[0].predicates[0].column, 1);
        let child = RelId(keys[0].0.table);
        let mut snapshot = catalog::snapshot(&[child]).unwrap();
        note(&mut snapshot, &keys);
        assert_eq!(snapshot.table(child).unwrap().foreign_keys.len(), 3);
        assert_eq!(role::current(), pg_sys::Oid::from(keys[0].0.owner));
    }
}
