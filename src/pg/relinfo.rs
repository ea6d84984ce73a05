//! Building the planner's IndexOptInfo for an index that does not exist, and hiding one that does.
//!
//! # Safety
//! The functions run inside the planner, on its own structures, and allocate in the memory context that it plans in.

use super::{compat, node};
use indexpilot_core::model::IndexDef;
use indexpilot_core::size::Size;
use pgrx::pg_sys;
use std::mem::size_of;

/// First of the OIDs under which hypothetical indexes are known during one planner call; far above what OID counters reach soon,
/// and each is checked to be free.
const FIRST_FAKE_OID: u32 = 0xFFFF_0000;

/// `count` OIDs that no relation has.
pub fn fake_oids(count: usize) -> Vec<pg_sys::Oid> {
    (FIRST_FAKE_OID..u32::MAX)
        .map(pg_sys::Oid::from)
        // SAFETY: a catalog lookup, which returns 0 for an unknown OID.
        .filter(|oid| unsafe { pg_sys::get_rel_relkind(*oid) } == 0)
        .take(count)
        .collect()
}

/// What the catalog says of an index column: type, type modifier, collation.
type Column = (pg_sys::Oid, i32, pg_sys::Oid);

fn column(table: pg_sys::Oid, attnum: i16) -> Option<Column> {
    let (mut type_oid, mut typmod, mut collation) = (pg_sys::InvalidOid, -1, pg_sys::InvalidOid);
    // SAFETY: get_atttype returns InvalidOid for a missing or dropped column, before the other one could raise.
    unsafe {
        if attnum <= 0 || pg_sys::get_atttype(table, attnum) == pg_sys::InvalidOid {
            return None;
        }
        pg_sys::get_atttypetypmodcoll(table, attnum, &mut type_oid, &mut typmod, &mut collation);
    }
    Some((type_oid, typmod, collation))
}

/// The operator family and input type of the default B-tree operator class of a type, if it has one.
pub fn default_opclass(type_oid: pg_sys::Oid) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    // SAFETY: catalog lookups; InvalidOid when there is none.
    unsafe {
        let opclass = pg_sys::GetDefaultOpClass(type_oid, pg_sys::BTREE_AM_OID);
        (opclass != pg_sys::InvalidOid).then(|| (pg_sys::get_opclass_family(opclass), pg_sys::get_opclass_input_type(opclass)))
    }
}

unsafe fn array<T: Copy>(values: impl ExactSizeIterator<Item = T>) -> *mut T {
    // SAFETY: room for as many values as are written; never of size 0.
    unsafe {
        let to = pg_sys::palloc0(size_of::<T>() * values.len().max(1)).cast::<T>();
        for (i, value) in values.enumerate() {
            *to.add(i) = value;
        }
        to
    }
}

/// The planner's description of a B-tree index that does not exist, in the current memory context. `None` when a column is gone, is
/// a system column or cannot be a key.
///
/// # Safety
/// `rel` is the planner's relation for `table`, as `get_relation_info_hook` is handed it.
pub unsafe fn hypothetical(
    rel: *mut pg_sys::RelOptInfo,
    table: pg_sys::Oid,
    def: &IndexDef,
    size: &Size,
    oid: pg_sys::Oid,
    cost: compat::CostEstimate,
) -> Option<*mut pg_sys::IndexOptInfo> {
    let columns = def.columns().map(|c| column(table, c).map(|info| (c, info))).collect::<Option<Vec<_>>>()?;
    let keys = columns.iter().take(def.keys.len()).map(|(_, c)| default_opclass(c.0)).collect::<Option<Vec<_>>>()?;
    if keys.is_empty() || columns.len() > pg_sys::INDEX_MAX_KEYS as usize {
        return None;
    }
    // SAFETY: fills a zeroed node as get_relation_info does for a real index (plancat.c); arrays have one entry a column, or a key
    // where the planner reads keys only. opclassoptions must not be null, or the planner would read through it.
    unsafe {
        let am = pg_sys::GetIndexAmRoutineByAmId(pg_sys::BTREE_AM_OID, false);
        let index = pg_sys::palloc0(size_of::<pg_sys::IndexOptInfo>()).cast::<pg_sys::IndexOptInfo>();
        (*index).type_ = pg_sys::NodeTag::T_IndexOptInfo;
        (*index).indexoid = oid;
        (*index).reltablespace = (*rel).reltablespace;
        (*index).rel = rel;
        (*index).pages = size.pages.clamp(1, u64::from(u32::MAX - 1)) as pg_sys::BlockNumber;
        (*index).tuples = (*rel).tuples;
        (*index).tree_height = size.height as i32;
        (*index).ncolumns = columns.len() as i32;
        (*index).nkeycolumns = keys.len() as i32;
        (*index).indexkeys = array(columns.iter().map(|(attnum, _)| i32::from(*attnum)));
        (*index).indexcollations = array(columns.iter().take(keys.len()).map(|(_, c)| c.2));
        (*index).opfamily = array(keys.iter().map(|k| k.0));
        (*index).opcintype = array(keys.iter().map(|k| k.1));
        (*index).sortopfamily = (*index).opfamily;
        (*index).reverse_sort = array(def.keys.iter().map(|k| k.descending));
        (*index).nulls_first = array(def.keys.iter().map(|k| k.nulls_first));
        (*index).opclassoptions = array(columns.iter().map(|_| std::ptr::null_mut::<pg_sys::bytea>()));
        (*index).canreturn = array(columns.iter().map(|_| true));
        (*index).relam = pg_sys::BTREE_AM_OID;
        for (position, (attnum, (type_oid, typmod, collation))) in columns.iter().enumerate() {
            let var = pg_sys::makeVar((*rel).relid as i32, *attnum, *type_oid, *typmod, *collation, 0);
            let entry = pg_sys::makeTargetEntry(var.cast(), position as i16 + 1, std::ptr::null_mut(), false);
            (*index).indextlist = pg_sys::lappend((*index).indextlist, entry.cast());
        }
        (*index).immediate = true;
        (*index).hypothetical = true;
        (*index).amcanorderbyop = (*am).amcanorderbyop;
        (*index).amoptionalkey = (*am).amoptionalkey;
        (*index).amsearcharray = (*am).amsearcharray;
        (*index).amsearchnulls = (*am).amsearchnulls;
        (*index).amhasgettuple = true;
        (*index).amhasgetbitmap = true;
        (*index).amcanparallel = (*am).amcanparallel;
        (*index).amcanmarkpos = true;
        compat::set_cost_estimate(index, cost);
        Some(index)
    }
}

/// The cost of a B-tree path as the server computes it.
///
/// # Safety
/// As for any `amcostestimate`: called by the planner.
#[expect(clippy::too_many_arguments, reason = "the server's signature")]
pub unsafe fn btree_cost(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    loops: f64,
    startup: *mut pg_sys::Cost,
    total: *mut pg_sys::Cost,
    selectivity: *mut pg_sys::Selectivity,
    correlation: *mut f64,
    pages: *mut f64,
) {
    // SAFETY: the B-tree's own function, with what the planner handed in; it raises errors, hence the boundary.
    unsafe {
        let am = pg_sys::GetIndexAmRoutineByAmId(pg_sys::BTREE_AM_OID, false);
        if let Some(estimate) = (*am).amcostestimate {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                estimate(root, path, loops, startup, total, selectivity, correlation, pages);
            });
        }
        pg_sys::pfree(am.cast());
    }
}

/// Takes the indexes with the given OIDs out of the planner's list.
///
/// # Safety
/// As for [`hypothetical`].
pub unsafe fn hide(rel: *mut pg_sys::RelOptInfo, oids: &[pg_sys::Oid]) {
    // SAFETY: members of indexlist are IndexOptInfo; the victims are collected before the list is changed.
    unsafe {
        let victims: Vec<*mut pg_sys::IndexOptInfo> =
            node::list((*rel).indexlist).filter(|i: &*mut pg_sys::IndexOptInfo| oids.contains(&(**i).indexoid)).collect();
        for victim in victims {
            (*rel).indexlist = pg_sys::list_delete_ptr((*rel).indexlist, victim.cast());
        }
    }
}
