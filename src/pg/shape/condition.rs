//! Conditions that a partial index may have: no parameter in them, and the same for everybody at all times.
//!
//! # Safety
//! As for the functions of [`super`].

use super::Reader;
use crate::pg::deparse;
use crate::pg::node::{cast, list};
use indexpilot_core::model::Condition;
use pgrx::pg_sys::{self, NodeTag as T};
use std::ptr::null_mut;

/// Conditions noted of one relation at most.
const MAX_CONDITIONS: usize = 32;

/// A column with more different values does not hold categories.
const MOST_CATEGORIES: f64 = 10.0;

/// What constants a condition has.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Constants {
    None,
    /// All are of the few that their columns have: states, kinds, flags.
    Categories,
    /// Some are of many: numbers, names, times. The next execution likely has others.
    Values,
}

impl Reader {
    /// The restrictions of this relation that a partial index may have, and what their constants are.
    ///
    /// # Safety
    /// As the module says.
    pub(super) unsafe fn conditions(&self) -> Vec<(Condition, Constants)> {
        let mut found: Vec<(Condition, Constants)> = Vec::new();
        // SAFETY: baserestrictinfo holds RestrictInfos, whose clauses are expressions over this relation.
        unsafe {
            for rinfo in list::<pg_sys::RestrictInfo>((*self.rel).baserestrictinfo).take(MAX_CONDITIONS) {
                if (*rinfo).pseudoconstant {
                    continue;
                }
                let clause: *mut pg_sys::Node = (*rinfo).clause.cast();
                let Some(anatomy) = deparse::indexable(clause, self.rti) else { continue };
                let Some(sql) = deparse::text(clause, self.rti, self.table()) else { continue };
                if found.iter().any(|(c, _)| c.sql == sql) {
                    continue;
                }
                let selectivity = pg_sys::clause_selectivity(self.root, rinfo.cast(), 0, pg_sys::JoinType::JOIN_INNER, null_mut());
                let constants = match anatomy.constants {
                    false => Constants::None,
                    true if self.of_categories(clause) => Constants::Categories,
                    true => Constants::Values,
                };
                found.push((Condition { sql, columns: self.reads(clause), selectivity }, constants));
            }
        }
        found
    }

    /// Every column that the condition compares with a constant has few different values.
    unsafe fn of_categories(&self, clause: *mut pg_sys::Node) -> bool {
        // SAFETY: the tags say what the clause is; arms and arguments are expressions.
        unsafe {
            if let Some(parts) = cast::<pg_sys::BoolExpr>(clause, T::T_BoolExpr) {
                return list::<pg_sys::Node>((*parts).args).all(|part| self.of_categories(part));
            }
            if deparse::indexable(clause, self.rti).is_some_and(|anatomy| !anatomy.constants) {
                return true;
            }
            let args = if let Some(op) = cast::<pg_sys::OpExpr>(clause, T::T_OpExpr) {
                (*op).args
            } else if let Some(op) = cast::<pg_sys::ScalarArrayOpExpr>(clause, T::T_ScalarArrayOpExpr) {
                (*op).args
            } else {
                return false;
            };
            let compared = list::<pg_sys::Node>(args).find_map(|arg| self.operand(arg));
            compared.map(|operand| self.examine(operand.node)).is_some_and(|e| e.known && e.distinct <= MOST_CATEGORIES)
        }
    }
}
