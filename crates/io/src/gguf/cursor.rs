use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::value::{Array, Value};
use crate::IoError;

/// Deep enough for every known file; a limit keeps hostile ones from exhausting the stack.
const MAX_NESTING: u32 = 8;

/// A forward reader that knows how much of the file is left.
pub(super) struct Cursor {
    input: BufReader<File>,
    path: PathBuf,
    at: u64,
    size: u64,
}

macro_rules! number {
    ($name:ident, $type:ty) => {
        pub(super) fn $name(&mut self, what: &str) -> Result<$type, IoError> {
            let mut bytes = [0; size_of::<$type>()];
            self.fill(&mut bytes, what)?;
            Ok(<$type>::from_le_bytes(bytes))
        }
    };
}

macro_rules! numbers {
    ($cursor:expr, $count:expr, $what:expr, $variant:ident, $type:ty) => {{
        const WIDTH: usize = size_of::<$type>();
        let bytes = $cursor.bytes($count, WIDTH as u64, $what)?;
        let (chunks, _) = bytes.as_chunks::<WIDTH>();
        Array::$variant(chunks.iter().map(|&b| <$type>::from_le_bytes(b)).collect())
    }};
}

impl Cursor {
    pub(super) fn new(file: File, path: &Path, size: u64) -> Self {
        Cursor { input: BufReader::with_capacity(1 << 18, file), path: path.to_owned(), at: 0, size }
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    number!(u8, u8);
    number!(i8, i8);
    number!(u16, u16);
    number!(i16, i16);
    number!(u32, u32);
    number!(i32, i32);
    number!(f32, f32);
    number!(u64, u64);
    number!(i64, i64);
    number!(f64, f64);

    pub(super) fn fill(&mut self, out: &mut [u8], what: &str) -> Result<(), IoError> {
        self.demand(out.len() as u64, what)?;
        self.input.read_exact(out).map_err(|e| IoError::io("read", &self.path, e))?;
        self.at += out.len() as u64;
        Ok(())
    }

    /// A count of things that take at least `least` bytes each, refused when the file cannot hold them.
    pub(super) fn count(&mut self, least: u64, what: &str) -> Result<usize, IoError> {
        let at = self.at;
        let count = self.u64(what)?;
        let left = self.size - self.at;
        if count.checked_mul(least).is_none_or(|bytes| bytes > left) {
            let what = format!("{what} is {count}, but only {left} bytes follow");
            return Err(IoError::malformed(&self.path, at, what));
        }
        usize::try_from(count).map_err(|_| IoError::malformed(&self.path, at, format!("{what} is {count}")))
    }

    pub(super) fn string(&mut self, what: &str) -> Result<String, IoError> {
        let length = self.count(1, what)?;
        let at = self.at;
        let bytes = self.bytes(length, 1, what)?;
        String::from_utf8(bytes)
            .map_err(|_| IoError::malformed(&self.path, at, format!("{what} is not valid UTF-8")))
    }

    pub(super) fn value(&mut self, what: &str) -> Result<Value, IoError> {
        let at = self.at;
        Ok(match self.u32(what)? {
            0 => Value::U8(self.u8(what)?),
            1 => Value::I8(self.i8(what)?),
            2 => Value::U16(self.u16(what)?),
            3 => Value::I16(self.i16(what)?),
            4 => Value::U32(self.u32(what)?),
            5 => Value::I32(self.i32(what)?),
            6 => Value::F32(self.f32(what)?),
            7 => Value::Bool(self.u8(what)? != 0),
            8 => Value::String(self.string(what)?),
            9 => Value::Array(self.array(what, 0)?),
            10 => Value::U64(self.u64(what)?),
            11 => Value::I64(self.i64(what)?),
            12 => Value::F64(self.f64(what)?),
            tag => return Err(self.unknown_tag(at, what, tag)),
        })
    }

    fn array(&mut self, what: &str, depth: u32) -> Result<Array, IoError> {
        let at = self.at;
        if depth == MAX_NESTING {
            let what = format!("{what} nests arrays more than {MAX_NESTING} deep");
            return Err(IoError::malformed(&self.path, at, what));
        }
        let tag = self.u32(what)?;
        let least = match tag {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            _ => return Err(self.unknown_tag(at, what, tag)),
        };
        let n = self.count(least, what)?;
        Ok(match tag {
            0 => numbers!(self, n, what, U8, u8),
            1 => numbers!(self, n, what, I8, i8),
            2 => numbers!(self, n, what, U16, u16),
            3 => numbers!(self, n, what, I16, i16),
            4 => numbers!(self, n, what, U32, u32),
            5 => numbers!(self, n, what, I32, i32),
            6 => numbers!(self, n, what, F32, f32),
            7 => Array::Bool(self.bytes(n, 1, what)?.into_iter().map(|b| b != 0).collect()),
            8 => Array::String((0..n).map(|_| self.string(what)).collect::<Result<_, _>>()?),
            9 => Array::Array((0..n).map(|_| self.array(what, depth + 1)).collect::<Result<_, _>>()?),
            10 => numbers!(self, n, what, U64, u64),
            11 => numbers!(self, n, what, I64, i64),
            _ => numbers!(self, n, what, F64, f64),
        })
    }

    /// `count * width` bytes, whose number [`Cursor::count`] has already compared with the file.
    fn bytes(&mut self, count: usize, width: u64, what: &str) -> Result<Vec<u8>, IoError> {
        let needed = count as u64 * width;
        self.demand(needed, what)?;
        let mut bytes = vec![0; needed as usize];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn demand(&self, needed: u64, what: &str) -> Result<(), IoError> {
        if needed > self.size - self.at {
            return Err(IoError::Truncated {
                path: self.path.clone(),
                what: what.to_owned(),
                at: self.at,
                needed,
                size: self.size,
            });
        }
        Ok(())
    }

    fn unknown_tag(&self, at: u64, what: &str, tag: u32) -> IoError {
        IoError::malformed(&self.path, at, format!("{what} has the unknown value type {tag} (0 to 12 exist)"))
    }
}
