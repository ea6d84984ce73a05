//! Parameter values as text that the types' input functions read under every setting of the session that reads them.

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
pub fn date(out: &mut Cursor<&mut [u8]>, days: i32) -> Option<()> {
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
pub fn timestamp(out: &mut Cursor<&mut [u8]>, us: i64, with_zone: bool) -> Option<()> {
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
pub fn float(out: &mut Cursor<&mut [u8]>, value: f64, shortest: std::fmt::Arguments<'_>) -> Option<()> {
    if value.is_nan() {
        write!(out, "NaN").ok()
    } else if value.is_infinite() {
        write!(out, "{}Infinity", if value < 0.0 { "-" } else { "" }).ok()
    } else {
        out.write_fmt(shortest).ok()
    }
}

/// `uuid`.
pub fn uuid(out: &mut Cursor<&mut [u8]>, bytes: &[u8]) -> Option<()> {
    bytes.iter().try_for_each(|b| write!(out, "{b:02x}")).ok()
}
