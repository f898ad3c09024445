//! Parquet: tables by columns, as data sets of the Hugging Face Hub are kept.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::{ReaderIter, TreeBuilder};
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, Type};
use serde_json::{Map, Value};

use super::IoError;

const MAGIC: &[u8; 4] = b"PAR1";

/// The rows of a Parquet file as JSON objects, in the order of the file.
///
/// Nested columns become lists and objects; a null inside a structure becomes an absent key, since a structure of a
/// table has every key in every row. Bytes have to be UTF-8. Dates, times and decimals become text. Pages may be
/// stored or compressed by Snappy, gzip or Zstandard.
///
/// # Cost
/// Pages are decoded as rows are read: one page and one dictionary per column are in memory. Columns that are not
/// selected are not read.
///
/// # Errors
/// An iterator ends after its first error, which names the row, counted from one.
pub struct ParquetRows {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    schema: SchemaDescPtr,
    group: usize,
    rows: Option<ReaderIter>,
    row: usize,
    done: bool,
}

impl ParquetRows {
    /// Opens a file and reads its schema.
    ///
    /// # Errors
    /// [`IoError`] for a file that cannot be read or is no Parquet file.
    pub fn open(path: &Path) -> Result<Self, IoError> {
        let mut file = File::open(path).map_err(|e| IoError::io("open", path, e))?;
        let mut magic = Vec::new();
        Read::by_ref(&mut file)
            .take(MAGIC.len() as u64)
            .read_to_end(&mut magic)
            .and_then(|_| file.rewind())
            .map_err(|e| IoError::io("read", path, e))?;
        if magic != MAGIC {
            let found = format!("{:?}", String::from_utf8_lossy(&magic));
            return Err(IoError::Foreign { path: path.to_owned(), expected: "Parquet", found });
        }
        let size = file.metadata().map_or(0, |m| m.len());
        let reader = SerializedFileReader::new(file)
            .map_err(|e| IoError::malformed(path, size, format!("the table of its columns: {}", told(&e))))?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        Ok(ParquetRows { path: path.to_owned(), reader, schema, group: 0, rows: None, row: 0, done: false })
    }

    /// Names of the columns that are read.
    pub fn columns(&self) -> Vec<String> {
        self.schema.root_schema().get_fields().iter().map(|f| f.name().to_owned()).collect()
    }

    /// Rows of the file.
    pub fn len(&self) -> u64 {
        u64::try_from(self.reader.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// True without any row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads only the columns of these names; names that the file does not have are ignored.
    ///
    /// # Errors
    /// [`IoError`] when none is left.
    pub fn select(mut self, columns: &[&str]) -> Result<Self, IoError> {
        let root = self.schema.root_schema();
        let fields: Vec<_> =
            root.get_fields().iter().filter(|f| columns.contains(&f.name())).map(Arc::clone).collect();
        let what = format!("has the columns {}, none of {}", self.columns().join(", "), columns.join(", "));
        if fields.is_empty() {
            return Err(IoError::Missing { path: self.path, what });
        }
        let part = Type::group_type_builder(root.name())
            .with_fields(fields)
            .build()
            .map_err(|e| IoError::malformed(&self.path, 0, told(&e)))?;
        self.schema = Arc::new(SchemaDescriptor::new(Arc::new(part)));
        Ok(self)
    }

    /// The next row as the file has it; row groups without rows are passed over.
    fn read(&mut self) -> Result<Option<Row>, ParquetError> {
        loop {
            if let Some(row) = self.rows.as_mut().and_then(Iterator::next) {
                return row.map(Some);
            }
            if self.group == self.reader.num_row_groups() {
                return Ok(None);
            }
            let group = self.reader.get_row_group(self.group)?;
            self.group += 1;
            self.rows = Some(TreeBuilder::new().as_iter(Arc::clone(&self.schema), &*group)?);
        }
    }
}

impl Iterator for ParquetRows {
    type Item = Result<Map<String, Value>, IoError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let read = self.read().map_err(|e| told(&e)).transpose()?;
        self.row += 1;
        let row = read.and_then(|row| object(&row));
        self.done = row.is_err();
        Some(row.map_err(|what| IoError::Row { path: self.path.clone(), row: self.row, what }))
    }
}

fn object(row: &Row) -> Result<Map<String, Value>, String> {
    let mut out = Map::new();
    for (name, field) in row.get_column_iter() {
        match value(field).map_err(|what| format!("column {name}: {what}"))? {
            Value::Null => {}
            value => {
                out.insert(name.clone(), value);
            }
        }
    }
    Ok(out)
}

fn value(field: &Field) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(b) => (*b).into(),
        Field::Byte(n) => (*n).into(),
        Field::Short(n) => (*n).into(),
        Field::Int(n) => (*n).into(),
        Field::Long(n) => (*n).into(),
        Field::UByte(n) => (*n).into(),
        Field::UShort(n) => (*n).into(),
        Field::UInt(n) => (*n).into(),
        Field::ULong(n) => (*n).into(),
        Field::Float(x) => (*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Str(s) => s.as_str().into(),
        Field::Bytes(b) => match std::str::from_utf8(b.data()) {
            Ok(text) => text.into(),
            Err(e) => return Err(format!("bytes that are not UTF-8 from byte {}", e.valid_up_to() + 1)),
        },
        Field::Group(row) => Value::Object(object(row)?),
        Field::ListInternal(list) => {
            list.elements().iter().map(value).collect::<Result<Vec<_>, _>>().map(Value::Array)?
        }
        Field::MapInternal(map) => {
            let pairs = map.entries().iter().map(|(k, v)| {
                let key = value(k)?;
                Ok((key.as_str().map_or_else(|| key.to_string(), str::to_owned), value(v)?))
            });
            Value::Object(pairs.collect::<Result<_, String>>()?)
        }
        other => other.to_string().into(),
    })
}

/// What the reader says, without its own name in front.
fn told(e: &ParquetError) -> String {
    let text = e.to_string();
    text.strip_prefix("Parquet error: ").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests;
