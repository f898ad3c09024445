use std::collections::BTreeMap;
use std::io::{BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rhumb_linalg::Real;
use serde::de::DeserializeOwned;

use super::{CheckpointError, MAGIC, VERSION};

/// A source that can be read twice: once to check, then section by section.
pub(crate) trait Source: Read + Seek + Send {}
impl<S: Read + Seek + Send> Source for S {}

/// Reads the sections of a checked checkpoint; only the section asked for is in memory.
pub struct StateReader {
    src: BufReader<Box<dyn Source>>,
    path: PathBuf,
    scope: String,
    index: BTreeMap<String, (u64, u64)>,
}

impl StateReader {
    pub(super) fn new(src: Box<dyn Source>, path: &Path) -> Result<Self, CheckpointError> {
        let mut r = StateReader {
            src: BufReader::with_capacity(1 << 18, src),
            path: path.to_owned(),
            scope: String::new(),
            index: BTreeMap::new(),
        };
        r.check()?;
        Ok(r)
    }

    /// A reader of bytes in memory; `path` is used in messages only.
    ///
    /// # Errors
    /// As [`super::open`].
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self, CheckpointError> {
        Self::new(Box::new(Cursor::new(bytes)), path)
    }

    /// The names of all sections, scopes included.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// True when the current scope has that section.
    pub fn has(&self, name: &str) -> bool {
        self.index.contains_key(&self.full(name))
    }

    /// The bytes of a section.
    ///
    /// # Errors
    /// [`CheckpointError::Section`] when it is absent.
    pub fn bytes(&mut self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let len = self.seek(name)?;
        let mut out = vec![0; len as usize];
        self.fill(&mut out, 0)?;
        Ok(out)
    }

    /// The text of a section.
    ///
    /// # Errors
    /// [`CheckpointError::Section`] when it is absent or no text.
    pub fn text(&mut self, name: &str) -> Result<String, CheckpointError> {
        let bytes = self.bytes(name)?;
        String::from_utf8(bytes).map_err(|_| self.section(name, "it is not text".to_owned()))
    }

    /// A value written as JSON.
    ///
    /// # Errors
    /// [`CheckpointError::Section`] when it is absent or of another type.
    pub fn json<V: DeserializeOwned>(&mut self, name: &str) -> Result<V, CheckpointError> {
        let bytes = self.bytes(name)?;
        serde_json::from_slice(&bytes).map_err(|e| self.section(name, format!("it does not parse: {e}")))
    }

    /// Overwrites `out` with the scalars of a section.
    ///
    /// # Errors
    /// [`CheckpointError::Section`] when it is absent or has another number of bytes.
    pub fn reals<T: Real>(&mut self, name: &str, out: &mut [T]) -> Result<(), CheckpointError> {
        let len = self.seek(name)?;
        let want = (out.len() * T::BYTES) as u64;
        if len != want {
            let what = format!("it has {len} bytes, {} {} values need {want}", out.len(), T::NAME);
            return Err(self.section(name, what));
        }
        let mut buffer = vec![0; 4096 * T::BYTES];
        for chunk in out.chunks_mut(4096) {
            let bytes = &mut buffer[..chunk.len() * T::BYTES];
            self.src.read_exact(bytes).map_err(|e| CheckpointError::io("read", &self.path, e))?;
            for (v, b) in chunk.iter_mut().zip(bytes.chunks_exact(T::BYTES)) {
                *v = match *b {
                    [a, b, c, d] => T::of(f32::from_le_bytes([a, b, c, d]).into()),
                    [a, b, c, d, e, f, g, h] => T::of(f64::from_le_bytes([a, b, c, d, e, f, g, h])),
                    _ => T::ZERO,
                };
            }
        }
        Ok(())
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

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.scope)
    }

    fn section(&self, name: &str, what: String) -> CheckpointError {
        CheckpointError::Section { path: self.path.clone(), section: self.full(name), what }
    }

    fn seek(&mut self, name: &str) -> Result<u64, CheckpointError> {
        let Some(&(at, len)) = self.index.get(&self.full(name)) else {
            return Err(self.section(name, "it is missing".to_owned()));
        };
        self.src.seek(SeekFrom::Start(at)).map_err(|e| CheckpointError::io("read", &self.path, e))?;
        Ok(len)
    }

    fn fill(&mut self, out: &mut [u8], at: u64) -> Result<(), CheckpointError> {
        self.src.read_exact(out).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => CheckpointError::Truncated { path: self.path.clone(), at },
            _ => CheckpointError::io("read", &self.path, e),
        })
    }

    /// Walks through the whole source once, so that no later read meets damaged bytes.
    fn check(&mut self) -> Result<(), CheckpointError> {
        let end = self.src.seek(SeekFrom::End(0)).map_err(|e| CheckpointError::io("read", &self.path, e))?;
        self.src.rewind().map_err(|e| CheckpointError::io("read", &self.path, e))?;
        let mut magic = [0; 8];
        if self.fill(&mut magic, end).is_err() || &magic != MAGIC {
            return Err(CheckpointError::Foreign { path: self.path.clone() });
        }
        let mut word = [0; 4];
        self.fill(&mut word, end)?;
        let found = u32::from_le_bytes(word);
        if found != VERSION {
            return Err(CheckpointError::Version { path: self.path.clone(), found, known: VERSION });
        }
        let mut at = 12;
        loop {
            let mut tag = [0; 1];
            self.fill(&mut tag, end)?;
            match tag[0] {
                0 => return self.check_end(at + 13, end),
                1 => at = self.check_section(at + 1, end)?,
                _ => return Err(self.corrupt(format!("the section mark at byte {at}"))),
            }
        }
    }

    fn check_section(&mut self, at: u64, end: u64) -> Result<u64, CheckpointError> {
        let mut size = [0; 2];
        self.fill(&mut size, end)?;
        let size = u16::from_le_bytes(size);
        let mut name = vec![0; usize::from(size)];
        self.fill(&mut name, end)?;
        let mut length = [0; 8];
        self.fill(&mut length, end)?;
        let len = u64::from_le_bytes(length);
        let data = at + 2 + u64::from(size) + 8;
        // A length that reaches past the end is a cut file or a damaged length; nothing of that size is read.
        let after = data.checked_add(len).and_then(|x| x.checked_add(4)).filter(|x| *x <= end);
        let Some(after) = after else {
            return Err(CheckpointError::Truncated { path: self.path.clone(), at: end });
        };
        let mut crc = crc32c::crc32c_append(crc32c::crc32c(&name), &length);
        let mut buffer = vec![0; 1 << 16];
        let mut left = len;
        while left > 0 {
            let n = left.min(buffer.len() as u64) as usize;
            self.fill(&mut buffer[..n], end)?;
            crc = crc32c::crc32c_append(crc, &buffer[..n]);
            left -= n as u64;
        }
        let mut stored = [0; 4];
        self.fill(&mut stored, end)?;
        let label = String::from_utf8_lossy(&name).into_owned();
        if u32::from_le_bytes(stored) != crc || self.index.insert(label.clone(), (data, len)).is_some() {
            return Err(self.corrupt(format!("section {label}")));
        }
        Ok(after)
    }

    fn check_end(&mut self, at: u64, end: u64) -> Result<(), CheckpointError> {
        let mut count = [0; 8];
        self.fill(&mut count, end)?;
        let mut stored = [0; 4];
        self.fill(&mut stored, end)?;
        let sections = u64::from_le_bytes(count);
        if u32::from_le_bytes(stored) != crc32c::crc32c(&count) || sections != self.index.len() as u64 {
            return Err(self.corrupt("the end mark".to_owned()));
        }
        if at != end {
            return Err(self.corrupt(format!("the bytes after the end mark (byte {at})")));
        }
        Ok(())
    }

    fn corrupt(&self, place: String) -> CheckpointError {
        CheckpointError::Corrupt { path: self.path.clone(), place }
    }
}
