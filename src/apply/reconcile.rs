//! Looking indexes up in the catalog: by tag, by OID, by name; and finding what interrupted commands left.

use crate::pg::error::{Error, Kind, Result};
use crate::pg::spi;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// An index as it stands in the catalog.
#[derive(Clone, Debug, Deserialize)]
pub struct Index {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub table_id: u32,
    pub table_schema: String,
    pub table_name: String,
    owner: u32,
    /// Valid, ready and live: queries use it and writes maintain it.
    pub valid: bool,
    /// Tag in its comment.
    pub tag: Option<String>,
    pub bytes: u64,
    pub unique: bool,
    pub constraint: bool,
    pub replica_identity: bool,
    pub clustered: bool,
    pub partitioned: bool,
    pub attached: bool,
    /// Some other object depends on it.
    pub needed: bool,
    /// Rebuilding a unique index beside INSERT ... ON CONFLICT is not safe in this version.
    pub on_conflict_defect: bool,
    /// A key of it is an expression.
    pub expressions: bool,
    /// CREATE INDEX statement.
    pub definition: String,
}

impl Index {
    /// Owner of the table, and so of the index.
    pub fn owner(&self) -> Oid {
        Oid::from(self.owner)
    }

    /// It is like this, on whatever table: the form as in [`indexpilot_core::ddl::Partitioned::form`].
    pub fn has_form(&self, form: &str) -> bool {
        form_of(&self.definition).as_deref() == Some(form)
    }

    /// The statement, concurrent or not, makes an index just like it.
    pub fn is_made_by(&self, statement: &str) -> bool {
        self.definition == statement.replacen("CREATE INDEX CONCURRENTLY ", "CREATE INDEX ", 1)
    }
}

fn select(condition: &str, args: Value) -> Result<Vec<Index>> {
    let sql = format!(
        "SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, t.oid::bigint AS table_id, \
           tn.nspname AS table_schema, t.relname AS table_name, t.relowner::bigint AS owner, \
           i.indisvalid AND i.indisready AND i.indislive AS valid, \
           substring(d.description FROM '^indexpilot:([0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})$') AS tag, \
           coalesce(pg_relation_size(c.oid), 0) AS bytes, i.indisunique OR i.indisprimary OR i.indisexclusion AS unique, \
           EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid) AS constraint, \
           i.indisreplident AS replica_identity, i.indisclustered AS clustered, c.relkind = 'I' AS partitioned, \
           c.relispartition AS attached, \
           EXISTS (SELECT 1 FROM pg_depend x WHERE x.refclassid = 'pg_class'::regclass AND x.refobjid = c.oid \
             AND x.deptype IN ('n', 'a')) AS needed, \
           current_setting('server_version_num')::integer < 190000 AS on_conflict_defect, \
           i.indexprs IS NOT NULL AS expressions, pg_get_indexdef(c.oid) AS definition \
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
           JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace \
           LEFT JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid AND d.objsubid = 0 \
         WHERE {condition} ORDER BY c.oid"
    );
    spi::rows(&sql, args)
}

/// Indexes that carry the tag: one, unless somebody copied the comment.
pub fn tagged(tag: &str) -> Result<Vec<Index>> {
    select("d.description = 'indexpilot:' || ($1->>'tag')", json!({ "tag": tag }))
}

/// The index with that OID.
pub fn by_oid(oid: u32) -> Result<Option<Index>> {
    Ok(select("c.oid = ($1->>'oid')::oid", json!({ "oid": oid }))?.into_iter().next())
}

/// The index of that name.
pub fn by_name(schema: &str, name: &str) -> Result<Option<Index>> {
    let condition = "n.nspname = ($1->>'schema')::name AND c.relname = ($1->>'name')::name";
    Ok(select(condition, json!({ "schema": schema, "name": name }))?.into_iter().next())
}

/// The index as it is now, if it is still the same one and called the same.
///
/// # Errors
/// `UndefinedObject` when it is gone, `InUse` when somebody has changed it.
pub fn unchanged(index: &Index) -> Result<Index> {
    let now = by_oid(index.oid)?.ok_or_else(|| Error::new(Kind::UndefinedObject, "the index does not exist any more"))?;
    if (&now.schema, &now.name, now.table_id, &now.tag) != (&index.schema, &index.name, index.table_id, &index.tag) {
        return Err(Error::new(
            Kind::InUse,
            format!("the index was changed by somebody else, and is {}.{} now", now.schema, now.name),
        ));
    }
    Ok(now)
}

/// Some relation, of whatever kind, has that name.
pub fn name_taken(schema: &str, name: &str) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = ($1->>'schema')::name AND c.relname = ($1->>'name')::name) AS taken";
    Ok(spi::value(sql, json!({ "schema": schema, "name": name }))?.unwrap_or(false))
}

/// What interrupted rebuilds of the index left: unusable copies of it on its table. The server calls them `<index>_ccnew` and
/// `<index>_ccold`, where a long name is cut and a number may follow.
pub fn copies(table_id: u32, schema: &str, index_name: &str) -> Result<Vec<Index>> {
    let condition = "i.indrelid = ($1->>'table')::oid AND n.nspname = ($1->>'schema')::name AND NOT i.indisvalid \
                     AND c.relname ~ '_cc(new|old)[0-9]*$' \
                     AND starts_with(($1->>'name'), regexp_replace(c.relname, '_cc(new|old)[0-9]*$', '')) \
                     AND length(regexp_replace(c.relname, '_cc(new|old)[0-9]*$', '')) >= least(length($1->>'name'), 40)";
    select(condition, json!({ "table": table_id, "schema": schema, "name": index_name }))
}

/// The server knows nothing of the expressions of the index, because its table was not analysed since it was built. Only superusers may
/// ask.
pub fn lacks_statistics(oid: u32) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = ($1->>'oid')::oid AND i.indexprs IS NOT NULL) \
               AND NOT EXISTS (SELECT FROM pg_statistic s WHERE s.starelid = ($1->>'oid')::oid) AS lacks";
    Ok(spi::value(sql, json!({ "oid": oid }))?.unwrap_or(false))
}

/// What the usable indexes of the tables are like, by table: the form as in [`indexpilot_core::ddl::Partitioned::form`].
pub fn forms(tables: &[u32]) -> Result<BTreeSet<(u32, String)>> {
    #[derive(Deserialize)]
    struct Row {
        table: u32,
        definition: String,
    }
    let sql = "SELECT i.indrelid::bigint AS table, pg_get_indexdef(i.indexrelid) AS definition FROM pg_index i \
               WHERE i.indrelid IN (SELECT t::oid FROM jsonb_array_elements_text($1) t) AND i.indisvalid AND NOT i.indisunique";
    let rows: Vec<Row> = spi::rows(sql, json!(tables))?;
    Ok(rows.into_iter().filter_map(|r| Some((r.table, form_of(&r.definition)?))).collect())
}

fn form_of(definition: &str) -> Option<String> {
    Some(format!("USING {}", definition.split_once(" USING ")?.1))
}

/// The table has an index of that form that is a part of one of its partitioned table.
pub fn has_attached(table: u32, form: &str) -> Result<bool> {
    let found = select("i.indrelid = ($1->>'table')::oid AND c.relispartition AND i.indisvalid", json!({ "table": table }))?;
    Ok(found.iter().any(|i| i.has_form(form)))
}

/// Unusable indexes that carry a tag of ours although no action works on them: what a crash, a restore or an interrupted drop left.
pub fn orphans(live_tags: &[String]) -> Result<Vec<Index>> {
    let condition = "d.description ~ '^indexpilot:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' AND NOT i.indisvalid \
                     AND c.relkind = 'i' AND NOT c.relispartition \
                     AND substring(d.description FROM 12) NOT IN (SELECT jsonb_array_elements_text($1->'tags'))";
    select(condition, json!({ "tags": live_tags }))
}
