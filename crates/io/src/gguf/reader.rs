use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::block::{GgmlType, dequantize};
use super::cursor::Cursor;
use super::value::{Metadata, Value};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, VERSION};
use crate::IoError;
use crate::TensorData;
use rhumb_nn::model::elements;

/// Where a tensor lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Slowest dimension first (GGUF stores them the other way round).
    pub shape: Vec<usize>,
    /// How it is stored.
    pub dtype: GgmlType,
    /// First byte, from the start of the file.
    pub at: u64,
    /// Bytes in the file.
    pub bytes: u64,
}

/// An open GGUF file whose head has been read and checked.
#[derive(Debug)]
pub struct GgufFile {
    file: File,
    path: PathBuf,
    metadata: Metadata,
    tensors: IndexMap<String, TensorInfo>,
}

struct RawInfo {
    name: String,
    head: u64,
    shape: Vec<usize>,
    dtype: GgmlType,
    bytes: u64,
    offset: u64,
}

impl GgufFile {
    /// Opens a file and reads its head; tensor data stays on disk.
    ///
    /// # Errors
    /// [`IoError`] for a file that is missing, foreign, of another version, cut off, or that contradicts itself.
    pub fn open(path: &Path) -> Result<Self, IoError> {
        let file = File::open(path).map_err(|e| IoError::io("open", path, e))?;
        let size = file.metadata().map_err(|e| IoError::io("read", path, e))?.len();
        let head = file.try_clone().map_err(|e| IoError::io("read", path, e))?;
        let mut c = Cursor::new(head, path, size);

        let mut magic = [0; 4];
        c.fill(&mut magic, "the magic")?;
        if magic != MAGIC {
            let found = format!("{:?}", String::from_utf8_lossy(&magic));
            return Err(IoError::Foreign { path: path.to_owned(), expected: "GGUF", found });
        }
        check_version(path, c.u32("the version")?)?;
        // A tensor takes at least its name's length, rank, one dimension, type and offset; a pair a key, a type, a byte.
        let n_tensors = c.count(8 + 4 + 8 + 4 + 8, "the number of tensors")?;
        let n_pairs = c.count(8 + 4 + 1, "the number of metadata pairs")?;

        let mut metadata = Metadata::new();
        for i in 0..n_pairs {
            let at = c.at();
            let key = c.string(&format!("metadata key {i}"))?;
            let value = c.value(&format!("the value of {key}"))?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(IoError::malformed(path, at, format!("the key {key} occurs twice")));
            }
        }
        let alignment = alignment(path, &metadata)?;
        let raw = (0..n_tensors).map(|i| raw_info(&mut c, path, i)).collect::<Result<Vec<_>, _>>()?;
        let start = c.at().checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
        let mut tensors = IndexMap::new();
        for raw in raw {
            let (head, name) = (raw.head, raw.name.clone());
            let info = place(path, raw, start, alignment, size)?;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(IoError::malformed(path, head, format!("the tensor {name} occurs twice")));
            }
        }
        check_apart(path, &tensors)?;
        Ok(GgufFile { file, path: path.to_owned(), metadata, tensors })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors.
    pub fn tensors(&self) -> &IndexMap<String, TensorInfo> {
        &self.tensors
    }

    /// One tensor's values as `f32`.
    ///
    /// # Errors
    /// [`IoError::Tensor`] when there is none of this name, [`IoError::Io`] when it cannot be read.
    pub fn tensor(&mut self, name: &str) -> Result<TensorData, IoError> {
        let info = self.tensors.get(name).ok_or_else(|| {
            IoError::tensor(&self.path, name, "not in the file; the model may be of another architecture")
        })?;
        let read = |e| IoError::io("read", &self.path, e);
        let mut bytes = vec![0; info.bytes as usize];
        self.file.seek(SeekFrom::Start(info.at)).map_err(read)?;
        self.file.read_exact(&mut bytes).map_err(read)?;
        Ok(TensorData { shape: info.shape.clone(), data: dequantize(info.dtype, &bytes) })
    }

    /// A metadata value that must be there.
    ///
    /// # Errors
    /// [`IoError::Key`] when it is missing or of a type that `convert` refuses.
    pub fn require<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, IoError> {
        self.optional(key, expected, convert)?.ok_or_else(|| {
            IoError::key(&self.path, key, format!("missing ({expected}); convert the model again"))
        })
    }

    /// A metadata value that may be absent.
    ///
    /// # Errors
    /// [`IoError::Key`] when it is there but of a type that `convert` refuses.
    pub fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, IoError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(v) => convert(v).map(Some).ok_or_else(|| {
                IoError::key(&self.path, key, format!("expected {expected}; convert the model again"))
            }),
        }
    }
}

fn check_version(path: &Path, found: u32) -> Result<(), IoError> {
    let hint = match found {
        VERSION => return Ok(()),
        f if f.swap_bytes() == VERSION => {
            "it is big-endian; convert the model again on a little-endian machine"
        }
        0..VERSION => "only version 3 is read; convert the model again with a current tool",
        _ => "only version 3 is read; take an older conversion of the model",
    };
    Err(IoError::Version { path: path.to_owned(), format: "GGUF", found, hint })
}

fn alignment(path: &Path, metadata: &Metadata) -> Result<u64, IoError> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(v) => v
            .as_u64()
            .filter(|&a| (8..=1 << 20).contains(&a) && a % 8 == 0)
            .ok_or_else(|| IoError::key(path, ALIGNMENT_KEY, format!("{v:?} is not a multiple of 8"))),
    }
}

fn raw_info(c: &mut Cursor, path: &Path, i: usize) -> Result<RawInfo, IoError> {
    let head = c.at();
    let name = c.string(&format!("the name of tensor {i}"))?;
    let what = format!("the head of tensor {name}");
    let rank = c.u32(&what)?;
    if rank > 4 {
        let what = format!("tensor {name} has {rank} dimensions, at most 4 exist");
        return Err(IoError::malformed(path, head, what));
    }
    let mut shape = Vec::with_capacity(rank as usize);
    for _ in 0..rank {
        let d = c.u64(&what)?;
        let d = usize::try_from(d)
            .map_err(|_| IoError::malformed(path, head, format!("tensor {name} has a dimension of {d}")))?;
        shape.push(d);
    }
    let tag = c.u32(&what)?;
    let dtype = GgmlType::from_tag(tag).ok_or_else(|| {
        let known = GgmlType::ALL.map(GgmlType::name).join(", ");
        let what = format!(
            "has the storage type {} (head at byte {head}), read here are {known}; take the model in one of \
             these",
            foreign_type(tag)
        );
        IoError::tensor(path, &name, what)
    })?;
    let offset = c.u64(&what)?;
    let (per_block, block_bytes) = dtype.block();
    let row = shape.first().copied().unwrap_or(1);
    shape.reverse();
    let whole = elements(&shape).filter(|_| row % per_block == 0);
    let bytes = whole.and_then(|n| (n / per_block).checked_mul(block_bytes)).ok_or_else(|| {
        let what = format!("tensor {name} of shape {shape:?} cannot be stored as {}", dtype.name());
        IoError::malformed(path, head, what)
    })?;
    Ok(RawInfo { name, head, shape, dtype, bytes: bytes as u64, offset })
}

fn place(path: &Path, raw: RawInfo, start: u64, alignment: u64, size: u64) -> Result<TensorInfo, IoError> {
    if !raw.offset.is_multiple_of(alignment) {
        let what =
            format!("tensor {} starts at offset {}, not a multiple of {alignment}", raw.name, raw.offset);
        return Err(IoError::malformed(path, raw.head, what));
    }
    let at = start.checked_add(raw.offset);
    let end = at.and_then(|at| at.checked_add(raw.bytes));
    match (at, end) {
        (Some(at), Some(end)) if end <= size => {
            Ok(TensorInfo { shape: raw.shape, dtype: raw.dtype, at, bytes: raw.bytes })
        }
        _ => Err(IoError::Truncated {
            path: path.to_owned(),
            what: format!("tensor {}", raw.name),
            at: at.unwrap_or(u64::MAX),
            needed: raw.bytes,
            size,
        }),
    }
}

/// Tensors may not share bytes: a small file could otherwise stand for more values than any memory holds.
fn check_apart(path: &Path, tensors: &IndexMap<String, TensorInfo>) -> Result<(), IoError> {
    let mut sorted: Vec<_> = tensors.iter().filter(|(_, t)| t.bytes > 0).collect();
    sorted.sort_by_key(|(_, t)| t.at);
    for pair in sorted.windows(2) {
        let [(a, first), (b, second)] = pair else { continue };
        if first.at + first.bytes > second.at {
            return Err(IoError::malformed(path, second.at, format!("the tensors {a} and {b} overlap")));
        }
    }
    Ok(())
}

/// Names of the types that other tools write, for the message.
fn foreign_type(tag: u32) -> String {
    let name = match tag {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16..=23 | 29 => "an IQ type",
        24..=27 => "an integer type",
        28 => "F64",
        34 | 35 => "a ternary type",
        39 => "MXFP4",
        _ => "unknown",
    };
    format!("{tag} ({name})")
}
