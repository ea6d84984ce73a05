//! What an existing index computes: its expressions and its condition, spelled as those of queries are.
//!
//! The relation cache simplifies both as the planner does with queries, so that equal ones have equal texts. Simplifying runs immutable
//! functions, hence as the owner of the table, restricted, and without code of others when he is privileged.

use super::error::Result;
use super::role::RoleScope;
use super::spi::SettingScope;
use super::time::TimeoutScope;
use super::{deparse, node, subxact, trust};
use pgrx::pg_sys;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// How long an index may take to say what it computes.
const PATIENCE: Duration = Duration::from_millis(500);

/// A key that is an expression.
pub struct Expression {
    pub text: String,
    pub type_oid: pg_sys::Oid,
    pub collation: pg_sys::Oid,
}

/// What an index computes.
pub struct Computed {
    /// In the order of the keys.
    pub expressions: Vec<Expression>,
    /// The ANDed parts of its condition; empty for an index of the whole table.
    pub conditions: Vec<String>,
}

/// What the index computes; `None` when it is gone, or cannot be read on behalf of the table's owner.
///
/// # Errors
/// None but cancels, which go on upwards.
pub fn computed(index: pg_sys::Oid, table: pg_sys::Oid, owner: pg_sys::Oid) -> Option<Computed> {
    subxact::discard(AssertUnwindSafe(|| {
        let _settings = SettingScope::new(&[(c"search_path", c"pg_catalog, pg_temp"), (c"lock_timeout", c"100ms")]);
        let _trust = trust::Guard::new(owner)?;
        let _role = RoleScope::new(owner, true);
        // What simplifying runs may be the owner's code.
        let _timeout = TimeoutScope::new(PATIENCE);
        read(index, table)
    }))
    .unwrap_or_default()
}

fn read(index: pg_sys::Oid, table: pg_sys::Oid) -> Result<Option<Computed>> {
    // SAFETY: the relation cache gives copies in the current memory context, whose columns are those of entry 1 (relcache.c); the
    // index is open meanwhile, so that it stays, and locked after its table, as everybody does. The subtransaction around this gives
    // the locks back.
    unsafe {
        pg_sys::XactReadOnly = true;
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let of = pg_sys::try_relation_open(table, lock);
        if of.is_null() {
            return Ok(None);
        }
        pg_sys::relation_close(of, pg_sys::NoLock as pg_sys::LOCKMODE);
        let relation = pg_sys::try_relation_open(index, lock);
        if relation.is_null() {
            return Ok(None);
        }
        let expressions: Option<Vec<Expression>> = node::list::<pg_sys::Node>(pg_sys::RelationGetIndexExpressions(relation))
            .map(|e| {
                let e = node::strip_relabel(e);
                let text = deparse::text(e, 1, table)?;
                Some(Expression { text, type_oid: pg_sys::exprType(e), collation: pg_sys::exprCollation(e) })
            })
            .collect();
        let conditions: Option<Vec<String>> =
            node::list::<pg_sys::Node>(pg_sys::RelationGetIndexPredicate(relation)).map(|c| deparse::text(c, 1, table)).collect();
        pg_sys::relation_close(relation, lock);
        Ok(expressions.zip(conditions).map(|(expressions, conditions)| Computed { expressions, conditions }))
    }
}
