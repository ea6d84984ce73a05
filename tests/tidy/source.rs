//! The files of the project as the rules see them: which lines are tests, what is code, what is comment, what is text in quotes.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file of the project.
pub struct Source {
    /// Path from the top of the project, with `/`.
    pub path: String,
    pub text: String,
    /// The text of a Rust file with comments blanked, line by line the same.
    pub bare: String,
    /// The same with the contents of strings blanked too.
    pub code: String,
    /// Lines (from 0) that exist for tests only.
    tests: Vec<Range<usize>>,
    /// The whole file exists for tests only.
    pub test_file: bool,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let (bare, code) = if path.ends_with(".rs") { mask(text) } else { (text.to_owned(), text.to_owned()) };
        let tests = test_regions(&code);
        Source { path: path.to_owned(), text: text.to_owned(), bare, code, tests, test_file: false }
    }

    /// True when line `at` (from 0) is code that ends up in the product.
    pub fn ships(&self, at: usize) -> bool {
        !self.test_file && !self.tests.iter().any(|r| r.contains(&at))
    }

    /// Number (from 0) and code of the lines that end up in the product.
    pub fn shipped_code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().filter(|(at, _)| self.ships(*at))
    }

    /// The same with strings left as they are.
    pub fn shipped_bare(&self) -> impl Iterator<Item = (usize, &str)> {
        self.bare.lines().enumerate().filter(|(at, _)| self.ships(*at))
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The directory or file directly below `src`: `pg`, `worker`, `guc`, `lib`, ...
    pub fn module(&self) -> Option<&str> {
        self.path.strip_prefix("src/").map(|rest| rest.split('/').next().unwrap_or(rest).trim_end_matches(".rs"))
    }
}

/// Every text file of the project, sorted by path.
pub fn project() -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut paths = Vec::new();
    walk(&top, &mut paths);
    let mut sources: Vec<Source> = paths
        .iter()
        .filter_map(|path| {
            let relative = path.strip_prefix(&top).ok()?.to_str()?.to_owned();
            Some(Source::new(&relative, &fs::read_to_string(path).ok()?))
        })
        .collect();
    let test_files: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        source.test_file |=
            test_files.contains(&source.path) || test_files.iter().any(|t| source.path.starts_with(&format!("{t}/")));
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.iter().any(|s| s.path == "src/lib.rs"), "the project was not found in {}", top.display());
    sources
}

fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
    // What git does not know (see .gitignore) is not of the project.
    const SKIPPED: [&str; 5] = ["target", ".git", "results", "output_iso", "node_modules"];
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if SKIPPED.iter().any(|s| name == *s) || name.to_string_lossy().starts_with("regression.") || path.is_symlink() {
            continue;
        }
        if path.is_dir() { walk(&path, into) } else { into.push(path) }
    }
}

/// Files and directories that a `#[cfg(test)] mod name;` of this file brings in.
fn test_modules(source: &Source) -> Vec<String> {
    let Some((dir, file)) = source.path.rsplit_once('/') else { return Vec::new() };
    let home = if ["mod.rs", "lib.rs", "main.rs"].contains(&file) {
        dir.to_owned()
    } else {
        format!("{dir}/{}", file.trim_end_matches(".rs"))
    };
    let lines: Vec<&str> = source.bare.lines().collect();
    let mut found = Vec::new();
    for region in &source.tests {
        let last = lines[region.end - 1].trim();
        let Some(name) = last.strip_suffix(';').and_then(|l| l.rsplit_once("mod ")).map(|(_, name)| name) else { continue };
        let given = lines[region.clone()].iter().find_map(|l| l.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"));
        match given {
            Some(path) => found.push(format!("{dir}/{path}")),
            None => found.extend([format!("{home}/{name}.rs"), format!("{home}/{name}")]),
        }
    }
    found
}

/// Line ranges of the items under `#[cfg(test)]` or `#[cfg(any(test, ...))]`. Relies on rustfmt: an item that opens a brace ends at
/// the next line that closes one at the same indentation.
fn test_regions(code: &str) -> Vec<Range<usize>> {
    let lines: Vec<&str> = code.lines().collect();
    let mut regions = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim();
        if !(line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(any(test,")) {
            at += 1;
            continue;
        }
        let start = at;
        let indent = lines[at].len() - lines[at].trim_start().len();
        at += 1;
        while at < lines.len() && (lines[at].trim().starts_with("#[") || lines[at].trim().is_empty()) {
            at += 1;
        }
        let closing = |l: &str| l.len() - l.trim_start().len() == indent && l.trim_start().starts_with('}');
        let whole = |l: &str| l.trim_end().ends_with(';') || (l.contains('{') && l.trim_end().ends_with('}'));
        while at < lines.len()
            && !closing(lines[at])
            && !(whole(lines[at]) && lines[at].len() - lines[at].trim_start().len() == indent)
        {
            at += 1;
        }
        at = (at + 1).min(lines.len());
        regions.push(start..at);
    }
    regions
}

/// Blanks comments (first result), and also what stands in quotes (second), keeping lines and columns.
fn mask(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut bare, mut code) = (chars.clone(), chars.clone());
    let blank = |out: &mut Vec<char>, range: Range<usize>| out[range].iter_mut().filter(|c| **c != '\n').for_each(|c| *c = ' ');
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let end = match rest {
            ['/', '/', ..] => at + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => at + rest.windows(2).position(|w| w == ['*', '/']).map_or(rest.len(), |p| p + 2),
            ['"', ..] => string_end(&chars, at),
            ['r', '"' | '#', ..] if at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' || chars[at - 1] == 'c' => {
                match raw_string_end(&chars, at) {
                    Some(end) => end,
                    None => {
                        at += 1;
                        continue;
                    }
                }
            }
            // A character, not a lifetime.
            ['\'', '\\', _, ..] => at + 3 + rest[3..].iter().position(|c| *c == '\'').unwrap_or(0),
            ['\'', _, '\'', ..] => at + 2,
            _ => {
                at += 1;
                continue;
            }
        };
        let end = end.min(chars.len());
        blank(&mut code, at..end);
        if rest[0] == '/' {
            blank(&mut bare, at..end);
        }
        at = end.max(at + 1);
    }
    (bare.into_iter().collect(), code.into_iter().collect())
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return None;
    }
    let mut at = start + 2 + hashes;
    while at < chars.len() {
        if chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(at)
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// True when `word` stands in `line` as a word of its own.
pub fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_word) && !line[at + word.len()..].chars().next().is_some_and(is_word)
    })
}
