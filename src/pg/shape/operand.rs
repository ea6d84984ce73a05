//! What an index could have as a key: a column, or an expression over columns.
//!
//! # Safety
//! As for the functions of [`super`].

use super::Reader;
use crate::pg::node::{cast, list, members, strip_relabel, text};
use crate::pg::{catalog, deparse, opclass};
use indexpilot_core::model::{AttNum, ColumnInfo, FIRST_EXPRESSION};
use pgrx::pg_sys::{self, NodeTag as T};
use std::ptr::null_mut;

/// Expressions noted of one relation at most.
const MAX_EXPRESSIONS: usize = 32;
/// Width of a value of unknown width (get_typavgwidth, lsyscache.c).
const DEFAULT_WIDTH: i32 = 32;

/// One side of a comparison.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    /// 0 for an expression.
    attnum: AttNum,
    pub(super) node: *mut pg_sys::Node,
    pub(super) type_oid: pg_sys::Oid,
    pub(super) collation: pg_sys::Oid,
}

impl Operand {
    /// Number of the column; 0 for an expression.
    pub(super) fn attnum(&self) -> AttNum {
        self.attnum
    }

    /// It is a column, not an expression.
    pub(super) fn is_column(&self) -> bool {
        self.attnum > 0
    }
}

/// An expression of the relation that was met.
pub(super) struct Met {
    node: *mut pg_sys::Node,
    pub(super) info: ColumnInfo,
    /// There is a constant in it.
    pub(super) constants: bool,
}

impl Reader {
    /// What an index on this relation could have as a key.
    ///
    /// # Safety
    /// As the module says.
    pub(super) unsafe fn operand(&self, node: *mut pg_sys::Node) -> Option<Operand> {
        // SAFETY: `node` is an expression of the planner.
        unsafe {
            if let Some(var) = self.var(node) {
                let var = &*var;
                let node = std::ptr::from_ref(var).cast_mut().cast();
                return Some(Operand { attnum: var.varattno, node, type_oid: var.vartype, collation: var.varcollid });
            }
            let node = strip_relabel(node);
            deparse::indexable(node, self.rti)?;
            if cast::<pg_sys::OpExpr>(node, T::T_OpExpr).is_some_and(|op| opclass::measures_distance((*op).opno)) {
                return None;
            }
            Some(Operand { attnum: 0, node, type_oid: pg_sys::exprType(node), collation: pg_sys::exprCollation(node) })
        }
    }

    /// The number of the operand's column; of an expression, its place among those met, from [`FIRST_EXPRESSION`].
    ///
    /// # Safety
    /// As the module says.
    pub(super) unsafe fn column(&self, operand: &Operand) -> Option<AttNum> {
        if operand.is_column() {
            return Some(operand.attnum);
        }
        let mut met = self.met.borrow_mut();
        // SAFETY: compares two expressions.
        let known = met.iter().position(|m| unsafe { pg_sys::equal(m.node.cast(), operand.node.cast()) });
        let at = match known {
            Some(at) => at,
            None if met.len() < MAX_EXPRESSIONS => {
                // SAFETY: operand() has found the expression indexable.
                met.push(unsafe { self.describe(operand) }?);
                met.len() - 1
            }
            None => return None,
        };
        Some(FIRST_EXPRESSION + at as AttNum)
    }

    unsafe fn describe(&self, operand: &Operand) -> Option<Met> {
        // SAFETY: an expression over columns of the relation, which the planner has locked.
        unsafe {
            let node = operand.node;
            let anatomy = deparse::indexable(node, self.rti)?;
            let name = deparse::text(node, self.rti, self.table())?;
            let reads = self.reads(node);
            let (mut length, mut by_value, mut align) = (0, false, 0);
            pg_sys::get_typlenbyvalalign(operand.type_oid, &mut length, &mut by_value, &mut align);
            let (n_distinct, null_frac) = self.statistics(node, &reads);
            let info = ColumnInfo {
                attnum: 0,
                name,
                type_name: text(pg_sys::format_type_with_typemod(operand.type_oid, -1))?,
                avg_width: self.width(operand, &reads).max(0) as u32,
                align: catalog::alignment(align as u8),
                n_distinct,
                null_frac,
                correlation: 0.0,
                sortable: catalog::sortable(operand.type_oid),
                dedup: catalog::deduplicates(operand.type_oid, operand.collation),
                expressed: None,
                tenant: false,
                search: Vec::new(),
                reads,
            };
            Some(Met { node, info, constants: anatomy.constants })
        }
    }

    /// Columns that an indexable expression reads, ascending.
    ///
    /// # Safety
    /// As the module says.
    pub(super) unsafe fn reads(&self, node: *mut pg_sys::Node) -> Vec<AttNum> {
        let mut found = null_mut();
        // SAFETY: pull_varattnos numbers columns from the lowest system column.
        unsafe {
            pg_sys::pull_varattnos(node, self.rti as u32, &mut found);
            members(found).filter_map(|n| AttNum::try_from(n + pg_sys::FirstLowInvalidHeapAttributeNumber).ok()).collect()
        }
    }

    /// Average width of the expression's values. One that makes text of text, or the like, is as wide as what it reads.
    unsafe fn width(&self, operand: &Operand, reads: &[AttNum]) -> i32 {
        // SAFETY: catalog lookups; 0 for what is not known.
        unsafe {
            if pg_sys::get_typlen(operand.type_oid) > 0 {
                return pg_sys::get_typavgwidth(operand.type_oid, pg_sys::exprTypmod(operand.node));
            }
            let alike = |a: pg_sys::Oid| a == operand.type_oid || is_text(a) && is_text(operand.type_oid);
            let widths = reads.iter().filter(|c| alike(pg_sys::get_atttype(self.table(), **c)));
            match widths.map(|c| pg_sys::get_attavgwidth(self.table(), *c)).sum::<i32>() {
                0 => DEFAULT_WIDTH,
                width => width,
            }
        }
    }

    /// The number of distinct values in the whole table, and the share of NULLs. Without statistics of its own, a cast, arithmetic or a
    /// function like `lower` is taken to keep the values apart that it reads.
    unsafe fn statistics(&self, node: *mut pg_sys::Node, reads: &[AttNum]) -> (f64, f64) {
        // SAFETY: an expression of this query level; its columns are live Vars.
        unsafe {
            let own = self.examine(node);
            if own.known {
                return (own.distinct.max(1.0), own.null_frac);
            }
            let vars: Vec<_> = list::<pg_sys::Node>(pg_sys::pull_var_clause(node, 0)).map(|v| self.examine(v)).collect();
            let null_frac = vars.iter().map(|v| v.null_frac).fold(0.0, f64::max);
            let distinct = match keeps_apart(node) {
                true if reads.len() == 1 => vars.first().map_or(own.distinct, |v| v.distinct),
                _ => own.distinct,
            };
            (distinct.clamp(1.0, (*self.rel).tuples.max(1.0)), null_frac)
        }
    }

    /// What the planner knows of an expression's values.
    ///
    /// # Safety
    /// As the module says.
    pub(super) unsafe fn examine(&self, node: *mut pg_sys::Node) -> Examined {
        // SAFETY: examine_variable fills the struct; the statistics tuple, whose form is pg_statistic's, is given back as
        // ReleaseVariableStats does (selfuncs.h).
        unsafe {
            let mut data: pg_sys::VariableStatData = std::mem::zeroed();
            pg_sys::examine_variable(self.root, node, 0, &mut data);
            let mut is_default = false;
            let distinct = pg_sys::get_variable_numdistinct(&mut data, &mut is_default);
            let mut null_frac = 0.0;
            if !data.statsTuple.is_null() {
                null_frac = f64::from((*pg_sys::GETSTRUCT(data.statsTuple).cast::<pg_sys::FormData_pg_statistic>()).stanullfrac);
                if let Some(free) = data.freefunc {
                    pg_sys::ffi::pg_guard_ffi_boundary(|| free(data.statsTuple));
                }
            }
            Examined { distinct, null_frac, known: !is_default }
        }
    }
}

/// What the planner knows of the values of an expression.
pub(super) struct Examined {
    /// Distinct values in the whole table.
    pub(super) distinct: f64,
    pub(super) null_frac: f64,
    /// From statistics, not a guess.
    pub(super) known: bool,
}

fn is_text(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: a catalog lookup that gives the type itself when it is no domain.
    matches!(unsafe { pg_sys::getBaseType(type_oid) }, pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID)
}

/// Different values mostly stay different: casts, arithmetic, letters made small or large.
unsafe fn keeps_apart(node: *mut pg_sys::Node) -> bool {
    // SAFETY: the tags say what the node is; names of functions and operators are copies, or null.
    unsafe {
        if let Some(call) = cast::<pg_sys::FuncExpr>(node, T::T_FuncExpr) {
            let is_cast = matches!(
                (*call).funcformat,
                pg_sys::CoercionForm::COERCE_EXPLICIT_CAST | pg_sys::CoercionForm::COERCE_IMPLICIT_CAST
            );
            let name = text(pg_sys::get_func_name((*call).funcid)).unwrap_or_default();
            return is_cast || matches!(name.as_str(), "lower" | "upper" | "btrim" | "ltrim" | "rtrim" | "md5" | "reverse");
        }
        if let Some(op) = cast::<pg_sys::OpExpr>(node, T::T_OpExpr) {
            let name = text(pg_sys::get_opname((*op).opno)).unwrap_or_default();
            return matches!(name.as_str(), "+" | "-" | "*" | "||");
        }
        cast::<pg_sys::CoerceViaIO>(node, T::T_CoerceViaIO).is_some()
    }
}
