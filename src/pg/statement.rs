//! Reading a statement that the executor is given: its text, its base tables, its parameters. Nothing here raises, waits or allocates,
//! except where it says so: hooks call it for statements of all users.
//!
//! # Safety
//! The functions are given a QueryDesc, or the plan of one, between its creation and its end.

use super::{compat, value};
use pgrx::pg_sys;
use std::ffi::c_char;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Cursor;

/// Range table entries and inheritance children of a plan that are looked at.
const MAX_ENTRIES: usize = 1024;
/// Statements that begin further into their string than this are not read: finding them would mean reading it all.
const MAX_OFFSET: usize = 1024 * 1024;
/// Base tables of a statement that are remembered.
pub const RELATIONS: usize = 16;
/// Relations in [`Dependencies`].
const DEPENDENCIES: usize = 8;

mod sys {
    use super::pg_sys;
    use std::ffi::c_char;
    // Without pgrx's wrappers, which set a jump point for errors that these never raise: they are called for every statement.
    unsafe extern "C-unwind" {
        pub fn strnlen(text: *const c_char, limit: usize) -> usize;
        pub fn GetUserId() -> pg_sys::Oid;
        pub fn GetCurrentSubTransactionId() -> pg_sys::SubTransactionId;
        pub fn GetCurrentTransactionNestLevel() -> i32;
    }
}

/// The role whose rights count now.
#[inline]
pub fn current_role() -> u32 {
    // SAFETY: reads a variable of the process.
    unsafe { sys::GetUserId() }.to_u32()
}

/// The innermost subtransaction.
#[inline]
pub fn current_subtransaction() -> u32 {
    // SAFETY: reads the transaction state, which always exists.
    unsafe { sys::GetCurrentSubTransactionId() }
}

/// How many transactions are nested: 1 in a transaction without subtransactions.
pub fn transaction_level() -> usize {
    // SAFETY: as above.
    usize::try_from(unsafe { sys::GetCurrentTransactionNestLevel() }).unwrap_or(0)
}

/// A temporary table was used in this transaction.
#[inline]
pub fn temporary_tables_used() -> bool {
    // SAFETY: reads a variable of the process (xact.h).
    unsafe { pg_sys::MyXactFlags & pg_sys::XACT_FLAGS_ACCESSEDTEMPNAMESPACE as i32 != 0 }
}

/// The name of a `CmdType`, as `workload.command` has it.
pub fn command_name(command: pg_sys::CmdType::Type) -> &'static str {
    use pg_sys::CmdType::*;
    match command {
        CMD_SELECT => "select",
        CMD_INSERT => "insert",
        CMD_UPDATE => "update",
        CMD_DELETE => "delete",
        CMD_UTILITY => "utility",
        c if c == compat::CMD_MERGE => "merge",
        _ => "unknown",
    }
}

/// The base tables of a plan.
#[derive(Clone, Copy)]
pub struct Relations {
    /// OIDs, ascending, each once.
    pub oids: [u32; RELATIONS],
    pub count: u8,
    /// There are more.
    pub truncated: bool,
}

/// The base tables: no views, no catalogs, and of an inheritance tree only the parent, since its children depend on what the planner
/// pruned. `None` when the statement reads nothing but catalogs, or a transition table of its trigger, which nobody else knows.
///
/// # Safety
/// `plan` is a plan of this backend.
#[inline]
pub unsafe fn relations(plan: &pg_sys::PlannedStmt) -> Option<Relations> {
    let mut found = Relations { oids: [0; RELATIONS], count: 0, truncated: false };
    let mut catalogs = false;
    // SAFETY: the lists of a plan hold nodes of these types (plannodes.h).
    unsafe {
        let children = children(plan);
        for i in 0..length(plan.rtable) {
            let entry = (*plan.rtable).elements.add(i).cast::<*const pg_sys::RangeTblEntry>().read();
            let Some(entry) = entry.as_ref() else { continue };
            if entry.rtekind == pg_sys::RTEKind::RTE_NAMEDTUPLESTORE {
                return None;
            }
            if entry.rtekind != pg_sys::RTEKind::RTE_RELATION {
                continue;
            }
            if entry.relkind as u8 == pg_sys::RELKIND_VIEW
                || children.is_some_and(|c| c.get((i + 1) / 64).is_some_and(|word| word >> ((i + 1) % 64) & 1 == 1))
            {
                continue;
            }
            let oid = entry.relid.to_u32();
            if oid < pg_sys::FirstNormalObjectId {
                catalogs = true;
            } else {
                insert(&mut found, oid);
            }
        }
    }
    (found.count > 0 || !catalogs).then_some(found)
}

/// The OIDs of all relations that a plan depends on, in the order in which the planner met them; `None` when there are more than fit.
/// Of one text with the same list, the base tables are the same.
///
/// # Safety
/// As [`relations`].
#[inline]
pub unsafe fn dependencies(plan: &pg_sys::PlannedStmt) -> Option<Dependencies> {
    let mut found = Dependencies { oids: [0; DEPENDENCIES], count: 0 };
    // SAFETY: NULL or a list of OIDs, each in a cell of its own (pg_list.h).
    unsafe {
        let Some(list) = plan.relationOids.as_ref() else { return Some(found) };
        found.count = list.length as usize;
        for (i, place) in found.oids.iter_mut().enumerate().take(found.count) {
            *place = (*list.elements.add(i)).oid_value.to_u32();
        }
    }
    (found.count <= DEPENDENCIES).then_some(found)
}

/// See [`dependencies`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Dependencies {
    oids: [u32; DEPENDENCIES],
    count: usize,
}

impl Dependencies {
    pub const NONE: Dependencies = Dependencies { oids: [0; DEPENDENCIES], count: 0 };
}

/// The entries that stand for children of other tables, as bits; `None` when there are none. (A child without parent table is a branch
/// of UNION ALL.)
#[inline]
unsafe fn children(plan: &pg_sys::PlannedStmt) -> Option<[u64; MAX_ENTRIES / 64 + 1]> {
    // SAFETY: as above.
    unsafe {
        let count = length(plan.appendRelations);
        if count == 0 {
            return None;
        }
        let mut bits = [0u64; MAX_ENTRIES / 64 + 1];
        for i in 0..count {
            let child = (*plan.appendRelations).elements.add(i).cast::<*const pg_sys::AppendRelInfo>().read();
            if let Some(child) = child.as_ref().filter(|c| c.parent_reloid != pg_sys::InvalidOid)
                && let Some(word) = bits.get_mut(child.child_relid as usize / 64)
            {
                *word |= 1 << (child.child_relid % 64);
            }
        }
        Some(bits)
    }
}

unsafe fn length(list: *const pg_sys::List) -> usize {
    // SAFETY: NULL or a list.
    unsafe { list.as_ref() }.map_or(0, |l| usize::try_from(l.length).unwrap_or(0)).min(MAX_ENTRIES)
}

#[inline]
fn insert(found: &mut Relations, oid: u32) {
    let count = found.count as usize;
    let at = found.oids.iter().take(count).position(|o| *o >= oid).unwrap_or(count);
    if at < count && found.oids.get(at) == Some(&oid) {
        return;
    }
    if count >= RELATIONS {
        found.truncated = true;
        return;
    }
    found.oids.copy_within(at..count, at + 1);
    if let Some(place) = found.oids.get_mut(at) {
        *place = oid;
        found.count += 1;
    }
}

/// The query scans or changes a temporary table. Of a query that was started.
///
/// # Safety
/// `query` was started.
pub unsafe fn uses_temporary_table(query: *const pg_sys::QueryDesc) -> bool {
    // SAFETY: es_relations has es_range_table_size places, each NULL or an open relation (execUtils.c).
    unsafe {
        let Some(state) = (*query).estate.as_ref() else { return false };
        !state.es_relations.is_null()
            && (0..state.es_range_table_size as usize).any(|i| {
                let relation = state.es_relations.add(i).read();
                !relation.is_null() && (*(*relation).rd_rel).relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP
            })
    }
}

/// Where a statement stands in the text that was sent: the byte, and its length (0: to the end), as the parser notes them.
#[derive(Clone, Copy)]
pub struct Extent {
    pub location: i32,
    pub length: i32,
}

impl Extent {
    pub const ALL: Extent = Extent { location: 0, length: 0 };
}

/// The statement's own part of the text that was sent, and where in that text it begins; `None` when it is longer than `limit`.
///
/// # Safety
/// `'a` ends with the query.
pub unsafe fn text<'a>(query: *const pg_sys::QueryDesc, extent: Extent, limit: usize) -> Option<(&'a [u8], usize)> {
    // SAFETY: sourceText lives as long as the query.
    unsafe {
        let text = part_of((*query).sourceText, extent.location, extent.length, limit)?;
        if text.len() > limit {
            return None;
        }
        let start = usize::try_from(extent.location).unwrap_or(0);
        let blanks = text.iter().take_while(|b| b.is_ascii_whitespace()).count();
        Some((text.trim_ascii(), start + blanks))
    }
}

/// A statement's part of a text, or of a very long one its beginning.
///
/// # Safety
/// `text` is NULL or NUL-terminated, and outlives the result.
pub unsafe fn part<'a>(text: *const c_char, location: i32, length: i32) -> Option<&'a [u8]> {
    // SAFETY: as promised.
    unsafe { part_of(text, location, length, MAX_OFFSET) }
}

/// A hash of a text, of a very long one of its beginning.
///
/// # Safety
/// `text` is NULL or NUL-terminated.
pub unsafe fn hash(text: *const c_char) -> u64 {
    // SAFETY: as promised.
    let text = unsafe { part(text, 0, 0) }.unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// At most one byte more than `limit`; `None` when it begins too far into the text.
unsafe fn part_of<'a>(text: *const c_char, location: i32, length: i32, limit: usize) -> Option<&'a [u8]> {
    // SAFETY: only what strnlen has seen is read.
    unsafe {
        let start = usize::try_from(location).unwrap_or(0);
        if text.is_null() || start > MAX_OFFSET {
            return None;
        }
        let wanted = usize::try_from(length).ok().filter(|n| *n > 0).unwrap_or(usize::MAX).min(limit + 1);
        bytes_of(text, sys::strnlen(text, start.saturating_add(wanted))).get(start..)
    }
}

/// `search_path` of the session in the form of the setting; `None` when it is longer than `limit`.
///
/// # Safety
/// The result is used at once: it is gone when the setting changes.
pub unsafe fn search_path<'a>(limit: usize) -> Option<&'a [u8]> {
    // SAFETY: NULL or NUL-terminated (namespace.c); only what strnlen has seen is read.
    unsafe {
        let path = pg_sys::namespace_search_path;
        let path = if path.is_null() { &[] } else { bytes_of(path, sys::strnlen(path, limit + 1)) };
        (path.len() <= limit).then_some(path)
    }
}

/// Number of parameters that the query was given.
///
/// # Safety
/// See above.
pub unsafe fn parameter_count(query: *const pg_sys::QueryDesc) -> usize {
    // SAFETY: NULL or a list of parameters.
    unsafe { (*query).params.as_ref() }.map_or(0, |list| usize::try_from(list.numParams).unwrap_or(0))
}

/// Value of a parameter.
pub enum Value {
    Unknown,
    Null,
    /// Bytes of the buffer that it takes.
    Text(usize),
}

/// Type of parameter `number` (from 1), and its value as text. Of a variable of a function only what can be had without running code.
///
/// # Safety
/// See above, and [`value::print`]: raises at most for want of memory.
pub unsafe fn parameter(query: *const pg_sys::QueryDesc, number: usize, buffer: &mut [u8]) -> (u32, Value) {
    // SAFETY: number is checked; a fetching list is asked in the way in which the planner asks it when it only estimates (params.h).
    unsafe {
        let Some(list) = (*query).params.as_ref().filter(|_| (1..=parameter_count(query)).contains(&number)) else {
            return (0, Value::Unknown);
        };
        let mut workspace = pg_sys::ParamExternData::default();
        let parameter = match list.paramFetch {
            // Guarded, since languages that we do not know may raise in it.
            Some(fetch) => {
                let params = (*query).params;
                pg_sys::ffi::pg_guard_ffi_boundary(|| fetch(params, number as i32, true, &mut workspace))
            }
            None => list.params.as_ptr().add(number - 1).cast_mut(),
        };
        let Some(parameter) = parameter.as_ref() else { return (0, Value::Unknown) };
        if parameter.ptype == pg_sys::InvalidOid {
            return (0, Value::Unknown);
        }
        let value = if parameter.isnull {
            Value::Null
        } else {
            let mut out = Cursor::new(buffer);
            match value::print(&mut out, parameter.ptype, parameter.value) {
                Some(()) => Value::Text(out.position() as usize),
                None => Value::Unknown,
            }
        };
        (parameter.ptype.to_u32(), value)
    }
}

unsafe fn bytes_of<'a>(start: *const c_char, length: usize) -> &'a [u8] {
    // SAFETY: `start` points to at least `length` bytes that live for `'a`.
    unsafe { std::slice::from_raw_parts(start.cast(), length) }
}
