//! reported_stats, workload_imports and imported_statements: executions that come from elsewhere, and where they come from.

use super::workload::{Counted, SampleRow};
use crate::pg::error::{Error, Kind, Result};
use crate::pg::spi;
use indexpilot_core::exchange::{Document, Progress, Source, Template, Totals};
use pgrx::spi::quote_identifier;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

/// Reports that may wait for a flush.
const REPORTS: i64 = 1_000_000;

/// What an application said of a statement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reported {
    pub counted: Counted,
    pub sample: Option<SampleRow>,
}

/// Keeps a report until the next flush. Only this row is written, so that sessions that report never wait for one another.
pub fn report(reported: &Reported) -> Result<()> {
    let waiting: Option<i64> =
        spi::value("SELECT pg_catalog.max(id) - pg_catalog.min(id) AS n FROM indexpilot.reported_stats", json!({}))?;
    if waiting.unwrap_or(0) >= REPORTS {
        return Err(Error::new(Kind::Prerequisite, "too many reports wait to be flushed")
            .detail("The worker moves them to the workload, unless indexpilot.mode is off.")
            .hint("Call SELECT indexpilot.capture_flush()."));
    }
    spi::execute(
        "INSERT INTO indexpilot.reported_stats (counted, sample) SELECT $1->'counted', NULLIF($1->'sample', 'null')",
        json!(reported),
    )?;
    Ok(())
}

/// Takes the oldest reports of transactions that have committed. One that cannot be read is given up: it must not stop the others.
pub fn take_reported(most: usize) -> Result<Vec<Reported>> {
    let rows: Vec<serde_json::Value> = spi::rows(
        "DELETE FROM indexpilot.reported_stats d
          WHERE d.id IN (SELECT r.id FROM indexpilot.reported_stats r ORDER BY r.id LIMIT ($1->>'most')::bigint)
          RETURNING d.counted, d.sample",
        json!({ "most": most }),
    )?;
    Ok(rows.into_iter().filter_map(|row| serde_json::from_value(row).ok()).collect())
}

/// The template of a statement: of the same query identifier, or else of the same fingerprint, on the same tables.
pub fn known_template(role: u32, tables: &[u32], queryid: i64, fingerprint: Option<&str>) -> Result<Option<(i64, i64)>> {
    #[derive(Deserialize)]
    struct Key {
        queryid: i64,
        relations_hash: i64,
    }
    let key: Option<Key> = spi::row(
        "SELECT w.queryid, w.relations_hash FROM indexpilot.workload w
          WHERE w.role_id = ($1->>'role')::oid AND NOT w.nested
            AND w.relations = ARRAY(SELECT e::oid FROM pg_catalog.jsonb_array_elements_text($1->'tables') e)
            AND (w.queryid = ($1->>'queryid')::bigint OR w.fingerprint = $1->>'fingerprint')
          ORDER BY w.queryid = ($1->>'queryid')::bigint DESC, w.id LIMIT 1",
        json!({ "role": role, "tables": tables, "queryid": queryid, "fingerprint": fingerprint }),
    )?;
    Ok(key.map(|k| (k.queryid, k.relations_hash)))
}

/// What this server and database are.
pub fn source() -> Result<Source> {
    let source = spi::row(
        "SELECT (SELECT c.system_identifier::text FROM pg_catalog.pg_control_system() c) AS system_identifier,
                d.oid::bigint AS database_id, d.datname AS database, pg_catalog.pg_is_in_recovery() AS standby,
                COALESCE(NULLIF(pg_catalog.current_setting('cluster_name'), ''),
                         pg_catalog.host(pg_catalog.inet_server_addr()) || ':' || pg_catalog.inet_server_port(), 'local') AS server
           FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
        json!({}),
    )?;
    source.ok_or_else(|| Error::internal("the current database is not in pg_database"))
}

/// A number that no other document has.
pub fn new_id() -> Result<String> {
    let id = spi::value("SELECT pg_catalog.gen_random_uuid()::text AS id", json!({}))?;
    id.ok_or_else(|| Error::internal("gen_random_uuid() returned nothing"))
}

/// Names of tables, in the order of their OIDs in `tables`; what is gone is named by its OID.
pub fn table_names(tables: &[u32]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Name {
        name: String,
    }
    let names: Vec<Name> = spi::rows(
        "SELECT t.oid::oid::pg_catalog.regclass::text AS name
           FROM pg_catalog.jsonb_array_elements_text($1->'tables') WITH ORDINALITY AS t(oid, n) ORDER BY t.n",
        json!({ "tables": tables }),
    )?;
    Ok(names.into_iter().map(|n| n.name).collect())
}

/// The templates of the tables, with their statistics not older than `since`: a span counts when its end is not, and it is as long as
/// `bucket`, or an hour where `join_hours` has been.
pub fn templates(since: Option<Duration>, bucket: Duration) -> Result<Vec<Template>> {
    spi::rows(
        "SELECT w.queryid, w.role_id::bigint AS role_id, w.relations_hash, w.nested, w.relations::bigint[] AS relations,
                w.relations::pg_catalog.regclass[]::text[] AS tables, w.relations_complete, w.command, w.fingerprint, w.query,
                q.stats, COALESCE(s.samples, '[]') AS samples
           FROM indexpilot.workload w
          CROSS JOIN LATERAL (
                SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(q) - 'workload_id' - 'bucket_at'
                           || pg_catalog.jsonb_build_object('at', EXTRACT(epoch FROM q.bucket_at)) ORDER BY q.bucket_at, q.tenant_id) AS stats
                  FROM indexpilot.workload_stats q
                 WHERE q.workload_id = w.id AND ($1->>'since_s' IS NULL
                       OR q.bucket_at > pg_catalog.now() - pg_catalog.make_interval(secs => ($1->>'since_s')::float8
                          + CASE WHEN pg_catalog.now() - pg_catalog.make_interval(secs => ($1->>'since_s')::float8)
                                    < pg_catalog.date_bin('1 hour', pg_catalog.now() - interval '2 hours', '2000-01-01 00:00:00+00')
                                 THEN GREATEST(3600, ($1->>'bucket_s')::float8) ELSE ($1->>'bucket_s')::float8 END))) q
           LEFT JOIN LATERAL (
                SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('tenant_id', s.tenant_id, 'query', s.query,
                           'search_path', s.search_path, 'parameter_types', s.parameter_types::bigint[],
                           'parameter_values', s.parameter_values) ORDER BY s.id) AS samples
                  FROM indexpilot.workload_sample s WHERE s.workload_id = w.id) s ON true
          WHERE q.stats IS NOT NULL
          ORDER BY w.id",
        json!({ "since_s": since.map(|d| d.as_secs_f64()), "bucket_s": bucket.as_secs_f64() }),
    )
}

/// Notes that a document is counted; `false` when it was before.
pub fn begin_import(document: &Document) -> Result<bool> {
    let added = spi::execute(
        "INSERT INTO indexpilot.workload_imports (document_id, exported_at, source, templates, calls)
         VALUES (($1->>'id')::uuid, pg_catalog.to_timestamp(($1->>'at')::float8), $1->>'source', ($1->>'templates')::bigint,
                 ($1->>'calls')::bigint)
         ON CONFLICT (document_id) DO NOTHING",
        json!({
            "id": document.id, "at": document.exported_at, "source": document.source.server,
            "templates": document.templates.len(), "calls": document.calls(),
        }),
    )?;
    Ok(added > 0)
}

/// A row of pg_stat_statements.
#[derive(Clone, Debug, Deserialize)]
pub struct Statement {
    pub queryid: i64,
    pub role_id: u32,
    pub nested: bool,
    pub query: String,
    /// Seconds since 1970 when it began to count; `None` when it does not say.
    pub since: Option<f64>,
    pub min_ms: f64,
    pub max_ms: f64,
    #[serde(flatten)]
    pub totals: Totals,
}

/// What pg_stat_statements has of this database. Versions since 1.8 (PostgreSQL 13) name the columns alike, but for `toplevel` and
/// `stats_since`, which came later.
///
/// Its views are read as the owner of our tables, so they must be the extension's own: whoever may create something in its schema
/// could give another view the name of one that this version does not have.
///
/// # Errors
/// `UndefinedObject` when the extension is not installed, `NotSupported` when it is too old.
pub fn statements() -> Result<Vec<Statement>> {
    #[derive(Deserialize)]
    struct Found {
        schema: String,
        version: String,
        timed: bool,
        info: bool,
    }
    let found: Option<Found> = spi::row(
        "WITH own AS (
             SELECT c.oid, c.relname, c.relnamespace, e.oid AS extension
               FROM pg_catalog.pg_extension e
               JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
                AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e'
               JOIN pg_catalog.pg_class c ON c.oid = d.objid)
         SELECT n.nspname AS schema, e.extversion AS version,
                EXISTS (SELECT FROM own c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
                         WHERE c.extension = e.oid AND c.relnamespace = n.oid AND c.relname = 'pg_stat_statements'
                           AND a.attname = 'total_exec_time') AS timed,
                EXISTS (SELECT FROM own c WHERE c.extension = e.oid AND c.relnamespace = n.oid
                           AND c.relname = 'pg_stat_statements_info') AS info
           FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
          WHERE e.extname = 'pg_stat_statements'",
        json!({}),
    )?;
    let Some(found) = found else {
        return Err(Error::new(Kind::UndefinedObject, "extension \"pg_stat_statements\" is not installed in this database")
            .hint("Run CREATE EXTENSION pg_stat_statements."));
    };
    if !found.timed {
        return Err(Error::new(
            Kind::NotSupported,
            format!("version {} of extension \"pg_stat_statements\" is too old", found.version),
        )
        .hint("Run ALTER EXTENSION pg_stat_statements UPDATE."));
    }
    let schema = quote_identifier(&found.schema);
    let reset = match found.info {
        true => format!("(SELECT i.stats_reset FROM {schema}.pg_stat_statements_info i)"),
        false => "NULL::timestamptz".into(),
    };
    spi::rows(
        &format!(
            "SELECT s.queryid, s.userid::bigint AS role_id, NOT COALESCE((to_jsonb(s)->>'toplevel')::boolean, true) AS nested,
                    s.query, s.calls, s.rows, s.total_exec_time AS total_ms,
                    s.min_exec_time AS min_ms, s.max_exec_time AS max_ms,
                    s.calls * (s.stddev_exec_time ^ 2 + s.mean_exec_time ^ 2) AS sum_squares_ms,
                    s.shared_blks_hit AS shared_blocks_hit, s.shared_blks_read AS shared_blocks_read,
                    s.temp_blks_read + s.temp_blks_written AS temp_blocks, s.wal_bytes::bigint AS wal_bytes,
                    EXTRACT(epoch FROM COALESCE((to_jsonb(s)->>'stats_since')::timestamptz, {reset}))::float8 AS since
               FROM {schema}.pg_stat_statements s
              WHERE s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
                AND s.queryid IS NOT NULL AND s.query IS NOT NULL AND s.calls > 0"
        ),
        json!({}),
    )
}

/// A template that pg_stat_statements may know too.
#[derive(Clone, Debug, Deserialize)]
pub struct Known {
    pub queryid: i64,
    pub role_id: u32,
    pub relations_hash: i64,
    pub nested: bool,
    pub relations: Vec<u32>,
    pub relations_complete: bool,
    pub command: String,
    pub sampled: bool,
    pub captured_calls: u64,
}

/// All templates, the oldest first.
pub fn known() -> Result<Vec<Known>> {
    spi::rows(
        "SELECT w.queryid, w.role_id::bigint AS role_id, w.relations_hash, w.nested, w.relations::bigint[] AS relations,
                w.relations_complete, w.command, w.captured_calls,
                EXISTS (SELECT FROM indexpilot.workload_sample s WHERE s.workload_id = w.id) AS sampled
           FROM indexpilot.workload w
          ORDER BY w.id",
        json!({}),
    )
}

/// How far a statement was taken over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Advanced {
    pub queryid: i64,
    pub role_id: u32,
    pub nested: bool,
    /// Captured in templates that are gone.
    pub captured_gone: u64,
    #[serde(flatten)]
    pub progress: Progress,
}

/// How far each was.
pub fn advanced() -> Result<Vec<Advanced>> {
    spi::rows(
        "SELECT i.queryid, i.role_id::bigint AS role_id, i.nested, i.captured_gone, i.imported_calls, i.captured_before, i.captured_calls,
                i.calls, i.rows, i.total_ms, i.sum_squares_ms, i.shared_blocks_hit, i.shared_blocks_read, i.temp_blocks, i.wal_bytes
           FROM indexpilot.imported_statements i",
        json!({}),
    )
}

/// Forgets it of statements that neither pg_stat_statements has any more nor the workload: theirs would begin anew.
pub fn forget_others(statements: &[Statement]) -> Result<()> {
    let keys: Vec<_> =
        statements.iter().map(|s| json!({ "queryid": s.queryid, "role_id": s.role_id, "nested": s.nested })).collect();
    spi::execute(
        "DELETE FROM indexpilot.imported_statements d
          WHERE NOT EXISTS (SELECT FROM indexpilot.workload w
                             WHERE w.queryid = d.queryid AND w.role_id = d.role_id AND w.nested = d.nested)
            AND (d.queryid, d.role_id, d.nested) NOT IN (
                SELECT p.queryid, p.role_id, p.nested
                  FROM pg_catalog.jsonb_to_recordset($1->'keys') AS p(queryid bigint, role_id oid, nested boolean))",
        json!({ "keys": keys }),
    )?;
    Ok(())
}

/// Remembers it; what was captured in templates that are gone is counted where they go.
pub fn advance(rows: &[Advanced]) -> Result<()> {
    spi::execute(
        "INSERT INTO indexpilot.imported_statements (queryid, role_id, nested, imported_calls, captured_before, captured_calls,
                calls, rows, total_ms, sum_squares_ms, shared_blocks_hit, shared_blocks_read, temp_blocks, wal_bytes)
         SELECT p.queryid, p.role_id, p.nested, p.imported_calls, p.captured_before, p.captured_calls, p.calls, p.rows, p.total_ms, p.sum_squares_ms,
                p.shared_blocks_hit, p.shared_blocks_read, p.temp_blocks, p.wal_bytes
           FROM pg_catalog.jsonb_to_recordset($1->'rows') AS p(queryid bigint, role_id oid, nested boolean,
                imported_calls bigint, captured_before bigint, captured_calls bigint, calls bigint, rows bigint, total_ms float8,
                sum_squares_ms float8, shared_blocks_hit bigint, shared_blocks_read bigint, temp_blocks bigint, wal_bytes bigint)
         ON CONFLICT (queryid, role_id, nested) DO UPDATE SET imported_at = pg_catalog.now(), imported_calls = excluded.imported_calls,
                captured_before = excluded.captured_before, captured_calls = excluded.captured_calls, calls = excluded.calls,
                rows = excluded.rows, total_ms = excluded.total_ms, sum_squares_ms = excluded.sum_squares_ms,
                shared_blocks_hit = excluded.shared_blocks_hit, shared_blocks_read = excluded.shared_blocks_read,
                temp_blocks = excluded.temp_blocks, wal_bytes = excluded.wal_bytes",
        json!({ "rows": rows }),
    )?;
    Ok(())
}

/// `search_path` that a session of the role begins with in this database.
pub fn search_path(role: u32) -> Result<String> {
    let path = spi::value(
        "SELECT COALESCE(
                (SELECT pg_catalog.substr(c.setting, pg_catalog.length('search_path=') + 1)
                   FROM pg_catalog.pg_db_role_setting r CROSS JOIN LATERAL pg_catalog.unnest(r.setconfig) AS c(setting)
                  WHERE r.setrole IN (0, ($1->>'role')::oid) AND c.setting LIKE 'search_path=%'
                    AND r.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
                                               WHERE d.datname = pg_catalog.current_database()))
                  ORDER BY r.setrole <> 0 DESC, r.setdatabase <> 0 DESC LIMIT 1),
                (SELECT f.setting FROM pg_catalog.pg_show_all_file_settings() f
                  WHERE pg_catalog.lower(f.name) = 'search_path' AND f.applied ORDER BY f.seqno DESC LIMIT 1),
                (SELECT s.boot_val FROM pg_catalog.pg_settings s WHERE s.name = 'search_path')) AS path",
        json!({ "role": role }),
    )?;
    Ok(path.unwrap_or_default())
}
