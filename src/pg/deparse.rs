//! Expressions over one table as SQL, spelled as an index on the table may have them.
//!
//! # Safety
//! An expression is a live one of the planner or of the relation cache; its columns are numbered by a range table entry of the table.

use super::spi::SettingScope;
use super::{compat, encoding};
use pgrx::pg_sys::{self, NodeTag as T};
use std::ffi::{CStr, c_void};

/// Longer texts would make no index that anybody wants.
const MAX_TEXT: usize = 1000;
/// Expressions with more nodes are not looked at.
const MAX_NODES: u32 = 100;

/// What an expression consists of.
#[derive(Clone, Copy, Default)]
pub struct Anatomy {
    rti: i32,
    nodes: u32,
    /// There is something that no index may hold: a parameter, a subquery, an aggregate, another relation, a system column.
    strange: bool,
    /// It reads a column of the relation.
    pub reads: bool,
    /// There is a constant in it.
    pub constants: bool,
}

/// Looks an expression over; `None` when no index may have it as key or condition: not immutable, or of more than the columns of the
/// relation `rti`.
///
/// # Safety
/// As the module says.
pub unsafe fn indexable(expression: *mut pg_sys::Node, rti: i32) -> Option<Anatomy> {
    let mut found = Anatomy { rti, ..Anatomy::default() };
    // SAFETY: the visitor owns nothing, so that one guard is enough for the whole walk, and its context is what it takes it for. The
    // second function only walks the tree.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| visit(expression, (&raw mut found).cast()));
        let usable = found.reads && !found.strange && found.nodes <= MAX_NODES;
        (usable && !pg_sys::contain_mutable_functions(expression)).then_some(found)
    }
}

/// # Safety
/// Called by the tree walker, with null or a node, inside one guard for all. It neither owns anything nor panics.
unsafe extern "C-unwind" fn visit(tree: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if tree.is_null() {
        return false;
    }
    // SAFETY: the tag says what the node is; the context is the Anatomy of indexable().
    unsafe {
        let found = &mut *context.cast::<Anatomy>();
        found.nodes += 1;
        match (*tree).type_ {
            T::T_Var => {
                let var = &*tree.cast::<pg_sys::Var>();
                found.strange |= var.varno != found.rti || var.varlevelsup != 0 || var.varattno <= 0;
                found.reads = true;
            }
            T::T_Const => found.constants = true,
            T::T_FuncExpr => found.strange |= (*tree.cast::<pg_sys::FuncExpr>()).funcretset,
            T::T_OpExpr => found.strange |= (*tree.cast::<pg_sys::OpExpr>()).opretset,
            T::T_Param
            | T::T_SubLink
            | T::T_SubPlan
            | T::T_AlternativeSubPlan
            | T::T_Aggref
            | T::T_WindowFunc
            | T::T_GroupingFunc
            | T::T_PlaceHolderVar
            | T::T_RestrictInfo
            | T::T_CurrentOfExpr
            | T::T_NextValueExpr
            | T::T_SetToDefault
            | T::T_Query => found.strange = true,
            _ => {}
        }
        found.strange || found.nodes > MAX_NODES || compat::walk::expression_tree_walker(tree, visit, context)
    }
}

/// While it lives, the server spells expressions so that they mean the same to everybody: names that are not in pg_catalog have their
/// schema, and constants are as pg_dump has them, since what is printed is read elsewhere, under other settings.
pub(super) fn spelling() -> SettingScope {
    SettingScope::new(&[
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"datestyle", c"ISO"),
        (c"intervalstyle", c"postgres"),
        (c"timezone", c"UTC"),
        (c"extra_float_digits", c"3"),
        (c"quote_all_identifiers", c"off"),
    ])
}

/// The expression in SQL, its columns without the name of the table, in the spelling that means the same to everybody. `None` when the table is gone or the text is too long.
///
/// # Safety
/// As the module says, and [`indexable`] accepts the expression.
pub unsafe fn text(expression: *mut pg_sys::Node, rti: i32, table: pg_sys::Oid) -> Option<String> {
    // SAFETY: works on a copy, in which the columns are numbered by the one entry that the context has. An expression that is indexable
    // consists of what the server's deparser can print (ruleutils.c).
    unsafe {
        let name = pg_sys::get_rel_name(table);
        if name.is_null() {
            return None;
        }
        let _settings = spelling();
        let copy = pg_sys::copyObjectImpl(expression.cast()).cast::<pg_sys::Node>();
        if rti != 1 {
            pg_sys::ChangeVarNodes(copy, rti, 1, 0);
        }
        // A column that was written by the alias of a join is printed by it (get_variable, ruleutils.c), and here is no join.
        let flags = pg_sys::PVC_RECURSE_AGGREGATES | pg_sys::PVC_RECURSE_WINDOWFUNCS | pg_sys::PVC_RECURSE_PLACEHOLDERS;
        for var in super::node::list::<pg_sys::Var>(pg_sys::pull_var_clause(copy, flags as i32)) {
            (*var).varnosyn = 0;
            (*var).varattnosyn = 0;
        }
        let context = pg_sys::deparse_context_for(name, table);
        let printed = pg_sys::deparse_expression(copy, context, false, false);
        let bytes = (!printed.is_null()).then(|| CStr::from_ptr(printed).to_bytes())?;
        if bytes.len() > MAX_TEXT {
            return None;
        }
        // What does not come back as it was would be another expression.
        let text = encoding::to_utf8(bytes);
        encoding::to_server(&text).is_ok_and(|back| back.to_bytes() == bytes).then_some(text)
    }
}
