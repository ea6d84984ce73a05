//! Being told when something that plans depend on changes, and what the session's settings are.
//!
//! # Safety
//! The server alone calls the callbacks, in its main thread, with the arguments that their types promise.

use super::compat;
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
