//! Looking at some rows of a table, for the size of an index on them.
//!
//! Of each value no more is kept than how many bytes it would take in an index and a hash of its image, and of conditions of partial
//! indexes which rows pass. The rows are read as the owner of the table, who may do so, by a statement that calls no function of anybody; and whatever goes wrong, there is no sample then. Sizes
//! tell of values, so there is none either for a caller who may not read them.

use super::error::{Error, Kind, Result};
use super::planner::Snapshot;
use super::role::{self, RoleScope};
use super::spi::SettingScope;
use super::time::TimeoutScope;
use super::{own, sampling, subxact};
use indexpilot_core::model::{AttNum, FIRST_EXPRESSION, PAGE, TableInfo};
use indexpilot_core::size::{RowSample, Value, Values, hash};
use pgrx::{Spi, pg_sys, varlena};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

mod condition;
#[cfg(any(test, feature = "pg_test"))]
mod tests;

/// How long to read a table at most: its blocks may have to come from a slow disk.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// Blocks to look at: as many as ANALYZE would look at for a statistics target of one.
const BLOCKS: f64 = 300.0;
/// Rows to look at, where that many blocks have more.
const ROWS: f64 = 30_000.0;
/// Rows at which reading ends even when the statistics promised fewer.
const MAX_ROWS: i64 = 60_000;
/// The largest entry of a B-tree (`BTMaxItemSize`, nbtree.h): what is larger cannot be in an index.
const LARGEST: usize = 2704;
/// An index compresses values of more bytes than this (`TOAST_INDEX_TARGET`, heaptoast.h).
const COMPRESSED_FROM: usize = 508;
/// Conditions of a table that are looked at: each is evaluated on all rows.
pub const CONDITIONS: usize = 32;
/// Values of a column that are compressed to see how much it saves; the others are taken to be like them.
const COMPRESSED: f64 = 300.0;

/// Sampled rows of the table with the values of `columns`, and which of them pass each of the `conditions`, of which those are left out
/// that it is not safe to evaluate here, that the current role may not read, and all but the first [`CONDITIONS`]; `None` when no index can be made on it, it is empty, locked by somebody for
/// more than a moment, gone, or cannot be read within `limit`; when the current role may not read all of the columns in all rows; and in
/// a serializable transaction, of which reading would become a part.
pub fn sample(table: &TableInfo, columns: &BTreeSet<AttNum>, conditions: &[&str], limit: Duration) -> Option<RowSample> {
    let columns: Vec<AttNum> =
        columns.iter().copied().filter(|c| *c > 0 && *c < FIRST_EXPRESSION && table.column(*c).is_some()).collect();
    if sampling::serializable() || table.refused.is_some() || table.parts > 0 || columns.is_empty() || table.bytes < PAGE {
        return None;
    }
    let readable = role::readable(table.rel, table.columns.iter().map(|c| c.attnum));
    if !columns.iter().all(|c| readable.contains(c)) {
        return None;
    }
    let _work = own::work();
    // The closure owns nothing that an unwinding error could leave half changed: all of it is discarded.
    subxact::discard(AssertUnwindSafe(|| read(table, &columns, (conditions, &readable), limit))).ok().flatten()
}

fn read(
    table: &TableInfo,
    columns: &[AttNum],
    (conditions, readable): (&[&str], &BTreeSet<AttNum>),
    limit: Duration,
) -> Result<Option<RowSample>> {
    let _settings = SettingScope::new(&[
        (c"search_path", c"pg_catalog, pg_temp"),
        // A policy would leave rows out, and call what its owner wrote: then an error, and no sample.
        (c"row_security", c"off"),
        (c"lock_timeout", c"100ms"),
        (c"max_parallel_workers_per_gather", c"0"),
        (c"jit", c"off"),
    ]);
    let _timeout = TimeoutScope::new(limit);
    let relation = pg_sys::Oid::from(table.rel.0);
    // SAFETY: opens the relation with the lock that reading takes, which stays until the subtransaction ends, so its name cannot
    // change before the statement is parsed; null when it is gone.
    let (owner, from, share) = unsafe {
        let open = pg_sys::try_relation_open(relation, pg_sys::AccessShareLock as i32);
        let Some(class) = open.as_ref().and_then(|r| r.rd_rel.as_ref()) else { return Ok(None) };
        let readable = [pg_sys::RELKIND_RELATION, pg_sys::RELKIND_MATVIEW].contains(&(class.relkind as u8))
            && class.relpersistence as u8 != pg_sys::RELPERSISTENCE_TEMP;
        let blocks = pg_sys::RelationGetNumberOfBlocksInFork(open, pg_sys::ForkNumber::MAIN_FORKNUM);
        let (owner, kept) = (class.relowner, pg_sys::NoLock as i32);
        pg_sys::relation_close(open, kept);
        if !readable || blocks == 0 {
            return Ok(None);
        }
        let a_block = (table.rows / (table.bytes / PAGE).max(1) as f64).max(1.0);
        let share = (BLOCKS.min(ROWS / a_block) / f64::from(blocks)).min(1.0);
        (owner, from(relation)?, share)
    };
    let _role = RoleScope::new(owner, true);
    let _snapshot = Snapshot::new();
    let (passed, conditions): (Vec<&str>, Vec<Vec<u8>>) =
        conditions.iter().take(CONDITIONS).filter_map(|sql| Some((*sql, condition::plain(sql, &from, readable)?))).unzip();
    let sql = statement(relation, columns, &conditions, &from, share)?;
    Spi::connect(|_| {
        // SAFETY: inside an SPI connection, with a snapshot; the text is NUL-terminated. Reading only, so no transaction number is given.
        let done = unsafe { pg_sys::SPI_execute(sql.as_ptr(), true, MAX_ROWS as _) };
        if done != pg_sys::SPI_OK_SELECT as i32 {
            return Err(Error::internal(format!("reading rows ended with {done}")));
        }
        // SAFETY: after a SELECT that is the table of its rows, until the connection ends.
        unsafe { rows(columns, &passed, share >= 1.0) }
    })
}

fn gone() -> Error {
    Error::new(Kind::UndefinedTable, "table vanished while it was looked at")
}

/// From where the rows come.
///
/// # Safety
/// The relation is locked.
unsafe fn from(relation: pg_sys::Oid) -> Result<Vec<u8>> {
    // SAFETY: look-ups that return null for what is gone, and quoting of names that they found.
    unsafe {
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        let name = pg_sys::get_rel_name(relation);
        if schema.is_null() || name.is_null() {
            return Err(gone());
        }
        let name = CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, name));
        Ok([b" FROM ONLY ", name.to_bytes()].concat())
    }
}

fn statement(relation: pg_sys::Oid, columns: &[AttNum], conditions: &[Vec<u8>], from: &[u8], share: f64) -> Result<CString> {
    let mut sql = b"SELECT ctid".to_vec();
    for column in columns {
        // SAFETY: a look-up that returns null for what is gone, and quoting of the name that it found.
        let name = unsafe {
            let name = pg_sys::get_attname(relation, *column, true);
            if name.is_null() {
                return Err(gone());
            }
            CStr::from_ptr(pg_sys::quote_identifier(name))
        };
        sql.extend_from_slice(b", ");
        sql.extend_from_slice(name.to_bytes());
    }
    for condition in conditions {
        sql.extend_from_slice(b", ");
        sql.extend_from_slice(condition);
    }
    sql.extend_from_slice(from);
    if share < 1.0 {
        sql.extend_from_slice(format!(" TABLESAMPLE system ({}) REPEATABLE (1)", share * 100.0).as_bytes());
    }
    CString::new(sql).map_err(|_| gone())
}

/// The rows that SPI has just read.
///
/// # Safety
/// `SPI_tuptable` is the result of [`statement`] for these columns and conditions.
unsafe fn rows(columns: &[AttNum], conditions: &[&str], whole: bool) -> Result<Option<RowSample>> {
    // SAFETY: the table has SPI_processed tuples of one description, whose first attribute is a row's address and is never null. A value is
    // as its type's description says, and lives as long as its tuple.
    unsafe {
        let Some(table) = pg_sys::SPI_tuptable.as_ref() else { return Ok(None) };
        let count = usize::try_from(pg_sys::SPI_processed).unwrap_or(0);
        let mut readers: Vec<Reader> =
            (2..).take(columns.len()).map(|n| Reader::new(pg_sys::SPI_gettypeid(table.tupdesc, n))).collect();
        let mut blocks = Vec::with_capacity(count);
        let attributes = 1 + columns.len() + conditions.len();
        let mut datums = vec![pg_sys::Datum::from(0_usize); attributes];
        let mut nulls = vec![false; attributes];
        let mut passing = vec![Vec::with_capacity(count); conditions.len()];
        for row in 0..count {
            pg_sys::heap_deform_tuple(*table.vals.add(row), table.tupdesc, datums.as_mut_ptr(), nulls.as_mut_ptr());
            let address = &*datums[0].cast_mut_ptr::<pg_sys::ItemPointerData>();
            blocks.push(u32::from(address.ip_blkid.bi_hi) << 16 | u32::from(address.ip_blkid.bi_lo));
            for (reader, (datum, null)) in readers.iter_mut().zip(datums.iter().zip(&nulls).skip(1)) {
                let value = if *null { Value::NULL } else { reader.value(*datum) };
                reader.values.push(value);
            }
            let answers = datums.iter().zip(&nulls).skip(1 + columns.len());
            passing.iter_mut().zip(answers).for_each(|(passing, (datum, null))| passing.push(!null && datum.value() & 0xFF != 0));
        }
        let whole = whole && (count as i64) < MAX_ROWS;
        let values = |r: Reader| Values::new(r.align, r.varying, r.values);
        let sample =
            RowSample::new(blocks, whole, columns.iter().copied().zip(readers.into_iter().map(values)).collect::<BTreeMap<_, _>>());
        let conditions = conditions.iter().map(|sql| (*sql).to_owned()).zip(passing).collect();
        Ok(sample.map(|s| s.with_conditions(conditions)))
    }
}

/// Reads values of one type.
struct Reader {
    length: i16,
    by_value: bool,
    align: u8,
    varying: bool,
    compressible: bool,
    /// How many values were compressed, their bytes before and after.
    compressed: (f64, f64, f64),
    values: Vec<Value>,
}

impl Reader {
    fn new(of: pg_sys::Oid) -> Self {
        let (mut length, mut by_value, mut align) = (0, false, 0);
        // SAFETY: look-ups of a type that a table's column has.
        let storage = unsafe {
            pg_sys::get_typlenbyvalalign(of, &mut length, &mut by_value, &mut align);
            pg_sys::get_typstorage(of)
        };
        // A B-tree stores a name as a string of its own length (name_ops).
        if of == pg_sys::NAMEOID {
            (length, align) = (-2, b'c' as c_char);
        }
        Reader {
            length,
            by_value,
            align: match align as u8 {
                b'c' => 1,
                b's' => 2,
                b'i' => 4,
                _ => 8,
            },
            varying: length == -1 && storage as u8 != b'p',
            compressible: [b'm', b'x'].contains(&(storage as u8)),
            compressed: (0.0, 0.0, 0.0),
            values: Vec::new(),
        }
    }

    /// # Safety
    /// The value is of this reader's type and not null.
    unsafe fn value(&mut self, datum: pg_sys::Datum) -> Value {
        let size = |bytes: usize| bytes.min(LARGEST) as u16;
        if self.by_value {
            return Value { hash: hash(&datum.value().to_ne_bytes()), size: size(self.length.max(1) as usize) };
        }
        // SAFETY: not by value, so a pointer to as many bytes as its length says, or its header, or the zero at its end.
        unsafe {
            let start = datum.cast_mut_ptr::<u8>().cast_const();
            let (bytes, stored) = match self.length {
                -1 => self.variable(start.cast()),
                -2 => {
                    let text = CStr::from_ptr(start.cast()).to_bytes_with_nul();
                    (text, text.len())
                }
                n => (std::slice::from_raw_parts(start, usize::try_from(n).unwrap_or(0)), usize::try_from(n).unwrap_or(1)),
            };
            Value { hash: hash(bytes), size: size(stored) }
        }
    }

    /// The bytes of a value that has a header, and how many it takes in an index [indextuple.c, `index_form_tuple`].
    ///
    /// # Safety
    /// A live value of variable length, which may be short, compressed, or a pointer to where it is.
    unsafe fn variable<'a>(&mut self, value: *const pg_sys::varlena) -> (&'a [u8], usize) {
        // SAFETY: as the header says; a pointer to where a value is on disk has sizes and OIDs of four bytes each, not aligned, the second
        // of which is the size there (`varatt_external`).
        unsafe {
            if varlena::varatt_is_1b_e(value) {
                let pointer = varlena::vardata_1b_e(value).cast::<u8>();
                let length = varlena::varsize_external(value).saturating_sub(2);
                let bytes = std::slice::from_raw_parts(pointer, length);
                let there = bytes.get(4..8).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes) & 0x3FFF_FFFF;
                return (bytes, there as usize + 4);
            }
            let bytes = std::slice::from_raw_parts(varlena::vardata_any(value).cast(), varlena::varsize_any_exhdr(value));
            let stored = if varlena::varatt_is_4b_u(value) {
                match bytes.len() + 4 {
                    n if self.varying && n - 3 <= 127 => n - 3,
                    n if self.compressible && n > COMPRESSED_FROM => self.compress(value, n),
                    n => n,
                }
            } else {
                varlena::varsize_any(value)
            };
            (bytes, stored)
        }
    }

    /// What compression leaves of a value of so many bytes.
    ///
    /// # Safety
    /// A live value with a header of four bytes, not compressed.
    unsafe fn compress(&mut self, value: *const pg_sys::varlena, bytes: usize) -> usize {
        let (tried, before, after) = &mut self.compressed;
        if *tried >= COMPRESSED {
            return (bytes as f64 * *after / *before) as usize;
        }
        // SAFETY: a plain value; the method 0 is the default one. Null when it does not get smaller, else a new value. It may raise, for
        // want of memory or of the method, and what is called owns nothing that an error would jump across.
        let left = unsafe {
            let result = pg_sys::ffi::pg_guard_ffi_boundary(|| sys::toast_compress_datum(pg_sys::Datum::from(value), 0));
            let smaller = result.cast_mut_ptr::<pg_sys::varlena>();
            if smaller.is_null() {
                bytes
            } else {
                let left = varlena::varsize_any(smaller);
                pg_sys::pfree(smaller.cast());
                left
            }
        };
        *tried += 1.0;
        *before += bytes as f64;
        *after += left as f64;
        left
    }
}

mod sys {
    // Exported by the server (access/toast_internals.h), not bound by pgrx.
    unsafe extern "C-unwind" {
        pub fn toast_compress_datum(value: pgrx::pg_sys::Datum, method: std::ffi::c_char) -> pgrx::pg_sys::Datum;
    }
}
