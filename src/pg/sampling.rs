//! Statistics of what nobody has analysed: expressions, and the keys that gin, gist and spgist indexes would hold. From a sample of the
//! table's pages, with the server's own functions.
//!
//! # Safety
//! Values come from the server's executor with their types, and are handed to functions of those types.

use super::error::{Error, Result};
use super::indexstmt::IndexKey;
use super::{catalog, node, own, planner, trust};
use indexpilot_core::model::{AccessMethod, OpClass, RelId, SearchKeys};
use indexpilot_core::size::hash;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, c_int, c_void};
use std::rc::Rc;
use std::time::Duration;

mod keys;
#[cfg(any(test, feature = "pg_test"))]
mod tests;

/// Where names are looked up: all that is not the server's own is qualified, so that nothing of another schema is taken for it.
const PATH: &CStr = c"pg_catalog, pg_temp";
/// Rows that are looked at: what ANALYZE takes for a statistics target of 100.
const ROWS: f64 = 30_000.0;
/// Bytes of values that are held at once, and pages that are read.
const BYTES: usize = 16_777_216;
const PAGES: f64 = 1_500.0;
/// Bytes of a computed value that is held; larger ones are only counted. So some hundred values fit, however wide they are.
const WIDE: i32 = 65_536;
/// Rows that are fetched at once: nothing has counted their bytes then.
const BATCH: std::ffi::c_long = 64;

/// A column or expression of a table to be sampled.
pub struct Subject<'a> {
    pub table: RelId,
    /// In SQL, as [`PATH`] finds its names.
    pub sql: &'a str,
    /// It is an expression: its values are made here, and may be of any size. Those of a column are as small as they are stored.
    pub computed: bool,
    /// As whom the rows are read and expressions evaluated.
    pub role: pg_sys::Oid,
    /// Rows to look at, at most.
    pub most: f64,
    /// Rows and pages of the table, and the width of the values, as far as known.
    pub rows: f64,
    pub pages: f64,
    pub width: f64,
}

/// A row of `pg_statistic` that is in no table.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// The tuple's data, aligned as the server wants it, and its length in bytes.
    tuple: Rc<[u64]>,
    length: u32,
    pub width: u32,
    /// Different values in the whole table.
    pub n_distinct: f64,
    pub null_frac: f64,
    pub correlation: f64,
}

/// Statistics of a column or expression, as ANALYZE would compute them; `None` when its type has none, or its values are too wide, and in a serializable
/// transaction.
///
/// # Errors
/// The server's own: what evaluating the expression raises, missing rights, the time limit.
pub fn statistics(subject: &Subject<'_>, collation: pg_sys::Oid, limit: Duration) -> Result<Option<Statistics>> {
    // SAFETY: the values are of the type that the executor says.
    values(subject, limit, |values, column| unsafe { compute(values, column, collation, subject.rows) })
}

/// What an index of access method `method` would hold of a column or expression by the operator class of `key`.
///
/// # Errors
/// As for [`statistics`].
pub fn search_keys(
    subject: &Subject<'_>,
    method: AccessMethod,
    key: &IndexKey,
    opclass: OpClass,
    limit: Duration,
) -> Result<Option<SearchKeys>> {
    values(subject, limit, |values, column| {
        // SAFETY: the values are of the type that the executor says, which is one that the operator class takes.
        unsafe {
            let found = match method {
                AccessMethod::Gin => keys::gin_keys(values, column, key, subject.rows),
                _ => keys::stored_keys(values, column, method, key),
            };
            Ok(found.map(|f| SearchKeys { method, opclass, ..f }))
        }
    })
}

/// The type of sampled values.
struct Column {
    type_oid: pg_sys::Oid,
    typmod: i32,
}

/// Values and whether they are NULL; they live as long as the sample.
type Values<'a> = &'a [(pg_sys::Datum, bool)];

/// The transaction is serializable. What is read in it counts as read by the caller until all that run beside it have ended (predicate
/// locks stay when a subtransaction is rolled back), and statements of others could fail for it: so no rows are looked at.
pub(super) fn serializable() -> bool {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as c_int }
}

/// Evaluates the subject on a sample of the table's rows, and hands the values to `f`; `None` when many of them are too wide to be held,
/// and in a serializable transaction.
fn values<T>(subject: &Subject<'_>, limit: Duration, f: impl FnOnce(Values<'_>, Column) -> Result<Option<T>>) -> Result<Option<T>> {
    if serializable() {
        return Ok(None);
    }
    let _work = own::work();
    let most = (BYTES as f64 / subject.width.max(1.0)).clamp(300.0, ROWS).min(subject.most);
    let pages = subject.pages.max(1.0);
    let percent = (100.0 * PAGES / pages).min(100.0);
    let met = subject.rows * percent / 100.0;
    let keep_one_of = (met / most).floor().max(1.0);
    planner::restricted(subject.role, PATH, limit, || {
        let _own = trust::OwnTable::new(subject.table);
        let table = pg_sys::Oid::from(subject.table.0);
        // SAFETY: look-ups of names, null for what is gone.
        let name = unsafe {
            let (schema, name) = (pg_sys::get_namespace_name(pg_sys::get_rel_namespace(table)), pg_sys::get_rel_name(table));
            if schema.is_null() || name.is_null() {
                return Err(Error::internal("table vanished while it was looked at"));
            }
            node::text(pg_sys::quote_qualified_identifier(schema, name)).unwrap_or_default()
        };
        // The rows of a partitioned table are in its partitions.
        let only = if catalog::is_table(subject.table) { "ONLY " } else { "" };
        let (value, size) = match subject.computed {
            true => (
                format!("CASE WHEN pg_catalog.pg_column_size(x) OPERATOR(pg_catalog.<=) {WIDE} THEN x END"),
                "pg_catalog.pg_column_size(x)",
            ),
            false => ("x".to_owned(), "0"),
        };
        // OFFSET keeps the expression where it is, so that it is evaluated once.
        let sql = format!(
            "SELECT {value}, {size} FROM (
               SELECT ({}) AS x FROM {only}{name} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (1)
                WHERE pg_catalog.hashtid(ctid) OPERATOR(pg_catalog.%) {keep_one_of} OPERATOR(pg_catalog.=) 0 OFFSET 0) s",
            subject.sql
        );
        let sql = super::encoding::to_server(&sql).map_err(|_| Error::internal("expression contains a zero byte"))?;
        // SAFETY: the server's interface for queries inside functions: what is copied out of it lives until SPI_finish, and after an
        // error the aborting subtransaction finishes it.
        unsafe {
            pg_sys::SPI_connect();
            let found = Held::fetch(&sql, (2.0 * most) as usize).and_then(|held| {
                let Some(held) = held else { return Ok(None) };
                let (values, column) = held.values();
                f(&values, column)
            });
            pg_sys::SPI_finish();
            found
        }
    })
}

/// Sampled rows of a value and its size, of no more than [`BYTES`] together.
struct Held {
    /// With the hashes of their numbers.
    rows: Vec<(u64, pg_sys::HeapTuple)>,
    bytes: usize,
    /// Rows are held whose hash is a multiple of it. It doubles when there are too many bytes, so that what is held comes from the whole
    /// sample, and no pattern in the order of the rows is met.
    one_of: u64,
    met: u64,
    description: pg_sys::TupleDesc,
}

impl Held {
    /// Runs the statement until it has given `most` rows. `None` when more than one in a hundred of its values is too wide to be held.
    ///
    /// # Safety
    /// Inside an SPI connection, in whose memory the rows are held. The statement's columns are a value and its size.
    unsafe fn fetch(sql: &CStr, most: usize) -> Result<Option<Self>> {
        let mut held = Held { rows: Vec::new(), bytes: 0, one_of: 1, met: 0, description: std::ptr::null_mut() };
        let (mut seen, mut wide) = (0, 0);
        // SAFETY: a cursor of a statement without parameters; after each fetch there is a table of that many rows, which is freed.
        unsafe {
            let plan = pg_sys::SPI_prepare(sql.as_ptr(), 0, std::ptr::null_mut());
            if plan.is_null() {
                return Err(Error::internal("sample of a table cannot be planned"));
            }
            let cursor = pg_sys::SPI_cursor_open(std::ptr::null(), plan, std::ptr::null_mut(), std::ptr::null(), true);
            while seen < most {
                pg_sys::SPI_cursor_fetch(cursor, true, BATCH);
                let table = pg_sys::SPI_tuptable;
                let count = pg_sys::SPI_processed as usize;
                if table.is_null() {
                    return Err(Error::internal("sample of a table returned no rows"));
                }
                if held.description.is_null() {
                    held.description = pg_sys::CreateTupleDescCopy((*table).tupdesc);
                }
                for row in 0..count {
                    let (row, mut is_null) = (*(*table).vals.add(row), false);
                    let size = pg_sys::SPI_getbinval(row, (*table).tupdesc, 2, &mut is_null);
                    match !is_null && size.value() as i32 > WIDE {
                        true => wide += 1,
                        false => held.add(row),
                    }
                }
                pg_sys::SPI_freetuptable(table);
                seen += count;
                if count < BATCH as usize {
                    break;
                }
            }
            pg_sys::SPI_cursor_close(cursor);
        }
        Ok((wide * 100 <= seen).then_some(held))
    }

    /// # Safety
    /// A row of the statement.
    unsafe fn add(&mut self, row: pg_sys::HeapTuple) {
        self.met += 1;
        let hash = hash(&self.met.to_ne_bytes());
        if !hash.is_multiple_of(self.one_of) {
            return;
        }
        // SAFETY: a live row; copies are freed once, when they are taken out.
        unsafe {
            self.rows.push((hash, pg_sys::heap_copytuple(row)));
            self.bytes += (*row).t_len as usize;
            while self.bytes > BYTES && self.rows.len() > 1 {
                self.one_of *= 2;
                self.rows.retain(|(hash, row)| {
                    let stays = hash.is_multiple_of(self.one_of);
                    if !stays {
                        self.bytes -= (**row).t_len as usize;
                        pg_sys::heap_freetuple(*row);
                    }
                    stays
                });
            }
        }
    }

    /// The values, which live as long as the rows.
    ///
    /// # Safety
    /// The connection in whose memory the rows are is open.
    unsafe fn values(&self) -> (Vec<(pg_sys::Datum, bool)>, Column) {
        // SAFETY: the rows have this description, whose first column is the value.
        unsafe {
            let attribute = &*(*self.description).attrs.as_ptr();
            let column = Column { type_oid: attribute.atttypid, typmod: attribute.atttypmod };
            let value = |(_, row): &(u64, pg_sys::HeapTuple)| {
                let mut is_null = false;
                let value = pg_sys::SPI_getbinval(*row, self.description, 1, &mut is_null);
                (value, is_null)
            };
            (self.rows.iter().map(value).collect(), column)
        }
    }
}

/// As ANALYZE does it for an expression of an index (analyze.c: examine_attribute, compute_index_stats, update_attstats).
///
/// # Safety
/// The values are of the column's type.
unsafe fn compute(values: Values<'_>, column: Column, collation: pg_sys::Oid, total: f64) -> Result<Option<Statistics>> {
    if values.is_empty() {
        return Ok(None);
    }
    // SAFETY: the structs are filled as examine_attribute fills them; palloc'd memory lives until the sample ends, longer than what is
    // computed here; the tuple is copied.
    unsafe {
        let type_tuple = pg_sys::SearchSysCacheCopy(
            pg_sys::SysCacheIdentifier::TYPEOID as i32,
            pg_sys::Datum::from(column.type_oid),
            pg_sys::Datum::from(0usize),
            pg_sys::Datum::from(0usize),
            pg_sys::Datum::from(0usize),
        );
        if type_tuple.is_null() {
            return Ok(None);
        }
        let of_type = pg_sys::GETSTRUCT(type_tuple).cast::<pg_sys::FormData_pg_type>();
        let attribute = pg_sys::palloc0(size_of::<pg_sys::FormData_pg_attribute>()).cast::<pg_sys::FormData_pg_attribute>();
        (*attribute).attstattarget = -1;
        (*attribute).attnum = 1;
        (*attribute).atttypid = column.type_oid;
        (*attribute).atttypmod = column.typmod;
        (*attribute).attlen = (*of_type).typlen;
        (*attribute).attbyval = (*of_type).typbyval;
        (*attribute).attalign = (*of_type).typalign;
        (*attribute).attcollation = collation;
        let stats = pg_sys::palloc0(size_of::<pg_sys::VacAttrStats>()).cast::<pg_sys::VacAttrStats>();
        (*stats).attr = attribute;
        (*stats).attrtypid = column.type_oid;
        (*stats).attrtypmod = column.typmod;
        (*stats).attrtype = of_type;
        (*stats).attrcollid = collation;
        (*stats).anl_context = pg_sys::CurrentMemoryContext;
        (*stats).tupattnum = 1;
        for slot in 0..pg_sys::STATISTIC_NUM_SLOTS as usize {
            (*stats).statypid[slot] = column.type_oid;
            (*stats).statyplen[slot] = (*of_type).typlen;
            (*stats).statypbyval[slot] = (*of_type).typbyval;
            (*stats).statypalign[slot] = (*of_type).typalign;
        }
        let usable = if (*of_type).typanalyze == pg_sys::InvalidOid {
            pg_sys::std_typanalyze(stats)
        } else {
            let argument = pg_sys::Datum::from(stats.cast::<c_void>());
            pg_sys::OidFunctionCall1Coll((*of_type).typanalyze, pg_sys::InvalidOid, argument).value() & 0xFF != 0
        };
        let Some(compute_stats) = (*stats).compute_stats.filter(|_| usable) else { return Ok(None) };
        let (mut data, mut nulls): (Vec<pg_sys::Datum>, Vec<bool>) = values.iter().copied().unzip();
        (*stats).exprvals = data.as_mut_ptr();
        (*stats).exprnulls = nulls.as_mut_ptr();
        (*stats).rowstride = 1;
        let total = total.max(values.len() as f64);
        pg_sys::ffi::pg_guard_ffi_boundary(|| compute_stats(stats, Some(fetch), values.len() as c_int, total));
        if !(*stats).stats_valid {
            return Ok(None);
        }
        let (tuple, length) = form(&*stats);
        let distinct = f64::from((*stats).stadistinct);
        let correlated = (0..pg_sys::STATISTIC_NUM_SLOTS as usize)
            .find(|slot| (*stats).stakind[*slot] == pg_sys::STATISTIC_KIND_CORRELATION as i16 && (*stats).numnumbers[*slot] > 0);
        Ok(Some(Statistics {
            tuple,
            length,
            width: (*stats).stawidth.max(1) as u32,
            n_distinct: if distinct < 0.0 { -distinct * total } else { distinct }.max(1.0),
            null_frac: f64::from((*stats).stanullfrac),
            correlation: correlated.map_or(0.0, |slot| f64::from(*(*stats).stanumbers[slot])),
        }))
    }
}

/// Hands a sampled value to the function that computes statistics.
///
/// # Safety
/// `stats` was filled by [`compute`], and `row` is below the number of values.
#[pg_guard]
unsafe extern "C-unwind" fn fetch(stats: *mut pg_sys::VacAttrStats, row: c_int, is_null: *mut bool) -> pg_sys::Datum {
    // SAFETY: both arrays have a member for each row.
    unsafe {
        *is_null = *(*stats).exprnulls.add(row as usize);
        *(*stats).exprvals.add(row as usize)
    }
}

/// The row of `pg_statistic`, as update_attstats forms it: its data and their length.
///
/// # Safety
/// `stats` was computed.
unsafe fn form(stats: &pg_sys::VacAttrStats) -> (Rc<[u64]>, u32) {
    const COLUMNS: usize = pg_sys::Natts_pg_statistic as usize;
    let mut values = [pg_sys::Datum::from(0usize); COLUMNS];
    let mut nulls = [false; COLUMNS];
    let at = |number: u32, slot: usize| number as usize - 1 + slot;
    values[at(pg_sys::Anum_pg_statistic_staattnum, 0)] = pg_sys::Datum::from(1i16);
    values[at(pg_sys::Anum_pg_statistic_stanullfrac, 0)] = float4(stats.stanullfrac);
    values[at(pg_sys::Anum_pg_statistic_stawidth, 0)] = pg_sys::Datum::from(stats.stawidth);
    values[at(pg_sys::Anum_pg_statistic_stadistinct, 0)] = float4(stats.stadistinct);
    // SAFETY: the arrays of each slot are as long as their counts say; types are those that ANALYZE set. The catalog's descriptor is used
    // while the catalog is open.
    unsafe {
        for slot in 0..pg_sys::STATISTIC_NUM_SLOTS as usize {
            values[at(pg_sys::Anum_pg_statistic_stakind1, slot)] = pg_sys::Datum::from(stats.stakind[slot]);
            values[at(pg_sys::Anum_pg_statistic_staop1, slot)] = pg_sys::Datum::from(stats.staop[slot]);
            values[at(pg_sys::Anum_pg_statistic_stacoll1, slot)] = pg_sys::Datum::from(stats.stacoll[slot]);
            let numbers = at(pg_sys::Anum_pg_statistic_stanumbers1, slot);
            if stats.numnumbers[slot] > 0 {
                let count = stats.numnumbers[slot] as usize;
                let mut elements: Vec<pg_sys::Datum> = (0..count).map(|i| float4(*stats.stanumbers[slot].add(i))).collect();
                let array = pg_sys::construct_array(elements.as_mut_ptr(), count as c_int, pg_sys::FLOAT4OID, 4, true, b'i' as _);
                values[numbers] = pg_sys::Datum::from(array.cast::<c_void>());
            } else {
                nulls[numbers] = true;
            }
            let members = at(pg_sys::Anum_pg_statistic_stavalues1, slot);
            if stats.numvalues[slot] > 0 {
                let array = pg_sys::construct_array(
                    stats.stavalues[slot],
                    stats.numvalues[slot],
                    stats.statypid[slot],
                    stats.statyplen[slot].into(),
                    stats.statypbyval[slot],
                    stats.statypalign[slot],
                );
                values[members] = pg_sys::Datum::from(array.cast::<c_void>());
            } else {
                nulls[members] = true;
            }
        }
        let catalog = pg_sys::table_open(pg_sys::StatisticRelationId, pg_sys::AccessShareLock as i32);
        let tuple = pg_sys::heap_form_tuple((*catalog).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
        let length = (*tuple).t_len;
        let mut data = vec![0u64; (length as usize).div_ceil(8)];
        std::ptr::copy_nonoverlapping((*tuple).t_data.cast::<u8>(), data.as_mut_ptr().cast::<u8>(), length as usize);
        (data.into(), length)
    }
}

fn float4(value: f32) -> pg_sys::Datum {
    // As Float4GetDatum does it: the bits of the number, in the low half.
    pg_sys::Datum::from(value.to_bits() as i32)
}

impl Statistics {
    /// The bytes of the tuple, as they are in memory.
    pub fn image(&self) -> &[u64] {
        &self.tuple
    }

    /// The tuple for the planner, in the current memory context; `release` frees it.
    ///
    /// # Safety
    /// A memory context of the server is current.
    pub unsafe fn tuple(&self) -> pg_sys::HeapTuple {
        const HEAD: usize = size_of::<pg_sys::HeapTupleData>().next_multiple_of(8);
        // SAFETY: room for the head and the data, both aligned; the data were a tuple's.
        unsafe {
            let tuple = pg_sys::palloc0(HEAD + self.tuple.len() * 8).cast::<pg_sys::HeapTupleData>();
            let data = tuple.cast::<u8>().add(HEAD);
            std::ptr::copy_nonoverlapping(self.tuple.as_ptr().cast::<u8>(), data, self.length as usize);
            (*tuple).t_len = self.length;
            (*tuple).t_data = data.cast();
            tuple
        }
    }

    /// Frees what [`Self::tuple`] made.
    ///
    /// # Safety
    /// Called by the server with that very tuple.
    #[pg_guard]
    pub unsafe extern "C-unwind" fn release(tuple: pg_sys::HeapTuple) {
        // SAFETY: one palloc'd chunk.
        unsafe { pg_sys::pfree(tuple.cast()) };
    }
}

/// A table's column in SQL; `None` when it is gone.
pub fn column_sql(table: RelId, attnum: i16) -> Option<String> {
    catalog::attribute_name(table, attnum).map(|name| catalog::quote(&name))
}
