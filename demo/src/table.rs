//! Prints tables: columns as wide as they must be, long ones wrapped to the width of the terminal.

/// Which way a column leans.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Align {
    Left,
    Right,
}

/// A table in the making. Columns that lean left may hold sentences.
pub struct Table {
    heads: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A head that begins with `>` belongs to a column that leans right.
    pub fn new(heads: &[&'static str]) -> Self {
        let heads = heads.iter().map(|h| h.strip_prefix('>').map_or((*h, Align::Left), |h| (h, Align::Right))).collect();
        Table { heads, rows: Vec::new() }
    }

    /// Missing cells stay empty, surplus ones are left out.
    pub fn row(&mut self, mut cells: Vec<String>) {
        cells.resize(self.heads.len(), String::new());
        self.rows.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, no wider than asked for unless its words are too long.
    pub fn render(&self, width: usize) -> String {
        let widths = self.widths(width);
        let mut out = String::new();
        let heads: Vec<String> = self.heads.iter().map(|(h, _)| (*h).to_owned()).collect();
        self.line(&mut out, &heads, &widths);
        let rules: Vec<String> = widths.iter().map(|w| "─".repeat(*w)).collect();
        self.line(&mut out, &rules, &widths);
        for row in &self.rows {
            let wrapped: Vec<Vec<String>> = row.iter().zip(&widths).map(|(cell, w)| wrap(cell, *w)).collect();
            for n in 0..wrapped.iter().map(Vec::len).max().unwrap_or(0) {
                let cells: Vec<String> = wrapped.iter().map(|lines| lines.get(n).cloned().unwrap_or_default()).collect();
                self.line(&mut out, &cells, &widths);
            }
        }
        out
    }

    /// Width of each column: what its cells need, less what the widest ones must give up, but never less than their longest word.
    fn widths(&self, width: usize) -> Vec<usize> {
        let cells = |column: usize| {
            let of_rows = self.rows.iter().filter_map(move |row| row.get(column).map(String::as_str));
            std::iter::once(self.heads[column].0).chain(of_rows)
        };
        let columns = 0..self.heads.len();
        let mut widths: Vec<usize> = columns.clone().map(|c| cells(c).map(|t| t.chars().count()).max().unwrap_or(0)).collect();
        let least: Vec<usize> = columns
            .map(|c| match self.heads[c].1 {
                Align::Right => widths[c],
                Align::Left => cells(c).flat_map(str::split_whitespace).map(|w| w.chars().count()).max().unwrap_or(0),
            })
            .collect();
        while widths.iter().map(|w| w + 2).sum::<usize>() + 1 > width {
            let widest = (0..widths.len()).filter(|&c| widths[c] > least[c]).max_by_key(|&c| widths[c]);
            let Some(widest) = widest else { break };
            widths[widest] -= 1;
        }
        widths
    }

    fn line(&self, out: &mut String, cells: &[String], widths: &[usize]) {
        let mut line = String::from(" ");
        for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(&self.heads) {
            line.push_str(&match align {
                Align::Left => format!(" {cell:<width$} "),
                Align::Right => format!(" {cell:>width$} "),
            });
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Breaks text between words; a word that is longer than the width stays whole.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A duration in milliseconds, with three figures that matter; a dash when there is none.
pub fn ms(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(v) if v < 1.0 => format!("{v:.3}"),
        Some(v) if v < 10.0 => format!("{v:.2}"),
        Some(v) if v < 100.0 => format!("{v:.1}"),
        Some(v) => format!("{v:.0}"),
    }
}

/// A size in the unit that fits.
pub fn bytes(value: i64) -> String {
    match value as f64 {
        v if v < 1024.0 * 1024.0 => format!("{:.0} kB", v / 1024.0),
        v => format!("{:.1} MB", v / 1024.0 / 1024.0),
    }
}

/// A whole number in groups of three.
pub fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = if value <= -0.5 { "-".to_owned() } else { String::new() };
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(' ');
        }
        out.push(d);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_long_ones_wrap() {
        let mut table = Table::new(&["name", ">ms", "reason"]);
        table.row(vec!["a".into(), "12.5".into(), "one two three four five six seven".into()]);
        table.row(vec!["longer".into(), "3".into(), "x".into()]);
        let text = table.render(40);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "  name      ms  reason");
        assert_eq!(lines[2], "  a       12.5  one two three four five");
        assert_eq!(lines[3], "                six seven");
        assert_eq!(lines[4], "  longer     3  x");
    }

    #[test]
    fn figures() {
        assert_eq!(ms(Some(0.1234)), "0.123");
        assert_eq!(ms(Some(123.4)), "123");
        assert_eq!(ms(None), "–");
        assert_eq!(bytes(8192), "8 kB");
        assert_eq!(bytes(3 << 20), "3.0 MB");
        assert_eq!(grouped(1_234_567.0), "1 234 567");
        assert_eq!(grouped(-12.0), "-12");
    }
}
