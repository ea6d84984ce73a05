//! Reading text settings without allocating.

use pgrx::GucSetting;
use pgrx::guc::GucValue;
use std::ffi::{CStr, CString};

/// The value of a setting without pgrx's check that the caller is the main thread, which costs more than all else that capture does
/// where it does nothing. For hooks, which only the main thread calls.
#[inline]
pub fn read<T: GucValue>(setting: &GucSetting<T>) -> T {
    // SAFETY: the variable behind the setting always holds a value of its type; one thread reads and writes it.
    unsafe { T::from_raw(*setting.as_ptr()) }
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
