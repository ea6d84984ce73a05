//! Which conditions of partial indexes may be evaluated on the rows that are looked at: comparisons of columns with constants by the
//! server's own operators, and questions for NULL. They run no code of anybody, nothing that takes long, and raise no error, so the role
//! and the guard that other expressions need are none of their business.
//!
//! # Safety
//! Nodes are live ones of an analysed query.

use crate::pg::error::{Error, Result};
use crate::pg::{analyse, compat, deparse, encoding, node, subxact};
use indexpilot_core::model::AttNum;
use pgrx::pg_guard;
use pgrx::pg_sys::{self, NodeTag as T};
use std::collections::BTreeSet;
use std::ffi::{CString, c_void};
use std::panic::AssertUnwindSafe;

/// First OID of objects that users make (access/transam.h).
const FIRST_NORMAL_OID: u32 = 16384;

/// The condition, in parentheses and the server's encoding, when it may be evaluated in a query `from` the table, of which the caller may
/// read the columns `readable`. What cannot be read as such a condition now may not.
pub(super) fn plain(sql: &str, from: &[u8], readable: &BTreeSet<AttNum>) -> Option<Vec<u8>> {
    let condition = [b"(", encoding::to_server(sql).ok()?.to_bytes(), b")"].concat();
    let text = CString::new([b"SELECT ", condition.as_slice(), from].concat()).ok()?;
    // The closure owns nothing that an unwinding error could leave half changed: all of it is discarded.
    let found: Result<bool> = subxact::discard(AssertUnwindSafe(|| {
        let query = analyse::analyse(&text, &[])?;
        // SAFETY: an analysed query, whose target list holds TargetEntries.
        unsafe {
            let targets: Vec<*mut pg_sys::TargetEntry> = node::list((*query).targetList).collect();
            let [target] = targets[..] else { return Err(Error::internal("condition is not one expression")) };
            Ok(is_plain((*target).expr.cast(), readable))
        }
    }));
    found.unwrap_or(false).then_some(condition)
}

/// # Safety
/// As the module says.
unsafe fn is_plain(condition: *mut pg_sys::Node, readable: &BTreeSet<AttNum>) -> bool {
    // SAFETY: an expression over relation 1; the members of the set are attribute numbers, shifted to be positive (var.c).
    unsafe {
        let usable = pg_sys::exprType(condition) == pg_sys::BOOLOID
            && deparse::indexable(condition, 1).is_some()
            && compares(condition)
            && !pg_sys::ffi::pg_guard_ffi_boundary(|| foreign(condition, std::ptr::null_mut()));
        let mut reads: *mut pg_sys::Bitmapset = std::ptr::null_mut();
        pg_sys::pull_varattnos(condition, 1, &mut reads);
        usable
            && node::members(reads)
                .all(|member| readable.contains(&((member + pg_sys::FirstLowInvalidHeapAttributeNumber) as AttNum)))
    }
}

/// It consists of comparisons and of questions for NULL and truth.
///
/// # Safety
/// As the module says.
unsafe fn compares(condition: *mut pg_sys::Node) -> bool {
    // SAFETY: the tags say what the nodes are; arguments are expressions.
    unsafe {
        if let Some(parts) = node::cast::<pg_sys::BoolExpr>(condition, T::T_BoolExpr) {
            return node::list::<pg_sys::Node>((*parts).args).all(|part| compares(part));
        }
        if let Some(test) = node::cast::<pg_sys::NullTest>(condition, T::T_NullTest) {
            return is_column((*test).arg.cast());
        }
        if let Some(test) = node::cast::<pg_sys::BooleanTest>(condition, T::T_BooleanTest) {
            return is_column((*test).arg.cast());
        }
        let (operator, operands) = if let Some(op) = node::cast::<pg_sys::OpExpr>(condition, T::T_OpExpr) {
            ((*op).opno, (*op).args)
        } else if let Some(op) = node::cast::<pg_sys::ScalarArrayOpExpr>(condition, T::T_ScalarArrayOpExpr) {
            ((*op).opno, (*op).args)
        } else {
            return is_column(condition);
        };
        // What B-trees know, and its opposite: <>.
        let comparison = operator.to_u32() < FIRST_NORMAL_OID && !pg_sys::get_op_btree_interpretation(operator).is_null();
        comparison && node::list::<pg_sys::Node>(operands).all(|operand| is_column(operand) || is_constant(operand))
    }
}

/// # Safety
/// As the module says.
unsafe fn is_column(tree: *mut pg_sys::Node) -> bool {
    // SAFETY: as promised.
    unsafe { node::cast::<pg_sys::Var>(node::strip_relabel(tree), T::T_Var).is_some() }
}

/// A constant, or some in casts and arrays: it is worked out once, before the first row.
///
/// # Safety
/// As the module says.
unsafe fn is_constant(tree: *mut pg_sys::Node) -> bool {
    // SAFETY: walks the tree.
    unsafe { !pg_sys::contain_var_clause(tree) }
}

/// Something in the tree is code of users.
///
/// # Safety
/// Called with null or a node, by the tree walker too. It owns nothing, so an error may jump across it.
#[pg_guard]
unsafe extern "C-unwind" fn foreign(tree: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: the walkers call this function for everything below, and the other one for the functions of a node.
    unsafe {
        if tree.is_null() {
            return false;
        }
        // The constraints of a domain are its owner's.
        if (*tree).type_ == T::T_CoerceToDomain {
            return true;
        }
        pg_sys::check_functions_in_node(tree, Some(of_users), context)
            || compat::walk::expression_tree_walker(tree, foreign, context)
    }
}

/// # Safety
/// Called by `check_functions_in_node` with the OID of a function that the node calls.
#[pg_guard]
unsafe extern "C-unwind" fn of_users(function: pg_sys::Oid, _context: *mut c_void) -> bool {
    function.to_u32() >= FIRST_NORMAL_OID
}
