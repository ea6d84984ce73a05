//! Reading the server's parse and plan trees.
//!
//! # Safety
//! All functions are unsafe in the same way: the pointers must be null or lead to live nodes of the server, which is true of
//! whatever a hook is handed and of everything reachable from there.

use pgrx::pg_sys;
use std::ffi::CStr;

/// The node as `T` when it has the given tag.
///
/// # Safety
/// `node` is null or a live node, and nodes tagged `tag` are of type `T`.
pub unsafe fn cast<T>(node: *mut impl Sized, tag: pg_sys::NodeTag) -> Option<*mut T> {
    // SAFETY: every node begins with its tag (nodes.h).
    (!node.is_null() && unsafe { (*node.cast::<pg_sys::Node>()).type_ } == tag).then(|| node.cast())
}

/// The members of a pointer list; none for NIL.
///
/// # Safety
/// `list` is NIL or a live list of pointers to `T`.
pub unsafe fn list<T>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: a List is an array of `length` cells since PostgreSQL 13 (pg_list.h).
    let n = if list.is_null() { 0 } else { unsafe { (*list).length } };
    // SAFETY: as above; `i` is below the length.
    (0..n.max(0) as usize).map(move |i| unsafe { (*(*list).elements.add(i)).ptr_value.cast::<T>() })
}

/// The members of a bitmap set, ascending.
///
/// # Safety
/// `set` is null or a live set.
pub unsafe fn members(set: *const pg_sys::Bitmapset) -> impl Iterator<Item = i32> {
    let mut at = -1;
    std::iter::from_fn(move || {
        // SAFETY: walks the set; -2 says that it is over, and null is the empty set (bitmapset.c).
        at = unsafe { pg_sys::bms_next_member(set, at) };
        (at >= 0).then_some(at)
    })
}

/// A C string as owned text; `None` for a null pointer. Bytes that are not UTF-8 (another server encoding) are replaced.
///
/// # Safety
/// `text` is null or NUL-terminated.
pub unsafe fn text(text: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: NUL-terminated, as promised.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// Without the no-op casts around it (varchar to text, domain to its base).
///
/// # Safety
/// `node` is null or a live expression.
pub unsafe fn strip_relabel(mut node: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: a RelabelType's argument is an expression.
    while let Some(relabel) = unsafe { cast::<pg_sys::RelabelType>(node, pg_sys::NodeTag::T_RelabelType) } {
        // SAFETY: as above.
        node = unsafe { (*relabel).arg.cast() };
    }
    node
}

/// OIDs of the indexes that a plan scans, each once, in the order in which they are met.
///
/// # Safety
/// `stmt` is a live finished plan.
pub unsafe fn scanned_indexes(stmt: *const pg_sys::PlannedStmt) -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    // SAFETY: init plans and other subplans all stand in `subplans`; unused alternatives are null there.
    unsafe {
        walk((*stmt).planTree, &mut found);
        for plan in list::<pg_sys::Plan>((*stmt).subplans) {
            walk(plan, &mut found);
        }
    }
    found
}

unsafe fn walk(plan: *mut pg_sys::Plan, found: &mut Vec<pg_sys::Oid>) {
    use pg_sys::NodeTag as T;
    if plan.is_null() {
        return;
    }
    // SAFETY: the tag says which struct it is, and each begins with a Plan (plannodes.h).
    unsafe {
        let mut add = |oid| {
            if !found.contains(&oid) {
                found.push(oid);
            }
        };
        let children = match (*plan).type_ {
            T::T_IndexScan => {
                add((*plan.cast::<pg_sys::IndexScan>()).indexid);
                std::ptr::null_mut()
            }
            T::T_IndexOnlyScan => {
                add((*plan.cast::<pg_sys::IndexOnlyScan>()).indexid);
                std::ptr::null_mut()
            }
            T::T_BitmapIndexScan => {
                add((*plan.cast::<pg_sys::BitmapIndexScan>()).indexid);
                std::ptr::null_mut()
            }
            T::T_BitmapAnd => (*plan.cast::<pg_sys::BitmapAnd>()).bitmapplans,
            T::T_BitmapOr => (*plan.cast::<pg_sys::BitmapOr>()).bitmapplans,
            T::T_Append => (*plan.cast::<pg_sys::Append>()).appendplans,
            T::T_MergeAppend => (*plan.cast::<pg_sys::MergeAppend>()).mergeplans,
            T::T_CustomScan => (*plan.cast::<pg_sys::CustomScan>()).custom_plans,
            T::T_SubqueryScan => {
                walk((*plan.cast::<pg_sys::SubqueryScan>()).subplan, found);
                std::ptr::null_mut()
            }
            _ => std::ptr::null_mut(),
        };
        for child in list::<pg_sys::Plan>(children) {
            walk(child, found);
        }
        walk((*plan).lefttree, found);
        walk((*plan).righttree, found);
    }
}
