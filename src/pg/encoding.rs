//! Texts of the server, which are in the encoding of the database, and UTF-8, which all texts of ours are in.

use pgrx::pg_sys;
use std::ffi::{CStr, CString, NulError, c_char};

/// The database has no encoding: its bytes are what they are.
pub fn unknown() -> bool {
    // SAFETY: reads a variable of the session.
    unsafe { pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_SQL_ASCII as i32 }
}

/// Text of the server as UTF-8. What has no equivalent is replaced by a question mark, which can be written in every encoding, as the
/// text goes back into tables; in a database without one, what is no UTF-8 by U+FFFD. In a transaction.
pub fn to_utf8(bytes: &[u8]) -> String {
    let utf8 = pg_sys::pg_enc::PG_UTF8 as i32;
    // SAFETY: reads a variable of the session.
    let server = unsafe { pg_sys::GetDatabaseEncoding() };
    if unknown() || server == utf8 || bytes.is_ascii() || bytes.contains(&0) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    // SAFETY: a look-up in the catalogs; InvalidOid when there is no such conversion.
    let conversion = unsafe { pg_sys::FindDefaultConversionProc(server, utf8) };
    if conversion == pg_sys::InvalidOid {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let (mut out, mut rest) = (String::new(), bytes);
    // A letter takes at most four bytes; the conversion ends its result with a zero byte.
    let mut buffer = vec![0u8; 4 * bytes.len() + 1];
    while !rest.is_empty() {
        // SAFETY: both buffers have these lengths. Told not to raise, it stops at what it cannot convert, and says how far it came.
        let done = unsafe {
            pg_sys::pg_do_encoding_conversion_buf(
                conversion,
                server,
                utf8,
                rest.as_ptr().cast_mut(),
                rest.len() as i32,
                buffer.as_mut_ptr(),
                buffer.len() as i32,
                true,
            )
        };
        let text = buffer.split(|b| *b == 0).next().unwrap_or_default();
        out.push_str(&String::from_utf8_lossy(text));
        rest = rest.get(usize::try_from(done).unwrap_or(0)..).unwrap_or_default();
        if !rest.is_empty() {
            out.push('?');
            // SAFETY: the length of the letter that begins there, which may lie about the bytes that follow.
            let letter = unsafe { pg_sys::pg_mblen(rest.as_ptr().cast()) };
            rest = rest.get(usize::try_from(letter).unwrap_or(1).max(1)..).unwrap_or_default();
        }
    }
    out
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
