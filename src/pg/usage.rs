//! Reading, while the planner works, what a query uses each field of a relation for, and by which operators.
//!
//! [`super::shape`] reads what an index could serve; this reads everything, also what no plain index serves.
//!
//! # Safety
//! The functions run inside the planner, on its own structures; a node is null or a live node of the type that its tag says.

use super::compat;
use super::node::{cast, list, members, text};
use super::shape::{self, Reader};
use indexpilot_core::model::{AttNum, FIRST_EXPRESSION, RelId};
use indexpilot_core::profile::{Comparison, FieldUse, Usage};
use pgrx::pg_sys::{self, NodeTag as T};
use std::ptr::null_mut;

/// B-tree strategy number of `=` (access/stratnum.h).
const EQUAL: i32 = 3;
/// `=` of booleans: what a column of that type is compared by when it stands alone.
const BOOLEAN_EQUAL: u32 = pg_sys::BooleanEqualOperator;

/// How the query level `root` uses the fields of `rel`; nothing when the relation is not a table, or a child whose parent is one.
///
/// # Safety
/// The arguments are those of `set_rel_pathlist_hook`.
pub unsafe fn read(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) -> Vec<FieldUse> {
    // SAFETY: as the caller promises.
    unsafe {
        let Some(reader) = shape::reader(root, rel, rti, rte) else { return Vec::new() };
        let mut fields = Fields { rel: RelId((*rte).relid.to_u32()), reader, found: Vec::new() };
        fields.filters();
        fields.joins();
        fields.orders();
        fields.outputs();
        fields.found
    }
}

struct Fields {
    rel: RelId,
    reader: Reader,
    found: Vec<FieldUse>,
}

impl Fields {
    fn add(&mut self, column: AttNum, usage: Usage, operator: u32, comparison: Option<Comparison>, selectivity: Option<f64>) {
        let same = |f: &FieldUse| (f.column, f.usage, f.operator, f.comparison) == (column, usage, operator, comparison);
        if selectivity.is_some() || !self.found.iter().any(same) {
            self.found.push(FieldUse { rel: self.rel, column, usage, operator, comparison, selectivity });
        }
    }

    /// Conditions on this relation alone.
    unsafe fn filters(&mut self) {
        // SAFETY: baserestrictinfo holds RestrictInfos, whose clauses are expressions without sublinks.
        unsafe {
            for rinfo in list::<pg_sys::RestrictInfo>((*self.reader.rel).baserestrictinfo) {
                if !(*rinfo).pseudoconstant {
                    self.condition((*rinfo).clause.cast(), Usage::Filter);
                }
            }
        }
    }

    /// Conditions that need another relation too. Equalities that hold everywhere live in the equivalence classes.
    unsafe fn joins(&mut self) {
        // SAFETY: joininfo holds RestrictInfos; the type cache answers for every type of a column.
        unsafe {
            for predicate in self.reader.joins().into_iter().filter(|p| p.column < FIRST_EXPRESSION) {
                let type_oid = pg_sys::get_atttype(pg_sys::Oid::from(self.rel.0), predicate.column);
                let operator = (*pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_EQ_OPR as i32)).eq_opr.to_u32();
                self.add(predicate.column, Usage::Join, operator, Some(Comparison::Equal), Some(predicate.selectivity));
            }
            for rinfo in list::<pg_sys::RestrictInfo>((*self.reader.rel).joininfo) {
                self.condition((*rinfo).clause.cast(), Usage::Join);
            }
        }
    }

    /// One condition, taken apart down to its comparisons.
    unsafe fn condition(&mut self, clause: *mut pg_sys::Node, usage: Usage) {
        // SAFETY: every cast is guarded by the tag; clause_selectivity takes any boolean expression of this query level.
        unsafe {
            if let Some(parts) = cast::<pg_sys::BoolExpr>(clause, T::T_BoolExpr) {
                list::<pg_sys::Node>((*parts).args).for_each(|part| self.condition(part, usage));
                return;
            }
            if let Some(inner) = cast::<pg_sys::RestrictInfo>(clause, T::T_RestrictInfo) {
                return self.condition((*inner).clause.cast(), usage);
            }
            let selectivity = (usage == Usage::Filter)
                .then(|| pg_sys::clause_selectivity(self.reader.root, clause, 0, pg_sys::JoinType::JOIN_INNER, null_mut()));
            if let Some(op) = cast::<pg_sys::OpExpr>(clause, T::T_OpExpr) {
                let args: Vec<_> = list::<pg_sys::Node>((*op).args).collect();
                for (position, arg) in args.iter().enumerate() {
                    let operator = if position == 0 { (*op).opno } else { pg_sys::get_commutator((*op).opno) };
                    self.operand(*arg, operator, comparison((*op).opno), usage, selectivity);
                }
            } else if let Some(op) = cast::<pg_sys::ScalarArrayOpExpr>(clause, T::T_ScalarArrayOpExpr) {
                let kind = match comparison((*op).opno) {
                    Comparison::Equal if (*op).useOr => Comparison::In,
                    Comparison::Equal | Comparison::Range => Comparison::Other,
                    other => other,
                };
                let mut args = list::<pg_sys::Node>((*op).args);
                if let Some(left) = args.next() {
                    self.operand(left, (*op).opno, kind, usage, selectivity);
                }
                if let Some(array) = args.next() {
                    self.operand(array, pg_sys::InvalidOid, Comparison::Other, usage, selectivity);
                }
            } else if let Some(test) = cast::<pg_sys::NullTest>(clause, T::T_NullTest) {
                self.operand((*test).arg.cast(), pg_sys::InvalidOid, Comparison::Null, usage, selectivity);
            } else if let Some(test) = cast::<pg_sys::BooleanTest>(clause, T::T_BooleanTest) {
                self.operand((*test).arg.cast(), pg_sys::Oid::from(BOOLEAN_EQUAL), Comparison::Equal, usage, selectivity);
            } else {
                self.operand(clause, pg_sys::Oid::from(BOOLEAN_EQUAL), Comparison::Equal, usage, selectivity);
            }
        }
    }

    /// What is compared: the field itself, or an expression of fields.
    unsafe fn operand(
        &mut self,
        node: *mut pg_sys::Node,
        operator: pg_sys::Oid,
        comparison: Comparison,
        usage: Usage,
        selectivity: Option<f64>,
    ) {
        // SAFETY: `node` is an expression of this query level.
        unsafe {
            if let Some(var) = self.reader.var(node) {
                // Both equalities of a join are noted already, with what they let pass.
                let noted =
                    |f: &FieldUse| f.column == (*var).varattno && f.usage == Usage::Join && f.comparison == Some(comparison);
                if usage != Usage::Join || comparison != Comparison::Equal || !self.found.iter().any(noted) {
                    self.add((*var).varattno, usage, operator.to_u32(), Some(comparison), selectivity);
                }
                return;
            }
            for column in self.columns(node) {
                self.add(column, usage, 0, Some(Comparison::Expression), selectivity);
            }
        }
    }

    /// Fields that an expression reads; all of them when it reads whole rows.
    unsafe fn columns(&self, node: *mut pg_sys::Node) -> Vec<AttNum> {
        // SAFETY: pull_varattnos numbers columns from the lowest system column; column 0 is the whole row.
        unsafe {
            let mut found = null_mut();
            pg_sys::pull_varattnos(node, self.reader.rti as u32, &mut found);
            let all: Vec<i32> = members(found).map(|n| n + pg_sys::FirstLowInvalidHeapAttributeNumber).collect();
            if all.contains(&0) {
                return (1..=(*self.reader.rel).max_attr).collect();
            }
            all.into_iter().filter(|n| *n > 0).filter_map(|n| AttNum::try_from(n).ok()).collect()
        }
    }

    /// ORDER BY, windows, GROUP BY and DISTINCT.
    unsafe fn orders(&mut self) {
        // SAFETY: the planner's lists of PathKeys for this query level, made before its relations get their paths.
        unsafe {
            let root = self.reader.root;
            for (keys, usage) in [
                ((*root).sort_pathkeys, Usage::Order),
                ((*root).window_pathkeys, Usage::Order),
                ((*root).group_pathkeys, Usage::Group),
                ((*root).distinct_pathkeys, Usage::Group),
            ] {
                for key in list::<pg_sys::PathKey>(keys) {
                    for member in list::<pg_sys::EquivalenceMember>((*(*key).pk_eclass).ec_members) {
                        if let Some(var) = self.reader.var((*member).em_expr.cast()) {
                            self.add((*var).varattno, usage, 0, None, None);
                        }
                    }
                }
            }
        }
    }

    /// What this query level returns, or the level above reads of an arm of UNION ALL.
    unsafe fn outputs(&mut self) {
        // SAFETY: processed_tlist holds TargetEntries; reltarget and HAVING are expressions.
        unsafe {
            let mut columns = Vec::new();
            if (*self.reader.rel).reloptkind == pg_sys::RelOptKind::RELOPT_OTHER_MEMBER_REL {
                columns.extend(self.columns((*(*self.reader.rel).reltarget).exprs.cast()));
            } else {
                for entry in list::<pg_sys::TargetEntry>((*self.reader.root).processed_tlist) {
                    if !(*entry).resjunk {
                        columns.extend(self.columns((*entry).expr.cast()));
                    }
                }
                columns.extend(self.columns((*(*self.reader.root).parse).havingQual));
            }
            for column in columns {
                self.add(column, Usage::Output, 0, None, None);
            }
        }
    }
}

/// What kind of comparison an operator makes: B-tree families tell, and the function that estimates its selectivity.
fn comparison(operator: pg_sys::Oid) -> Comparison {
    match compat::btree_strategies(operator).first() {
        Some((_, EQUAL)) => return Comparison::Equal,
        Some((_, 1 | 2 | 4 | 5)) => return Comparison::Range,
        _ => {}
    }
    // SAFETY: catalog lookups; null for an unknown operator or function.
    let (name, estimator) =
        unsafe { (text(pg_sys::get_opname(operator)), text(pg_sys::get_func_name(pg_sys::get_oprrest(operator)))) };
    let estimator = estimator.unwrap_or_default();
    if ["likesel", "regexeqsel", "regexnesel", "prefixsel"].iter().any(|end| estimator.ends_with(end)) {
        Comparison::Like
    } else if name.as_deref() == Some("=") {
        Comparison::Equal
    } else {
        Comparison::Other
    }
}
