//! Reading, while the planner works, what a query wants of one relation.
//!
//! The planner has done the hard part by then: views are expanded, subqueries pulled up, constants folded, equalities gathered in
//! equivalence classes. Only plain columns count; a condition on an expression is no use to a plain index.
//!
//! # Safety
//! The functions run inside the planner, on its own structures; a node is null or a live node of the type that its tag says.

use super::node::{cast, list, members, strip_relabel};
use super::{compat, relinfo};
use indexpilot_core::model::{AttNum, Key, OpClass, Predicate, PredicateKind, RelId, RelationUse};
use pgrx::pg_sys::{self, NodeTag as T};
use std::ptr::null_mut;

/// B-tree strategy number of `=` (access/stratnum.h).
const EQUAL: i32 = 3;

/// One relation of one query level.
pub(super) struct Reader {
    pub(super) root: *mut pg_sys::PlannerInfo,
    pub(super) rel: *mut pg_sys::RelOptInfo,
    pub(super) rti: i32,
}

/// A restriction before its selectivity is known.
struct Condition {
    column: AttNum,
    kind: PredicateKind,
}

/// Reads one relation of the query level `root`; `None` when it is not a table, or a child whose parent is one.
///
/// # Safety
/// The arguments are those of `set_rel_pathlist_hook`.
pub(super) unsafe fn reader(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) -> Option<Reader> {
    // SAFETY: the planner's own state for this relation.
    unsafe {
        if (*rte).rtekind != pg_sys::RTEKind::RTE_RELATION || (*rte).relid == pg_sys::InvalidOid {
            return None;
        }
        match (*rel).reloptkind {
            pg_sys::RelOptKind::RELOPT_BASEREL => {}
            // Arms of UNION ALL are children too, but of a subquery; children of a table are left to their parent.
            pg_sys::RelOptKind::RELOPT_OTHER_MEMBER_REL => {
                let child = *(*root).append_rel_array.add(rti as usize);
                if child.is_null() {
                    return None;
                }
                let parent = *(*root).simple_rte_array.add((*child).parent_relid as usize);
                if parent.is_null() || (*parent).rtekind == pg_sys::RTEKind::RTE_RELATION {
                    return None;
                }
            }
            _ => return None,
        }
    }
    Some(Reader { root, rel, rti: rti as i32 })
}

/// What the query level `root` wants of `rel`; `None` when the relation is not a table, or a child whose parent is one.
///
/// # Safety
/// The arguments are those of `set_rel_pathlist_hook`.
pub unsafe fn read(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) -> Option<RelationUse> {
    // SAFETY: all of it is the planner's own state for this relation, complete when the hook is called: restrictions, equivalence
    // classes and wanted orders were built before base relations get their paths (planmain.c, allpaths.c).
    unsafe {
        let reader = reader(root, rel, rti, rte)?;
        let (needed, system) = reader.needed();
        let target = pg_sys::bms_is_member(rti as i32, (*root).all_result_relids);
        let whole_row = system || target || reader.locked();
        let mut predicates = reader.restrictions();
        predicates.extend(reader.joins());
        let order = reader.order();
        Some(RelationUse {
            rel: RelId((*rte).relid.to_u32()),
            predicates,
            conditions: Vec::new(),
            limited: !order.is_empty() && (*root).limit_tuples > 0.0,
            order,
            group: reader.group(),
            needed: if whole_row { Vec::new() } else { needed },
            whole_row,
            target,
            rows: (*rel).rows,
        })
    }
}

impl Reader {
    /// The plain user column of this relation that the expression is.
    ///
    /// # Safety
    /// As the module says.
    pub(super) unsafe fn var(&self, node: *mut pg_sys::Node) -> Option<*mut pg_sys::Var> {
        // SAFETY: `node` is an expression of the planner.
        unsafe {
            let var = cast::<pg_sys::Var>(strip_relabel(node), T::T_Var)?;
            ((*var).varno == self.rti && (*var).varlevelsup == 0 && (*var).varattno > 0).then_some(var)
        }
    }

    /// The expression can be computed without reading this relation, once for a scan.
    unsafe fn foreign(&self, node: *mut pg_sys::Node) -> bool {
        // SAFETY: as above; both functions only walk the tree.
        unsafe {
            !pg_sys::bms_is_member(self.rti, pg_sys::pull_varnos(self.root, node)) && !pg_sys::contain_volatile_functions(node)
        }
    }

    /// Strategy of `column operator something` in a plain index on the column, if it has one.
    unsafe fn strategy(&self, var: *mut pg_sys::Var, operator: pg_sys::Oid, collation: pg_sys::Oid) -> Option<i32> {
        // SAFETY: `var` is a live Var.
        let (type_oid, of_column) = unsafe { ((*var).vartype, (*var).varcollid) };
        if of_column != pg_sys::InvalidOid && of_column != collation {
            return None;
        }
        let (family, _) = relinfo::default_opclass(type_oid)?;
        compat::btree_strategies(operator).into_iter().find(|(f, _)| *f == family).map(|(_, strategy)| strategy)
    }

    /// The column, the strategy and the other side of a comparison, turned so that the column stands on the left.
    unsafe fn comparison(&self, clause: *mut pg_sys::Node) -> Option<(AttNum, i32, *mut pg_sys::Var, *mut pg_sys::Node)> {
        // SAFETY: an OpExpr's arguments are expressions.
        unsafe {
            let op = cast::<pg_sys::OpExpr>(clause, T::T_OpExpr)?;
            let mut args = list::<pg_sys::Node>((*op).args);
            let (left, right) = (args.next()?, args.next()?);
            let (var, other, operator) = match (self.var(left), self.var(right)) {
                (Some(var), _) if self.foreign(right) => (var, right, (*op).opno),
                (_, Some(var)) if self.foreign(left) => (var, left, pg_sys::get_commutator((*op).opno)),
                _ => return None,
            };
            if operator == pg_sys::InvalidOid {
                return None;
            }
            let strategy = self.strategy(var, operator, (*op).inputcollid)?;
            Some(((*var).varattno, strategy, var, other))
        }
    }

    unsafe fn condition(&self, clause: *mut pg_sys::Node) -> Option<Condition> {
        // SAFETY: every cast is guarded by the tag.
        unsafe {
            if let Some((column, strategy, ..)) = self.comparison(clause) {
                let kind = match strategy {
                    EQUAL => PredicateKind::Equal,
                    1 | 2 | 4 | 5 => PredicateKind::Range,
                    _ => return None,
                };
                return Some(Condition { column, kind });
            }
            if let Some(op) = cast::<pg_sys::ScalarArrayOpExpr>(clause, T::T_ScalarArrayOpExpr) {
                let mut args = list::<pg_sys::Node>((*op).args);
                let (left, right) = (args.next()?, args.next()?);
                let var = self.var(left)?;
                let equal = (*op).useOr && self.strategy(var, (*op).opno, (*op).inputcollid) == Some(EQUAL);
                return (equal && self.foreign(right)).then_some(Condition { column: (*var).varattno, kind: PredicateKind::In });
            }
            if let Some(test) = cast::<pg_sys::NullTest>(clause, T::T_NullTest) {
                let is_null = (*test).nulltesttype == pg_sys::NullTestType::IS_NULL && !(*test).argisrow;
                return is_null.then(|| self.var((*test).arg.cast())).flatten().map(|v| equal((*v).varattno));
            }
            if let Some(test) = cast::<pg_sys::BooleanTest>(clause, T::T_BooleanTest) {
                use pg_sys::BoolTestType as B;
                let indexable = matches!((*test).booltesttype, B::IS_TRUE | B::IS_FALSE);
                return indexable.then(|| self.var((*test).arg.cast())).flatten().map(|v| equal((*v).varattno));
            }
            if let Some(bool_expr) = cast::<pg_sys::BoolExpr>(clause, T::T_BoolExpr) {
                return match (*bool_expr).boolop {
                    pg_sys::BoolExprType::NOT_EXPR => {
                        let arg = list::<pg_sys::Node>((*bool_expr).args).next()?;
                        self.boolean(arg)
                    }
                    pg_sys::BoolExprType::OR_EXPR => self.alternatives((*bool_expr).args),
                    _ => None,
                };
            }
            self.boolean(clause)
        }
    }

    /// A column of type boolean that stands alone: `WHERE flag`.
    unsafe fn boolean(&self, node: *mut pg_sys::Node) -> Option<Condition> {
        // SAFETY: as for `var`.
        unsafe { self.var(node).filter(|v| (**v).vartype == pg_sys::BOOLOID).map(|v| equal((*v).varattno)) }
    }

    /// `a = 1 OR a = 2 OR a IN (...)`: the same as IN when all arms are equalities on one column.
    unsafe fn alternatives(&self, arms: *mut pg_sys::List) -> Option<Condition> {
        let mut column = None;
        // SAFETY: the arms of an OR are expressions.
        for arm in unsafe { list::<pg_sys::Node>(arms) } {
            // SAFETY: as above.
            let condition = unsafe { self.condition(arm) }?;
            let equality = matches!(condition.kind, PredicateKind::Equal | PredicateKind::In);
            if !equality || column.is_some_and(|c| c != condition.column) {
                return None;
            }
            column = Some(condition.column);
        }
        column.map(|column| Condition { column, kind: PredicateKind::In })
    }

    /// Restrictions of this relation alone. Several ranges on a column become one, with the selectivity of all together.
    unsafe fn restrictions(&self) -> Vec<Predicate> {
        let mut found: Vec<(Condition, *mut pg_sys::List)> = Vec::new();
        // SAFETY: baserestrictinfo holds RestrictInfos. What a security barrier keeps from running early cannot be an index
        // condition either (restriction_is_securely_promotable, restrictinfo.c).
        unsafe {
            for rinfo in list::<pg_sys::RestrictInfo>((*self.rel).baserestrictinfo) {
                let promotable = (*rinfo).leakproof || (*rinfo).security_level <= (*self.rel).baserestrict_min_security;
                if (*rinfo).pseudoconstant || !promotable {
                    continue;
                }
                let Some(condition) = self.condition((*rinfo).clause.cast()) else { continue };
                let same = found.iter_mut().find(|(c, _)| c.column == condition.column && c.kind == condition.kind);
                match same {
                    Some((_, clauses)) => *clauses = pg_sys::lappend(*clauses, rinfo.cast()),
                    None => found.push((condition, pg_sys::lappend(null_mut(), rinfo.cast()))),
                }
            }
            found
                .into_iter()
                .map(|(Condition { column, kind }, clauses)| {
                    let selectivity =
                        pg_sys::clauselist_selectivity(self.root, clauses, 0, pg_sys::JoinType::JOIN_INNER, null_mut());
                    Predicate { column, kind, selectivity, by: Vec::new() }
                })
                .collect()
        }
    }

    /// Columns that an equality ties to another relation which may be read first. Equalities that hold everywhere live in the
    /// equivalence classes, those of outer joins in `joininfo`.
    ///
    /// # Safety
    /// As the module says.
    pub(super) unsafe fn joins(&self) -> Vec<Predicate> {
        let mut vars: Vec<*mut pg_sys::Var> = Vec::new();
        // SAFETY: equivalence classes hold their members, joininfo holds RestrictInfos.
        unsafe {
            let mut add = |var: *mut pg_sys::Var| {
                if vars.iter().all(|v| (**v).varattno != (*var).varattno) {
                    vars.push(var);
                }
            };
            for class in list::<pg_sys::EquivalenceClass>((*self.root).eq_classes) {
                // With a constant in it, the class has become a restriction of every relation.
                if (*class).ec_has_const || (*class).ec_has_volatile {
                    continue;
                }
                let others = list::<pg_sys::EquivalenceMember>((*class).ec_members).any(|m| {
                    !(*m).em_is_child
                        && !(*m).em_relids.is_null()
                        && !pg_sys::bms_is_member(self.rti, (*m).em_relids)
                        && !pg_sys::bms_overlap((*m).em_relids, (*self.rel).top_parent_relids)
                });
                if others {
                    self.columns_of(class).for_each(&mut add);
                }
            }
            for rinfo in list::<pg_sys::RestrictInfo>((*self.rel).joininfo) {
                if !pg_sys::join_clause_is_movable_to(rinfo, self.rel) {
                    continue;
                }
                if let Some((_, EQUAL, var, _)) = self.comparison((*rinfo).clause.cast()) {
                    add(var);
                }
            }
            vars.into_iter()
                .map(|var| Predicate {
                    column: (*var).varattno,
                    kind: PredicateKind::Join,
                    selectivity: 1.0 / self.distinct(var).max(1.0),
                    by: Vec::new(),
                })
                .collect()
        }
    }

    /// Columns of this relation in an equivalence class that a plain index orders as the class does.
    unsafe fn columns_of(&self, class: *mut pg_sys::EquivalenceClass) -> impl Iterator<Item = *mut pg_sys::Var> {
        // SAFETY: members are expressions; the class names its operator families and its collation.
        unsafe {
            list::<pg_sys::EquivalenceMember>((*class).ec_members).filter_map(move |member| {
                let var = self.var((*member).em_expr.cast())?;
                let (family, _) = relinfo::default_opclass((*var).vartype)?;
                let collation = (*var).varcollid == pg_sys::InvalidOid || (*var).varcollid == (*class).ec_collation;
                (collation && pg_sys::list_member_oid((*class).ec_opfamilies, family)).then_some(var)
            })
        }
    }

    /// The planner's estimate of the number of distinct values in the whole relation.
    unsafe fn distinct(&self, var: *mut pg_sys::Var) -> f64 {
        // SAFETY: examine_variable fills the struct; the statistics tuple is given back as ReleaseVariableStats does (selfuncs.h).
        unsafe {
            let mut data: pg_sys::VariableStatData = std::mem::zeroed();
            pg_sys::examine_variable(self.root, var.cast(), 0, &mut data);
            let mut is_default = false;
            let n = pg_sys::get_variable_numdistinct(&mut data, &mut is_default);
            if !data.statsTuple.is_null()
                && let Some(free) = data.freefunc
            {
                pg_sys::ffi::pg_guard_ffi_boundary(|| free(data.statsTuple));
            }
            n
        }
    }

    /// The leading part of the wanted order that lies in this relation.
    unsafe fn order(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        // SAFETY: pathkeys point to their equivalence classes.
        unsafe {
            for key in list::<pg_sys::PathKey>((*self.root).query_pathkeys) {
                let Some(var) = self.columns_of((*key).pk_eclass).next() else { break };
                keys.push(Key {
                    column: (*var).varattno,
                    descending: compat::descending(&*key),
                    nulls_first: (*key).pk_nulls_first,
                    opclass: OpClass::Default,
                });
            }
        }
        keys
    }

    /// Columns grouped by, or else made distinct.
    unsafe fn group(&self) -> Vec<AttNum> {
        let mut columns = Vec::new();
        // SAFETY: as above.
        unsafe {
            let grouped = (*self.root).group_pathkeys;
            for key in list::<pg_sys::PathKey>(if grouped.is_null() { (*self.root).distinct_pathkeys } else { grouped }) {
                for var in self.columns_of((*key).pk_eclass) {
                    if !columns.contains(&(*var).varattno) {
                        columns.push((*var).varattno);
                    }
                }
            }
        }
        columns
    }

    /// Columns that are read, and whether system columns or whole rows are.
    unsafe fn needed(&self) -> (Vec<AttNum>, bool) {
        // SAFETY: both are the planner's expressions; pull_varattnos numbers columns from the lowest system column.
        unsafe {
            let mut found = null_mut();
            pg_sys::pull_varattnos((*(*self.rel).reltarget).exprs.cast(), self.rti as u32, &mut found);
            for rinfo in list::<pg_sys::RestrictInfo>((*self.rel).baserestrictinfo) {
                pg_sys::pull_varattnos((*rinfo).clause.cast(), self.rti as u32, &mut found);
            }
            let all: Vec<i32> = members(found).map(|n| n + pg_sys::FirstLowInvalidHeapAttributeNumber).collect();
            let system = all.iter().any(|n| *n <= 0);
            (all.into_iter().filter(|n| *n > 0).filter_map(|n| AttNum::try_from(n).ok()).collect(), system)
        }
    }

    /// Its rows are locked (FOR UPDATE and the like), so the table itself is visited.
    unsafe fn locked(&self) -> bool {
        // SAFETY: rowMarks holds PlanRowMarks.
        unsafe {
            list::<pg_sys::PlanRowMark>((*self.root).rowMarks).any(|mark| {
                (*mark).rti as i32 == self.rti
                    && !matches!((*mark).markType, pg_sys::RowMarkType::ROW_MARK_REFERENCE | pg_sys::RowMarkType::ROW_MARK_COPY)
            })
        }
    }
}

fn equal(column: AttNum) -> Condition {
    Condition { column, kind: PredicateKind::Equal }
}
