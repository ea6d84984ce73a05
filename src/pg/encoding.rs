//! Texts of the server, which are in the encoding of the database, and UTF-8, which all texts of ours are in.

use pgrx::pg_sys;
use std::ffi::{CStr, CString, NulError, c_char};

/// The database has no encoding: its bytes are what they are.
pub fn unknown() -> bool {
    // SAFETY: reads a variable of the session.
    unsafe { pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_SQL_ASCII as i32 }
}

/// Text of the server as UTF-8. What is no text of its encoding, as may be in a database without one, is replaced by U+FFFD. In a
/// transaction.
pub fn to_utf8(bytes: &[u8]) -> String {
    if unknown() || bytes.is_ascii() || bytes.contains(&0) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    // SAFETY: verifies before it converts, so that the conversion has valid input; the result is the input itself, or a copy that ends
    // with a zero byte and goes with the transaction's memory.
    unsafe {
        let (text, length) = (bytes.as_ptr().cast::<c_char>(), bytes.len() as i32);
        if !pg_sys::pg_verifymbstr(text, length, true) {
            return String::from_utf8_lossy(bytes).into_owned();
        }
        let converted = pg_sys::pg_server_to_any(text, length, pg_sys::pg_enc::PG_UTF8 as i32);
        match std::ptr::eq(converted, text) {
            true => String::from_utf8_lossy(bytes).into_owned(),
            false => CStr::from_ptr(converted).to_string_lossy().into_owned(),
        }
    }
}

/// A JSON document as text that the server reads in every encoding: letters beyond ASCII are written as `\\u` escapes, which it turns
/// into its own. Without an encoding it could not, and takes them as they are.
pub fn document(value: &serde_json::Value) -> String {
    let text = value.to_string();
    if text.is_ascii() || unknown() {
        return text;
    }
    let mut out = String::with_capacity(text.len() * 2);
    let mut units = [0u16; 2];
    for c in text.chars() {
        match c.is_ascii() {
            true => out.push(c),
            false => c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out
}

/// A text of ours in the encoding of the database. In a transaction; raises when a letter does not exist in it.
pub fn to_server(text: &str) -> Result<CString, NulError> {
    if text.is_ascii() || unknown() {
        return CString::new(text);
    }
    // SAFETY: valid UTF-8; the result is the input itself, or a copy that ends with a zero byte.
    unsafe {
        let start = text.as_ptr().cast::<c_char>();
        let converted = pg_sys::pg_any_to_server(start, text.len() as i32, pg_sys::pg_enc::PG_UTF8 as i32);
        match std::ptr::eq(converted, start) {
            true => CString::new(text),
            false => Ok(CStr::from_ptr(converted).to_owned()),
        }
    }
}
