//! Plain tables for a terminal.

use serde::{Deserialize, Serialize};

/// A table: a heading and rows of text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    /// Names of the columns.
    pub(crate) header: Vec<String>,
    /// Rows, as long as the heading.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Table { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells stay empty, further ones are dropped.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).collect();
        row.resize(self.header.len(), String::new());
        self.rows.push(row);
        self
    }

    /// Whether a column holds numbers only and is therefore aligned at its right.
    pub(crate) fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().map(|r| r[column].as_str()).filter(|c| !c.is_empty()).peekable();
        cells.peek().is_some()
            && cells.all(|c| {
                let first = c.trim_start_matches(['-', '+', '−']);
                first.starts_with(|d: char| d.is_ascii_digit()) || c == "–"
            })
    }

    /// Aligned columns, two spaces apart.
    pub(crate) fn render(&self) -> String {
        let all = || std::iter::once(&self.header).chain(&self.rows);
        let width: Vec<usize> =
            (0..self.header.len()).map(|j| all().map(|r| r[j].chars().count()).max().unwrap_or(0)).collect();
        let mut out = String::new();
        for row in all() {
            let mut line = String::new();
            for (j, cell) in row.iter().enumerate() {
                let pad = " ".repeat(width[j] - cell.chars().count());
                let (left, right) = if self.is_numeric(j) { (pad.as_str(), "") } else { ("", pad.as_str()) };
                line.push_str(left);
                line.push_str(cell);
                line.push_str(right);
                line.push_str("  ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A number for people: at most six significant digits.
pub(crate) fn number(x: f64) -> String {
    let size = x.abs();
    if !x.is_finite() || x == 0.0 {
        return x.to_string();
    }
    if (1e-4..1e15).contains(&size) {
        let decimals = (5.0 - size.log10().floor()).clamp(0.0, 9.0) as usize;
        let text = format!("{x:.decimals$}");
        if text.contains('.') {
            return text.trim_end_matches('0').trim_end_matches('.').to_owned();
        }
        return text;
    }
    format!("{x:.3e}")
}

/// Bytes for people, in powers of ten as the papers count them.
pub(crate) fn bytes(n: u64) -> String {
    let x = n as f64;
    // No machine has as much; a longer number would look like a measured one.
    if x >= 1e18 {
        return "more than 10^18 B".to_owned();
    }
    for (unit, size) in [("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)] {
        if x >= size {
            return format!("{:.4} {unit}", x / size);
        }
    }
    format!("{n} B")
}

/// Seconds for people.
pub(crate) fn seconds(s: f64) -> String {
    if s < 1.0 {
        format!("{:.0} ms", s * 1e3)
    } else if s < 120.0 {
        format!("{s:.1} s")
    } else {
        // A cast saturates, so that an absurd value stays a number.
        let whole = s.round() as u64;
        if whole < 3600 {
            format!("{} min {:02} s", whole / 60, whole % 60)
        } else {
            format!("{} h {:02} min", whole / 3600, whole / 60 % 60)
        }
    }
}

/// A number with its noun, `1 step` or `3 steps`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_right_and_words_left() {
        let mut t = Table::new(["name", "value"]);
        t.row(["a", "1"]).row(["long", "-22.5"]);
        assert_eq!(t.render(), "name  value\na         1\nlong  -22.5\n");
    }

    #[test]
    fn short_rows_are_filled_and_long_ones_cut() {
        let mut t = Table::new(["a", "b"]);
        t.row(["x"]).row(["x", "y", "z"]);
        assert_eq!(t.rows, [["x", ""], ["x", "y"]]);
    }

    #[test]
    fn numbers_keep_six_digits_without_trailing_zeros() {
        let cases = [
            (0.497_774_5, "0.497775"),
            (2.5, "2.5"),
            (124_373_760.0, "124373760"),
            (1e-7, "1.000e-7"),
            (0.0, "0"),
            (100.0, "100"),
            (f64::NAN, "NaN"),
        ];
        for (x, want) in cases {
            assert_eq!(number(x), want);
        }
        assert_eq!(bytes(497_955_560), "497.9556 MB");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(bytes(3_500_000_000_000), "3.5000 TB");
        assert_eq!(bytes(u64::MAX), "more than 10^18 B");
    }

    #[test]
    fn times_and_counts_are_told_as_people_say_them() {
        let cases = [
            (0.25, "250 ms"),
            (119.94, "119.9 s"),
            (205.0, "3 min 25 s"),
            (3599.6, "1 h 00 min"),
            (7500.0, "2 h 05 min"),
        ];
        for (s, want) in cases {
            assert_eq!(seconds(s), want);
        }
        assert_eq!((counted(1, "step"), counted(0, "step")), ("1 step".into(), "0 steps".into()));
    }
}
