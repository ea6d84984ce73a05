//! The database's switch, and the state of the whole.

use crate::pg::error::{Result, or_raise};
use crate::pg::spi::require_writable;
use crate::store;
use crate::store::log::Mutation;
use crate::worker::status;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn disable_system(reason: &str) {
    or_raise(switch(true, Some(reason)));
}

#[pg_extern(sql = false)]
fn enable_system() {
    or_raise(switch(false, None));
}

fn switch(disabled: bool, reason: Option<&str>) -> Result<()> {
    require_writable(if disabled { "disable_system()" } else { "enable_system()" })?;
    let before = store::control::get()?;
    store::control::set_disabled(disabled, reason)?;
    store::log::append(&Mutation {
        mutation: if disabled { "disable_system" } else { "enable_system" }.into(),
        cause: reason.unwrap_or("call").into(),
        before: Some(serde_json::json!({ "disabled": before.disabled })),
        after: Some(serde_json::json!({ "disabled": disabled })),
        undo: Some(
            if disabled { "SELECT indexpilot.enable_system()" } else { "SELECT indexpilot.disable_system('rollback')" }.into(),
        ),
        ..Mutation::default()
    })?;
    Ok(())
}

#[pg_extern(sql = false)]
fn system_status() -> TableIterator<'static, (name!(name, String), name!(value, Option<String>), name!(description, String))> {
    TableIterator::new(or_raise(status::rows()))
}
