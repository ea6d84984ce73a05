//! A build inside the caller's transaction (`concurrently => false`): blocks writes to the table until that transaction ends.

use super::reconcile::Index;
use crate::pg::error::Result;
use crate::pg::role::RoleScope;
use crate::pg::spi::{self, SettingScope};
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_literal, quote_qualified_identifier};

/// Creates the index as the owner of its table and tags it; the transaction makes both one.
///
/// # Errors
/// Those of the server are raised.
pub fn create(statement: &str, owner: Oid, tag: &str, schema: &str, name: &str) -> Result<()> {
    let _role = RoleScope::new(owner, false);
    let _path = SettingScope::safe_search_path();
    spi::command(statement)?;
    let index = quote_qualified_identifier(schema, name);
    spi::command(&format!("COMMENT ON INDEX {index} IS {}", quote_literal(format!("indexpilot:{tag}"))))
}

/// Analyses the table of an index on an expression, in the caller's transaction too.
///
/// # Errors
/// Those of the server are raised.
pub fn analyze(index: &Index) -> Result<()> {
    let _role = RoleScope::new(index.owner(), false);
    let _path = SettingScope::safe_search_path();
    spi::command(&super::analyze::statement(index))
}
