//! The rules on Rust files. Each takes a file and says where it is broken: line (from 1) and what is wrong.

use crate::source::{Source, has_word};

pub type Complaints = Vec<(usize, String)>;

/// A line that may appear in one place only, or nowhere.
fn lines_with<'a>(lines: impl Iterator<Item = (usize, &'a str)>, wrong: impl Fn(&str) -> bool, message: &str) -> Complaints {
    lines.filter(|(_, line)| wrong(line)).map(|(at, _)| (at + 1, message.to_owned())).collect()
}

/// Every file says at its top what it is for.
pub fn module_docs(file: &Source) -> Complaints {
    match !file.is_rust() || file.text.starts_with("//! ") {
        true => vec![],
        false => vec![(1, "the file must begin with //! and say what it is for".into())],
    }
}

/// A file that does not fit into one's head is two files.
pub fn length(file: &Source) -> Complaints {
    const MOST: usize = 700;
    let counts = file.is_rust() || file.path.ends_with(".sql");
    match counts && file.text.lines().count() > MOST {
        true => vec![(MOST + 1, format!("a file has at most {MOST} lines"))],
        false => vec![],
    }
}

/// The layer of a module: it may use those below it, and of its own layer nothing but itself (at the top: everything).
fn layer(module: &str) -> Option<u8> {
    match module {
        "api" | "worker" => Some(4),
        "capture" | "whatif" | "store" | "apply" | "health" => Some(3),
        "guc" => Some(2),
        "pg" => Some(1),
        _ => None,
    }
}

/// core knows nothing of PostgreSQL, of the machine or of the time; an adapter knows no other adapter; only the worker applies.
pub fn layers(file: &Source) -> Complaints {
    let Some(module) = file.module().filter(|_| file.is_rust()) else { return vec![] };
    if module == "core" {
        const OUTSIDE: [&str; 13] = [
            "pgrx",
            "pg_sys",
            "std::fs",
            "std::net",
            "std::io",
            "std::env",
            "std::process",
            "std::thread",
            "std::time",
            "static mut",
            "thread_local!",
            "println!",
            "eprintln!",
        ];
        let wrong = |line: &str| OUTSIDE.iter().any(|w| line.contains(w));
        return lines_with(file.shipped_code(), wrong, "core has no PostgreSQL, no I/O, no clock and no globals");
    }
    let Some(own) = layer(module) else { return vec![] };
    let mut complaints = Vec::new();
    for (line, used) in crate_paths(file) {
        let Some(other) = layer(&used) else { continue };
        if used == "apply" && !["apply", "worker"].contains(&module) {
            complaints.push((line, format!("{module} uses apply, but only the worker may")));
        } else if used != module && other >= own && own < 4 {
            complaints.push((line, format!("{module} uses {used}, which is not below it")));
        }
    }
    complaints
}

/// First parts of all paths that begin with `crate::`, in groups too, with their lines. Test code may reach everywhere.
fn crate_paths(file: &Source) -> Vec<(usize, String)> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| crate::source::is_word(*c)).collect::<String>();
    let mut found = Vec::new();
    for (at, _) in file.code.match_indices("crate::") {
        let line = file.code[..at].matches('\n').count();
        let rest = &file.code[at + "crate::".len()..];
        if !file.ships(line) {
            continue;
        }
        let Some(group) = rest.strip_prefix('{') else {
            found.push((line + 1, word(rest)));
            continue;
        };
        let mut depth = 0;
        let mut begin = true;
        for (i, c) in group.char_indices() {
            if begin && depth == 0 && !c.is_whitespace() {
                found.push((line + 1, word(&group[i..])));
                begin = false;
            }
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begin = true,
                _ => {}
            }
        }
    }
    found
}

/// Capture runs in every query of every user: it must not query, and it must not fail.
pub fn capture_is_quiet(file: &Source) -> Complaints {
    const LOUD: [&str; 9] = ["Spi", "spi::", "or_raise", ".raise()", "ereport!", "error!(", "PgLogLevel::ERROR", "FATAL", "PANIC"];
    match file.module() {
        Some("capture") => {
            lines_with(file.shipped_code(), |l| LOUD.iter().any(|w| l.contains(w)), "capture never uses SPI and never raises")
        }
        _ => vec![],
    }
}

/// `unsafe` stays where people look for it.
pub fn unsafe_places(file: &Source) -> Complaints {
    if !file.is_rust() || !file.path.starts_with("src/") {
        return vec![];
    }
    let entry_points =
        file.path.starts_with("src/worker/") && file.code.contains("extern \"") | file.bare.contains("extern \"C-unwind\"");
    let allowed = file.path.starts_with("src/pg/")
        || ["src/capture/hooks.rs", "src/whatif/hooks.rs", "src/whatif/harvest.rs"].contains(&file.path.as_str())
        || entry_points;
    match allowed {
        true => vec![],
        false => lines_with(
            file.shipped_code(),
            |l| has_word(l, "unsafe"),
            "unsafe code lives in src/pg, the hooks, and the workers' entry points",
        ),
    }
}

/// Whoever writes `unsafe` says which fact makes it sound: in a comment just above, or for a function under `# Safety`. Functions
/// that only their own file calls, all under the same condition, may have it once, in a section `# Safety` at the top of the file.
pub fn safety_comments(file: &Source) -> Complaints {
    let lines: Vec<&str> = file.text.lines().collect();
    let covered = lines.iter().take_while(|l| l.starts_with("//!")).any(|l| l.contains("# Safety"));
    let mut complaints = Vec::new();
    for (at, code) in file.code.lines().enumerate().filter(|_| file.is_rust()) {
        let code = code.trim_start();
        if covered && (code.starts_with("unsafe fn ") || code.starts_with("unsafe extern")) {
            continue;
        }
        let declares = code.split_once("unsafe").is_some_and(|(_, rest)| {
            // `unsafe fn name` and `unsafe extern "C-unwind" fn name`, not the type of a pointer.
            rest.split_once("fn ").is_some_and(|(between, name)| {
                !between.contains(['(', '=', ':']) && name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            })
        });
        let opens =
            ["unsafe {", "unsafe impl"].iter().any(|w| code.contains(w)) && !code.contains("fn(") && has_word(code, "unsafe");
        if (declares || opens) && !explained(&lines, at) {
            complaints.push((at + 1, "unsafe without a SAFETY comment (within three lines above) or a section # Safety".into()));
        }
    }
    complaints
}

/// A comment that ends on the line or at most three lines above it, or the documentation and attributes that belong to it.
fn explained(lines: &[&str], at: usize) -> bool {
    let says = |line: &str| line.contains("SAFETY:") || line.contains("# Safety");
    let remark = |line: &str| line.trim_start().starts_with("//") || line.trim_start().starts_with("#[");
    if says(lines[at]) {
        return true;
    }
    let mut above = at;
    while above > 0 && (at - above < 3 || remark(lines[above])) {
        above -= 1;
        if says(lines[above]) {
            return true;
        }
    }
    false
}

/// A panic shows users XX000 and a message for programmers. Errors are values here.
pub fn no_panics(file: &Source) -> Complaints {
    const WORDS: [&str; 6] = [".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];
    match file.is_rust() && file.path.starts_with("src/") {
        true => {
            lines_with(file.shipped_code(), |l| WORDS.iter().any(|w| l.contains(w)), "no unwrap, expect or panic outside tests")
        }
        false => vec![],
    }
}

/// What is not done is an issue, not a comment.
pub fn no_leftovers(file: &Source) -> Complaints {
    // In two halves, so that this file does not complain of itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let kinds = [".rs", ".sql", ".sh", ".md", ".toml", ".yml", "Makefile"];
    match kinds.iter().any(|k| file.path.ends_with(k)) {
        true => {
            lines_with(file.text.lines().enumerate(), |l| words.iter().any(|w| l.contains(w)), "unfinished work belongs elsewhere")
        }
        false => vec![],
    }
}

/// Settings are read in one place; everybody else is given values. (pg/setting.rs is where that place leaves the unsafe part.)
pub fn settings_in_guc(file: &Source) -> Complaints {
    let theirs = file.path.starts_with("src/guc/") || ["src/guc.rs", "src/pg/setting.rs"].contains(&file.path.as_str());
    match file.is_rust() && file.path.starts_with("src/") && !theirs {
        true => lines_with(
            file.shipped_code(),
            |l| has_word(l, "GucSetting") || has_word(l, "GucRegistry"),
            "only guc.rs defines and reads settings",
        ),
        false => vec![],
    }
}

/// SQLSTATEs are chosen in one place, so that one kind of trouble has one code.
pub fn sqlstates_in_error(file: &Source) -> Complaints {
    match file.is_rust() && file.path.starts_with("src/") && file.path != "src/pg/error.rs" {
        true => lines_with(file.shipped_code(), |l| l.contains("ERRCODE_"), "only pg/error.rs chooses SQLSTATEs"),
        false => vec![],
    }
}

/// Tables are written in one place.
pub fn writes_in_store(file: &Source) -> Complaints {
    const WRITES: [&str; 4] = ["insert into indexpilot.", "update indexpilot.", "delete from indexpilot.", "truncate indexpilot."];
    match file.is_rust() && file.path.starts_with("src/") && file.module() != Some("store") {
        true => {
            let wrong = |l: &str| WRITES.iter().any(|w| l.to_lowercase().contains(w));
            lines_with(file.shipped_bare(), wrong, "only store writes IndexPilot's tables")
        }
        false => vec![],
    }
}

/// DDL is issued in one place.
pub fn ddl_in_apply(file: &Source) -> Complaints {
    match file.is_rust() && file.path.starts_with("src/") && !["apply", "pg", "core"].contains(&file.module().unwrap_or_default()) {
        true => lines_with(file.shipped_code(), |l| has_word(l, "toplevel"), "only apply issues DDL"),
        false => vec![],
    }
}

/// A merge is finished when it is committed.
pub fn no_conflicts(file: &Source) -> Complaints {
    let marker = |l: &str| l.starts_with("<<<<<<< ") || l.starts_with(">>>>>>> ");
    lines_with(file.text.lines().enumerate(), marker, "left over from a merge")
}

/// What is committed says nothing of the machine that it was written on.
pub fn no_machine_paths(file: &Source) -> Complaints {
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    lines_with(file.text.lines().enumerate(), |l| paths.iter().any(|p| l.contains(p)), "a path of one machine")
}
