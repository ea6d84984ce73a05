//! Reading settings without cost, and checking text settings.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucValue};
use pgrx::{GucSetting, pg_sys};

use std::ffi::{CStr, CString, c_char, c_void};

/// The value of a setting without pgrx's check that the caller is the main thread, which costs more than all else that capture does
/// where it does nothing. For hooks, which only the main thread calls.
#[inline]
pub fn read<T: GucValue>(setting: &GucSetting<T>) -> T {
    // SAFETY: the variable behind the setting always holds a value of its type; one thread reads and writes it.
    unsafe { T::from_raw(*setting.as_ptr()) }
}

/// There is a setting of this name.
pub fn exists(name: &CStr) -> bool {
    // SAFETY: looks the name up and returns NULL when there is none.
    unsafe { !pg_sys::GetConfigOption(name.as_ptr(), true, false).is_null() }
}

/// Whether a text setting is set to something.
#[inline]
pub fn is_set(setting: &GucSetting<Option<CString>>) -> bool {
    // SAFETY: as below.
    unsafe {
        let start = *setting.as_ptr();
        !start.is_null() && *start != 0
    }
}

/// Copies a text setting into `buffer` and returns the number of bytes; 0 when it is not set. A longer value is cut, in UTF-8 not
/// within a character.
pub fn copy_string(setting: &GucSetting<Option<CString>>, buffer: &mut [u8]) -> usize {
    // SAFETY: the setting's variable is NULL or a NUL-terminated string that lives until the setting changes, which does not happen
    // while it is copied.
    let bytes = unsafe {
        let start = *setting.as_ptr();
        if start.is_null() { &[] } else { CStr::from_ptr(start).to_bytes() }
    };
    let mut length = bytes.len().min(buffer.len());
    if length < bytes.len() {
        // Back to the start of the character that does not fit.
        while length > 0 && bytes.get(length).is_some_and(|b| b & 0xC0 == 0x80) {
            length -= 1;
        }
    }
    for (to, from) in buffer.iter_mut().zip(bytes.iter().take(length)) {
        *to = *from;
    }
    length
}

/// What a text setting may be.
pub trait TextCheck {
    /// What is wanted, for the detail of the error.
    const DETAIL: &'static CStr;
    fn valid(text: &str) -> bool;
}

/// Refuses what is not valid, wherever it is set. Not guarded by pgrx: it cannot panic.
///
/// # Safety
/// Called by the server with a pointer to the new value, which is NULL or NUL-terminated.
unsafe extern "C-unwind" fn check<C: TextCheck>(
    new: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: see above; the detail is a constant that outlives the report (guc.c copies it).
    unsafe {
        let valid = (*new).is_null() || C::valid(&CStr::from_ptr(*new).to_string_lossy());
        if !valid {
            pg_sys::GUC_check_errdetail_string = C::DETAIL.as_ptr().cast_mut();
        }
        valid
    }
}

/// Defines a text setting that is checked whenever it is set.
pub fn define_checked_text<C: TextCheck>(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
    context: GucContext,
) {
    // SAFETY: the hook does not panic, and it is a function of this library, which is never unloaded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            short,
            long,
            setting,
            context,
            GucFlags::default(),
            Some(check::<C>),
            None,
            None,
        );
    }
}
