//! Building the planner's IndexOptInfo for an index that does not exist, and hiding one that does.
//!
//! # Safety
//! The functions run inside the planner, on its own structures, and allocate in the memory context that it plans in.

use super::indexstmt::ResolvedIndex;
use super::sampling::Statistics;
use super::{compat, node};
use indexpilot_core::model::AccessMethod;
use indexpilot_core::size::Size;
use pgrx::pg_sys;
use std::ffi::CStr;
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

/// What the catalog says of a column: type, type modifier, collation.
type Column = (pg_sys::Oid, i32, pg_sys::Oid);

/// A column as it is now; `None` when it is gone or a system column.
pub fn column(table: pg_sys::Oid, attnum: i16) -> Option<Column> {
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

/// How a relation of the planner stands to a table whose indexes it has: it is that table, or a partition of it.
pub struct Standing {
    pub table: pg_sys::Oid,
    /// Number of the table in the range table.
    rti: i32,
    /// What leads from its columns to those of the relation: nothing when it is the table.
    way: Vec<*mut pg_sys::AppendRelInfo>,
}

impl Standing {
    /// The relation is a partition of the table.
    pub fn is_part(&self) -> bool {
        !self.way.is_empty()
    }

    /// Makes an expression over the table's columns one over the relation's.
    ///
    /// # Safety
    /// `node` is an expression, or a list of such.
    unsafe fn translate<T>(&self, root: *mut pg_sys::PlannerInfo, node: *mut T) -> *mut T {
        self.way.iter().fold(node, |node, step| {
            let mut step = *step;
            // SAFETY: the mapping of a child of this query, whose columns have their parent's types.
            unsafe { pg_sys::adjust_appendrel_attrs(root, node.cast(), 1, &mut step).cast() }
        })
    }
}

/// The table that the relation is, and the partitioned tables of the query that it is a part of, from the bottom up.
///
/// # Safety
/// As for `get_relation_info_hook`, which is called for a child after its mapping was put into the array (inherit.c).
pub unsafe fn standings(root: *mut pg_sys::PlannerInfo, rel: *mut pg_sys::RelOptInfo, table: pg_sys::Oid) -> Vec<Standing> {
    // SAFETY: the arrays have an entry for each number of the range table; that of the mappings is there when there is a child.
    unsafe {
        let mut found = vec![Standing { table, rti: (*rel).relid as i32, way: Vec::new() }];
        while let Some(below) = found.last() {
            if (*root).append_rel_array.is_null() {
                break;
            }
            let step = *(*root).append_rel_array.add(below.rti as usize);
            if step.is_null() {
                break;
            }
            let parent = *(*root).simple_rte_array.add((*step).parent_relid as usize);
            if parent.is_null() || (*parent).relkind as u8 != pg_sys::RELKIND_PARTITIONED_TABLE {
                break;
            }
            let way = std::iter::once(step).chain(below.way.iter().copied()).collect();
            found.push(Standing { table: (*parent).relid, rti: (*step).parent_relid as i32, way });
        }
        found
    }
}

/// The planner's description of an index that does not exist, in the current memory context. `None` when a column is gone or has
/// another type than when the index was looked up. `share` is how much of the index is of this relation.
///
/// # Safety
/// `rel` is the planner's relation of the query level `root`, as `get_relation_info_hook` is handed it, and `at` how it stands to the
/// table of `def`.
pub unsafe fn hypothetical(
    (root, rel): (*mut pg_sys::PlannerInfo, *mut pg_sys::RelOptInfo),
    at: &Standing,
    def: &ResolvedIndex,
    (size, share): (&Size, f64),
    oid: pg_sys::Oid,
    cost: compat::CostEstimate,
) -> Option<*mut pg_sys::IndexOptInfo> {
    let table = at.table;
    let unchanged = |attnum: i16, type_oid: pg_sys::Oid| column(table, attnum).filter(|c| c.0 == type_oid);
    let mut columns = Vec::with_capacity(def.columns.len());
    for c in &def.columns {
        // What the catalog says now; nothing for an expression.
        columns.push(if c.attnum == 0 { None } else { Some(unchanged(c.attnum, c.type_oid)?) });
    }
    if !def.reads.iter().all(|(attnum, type_oid)| unchanged(*attnum, *type_oid).is_some()) {
        return None;
    }
    // SAFETY: fills a zeroed node as get_relation_info does for a real index (plancat.c); arrays have one entry a column, or a key
    // where the planner reads keys only. opclassoptions must not be null, or the planner would read through it.
    unsafe {
        let am = pg_sys::GetIndexAmRoutineByAmId(def.am, true);
        if am.is_null() {
            return None;
        }
        let index = pg_sys::palloc0(size_of::<pg_sys::IndexOptInfo>()).cast::<pg_sys::IndexOptInfo>();
        (*index).type_ = pg_sys::NodeTag::T_IndexOptInfo;
        (*index).indexoid = oid;
        (*index).reltablespace = (*rel).reltablespace;
        (*index).rel = rel;
        (*index).pages = (size.pages as f64 * share).ceil().clamp(1.0, f64::from(u32::MAX - 1)) as pg_sys::BlockNumber;
        (*index).tuples = (*rel).tuples * def.share;
        (*index).ncolumns = def.columns.len() as i32;
        (*index).nkeycolumns = def.keys.len() as i32;
        (*index).indexcollations = array(def.keys.iter().map(|k| k.collation));
        (*index).opfamily = array(def.keys.iter().map(|k| k.family));
        (*index).opcintype = array(def.keys.iter().map(|k| k.input));
        (*index).opclassoptions = array(def.columns.iter().map(|_| std::ptr::null_mut::<pg_sys::bytea>()));
        (*index).canreturn = array(def.columns.iter().map(|c| c.returns));
        (*index).relam = def.am;
        if (*am).amcanorder {
            // Of the access methods that can be planned with, this is the B-tree, whose operator families are those of the order.
            (*index).sortopfamily = (*index).opfamily;
            (*index).reverse_sort = array(def.keys.iter().map(|k| k.descending));
            (*index).nulls_first = array(def.keys.iter().map(|k| k.nulls_first));
            (*index).tree_height = size.height as i32;
        } else {
            (*index).tree_height = -1;
        }
        (*index).indexprs = at.translate(root, tree(def.expressions.as_deref(), at.rti));
        (*index).indpred = at.translate(root, tree(def.predicate.as_deref(), at.rti));
        let mut expressions = node::list::<pg_sys::Expr>((*index).indexprs);
        let mut keys = Vec::with_capacity(columns.len());
        for (position, found) in columns.iter().enumerate() {
            let entry = match found {
                Some((type_oid, typmod, collation)) => {
                    let var = pg_sys::makeVar(at.rti, def.columns[position].attnum, *type_oid, *typmod, *collation, 0);
                    let var = node::cast::<pg_sys::Var>(at.translate(root, var).cast::<pg_sys::Node>(), pg_sys::NodeTag::T_Var)?;
                    keys.push(i32::from((*var).varattno));
                    var.cast()
                }
                None => {
                    keys.push(0);
                    expressions.next()?
                }
            };
            let entry = pg_sys::makeTargetEntry(entry, position as i16 + 1, std::ptr::null_mut(), false);
            (*index).indextlist = pg_sys::lappend((*index).indextlist, entry.cast());
        }
        (*index).indexkeys = array(keys.into_iter());
        (*index).immediate = true;
        (*index).hypothetical = true;
        (*index).amcanorderbyop = (*am).amcanorderbyop;
        (*index).amoptionalkey = (*am).amoptionalkey;
        (*index).amsearcharray = (*am).amsearcharray;
        (*index).amsearchnulls = (*am).amsearchnulls;
        (*index).amhasgettuple = (*am).amgettuple.is_some();
        // Every table that can have an index here is a heap, which has bitmap scans.
        (*index).amhasgetbitmap = (*am).amgetbitmap.is_some();
        (*index).amcanparallel = (*am).amcanparallel;
        (*index).amcanmarkpos = (*am).ammarkpos.is_some() && (*am).amrestrpos.is_some();
        compat::set_cost_estimate(index, cost);
        pg_sys::pfree(am.cast());
        Some(index)
    }
}

/// Keeps the planner from making paths of an index; its statistics remain.
///
/// # Safety
/// `index` was made by [`hypothetical`], just now.
pub unsafe fn make_unusable(index: *mut pg_sys::IndexOptInfo) {
    // SAFETY: a partial index is left out unless its condition follows from the query's (create_index_paths), which this one never does;
    // statistics are looked for in all of them (examine_variable).
    unsafe {
        (*index).indpred = pg_sys::lappend(std::ptr::null_mut(), pg_sys::makeBoolConst(false, false).cast());
        (*index).amhasgettuple = false;
        (*index).amhasgetbitmap = false;
    }
}

/// A tree from its text form, made to speak of relation number `relid`. NIL for none.
///
/// # Safety
/// The text was made by nodeToString in this server, of a list of expressions over relation 1.
unsafe fn tree(text: Option<&CStr>, relid: i32) -> *mut pg_sys::List {
    let Some(text) = text else { return std::ptr::null_mut() };
    // SAFETY: reads what nodeToString wrote.
    unsafe {
        let list = pg_sys::stringToNode(text.as_ptr());
        if relid != 1 {
            pg_sys::ChangeVarNodes(list.cast(), 1, relid, 0);
        }
        list.cast()
    }
}

/// The cost of a path over a hypothetical index as the server computes it. `entry_pages` are a gin index's pages without posting trees.
///
/// # Safety
/// As for any `amcostestimate`: called by the planner.
#[expect(clippy::too_many_arguments, reason = "the server's signature, and one more")]
pub unsafe fn am_cost(
    entry_pages: Option<f64>,
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    loops: f64,
    startup: *mut pg_sys::Cost,
    total: *mut pg_sys::Cost,
    selectivity: *mut pg_sys::Selectivity,
    correlation: *mut f64,
    pages: *mut f64,
) {
    // SAFETY: the access method's own function, with what the planner handed in; it raises errors, hence the boundary. After an error the
    // planner's index is thrown away, so that its number of pages need not be put back.
    unsafe {
        let index = (*path).indexinfo;
        let am = pg_sys::GetIndexAmRoutineByAmId((*index).relam, false);
        let all = (*index).pages;
        if let Some(entry_pages) = entry_pages {
            // Of a hypothetical index, gincostestimate takes nine tenths of the pages for entry pages.
            (*index).pages = (entry_pages / 0.9).ceil().clamp(1.0, f64::from(u32::MAX - 1)) as pg_sys::BlockNumber;
        }
        if let Some(estimate) = (*am).amcostestimate {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                estimate(root, path, loops, startup, total, selectivity, correlation, pages);
            });
        }
        (*index).pages = all;
        if (*index).relam == pg_sys::BRIN_AM_OID {
            // Of a hypothetical index, brincostestimate counts one page more for the map of ranges than brinGetStats finds in a real one.
            let (mut random, mut sequential) = (0.0, 0.0);
            pg_sys::get_tablespace_page_costs((*index).reltablespace, &mut random, &mut sequential);
            *startup -= sequential * loops;
            *total += (random - sequential) * loops;
        }
        pg_sys::pfree(am.cast());
    }
}

/// Gives the planner statistics of an index's expression, or none. As with a real index, the values in them count for estimates with
/// functions that could leak them only if the whole table may be read (examine_variable, selfuncs.c).
///
/// # Safety
/// The arguments are those of `get_index_stats_hook`, for the index `def`.
pub unsafe fn give_statistics(
    root: *mut pg_sys::PlannerInfo,
    def: &ResolvedIndex,
    statistics: Option<&Statistics>,
    found: *mut pg_sys::VariableStatData,
) {
    // SAFETY: the hook fills in tuple, function to free it and right. brincostestimate hands in a struct that is not initialised; of the
    // others, btcostestimate's is empty and examine_variable's names the expression. The range table of the query holds each relation
    // that is planned.
    unsafe {
        // Partial indexes tell nothing of the whole table, but of themselves.
        let itself = || def.method == AccessMethod::Btree && (*found).var.is_null();
        let statistics = statistics.filter(|_| def.predicate.is_none() || itself());
        let table = pg_sys::Oid::from(def.table.0);
        (*found).statsTuple = statistics.map_or(std::ptr::null_mut(), |s| s.tuple());
        (*found).freefunc = statistics.map(|_| Statistics::release as unsafe extern "C-unwind" fn(pg_sys::HeapTuple));
        let user = pg_sys::GetUserId();
        // Of a partition the parent's entry has the policies (expand_single_inheritance_child, inherit.c): any hides rows.
        let hidden_rows =
            node::list::<pg_sys::RangeTblEntry>((*(*root).parse).rtable).any(|entry| !(*entry).securityQuals.is_null());
        (*found).acl_ok = statistics.is_none()
            || (!hidden_rows && pg_sys::pg_class_aclcheck(table, user, pg_sys::ACL_SELECT) == pg_sys::AclResult::ACLCHECK_OK);
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
