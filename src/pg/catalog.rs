//! Snapshots of tables, indexes and statistics as values of the core crate, and looking up names.

use super::error::{Error, Kind, Result};
use super::shape::Expressions;
use super::{indexdef, node, opclass, relinfo, spi, subxact};
use indexpilot_core::model::{AttNum, Catalog, ColumnInfo, ExistingIndex, IndexDef, Key, PAGE, RelId, TableInfo, WriteRates};
use pgrx::pg_sys;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::panic::AssertUnwindSafe;

/// Number of distinct values that the planner assumes when it knows nothing (`DEFAULT_NUM_DISTINCT`, selfuncs.h).
const DEFAULT_DISTINCT: f64 = 200.0;
/// Width of a value of unknown width (get_typavgwidth, lsyscache.c).
const DEFAULT_WIDTH: i32 = 32;
/// Page header, and line pointer with tuple header, as the planner counts them for tables without statistics (tableam.c).
const PAGE_HEADER: f64 = 24.0;
const ROW_HEADER: f64 = 28.0;
/// Support function that says whether equal values are equal bytes (`BTEQUALIMAGE_PROC`, nbtree.h).
const EQUAL_IMAGE: i16 = 4;
/// Bits of `pg_index.indoption` (catalog/pg_index.h).
const DESCENDING: i16 = 1;
const NULLS_FIRST: i16 = 2;

const TABLES: &str = "
    SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
           c.relpersistence::text AS persistence, c.reltuples::float8 AS tuples, c.relpages AS pages,
           CASE WHEN c.relkind = 'p' THEN l.bytes ELSE coalesce(pg_catalog.pg_relation_size(c.oid, 'main'), 0) END AS bytes,
           l.parts, l.known_rows, l.unknown_pages,
           EXISTS (SELECT FROM pg_catalog.pg_depend d
                   WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
               AS of_extension,
           coalesce(s.n_tup_ins, 0) + l.inserts AS inserts, coalesce(s.n_tup_upd, 0) + l.updates AS updates,
           coalesce(s.n_tup_del, 0) + l.deletes AS deletes, coalesce(s.n_tup_hot_upd, 0) + l.hot_updates AS hot_updates,
           -- A rate from less than an hour would be noise.
           greatest(1.0, extract(epoch FROM pg_catalog.now() - coalesce(d.stats_reset, pg_catalog.pg_postmaster_start_time()))
                         / 3600.0)::float8 AS hours,
           (SELECT t.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace t ON t.oid = e.extnamespace
             WHERE e.extname = 'pg_trgm') AS trigram_schema
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
    LEFT JOIN pg_catalog.pg_stat_database d ON d.datname = pg_catalog.current_database()
    -- Of a partitioned table all is in its partitions.
    CROSS JOIN LATERAL (
        SELECT count(*) AS parts, coalesce(sum(x.bytes), 0)::int8 AS bytes,
               coalesce(sum(CASE WHEN x.reltuples >= 0 AND x.relpages > 0 THEN x.reltuples / x.relpages * (x.bytes / 8192) END), 0)::float8
                   AS known_rows,
               coalesce(sum(x.bytes / 8192) FILTER (WHERE x.reltuples < 0 OR x.relpages = 0), 0)::float8 AS unknown_pages,
               coalesce(sum(y.n_tup_ins), 0)::int8 AS inserts, coalesce(sum(y.n_tup_upd), 0)::int8 AS updates,
               coalesce(sum(y.n_tup_del), 0)::int8 AS deletes, coalesce(sum(y.n_tup_hot_upd), 0)::int8 AS hot_updates
        FROM (SELECT k.oid, k.reltuples, k.relpages, coalesce(pg_catalog.pg_relation_size(k.oid, 'main'), 0) AS bytes
              FROM pg_catalog.pg_partition_tree(c.oid) t JOIN pg_catalog.pg_class k ON k.oid = t.relid
              WHERE c.relkind = 'p' AND t.isleaf AND k.relkind = 'r') x
        LEFT JOIN pg_catalog.pg_stat_all_tables y ON y.relid = x.oid) l
    WHERE c.oid = ANY (ARRAY(SELECT t::oid FROM pg_catalog.jsonb_array_elements_text($1) t))";

/// A partitioned table that nobody has analysed, which autovacuum does not do, is described by its largest partition.
const COLUMNS: &str = "
    WITH largest AS MATERIALIZED (
        SELECT DISTINCT ON (p.oid) p.oid AS parent, t.relid
        FROM pg_catalog.pg_class p CROSS JOIN LATERAL pg_catalog.pg_partition_tree(p.oid) t
        JOIN pg_catalog.pg_class k ON k.oid = t.relid
        WHERE p.relkind = 'p' AND t.isleaf AND k.relkind = 'r'
          AND p.oid = ANY (ARRAY(SELECT t::oid FROM pg_catalog.jsonb_array_elements_text($1) t))
        ORDER BY p.oid, k.reltuples DESC, t.relid)
    SELECT a.attrelid::int8 AS table, a.attnum AS attnum, a.attname AS name,
           pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_name, a.atttypid::int8 AS type_oid,
           a.atttypmod AS typmod, a.attcollation::int8 AS collation, a.attalign::text AS align,
           s.stawidth AS width, s.stanullfrac::float8 AS null_frac, s.stadistinct::float8 AS n_distinct,
           CASE 3 WHEN s.stakind1 THEN s.stanumbers1[1] WHEN s.stakind2 THEN s.stanumbers2[1]
                  WHEN s.stakind3 THEN s.stanumbers3[1] WHEN s.stakind4 THEN s.stanumbers4[1]
                  WHEN s.stakind5 THEN s.stanumbers5[1] END::float8 AS correlation
    FROM pg_catalog.pg_attribute a
    LEFT JOIN largest l ON l.parent = a.attrelid
    LEFT JOIN pg_catalog.pg_attribute b ON b.attrelid = l.relid AND b.attname = a.attname AND NOT b.attisdropped
    LEFT JOIN LATERAL (SELECT * FROM pg_catalog.pg_statistic s
                       WHERE s.starelid = a.attrelid AND s.staattnum = a.attnum
                          OR s.starelid = b.attrelid AND s.staattnum = b.attnum
                       ORDER BY s.starelid = a.attrelid DESC, s.stainherit LIMIT 1) s ON true
    WHERE a.attrelid = ANY (ARRAY(SELECT t::oid FROM pg_catalog.jsonb_array_elements_text($1) t))
      AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attrelid, a.attnum";

const INDEXES: &str = "
    SELECT i.indrelid::int8 AS table, i.indexrelid::int8 AS oid, c.relname AS name, i.indisunique AS unique,
           i.indisvalid AND i.indisready AND i.indislive AS valid,
           coalesce(pg_catalog.pg_relation_size(i.indexrelid, 'main'), 0) AS bytes,
           am.amname AS method, i.indexprs IS NOT NULL OR i.indpred IS NOT NULL AS computes, t.relowner::int8 AS owner,
           i.indnkeyatts AS keys, i.indkey::int2[] AS columns, i.indoption::int2[] AS options,
           ARRAY(SELECT o::int8 FROM pg_catalog.unnest(i.indclass::oid[]) WITH ORDINALITY u (o, n) ORDER BY n) AS opclasses,
           ARRAY(SELECT o::int8 FROM pg_catalog.unnest(i.indcollation::oid[]) WITH ORDINALITY u (o, n) ORDER BY n) AS collations
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
    JOIN pg_catalog.pg_am am ON am.oid = c.relam
    WHERE i.indrelid = ANY (ARRAY(SELECT t::oid FROM pg_catalog.jsonb_array_elements_text($1) t))
    ORDER BY i.indexrelid";

/// Indexes that every partition of a table has, attached to nothing: those on plain columns, of all rows. None is unique, since each is
/// so in its partition only.
const PART_INDEXES: &str = "
    SELECT k.parent::int8 AS table, min(k.oid::int8) AS oid, min(k.name) AS name, false AS unique, true AS valid,
           sum(k.bytes)::int8 AS bytes, k.method, false AS computes, min(k.owner::int8) AS owner, k.keys, k.columns, k.options,
           k.opclasses, k.collations
    FROM (SELECT p.oid AS parent, t.relid AS part, i.indexrelid AS oid, c.relname::text AS name, p.relowner AS owner, am.amname AS method,
                 coalesce(pg_catalog.pg_relation_size(i.indexrelid, 'main'), 0) AS bytes, i.indnkeyatts AS keys,
                 ARRAY(SELECT a.attnum FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY u (attnum, n)
                       JOIN pg_catalog.pg_attribute b ON b.attrelid = i.indrelid AND b.attnum = u.attnum
                       JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid AND a.attname = b.attname ORDER BY u.n) AS columns,
                 i.indoption::int2[] AS options,
                 ARRAY(SELECT o::int8 FROM pg_catalog.unnest(i.indclass::oid[]) WITH ORDINALITY u (o, n) ORDER BY n) AS opclasses,
                 ARRAY(SELECT o::int8 FROM pg_catalog.unnest(i.indcollation::oid[]) WITH ORDINALITY u (o, n) ORDER BY n) AS collations
          FROM pg_catalog.pg_class p CROSS JOIN LATERAL pg_catalog.pg_partition_tree(p.oid) t
          JOIN pg_catalog.pg_class x ON x.oid = t.relid
          JOIN pg_catalog.pg_index i ON i.indrelid = t.relid
          JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
          JOIN pg_catalog.pg_am am ON am.oid = c.relam
          WHERE p.relkind = 'p' AND p.oid = ANY (ARRAY(SELECT t::oid FROM pg_catalog.jsonb_array_elements_text($1) t))
            AND t.isleaf AND x.relkind = 'r' AND NOT c.relispartition AND i.indexprs IS NULL AND i.indpred IS NULL
            AND i.indisvalid AND i.indisready AND i.indislive) k
    GROUP BY k.parent, k.method, k.keys, k.columns, k.options, k.opclasses, k.collations
    HAVING count(DISTINCT k.part) = (SELECT count(*) FROM pg_catalog.pg_partition_tree(k.parent) t
                                     JOIN pg_catalog.pg_class x ON x.oid = t.relid WHERE t.isleaf AND x.relkind = 'r')
    ORDER BY 2";

#[derive(Deserialize)]
struct TableRow {
    oid: u32,
    schema: String,
    name: String,
    kind: String,
    persistence: String,
    tuples: f64,
    pages: f64,
    bytes: u64,
    /// Partitions with rows; of these the rows as the server counted them, and the pages of those where it has not.
    parts: u32,
    known_rows: f64,
    unknown_pages: f64,
    of_extension: bool,
    inserts: f64,
    updates: f64,
    deletes: f64,
    hot_updates: f64,
    hours: f64,
    trigram_schema: Option<String>,
}

#[derive(Deserialize)]
struct ColumnRow {
    table: u32,
    attnum: AttNum,
    name: String,
    type_name: String,
    type_oid: u32,
    typmod: i32,
    collation: u32,
    align: String,
    width: Option<i32>,
    null_frac: Option<f64>,
    n_distinct: Option<f64>,
    correlation: Option<f64>,
}

#[derive(Deserialize)]
struct IndexRow {
    table: u32,
    oid: u32,
    name: String,
    unique: bool,
    valid: bool,
    bytes: u64,
    method: String,
    /// It has expressions or a condition.
    computes: bool,
    owner: u32,
    keys: usize,
    columns: Vec<AttNum>,
    options: Vec<i16>,
    opclasses: Vec<u32>,
    collations: Vec<u32>,
}

/// The tables as they are now: columns with statistics, indexes, writes, and why no index may be made where none may. Tables that do
/// not exist are left out. `expressed`, `tenant`, `updated_columns` and `conditions` are for others to fill.
///
/// # Errors
/// Those of the queries, which read catalogs only.
pub fn snapshot(tables: &[RelId]) -> Result<Catalog> {
    snapshot_with(tables, &Expressions::default())
}

/// As [`snapshot`], with expressions as further columns of their tables.
///
/// # Errors
/// As for [`snapshot`].
pub fn snapshot_with(tables: &[RelId], expressions: &Expressions) -> Result<Catalog> {
    let wanted: BTreeSet<u32> = tables.iter().map(|t| t.0).collect();
    let wanted = serde_json::to_value(&wanted)?;
    let mut columns: BTreeMap<u32, Vec<ColumnRow>> = BTreeMap::new();
    for row in spi::rows::<ColumnRow>(COLUMNS, wanted.clone())? {
        columns.entry(row.table).or_default().push(row);
    }
    let mut indexes: BTreeMap<u32, Vec<IndexRow>> = BTreeMap::new();
    for row in spi::rows::<IndexRow>(INDEXES, wanted.clone())?.into_iter().chain(spi::rows(PART_INDEXES, wanted.clone())?) {
        indexes.entry(row.table).or_default().push(row);
    }
    let tables = spi::rows::<TableRow>(TABLES, wanted)?
        .into_iter()
        .map(|row| {
            let columns = columns.remove(&row.oid).unwrap_or_default();
            let indexes = indexes.remove(&row.oid).unwrap_or_default();
            (RelId(row.oid), table(row, &columns, indexes, expressions))
        })
        .collect();
    Ok(Catalog { tables })
}

fn table(row: TableRow, columns: &[ColumnRow], indexes: Vec<IndexRow>, expressions: &Expressions) -> TableInfo {
    let rel = RelId(row.oid);
    let width: f64 = columns.iter().map(|c| f64::from(average_width(c))).sum();
    let rows = row_count(&row, width);
    let unique: BTreeSet<AttNum> = indexes
        .iter()
        .filter(|i| i.unique && i.valid && !i.computes && i.keys == 1)
        .filter_map(|i| i.columns.first().copied())
        .collect();
    TableInfo {
        rel,
        refused: refusal(&row),
        writes: WriteRates {
            inserts: row.inserts / row.hours,
            deletes: row.deletes / row.hours,
            updates: row.updates / row.hours,
            hot_updates: row.hot_updates / row.hours,
            updated_columns: BTreeMap::new(),
        },
        schema: row.schema,
        name: row.name,
        rows,
        bytes: row.bytes,
        conditions: BTreeMap::new(),
        sample: None,
        trigram_schema: row.trigram_schema,
        foreign_keys: Vec::new(),
        parts: row.parts,
        columns: columns
            .iter()
            .map(|c| column(c, rows, unique.contains(&c.attnum)))
            .chain(expressions.of(rel).iter().cloned())
            .collect(),
        indexes: indexes.into_iter().map(|i| index(rel, i, columns, expressions)).collect(),
    }
}

/// Rows as the planner estimates them: the density seen by the last VACUUM or ANALYZE times the pages there are now.
fn row_count(row: &TableRow, width: f64) -> f64 {
    let pages = (row.bytes / PAGE) as f64;
    let usual = (PAGE as f64 - PAGE_HEADER) / (width + ROW_HEADER);
    if row.kind == "p" {
        return (row.known_rows + usual * row.unknown_pages).round();
    }
    let density = if row.tuples >= 0.0 && row.pages > 0.0 { row.tuples / row.pages } else { usual };
    (density * pages).round()
}

fn average_width(c: &ColumnRow) -> i32 {
    c.width.filter(|w| *w > 0).unwrap_or_else(|| {
        // SAFETY: looks up a type; the columns of a table have types that exist.
        let width = unsafe { pg_sys::get_typavgwidth(pg_sys::Oid::from(c.type_oid), c.typmod) };
        if width > 0 { width } else { DEFAULT_WIDTH }
    })
}

fn column(c: &ColumnRow, rows: f64, unique: bool) -> ColumnInfo {
    let null_frac = c.null_frac.unwrap_or(0.0);
    let n_distinct = match c.n_distinct {
        _ if unique => rows * (1.0 - null_frac),
        Some(n) if n > 0.0 => n,
        Some(n) if n < 0.0 => -n * rows,
        _ if c.type_oid == pg_sys::BOOLOID.to_u32() => 2.0,
        _ => DEFAULT_DISTINCT.min(rows),
    };
    let (type_oid, collation) = (pg_sys::Oid::from(c.type_oid), pg_sys::Oid::from(c.collation));
    ColumnInfo {
        attnum: c.attnum,
        name: c.name.clone(),
        reads: Vec::new(),
        type_name: c.type_name.clone(),
        avg_width: average_width(c).max(0) as u32,
        align: alignment(c.align.as_bytes().first().copied().unwrap_or(b'd')),
        n_distinct: n_distinct.max(1.0),
        null_frac,
        correlation: c.correlation.unwrap_or(0.0),
        sortable: sortable(type_oid),
        dedup: deduplicates(type_oid, collation),
        expressed: None,
        tenant: false,
        search: Vec::new(),
    }
}

/// Width and alignment of a type's values, and whether a B-tree sorts them and stores equal ones once.
pub fn type_layout(type_oid: pg_sys::Oid, typmod: i32, collation: pg_sys::Oid) -> (u32, u8, bool, bool) {
    let (mut length, mut by_value, mut align) = (0, false, 0);
    // SAFETY: looks up a type that exists.
    let width = unsafe {
        pg_sys::get_typlenbyvalalign(type_oid, &mut length, &mut by_value, &mut align);
        pg_sys::get_typavgwidth(type_oid, typmod)
    };
    let width = if width > 0 { width } else { DEFAULT_WIDTH };
    (width as u32, alignment(align as u8), sortable(type_oid), deduplicates(type_oid, collation))
}

/// Name of a type as the server prints it.
pub fn type_name(type_oid: pg_sys::Oid, typmod: i32) -> String {
    // SAFETY: a text even for a type that does not exist.
    unsafe { node::text(pg_sys::format_type_with_typemod(type_oid, typmod)) }.unwrap_or_default()
}

/// Owner of a relation; `None` when it is gone.
pub fn owner(rel: RelId) -> Option<pg_sys::Oid> {
    // SAFETY: the cache's tuple has this form, and is released.
    unsafe {
        let relation = pg_sys::Datum::from(pg_sys::Oid::from(rel.0));
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, relation);
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// An identifier that is safe in SQL.
pub fn quote(name: &str) -> String {
    pgrx::spi::quote_identifier(name)
}

fn index(rel: RelId, i: IndexRow, columns: &[ColumnRow], expressions: &Expressions) -> ExistingIndex {
    let def = definition(rel, &i, columns, expressions);
    ExistingIndex { oid: i.oid, name: i.name, def, unique: i.unique, valid: i.valid, bytes: i.bytes }
}

/// The index as the model describes it; `None` when it has something that the model has no word for.
fn definition(rel: RelId, i: &IndexRow, columns: &[ColumnRow], expressions: &Expressions) -> Option<IndexDef> {
    let method = opclass::method(&i.method)?;
    let computed = match i.computes {
        true => indexdef::computed(i.oid.into(), i.table.into(), i.owner.into())?,
        false => indexdef::Computed { expressions: Vec::new(), conditions: Vec::new() },
    };
    let mut computed_keys = computed.expressions.into_iter();
    let mut keys = Vec::with_capacity(i.keys);
    for (n, attnum) in i.columns.iter().take(i.keys).enumerate() {
        let (column, type_oid, collation) = if *attnum == 0 {
            let e = computed_keys.next()?;
            (expressions.find(rel, &e.text)?, e.type_oid, e.collation)
        } else {
            let c = columns.iter().find(|c| c.attnum == *attnum)?;
            (*attnum, c.type_oid.into(), c.collation.into())
        };
        // Of a type without collation the index has none, whatever the class: an array's is its elements'.
        let of_index = pg_sys::Oid::from(*i.collations.get(n)?);
        if of_index != pg_sys::InvalidOid && of_index != collation {
            return None;
        }
        let option = *i.options.get(n)?;
        keys.push(Key {
            column,
            descending: option & DESCENDING != 0,
            nulls_first: option & NULLS_FIRST != 0,
            opclass: opclass::of(method, type_oid, (*i.opclasses.get(n)?).into())?,
        });
    }
    let def = IndexDef::new(rel, keys, i.columns.iter().skip(i.keys).copied()).by(method);
    Some(match conjunction(&computed.conditions) {
        Some(condition) => def.partial(&condition),
        None => def,
    })
}

/// Conditions that hold together, always in the same order; `None` of none.
fn conjunction(conditions: &[String]) -> Option<String> {
    let mut sorted: Vec<&str> = conditions.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    match sorted[..] {
        [] => None,
        [one] => Some(one.to_owned()),
        _ => Some(format!("({})", sorted.join(" AND "))),
    }
}

/// Why no index may be made on the table, in words that fit after "because".
fn refusal(row: &TableRow) -> Option<String> {
    let reason = match row.kind.as_str() {
        "r" | "m" | "p" if row.persistence == "t" => "it is a temporary table",
        "p" if row.parts == 0 => "it is a partitioned table without partitions",
        "r" | "m" | "p" => match row.schema.as_str() {
            "pg_catalog" | "information_schema" | "pg_toast" => "it belongs to the system",
            "indexpilot" => "it belongs to IndexPilot",
            _ if row.of_extension => "it belongs to an extension",
            _ => return None,
        },
        "f" => "it is a foreign table",
        "v" => "it is a view",
        _ => "it is not a table",
    };
    Some(reason.to_owned())
}

/// Bytes of an alignment (`pg_type.typalign`).
pub(super) fn alignment(code: u8) -> u8 {
    match code {
        b'c' => 1,
        b's' => 2,
        b'i' => 4,
        _ => 8,
    }
}

/// The type has a complete default B-tree operator class (an array has one only if its elements have).
pub(super) fn sortable(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: the type cache looks the type up and returns an entry that stays; raises nothing for an existing type.
    unsafe {
        let entry = pg_sys::lookup_type_cache(type_oid, (pg_sys::TYPECACHE_CMP_PROC | pg_sys::TYPECACHE_BTREE_OPFAMILY) as i32);
        (*entry).cmp_proc != pg_sys::InvalidOid
            && (*entry).btree_opf != pg_sys::InvalidOid
            && relinfo::default_opclass(type_oid).is_some()
    }
}

/// Equal values of the type are equal bytes, so a B-tree stores them once: what `_bt_allequalimage` asks (nbtutils.c).
pub(super) fn deduplicates(type_oid: pg_sys::Oid, collation: pg_sys::Oid) -> bool {
    let Some((family, input)) = relinfo::default_opclass(type_oid) else { return false };
    // SAFETY: support function 4 of a B-tree operator class takes the input type's OID and returns a boolean; those of built-in and
    // superuser-made classes, the only ones there can be.
    unsafe {
        let function = pg_sys::get_opfamily_proc(family, input, input, EQUAL_IMAGE);
        function != pg_sys::InvalidOid
            && pg_sys::OidFunctionCall1Coll(function, collation, pg_sys::Datum::from(input)).value() & 0xFF != 0
    }
}

fn c_string(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error::new(Kind::InvalidParameter, "name contains a zero byte"))
}

/// OID of a relation by name, in the search path when no schema is given; `None` when there is none.
///
/// # Errors
/// The server's own, for a schema that the caller may not use.
pub fn relation(schema: Option<&str>, name: &str) -> Result<Option<RelId>> {
    let schema = schema.map(c_string).transpose()?;
    let name = c_string(name)?;
    subxact::discard(AssertUnwindSafe(|| {
        // SAFETY: looks a name up without locking; a missing relation or schema gives InvalidOid.
        let oid = unsafe {
            let schema = schema.as_ref().map_or(std::ptr::null_mut(), |s| s.as_ptr().cast_mut());
            let range = pg_sys::makeRangeVar(schema, name.as_ptr().cast_mut(), -1);
            pg_sys::RangeVarGetRelidExtended(
                range,
                pg_sys::NoLock as i32,
                pg_sys::RVROption::RVR_MISSING_OK,
                None,
                std::ptr::null_mut(),
            )
        };
        Ok((oid != pg_sys::InvalidOid).then(|| RelId(oid.to_u32())))
    }))
}

/// The relation is a table that has rows of its own, or a materialized view.
pub fn is_table(rel: RelId) -> bool {
    // SAFETY: a catalog lookup, 0 for an unknown relation.
    let kind = unsafe { pg_sys::get_rel_relkind(pg_sys::Oid::from(rel.0)) } as u8;
    matches!(kind, pg_sys::RELKIND_RELATION | pg_sys::RELKIND_MATVIEW)
}

/// The relation is one of these, or a partitioned table.
pub fn is_table_or_partitioned(rel: RelId) -> bool {
    // SAFETY: as above.
    is_table(rel) || unsafe { pg_sys::get_rel_relkind(pg_sys::Oid::from(rel.0)) } as u8 == pg_sys::RELKIND_PARTITIONED_TABLE
}

/// The relation has a user column of that name, which is in the server's encoding.
pub fn has_attribute(rel: RelId, name: &std::ffi::CStr) -> bool {
    // SAFETY: a catalog lookup, 0 for an unknown column and for a dropped one.
    unsafe { pg_sys::get_attnum(pg_sys::Oid::from(rel.0), name.as_ptr()) > 0 }
}

/// Name of a relation, without its schema; `None` when it is gone.
pub fn relation_name(rel: RelId) -> Option<String> {
    // SAFETY: a catalog lookup, null for an unknown relation.
    unsafe { node::text(pg_sys::get_rel_name(pg_sys::Oid::from(rel.0))) }
}

/// Name of a column; `None` when it is gone.
pub fn attribute_name(rel: RelId, column: AttNum) -> Option<String> {
    // SAFETY: a catalog lookup that returns null when told that the column may be missing.
    unsafe { node::text(pg_sys::get_attname(pg_sys::Oid::from(rel.0), column, true)) }
}

/// Number of a user column by name; `None` when there is none.
///
/// # Errors
/// `InvalidParameter` for a name with a zero byte.
pub fn attribute(rel: RelId, name: &str) -> Result<Option<AttNum>> {
    let name = c_string(name)?;
    // SAFETY: a catalog lookup, 0 for an unknown column and for a dropped one.
    let attnum = unsafe { pg_sys::get_attnum(pg_sys::Oid::from(rel.0), name.as_ptr()) };
    Ok((attnum > 0).then_some(attnum))
}

/// Names of the columns of a relation in their order.
pub fn column_names(rel: RelId) -> Vec<String> {
    let oid = pg_sys::Oid::from(rel.0);
    (1..AttNum::MAX)
        .map_while(|n| attribute_name(rel, n).map(|name| (n, name)))
        // SAFETY: a catalog lookup, InvalidOid for a dropped column.
        .filter(|(n, _)| unsafe { pg_sys::get_atttype(oid, *n) } != pg_sys::InvalidOid)
        .map(|(_, name)| name)
        .collect()
}

/// OID of a relation by schema and name, whoever asks and whatever the search path; `None` when there is none.
///
/// # Errors
/// Of the query on the catalog.
pub fn oid_of(schema: &str, name: &str) -> Result<Option<u32>> {
    spi::value(
        "SELECT c.oid::bigint AS oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = $1->>'schema' AND c.relname = $1->>'name'",
        serde_json::json!({ "schema": schema, "name": name }),
    )
}

/// Schema and name of a relation; `None` when it is gone.
///
/// # Errors
/// Of the query on the catalog.
pub fn qualified_name(oid: u32) -> Result<Option<(String, String)>> {
    #[derive(serde::Deserialize)]
    struct Row {
        schema: String,
        name: String,
    }
    let row: Option<Row> = spi::row(
        "SELECT n.nspname AS schema, c.relname AS name
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ($1->>'oid')::oid",
        serde_json::json!({ "oid": oid }),
    )?;
    Ok(row.map(|r| (r.schema, r.name)))
}

/// A relation for messages: its qualified name, or its OID when it is gone.
///
/// # Errors
/// Of the query on the catalog.
pub fn shown(oid: u32) -> Result<String> {
    Ok(qualified_name(oid)?.map_or_else(|| format!("OID {oid}"), |(schema, name)| format!("{schema}.{name}")))
}

/// The object is an index of an ordinary table, or a partitioned one.
pub fn is_index(oid: u32) -> bool {
    // SAFETY: a catalog lookup, 0 for an unknown relation.
    let kind = unsafe { pg_sys::get_rel_relkind(pg_sys::Oid::from(oid)) } as u8;
    matches!(kind, pg_sys::RELKIND_INDEX | pg_sys::RELKIND_PARTITIONED_INDEX)
}
