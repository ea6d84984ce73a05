//! The genome: bootstrap from the live schema, and what each tenant expresses.

use crate::pg::error::{Error, Kind, Result, or_raise};
use crate::pg::spi::require_writable;
use crate::store;
use crate::store::log::Mutation;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn bootstrap_genome_catalog() -> i64 {
    let run = || -> Result<i64> {
        require_writable("bootstrap_genome_catalog()")?;
        let added = store::genome::bootstrap()?;
        store::log::append(&Mutation {
            mutation: "bootstrap_genome".into(),
            cause: "call".into(),
            details: serde_json::json!({ "fields_added": added }),
            ..Mutation::default()
        })?;
        Ok(added as i64)
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
fn initialize_tenant_expression(tenant_id: &str) -> i64 {
    let run = || -> Result<i64> {
        require_writable("initialize_tenant_expression()")?;
        require_tenant(tenant_id)?;
        let added = store::genome::initialise_tenant(tenant_id)?;
        store::log::append(&Mutation {
            mutation: "initialize_tenant".into(),
            cause: "call".into(),
            tenant_id: Some(tenant_id.into()),
            details: serde_json::json!({ "fields_added": added }),
            ..Mutation::default()
        })?;
        Ok(added as i64)
    };
    or_raise(run())
}

#[pg_extern(sql = false)]
fn enable_field(
    tenant_id: Option<&str>,
    table_name: Option<pg_sys::Oid>,
    field_name: Option<&std::ffi::CStr>,
    reason: Option<&str>,
) -> i64 {
    or_raise(switch(tenant_id, table_name, field_name, true, reason))
}

#[pg_extern(sql = false)]
fn disable_field(
    tenant_id: Option<&str>,
    table_name: Option<pg_sys::Oid>,
    field_name: Option<&std::ffi::CStr>,
    reason: Option<&str>,
) -> i64 {
    or_raise(switch(tenant_id, table_name, field_name, false, reason))
}

fn switch(
    tenant_id: Option<&str>,
    table: Option<pg_sys::Oid>,
    field_name: Option<&std::ffi::CStr>,
    enabled: bool,
    reason: Option<&str>,
) -> Result<i64> {
    require_writable(if enabled { "enable_field()" } else { "disable_field()" })?;
    let (Some(tenant_id), Some(table), Some(field_name)) = (tenant_id, table, field_name) else {
        return Err(Error::new(Kind::InvalidParameter, "tenant_id, table_name and field_name must not be null"));
    };
    require_tenant(tenant_id)?;
    switch_field(tenant_id, table.to_u32(), &field_name.to_string_lossy(), enabled, reason)
}

fn switch_field(tenant_id: &str, table: u32, field_name: &str, enabled: bool, reason: Option<&str>) -> Result<i64> {
    let Some(field) = store::genome::field(table, field_name, tenant_id)? else {
        return Err(Error::new(Kind::UndefinedColumn, format!("field \"{field_name}\" is not in the genome"))
            .detail("The genome has no such column of that table.")
            .hint("Run SELECT indexpilot.bootstrap_genome_catalog() after the schema has changed."));
    };
    store::genome::set_expression(tenant_id, field.id, enabled, reason)?;
    crate::worker::decide::log_expression(tenant_id, &field, enabled, reason.unwrap_or("call"))
}

fn require_tenant(tenant_id: &str) -> Result<()> {
    if tenant_id.is_empty() {
        return Err(Error::new(Kind::InvalidParameter, "tenant_id must not be empty"));
    }
    Ok(())
}
