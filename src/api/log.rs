//! The log: rows that applications write themselves.

use crate::pg::error::{Error, Kind, Result, or_raise};
use crate::pg::spi::require_writable;
use crate::store;
use crate::store::log::Mutation;
use indexpilot_core::rollback::MUTATIONS;
use pgrx::JsonB;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn log_audit_event(event: Option<&str>, cause: Option<&str>, details: Option<JsonB>, table_name: Option<pg_sys::Oid>) -> i64 {
    let run = || -> Result<i64> {
        require_writable("log_audit_event()")?;
        let (Some(event), Some(cause)) = (event, cause) else {
            return Err(Error::new(Kind::InvalidParameter, "event and cause must not be null"));
        };
        // rollback() and rollback_to() would take it for a change that IndexPilot made.
        if MUTATIONS.contains(&event) {
            return Err(Error::new(
                Kind::InvalidParameter,
                format!("event \"{event}\" is a name that IndexPilot logs under itself"),
            )
            .hint("Give the event another name, such as 'deploy' or one with a prefix of your own."));
        }
        let table = table_name.map(|oid| crate::pg::catalog::qualified_name(oid.to_u32())).transpose()?.flatten();
        let (table_schema, table_name) = table.unzip();
        store::log::append(&Mutation {
            mutation: event.into(),
            cause: cause.into(),
            table_schema,
            table_name,
            details: details.map_or(serde_json::Value::Null, |JsonB(d)| d),
            ..Mutation::default()
        })
    };
    or_raise(run())
}
