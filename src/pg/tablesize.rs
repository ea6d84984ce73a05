//! How large tables are, as plain facts of the catalog, the files and the statistics.

use super::error::Result;
use super::spi;
use serde::Deserialize;
use serde_json::json;

/// One table, or a partitioned table with all its partitions.
#[derive(Clone, Debug, Deserialize)]
pub struct TableSize {
    pub table_schema: String,
    pub table_name: String,
    pub kind: String,
    /// As of the last VACUUM or ANALYZE; `None` when there was none.
    pub row_estimate: Option<i64>,
    pub live_rows: i64,
    pub dead_rows: i64,
    pub heap_bytes: i64,
    pub toast_bytes: i64,
    pub index_bytes: i64,
    pub index_count: i32,
    /// Seconds since the Unix epoch, of the oldest among the partitions.
    pub last_vacuum: Option<f64>,
    pub last_analyze: Option<f64>,
}

/// The given table, or all tables and materialized views of users, largest first. Empty when the relation given is neither. A table
/// that is dropped meanwhile counts with nothing.
pub fn table_sizes(table: Option<u32>) -> Result<Vec<TableSize>> {
    spi::rows(
        "SELECT n.nspname AS table_schema, c.relname AS table_name,
                CASE c.relkind WHEN 'p' THEN 'partitioned table' WHEN 'm' THEN 'materialized view' ELSE 'table' END AS kind,
                z.row_estimate, z.live_rows, z.dead_rows, z.heap_bytes, z.toast_bytes, z.index_bytes, z.index_count,
                z.last_vacuum, z.last_analyze
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          CROSS JOIN LATERAL (
                SELECT pg_catalog.sum(NULLIF(l.reltuples, -1))::bigint AS row_estimate,
                       COALESCE(pg_catalog.sum(s.n_live_tup), 0)::bigint AS live_rows,
                       COALESCE(pg_catalog.sum(s.n_dead_tup), 0)::bigint AS dead_rows,
                       COALESCE(pg_catalog.sum(pg_catalog.pg_table_size(l.oid) - COALESCE(pg_catalog.pg_total_relation_size(NULLIF(l.reltoastrelid, 0)), 0)), 0)::bigint
                           AS heap_bytes,
                       COALESCE(pg_catalog.sum(pg_catalog.pg_total_relation_size(NULLIF(l.reltoastrelid, 0))), 0)::bigint AS toast_bytes,
                       COALESCE(pg_catalog.sum(pg_catalog.pg_indexes_size(l.oid)), 0)::bigint AS index_bytes,
                       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)::integer AS index_count,
                       EXTRACT(epoch FROM pg_catalog.min(GREATEST(s.last_vacuum, s.last_autovacuum)))::float8 AS last_vacuum,
                       EXTRACT(epoch FROM pg_catalog.min(GREATEST(s.last_analyze, s.last_autoanalyze)))::float8 AS last_analyze
                  FROM pg_catalog.pg_class l LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = l.oid
                 WHERE l.oid = c.oid AND c.relkind <> 'p'
                    OR c.relkind = 'p' AND l.relkind <> 'p' AND l.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(c.oid) t WHERE t.isleaf)) z
          WHERE c.relkind IN ('r', 'm', 'p')
            AND CASE WHEN $1->>'table' IS NOT NULL THEN c.oid = ($1->>'table')::oid
                     ELSE n.nspname NOT IN ('pg_catalog', 'information_schema', 'indexpilot') AND n.nspname NOT LIKE 'pg\\_%'
                      AND NOT c.relispartition END
          ORDER BY z.heap_bytes + z.toast_bytes + z.index_bytes DESC, n.nspname, c.relname",
        json!({ "table": table }),
    )
}
