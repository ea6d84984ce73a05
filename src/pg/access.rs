//! What the scans of a relation cost, read while the planner works, and which of them a finished plan uses.
//!
//! The planner prices every scan that an index allows and then forgets most of them. [`scans`] reads the prices before that
//! (INUM's access costs, Papadomanolakis et al., VLDB 2007); [`leaves`] says how often the finished plan runs each scan.
//!
//! # Safety
//! The functions run inside the planner or on a finished plan; a node is null or a live node of the type that its tag says.

use super::compat;
use super::node::{cast, list};
use indexpilot_core::workload::mix;
use pgrx::pg_sys::{self, NodeTag as T};
use std::ptr::null_mut;

/// One way to read one relation.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    pub table: pg_sys::Oid,
    /// `InvalidOid` for a scan without index.
    pub index: pg_sys::Oid,
    /// Through a bitmap of rows.
    pub bitmap: bool,
    /// One of several processes that share the work.
    pub parallel: bool,
    /// The relations whose values it is given, as a hash; 0 when none.
    pub outer: u32,
    /// The order of its rows as far as it is of use, one number a column.
    pub order: Vec<u32>,
    pub startup: f64,
    pub total: f64,
}

/// A scan of a finished plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    pub table: pg_sys::Oid,
    /// Of the indexes it reads; none for a scan without index, several for a combination of bitmaps.
    pub indexes: Vec<pg_sys::Oid>,
    pub bitmap: bool,
    pub parallel: bool,
    /// Something above relies on the order of its rows.
    pub ordered: bool,
    /// How often it is run, as the planner estimates; `None` where that cannot be read from the plan.
    pub times: Option<f64>,
    pub total: f64,
}

/// An index path whose cost the planner asked for: its address, and the loops it was asked for.
pub type Costed = (*mut pg_sys::IndexPath, f64);

/// `path` is the parallel twin of `before`: the planner makes it right after, alike in all that is set before it is priced, and frees
/// it when it is of no use, which it does to no other index path (build_index_paths, indxpath.c; add_partial_path, pathnode.c).
///
/// # Safety
/// `before` is an index path that is no such twin; `path` is one that is being priced.
pub unsafe fn is_twin(path: *const pg_sys::IndexPath, before: *const pg_sys::IndexPath) -> bool {
    // SAFETY: both are live: `before` is never freed while the planner runs.
    unsafe {
        let (a, b) = (&*path, &*before);
        (a.indexinfo, a.indexclauses, a.indexorderbys, a.indexscandir)
            == (b.indexinfo, b.indexclauses, b.indexorderbys, b.indexscandir)
            && (a.path.pathtype, a.path.pathkeys, a.path.param_info) == (b.path.pathtype, b.path.pathkeys, b.path.param_info)
    }
}

/// All scans of a relation, when its paths are complete: those that were `costed` with what a bitmap of them costs, and those that the
/// planner kept.
///
/// # Safety
/// The arguments are those of `set_rel_pathlist_hook`; `costed` are paths of `rel` that the planner made in this very call.
pub unsafe fn scans(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    table: pg_sys::Oid,
    costed: &[Costed],
) -> Vec<Scan> {
    let mut found = Vec::new();
    // SAFETY: index paths but for parallel twins are never freed (add_path, pathnode.c), and their costs are filled in by cost_index after it asked for the
    // index's part. Bitmap paths are made as create_index_paths and create_partial_bitmap_paths do (indxpath.c, allpaths.c).
    unsafe {
        for &(path, loops) in costed {
            let index = (*path).indexinfo;
            if index.is_null() || (*index).rel != rel || (*path).path.total_cost <= 0.0 {
                continue;
            }
            if (*index).amhasgettuple {
                found.push(scan(root, table, &raw mut (*path).path, (*index).indexoid, false));
                if (*index).amcanparallel && (*rel).consider_parallel && required_outer(&raw const (*path).path).is_null() {
                    // The twin, priced once more on a copy that stays.
                    let twin = pg_sys::palloc(size_of::<pg_sys::IndexPath>()).cast::<pg_sys::IndexPath>();
                    *twin = *path;
                    pg_sys::cost_index(twin, root, loops, true);
                    if (*twin).path.parallel_workers > 0 {
                        found.push(scan(root, table, &raw mut (*twin).path, (*index).indexoid, false));
                    }
                }
            }
            let bitmap = (*index).amhasgetbitmap
                && !(*path).path.parallel_aware
                && ((*path).path.pathkeys.is_null() || (*path).indexselectivity < 1.0);
            if bitmap {
                let outer = required_outer(&raw const (*path).path);
                let heap = pg_sys::create_bitmap_heap_path(root, rel, path.cast(), outer, loops, 0);
                found.push(scan(root, table, heap.cast(), (*index).indexoid, true));
                if (*rel).consider_parallel && (*rel).lateral_relids.is_null() && outer.is_null() {
                    let workers = pg_sys::compute_parallel_worker(
                        rel,
                        compat::bitmap_pages(root, rel, path.cast()),
                        -1.0,
                        pg_sys::max_parallel_workers_per_gather,
                    );
                    if workers > 0 {
                        let heap = pg_sys::create_bitmap_heap_path(root, rel, path.cast(), null_mut(), 1.0, workers);
                        found.push(scan(root, table, heap.cast(), (*index).indexoid, true));
                    }
                }
            }
        }
        for path in list::<pg_sys::Path>((*rel).pathlist).chain(list::<pg_sys::Path>((*rel).partial_pathlist)) {
            if let Some((index, bitmap)) = index_of(path) {
                let one = scan(root, table, path, index, bitmap);
                if !found.contains(&one) {
                    found.push(one);
                }
            }
        }
    }
    found
}

/// The index of a path over a table: `InvalidOid` without one, `None` when it is of another kind or combines several.
unsafe fn index_of(path: *mut pg_sys::Path) -> Option<(pg_sys::Oid, bool)> {
    // SAFETY: the tag says which kind of path it is (pathnodes.h).
    unsafe {
        if let Some(index) = cast::<pg_sys::IndexPath>(path, T::T_IndexPath) {
            return Some(((*(*index).indexinfo).indexoid, false));
        }
        if let Some(heap) = cast::<pg_sys::BitmapHeapPath>(path, T::T_BitmapHeapPath) {
            let index = cast::<pg_sys::IndexPath>((*heap).bitmapqual, T::T_IndexPath)?;
            return Some(((*(*index).indexinfo).indexoid, true));
        }
        ((*path).pathtype == T::T_SeqScan).then_some((pg_sys::InvalidOid, false))
    }
}

unsafe fn required_outer(path: *const pg_sys::Path) -> pg_sys::Relids {
    // SAFETY: PATH_REQ_OUTER (pathnodes.h).
    unsafe { if (*path).param_info.is_null() { null_mut() } else { (*(*path).param_info).ppi_req_outer } }
}

unsafe fn scan(
    root: *mut pg_sys::PlannerInfo,
    table: pg_sys::Oid,
    path: *mut pg_sys::Path,
    index: pg_sys::Oid,
    bitmap: bool,
) -> Scan {
    // SAFETY: a finished path of the planner; its pathkeys point to their classes, which stand in the root's list.
    unsafe {
        let outer = required_outer(path);
        let order = list::<pg_sys::PathKey>((*path).pathkeys)
            .map(|key| {
                let class = list::<pg_sys::EquivalenceClass>((*root).eq_classes).position(|c| c == (*key).pk_eclass);
                let direction = u64::from(compat::descending(&*key)) * 2 + u64::from((*key).pk_nulls_first);
                mix(class.map_or(u64::MAX, |c| c as u64) << 2 | direction) as u32
            })
            .collect();
        Scan {
            table,
            index,
            bitmap,
            parallel: (*path).parallel_aware,
            outer: if outer.is_null() { 0 } else { pg_sys::bms_hash_value(outer).max(1) },
            order,
            startup: (*path).startup_cost,
            total: (*path).total_cost,
        }
    }
}

/// What the nodes above say of the plan below them.
#[derive(Clone, Copy)]
struct Above {
    /// How often it is run to its end; `None` when not known.
    full: Option<f64>,
    /// How often, with the share that is read before a LIMIT is reached.
    run: Option<f64>,
    ordered: bool,
}

/// The scans of a finished plan.
///
/// # Safety
/// `stmt` is a live finished plan.
pub unsafe fn leaves(stmt: *const pg_sys::PlannedStmt) -> Vec<Leaf> {
    let mut found = Vec::new();
    let mut once = Vec::new();
    let above = Above { full: Some(1.0), run: Some(1.0), ordered: true };
    // SAFETY: all subplans stand in `subplans`, by their number from 1; unused alternatives are null there.
    unsafe {
        walk(stmt, (*stmt).planTree, above, &mut found, &mut once);
        let plans: Vec<*mut pg_sys::Plan> = list((*stmt).subplans).collect();
        // An init plan of a subplan is met when that is walked, so those are walked until nothing new is met.
        let mut walked = vec![false; plans.len()];
        while let Some(at) = (0..plans.len()).find(|at| !walked[*at] && once.contains(&(*at as i32 + 1))) {
            walked[at] = true;
            walk(stmt, plans[at], above, &mut found, &mut once);
        }
        let unknown = Above { full: None, run: None, ordered: true };
        for at in (0..plans.len()).filter(|at| !walked[*at]) {
            walk(stmt, plans[at], unknown, &mut found, &mut once);
        }
    }
    found
}

unsafe fn walk(
    stmt: *const pg_sys::PlannedStmt,
    plan: *mut pg_sys::Plan,
    above: Above,
    found: &mut Vec<Leaf>,
    once: &mut Vec<i32>,
) {
    if plan.is_null() {
        return;
    }
    // SAFETY: the tag says which struct it is, and each begins with a Plan (plannodes.h).
    unsafe {
        once.extend(list::<pg_sys::SubPlan>((*plan).initPlan).map(|sub| (*sub).plan_id));
        let (left, right) = ((*plan).lefttree, (*plan).righttree);
        let blocked = Above { run: above.full, ordered: false, ..above };
        let mut each = |plans: *mut pg_sys::List, above: Above| {
            for child in list::<pg_sys::Plan>(plans) {
                walk(stmt, child, above, found, once);
            }
        };
        match (*plan).type_ {
            T::T_SeqScan | T::T_SampleScan | T::T_IndexScan | T::T_IndexOnlyScan | T::T_BitmapHeapScan => {
                found.extend(leaf(stmt, plan, above));
            }
            T::T_NestLoop => {
                let outer_rows = if left.is_null() { 1.0 } else { (*left).plan_rows.max(1.0) };
                walk(stmt, left, above, found, once);
                let times = |n: f64| Above { full: above.full.map(|t| t * n), run: above.run.map(|t| t * n), ordered: false };
                let inner = match (!right.is_null()).then(|| (*right).type_) {
                    Some(T::T_Material) => times(1.0),
                    // What was asked before is remembered: it is run once for each different value.
                    Some(T::T_Memoize) => times(outer_rows.min(f64::from((*right.cast::<pg_sys::Memoize>()).est_entries).max(1.0))),
                    _ => times(outer_rows),
                };
                walk(stmt, right, inner, found, once);
            }
            T::T_MergeJoin => {
                walk(stmt, left, Above { ordered: true, ..above }, found, once);
                walk(stmt, right, Above { ordered: true, ..above }, found, once);
            }
            T::T_HashJoin => {
                walk(stmt, left, above, found, once);
                walk(stmt, right, blocked, found, once);
            }
            T::T_Sort | T::T_Hash => walk(stmt, left, blocked, found, once),
            T::T_IncrementalSort | T::T_Group | T::T_Unique | T::T_WindowAgg | T::T_GatherMerge => {
                walk(stmt, left, Above { ordered: true, ..above }, found, once);
            }
            T::T_Agg => {
                let sorted = (*plan.cast::<pg_sys::Agg>()).aggstrategy == pg_sys::AggStrategy::AGG_SORTED;
                walk(stmt, left, if sorted { Above { ordered: true, ..above } } else { blocked }, found, once);
            }
            T::T_Limit => {
                let rows = if left.is_null() { 1.0 } else { (*left).plan_rows.max(1.0) };
                let share = ((*plan).plan_rows / rows).clamp(0.0, 1.0);
                walk(stmt, left, Above { run: above.run.map(|t| t * share), ..above }, found, once);
            }
            T::T_Gather => walk(stmt, left, Above { ordered: false, ..above }, found, once),
            T::T_Append => each((*plan.cast::<pg_sys::Append>()).appendplans, above),
            T::T_MergeAppend => each((*plan.cast::<pg_sys::MergeAppend>()).mergeplans, Above { ordered: true, ..above }),
            T::T_CustomScan => {
                each((*plan.cast::<pg_sys::CustomScan>()).custom_plans, Above { full: None, run: None, ordered: true })
            }
            T::T_SubqueryScan => walk(stmt, (*plan.cast::<pg_sys::SubqueryScan>()).subplan, above, found, once),
            T::T_RecursiveUnion => {
                walk(stmt, left, above, found, once);
                walk(stmt, right, Above { full: None, run: None, ..above }, found, once);
            }
            _ => {
                walk(stmt, left, above, found, once);
                walk(stmt, right, above, found, once);
            }
        }
    }
}

unsafe fn leaf(stmt: *const pg_sys::PlannedStmt, plan: *mut pg_sys::Plan, above: Above) -> Option<Leaf> {
    // SAFETY: scan nodes begin with a Scan, whose number counts in the statement's range table (setrefs.c).
    unsafe {
        let mut indexes = Vec::new();
        match (*plan).type_ {
            T::T_IndexScan => indexes.push((*plan.cast::<pg_sys::IndexScan>()).indexid),
            T::T_IndexOnlyScan => indexes.push((*plan.cast::<pg_sys::IndexOnlyScan>()).indexid),
            T::T_BitmapHeapScan => bitmaps((*plan).lefttree, &mut indexes),
            _ => {}
        }
        let number = (*plan.cast::<pg_sys::Scan>()).scanrelid;
        let entry = list::<pg_sys::RangeTblEntry>((*stmt).rtable).nth((number as usize).checked_sub(1)?)?;
        Some(Leaf {
            table: (*entry).relid,
            indexes,
            bitmap: (*plan).type_ == T::T_BitmapHeapScan,
            parallel: (*plan).parallel_aware,
            ordered: above.ordered,
            times: above.run,
            total: (*plan).total_cost,
        })
    }
}

unsafe fn bitmaps(plan: *mut pg_sys::Plan, found: &mut Vec<pg_sys::Oid>) {
    if plan.is_null() {
        return;
    }
    // SAFETY: below a bitmap heap scan stand these three only (createplan.c).
    unsafe {
        let parts = match (*plan).type_ {
            T::T_BitmapIndexScan => {
                found.push((*plan.cast::<pg_sys::BitmapIndexScan>()).indexid);
                return;
            }
            T::T_BitmapAnd => (*plan.cast::<pg_sys::BitmapAnd>()).bitmapplans,
            T::T_BitmapOr => (*plan.cast::<pg_sys::BitmapOr>()).bitmapplans,
            _ => return,
        };
        for part in list::<pg_sys::Plan>(parts) {
            bitmaps(part, found);
        }
    }
}
