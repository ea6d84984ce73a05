//! How tables and fields are used, and how large tables are.

use crate::pg::catalog;
use crate::pg::error::{Error, Kind, Result, or_raise};
use crate::pg::tablesize::{TableSize, table_sizes};
use indexpilot_core::model::RelId;
use pgrx::datum::datetime_support::to_timestamp;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn check_field(table_name: pg_sys::Oid, field_name: &std::ffi::CStr) -> bool {
    let run = || -> Result<bool> {
        let table = RelId(table_name.to_u32());
        let Some(relation) = catalog::relation_name(table) else { return Err(no_table(table_name)) };
        let field = field_name.to_string_lossy();
        match catalog::attribute(table, &field)? {
            Some(_) => Ok(true),
            None => Err(Error::new(Kind::UndefinedColumn, format!("column \"{field}\" of relation \"{relation}\" does not exist"))),
        }
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the row type from the signature")]
fn get_table_size_info(
    table_name: Option<pg_sys::Oid>,
) -> TableIterator<
    'static,
    (
        name!(table_schema, String),
        name!(table_name, String),
        name!(kind, String),
        name!(row_estimate, Option<i64>),
        name!(live_rows, i64),
        name!(dead_rows, i64),
        name!(heap_bytes, i64),
        name!(toast_bytes, i64),
        name!(index_bytes, i64),
        name!(total_bytes, i64),
        name!(index_count, i32),
        name!(last_vacuum, Option<TimestampWithTimeZone>),
        name!(last_analyze, Option<TimestampWithTimeZone>),
    ),
> {
    TableIterator::new(or_raise(sizes(table_name)).into_iter().map(|t| {
        (
            t.table_schema,
            t.table_name,
            t.kind,
            t.row_estimate,
            t.live_rows,
            t.dead_rows,
            t.heap_bytes,
            t.toast_bytes,
            t.index_bytes,
            t.heap_bytes + t.toast_bytes + t.index_bytes,
            t.index_count,
            t.last_vacuum.map(to_timestamp),
            t.last_analyze.map(to_timestamp),
        )
    }))
}

fn sizes(table: Option<pg_sys::Oid>) -> Result<Vec<TableSize>> {
    let sizes = table_sizes(table.map(pg_sys::Oid::to_u32))?;
    let Some(table) = table.filter(|_| sizes.is_empty()) else { return Ok(sizes) };
    Err(match catalog::relation_name(RelId(table.to_u32())) {
        None => no_table(table),
        Some(name) => Error::new(Kind::WrongObject, format!("\"{name}\" is not a table or materialized view")),
    })
}

fn no_table(oid: pg_sys::Oid) -> Error {
    Error::new(Kind::UndefinedTable, format!("relation with OID {} does not exist", oid.to_u32()))
}
