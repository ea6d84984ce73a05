//! From the text of a CREATE INDEX to the definition of an index that does not exist.

use crate::pg::catalog;
use crate::pg::error::{Error, Kind, Result};
use crate::pg::indexstmt;
use indexpilot_core::model::{AttNum, IndexDef, Key, OpClass, RelId};
use std::ffi::CString;

/// Longest identifier in bytes (`NAMEDATALEN` - 1).
const MAX_NAME: usize = 63;

/// The definition that a CREATE INDEX statement writes down, its names looked up in the caller's search path.
///
/// # Errors
/// As [`indexstmt::parse`]; `UndefinedTable` and `UndefinedColumn` for names that are not there; `WrongObject` for a relation that
/// is not a table; `NotSupported` for a column that a B-tree cannot sort.
pub fn parse(text: &str) -> Result<IndexDef> {
    let written = indexstmt::parse(text)?;
    let shown = match &written.schema {
        Some(schema) => format!("{schema}.{}", written.table),
        None => written.table.clone(),
    };
    let table = catalog::relation(written.schema.as_deref(), &written.table)?.ok_or_else(|| {
        Error::new(Kind::UndefinedTable, format!("relation \"{shown}\" does not exist"))
            .hint("Write the table's schema before its name, or add it to search_path.")
    })?;
    if !catalog::is_table(table) {
        return Err(Error::new(Kind::WrongObject, format!("\"{shown}\" is not a table"))
            .detail("Only tables and materialized views have indexes of their own."));
    }
    let column = |name: &str| {
        catalog::attribute(table, name)?.ok_or_else(|| {
            Error::new(Kind::UndefinedColumn, format!("column \"{name}\" of relation \"{shown}\" does not exist"))
                .hint(format!("Columns of the table are listed in pg_attribute: {}.", catalog::column_names(table).join(", ")))
        })
    };
    let keys = written
        .keys
        .iter()
        .map(|k| {
            let column = column(&k.column)?;
            if !catalog::is_sortable(table, column) {
                return Err(Error::new(Kind::NotSupported, format!("column \"{}\" cannot be the key of a B-tree index", k.column))
                    .detail("Its type has no default operator class for B-trees."));
            }
            Ok(Key { column, descending: k.descending, nulls_first: k.nulls_first, opclass: OpClass::Default })
        })
        .collect::<Result<Vec<Key>>>()?;
    let include = written.include.iter().map(|c| column(c)).collect::<Result<Vec<AttNum>>>()?;
    Ok(IndexDef::new(table, keys, include))
}

/// The name under which EXPLAIN shows an index that does not exist: `ip_<table>_<columns> (hypothetical)`.
pub fn hypothetical_name(def: &IndexDef) -> CString {
    const MARK: &str = " (hypothetical)";
    let RelId(oid) = def.table;
    let mut name = format!("ip_{}", catalog::relation_name(def.table).unwrap_or_else(|| oid.to_string()));
    for key in &def.keys {
        name.push('_');
        name.push_str(&catalog::attribute_name(def.table, key.column).unwrap_or_else(|| key.column.to_string()));
    }
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name.push_str(MARK);
    CString::new(name).unwrap_or_default()
}
