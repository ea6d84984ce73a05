//! Which statements are alike: an identifier of a statement's text that does not depend on its constants, comments and white space.
//!
//! The server has identifiers of its own (`compute_query_id`), which IndexPilot uses where they are computed anyway. They are made of
//! the analysed statement, and cost as much as several times everything else that capture does. This one costs a few instructions a
//! byte. Texts that name the same table differently (`t`, `public.t`) get different identifiers; texts that mean different tables
//! under different search paths get the same one, and are told apart by their tables.

/// Text after which the rest no longer counts, in bytes.
const LIMIT: usize = 64 * 1024;

const SPACE: u8 = 1;
const SYMBOL: u8 = 2;
const DIGIT: u8 = 3;
const QUOTE: u8 = 4;
const DOUBLE: u8 = 5;
const DOLLAR: u8 = 6;
const DASH: u8 = 7;
const SLASH: u8 = 8;
const WORD: u8 = 9;
const SIGN: u8 = 10;

/// What a byte begins.
static CLASS: [u8; 256] = {
    let mut class = [SYMBOL; 256];
    let mut b = 0;
    while b < 256 {
        class[b] = match b as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C | b';' => SPACE,
            b'0'..=b'9' => DIGIT,
            b'\'' => QUOTE,
            b'"' => DOUBLE,
            b'$' => DOLLAR,
            b'-' => DASH,
            b'+' => SIGN,
            b'/' => SLASH,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xFF => WORD,
            _ => SYMBOL,
        };
        b += 1;
    }
    class
};

const SEED: u64 = 0xCBF2_9CE4_8422_2325;
/// Multiplication by an odd number loses nothing; this one spreads each byte upwards.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
/// Stands for every constant.
const CONSTANT: u64 = 0xFF << 48;

#[inline]
fn add(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(STEP).rotate_left(23)
}

/// The identifier of a statement; never 0. `PREPARE … AS`, `DECLARE … FOR` and `CREATE … AS` are left out, so that the statement
/// inside has the same identifier whatever its name.
pub fn identify(text: &[u8]) -> u64 {
    let text = text.get(..LIMIT).unwrap_or(text);
    let mut hash = SEED;
    let mut at = inside(text);
    // The last token was a symbol after which an operand follows: a sign there belongs to a constant.
    let mut operand = false;
    while let Some(&b) = text.get(at) {
        match CLASS[b as usize] {
            SPACE => at += 1,
            SYMBOL if b == b'.' && operand && constant_after(text, at) => {
                at = number(text, at + 1);
                hash = add(hash, CONSTANT);
                operand = false;
            }
            SYMBOL => {
                hash = add(hash, u64::from(b));
                operand = b != b')' && b != b']';
                // Most are followed by one blank, which need not go round.
                at += 1 + usize::from(text.get(at + 1) == Some(&b' '));
            }
            WORD => {
                operand = false;
                let (before, start) = (hash, at);
                (hash, at) = word(hash, text, at);
                match text.get(at) {
                    Some(b' ') => at += 1,
                    Some(b'\'' | b'&') => {
                        let length = prefix(text, start);
                        if length > 0 && start + length <= at + 1 {
                            // Not a word but the beginning of a constant.
                            at = string(text, start + length, b == b'e' || b == b'E');
                            hash = add(before, CONSTANT);
                        }
                    }
                    _ => (),
                }
            }
            DOUBLE => {
                let end = quoted(text, at, b'"');
                hash = quoted_word(hash, text.get(at + 1..end.saturating_sub(1)).unwrap_or_default());
                at = end;
                operand = false;
            }
            DASH | SIGN if operand && constant_after(text, at) => {
                at = number(text, at + 1);
                hash = add(hash, CONSTANT);
                operand = false;
            }
            DIGIT => {
                // Most numbers are short integers.
                while text.get(at).is_some_and(u8::is_ascii_digit) {
                    at += 1;
                }
                if text.get(at).is_some_and(|b| matches!(b, b'.' | b'_' | b'a'..=b'z' | b'A'..=b'Z')) {
                    at = number(text, at);
                }
                hash = add(hash, CONSTANT);
                operand = false;
            }
            DOLLAR if text.get(at + 1).is_some_and(u8::is_ascii_digit) => {
                (hash, at) = word(add(hash, u64::from(b)), text, at + 1);
                operand = false;
            }
            class => {
                let end = end_of(class, text, at);
                if end == at + 1 && class != DIGIT {
                    hash = add(hash, u64::from(b));
                    operand = true;
                } else if class != DASH && class != SLASH {
                    hash = add(hash, CONSTANT);
                    operand = false;
                }
                at = end;
            }
        }
    }
    (hash ^ (hash >> 29)).max(1)
}

/// Length of the letters before the quote of a constant: `E'…'`, `B'…'`, `X'…'`, `N'…'`, `U&'…'`; 0 when it is a word.
#[cold]
fn prefix(text: &[u8], at: usize) -> usize {
    match (text.get(at), text.get(at + 1)) {
        (Some(b'e' | b'E' | b'b' | b'B' | b'x' | b'X' | b'n' | b'N'), Some(b'\'')) => 1,
        (Some(b'u' | b'U'), Some(b'&')) if text.get(at + 2) == Some(&b'\'') => 2,
        _ => 0,
    }
}

/// A digit follows, or a point and a digit; after a point itself only a digit.
fn constant_after(text: &[u8], at: usize) -> bool {
    match text.get(at + 1) {
        Some(b'.') => text.get(at) != Some(&b'.') && text.get(at + 2).is_some_and(u8::is_ascii_digit),
        Some(b) => b.is_ascii_digit(),
        None => false,
    }
}

/// The end of what begins at `at` and is no word: a constant, a comment, or a single symbol.
fn end_of(class: u8, text: &[u8], at: usize) -> usize {
    match class {
        DIGIT => number(text, at),
        QUOTE => string(text, at, false),
        DOLLAR => dollar_quoted(text, at).unwrap_or(at + 1),
        DASH if text.get(at + 1) == Some(&b'-') => line_end(text, at),
        SLASH if text.get(at + 1) == Some(&b'*') => comment_end(text, at),
        _ => at + 1,
    }
}

/// Where the statement inside PREPARE, CREATE … AS or DECLARE begins; 0 for all others.
#[inline]
pub fn inside(text: &[u8]) -> usize {
    let start = start(text);
    match text.get(start).map(|b| b | 0x20) {
        Some(b'p' | b'c' | b'd') => after_prefix(text, start).unwrap_or(0),
        _ => 0,
    }
}

/// The text without its comments. A comment between two words becomes a blank.
pub fn without_comments(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at, mut kept) = (String::with_capacity(text.len()), 0, 0);
    while let Some(&b) = bytes.get(at) {
        let class = CLASS[b as usize];
        let end = match class {
            WORD if prefix(bytes, at) > 0 => string(bytes, at + prefix(bytes, at), b == b'e' || b == b'E'),
            WORD => word(SEED, bytes, at).1.max(at + 1),
            DOUBLE => quoted(bytes, at, b'"'),
            _ => end_of(class, bytes, at),
        };
        if matches!(class, DASH | SLASH) && end > at + 1 {
            out.push_str(text.get(kept..at).unwrap_or_default());
            out.push(' ');
            kept = end;
        }
        at = end;
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    out
}

fn start(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        let end = end_of(CLASS[b as usize], text, at);
        if CLASS[b as usize] != SPACE && (end == at + 1 || !matches!(CLASS[b as usize], DASH | SLASH)) {
            break;
        }
        at = end;
    }
    at
}

#[cold]
fn after_prefix(text: &[u8], start: usize) -> Option<usize> {
    let is = |start: usize, end: usize, wanted: &[u8]| text.get(start..end).is_some_and(|w| w.eq_ignore_ascii_case(wanted));
    let (_, mut at) = word(SEED, text, start);
    let until: &[u8] = match () {
        () if is(start, at, b"prepare") || is(start, at, b"create") => b"as",
        () if is(start, at, b"declare") => b"for",
        () => return None,
    };
    let mut open = 0i32;
    while let Some(&b) = text.get(at) {
        at = match CLASS[b as usize] {
            SPACE => at + 1,
            WORD => {
                let (_, end) = word(SEED, text, at);
                if open == 0 && is(at, end, until) {
                    return Some(end);
                }
                end
            }
            DOUBLE => quoted(text, at, b'"'),
            class => {
                open += i32::from(b == b'(') - i32::from(b == b')');
                end_of(class, text, at)
            }
        };
    }
    None
}

const EACH: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * EACH;

/// Adds the word that begins at `at`; its end. Eight bytes at a time: capture does this for every statement that is parsed.
#[inline]
fn word(mut hash: u64, text: &[u8], mut at: usize) -> (u64, usize) {
    loop {
        let bytes = match text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => text.get(at..).unwrap_or_default().iter().rev().fold(0, |word, b| word << 8 | u64::from(*b)),
        };
        // Letters in lower case; `_` becomes 7F, digits stay.
        let folded = bytes | (0x20 * EACH);
        let low = folded & !HIGH;
        // The high bit of each byte of a sum says whether the byte reaches a limit; none carries into the next.
        let letters = (low + (0x80 - 0x61) * EACH) & !(low + (0x7F - 0x7A) * EACH);
        let digits = (low + (0x80 - 0x30) * EACH) & !(low + (0x7F - 0x39) * EACH);
        let underscores = low + EACH;
        let others = !(letters | digits | underscores | bytes) & HIGH;
        let count = others.trailing_zeros() as usize / 8;
        if count < 8 {
            // A byte that no chunk of eight has marks the end.
            let rest = folded & ((1 << (8 * count)) - 1);
            return (add(hash, rest | 0x01 << 56), at + count);
        }
        hash = add(hash, folded);
        at += 8;
    }
}

/// Adds a quoted identifier, which is the same as the word without quotes if it is written in lower case.
fn quoted_word(mut hash: u64, name: &[u8]) -> u64 {
    let pack = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, b| word << 8 | u64::from(if *b == b'_' { 0x7F } else { *b }));
    let chunks = name.chunks_exact(8);
    let rest = pack(chunks.remainder());
    for chunk in chunks {
        hash = add(hash, pack(chunk));
    }
    add(hash, rest | 0x01 << 56)
}

/// The end of the number that begins at `at`: `12`, `1.5e-3`, `0x1F`, `1_000`.
fn number(text: &[u8], mut at: usize) -> usize {
    let mut last = 0u8;
    while let Some(&b) = text.get(at) {
        let sign = (b == b'+' || b == b'-') && (last == b'e' || last == b'E');
        if !(b.is_ascii_alphanumeric() || b == b'_' || b == b'.' || sign) {
            break;
        }
        last = b;
        at += 1;
    }
    at
}

/// The end of the string that begins at `at`.
fn string(text: &[u8], at: usize, escapes: bool) -> usize {
    if !escapes {
        return quoted(text, at, b'\'');
    }
    let mut at = at + 1;
    while let Some(&b) = text.get(at) {
        match b {
            b'\\' => at += 2,
            b'\'' if text.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// The end of what is quoted from `at` on; the quote is doubled inside.
fn quoted(text: &[u8], at: usize, quote: u8) -> usize {
    let mut at = at + 1;
    while let Some(&b) = text.get(at) {
        if b == quote {
            if text.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 1;
        }
        at += 1;
    }
    text.len()
}

/// The end of `$tag$…$tag$`; `None` when that is not what begins at `at`.
fn dollar_quoted(text: &[u8], at: usize) -> Option<usize> {
    // Within a word it is a letter.
    if at > 0 && text.get(at - 1).is_some_and(|b| matches!(CLASS[*b as usize], WORD | DIGIT)) {
        return None;
    }
    let tag = text.get(at + 1..)?.iter().take_while(|b| matches!(CLASS[**b as usize], WORD | DIGIT)).count() + 2;
    let quote = text.get(at..at + tag).filter(|q| q.ends_with(b"$"))?;
    let body = text.get(at + tag..)?;
    let end = body.windows(tag).position(|w| w == quote).map_or(body.len(), |p| p + tag);
    Some(at + tag + end)
}

fn line_end(text: &[u8], at: usize) -> usize {
    text.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\n')).map_or(text.len(), |p| at + p)
}

fn comment_end(text: &[u8], mut at: usize) -> usize {
    let mut depth = 0u32;
    while at < text.len() {
        match (text.get(at), text.get(at + 1)) {
            (Some(b'/'), Some(b'*')) => (depth, at) = (depth + 1, at + 2),
            (Some(b'*'), Some(b'/')) => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(a: &str, b: &str) {
        assert_eq!(identify(a.as_bytes()), identify(b.as_bytes()), "{a} | {b}");
    }

    fn differ(a: &str, b: &str) {
        assert_ne!(identify(a.as_bytes()), identify(b.as_bytes()), "{a} | {b}");
    }

    #[test]
    fn constants_do_not_count() {
        same("SELECT * FROM t WHERE a = 1", "SELECT * FROM t WHERE a = 1.5e-7");
        same("SELECT * FROM t WHERE a = 'x'", "SELECT * FROM t WHERE a = 'it''s -- not /* a comment'");
        same("SELECT * FROM t WHERE a = 'x'", "SELECT * FROM t WHERE a = $q$x'y$q$");
        same("SELECT E'a\\'b' FROM t", "SELECT E'c' FROM t");
        same("SELECT $$a$$ FROM t", "SELECT $$ $1 $$ FROM t");
        same("UPDATE t SET a = a + 5, b = .5", "UPDATE t SET a = a + -5, b = -1.5e3");
        same("SELECT U&'\\0041', B'1'", "SELECT 'x', X'F'");
        differ("SELECT a - 1 FROM t", "SELECT a + 1 FROM t");
        differ("SELECT (a) - 1 FROM t", "SELECT (a) + 1 FROM t");
        differ("SELECT * FROM t WHERE a = 1", "SELECT * FROM t WHERE a = 1 AND b = 1");
        differ("SELECT * FROM t WHERE a = 1", "SELECT * FROM t WHERE a = $1");
        differ("SELECT * FROM t WHERE a = $1 AND b = $2", "SELECT * FROM t WHERE a = $2 AND b = $1");
        differ("SELECT 1 FROM t WHERE a IN (1, 2)", "SELECT 1 FROM t WHERE a IN (1, 2, 3)");
    }

    #[test]
    fn form_does_not_count() {
        same("SELECT a FROM t", "select\n\ta -- comment\n FROM /* a /* nested */ one */ T;");
        same("SELECT a FROM t WHERE a=1", "SELECT a FROM t WHERE a = 1");
        same("SELECT a FROM \"t\"", "SELECT a FROM t");
        same("SELECT a FROM \"my_long_table_name_16\"", "SELECT a FROM My_Long_Table_Name_16");
        differ("SELECT a FROM abcdefgh i", "SELECT a FROM abcdefghi");
        differ("SELECT a FROM t WHERE a$b = c", "SELECT a FROM t WHERE a$d = c");
        differ("SELECT a FROM \"T\"", "SELECT a FROM t");
        differ("SELECT ab FROM t", "SELECT a b FROM t");
        differ("SELECT a FROM t", "SELECT a FROM u");
    }

    #[test]
    fn names_of_what_wraps_a_statement_do_not_count() {
        same("PREPARE p1 AS SELECT 1 FROM t", "PREPARE p2 (int, text) AS SELECT 2 FROM t");
        same("DECLARE c NO SCROLL CURSOR FOR SELECT a FROM t", "DECLARE d CURSOR FOR SELECT a FROM t");
        same("CREATE TABLE x AS SELECT a FROM t", "create temp table y as select a from t");
        same("PREPARE p1 AS SELECT a FROM t", "SELECT a FROM t");
        differ("PREPARE p1 AS SELECT a AS x FROM t", "PREPARE p1 AS SELECT b AS x FROM t");
    }

    #[test]
    fn comments_can_be_left_out() {
        assert_eq!(without_comments("SELECT /* who /* is */ it */ a--b\nFROM t"), "SELECT   a \nFROM t");
        assert_eq!(
            without_comments("SELECT '--a', \"/*b*/\", $$--c$$, E'\\'--d' - 1"),
            "SELECT '--a', \"/*b*/\", $$--c$$, E'\\'--d' - 1"
        );
        assert_eq!(inside(b"/* x */ prepare p (int) as SELECT 1"), 26);
    }

    proptest! {
        #[test]
        fn texts_without_comments_stay(text in "[a-z0-9 '$\"_.,()]{0,60}") {
            prop_assert_eq!(without_comments(&text), text);
        }

        #[test]
        fn any_bytes_have_an_identifier(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_ne!(identify(&text), 0);
        }

        #[test]
        fn numbers_never_count(a in any::<u64>(), b in any::<f64>()) {
            let text = |n: String| identify(format!("SELECT * FROM t WHERE a > {n} AND b = 'x'").as_bytes());
            prop_assert_eq!(text(a.to_string()), text(b.abs().to_string().replace("inf", "1").replace("NaN", "1")));
        }
    }
}
