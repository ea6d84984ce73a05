//! Single values of a query.

use crate::Result;
use postgres::Client;

/// The text in the first column of the only row; empty for NULL.
pub fn text(db: &mut Client, sql: &str) -> Result<String> {
    Ok(db.query_one(sql, &[])?.get::<_, Option<String>>(0).unwrap_or_default())
}

/// The bigint in the first column of the only row.
pub fn number(db: &mut Client, sql: &str) -> Result<i64> {
    Ok(db.query_one(sql, &[])?.get(0))
}

/// Queues an action on `table`, a schema and a name with a dot between, as the worker does; returns its number.
pub fn enqueue(db: &mut Client, kind: &str, table: &str, index: &str, statement: &str) -> Result<i64> {
    let (schema, name) = table.split_once('.').ok_or("the table's name has no schema")?;
    let row = db.query_one(
        "INSERT INTO indexpilot.actions (kind, table_id, table_schema, table_name, index_schema, index_name, definition, statement, cause) \
         VALUES ($1, format('%I.%I', $2::text, $3::text)::regclass, $2::text::name, $3::text::name, $2::text::name, $4::text::name, $5, $5, \
           'test') RETURNING id",
        &[&kind, &schema, &name, &index, &statement],
    )?;
    Ok(row.get(0))
}
