//! Rows of evaluation files: JSON lines, also packed by gzip, or Parquet by the ending of the name.

use std::path::Path;

use rhumb_io::parquet::ParquetRows;
use rhumb_lm::data::is_parquet;
use rhumb_lm::eval::{json_lines, read};
use serde_json::Value;

use super::options::Limit;
use crate::exit::{Failure, read_packed};
use crate::lm::from_io;

/// The first rows of a file, each read by `parse`.
pub(super) fn rows<T, E: std::fmt::Display>(
    path: &Path,
    limit: &Limit,
    parse: impl FnMut(Value) -> Result<T, E>,
) -> Result<Vec<T>, Failure> {
    let name = path.display().to_string();
    let mut rows = if is_parquet(&name) {
        let table = ParquetRows::open(path).map_err(from_io)?;
        let row = |(i, row): (usize, Result<_, _>)| Ok((i + 1, Value::Object(row.map_err(from_io)?)));
        table.take(limit.rows()).enumerate().map(row).collect::<Result<_, Failure>>()?
    } else {
        json_lines(&read_packed(path)?, &name)?
    };
    rows.truncate(limit.rows());
    Ok(read(rows, &name, parse)?)
}
