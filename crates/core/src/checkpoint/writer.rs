use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use rhumb_linalg::Real;
use serde::Serialize;

use super::{CheckpointError, MAGIC, VERSION};

/// Writes named sections one after another; nothing is held in memory but the names.
pub struct StateWriter<'a> {
    out: &'a mut dyn Write,
    path: PathBuf,
    scope: String,
    names: BTreeSet<String>,
}

impl<'a> StateWriter<'a> {
    /// A writer into `out`, with the head already written; `path` is used in messages only.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn new(out: &'a mut dyn Write, path: &Path) -> Result<Self, CheckpointError> {
        let mut w = StateWriter { out, path: path.to_owned(), scope: String::new(), names: BTreeSet::new() };
        w.raw(MAGIC)?;
        w.raw(&VERSION.to_le_bytes())?;
        Ok(w)
    }

    /// Writes a section of bytes.
    ///
    /// # Errors
    /// [`CheckpointError::Io`], or [`CheckpointError::Mismatch`] for a name written twice or too long.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let crc = self.head(name, bytes.len())?;
        self.raw(bytes)?;
        self.raw(&crc32c::crc32c_append(crc, bytes).to_le_bytes())
    }

    /// Writes a section of text.
    ///
    /// # Errors
    /// See [`StateWriter::put`].
    pub fn put_text(&mut self, name: &str, text: &str) -> Result<(), CheckpointError> {
        self.put(name, text.as_bytes())
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// See [`StateWriter::put`]; also when the value has no JSON form.
    pub fn put_json<V: Serialize>(&mut self, name: &str, value: &V) -> Result<(), CheckpointError> {
        let text = serde_json::to_vec(value).map_err(|e| {
            CheckpointError::Mismatch(format!("section {name} cannot be written as JSON: {e}"))
        })?;
        self.put(name, &text)
    }

    /// Writes scalars, bit for bit.
    ///
    /// # Errors
    /// See [`StateWriter::put`].
    pub fn put_reals<T: Real>(&mut self, name: &str, values: &[T]) -> Result<(), CheckpointError> {
        let mut crc = self.head(name, values.len() * T::BYTES)?;
        let mut buffer = Vec::with_capacity(8 * 4096);
        for chunk in values.chunks(4096) {
            buffer.clear();
            for v in chunk {
                if T::BYTES == 4 {
                    buffer.extend_from_slice(&(v.f64() as f32).to_le_bytes());
                } else {
                    buffer.extend_from_slice(&v.f64().to_le_bytes());
                }
            }
            crc = crc32c::crc32c_append(crc, &buffer);
            self.raw(&buffer)?;
        }
        self.raw(&crc.to_le_bytes())
    }

    /// Runs `f` with every section name prefixed by `name/`.
    ///
    /// # Errors
    /// What `f` returns.
    pub fn scope<R>(
        &mut self,
        name: &str,
        f: impl FnOnce(&mut Self) -> Result<R, CheckpointError>,
    ) -> Result<R, CheckpointError> {
        let outer = self.scope.len();
        self.scope.push_str(name);
        self.scope.push('/');
        let result = f(self);
        self.scope.truncate(outer);
        result
    }

    /// Writes the end mark. Without it the file reads as cut off.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn finish(mut self) -> Result<(), CheckpointError> {
        let count = (self.names.len() as u64).to_le_bytes();
        self.raw(&[0])?;
        self.raw(&count)?;
        self.raw(&crc32c::crc32c(&count).to_le_bytes())
    }

    fn head(&mut self, name: &str, len: usize) -> Result<u32, CheckpointError> {
        let full = format!("{}{name}", self.scope);
        let size = u16::try_from(full.len()).map_err(|_| {
            CheckpointError::Mismatch(format!(
                "section name of {} bytes is too long: shorten the tensor name {full:.60}",
                full.len()
            ))
        })?;
        if !self.names.insert(full.clone()) {
            return Err(CheckpointError::Mismatch(format!(
                "section {full} is written twice: give the second one a scope of its own"
            )));
        }
        let length = (len as u64).to_le_bytes();
        self.raw(&[1])?;
        self.raw(&size.to_le_bytes())?;
        self.raw(full.as_bytes())?;
        self.raw(&length)?;
        Ok(crc32c::crc32c_append(crc32c::crc32c(full.as_bytes()), &length))
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.out.write_all(bytes).map_err(|e| CheckpointError::io("write", &self.path, e))
    }
}
