//! Conditions that a partial index may have: no parameter in them, and the same for everybody at all times.
//!
//! # Safety
//! As for the functions of [`super`].

use super::Reader;
use super::operand::Operand;
use crate::pg::deparse;
use crate::pg::node::list;
use indexpilot_core::model::Condition;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::ptr::null_mut;

/// Conditions noted of one relation at most.
const MAX_CONDITIONS: usize = 32;
/// From this share of NULLs on, an index without them is worth a thought.
const MANY_NULLS: f64 = 0.2;

impl Reader {
    /// The restrictions of this relation that a partial index may have, and whether each has a constant in it.
    pub(super) unsafe fn conditions(&self) -> Vec<(Condition, bool)> {
        let mut found: Vec<(Condition, bool)> = Vec::new();
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
                found.push((Condition { sql, columns: self.reads(clause), selectivity }, anatomy.constants));
            }
        }
        found
    }

    /// `column IS NOT NULL`, which a comparison with the column implies, where many rows are not that.
    pub(super) unsafe fn not_null(&self, operand: &Operand) -> Option<Condition> {
        // SAFETY: a column of this relation, whose name is a copy.
        unsafe {
            let null_frac = operand.is_column().then(|| self.examine(operand.node).null_frac)?;
            let name = pg_sys::get_attname(self.table(), operand.attnum(), true);
            if null_frac < MANY_NULLS || name.is_null() {
                return None;
            }
            let sql = format!("({} IS NOT NULL)", CStr::from_ptr(pg_sys::quote_identifier(name)).to_string_lossy());
            Some(Condition { sql, columns: vec![operand.attnum()], selectivity: 1.0 - null_frac })
        }
    }
}
