//! What a reader may rely on everywhere in this project, checked on its files: layers, places, comments, sizes. CONTRIBUTING.md has
//! the reasons. Each rule is also shown a bad example, so that none of them passes because it looks at nothing.

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/schema.rs"]
mod schema;
#[path = "tidy/source.rs"]
mod source;

use rules::Complaints;
use source::{Source, project};
use std::fmt::Write;

type Rule = fn(&Source) -> Complaints;

/// Fails with `path:line: message` for everything that breaks a rule.
fn report(complaints: impl IntoIterator<Item = (String, Complaints)>) {
    let mut text = String::new();
    for (path, found) in complaints {
        for (line, message) in found {
            let _ = writeln!(text, "{path}:{line}: {message}");
        }
    }
    assert!(text.is_empty(), "\n{text}");
}

fn all_files(rule: Rule) {
    report(project().iter().map(|f| (f.path.clone(), rule(f))));
}

/// The rule objects to the text in a file of that name.
fn objects(rule: Rule, path: &str, text: &str) {
    assert!(!rule(&Source::new(path, text)).is_empty(), "the rule does not see what is wrong in {path}: {text}");
}

fn accepts(rule: Rule, path: &str, text: &str) {
    let found = rule(&Source::new(path, text));
    assert!(found.is_empty(), "the rule objects to {path}: {text}: {found:?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    objects(rules::module_docs, "src/pg/x.rs", "use std::fs;\n");
    accepts(rules::module_docs, "src/pg/x.rs", "//! Does this.\n");
    all_files(rules::module_docs);
}

#[test]
fn files_are_short() {
    objects(rules::length, "sql/install/x.sql", &"SELECT 1;\n".repeat(701));
    accepts(rules::length, "pg_regress/expected/x.out", &"1\n".repeat(701));
    all_files(rules::length);
}

#[test]
fn layers_use_only_what_is_below() {
    objects(rules::layers, "src/core/x.rs", "use std::time::Instant;\n");
    objects(rules::layers, "src/pg/x.rs", "use crate::guc;\n");
    objects(rules::layers, "src/store/x.rs", "use crate::{guc, whatif::Sample};\n");
    objects(rules::layers, "src/store/x.rs", "use crate::{\n    pg::error::{Error, Kind},\n    capture,\n};\n");
    objects(rules::layers, "src/api/x.rs", "fn f() { crate::apply::run() }\n");
    objects(rules::layers, "src/guc.rs", "use crate::store;\n");
    accepts(rules::layers, "src/store/x.rs", "use crate::pg::{error::Error, spi};\nuse crate::guc;\n// crate::capture\n");
    accepts(rules::layers, "src/worker/x.rs", "use crate::{api, apply, capture, store, whatif};\n");
    accepts(rules::layers, "src/core/x.rs", "#[cfg(test)]\nmod tests {\n    use std::time::Instant;\n}\n");
    all_files(rules::layers);
    let core = project().into_iter().find(|f| f.path == "src/core/lib.rs").map(|f| f.code);
    assert!(core.is_some_and(|code| code.contains("#![forbid(unsafe_code)]")), "src/core/lib.rs must forbid unsafe code");
}

#[test]
fn capture_never_queries_and_never_raises() {
    objects(rules::capture_is_quiet, "src/capture/x.rs", "use crate::pg::spi::{row};\n");
    objects(rules::capture_is_quiet, "src/capture/x.rs", "fn f() { pgrx::error!(\"x\") }\n");
    accepts(rules::capture_is_quiet, "src/capture/x.rs", "// never spi::row\n");
    all_files(rules::capture_is_quiet);
}

#[test]
fn unsafe_stays_in_its_places() {
    objects(rules::unsafe_places, "src/store/x.rs", "fn f() { unsafe { g() } }\n");
    objects(rules::unsafe_places, "src/worker/x.rs", "fn f() { unsafe { g() } }\n");
    accepts(rules::unsafe_places, "src/worker/x.rs", "#[unsafe(no_mangle)]\npub extern \"C-unwind\" fn main() {}\n");
    accepts(rules::unsafe_places, "src/core/x.rs", "#![forbid(unsafe_code)]\n// unsafe\nconst X: &str = \"unsafe\";\n");
    all_files(rules::unsafe_places);
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    objects(rules::safety_comments, "src/pg/x.rs", "fn f() {\n    unsafe { g() }\n}\n");
    objects(rules::safety_comments, "src/pg/x.rs", "/// Does this.\npub unsafe fn f() {}\n");
    objects(rules::safety_comments, "src/pg/x.rs", "unsafe extern \"C-unwind\" fn hook(a: i32) {}\n");
    objects(rules::safety_comments, "src/pg/x.rs", "unsafe impl Send for X {}\n");
    objects(rules::safety_comments, "src/pg/x.rs", "// SAFETY: far away\na();\nb();\nc();\nd();\nunsafe { g() }\n");
    accepts(
        rules::safety_comments,
        "src/pg/x.rs",
        "// SAFETY: the reason\n// in many\n// lines\n// of text\nlet x = unsafe { g() };\n",
    );
    accepts(
        rules::safety_comments,
        "src/pg/x.rs",
        "/// Does this.\n///\n/// # Safety\n/// Hold the lock.\n#[inline]\npub unsafe fn f() {}\n",
    );
    accepts(rules::safety_comments, "src/pg/x.rs", "//! Reads trees.\n//!\n//! # Safety\n//! Pointers live.\nunsafe fn f() {}\n");
    objects(
        rules::safety_comments,
        "src/pg/x.rs",
        "//! Reads trees.\n//!\n//! # Safety\n//! Pointers live.\n\nuse x;\n\npub unsafe fn f() {}\n",
    );
    accepts(rules::safety_comments, "src/pg/x.rs", "type F = unsafe extern \"C-unwind\" fn(i32);\n");
    all_files(rules::safety_comments);
}

#[test]
fn nothing_panics_outside_tests() {
    for bad in ["x.unwrap()", "x.expect(\"y\")", "panic!(\"y\")", "unreachable!()", "todo!()", "unimplemented!()"] {
        objects(rules::no_panics, "src/store/x.rs", &format!("fn f() {{ {bad}; }}\n"));
    }
    accepts(
        rules::no_panics,
        "src/store/x.rs",
        "// x.unwrap()\n#[cfg(test)]\nmod tests {\n    fn f() {\n        x.unwrap();\n    }\n}\n",
    );
    objects(rules::no_panics, "src/store/x.rs", "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nfn g() { x.unwrap(); }\n");
    all_files(rules::no_panics);
}

#[test]
fn nothing_is_left_half_done() {
    objects(rules::no_leftovers, "src/x.rs", concat!("// TO", "DO: this\n"));
    all_files(rules::no_leftovers);
    objects(rules::no_conflicts, "pg_regress/expected/x.out", "<<<<<<< HEAD\nf\n");
    all_files(rules::no_conflicts);
}

#[test]
fn settings_are_read_in_one_place() {
    objects(rules::settings_in_guc, "src/store/x.rs", "static X: GucSetting<bool> = GucSetting::<bool>::new(true);\n");
    all_files(rules::settings_in_guc);
}

#[test]
fn sqlstates_are_chosen_in_one_place() {
    objects(rules::sqlstates_in_error, "src/store/x.rs", "let c = PgSqlErrorCode::ERRCODE_INTERNAL_ERROR;\n");
    all_files(rules::sqlstates_in_error);
}

#[test]
fn tables_are_written_in_one_place() {
    objects(rules::writes_in_store, "src/worker/x.rs", "execute(\"DELETE FROM indexpilot.actions\");\n");
    objects(rules::writes_in_store, "src/api/x.rs", "execute(\"insert into indexpilot.actions VALUES (1)\");\n");
    accepts(rules::writes_in_store, "src/store/x.rs", "execute(\"UPDATE indexpilot.actions SET x = 1\");\n");
    all_files(rules::writes_in_store);
}

#[test]
fn ddl_is_issued_in_one_place() {
    objects(rules::ddl_in_apply, "src/worker/x.rs", "use crate::pg::toplevel;\n");
    accepts(rules::ddl_in_apply, "src/apply/x.rs", "use crate::pg::toplevel;\n");
    all_files(rules::ddl_in_apply);
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    objects(rules::no_machine_paths, "README.md", concat!("cd /wo", "rk/main\n"));
    all_files(rules::no_machine_paths);
}

#[test]
fn everything_in_the_schema_is_commented() {
    let bad = "CREATE TABLE t (\n    id bigint,\n    n int\n);\nCREATE VIEW v AS SELECT 1;\nCOMMENT ON COLUMN t.id IS 'x';\n";
    let found = schema::sql_comments(&[Source::new("sql/install/x.sql", bad)]);
    let lines: Vec<usize> = found[0].1.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 3, 5]);
    report(schema::sql_comments(&project()));
}

#[test]
fn every_regression_test_has_its_expected_output() {
    let file = |path: &str| Source::new(path, "test: c\n");
    let found = schema::regress_pairs(&[
        file("pg_regress/sql/a.sql"),
        file("pg_regress/expected/b.out"),
        file("pg_regress/sql/c.sql"),
        file("pg_regress/expected/c.out"),
        file("pg_regress/expected/c_1.out"),
        file("pg_regress/specs/d.spec"),
        file("pg_regress/schedule"),
    ]);
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        ["pg_regress/expected/a.out", "pg_regress/expected/d.out", "pg_regress/expected/b.out", "pg_regress/sql/a.sql"]
    );
    report(schema::regress_pairs(&project()));
}

#[test]
fn the_project_is_seen_whole() {
    let files = project();
    for path in ["src/guc.rs", "src/core/verify/mod.rs", "sql/install/10_tables.sql", "Makefile", ".github/workflows/core.yml"] {
        assert!(files.iter().any(|f| f.path == path), "{path} is not looked at");
    }
    let tests = |path: &str| files.iter().any(|f| f.path == path && f.test_file);
    assert!(tests("src/core/guard/tests.rs") && tests("src/core/apply_tests.rs") && !tests("src/core/apply.rs"));
}
