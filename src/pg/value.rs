//! Parameter values as text that the types' input functions read under every setting of the session that reads them.

use pgrx::{pg_sys, varlena};
use std::ffi::CStr;
use std::io::{Cursor, Write};

const DAY_US: i64 = 86_400_000_000;
/// Days between 1970-01-01 and PostgreSQL's day zero, 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;

/// Year, month and day of a day number counted from 2000-01-01, in the proleptic Gregorian calendar with a year 0.
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that the leap day is the last of its year; 146 097 days make 400 years.
    let z = days + EPOCH_DAYS + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// `date`: days since 2000-01-01.
fn date(out: &mut Cursor<&mut [u8]>, days: i32) -> Option<()> {
    match days {
        i32::MAX => write!(out, "infinity"),
        i32::MIN => write!(out, "-infinity"),
        _ => {
            let (y, m, d) = civil(i64::from(days));
            if y > 0 { write!(out, "{y:04}-{m:02}-{d:02}") } else { write!(out, "{:04}-{m:02}-{d:02} BC", 1 - y) }
        }
    }
    .ok()
}

/// `timestamp` and `timestamptz`: microseconds since 2000-01-01 (UTC).
fn timestamp(out: &mut Cursor<&mut [u8]>, us: i64, with_zone: bool) -> Option<()> {
    match us {
        i64::MAX => write!(out, "infinity"),
        i64::MIN => write!(out, "-infinity"),
        _ => {
            let (days, time) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
            let (y, m, d) = civil(days);
            let (seconds, fraction) = (time / 1_000_000, time % 1_000_000);
            let zone = if with_zone { "+00" } else { "" };
            let (year, era) = if y > 0 { (y, "") } else { (1 - y, " BC") };
            let (h, min, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            write!(out, "{year:04}-{m:02}-{d:02} {h:02}:{min:02}:{s:02}.{fraction:06}{zone}{era}")
        }
    }
    .ok()
}

/// `float8` and `float4`, in the shortest form that gives the same value again.
fn float(out: &mut Cursor<&mut [u8]>, value: f64, shortest: std::fmt::Arguments<'_>) -> Option<()> {
    if value.is_nan() {
        write!(out, "NaN").ok()
    } else if value.is_infinite() {
        write!(out, "{}Infinity", if value < 0.0 { "-" } else { "" }).ok()
    } else {
        out.write_fmt(shortest).ok()
    }
}

/// `uuid`.
fn uuid(out: &mut Cursor<&mut [u8]>, bytes: &[u8]) -> Option<()> {
    bytes.iter().try_for_each(|b| write!(out, "{b:02x}")).ok()
}

/// Writes a value as text; `None` for types and values that are not known to be short and harmless.
///
/// # Safety
/// The value is of that type. What is called raises only for want of memory, and holds nothing then: it reads no catalog and detoasts
/// nothing that is stored elsewhere.
pub unsafe fn print(out: &mut Cursor<&mut [u8]>, oid: pg_sys::Oid, datum: pg_sys::Datum) -> Option<()> {
    let word = datum.value();
    let limit = out.get_ref().len();
    // SAFETY: the built-in types have these representations on 64-bit platforms (pg_type.dat); nothing is detoasted.
    unsafe {
        match oid {
            pg_sys::BOOLOID => write!(out, "{}", word & 0xFF != 0).ok(),
            pg_sys::INT2OID => write!(out, "{}", word as i16).ok(),
            pg_sys::INT4OID => write!(out, "{}", word as i32).ok(),
            pg_sys::INT8OID => write!(out, "{}", word as i64).ok(),
            pg_sys::OIDOID => write!(out, "{}", word as u32).ok(),
            pg_sys::FLOAT4OID => {
                let v = f32::from_bits(word as u32);
                float(out, f64::from(v), format_args!("{v:e}"))
            }
            pg_sys::FLOAT8OID => {
                let v = f64::from_bits(word as u64);
                float(out, v, format_args!("{v:e}"))
            }
            pg_sys::DATEOID => date(out, word as i32),
            pg_sys::TIMESTAMPOID => timestamp(out, word as i64, false),
            pg_sys::TIMESTAMPTZOID => timestamp(out, word as i64, true),
            pg_sys::UUIDOID => uuid(out, &*datum.cast_mut_ptr::<[u8; 16]>()),
            pg_sys::NAMEOID => {
                let name = &*datum.cast_mut_ptr::<[u8; pg_sys::NAMEDATALEN as usize]>();
                out.write_all(name.split(|byte| *byte == 0).next()?).ok()
            }
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => {
                out.write_all(varlena::varlena_to_byte_slice(plain(datum, limit)?)).ok()
            }
            // Not those whose text depends on settings of the session, and none that could hold a value of a user's type.
            pg_sys::NUMERICOID => by_function(out, pg_sys::F_NUMERIC_OUT, plain(datum, limit)?),
            pg_sys::JSONBOID => by_function(out, pg_sys::F_JSONB_OUT, plain(datum, limit)?),
            pg_sys::JSONOID => by_function(out, pg_sys::F_JSON_OUT, plain(datum, limit)?),
            pg_sys::INETOID => by_function(out, pg_sys::F_INET_OUT, plain(datum, limit)?),
            pg_sys::CIDROID => by_function(out, pg_sys::F_CIDR_OUT, plain(datum, limit)?),
            pg_sys::BOOLARRAYOID => array(out, pg_sys::BOOLOID, (1, true, b'c'), plain(datum, limit)?),
            pg_sys::INT2ARRAYOID => array(out, pg_sys::INT2OID, (2, true, b's'), plain(datum, limit)?),
            pg_sys::INT4ARRAYOID => array(out, pg_sys::INT4OID, (4, true, b'i'), plain(datum, limit)?),
            pg_sys::INT8ARRAYOID => array(out, pg_sys::INT8OID, (8, true, b'd'), plain(datum, limit)?),
            pg_sys::TEXTARRAYOID => array(out, pg_sys::TEXTOID, (-1, false, b'i'), plain(datum, limit)?),
            pg_sys::VARCHARARRAYOID => array(out, pg_sys::VARCHAROID, (-1, false, b'i'), plain(datum, limit)?),
            pg_sys::NUMERICARRAYOID => array(out, pg_sys::NUMERICOID, (-1, false, b'i'), plain(datum, limit)?),
            _ => None,
        }
    }
}

/// By the output function of a built-in type, which the server finds without its catalogs.
///
/// # Safety
/// The value is of the function's type.
unsafe fn by_function(out: &mut Cursor<&mut [u8]>, function: u32, value: *const pg_sys::varlena) -> Option<()> {
    // SAFETY: the function is the type's own; its result is NUL-terminated and ours.
    unsafe {
        let text = pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(function), pg_sys::Datum::from(value));
        let done = out.write_all(CStr::from_ptr(text).to_bytes()).ok();
        pg_sys::pfree(text.cast());
        done
    }
}

/// The value, when it is short and lies here in full: neither compressed nor stored elsewhere.
///
/// # Safety
/// The value is of a type of variable length.
unsafe fn plain(datum: pg_sys::Datum, limit: usize) -> Option<*const pg_sys::varlena> {
    let pointer: *const pg_sys::varlena = datum.cast_mut_ptr();
    // SAFETY: the header says how it is stored.
    unsafe {
        (!pointer.is_null()
            && !varlena::varatt_is_1b_e(pointer)
            && !varlena::varatt_is_4b_c(pointer)
            && varlena::varsize_any_exhdr(pointer) <= limit)
            .then_some(pointer)
    }
}

/// An array of a built-in type, whose length, passing by value and alignment are given, as array_out (arrayfuncs.c) prints it, which
/// would look its type up in the catalogs. `None` for more than one dimension, and for one that does not begin at 1.
///
/// # Safety
/// The value is an array of that type.
unsafe fn array(
    out: &mut Cursor<&mut [u8]>,
    element: pg_sys::Oid,
    (length, by_value, align): (i32, bool, u8),
    value: *const pg_sys::varlena,
) -> Option<()> {
    let limit = out.get_ref().len();
    // SAFETY: a copy when the header is short, else the value itself. Dimensions and lower bounds follow the head (array.h). The server
    // makes both arrays as long as it says; elements by reference are within the value.
    unsafe {
        let array = pg_sys::pg_detoast_datum(value.cast_mut()).cast::<pg_sys::ArrayType>();
        let bounds = array.add(1).cast::<i32>();
        let mut elements: *mut pg_sys::Datum = std::ptr::null_mut();
        let mut nulls: *mut bool = std::ptr::null_mut();
        let mut count = 0;
        match (*array).ndim {
            0 => {}
            1 if *bounds.add(1) == 1 => {
                pg_sys::deconstruct_array(array, element, length, by_value, align as _, &mut elements, &mut nulls, &mut count);
            }
            _ => return None,
        }
        let mut buffer = vec![0; limit];
        out.write_all(b"{").ok()?;
        for i in 0..count as usize {
            if i > 0 {
                out.write_all(b",").ok()?;
            }
            if *nulls.add(i) {
                out.write_all(b"NULL").ok()?;
                continue;
            }
            let mut text = Cursor::new(&mut buffer[..]);
            print(&mut text, element, *elements.add(i))?;
            let end = text.position() as usize;
            member(out, &buffer[..end])?;
        }
        out.write_all(b"}").ok()
    }
}

/// A member of an array, in quotes where it must be.
fn member(out: &mut Cursor<&mut [u8]>, text: &[u8]) -> Option<()> {
    let special = |b: &u8| b"\"\\{}, \t\n\r\x0b\x0c".contains(b);
    if !text.is_empty() && !text.eq_ignore_ascii_case(b"null") && !text.iter().any(special) {
        return out.write_all(text).ok();
    }
    out.write_all(b"\"").ok()?;
    for byte in text {
        if b"\"\\".contains(byte) {
            out.write_all(b"\\").ok()?;
        }
        out.write_all(&[*byte]).ok()?;
    }
    out.write_all(b"\"").ok()
}
