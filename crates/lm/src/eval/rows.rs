//! Rows of evaluation files, with their places in messages.

use std::fmt::Display;

use serde_json::Value;

use super::MeasureError;

/// The rows of JSON lines with their numbers, counted from one; blank lines are passed over. `file` is the name in
/// messages.
///
/// # Errors
/// [`MeasureError::Row`] for the first line that is no JSON object.
pub fn json_lines(text: &str, file: &str) -> Result<Vec<(usize, Value)>, MeasureError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(i, l)| {
            let row = |reason| MeasureError::Row { file: file.to_owned(), line: i + 1, reason };
            let value: Value = serde_json::from_str(l)
                .map_err(|e| row(format!("no JSON: {} (column {})", bare(&e), e.column())))?;
            if value.is_object() { Ok((i + 1, value)) } else { Err(row("no JSON object".to_owned())) }
        })
        .collect()
}

/// Reads every row by `parse`, which says what is wrong with one.
///
/// # Errors
/// [`MeasureError::Row`] for the first row that `parse` refuses, [`MeasureError::Empty`] without rows.
pub fn read<T, E: Display>(
    rows: Vec<(usize, Value)>,
    file: &str,
    mut parse: impl FnMut(Value) -> Result<T, E>,
) -> Result<Vec<T>, MeasureError> {
    if rows.is_empty() {
        return Err(MeasureError::Empty { file: file.to_owned() });
    }
    let read = |(line, row)| {
        parse(row).map_err(|e| MeasureError::Row { file: file.to_owned(), line, reason: e.to_string() })
    };
    rows.into_iter().map(read).collect()
}

/// The message without the place, which is that within the line.
fn bare(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn rows_keep_their_numbers_and_bad_ones_are_named() {
        let rows = json_lines("\u{feff}{\"a\":1}\r\n\n {\"a\":2}\n", "x.jsonl").unwrap();
        assert_eq!(rows.iter().map(|r| r.0).collect::<Vec<_>>(), [1, 3]);
        let a = |v: Value| v["a"].as_i64().filter(|a| *a < 2).ok_or("a is too large");
        let e = read(rows, "x.jsonl", a).unwrap_err().to_string();
        assert_eq!(e, "x.jsonl, line 3: a is too large");
        let e = json_lines("{}\n[1]", "x.jsonl").unwrap_err().to_string();
        assert_eq!(e, "x.jsonl, line 2: no JSON object");
        let e = json_lines("{}\n{\"a\":", "x.jsonl").unwrap_err().to_string();
        assert!(e.starts_with("x.jsonl, line 2: no JSON: EOF") && e.ends_with("(column 5)"), "{e}");
        let e = read(Vec::new(), "x.parquet", Ok::<_, String>).unwrap_err().to_string();
        assert_eq!(e, "x.parquet is empty: it has no row to evaluate on");
    }
}
