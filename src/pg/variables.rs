//! Where the variables of a function stand in the text of a statement: in an analysed query they are external parameters, which
//! remember their places.
//!
//! # Safety
//! The functions are given queries as the planner hook gets them.

use super::compat::{Walker, walk};
use pgrx::pg_sys::{self, NodeTag as T};
use std::ffi::c_void;

/// Uses of variables that are remembered for one statement.
pub const MAX_USES: usize = 32;

/// One use of a variable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Byte in the text that was parsed.
    pub offset: u32,
    /// Number of the parameter.
    pub parameter: u16,
    /// Fields that are selected from it.
    pub fields: u16,
    /// `pg_type.oid`.
    pub type_oid: u32,
}

/// The variables of one statement.
#[derive(Clone, Copy)]
pub struct Uses {
    pub queryid: u64,
    pub count: usize,
    /// There are more than fit, or one whose place is not known.
    pub incomplete: bool,
    pub all: [Use; MAX_USES],
}

impl Uses {
    pub const NONE: Uses =
        Uses { queryid: 0, count: 0, incomplete: false, all: [Use { offset: 0, parameter: 0, fields: 0, type_oid: 0 }; MAX_USES] };

    pub fn iter(&self) -> impl Iterator<Item = &Use> {
        self.all.iter().take(self.count)
    }
}

/// Finds them all. Allocates nothing; the server's walkers raise when the query is nested too deeply for the stack.
///
/// # Safety
/// `query` is an analysed query with the identifier `queryid`.
pub unsafe fn find(query: *mut pg_sys::Query, queryid: u64) -> Uses {
    let mut uses = Uses { queryid, ..Uses::NONE };
    // SAFETY: the walker's context is what it takes it for.
    unsafe {
        walk::query_tree_walker(query, visit, (&raw mut uses).cast(), 0);
    }
    uses
}

const _: Walker = visit;

unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the tag says what the node is; the context is the Uses of find().
    unsafe {
        match (*node).type_ {
            T::T_Query => walk::query_tree_walker(node.cast(), visit, context, 0),
            T::T_Param => {
                note(&mut *context.cast(), &*node.cast(), 0);
                false
            }
            T::T_FieldSelect => {
                let (mut fields, mut inside) = (0, node);
                while !inside.is_null() && (*inside).type_ == T::T_FieldSelect {
                    (fields, inside) = (fields + 1, (*inside.cast::<pg_sys::FieldSelect>()).arg.cast());
                }
                if inside.is_null() || (*inside).type_ != T::T_Param {
                    return walk::expression_tree_walker(node, visit, context);
                }
                note(&mut *context.cast(), &*inside.cast(), fields);
                false
            }
            _ => walk::expression_tree_walker(node, visit, context),
        }
    }
}

fn note(uses: &mut Uses, param: &pg_sys::Param, fields: u16) {
    if param.paramkind != pg_sys::ParamKind::PARAM_EXTERN {
        return;
    }
    let (Ok(offset), Ok(parameter)) = (u32::try_from(param.location), u16::try_from(param.paramid)) else {
        uses.incomplete = true;
        return;
    };
    match uses.all.get_mut(uses.count) {
        Some(place) => {
            *place = Use { offset, parameter, fields, type_oid: param.paramtype.to_u32() };
            uses.count += 1;
        }
        None => uses.incomplete = true,
    }
}
