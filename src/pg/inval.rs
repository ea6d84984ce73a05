//! Being told when something that plans depend on changes, and what the session's settings are.
//!
//! # Safety
//! The server alone calls the callbacks, in its main thread, with the arguments that their types promise.

use super::error::Result;
use super::{compat, spi};
use pgrx::pg_sys;
use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::ffi::CStr;
use std::hash::{Hash, Hasher};

thread_local! {
    static LISTENER: Cell<Option<fn(u32)>> = const { Cell::new(None) };
}

/// Has `changed` called with the OID of each relation whose definition or statistics change, and with 0 when anything else changes
/// that plans depend on: functions, operators, statistics of columns, roles. It must neither raise nor look anything up.
pub fn listen(changed: fn(u32)) {
    if LISTENER.replace(Some(changed)).is_some() {
        return;
    }
    // SAFETY: the callbacks are functions of this library, which is never unloaded; both lists have room (inval.c).
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0usize));
        for cache in compat::PLAN_CACHES {
            pg_sys::CacheRegisterSyscacheCallback(cache, Some(other_changed), pg_sys::Datum::from(0usize));
        }
    }
}

/// Has every session make its plans on the table anew, those on tables that it is a part of included, when the transaction commits. In a
/// transaction; nothing happens when the table is gone.
///
/// # Errors
/// Of the query on the catalog.
pub fn replan(table: u32) -> Result<()> {
    let tables: Vec<u32> = spi::value(
        "WITH RECURSIVE up AS (SELECT ($1->>'table')::oid AS oid
                                UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN up ON i.inhrelid = up.oid)
         SELECT pg_catalog.jsonb_agg(up.oid::bigint) AS oids FROM up",
        serde_json::json!({ "table": table }),
    )?
    .unwrap_or_default();
    for table in tables.into_iter().map(pg_sys::Oid::from) {
        let (key, none) = (pg_sys::Datum::from(table), || pg_sys::Datum::from(0usize));
        // SAFETY: a look into the catalog cache; then a message for the end of the transaction, as any change of the table would send
        // it (inval.c), which is raised for a table that is not there only.
        unsafe {
            if pg_sys::SearchSysCacheExists(pg_sys::SysCacheIdentifier::RELOID as i32, key, none(), none(), none()) {
                pg_sys::CacheInvalidateRelcacheByRelid(table);
            }
        }
    }
    Ok(())
}

/// Takes note of what other sessions have changed.
pub fn accept() {
    // SAFETY: may be called at any time inside a transaction; the server does so with every lock.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    if let Some(changed) = LISTENER.get() {
        changed(relation.to_u32());
    }
}

unsafe extern "C-unwind" fn other_changed(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    if let Some(changed) = LISTENER.get() {
        changed(0);
    }
}

/// All settings that are not at their defaults, as a number: plans depend on them, and stable functions read them.
pub fn settings() -> u64 {
    let mut hash = DefaultHasher::new();
    for setting in compat::settings() {
        // SAFETY: entries of the server's list of settings, which live as long as the session; GetConfigOption shows the value of one
        // that exists, and returns a text in its own buffer or in the setting.
        unsafe {
            if (*setting).source == pg_sys::GucSource::PGC_S_DEFAULT {
                continue;
            }
            let name = (*setting).name;
            CStr::from_ptr(name).hash(&mut hash);
            let value = pg_sys::GetConfigOption(name, true, false);
            if !value.is_null() {
                CStr::from_ptr(value).hash(&mut hash);
            }
        }
    }
    hash.finish()
}
