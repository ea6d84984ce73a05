//! What the functions on the use of tables and fields are given must exist.

use crate::pg::catalog;
use crate::pg::error::{Error, Kind, Result, or_raise};
use indexpilot_core::model::RelId;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn check_field(table_name: pg_sys::Oid, field_name: &std::ffi::CStr) -> bool {
    let run = || -> Result<bool> {
        let table = RelId(table_name.to_u32());
        let Some(relation) = catalog::relation_name(table) else { return Err(no_table(table_name)) };
        if catalog::has_attribute(table, field_name) {
            return Ok(true);
        }
        let field = crate::pg::encoding::to_utf8(field_name.to_bytes());
        Err(Error::new(Kind::UndefinedColumn, format!("column \"{field}\" of relation \"{relation}\" does not exist")))
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
fn check_table(table_name: pg_sys::Oid) -> bool {
    let run = || -> Result<bool> {
        let table = RelId(table_name.to_u32());
        match catalog::relation_name(table) {
            Some(_) if catalog::is_table_or_partitioned(table) => Ok(true),
            Some(name) => Err(Error::new(Kind::WrongObject, format!("\"{name}\" is not a table or materialized view"))),
            None => Err(no_table(table_name)),
        }
    };
    or_raise(run())
}

fn no_table(oid: pg_sys::Oid) -> Error {
    Error::new(Kind::UndefinedTable, format!("relation with OID {} does not exist", oid.to_u32()))
}
