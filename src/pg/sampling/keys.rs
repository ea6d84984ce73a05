//! What gin, gist and spgist indexes would hold of sampled values: the keys that their operator classes take out of them.
//!
//! # Safety
//! Values are of the type of their column, for which the operator class is.

use super::{Column, Values};
use crate::pg::indexstmt::IndexKey;
use indexpilot_core::model::{AccessMethod, OpClass, SearchKeys};
use pgrx::pg_sys;
use std::collections::HashMap;
use std::ffi::c_void;
use std::hash::{DefaultHasher, Hasher};

/// Different keys that are told apart.
const MOST_KEYS: usize = 1_000_000;
/// Support functions (gin.h, gist.h).
const GIN_EXTRACT_VALUE: i16 = 2;
const GIST_COMPRESS: i16 = 3;

/// Bytes of a value, and their hash. `None` for a type without a size of its own.
///
/// # Safety
/// `value` is not NULL and of a type of that length.
unsafe fn measure(value: pg_sys::Datum, length: i16, by_value: bool) -> Option<(f64, u64)> {
    let mut hasher = DefaultHasher::new();
    // SAFETY: a value by reference points to that many bytes, or to a varlena, which is detoasted first.
    unsafe {
        let bytes = match length {
            _ if by_value => {
                hasher.write_usize(value.value());
                return Some((f64::from(length), hasher.finish()));
            }
            -1 => {
                let packed = pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr());
                std::slice::from_raw_parts(pgrx::vardata_any(packed).cast::<u8>(), pgrx::varsize_any_exhdr(packed))
            }
            n if n > 0 => std::slice::from_raw_parts(value.cast_mut_ptr::<u8>(), n as usize),
            _ => return None,
        };
        hasher.write(bytes);
        // Indexes store short values with a header of one byte.
        let header = if length > 0 {
            0
        } else if bytes.len() < 126 {
            1
        } else {
            4
        };
        Some(((bytes.len() + header) as f64, hasher.finish()))
    }
}

/// The type of the keys that an operator class stores for a column of type `column`, with its length and whether it goes by value.
///
/// # Safety
/// None beyond a running transaction.
unsafe fn key_type(key: &IndexKey, column: pg_sys::Oid) -> Option<(i16, bool)> {
    // SAFETY: the cache's tuple has this form, and is released; the type exists, since the class or the column has it.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::CLAOID as i32, pg_sys::Datum::from(key.opclass));
        if tuple.is_null() {
            return None;
        }
        let mut stored = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_opclass>()).opckeytype;
        pg_sys::ReleaseSysCache(tuple);
        // As ConstructTupleDescriptor does it (index.c).
        if stored == pg_sys::ANYELEMENTOID && key.input == pg_sys::ANYARRAYOID {
            stored = pg_sys::get_base_element_type(column);
        }
        if stored == pg_sys::InvalidOid {
            stored = column;
        }
        let (mut length, mut by_value) = (0, false);
        pg_sys::get_typlenbyval(stored, &mut length, &mut by_value);
        Some((length, by_value))
    }
}

/// A memory context that is emptied after each row.
struct Scratch(pg_sys::MemoryContext);

impl Scratch {
    fn new() -> Self {
        // SAFETY: a child of the sample's context, with which it goes; the name is a constant.
        Scratch(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"IndexPilot sample".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }

    fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        // SAFETY: switches there and back; nothing of it is used after the reset. After an error the subtransaction switches back.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.0);
            let found = f();
            pg_sys::MemoryContextSwitchTo(before);
            pg_sys::MemoryContextReset(self.0);
            found
        }
    }
}

/// The keys that gin takes out of the values.
///
/// # Safety
/// The values are of the column's type, for which the key's operator class is.
pub(super) unsafe fn gin_keys(values: Values<'_>, column: Column, key: &IndexKey, total: f64) -> Option<SearchKeys> {
    // SAFETY: extractValue of a gin class takes the value and two places for results (gin.sgml), and returns that many keys.
    unsafe {
        let (length, by_value) = key_type(key, column.type_oid)?;
        let function = pg_sys::get_opfamily_proc(key.family, key.input, key.input, GIN_EXTRACT_VALUE);
        if function == pg_sys::InvalidOid || values.is_empty() {
            return None;
        }
        let collation = if key.collation == pg_sys::InvalidOid { pg_sys::DEFAULT_COLLATION_OID } else { key.collation };
        let scratch = Scratch::new();
        let mut seen: HashMap<u64, u32> = HashMap::new();
        let (mut postings, mut bytes, mut measured) = (0.0, 0.0, 0.0);
        for (value, is_null) in values {
            pgrx::check_for_interrupts!();
            let mut of_row: Vec<(u64, f64)> = scratch.run(|| {
                let (mut count, mut nulls): (i32, *mut bool) = (0, std::ptr::null_mut());
                if *is_null {
                    return Vec::new();
                }
                let keys = pg_sys::OidFunctionCall3Coll(
                    function,
                    collation,
                    *value,
                    pg_sys::Datum::from((&raw mut count).cast::<c_void>()),
                    pg_sys::Datum::from((&raw mut nulls).cast::<c_void>()),
                );
                let keys = keys.cast_mut_ptr::<pg_sys::Datum>();
                if keys.is_null() {
                    return Vec::new();
                }
                (0..count.max(0) as usize)
                    .filter(|i| nulls.is_null() || !*nulls.add(*i))
                    .filter_map(|i| measure(*keys.add(i), length, by_value))
                    .map(|(width, hash)| (hash, width))
                    .collect()
            });
            of_row.sort_unstable_by_key(|(hash, _)| *hash);
            of_row.dedup_by_key(|(hash, _)| *hash);
            if of_row.is_empty() {
                // A row without keys has a key that says so.
                of_row.push((u64::MAX, 0.0));
            }
            postings += of_row.len() as f64;
            for (hash, width) in of_row {
                if seen.len() >= MOST_KEYS && !seen.contains_key(&hash) {
                    continue;
                }
                let count = seen.entry(hash).or_insert(0);
                if *count == 0 {
                    bytes += width;
                    measured += 1.0;
                }
                *count += 1;
            }
        }
        let scale = (total / values.len() as f64).max(1.0);
        let (distinct, classes) = spread(seen.into_values(), scale);
        Some(SearchKeys {
            method: AccessMethod::Gin,
            opclass: OpClass::Default,
            per_row: postings / values.len() as f64,
            distinct,
            width: bytes / f64::max(measured, 1.0),
            in_order: 0.0,
            classes,
        })
    }
}

/// From how often each key was met in the sample to how many keys there are in the table, and how many rows they have. Keys that were met
/// often have so many times more. Of the rare ones, others were not met at all: their number is Haas and Stokes' estimate, which ANALYZE
/// uses too, of the rare ones alone, since it is far off for a mixture.
fn spread(counts: impl Iterator<Item = u32>, scale: f64) -> (f64, Vec<(f64, f64)>) {
    const RARE: u32 = 2;
    let mut classes: HashMap<u32, (f64, f64)> = HashMap::new();
    let (mut common, mut rare, mut once, mut postings) = (0.0, 0.0, 0.0, 0.0);
    for count in counts {
        if count <= RARE && scale > 1.0 {
            rare += 1.0;
            once += f64::from(u8::from(count == 1));
            postings += f64::from(count);
            continue;
        }
        common += 1.0;
        // Classes by eighths of a power of two.
        let class = (8.0 * f64::from(count).log2()) as u32;
        let entry = classes.entry(class).or_insert((0.0, 0.0));
        *entry = (entry.0 + 1.0, entry.1 + f64::from(count));
    }
    let mut found: Vec<(f64, f64)> = classes.into_values().map(|(keys, rows)| (keys, rows / keys * scale)).collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    let all = (postings * rare / f64::max(postings - once + once / scale, 1.0)).clamp(rare, f64::max(postings * scale, rare));
    if all > 0.0 {
        found.push((all, (postings * scale / all).max(1.0)));
    }
    (common + all, found)
}

/// The keys that gist and spgist store for the values: one for each row.
///
/// # Safety
/// As for [`gin_keys`].
pub(super) unsafe fn stored_keys(values: Values<'_>, column: Column, method: AccessMethod, key: &IndexKey) -> Option<SearchKeys> {
    // SAFETY: compress of a gist class takes an entry with a leaf key and returns one (gist.h); the relation is for its own use, and
    // the classes only pass it on.
    unsafe {
        let (length, by_value) = key_type(key, column.type_oid)?;
        let (mut plain, mut plain_by_value) = (0, false);
        pg_sys::get_typlenbyval(column.type_oid, &mut plain, &mut plain_by_value);
        // Of SP-GiST, the number is another function's.
        let compress = match method {
            AccessMethod::Gist => pg_sys::get_opfamily_proc(key.family, key.input, key.input, GIST_COMPRESS),
            _ => pg_sys::InvalidOid,
        };
        let scratch = Scratch::new();
        let mut seen: HashMap<u64, u32> = HashMap::new();
        let (mut bytes, mut rows) = (0.0, 0.0);
        for value in values.iter().filter(|(_, is_null)| !is_null).map(|(value, _)| *value) {
            pgrx::check_for_interrupts!();
            let measured = scratch.run(|| {
                if compress == pg_sys::InvalidOid {
                    return measure(value, plain, plain_by_value);
                }
                let mut entry = pg_sys::GISTENTRY { key: value, leafkey: true, ..Default::default() };
                let argument = pg_sys::Datum::from((&raw mut entry).cast::<c_void>());
                let stored = pg_sys::OidFunctionCall1Coll(compress, key.collation, argument).cast_mut_ptr::<pg_sys::GISTENTRY>();
                if stored.is_null() { None } else { measure((*stored).key, length, by_value) }
            });
            let Some((width, hash)) = measured else { continue };
            bytes += width;
            rows += 1.0;
            *seen.entry(hash).or_insert(0) += 1;
        }
        Some(SearchKeys {
            method: AccessMethod::Gist,
            opclass: OpClass::Default,
            per_row: 1.0,
            distinct: seen.len() as f64,
            width: bytes / f64::max(rows, 1.0),
            in_order: in_order(values, column.type_oid, key.collation),
            classes: Vec::new(),
        })
    }
}

/// How far values come in their order, 0 to 1: from the share of neighbours that ascend (or descend), where a type has an order.
///
/// # Safety
/// The values are of that type.
unsafe fn in_order(values: Values<'_>, type_oid: pg_sys::Oid, collation: pg_sys::Oid) -> f64 {
    // SAFETY: the type cache's entry stays, and its comparison takes two values of the type.
    unsafe {
        let compare = (*pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_CMP_PROC as i32)).cmp_proc;
        if compare == pg_sys::InvalidOid {
            return 0.0;
        }
        let scratch = Scratch::new();
        let (mut ascending, mut descending): (f64, f64) = (0.0, 0.0);
        for pair in values.windows(2).filter(|pair| !pair[0].1 && !pair[1].1) {
            pgrx::check_for_interrupts!();
            let order = scratch.run(|| pg_sys::OidFunctionCall2Coll(compare, collation, pair[0].0, pair[1].0).value() as i32);
            match order {
                0 => {}
                n if n < 0 => ascending += 1.0,
                _ => descending += 1.0,
            }
        }
        (ascending - descending).abs() / f64::max(ascending + descending, 1.0)
    }
}
