//! genome_catalog and expression_profile: the fields of the schema, and which tenants use them.

use crate::pg::error::Result;
use crate::pg::spi;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// A field of the genome.
#[derive(Clone, Debug, Deserialize)]
pub struct Field {
    pub id: i64,
    pub table_schema: String,
    pub table_name: String,
    pub field_name: String,
    /// Whether the tenant in question expresses it; `None` where no tenant was asked for.
    pub enabled: Option<bool>,
}

/// Reads the live schema into the genome: new fields are added, types are brought up to date, fields that are gone are removed.
/// A column named `tenant_id` is marked as the tenant's key. Returns the number of fields added.
pub fn bootstrap() -> Result<u64> {
    spi::execute(
        "DELETE FROM indexpilot.genome_catalog g WHERE NOT EXISTS (
             SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
              WHERE n.nspname = g.table_schema AND c.relname = g.table_name AND a.attname = g.field_name)",
        json!({}),
    )?;
    let added: Vec<i64> = spi::rows::<serde_json::Map<String, serde_json::Value>>(
        "INSERT INTO indexpilot.genome_catalog AS g (table_schema, table_name, field_name, field_type, required, indexable, tenant_key)
         SELECT n.nspname, c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
                EXISTS (SELECT FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod
                         WHERE m.amname IN ('btree', 'gin', 'gist', 'spgist') AND o.opcdefault
                           AND (o.opcintype = t.oid OR o.opcintype = t.typbasetype
                                OR (t.typtype = 'e' AND o.opcintype = 'pg_catalog.anyenum'::pg_catalog.regtype)
                                OR (t.typtype = 'r' AND o.opcintype = 'pg_catalog.anyrange'::pg_catalog.regtype)
                                OR (t.typcategory = 'A' AND o.opcintype = 'pg_catalog.anyarray'::pg_catalog.regtype)
                                OR (t.oid IN ('varchar'::pg_catalog.regtype, 'bpchar'::pg_catalog.regtype)))),
                a.attname IN ('tenant_id', 'tenantid')
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
          WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
            AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'indexpilot') AND n.nspname NOT LIKE 'pg\\_%'
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                             AND d.objid = c.oid AND d.deptype = 'e')
          ORDER BY n.nspname, c.relname, a.attnum
         ON CONFLICT (table_schema, table_name, field_name) DO UPDATE
            SET field_type = excluded.field_type, required = excluded.required, updated_at = pg_catalog.now()
          WHERE (g.field_type, g.required) IS DISTINCT FROM (excluded.field_type, excluded.required)
         RETURNING id, (xmax = 0) AS added",
        json!({}),
    )?
    .into_iter()
    .filter(|row| row.get("added").and_then(serde_json::Value::as_bool) == Some(true))
    .filter_map(|row| row.get("id").and_then(serde_json::Value::as_i64))
    .collect();
    Ok(added.len() as u64)
}

/// The field of a table's column, with the state that the tenant has of it.
pub fn field(table: u32, field_name: &str, tenant_id: &str) -> Result<Option<Field>> {
    spi::row(
        "SELECT g.id, g.table_schema, g.table_name, g.field_name, COALESCE(p.enabled, g.default_expression) AS enabled
           FROM indexpilot.genome_catalog g
                JOIN pg_catalog.pg_class c ON c.relname = g.table_name
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = g.table_schema
                LEFT JOIN indexpilot.expression_profile p ON p.field_id = g.id AND p.tenant_id = $1->>'tenant'
          WHERE c.oid = ($1->>'table')::oid AND g.field_name = $1->>'field'",
        json!({ "table": table, "field": field_name, "tenant": tenant_id }),
    )
}

/// Switches a field for a tenant.
pub fn set_expression(tenant_id: &str, field_id: i64, enabled: bool, reason: Option<&str>) -> Result<()> {
    spi::execute(
        "INSERT INTO indexpilot.expression_profile (tenant_id, field_id, enabled, reason)
         VALUES ($1->>'tenant', ($1->>'field')::bigint, ($1->>'enabled')::boolean, $1->>'reason')
         ON CONFLICT (tenant_id, field_id) DO UPDATE SET enabled = excluded.enabled, reason = excluded.reason,
             changed_by = session_user, changed_at = pg_catalog.now()",
        json!({ "tenant": tenant_id, "field": field_id, "enabled": enabled, "reason": reason }),
    )?;
    Ok(())
}

/// Gives a tenant a row for every field, with the genome's default, where it has none. Returns the number of rows added.
pub fn initialise_tenant(tenant_id: &str) -> Result<u64> {
    let added: Vec<serde_json::Value> = spi::rows(
        "INSERT INTO indexpilot.expression_profile (tenant_id, field_id, enabled, reason)
         SELECT $1->>'tenant', g.id, g.default_expression, 'default' FROM indexpilot.genome_catalog g
         ON CONFLICT DO NOTHING RETURNING field_id",
        json!({ "tenant": tenant_id }),
    )?;
    Ok(added.len() as u64)
}

#[derive(Deserialize)]
struct Expressed {
    table_id: u32,
    attnum: i16,
    expressed: f64,
}

/// Share of the known tenants that express each field, by table OID and attribute number; fields that the genome may not index count
/// as expressed by nobody. Fields about which no tenant has said anything are left out, unless their default is off.
pub fn expressed() -> Result<BTreeMap<(u32, i16), f64>> {
    let rows: Vec<Expressed> = spi::rows(
        "WITH tenants AS (SELECT pg_catalog.count(DISTINCT tenant_id) AS n FROM indexpilot.expression_profile)
         SELECT c.oid::bigint AS table_id, a.attnum,
                CASE WHEN NOT g.indexable THEN 0.0
                     WHEN tenants.n = 0 THEN CASE WHEN g.default_expression THEN 1.0 ELSE 0.0 END
                     ELSE (pg_catalog.count(*) FILTER (WHERE p.enabled)
                           + CASE WHEN g.default_expression THEN tenants.n - pg_catalog.count(p.tenant_id) ELSE 0 END)::float8 / tenants.n
                END AS expressed
           FROM indexpilot.genome_catalog g
                JOIN pg_catalog.pg_class c ON c.relname = g.table_name
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = g.table_schema
                JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = g.field_name
                LEFT JOIN indexpilot.expression_profile p ON p.field_id = g.id
                CROSS JOIN tenants
          GROUP BY c.oid, a.attnum, g.id, tenants.n",
        json!({}),
    )?;
    Ok(rows.into_iter().map(|r| ((r.table_id, r.attnum), r.expressed)).collect())
}
