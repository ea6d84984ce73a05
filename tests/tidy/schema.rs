//! The rules on SQL files and on pg_regress.

use crate::rules::Complaints;
use crate::source::Source;
use std::collections::BTreeSet;

/// Every table, every column of a table, and every view has a comment; they are the documentation that `\d+` shows.
pub fn sql_comments(files: &[Source]) -> Vec<(String, Complaints)> {
    let install: Vec<&Source> = files.iter().filter(|f| f.path.starts_with("sql/install/")).collect();
    let comments: BTreeSet<String> = install
        .iter()
        .flat_map(|f| f.text.lines())
        .filter_map(|l| l.strip_prefix("COMMENT ON ")?.split_once(" IS ").map(|(what, _)| what.trim().replace("indexpilot.", "")))
        .collect();
    install
        .iter()
        .map(|f| {
            let missing = declared(&f.text).into_iter().filter(|(_, what)| !comments.contains(what));
            (f.path.clone(), missing.map(|(line, what)| (line, format!("COMMENT ON {what} is missing"))).collect())
        })
        .collect()
}

/// Tables, columns and views that a script declares: `(line, TABLE t)`, `(line, COLUMN t.c)`, `(line, VIEW v)`.
fn declared(sql: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut table: Option<String> = None;
    for (at, line) in sql.lines().enumerate() {
        let name = |rest: &str| rest.split([' ', '(']).next().unwrap_or_default().replace("indexpilot.", "");
        if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
            table = Some(name(rest));
            found.push((at + 1, format!("TABLE {}", name(rest))));
        } else if let Some(rest) = line.strip_prefix("CREATE VIEW ").or_else(|| line.strip_prefix("CREATE OR REPLACE VIEW ")) {
            found.push((at + 1, format!("VIEW {}", name(rest))));
        } else if line.starts_with(')') {
            table = None;
        } else if let (Some(table), Some(column)) = (&table, line.strip_prefix("    "))
            && column.starts_with(|c: char| c.is_ascii_lowercase())
        {
            found.push((at + 1, format!("COLUMN {table}.{}", name(column))));
        }
    }
    found
}

/// A test without expected output is skipped without a word, and expected output without a test is never looked at.
pub fn regress_pairs(files: &[Source]) -> Vec<(String, Complaints)> {
    let stems = |dir: &str, end: &str| -> BTreeSet<String> {
        files.iter().filter_map(|f| f.path.strip_prefix(dir)?.strip_suffix(end)).map(str::to_owned).collect()
    };
    let (sql, specs) = (stems("pg_regress/sql/", ".sql"), stems("pg_regress/specs/", ".spec"));
    let expected = stems("pg_regress/expected/", ".out");
    // `name_1.out` is another output that is right too.
    let plain = |name: &str| {
        name.rsplit_once('_').filter(|(_, n)| n.chars().all(|c| c.is_ascii_digit())).map_or(name, |(n, _)| n).to_owned()
    };
    let scheduled: BTreeSet<&str> = files
        .iter()
        .filter(|f| f.path == "pg_regress/schedule")
        .flat_map(|f| f.text.lines())
        .filter_map(|l| l.strip_prefix("test:"))
        .flat_map(str::split_whitespace)
        .collect();
    let mut complaints = Vec::new();
    let mut complain = |path: String, what: &str| complaints.push((path, vec![(1, what.to_owned())]));
    for name in sql.iter().chain(&specs).filter(|n| !expected.contains(*n)) {
        complain(format!("pg_regress/expected/{name}.out"), "the test has no expected output");
    }
    for name in expected
        .iter()
        .filter(|n| !sql.contains(*n) && !specs.contains(*n) && !sql.contains(&plain(n)) && !specs.contains(&plain(n)))
    {
        complain(format!("pg_regress/expected/{name}.out"), "the expected output has no test");
    }
    for name in sql.iter().filter(|n| !scheduled.contains(n.as_str())) {
        complain(format!("pg_regress/sql/{name}.sql"), "the test is not in pg_regress/schedule");
    }
    complaints
}
