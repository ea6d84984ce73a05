//! Conditions that a plain B-tree does not search, and what does: pattern operator classes, gin, gist, spgist.
//!
//! The server itself is asked: operator families say which operators an index serves, and the planner support functions which others can be
//! turned into those (`LIKE 'x%'` into a range, and so on).
//!
//! # Safety
//! As for the functions of [`super`].

use super::operand::Operand;
use super::{Found, Reader};
use crate::pg::node::{cast, list};
use crate::pg::opclass;
use indexpilot_core::model::{AccessMethod, OpClass, PredicateKind};
use pgrx::pg_sys::{self, NodeTag as T};
use std::mem::size_of;

const METHODS: [AccessMethod; 3] = [AccessMethod::Gin, AccessMethod::Gist, AccessMethod::Spgist];

/// A boolean call of an operator or a function.
struct Call {
    clause: *mut pg_sys::Node,
    function: pg_sys::Oid,
    /// The operator with the operand on its left; `InvalidOid` for a function.
    operator: pg_sys::Oid,
    collation: pg_sys::Oid,
    /// Position of the operand among the arguments.
    position: usize,
}

impl Reader {
    /// The restriction as something that other indexes than plain B-trees search; several when a B-tree with another operator class and
    /// others do. Of alternatives on one column, what serves all of them.
    ///
    /// # Safety
    /// As the module says.
    pub(super) unsafe fn searches(&self, clause: *mut pg_sys::Node) -> Vec<Found> {
        // SAFETY: the tags say what the clause is; the arms of an OR are expressions.
        unsafe {
            let Some(either) = cast::<pg_sys::BoolExpr>(clause, T::T_BoolExpr) else { return self.searched(clause) };
            if (*either).boolop != pg_sys::BoolExprType::OR_EXPR {
                return Vec::new();
            }
            if list::<pg_sys::Node>((*either).args).count() > super::MAX_ARMS {
                return Vec::new();
            }
            let mut arms = list::<pg_sys::Node>((*either).args).map(|arm| self.searched(arm));
            let mut common = arms.next().unwrap_or_default();
            for arm in arms {
                common.retain_mut(|found| {
                    let Some(other) = arm.iter().find(|o| (o.column, o.kind) == (found.column, found.kind)) else { return false };
                    let plain = found.by.is_empty() && other.by.is_empty();
                    found.by.retain(|way| other.by.contains(way));
                    plain || !found.by.is_empty()
                });
            }
            common
        }
    }

    unsafe fn searched(&self, clause: *mut pg_sys::Node) -> Vec<Found> {
        // SAFETY: the tags say what the clause is; set_opfuncid fills in what the planner itself would.
        unsafe {
            let (function, operator, collation, args) = if let Some(op) = cast::<pg_sys::OpExpr>(clause, T::T_OpExpr) {
                pg_sys::set_opfuncid(op);
                ((*op).opfuncid, (*op).opno, (*op).inputcollid, (*op).args)
            } else if let Some(call) = cast::<pg_sys::FuncExpr>(clause, T::T_FuncExpr) {
                ((*call).funcid, pg_sys::InvalidOid, (*call).inputcollid, (*call).args)
            } else {
                return Vec::new();
            };
            let args: Vec<*mut pg_sys::Node> = list(args).collect();
            if operator != pg_sys::InvalidOid && args.len() != 2 {
                return Vec::new();
            }
            for (position, arg) in args.iter().enumerate() {
                let others = args.iter().enumerate().all(|(i, other)| i == position || self.foreign(*other));
                let Some(operand) = others.then(|| self.operand(*arg)).flatten() else { continue };
                let turned =
                    if position == 0 || operator == pg_sys::InvalidOid { operator } else { pg_sys::get_commutator(operator) };
                let call = Call { clause, function, operator: turned, collation, position };
                let found = self.served(&call, &operand);
                if !found.is_empty() {
                    return found;
                }
            }
            Vec::new()
        }
    }

    unsafe fn served(&self, call: &Call, operand: &Operand) -> Vec<Found> {
        let mut ways: Vec<(PredicateKind, Vec<(AccessMethod, OpClass)>)> = Vec::new();
        // SAFETY: as for the functions that are called.
        unsafe {
            // The default class first: where it serves the condition, nobody needs another.
            let btree = opclass::all(AccessMethod::Btree, operand.type_oid)
                .into_iter()
                .find(|(_, class)| self.supports(call, operand, AccessMethod::Btree, *class));
            if let Some((class, _)) = btree {
                let by = if class == OpClass::Default { Vec::new() } else { vec![(AccessMethod::Btree, class)] };
                ways.push((PredicateKind::Prefix, by));
            }
            let mut by = Vec::new();
            for method in METHODS {
                let classes = opclass::all(method, operand.type_oid).into_iter();
                by.extend(classes.filter(|(_, oid)| self.serves(call, operand, method, *oid)).map(|(class, _)| (method, class)));
            }
            if !by.is_empty() {
                ways.push((PredicateKind::Search, by));
            }
            if ways.is_empty() {
                return Vec::new();
            }
            let Some(column) = self.column(operand) else { return Vec::new() };
            ways.into_iter().map(|(kind, by)| Found { column, kind, by }).collect()
        }
    }

    /// The operator is one that an index with the operator class searches, or can be turned into one.
    unsafe fn serves(&self, call: &Call, operand: &Operand, method: AccessMethod, opclass: pg_sys::Oid) -> bool {
        let collation = operand.collation == pg_sys::InvalidOid || operand.collation == call.collation;
        // SAFETY: a catalog lookup, false for an operator that is none.
        let member =
            call.operator != pg_sys::InvalidOid && unsafe { pg_sys::op_in_opfamily(call.operator, opclass::family(opclass)) };
        // SAFETY: as for the function.
        member && collation || unsafe { self.supports(call, operand, method, opclass) }
    }

    /// The function behind the condition can turn it into something that an index with the operator class searches; what the planner
    /// asks in get_index_clause_from_support (indxpath.c).
    unsafe fn supports(&self, call: &Call, operand: &Operand, method: AccessMethod, opclass: pg_sys::Oid) -> bool {
        // SAFETY: the request is filled as the planner fills it, its index as far as one key of a real one. Support functions take one
        // argument of type internal, give a list or NULL as a pointer, and are written in C by superusers.
        unsafe {
            let support = pg_sys::get_func_support(call.function);
            if support == pg_sys::InvalidOid {
                return false;
            }
            let family = opclass::family(opclass);
            let index = pg_sys::palloc0(size_of::<pg_sys::IndexOptInfo>()).cast::<pg_sys::IndexOptInfo>();
            let mut key = i32::from(operand.attnum());
            let (mut families, mut collations) = ([family], [operand.collation]);
            let mut types = [pg_sys::get_opclass_input_type(opclass)];
            (*index).type_ = T::T_IndexOptInfo;
            (*index).rel = self.rel;
            (*index).relam = opclass::method_oid(method);
            (*index).ncolumns = 1;
            (*index).nkeycolumns = 1;
            (*index).indexkeys = &raw mut key;
            (*index).opfamily = families.as_mut_ptr();
            (*index).opcintype = types.as_mut_ptr();
            (*index).indexcollations = collations.as_mut_ptr();
            (*index).hypothetical = true;
            let mut request = pg_sys::SupportRequestIndexCondition {
                type_: T::T_SupportRequestIndexCondition,
                root: self.root,
                funcid: call.function,
                node: call.clause,
                indexarg: call.position as i32,
                index,
                indexcol: 0,
                opfamily: family,
                indexcollation: operand.collation,
                lossy: true,
            };
            let answer =
                pg_sys::OidFunctionCall1Coll(support, pg_sys::InvalidOid, pg_sys::Datum::from((&raw mut request).cast::<u8>()));
            pg_sys::pfree(index.cast());
            answer.value() != 0
        }
    }
}
