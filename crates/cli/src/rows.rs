//! Conversations from files: JSON lines, also packed by gzip, or Parquet by the ending of the name.

use std::path::Path;

use clap::ValueEnum;
use rhumb_io::parquet::ParquetRows;
use rhumb_lm::data::{DataError, KEYS, Records, Row, RowFormat, Rows, is_parquet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, open_packed};
use crate::lm::from_io;

/// How rows are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// By the keys of each row.
    #[default]
    Auto,
    /// `messages` of role and content.
    Messages,
    /// `conversations` of from and value.
    Sharegpt,
    /// `instruction`, `input`, `output`, `system`, `history`.
    Alpaca,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `text`, trained as a whole.
    Text,
}

impl From<Format> for Option<RowFormat> {
    fn from(f: Format) -> Self {
        match f {
            Format::Auto => None,
            Format::Messages => Some(RowFormat::Messages),
            Format::Sharegpt => Some(RowFormat::ShareGpt),
            Format::Alpaca => Some(RowFormat::Alpaca),
            Format::PromptCompletion => Some(RowFormat::PromptCompletion),
            Format::Text => Some(RowFormat::Text),
        }
    }
}

/// Conversations one after another.
pub(crate) type Conversations = Box<dyn Iterator<Item = Result<Row, DataError>>>;

/// Opens a file; its rows are read as they are asked for.
pub(crate) fn open(path: &Path, format: Format) -> Result<Conversations, Failure> {
    let name = path.display().to_string();
    let format = Option::<RowFormat>::from(format);
    if is_parquet(&name) {
        let table = ParquetRows::open(path).map_err(from_io)?;
        fits(&table.columns(), format, &name)?;
        let table = table.select(&KEYS).map_err(from_io)?;
        return Ok(Box::new(Records::new(table, name, format)));
    }
    Ok(Box::new(Rows::new(open_packed(path)?, name).with_format(format)))
}

/// What a file of this name counts.
pub(crate) fn unit(name: &str) -> &'static str {
    if is_parquet(name) { "row" } else { "line" }
}

/// Refuses a table no row of which can be a conversation. Where columns fit several formats, nulls may decide row by
/// row.
fn fits(columns: &[String], format: Option<RowFormat>, name: &str) -> Result<(), Failure> {
    let has = |f: &RowFormat| f.needs().iter().all(|k| columns.iter().any(|c| c == k));
    let asked: Vec<RowFormat> = format.map_or(RowFormat::ALL.to_vec(), |f| vec![f]);
    if asked.iter().any(has) {
        return Ok(());
    }
    let wanted: Vec<String> = asked.iter().map(|f| f.needs().join(" and ")).collect();
    Err(Failure::usage(format!(
        "{name} has the columns {}, which are no conversations: {} are needed; rename the columns, or write JSON lines",
        columns.join(", "),
        wanted.join(", or ")
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_table_of_other_columns_is_refused_with_their_names() {
        let columns = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert!(fits(&columns(&["id", "instruction", "output"]), None, "a.parquet").is_ok());
        let e = fits(&columns(&["image", "label"]), None, "a.parquet").unwrap_err().to_string();
        assert!(
            e.starts_with("a.parquet has the columns image, label, which") && e.contains("or text are"),
            "{e}"
        );
        let e = fits(&columns(&["text"]), Some(RowFormat::Alpaca), "a.parquet").unwrap_err().to_string();
        assert!(e.contains("instruction and output are needed"), "{e}");
    }
}
