//! Literals in the text of a statement: which there are, in which order, and the value of one of them.
//!
//! Capture reads a tenant from the text of a statement whose constants stand where they stood when the worker looked at a sample of
//! it. So this runs for executions: one pass over the bytes up to the literal that is wanted, and no allocation unless its value is
//! written with quotes or escapes inside. It follows the scanner of the server; what that reads differently under other settings
//! (a backslash before a quote without `standard_conforming_strings`) ends the search, since what follows cannot be told.

use std::borrow::Cow;

/// How a literal is written, which says how its value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    /// `'…'`
    Plain,
    /// `E'…'`
    Escape,
    /// `$tag$…$tag$`
    Dollar,
    /// `U&'…'`
    Unicode,
    /// `B'…'`, `X'…'`
    Bits,
}

/// One literal: where it stands, where its content is, and what was before it.
#[derive(Clone, Copy, Debug)]
struct Literal {
    kind: Kind,
    start: usize,
    end: usize,
    content: (usize, usize),
    /// The content is the value: nothing is doubled, escaped or continued.
    exact: bool,
    /// Position of the last byte before it that is neither white space, comment nor opening parenthesis.
    before: Option<usize>,
}

/// The value of literal number `n`, counted from 0. `None` when there are fewer, or its value is not written plainly (bit strings,
/// Unicode and numeric escapes). The sign of a negative number is no part of it.
pub fn nth(text: &[u8], n: u16) -> Option<Cow<'_, [u8]>> {
    value(text, &Scanner::new(text).nth(n.into())?)
}

/// As [`nth`], but only when the literal is compared by `=`. Statements of one template may differ in what stands for a constant
/// (`true` and `'t'::bool`), so that the number may point to another literal; then it must not be taken for the one compared.
pub fn compared(text: &[u8], n: u16) -> Option<Cow<'_, [u8]>> {
    let literal = Scanner::new(text).nth(n.into())?;
    if is_compared(text, &literal) { value(text, &literal) } else { None }
}

/// The number of the literal that begins at a byte of the text.
pub fn number_at(text: &[u8], offset: usize) -> Option<u16> {
    let at = Scanner::new(text).take_while(|l| l.start <= offset).enumerate().find(|(_, l)| l.start == offset)?.0;
    u16::try_from(at).ok()
}

/// Literals that begin before a byte of the text.
pub fn count_before(text: &[u8], offset: usize) -> usize {
    Scanner::new(text).take_while(|l| l.start < offset).count()
}

fn is_compared(text: &[u8], literal: &Literal) -> bool {
    let at = |i: usize| text.get(i).copied();
    match literal.before {
        Some(before) if at(before) == Some(b'=') => !before.checked_sub(1).and_then(at).is_some_and(is_operator),
        // A sign, or an operator that makes it part of an expression.
        Some(before) if at(before).is_some_and(is_operator) => false,
        _ => {
            let after = (literal.end..text.len()).find(|i| at(*i).is_some_and(|c| !is_space(c)));
            after.is_some_and(|i| at(i) == Some(b'=') && !at(i + 1).is_some_and(is_operator))
        }
    }
}

fn value<'a>(text: &'a [u8], literal: &Literal) -> Option<Cow<'a, [u8]>> {
    let content = text.get(literal.content.0..literal.content.1)?;
    match literal.kind {
        Kind::Unicode | Kind::Bits => None,
        _ if literal.exact => Some(Cow::Borrowed(content)),
        kind => decode(content, kind == Kind::Escape).map(Cow::Owned),
    }
}

/// The value of a quoted literal. A single quote within ends a part; the next part begins at the next quote.
fn decode(content: &[u8], escapes: bool) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(content.len());
    let mut bytes = content.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' => match bytes.next()? {
                b'\'' => value.push(b'\''),
                first => skip_to_quote(first, &mut bytes)?,
            },
            b'\\' if escapes => value.push(match bytes.next()? {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' | b'U' | b'x' | b'0'..=b'7' => return None,
                other => other,
            }),
            _ => value.push(byte),
        }
    }
    Some(value)
}

/// Passes over the white space and comments between two parts of a continued literal.
fn skip_to_quote(first: u8, bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
    let (mut byte, mut comment) = (first, false);
    while comment || byte != b'\'' {
        comment = (comment || byte == b'-') && !is_newline(byte);
        byte = bytes.next()?;
    }
    Some(())
}

/// Goes over the literals from the first to the last.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    before: Option<usize>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a [u8]) -> Self {
        Scanner { text, at: 0, before: None }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    /// The first position from `from` on whose byte is not `within`.
    fn end_of(&self, from: usize, within: impl Fn(u8) -> bool) -> usize {
        self.text.get(from..).and_then(|rest| rest.iter().position(|c| !within(*c))).map_or(self.text.len(), |i| from + i)
    }

    /// A token of no interest ends before `end`.
    fn pass(&mut self, end: usize) {
        self.before = end.checked_sub(1);
        self.at = end;
    }

    fn literal(&mut self, kind: Kind, content: (usize, usize), exact: bool, end: usize) -> Option<Literal> {
        let literal = Literal { kind, start: self.at, end, content, exact, before: self.before };
        self.pass(end);
        Some(literal)
    }

    fn number(&mut self) -> Option<Literal> {
        let digits = |c: u8| c.is_ascii_digit() || c == b'_';
        let end = if self.byte(0) == Some(b'0') && matches!(self.byte(1), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B')) {
            self.end_of(self.at + 2, |c| c.is_ascii_hexdigit() || c == b'_')
        } else {
            let mut end = self.end_of(self.at, digits);
            let at = |i: usize| self.text.get(i).copied();
            // `1..2` are two numbers, in a range of a loop.
            if at(end) == Some(b'.') && at(end + 1) != Some(b'.') {
                end = self.end_of(end + 1, digits);
            }
            if matches!(at(end), Some(b'e' | b'E')) {
                let sign = usize::from(matches!(at(end + 1), Some(b'+' | b'-')));
                if at(end + 1 + sign).is_some_and(|c| c.is_ascii_digit()) {
                    end = self.end_of(end + 1 + sign, digits);
                }
            }
            end
        };
        self.literal(Kind::Number, (self.at, end), true, end)
    }

    /// A literal in single quotes, the first of which is `prefix` bytes ahead. `None` when it does not end, or nobody can tell where.
    fn quoted(&mut self, kind: Kind, prefix: usize) -> Option<Literal> {
        let begin = self.at + prefix + 1;
        let (mut at, mut exact) = (begin, true);
        loop {
            at = self.end_of(at, |c| c != b'\'' && c != b'\\');
            let next = self.text.get(at + 1).copied();
            match *self.text.get(at)? {
                b'\\' if kind == Kind::Escape => {
                    exact = false;
                    at += 2;
                }
                // Without standard_conforming_strings this quote does not end the literal.
                b'\\' if next == Some(b'\'') && kind == Kind::Plain => return None,
                b'\\' => at += 1,
                _ if next == Some(b'\'') && kind != Kind::Bits => {
                    exact = false;
                    at += 2;
                }
                _ => match self.continuation(at + 1) {
                    Some(next_part) => {
                        exact = false;
                        at = next_part;
                    }
                    None => return self.literal(kind, (begin, at), exact, at + 1),
                },
            }
        }
    }

    /// Where the next part of a literal begins whose last part ended at `at`: literals with a line break between them are one.
    fn continuation(&self, mut at: usize) -> Option<usize> {
        let mut newline = false;
        loop {
            match *self.text.get(at)? {
                b'\'' if newline => return Some(at + 1),
                b'-' if self.text.get(at + 1) == Some(&b'-') => at = self.end_of(at, |c| !is_newline(c)),
                c if is_space(c) => {
                    newline |= is_newline(c);
                    at += 1;
                }
                _ => return None,
            }
        }
    }

    /// At a dollar sign: a parameter, the beginning of a literal, or neither.
    fn dollar(&mut self) -> Option<Option<Literal>> {
        let tag_end = match self.byte(1)? {
            b'$' => self.at + 1,
            c if is_identifier_start(c) => self.end_of(self.at + 1, |c| is_identifier(c) && c != b'$'),
            c if c.is_ascii_digit() => {
                self.pass(self.end_of(self.at + 1, |c| c.is_ascii_digit()));
                return Some(None);
            }
            _ => 0,
        };
        if tag_end == 0 || self.text.get(tag_end) != Some(&b'$') {
            self.pass(self.at + 1);
            return Some(None);
        }
        let tag = self.text.get(self.at..=tag_end)?;
        let begin = tag_end + 1;
        let length = self.text.get(begin..)?.windows(tag.len()).position(|w| w == tag)?;
        Some(self.literal(Kind::Dollar, (begin, begin + length), true, begin + length + tag.len()))
    }

    /// Behind a comment in `/* */`, which may contain others.
    fn after_comment(&self) -> Option<usize> {
        let (mut at, mut depth) = (self.at + 2, 1);
        while depth > 0 {
            match (*self.text.get(at)?, *self.text.get(at + 1)?) {
                (b'*', b'/') => (depth, at) = (depth - 1, at + 2),
                (b'/', b'*') => (depth, at) = (depth + 1, at + 2),
                _ => at += 1,
            }
        }
        Some(at)
    }
}

impl Iterator for Scanner<'_> {
    type Item = Literal;

    fn next(&mut self) -> Option<Literal> {
        loop {
            let byte = self.byte(0)?;
            match byte {
                b'\'' => return self.quoted(Kind::Plain, 0),
                b'e' | b'E' if self.byte(1) == Some(b'\'') => return self.quoted(Kind::Escape, 1),
                b'b' | b'B' | b'x' | b'X' if self.byte(1) == Some(b'\'') => return self.quoted(Kind::Bits, 1),
                b'u' | b'U' if self.byte(1) == Some(b'&') && self.byte(2) == Some(b'\'') => return self.quoted(Kind::Unicode, 2),
                c if is_identifier_start(c) => self.pass(self.end_of(self.at, is_identifier)),
                b'0'..=b'9' => return self.number(),
                b'.' if self.byte(1) == Some(b'.') => self.pass(self.at + 2),
                b'.' if self.byte(1).is_some_and(|c| c.is_ascii_digit()) => return self.number(),
                // A doubled quote inside ends one identifier here and begins another.
                b'"' => {
                    let end = self.end_of(self.at + 1, |c| c != b'"');
                    self.pass((end + 1).min(self.text.len()));
                }
                b'$' => {
                    if let Some(literal) = self.dollar()? {
                        return Some(literal);
                    }
                }
                b'-' if self.byte(1) == Some(b'-') => self.at = self.end_of(self.at, |c| !is_newline(c)),
                b'/' if self.byte(1) == Some(b'*') => self.at = self.after_comment()?,
                b'(' => self.at += 1,
                c if is_space(c) => self.at += 1,
                _ => self.pass(self.at + 1),
            }
        }
    }
}

fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_newline(c: u8) -> bool {
    matches!(c, b'\n' | b'\r')
}

fn is_operator(c: u8) -> bool {
    b"~!@#^&|`?+-*/%<>=".contains(&c)
}

fn is_identifier_start(c: u8) -> bool {
    c.is_ascii_alphabetic() || c == b'_' || c >= 0x80
}

fn is_identifier(c: u8) -> bool {
    is_identifier_start(c) || c.is_ascii_digit() || c == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Vec<Option<String>> {
        let text = text.as_bytes();
        Scanner::new(text).map(|l| value(text, &l).map(|v| String::from_utf8_lossy(&v).into_owned())).collect()
    }

    fn values(text: &str) -> Vec<String> {
        all(text).into_iter().map(|v| v.unwrap_or("?".into())).collect()
    }

    #[test]
    fn literals_are_told_from_everything_else() {
        assert_eq!(values("SELECT a1, \"x'1\", $1, t.c2 FROM t1 WHERE b = 'x' -- '3'\n AND c = 4"), ["x", "4"]);
        assert_eq!(values("/* 1 /* '2' */ 3 */ 4"), ["4"]);
        assert_eq!(values("a$1 $2 $$b$$ $t$ $$ c $t$ d"), ["b", " $$ c "]);
        assert_eq!(values("\"a\"\"1\" U&\"2\" 3"), ["3"]);
        assert_eq!(values("x=-5 + .5e-3 - 1..2 1.e5 0x1F 1_000 7e"), ["5", ".5e-3", "1", "2", "1.e5", "0x1F", "1_000", "7"]);
        assert_eq!(values("N'n' be'x' 12a"), ["n", "x", "12"]);
    }

    #[test]
    fn values_are_read_as_the_server_reads_them() {
        assert_eq!(values("'it''s' '' E'a\\'b\\\\\\n' 'a\\b'"), ["it's", "", "a'b\\\n", "a\\b"]);
        assert_eq!(values("'a' \n -- 'x'\n 'b' 'c' E'd'\n'\\'e'"), ["ab", "c", "d'e"]);
        assert_eq!(all("B'101' X'1F' U&'\\0041' E'\\x41' 1"), [None, None, None, None, Some("1".into())]);
    }

    #[test]
    fn what_has_no_end_or_a_doubtful_one_ends_the_search() {
        for text in ["1 'a", "1 $$a$", "1 /* 2", "1 'a\\' 2 '", "1 E'a\\", "1 $", "1 'a' --", "1 \"2"] {
            let found = values(text);
            assert_eq!(found.first().map(String::as_str), Some("1"), "{text}");
            assert!(!found.contains(&"2".into()), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_common_value_is_not_copied() {
        assert!(matches!(nth(b"SELECT 1 WHERE t = 'acme'", 1), Some(Cow::Borrowed(b"acme"))));
        assert!(matches!(nth(b"SELECT 'a''b'", 0), Some(Cow::Owned(_))));
        assert_eq!(nth(b"SELECT 1", 1), None);
    }

    #[test]
    fn only_a_literal_beside_an_equals_sign_is_compared() {
        for text in ["WHERE t = 5", "WHERE t=5", "WHERE t = (5)", "WHERE 5 = t", "WHERE t = /* x */ '5'::int", "WHERE (5=t)"] {
            assert_eq!(compared(text.as_bytes(), 0).as_deref(), Some(&b"5"[..]), "{text}");
        }
        for text in ["t > 5", "t = -5", "t >= 5", "t <> 5", "t IN (5, 6)", "5 => t", "LIMIT 5", "-5 = t", "t + 5 = u", "t = u + 5"]
        {
            assert_eq!(compared(text.as_bytes(), 0), None, "{text}");
        }
    }

    #[test]
    fn positions_and_numbers_agree() {
        let text = b"SELECT 'a', E'b' FROM t WHERE c = 10";
        assert_eq!(number_at(text, 7), Some(0));
        assert_eq!(number_at(text, 12), Some(1));
        assert_eq!(number_at(text, 34), Some(2));
        assert_eq!(number_at(text, 8), None);
        assert_eq!(count_before(text, 34), 2);
        assert_eq!(count_before(text, 0), 0);
    }

    /// A piece of a statement, and the value of the literal that it is.
    fn piece() -> impl Strategy<Value = (String, Option<String>)> {
        let literal = |form: fn(&str) -> String| "[a-z$?*/ -]{0,6}".prop_map(move |v| (form(&v), Some(v))).boxed();
        let noise = |text: &'static str| Just((text.to_owned(), None)).boxed();
        prop_oneof![
            literal(|v| format!("'{v}'")),
            literal(|v| format!("E'{v}'")),
            "[a-z']{0,6}".prop_map(|v| (format!("'{}'", v.replace('\'', "''")), Some(v))),
            "[a-z'\\\\]{0,6}".prop_map(|v| (format!("E'{}'", v.replace('\\', "\\\\").replace('\'', "\\'")), Some(v))),
            "[a-z0-9' -]{0,6}".prop_map(|v| (format!("$q${v}$q$"), Some(v))),
            "(0|[1-9][0-9]{0,5})(\\.[0-9]{1,3})?".prop_map(|v| (v.clone(), Some(v))),
            noise("tenant_id"),
            noise("\"it's 1\""),
            noise("$12"),
            noise("/* 'a' /* 2 */ */"),
            noise("-- 3 'b\n"),
            noise("a1.b$2"),
            noise("="),
            noise("("),
            noise("::"),
            noise("<>"),
        ]
    }

    proptest! {
        #[test]
        fn every_literal_is_found_in_its_order(pieces in prop::collection::vec(piece(), 0..20)) {
            let mut text = String::new();
            let mut wanted = Vec::new();
            for (piece, value) in &pieces {
                if let Some(value) = value {
                    wanted.push((text.len(), value.clone()));
                }
                text.push_str(piece);
                // Literals with nothing but a line break between them would be one.
                text.push_str(" , ");
            }
            let bytes = text.as_bytes();
            for (n, (offset, value)) in wanted.iter().enumerate() {
                let n = u16::try_from(n).unwrap();
                let found = nth(bytes, n);
                prop_assert_eq!(found.as_deref(), Some(value.as_bytes()));
                prop_assert_eq!(number_at(bytes, *offset), Some(n));
                prop_assert_eq!(count_before(bytes, *offset), usize::from(n));
            }
            prop_assert_eq!(nth(bytes, u16::try_from(wanted.len()).unwrap()), None);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(prop_oneof![
            prop::sample::select(&b"'\"$\\-/*eEuU&xB.0=( \n"[..]), any::<u8>()], 0..60), n in 0u16..8) {
            let literals: Vec<Literal> = Scanner::new(&bytes).collect();
            for pair in literals.windows(2) {
                prop_assert!(pair[0].start < pair[0].end && pair[0].end <= pair[1].start);
            }
            prop_assert_eq!(nth(&bytes, n).is_some() , literals.get(usize::from(n)).is_some_and(|l| value(&bytes, l).is_some()));
            if let Some(l) = literals.get(usize::from(n)) {
                prop_assert_eq!(number_at(&bytes, l.start), Some(n));
            }
        }
    }
}
