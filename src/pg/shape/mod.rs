//! Reading, while the planner works, what a query wants of one relation.
//!
//! The planner has done the hard part by then: views are expanded, subqueries pulled up, constants folded, equalities gathered in
//! equivalence classes. An expression over columns is read like a column ([`operand`]), what no plain B-tree searches with what does
//! ([`search`]), and what a partial index may have as its condition as text ([`condition`]).
//!
//! # Safety
//! The functions run inside the planner, on its own structures; a node is null or a live node of the type that its tag says.

mod condition;
mod expressions;
mod operand;
mod search;

pub use expressions::{Expressions, renumber};

use super::node::{cast, list, members, strip_relabel};
use super::{compat, relinfo};
use condition::Constants;
use indexpilot_core::model::{AccessMethod, AttNum, ColumnInfo, Key, OpClass, Predicate, PredicateKind, RelId, RelationUse};
use operand::{Met, Operand};
use pgrx::pg_sys::{self, NodeTag as T};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ptr::null_mut;

/// B-tree strategy number of `=` (access/stratnum.h).
const EQUAL: i32 = 3;

/// Arms of an OR that are looked at: each takes a while, and of more no index makes much.
const MAX_ARMS: usize = 100;

/// One relation of one query level.
pub(super) struct Reader {
    pub(super) root: *mut pg_sys::PlannerInfo,
    pub(super) rel: *mut pg_sys::RelOptInfo,
    pub(super) rti: i32,
    /// Expressions over its columns, in the order in which they were met.
    met: RefCell<Vec<Met>>,
}

/// A restriction before its selectivity is known.
#[derive(PartialEq)]
struct Found {
    column: AttNum,
    kind: PredicateKind,
    by: Vec<(AccessMethod, OpClass)>,
}

/// What a query wants of one relation.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its expressions are numbered by their places in `expressions`, from [`indexpilot_core::model::FIRST_EXPRESSION`].
    pub usage: RelationUse,
    pub expressions: Vec<ColumnInfo>,
    /// Texts of those expressions and conditions that have a constant in them, which may be another in another execution.
    pub constants: BTreeSet<String>,
    /// Those conditions whose constants are of many that the columns have.
    pub values: BTreeSet<String>,
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
    Some(Reader { root, rel, rti: rti as i32, met: RefCell::default() })
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
) -> Option<Wanted> {
    // SAFETY: all of it is the planner's own state for this relation, complete when the hook is called: restrictions, equivalence
    // classes and wanted orders were built before base relations get their paths (planmain.c, allpaths.c).
    unsafe {
        let reader = reader(root, rel, rti, rte)?;
        let (needed, system) = reader.needed();
        let target = pg_sys::bms_is_member(rti as i32, (*root).all_result_relids);
        let whole_row = system || target || reader.locked();
        let mut predicates = reader.restrictions();
        predicates.extend(reader.joins());
        let (order, group) = (reader.order(), reader.group());
        let (mut conditions, mut constants, mut values) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for (condition, found) in reader.conditions() {
            if found != Constants::None {
                constants.insert(condition.sql.clone());
            }
            if found == Constants::Values {
                values.insert(condition.sql.clone());
            }
            conditions.push(condition);
        }
        conditions.sort_by(|a, b| a.sql.cmp(&b.sql));
        let mut expressions = Vec::new();
        for met in reader.met.take() {
            if met.constants {
                constants.insert(met.info.name.clone());
            }
            expressions.push(met.info);
        }
        let usage = RelationUse {
            rel: RelId((*rte).relid.to_u32()),
            predicates,
            conditions,
            limited: !order.is_empty() && (*root).limit_tuples > 0.0,
            order,
            group,
            needed: if whole_row { Vec::new() } else { needed },
            whole_row,
            target,
            rows: (*rel).rows,
        };
        Some(Wanted { usage, expressions, constants, values })
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

    /// The table that the relation is.
    unsafe fn table(&self) -> pg_sys::Oid {
        // SAFETY: every relation of a query level has its entry in this array.
        unsafe { (**(*self.root).simple_rte_array.add(self.rti as usize)).relid }
    }

    /// Strategy of `operand operator something` in a plain index on the operand, if it has one.
    fn strategy(operand: &Operand, operator: pg_sys::Oid, collation: pg_sys::Oid) -> Option<i32> {
        if operand.collation != pg_sys::InvalidOid && operand.collation != collation {
            return None;
        }
        let (family, _) = relinfo::default_opclass(operand.type_oid)?;
        compat::btree_strategies(operator).into_iter().find(|(f, _)| *f == family).map(|(_, strategy)| strategy)
    }

    /// The operand and the strategy of a comparison, turned so that the operand stands on the left.
    unsafe fn comparison(&self, clause: *mut pg_sys::Node) -> Option<(Operand, i32)> {
        // SAFETY: an OpExpr's arguments are expressions.
        unsafe {
            let op = cast::<pg_sys::OpExpr>(clause, T::T_OpExpr)?;
            let mut args = list::<pg_sys::Node>((*op).args);
            let (left, right) = (args.next()?, args.next()?);
            let (operand, operator) = if let Some(operand) = self.foreign(right).then(|| self.operand(left)).flatten() {
                (operand, (*op).opno)
            } else if let Some(operand) = self.foreign(left).then(|| self.operand(right)).flatten() {
                (operand, pg_sys::get_commutator((*op).opno))
            } else {
                return None;
            };
            if operator == pg_sys::InvalidOid {
                return None;
            }
            let strategy = Self::strategy(&operand, operator, (*op).inputcollid)?;
            Some((operand, strategy))
        }
    }

    /// The restriction as one that a plain index serves.
    unsafe fn condition(&self, clause: *mut pg_sys::Node) -> Option<Found> {
        // SAFETY: every cast is guarded by the tag.
        unsafe {
            let (operand, kind) = self.restriction(clause)?;
            let column = match kind {
                PredicateKind::In if operand.is_none() => self.alternatives(clause)?,
                _ => self.column(&operand?)?,
            };
            Some(Found { column, kind, by: Vec::new() })
        }
    }

    /// What is restricted, and how; no operand for an OR of equalities on one.
    unsafe fn restriction(&self, clause: *mut pg_sys::Node) -> Option<(Option<Operand>, PredicateKind)> {
        let equal = |operand: Operand| (Some(operand), PredicateKind::Equal);
        // SAFETY: every cast is guarded by the tag.
        unsafe {
            if let Some((operand, strategy)) = self.comparison(clause) {
                let kind = match strategy {
                    EQUAL => PredicateKind::Equal,
                    1 | 2 | 4 | 5 => PredicateKind::Range,
                    _ => return None,
                };
                return Some((Some(operand), kind));
            }
            if let Some(op) = cast::<pg_sys::ScalarArrayOpExpr>(clause, T::T_ScalarArrayOpExpr) {
                let mut args = list::<pg_sys::Node>((*op).args);
                let (left, right) = (args.next()?, args.next()?);
                let operand = self.operand(left)?;
                let equal = (*op).useOr && Self::strategy(&operand, (*op).opno, (*op).inputcollid) == Some(EQUAL);
                return (equal && self.foreign(right)).then_some((Some(operand), PredicateKind::In));
            }
            if let Some(test) = cast::<pg_sys::NullTest>(clause, T::T_NullTest) {
                let is_null = (*test).nulltesttype == pg_sys::NullTestType::IS_NULL && !(*test).argisrow;
                return is_null.then(|| self.operand((*test).arg.cast())).flatten().map(equal);
            }
            if let Some(test) = cast::<pg_sys::BooleanTest>(clause, T::T_BooleanTest) {
                use pg_sys::BoolTestType as B;
                let indexable = matches!((*test).booltesttype, B::IS_TRUE | B::IS_FALSE);
                return indexable.then(|| self.boolean((*test).arg.cast())).flatten().map(equal);
            }
            if let Some(bool_expr) = cast::<pg_sys::BoolExpr>(clause, T::T_BoolExpr) {
                return match (*bool_expr).boolop {
                    pg_sys::BoolExprType::NOT_EXPR => {
                        let arg = list::<pg_sys::Node>((*bool_expr).args).next()?;
                        self.boolean(arg).map(equal)
                    }
                    pg_sys::BoolExprType::OR_EXPR => Some((None, PredicateKind::In)),
                    _ => None,
                };
            }
            self.boolean(clause).map(equal)
        }
    }

    /// A column of type boolean that stands alone: `WHERE flag`.
    unsafe fn boolean(&self, node: *mut pg_sys::Node) -> Option<Operand> {
        // SAFETY: as for `operand`.
        unsafe { self.operand(node).filter(|o| o.is_column() && o.type_oid == pg_sys::BOOLOID) }
    }

    /// The column of `a = 1 OR a = 2 OR a IN (...)`: the same as IN when all arms are equalities on one column.
    unsafe fn alternatives(&self, clause: *mut pg_sys::Node) -> Option<AttNum> {
        let mut column = None;
        // SAFETY: the arms of an OR are expressions.
        unsafe {
            let either = cast::<pg_sys::BoolExpr>(clause, T::T_BoolExpr)?;
            if list::<pg_sys::Node>((*either).args).count() > MAX_ARMS {
                return None;
            }
            for arm in list::<pg_sys::Node>((*either).args) {
                let found = self.condition(arm)?;
                let equality = matches!(found.kind, PredicateKind::Equal | PredicateKind::In);
                if !equality || column.is_some_and(|c| c != found.column) {
                    return None;
                }
                column = Some(found.column);
            }
        }
        column
    }

    /// Restrictions of this relation alone. Several ranges on a column become one, with the selectivity of all together.
    unsafe fn restrictions(&self) -> Vec<Predicate> {
        let mut found: Vec<(Found, *mut pg_sys::List)> = Vec::new();
        // SAFETY: baserestrictinfo holds RestrictInfos. What a security barrier keeps from running early cannot be an index
        // condition either (restriction_is_securely_promotable, restrictinfo.c).
        unsafe {
            for rinfo in list::<pg_sys::RestrictInfo>((*self.rel).baserestrictinfo) {
                let promotable = (*rinfo).leakproof || (*rinfo).security_level <= (*self.rel).baserestrict_min_security;
                if (*rinfo).pseudoconstant || !promotable {
                    continue;
                }
                let clause = (*rinfo).clause.cast();
                let ways = self.condition(clause).map_or_else(|| self.searches(clause), |plain| vec![plain]);
                for way in ways {
                    match found.iter_mut().find(|(f, _)| *f == way) {
                        Some((_, clauses)) => *clauses = pg_sys::lappend(*clauses, rinfo.cast()),
                        None => found.push((way, pg_sys::lappend(null_mut(), rinfo.cast()))),
                    }
                }
            }
            found
                .into_iter()
                .map(|(Found { column, kind, by }, clauses)| {
                    let selectivity =
                        pg_sys::clauselist_selectivity(self.root, clauses, 0, pg_sys::JoinType::JOIN_INNER, null_mut());
                    Predicate { column, kind, selectivity, by }
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
        // SAFETY: as for the functions that are called.
        unsafe {
            let joined = self.joined().into_iter().filter_map(|operand| {
                let column = self.column(&operand)?;
                let selectivity = 1.0 / self.examine(operand.node).distinct.max(1.0);
                Some(Predicate { column, kind: PredicateKind::Join, selectivity, by: Vec::new() })
            });
            joined.collect()
        }
    }

    /// What the equalities with other relations are on, each once.
    unsafe fn joined(&self) -> Vec<Operand> {
        let mut operands: Vec<Operand> = Vec::new();
        // SAFETY: equivalence classes hold their members, joininfo holds RestrictInfos.
        unsafe {
            let mut add = |operand: Operand| {
                if !operands.iter().any(|o| self.same(o, &operand)) {
                    operands.push(operand);
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
                    self.operands_of(class).for_each(&mut add);
                }
            }
            for rinfo in list::<pg_sys::RestrictInfo>((*self.rel).joininfo) {
                if !pg_sys::join_clause_is_movable_to(rinfo, self.rel) {
                    continue;
                }
                if let Some((operand, EQUAL)) = self.comparison((*rinfo).clause.cast()) {
                    add(operand);
                }
            }
        }
        operands
    }

    unsafe fn same(&self, a: &Operand, b: &Operand) -> bool {
        match (a.is_column(), b.is_column()) {
            (true, true) => a.attnum() == b.attnum(),
            // SAFETY: compares two expressions.
            (false, false) => unsafe { pg_sys::equal(a.node.cast(), b.node.cast()) },
            _ => false,
        }
    }

    /// Columns, and expressions, of this relation in an equivalence class that a plain index orders as the class does.
    unsafe fn operands_of(&self, class: *mut pg_sys::EquivalenceClass) -> impl Iterator<Item = Operand> {
        // SAFETY: members are expressions; the class names its operator families and its collation.
        unsafe {
            list::<pg_sys::EquivalenceMember>((*class).ec_members).filter_map(move |member| {
                let operand = self.operand((*member).em_expr.cast())?;
                let (family, _) = relinfo::default_opclass(operand.type_oid)?;
                let collation = operand.collation == pg_sys::InvalidOid || operand.collation == (*class).ec_collation;
                (collation && pg_sys::list_member_oid((*class).ec_opfamilies, family)).then_some(operand)
            })
        }
    }

    /// The leading part of the wanted order that lies in this relation.
    unsafe fn order(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        // SAFETY: pathkeys point to their equivalence classes.
        unsafe {
            for key in list::<pg_sys::PathKey>((*self.root).query_pathkeys) {
                let operand = self.operands_of((*key).pk_eclass).next();
                let Some(column) = operand.and_then(|o| self.column(&o)) else { break };
                keys.push(Key {
                    column,
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
                for column in self.operands_of((*key).pk_eclass).filter_map(|o| self.column(&o)) {
                    if !columns.contains(&column) {
                        columns.push(column);
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
