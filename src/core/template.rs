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
            b'/' => SLASH,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xFF => WORD,
            _ => SYMBOL,
        };
        b += 1;
    }
    class
};

/// A byte of a word, in lower case; 0 for what is none.
static FOLDED: [u8; 256] = {
    let mut folded = [0; 256];
    let mut b = 0;
    while b < 256 {
        folded[b] = match b as u8 {
            c @ (b'a'..=b'z' | b'_' | b'0'..=b'9' | b'$' | 0x80..=0xFF) => c,
            c @ b'A'..=b'Z' => c + 32,
            _ => 0,
        };
        b += 1;
    }
    folded
};

const SEED: u64 = 0xCBF2_9CE4_8422_2325;
/// Multiplication by an odd number loses nothing; this one spreads each byte upwards.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
/// Stands for every constant.
const CONSTANT: u64 = 0x100;
/// Ends every word.
const END: u64 = 0x101;

#[inline]
fn add(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(STEP).rotate_left(23)
}

/// The identifier of a statement; never 0. `PREPARE … AS`, `DECLARE … FOR` and `CREATE … AS` are left out, so that the statement
/// inside has the same identifier whatever its name.
pub fn identify(text: &[u8]) -> u64 {
    let text = text.get(..LIMIT).unwrap_or(text);
    let mut hash = SEED;
    let mut at = 0;
    // The keyword that ends what is left out, and how many parentheses are open.
    let (mut until, mut first, mut open): (&[u8], bool, i32) = (b"", true, 0);
    while let Some(&b) = text.get(at) {
        match CLASS[b as usize] {
            SPACE => at += 1,
            WORD => {
                let start = at;
                while let Some(&b) = text.get(at) {
                    let folded = FOLDED[b as usize];
                    if folded == 0 {
                        break;
                    }
                    hash = add(hash, u64::from(folded));
                    at += 1;
                }
                if text.get(at) == Some(&b'\'') && at - start == 1 && b"eEbBxXnN".contains(&b) {
                    // Not a word but the beginning of a constant; what it added is part of every such constant.
                    at = string(text, at, b == b'e' || b == b'E');
                    hash = add(hash, CONSTANT);
                    continue;
                }
                hash = add(hash, END);
                if first {
                    first = false;
                    until = prefix(text.get(start..at).unwrap_or_default());
                } else if open == 0 && !until.is_empty() && text.get(start..at).is_some_and(|w| w.eq_ignore_ascii_case(until)) {
                    (hash, until) = (SEED, b"");
                }
            }
            DIGIT => {
                at = number(text, at);
                hash = add(hash, CONSTANT);
            }
            QUOTE => {
                at = string(text, at, false);
                hash = add(hash, CONSTANT);
            }
            DOUBLE => {
                let end = quoted(text, at, b'"');
                // The same identifier without quotes is the same word.
                for b in text.get(at + 1..end.saturating_sub(1)).unwrap_or_default() {
                    hash = add(hash, u64::from(*b));
                }
                hash = add(hash, END);
                at = end;
            }
            DOLLAR => match text.get(at + 1).map(|b| CLASS[*b as usize]) {
                Some(DIGIT) => {
                    hash = add(hash, u64::from(b'$'));
                    at += 1;
                    while let Some(digit @ b'0'..=b'9') = text.get(at) {
                        hash = add(hash, u64::from(*digit));
                        at += 1;
                    }
                    hash = add(hash, END);
                }
                _ => match dollar_quoted(text, at) {
                    Some(end) => {
                        at = end;
                        hash = add(hash, CONSTANT);
                    }
                    None => {
                        hash = add(hash, u64::from(b'$'));
                        at += 1;
                    }
                },
            },
            DASH if text.get(at + 1) == Some(&b'-') => at = line_end(text, at),
            SLASH if text.get(at + 1) == Some(&b'*') => at = comment_end(text, at),
            _ => {
                if b == b'(' {
                    open += 1;
                } else if b == b')' {
                    open -= 1;
                }
                first = false;
                hash = add(hash, u64::from(b));
                at += 1;
            }
        }
    }
    (hash ^ (hash >> 29)).max(1)
}

/// The keyword before the statement that is inside one with this first word.
#[inline]
fn prefix(word: &[u8]) -> &'static [u8] {
    match word.first().map(u8::to_ascii_lowercase) {
        Some(b'p') if word.eq_ignore_ascii_case(b"prepare") => b"as",
        Some(b'c') if word.eq_ignore_ascii_case(b"create") => b"as",
        Some(b'd') if word.eq_ignore_ascii_case(b"declare") => b"for",
        _ => b"",
    }
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
    let tag = text.get(at + 1..)?.iter().take_while(|b| FOLDED[**b as usize] != 0 && **b != b'$').count() + 2;
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

    proptest! {
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
