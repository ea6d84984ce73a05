//! What the person at the terminal sees: headings and lines on standard output, progress bars on standard error.
//!
//! Where standard error is not a terminal, a bar becomes one plain line when it ends.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Starts a section.
pub fn heading(text: &str) {
    if std::io::stdout().is_terminal() {
        println!("\n\x1b[1m── {text} \x1b[0m");
    } else {
        println!("\n── {text}");
    }
}

/// Columns that the terminal has, as the shell says; wide enough for reasons otherwise.
pub fn width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(132).clamp(80, 220)
}

/// A bar for one step. Dropped without `done`, it vanishes.
pub struct Bar {
    bar: ProgressBar,
    label: String,
    started: Instant,
}

impl Bar {
    /// A bar over a known amount of work.
    pub fn new(label: &str, length: u64) -> Self {
        Self::with_style(
            label,
            ProgressBar::with_draw_target(Some(length), target()),
            "  {prefix:34} [{bar:32}] {percent:>3} % {msg}",
        )
    }

    /// For work of unknown length.
    pub fn spinner(label: &str) -> Self {
        Self::with_style(label, ProgressBar::with_draw_target(None, target()), "  {prefix:34} {spinner} {elapsed} {msg}")
    }

    fn with_style(label: &str, bar: ProgressBar, template: &str) -> Self {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar { bar, label: label.to_owned(), started: Instant::now() }
    }

    pub fn advance(&self, by: u64) {
        self.bar.inc(by);
    }

    pub fn at(&self, position: u64) {
        self.bar.set_position(position);
    }

    pub fn note(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    /// Ends the bar and leaves one line behind.
    pub fn done(self, text: &str) {
        self.bar.finish_and_clear();
        println!("  {:34} {:>6.1} s  {text}", self.label, self.started.elapsed().as_secs_f64());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}
