//! workload_profile, workload_table and workload_field: what each template does to tables and fields.

use super::workload::StoredSample;
use crate::pg::error::Result;
use crate::pg::spi;
use indexpilot_core::model::{AttNum, RelId};
use indexpilot_core::profile::FieldSummary;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// A template that is to be profiled.
#[derive(Clone, Debug, Deserialize)]
pub struct Pending {
    pub id: i64,
    pub queryid: i64,
    pub relations_hash: i64,
    pub nested: bool,
    pub role_id: u32,
    /// Number of its newest sample.
    pub last_sample: i64,
    pub samples: Vec<StoredSample>,
}

/// What profiling a template gave.
#[derive(Clone, Debug, Serialize)]
pub struct Profiled {
    pub id: i64,
    pub last_sample: i64,
    /// Samples, and how many of them could be planned.
    pub samples: usize,
    pub planned: usize,
    pub cost: Option<f64>,
    /// What may be kept of the last failure (see [`indexpilot_core::profile::failure_text`]), when none could be planned; and its class.
    pub error: Option<String>,
    pub failure: Option<&'static str>,
    pub tenant_source: Option<String>,
    pub tables: Vec<(RelId, bool)>,
    pub fields: Vec<FieldSummary>,
}

/// Where the statements of a template name their tenant.
#[derive(Clone, Debug, Deserialize)]
pub struct Taught {
    pub queryid: i64,
    pub relations_hash: i64,
    pub tenant_source: String,
}

/// The tenant columns of the genome as one text: profiles made under others are out of date.
const KEYS: &str = "(SELECT pg_catalog.md5(pg_catalog.string_agg(pg_catalog.quote_ident(g.table_schema) || '.' || pg_catalog.quote_ident(g.table_name)
        || '.' || pg_catalog.quote_ident(g.field_name), ',' ORDER BY g.table_schema, g.table_name, g.field_name))
   FROM indexpilot.genome_catalog g WHERE g.tenant_key)";

/// Templates that were never profiled, whose samples are newer than their profile, or whose tenant columns have changed; unknown ones
/// first. A profile that worked is left alone for `min_age_s` seconds. `skip`: those that the caller has seen already.
pub fn pending(limit: usize, min_age_s: f64, skip: &BTreeSet<i64>) -> Result<Vec<Pending>> {
    spi::rows(
        &format!(
            "SELECT w.id, w.queryid, w.relations_hash, w.nested, w.role_id::bigint AS role_id,
                    (SELECT pg_catalog.max(s.id) FROM indexpilot.workload_sample s WHERE s.workload_id = w.id) AS last_sample,
                    (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('query', s.query, 'search_path', s.search_path,
                             'parameter_types', s.parameter_types::bigint[], 'parameter_values', s.parameter_values) ORDER BY s.id DESC)
                       FROM indexpilot.workload_sample s WHERE s.workload_id = w.id) AS samples
               FROM indexpilot.workload w LEFT JOIN indexpilot.workload_profile p ON p.workload_id = w.id
              WHERE w.command IN ('select', 'insert', 'update', 'delete', 'merge')
                AND w.id <> ALL (ARRAY(SELECT e::bigint FROM pg_catalog.jsonb_array_elements_text($1->'skip') e))
                AND EXISTS (SELECT FROM indexpilot.workload_sample s WHERE s.workload_id = w.id
                               AND (s.id > COALESCE(p.last_sample_id, 0) OR p.tenant_keys IS DISTINCT FROM {KEYS}))
                AND (p.workload_id IS NULL OR p.planned = 0 OR p.tenant_keys IS DISTINCT FROM {KEYS}
                     OR p.profiled_at < pg_catalog.now() - pg_catalog.make_interval(secs => ($1->>'min_age_s')::float8))
              ORDER BY p.profiled_at NULLS FIRST, w.last_seen_at DESC, w.id
              LIMIT ($1->>'limit')::bigint"
        ),
        json!({ "limit": limit, "min_age_s": min_age_s, "skip": skip }),
    )
}

/// Columns that say which tenant a row belongs to.
pub fn tenant_keys() -> Result<BTreeMap<RelId, BTreeSet<AttNum>>> {
    let rows: Vec<(u32, AttNum)> = spi::rows::<Key>(
        "SELECT a.attrelid::bigint AS table_id, a.attnum
           FROM indexpilot.genome_catalog g
                JOIN pg_catalog.pg_namespace n ON n.nspname = g.table_schema
                JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = g.table_name
                JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = g.field_name
          WHERE g.tenant_key",
        json!({}),
    )?
    .into_iter()
    .map(|k| (k.table_id, k.attnum))
    .collect();
    let mut keys: BTreeMap<RelId, BTreeSet<AttNum>> = BTreeMap::new();
    for (table, column) in rows {
        keys.entry(RelId(table)).or_default().insert(column);
    }
    Ok(keys)
}

#[derive(Deserialize)]
struct Key {
    table_id: u32,
    attnum: AttNum,
}

/// Replaces the profiles of templates. One that another session has locked is left for the next time: its transaction may take hours.
pub fn save(profiles: &[Profiled]) -> Result<()> {
    #[derive(Deserialize)]
    struct Locked {
        id: i64,
    }
    let locked: BTreeSet<i64> = spi::rows::<Locked>(
        "SELECT w.id FROM indexpilot.workload w
          WHERE w.id = ANY (ARRAY(SELECT (e->>'id')::bigint FROM pg_catalog.jsonb_array_elements($1->'rows') e))
          ORDER BY w.id FOR NO KEY UPDATE SKIP LOCKED",
        json!({ "rows": profiles }),
    )?
    .into_iter()
    .map(|row| row.id)
    .collect();
    let rows: Vec<&Profiled> = profiles.iter().filter(|p| locked.contains(&p.id)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let args = json!({ "rows": rows });
    spi::execute(
        "UPDATE indexpilot.workload w SET plan_state = CASE WHEN p.planned > 0 THEN 'plannable' ELSE 'unplannable' END,
                plan_error = p.error, base_cost = COALESCE(p.cost, w.base_cost)
           FROM pg_catalog.jsonb_to_recordset($1->'rows') AS p(id bigint, planned integer, error text, cost float8) WHERE w.id = p.id",
        args.clone(),
    )?;
    spi::execute(
        &format!(
            "INSERT INTO indexpilot.workload_profile AS o
                    (workload_id, profiled_at, last_sample_id, samples, planned, failure, tenant_source, tenant_keys)
             SELECT p.id, pg_catalog.clock_timestamp(), p.last_sample, p.samples, p.planned, p.failure, p.tenant_source, {KEYS}
               FROM pg_catalog.jsonb_to_recordset($1->'rows') AS p(id bigint, last_sample bigint, samples integer, planned integer,
                    failure text, tenant_source text)
             ON CONFLICT (workload_id) DO UPDATE SET profiled_at = excluded.profiled_at, last_sample_id = excluded.last_sample_id,
                 samples = excluded.samples, planned = excluded.planned, failure = excluded.failure,
                 tenant_source = excluded.tenant_source, tenant_keys = excluded.tenant_keys"
        ),
        args.clone(),
    )?;
    // What could no longer be planned keeps what was known of it.
    for table in ["workload_table", "workload_field"] {
        spi::execute(
            &format!(
                "DELETE FROM indexpilot.{table} d USING pg_catalog.jsonb_to_recordset($1->'rows') AS p(id bigint, planned integer)
                  WHERE d.workload_id = p.id AND p.planned > 0"
            ),
            args.clone(),
        )?;
    }
    spi::execute(
        "INSERT INTO indexpilot.workload_table (workload_id, table_id, written)
         SELECT p.id, (t->>0)::oid, (t->>1)::boolean
           FROM pg_catalog.jsonb_to_recordset($1->'rows') AS p(id bigint, tables jsonb), pg_catalog.jsonb_array_elements(p.tables) t",
        args.clone(),
    )?;
    spi::execute(
        "INSERT INTO indexpilot.workload_field (workload_id, table_id, attnum, usage, comparison, operator_id, selectivity,
                selectivity_min, selectivity_max)
         SELECT p.id, f.table_id, f.attnum, f.usage, COALESCE(f.comparison, 'none'), f.operator, f.selectivity, f.selectivity_min,
                f.selectivity_max
           FROM pg_catalog.jsonb_to_recordset($1->'rows') AS p(id bigint, fields jsonb),
                pg_catalog.jsonb_to_recordset(p.fields) AS f(table_id oid, attnum smallint, usage text, comparison text, operator oid,
                    selectivity float8, selectivity_min float8, selectivity_max float8)",
        args,
    )?;
    Ok(())
}

/// Where statements that clients send name their tenant, of the `limit` templates that were seen last; the newest last.
pub fn tenant_sources(limit: usize) -> Result<Vec<Taught>> {
    spi::rows(
        "SELECT t.queryid, t.relations_hash, t.tenant_source FROM (
             SELECT w.queryid, w.relations_hash, p.tenant_source, w.last_seen_at
               FROM indexpilot.workload_profile p JOIN indexpilot.workload w ON w.id = p.workload_id
              WHERE p.tenant_source IS NOT NULL AND NOT w.nested ORDER BY w.last_seen_at DESC LIMIT ($1->>'limit')::bigint) t
          ORDER BY t.last_seen_at",
        json!({ "limit": limit }),
    )
}

#[derive(Deserialize)]
struct Updated {
    table_id: u32,
    attnum: AttNum,
    rows: f64,
}

/// Rows in which each field was set by updates, per hour of the time that the statistics span. A rate from less than an hour would
/// be noise.
pub fn updates_per_hour() -> Result<BTreeMap<(RelId, AttNum), f64>> {
    let rows: Vec<Updated> = spi::rows(
        "SELECT f.table_id::bigint AS table_id, f.attnum, pg_catalog.sum(q.rows)::float8
                / (SELECT GREATEST(1.0, EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.min(bucket_at))::float8 / 3600)
                     FROM indexpilot.workload_stats) AS rows
           FROM indexpilot.workload_field f JOIN indexpilot.workload_stats q ON q.workload_id = f.workload_id
          WHERE f.usage = 'update' GROUP BY f.table_id, f.attnum",
        json!({}),
    )?;
    Ok(rows.into_iter().map(|r| ((RelId(r.table_id), r.attnum), r.rows)).collect())
}
