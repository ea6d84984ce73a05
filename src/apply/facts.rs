//! What the guard wants to know of the server and the table, read just before an action.

use crate::pg::error::Result;
use crate::pg::spi;
use indexpilot_core::guard::LocalTime;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use serde_json::json;

/// A table as it stands in the catalog.
#[derive(Clone, Debug, Deserialize)]
pub struct Table {
    pub schema: String,
    pub name: String,
    owner: u32,
    pub owner_name: String,
    /// The owner may create objects in the schema.
    pub may_create: bool,
    /// The owner may look objects up in the schema.
    pub may_use: bool,
    /// Why no index may be made on it.
    pub refused: Option<String>,
    /// Its rows are in its partitions, and so are its indexes.
    pub partitioned: bool,
    /// Indexes that it has, or of its partitions the one with most.
    pub indexes: usize,
    /// Schema and owner as SQL identifiers, for a GRANT.
    pub schema_quoted: String,
    pub owner_quoted: String,
}

impl Table {
    pub fn owner(&self) -> Oid {
        Oid::from(self.owner)
    }

    /// The right that the owner lacks for building here: in words, with the command that gives it.
    pub fn missing_right(&self) -> Option<String> {
        let right = match (self.may_use, self.may_create) {
            (true, true) => return None,
            (false, true) => "USAGE",
            (true, false) => "CREATE",
            (false, false) => "USAGE, CREATE",
        };
        Some(format!(
            "role {} owns the table but lacks {right} on its schema; run: GRANT {right} ON SCHEMA {} TO {}",
            self.owner_name, self.schema_quoted, self.owner_quoted
        ))
    }
}

/// The table with that OID; `None` when it is gone.
pub fn table(oid: u32) -> Result<Option<Table>> {
    let sql = "SELECT n.nspname AS schema, c.relname AS name, c.relowner::bigint AS owner, r.rolname AS owner_name, \
                 has_schema_privilege(c.relowner, n.oid, 'CREATE') AS may_create, \
                 has_schema_privilege(c.relowner, n.oid, 'USAGE') AS may_use, \
                 CASE WHEN n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast') THEN 'it is a table of the server' \
                   WHEN n.nspname = 'indexpilot' THEN 'it is a table of IndexPilot' \
                   WHEN c.relpersistence = 't' THEN 'it is temporary, and only its session sees it' \
                   WHEN c.relpersistence = 'u' THEN 'it is unlogged, so its data need not outlive a crash; ALTER TABLE ... SET LOGGED makes it one to look after' \
                   WHEN c.relkind = 'f' THEN 'it is a foreign table; index it on the server that has its rows' \
                   WHEN c.relkind NOT IN ('r', 'm', 'p') THEN 'it is not a table' \
                   WHEN EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
                     AND d.deptype = 'e') THEN 'it belongs to an extension, whose next version may change it' END AS refused, \
                 c.relkind = 'p' AS partitioned, \
                 (SELECT coalesce(max(x.n), 0) FROM (SELECT count(*) AS n FROM pg_index i WHERE i.indrelid = c.oid \
                   OR i.indrelid IN (SELECT p.relid FROM pg_partition_tree(c.oid) p WHERE c.relkind = 'p') GROUP BY i.indrelid) x) AS indexes, \
                 quote_ident(n.nspname) AS schema_quoted, quote_ident(r.rolname) AS owner_quoted \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner \
               WHERE c.oid = ($1->>'oid')::oid";
    spi::row(sql, json!({ "oid": oid }))
}

/// A partition that has rows of its own and may have indexes.
#[derive(Clone, Debug, Deserialize)]
pub struct Part {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub bytes: u64,
}

/// The partitions of a table, of all levels below it.
pub fn parts(table: u32) -> Result<Vec<Part>> {
    let sql = "SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, coalesce(pg_table_size(c.oid), 0)::bigint AS bytes \
               FROM pg_partition_tree(($1->>'table')::oid::regclass) t JOIN pg_class c ON c.oid = t.relid \
                 JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE t.isleaf AND c.relkind = 'r' AND c.relpersistence = 'p' ORDER BY n.nspname, c.relname";
    spi::rows(sql, json!({ "table": table }))
}

/// All parts of the table are partitions of its own that hold rows here.
pub fn has_plain_parts_only(table: u32) -> Result<bool> {
    let sql = "SELECT coalesce(bool_and(t.level = 1 AND c.relkind = 'r' AND c.relpersistence = 'p'), false) AS plain \
               FROM pg_partition_tree(($1->>'table')::oid::regclass) t JOIN pg_class c ON c.oid = t.relid WHERE t.level > 0";
    Ok(spi::value(sql, json!({ "table": table }))?.unwrap_or(false))
}

/// The table is a partition of `of`, at whatever level.
pub fn is_part(table: u32, of: u32) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_partition_ancestors(($1->>'table')::oid::regclass) a \
               WHERE a.relid = ($1->>'of')::oid AND a.relid <> ($1->>'table')::oid) AS part";
    Ok(spi::value(sql, json!({ "table": table, "of": of }))?.unwrap_or(false))
}

/// A receiver that only keeps the log applies nothing, and lags behind nothing. A standby that sends its log on writes none of its own,
/// and asking it for that is an error.
const LAG: &str = "(SELECT max(greatest(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                     ELSE pg_current_wal_lsn() END, s.replay_lsn), 0))::bigint \
                   FROM pg_stat_replication s WHERE s.replay_lsn IS NOT NULL)";

/// What runs beside the action.
#[derive(Clone, Debug, Deserialize)]
pub struct Surroundings {
    pub server_version: u32,
    /// Age of the oldest other transaction in this database, seconds.
    pub oldest_transaction_s: Option<f64>,
    pub prepared_on_table: usize,
    pub oldest_prepared_s: Option<f64>,
    pub running_ddl: Option<String>,
    pub wraparound_vacuum: bool,
    pub replica_lag_bytes: Option<u64>,
}

/// See [`Surroundings`]. A prepared transaction's locks belong to no process; the one on its own number tells which they are. A VACUUM has a transaction too, but no concurrent build waits for it unless it works on the same table,
/// which shows in its lock.
pub fn surroundings(table: u32) -> Result<Surroundings> {
    let sql = format!(
        "SELECT current_setting('server_version_num')::integer AS server_version, \
                 (SELECT extract(epoch FROM max(clock_timestamp() - a.xact_start))::float8 FROM pg_stat_activity a \
                  WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL \
                    AND a.backend_type NOT IN ('autovacuum worker', 'parallel worker')) AS oldest_transaction_s, \
                 (SELECT count(DISTINCT p.transaction::text) FROM pg_prepared_xacts p \
                    JOIN pg_locks x ON x.locktype = 'transactionid' AND x.transactionid = p.transaction AND x.pid IS NULL \
                    JOIN pg_locks l ON l.virtualtransaction = x.virtualtransaction AND l.pid IS NULL \
                  WHERE p.database = current_database() AND l.relation = ($1->>'table')::oid) AS prepared_on_table, \
                 (SELECT extract(epoch FROM max(clock_timestamp() - p.prepared))::float8 FROM pg_prepared_xacts p \
                  WHERE p.database = current_database()) AS oldest_prepared_s, \
                 (SELECT format('%s held by process %s (%s)', l.mode, l.pid, a.backend_type) FROM pg_locks l \
                    JOIN pg_stat_activity a ON a.pid = l.pid \
                  WHERE l.relation = ($1->>'table')::oid AND l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid() \
                    AND a.datname = current_database() AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', \
                      'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') ORDER BY l.pid LIMIT 1) AS running_ddl, \
                 EXISTS (SELECT 1 FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
                  WHERE l.relation = ($1->>'table')::oid AND l.locktype = 'relation' AND a.backend_type = 'autovacuum worker' \
                    AND a.query LIKE '%to prevent wraparound%') AS wraparound_vacuum, \
                 {LAG} AS replica_lag_bytes"
    );
    spi::row(&sql, json!({ "table": table }))?
        .ok_or_else(|| crate::pg::error::Error::internal("the server says nothing of its sessions"))
}

/// What a table and its indexes take.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Sizes {
    pub table_bytes: u64,
    pub index_bytes: u64,
}

/// See [`Sizes`]; of a partitioned table all partitions count. Waits for whoever has the table locked against readers.
pub fn sizes(table: u32) -> Result<Sizes> {
    let sql = "SELECT coalesce(sum(pg_table_size(p.oid)), 0)::bigint AS table_bytes, \
                 coalesce(sum(pg_indexes_size(p.oid)), 0)::bigint AS index_bytes \
               FROM (SELECT t.relid::oid AS oid FROM pg_partition_tree(($1->>'table')::oid::regclass) t \
                     UNION SELECT ($1->>'table')::oid) p";
    Ok(spi::row(sql, json!({ "table": table }))?.unwrap_or_default())
}

/// What the clock on the wall shows in a time zone, or in the session's.
pub fn local_time(zone: Option<&str>) -> Result<Option<LocalTime>> {
    let sql = "SELECT extract(isodow FROM l.t)::integer AS day, \
                 (60 * extract(hour FROM l.t) + extract(minute FROM l.t))::integer AS minute \
               FROM (SELECT clock_timestamp() AT TIME ZONE coalesce($1->>'zone', current_setting('TimeZone')) AS t) l";
    spi::row(sql, json!({ "zone": zone }))
}

/// Largest replay lag of a connected replica, bytes; `None` without replicas.
pub fn replica_lag_bytes() -> Result<Option<u64>> {
    spi::value(&format!("SELECT {LAG} AS lag"), json!({}))
}

/// Free bytes where an index of the table would go; `None` when it cannot be told.
pub fn free_bytes(table: u32) -> Result<Option<u64>> {
    // New indexes go to the database's default tablespace: default_tablespace is empty in our sessions, and a path below the data
    // directory, or a link to another place, leads there in every case.
    let sql = "SELECT CASE WHEN d.dattablespace = t.oid AND t.spcname <> 'pg_default' THEN pg_tablespace_location(t.oid) END AS path \
               FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = current_database()";
    let path: Option<String> = spi::value(sql, json!({ "table": table }))?;
    Ok(crate::pg::disk::free_bytes(path.as_deref().filter(|p| !p.is_empty())))
}
