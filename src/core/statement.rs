//! Statements of functions: from the text in the function's body to one that can be planned by itself.
//!
//! PL/pgSQL and SQL functions mix their variables with columns: `SELECT … WHERE id = v_id`. The server's parser knows which is which,
//! and where in the text each variable stands; here they become parameters. PL/pgSQL also hands the server bare expressions
//! (`EXISTS (SELECT …)`) and assignments (`total := (SELECT …)`), which become `SELECT`s.

/// A use of a variable in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Where it begins, in bytes from the start of the text.
    pub offset: usize,
    /// Number of the parameter that takes its place (`$1` is 1).
    pub parameter: usize,
    /// Of a variable of a row type: how many fields are selected from it one after the other (`v.address.city` is 2).
    pub fields: usize,
}

/// The text as a statement of its own; `None` when a variable is not where it is said to be.
pub fn stand_alone(text: &str, variables: &[Variable]) -> Option<String> {
    let mut variables = variables.to_vec();
    // Expressions that the parser duplicates (BETWEEN, the star of a row) have several variables in one place.
    variables.sort_by_key(|v| (v.offset, v.fields));
    variables.dedup_by_key(|v| v.offset);
    let start = assignment(text, &variables).unwrap_or(0);
    let mut out = String::with_capacity(text.len() + 8);
    let mut at = start;
    for variable in variables.iter().filter(|v| v.offset >= start) {
        let (end, row) = extent(text, variable)?;
        out.push_str(text.get(at..variable.offset)?);
        match row {
            true => out.push_str(&format!("(${})", variable.parameter)),
            false => out.push_str(&format!("${}", variable.parameter)),
        }
        at = end;
    }
    out.push_str(text.get(at..)?);
    if start > 0 || !is_statement(&out) {
        out.insert_str(0, "SELECT ");
    }
    Some(out)
}

/// Where the name of a variable ends, and whether something is selected from it.
fn extent(text: &str, variable: &Variable) -> Option<(usize, bool)> {
    let bytes = text.as_bytes();
    if bytes.get(variable.offset) == Some(&b'$') {
        let digits = bytes.iter().skip(variable.offset + 1).take_while(|b| b.is_ascii_digit()).count();
        return (digits > 0).then_some((variable.offset + 1 + digits, variable.fields > 0));
    }
    let mut ends = vec![name(bytes, variable.offset)?];
    let mut star = false;
    while let Some(dot) = symbol(bytes, *ends.last()?, b'.') {
        let next = blanks(bytes, dot);
        if bytes.get(next) == Some(&b'*') {
            star = true;
            break;
        }
        match name(bytes, next) {
            Some(end) => ends.push(end),
            None => break,
        }
    }
    // `v.*` stands for every field of `v`, none of which is in the text; in `(v).f` the field comes after the parenthesis.
    let named = variable.fields.saturating_sub(usize::from(star)).min(ends.len() - 1);
    let own = ends.len().checked_sub(named)?.checked_sub(1)?;
    Some((*ends.get(own)?, star || named > 0))
}

/// Where the expression of an assignment (`x := …`, `r.f[1] = …`) begins; `None` when it is none.
fn assignment(text: &str, variables: &[Variable]) -> Option<usize> {
    let bytes = text.as_bytes();
    let start = blanks(bytes, 0);
    let mut at = name(bytes, start)?;
    loop {
        let next = blanks(bytes, at);
        at = match bytes.get(next) {
            Some(b'.') => name(bytes, blanks(bytes, next + 1))?,
            Some(b'[') => closing(bytes, next, b'[', b']')? + 1,
            Some(b':') if bytes.get(next + 1) == Some(&b'=') => return Some(next + 2),
            // A comparison has its variable on the left side among those that the parser found.
            Some(b'=') if !operator(bytes.get(next + 1)) && variables.iter().all(|v| v.offset != start) => return Some(next + 1),
            _ => return None,
        };
    }
}

fn operator(byte: Option<&u8>) -> bool {
    byte.is_some_and(|b| b"+-*/<>=~!@#%^&|`?".contains(b))
}

/// Whether the text begins as statements do.
fn is_statement(text: &str) -> bool {
    const FIRST: [&str; 11] =
        ["select", "with", "insert", "update", "delete", "merge", "values", "create", "declare", "copy", "refresh"];
    let bytes = text.as_bytes();
    let start = blanks(bytes, 0);
    let word = |at: usize| {
        let end = bytes.iter().skip(at).take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count() + at;
        text.get(at..end).unwrap_or_default().to_ascii_lowercase()
    };
    if bytes.get(start) == Some(&b'(') {
        // A query in parentheses is a statement, (SELECT …) > 5 is not.
        let Some(end) = closing(bytes, start, b'(', b')') else { return false };
        let next = blanks(bytes, end + 1);
        let inside = text.get(start + 1..end).unwrap_or_default();
        return is_statement(inside)
            && (next >= bytes.len() || ["union", "intersect", "except", "order", "limit"].contains(&word(next).as_str()));
    }
    // TABLE t is not taken for one: no variable of a function is of use in it.
    FIRST.contains(&word(start).as_str())
}

/// The position after a blank, comment or nothing.
fn blanks(bytes: &[u8], mut at: usize) -> usize {
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        at += match rest {
            [b, ..] if b.is_ascii_whitespace() => 1,
            [b'-', b'-', ..] => rest.iter().take_while(|b| **b != b'\n').count(),
            [b'/', b'*', ..] => comment(rest),
            _ => return at,
        };
    }
}

/// Length of the comment that `bytes` begin with; comments nest.
fn comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(rest) = bytes.get(at..).filter(|r| !r.is_empty()) {
        match rest {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

/// The end of the identifier that begins at `at`.
fn name(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => Some(quoted(bytes, at, b'"')),
        b if b.is_ascii_alphabetic() || *b == b'_' || *b >= 0x80 => {
            let rest = bytes.iter().skip(at).take_while(|b| b.is_ascii_alphanumeric() || **b == b'_' || **b == b'$' || **b >= 0x80);
            Some(at + rest.count())
        }
        _ => None,
    }
}

/// The position after the quoted thing that begins at `at`; the quote is doubled inside.
fn quoted(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut at = at + 1;
    while at < bytes.len() {
        match (bytes.get(at) == Some(&quote), bytes.get(at + 1) == Some(&quote)) {
            (true, true) => at += 2,
            (true, false) => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The position after `wanted`, when it comes next.
fn symbol(bytes: &[u8], at: usize, wanted: u8) -> Option<usize> {
    let at = blanks(bytes, at);
    (bytes.get(at) == Some(&wanted)).then_some(at + 1)
}

/// Where the bracket that opens at `at` closes.
fn closing(bytes: &[u8], at: usize, open: u8, close: u8) -> Option<usize> {
    let (mut depth, mut at) = (0usize, at);
    while at < bytes.len() {
        let b = *bytes.get(at)?;
        match b {
            b'\'' | b'"' => {
                at = quoted(bytes, at, b);
                continue;
            }
            b'-' | b'/' => {
                let next = blanks(bytes, at);
                if next > at {
                    at = next;
                    continue;
                }
            }
            b if b == open => depth += 1,
            b if b == close => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => (),
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Finds the variables by their names, numbering them as they come.
    fn with(text: &str, names: &[(&str, usize)]) -> Option<String> {
        let mut variables = Vec::new();
        for (n, (name, fields)) in names.iter().enumerate() {
            for (offset, _) in text.match_indices(name) {
                variables.push(Variable { offset, parameter: n + 1, fields: *fields });
            }
        }
        stand_alone(text, &variables)
    }

    #[test]
    fn variables_become_parameters() {
        assert_eq!(
            with("SELECT * FROM t WHERE a = v_id AND b=v_b", &[("v_id", 0), ("v_b", 0)]).unwrap(),
            "SELECT * FROM t WHERE a = $1 AND b=$2"
        );
        assert_eq!(with(" SELECT 1 FROM t WHERE a = f.v_id", &[("f.v_id", 0)]).unwrap(), " SELECT 1 FROM t WHERE a = $1");
        assert_eq!(with("DELETE FROM t WHERE a = \"My Id\"", &[("\"My Id\"", 0)]).unwrap(), "DELETE FROM t WHERE a = $1");
        assert_eq!(with("SELECT a[ix] FROM t", &[("ix", 0)]).unwrap(), "SELECT a[$1] FROM t");
        assert_eq!(with("SELECT größe FROM t", &[("größe", 0)]).unwrap(), "SELECT $1 FROM t");
        assert_eq!(with("UPDATE t SET b = $17", &[("$17", 0)]).unwrap(), "UPDATE t SET b = $1");
    }

    #[test]
    fn rows_keep_their_fields() {
        assert_eq!(with("SELECT p.x FROM t", &[("p.x", 1)]).unwrap(), "SELECT ($1).x FROM t");
        assert_eq!(with("INSERT INTO t SELECT NEW.*", &[("NEW", 1)]).unwrap(), "INSERT INTO t SELECT ($1).*");
        assert_eq!(with("SELECT 1 FROM t WHERE a = NEW.id", &[("NEW.id", 0)]).unwrap(), "SELECT 1 FROM t WHERE a = $1");
        assert_eq!(with("SELECT p.x.y", &[("p.x.y", 2)]).unwrap(), "SELECT ($1).x.y");
        assert_eq!(with("SELECT (pp).x", &[("pp", 1)]).unwrap(), "SELECT ($1).x");
    }

    #[test]
    fn expressions_become_statements() {
        assert_eq!(with("EXISTS (SELECT FROM t WHERE a = v)", &[("v", 0)]).unwrap(), "SELECT EXISTS (SELECT FROM t WHERE a = $1)");
        assert_eq!(with("total := (SELECT count(*) FROM t)", &[]).unwrap(), "SELECT  (SELECT count(*) FROM t)");
        assert_eq!(with("r.f[i + 1] := max(a) FROM t WHERE b = w", &[("w", 0)]).unwrap(), "SELECT  max(a) FROM t WHERE b = $1");
        assert_eq!(with("total = count(*) FROM t", &[]).unwrap(), "SELECT  count(*) FROM t");
        assert_eq!(with("vv = (SELECT max(a) FROM t)", &[("vv", 0)]).unwrap(), "SELECT $1 = (SELECT max(a) FROM t)");
        assert_eq!(with("(SELECT max(a) FROM t) > 5", &[]).unwrap(), "SELECT (SELECT max(a) FROM t) > 5");
        assert_eq!(with("(SELECT a FROM t) UNION (SELECT b FROM u)", &[]).unwrap(), "(SELECT a FROM t) UNION (SELECT b FROM u)");
        assert_eq!(
            with("/* x /* y */ */ -- z\n WITH c AS (SELECT 1) TABLE c", &[]).unwrap(),
            "/* x /* y */ */ -- z\n WITH c AS (SELECT 1) TABLE c"
        );
    }

    #[test]
    fn one_place_is_replaced_once() {
        let twice = [Variable { offset: 22, parameter: 1, fields: 0 }, Variable { offset: 22, parameter: 1, fields: 0 }];
        assert_eq!(
            stand_alone("SELECT 1 FROM t WHERE v BETWEEN 1 AND 2", &twice).unwrap(),
            "SELECT 1 FROM t WHERE $1 BETWEEN 1 AND 2"
        );
    }

    #[test]
    fn a_wrong_place_is_refused() {
        assert_eq!(stand_alone("SELECT 1", &[Variable { offset: 6, parameter: 1, fields: 0 }]), None);
        assert_eq!(stand_alone("SELECT 1", &[Variable { offset: 60, parameter: 1, fields: 0 }]), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,60}", offset in 0usize..70, fields in 0usize..3) {
            let _ = stand_alone(&text, &[Variable { offset, parameter: 1, fields }]);
            let _ = stand_alone(&text, &[]);
        }

        #[test]
        fn nothing_but_the_variables_changes(before in "[a-z ]{0,20}", after in "[ +*()a-z0-9]{0,20}") {
            let text = format!("SELECT {before} vv {after}");
            let offset = text.len() - after.len() - 3;
            let out = stand_alone(&text, &[Variable { offset, parameter: 1, fields: 0 }]).unwrap();
            prop_assert_eq!(out, format!("SELECT {} $1 {}", before, after));
        }
    }
}
