//! safetensors: one file, or shards listed in `model.safetensors.index.json`.
//!
//! # Format
//! Length of the header `u64` (little-endian), the header as JSON (name, type, shape and byte range of every
//! tensor, which together cover the rest of the file exactly), then the data.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ::safetensors::tensor::{Dtype, Metadata, TensorInfo};
use half::{bf16, f16};
use indexmap::{IndexMap, IndexSet};
use serde::Deserialize;

use super::gguf::{GgmlType, dequantize};
use super::{IoError, atomic};
use rhumb_nn::model::{TensorData, TensorMap, elements};

/// The limit of the reference implementation.
const MAX_HEADER: u64 = 100_000_000;
const PREFIX: u64 = 8;

/// All tensors of one file, as `f32`, in the order of their bytes; whole numbers that count positions are left out.
///
/// # Errors
/// [`IoError`] for a file that is missing, cut off or longer than its header says, a header that lies, or a
/// type other than F32, F16 and BF16.
pub fn read(path: &Path) -> Result<TensorMap, IoError> {
    let mut out = TensorMap::new();
    read_into(path, &mut out, |_| true)?;
    Ok(out)
}

/// The tensors of a folder and the types that its files store them in (`F32`, `F16`, `BF16` ...), without their
/// values.
///
/// # Errors
/// As [`read_dir`].
pub fn stored_types(dir: &Path) -> Result<IndexMap<String, String>, IoError> {
    let mut out = IndexMap::new();
    for (path, _) in files(dir)? {
        let (_, metadata, _) = open(&path)?;
        for name in metadata.offset_keys() {
            if let Some(info) = metadata.info(&name) {
                out.insert(name, info.dtype.to_string());
            }
        }
    }
    Ok(out)
}

/// All tensors of a folder: `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
///
/// # Errors
/// As [`read`], and [`IoError::Tensor`] when a tensor of the index is missing in its shard.
pub fn read_dir(dir: &Path) -> Result<TensorMap, IoError> {
    let mut out = TensorMap::new();
    for (path, tensors) in files(dir)? {
        let Some(tensors) = tensors else { return read(&path) };
        read_into(&path, &mut out, |name| tensors.contains(name))?;
        if let Some(missing) = tensors.iter().find(|t| !out.contains_key(*t)) {
            let what = "listed in the index but not in this shard; download the shard again";
            return Err(IoError::tensor(&path, missing, what));
        }
    }
    Ok(out)
}

/// A file, and which of its tensors count: all, or those that the index places there.
type Shard = (PathBuf, Option<IndexSet<String>>);

/// The files of a folder, each with the tensors that the index expects in it.
fn files(dir: &Path) -> Result<Vec<Shard>, IoError> {
    let index = dir.join("model.safetensors.index.json");
    let single = dir.join("model.safetensors");
    if single.exists() || !index.exists() {
        return Ok(vec![(single, None)]);
    }
    let text = fs::read(&index).map_err(|e| IoError::io("read", &index, e))?;
    let listed: Index =
        serde_json::from_slice(&text).map_err(|source| IoError::Json { path: index.clone(), source })?;
    let mut shards: IndexMap<String, IndexSet<String>> = IndexMap::new();
    for (tensor, file) in listed.weight_map {
        // The index comes from elsewhere; it may only name files beside it.
        if file.contains(['/', '\\']) || file == ".." {
            let what =
                format!("lies in {file}, which is outside the folder; restore the index from its source");
            return Err(IoError::tensor(&index, &tensor, what));
        }
        shards.entry(file).or_default().insert(tensor);
    }
    Ok(shards.into_iter().map(|(file, tensors)| (dir.join(file), Some(tensors))).collect())
}

/// Writes one file of F32, F16 or BF16, atomically, with the header entry `format = pt` that other loaders look for.
///
/// # Errors
/// [`IoError`] when a shape does not fit its values, a value is too large for the type, the type is another one, or
/// the disk refuses.
pub fn write(path: &Path, tensors: &TensorMap, dtype: GgmlType) -> Result<(), IoError> {
    let shapes: Vec<_> = tensors.iter().map(|(name, t)| (name.clone(), t.shape.clone())).collect();
    write_each(path, &shapes, dtype, |i| Ok(Cow::Borrowed(&tensors[i].data)))
}

/// [`write()`] of tensors that are made one at a time: `values(i)` are those of number `i` in `shapes`.
///
/// # Errors
/// As [`write()`], and what `values` says.
pub fn write_each<'a>(
    path: &Path,
    shapes: &[(String, Vec<usize>)],
    dtype: GgmlType,
    values: impl Fn(usize) -> Result<Cow<'a, [f32]>, IoError>,
) -> Result<(), IoError> {
    let stored = match dtype {
        GgmlType::F32 => Dtype::F32,
        GgmlType::F16 => Dtype::F16,
        GgmlType::BF16 => Dtype::BF16,
        other => {
            let what = format!("{} is not written here; use F32, F16 or BF16", other.name());
            return Err(IoError::malformed(path, 0, what));
        }
    };
    let mut infos = Vec::with_capacity(shapes.len());
    let mut at = 0usize;
    for (name, shape) in shapes {
        let bytes = elements(shape).and_then(|n| n.checked_mul(dtype.block().1));
        let Some(end) = bytes.and_then(|n| at.checked_add(n)) else {
            return Err(IoError::tensor(path, name, format!("shape {shape:?} is larger than any file")));
        };
        infos.push((
            name.clone(),
            TensorInfo { dtype: stored, shape: shape.clone(), data_offsets: (at, end) },
        ));
        at = end;
    }
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata =
        Metadata::new(Some(about), infos).map_err(|e| IoError::malformed(path, 0, e.to_string()))?;
    let mut header =
        serde_json::to_vec(&metadata).map_err(|source| IoError::Json { path: path.to_owned(), source })?;
    // Data that starts at a multiple of 8 can be used in place by readers that map the file.
    header.resize(header.len().next_multiple_of(8), b' ');
    atomic::write(path, |out| {
        let io = |e| IoError::io("write", path, e);
        out.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
        out.write_all(&header).map_err(io)?;
        for (i, (name, shape)) in shapes.iter().enumerate() {
            let values = values(i)?;
            check(path, name, shape, dtype, &values)?;
            for run in values.chunks(1 << 16) {
                let bytes: Vec<u8> = match dtype {
                    GgmlType::F16 => run.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
                    GgmlType::BF16 => run.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
                    _ => run.iter().flat_map(|v| v.to_le_bytes()).collect(),
                };
                out.write_all(&bytes).map_err(io)?;
            }
        }
        Ok(())
    })
}

/// Refuses values that the shape does not ask for, and those that the type cannot hold.
fn check(path: &Path, name: &str, shape: &[usize], dtype: GgmlType, values: &[f32]) -> Result<(), IoError> {
    if elements(shape) != Some(values.len()) {
        let what = format!("{} values for the shape {shape:?}", values.len());
        return Err(IoError::tensor(path, name, what));
    }
    let too_large = |v: &f32| v.is_finite() && !rounded(dtype, *v).is_finite();
    if let Some(i) = values.iter().position(too_large) {
        let what = format!("value {i} is {}, which {} cannot hold; use F32", values[i], dtype.name());
        return Err(IoError::tensor(path, name, what));
    }
    Ok(())
}

/// What a reader will see.
fn rounded(dtype: GgmlType, v: f32) -> f32 {
    match dtype {
        GgmlType::F16 => f16::from_f32(v).to_f32(),
        GgmlType::BF16 => bf16::from_f32(v).to_f32(),
        _ => v,
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: IndexMap<String, String>,
}

/// An open file, its checked header, and where the data start.
pub(super) fn open(path: &Path) -> Result<(File, Metadata, u64), IoError> {
    let io = |e| IoError::io("read", path, e);
    let mut file = File::open(path).map_err(|e| IoError::io("open", path, e))?;
    let size = file.metadata().map_err(io)?.len();
    let truncated = |what: &str, at, needed| IoError::Truncated {
        path: path.to_owned(),
        what: what.to_owned(),
        at,
        needed,
        size,
    };
    if size < PREFIX {
        return Err(truncated("the length of the header", 0, PREFIX));
    }
    let mut prefix = [0; PREFIX as usize];
    file.read_exact(&mut prefix).map_err(io)?;
    let length = u64::from_le_bytes(prefix);
    if length > MAX_HEADER {
        let found = format!("a header length of {length}");
        return Err(IoError::Foreign { path: path.to_owned(), expected: "safetensors", found });
    }
    if length > size - PREFIX {
        return Err(truncated("the header", PREFIX, length));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(io)?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|e| IoError::malformed(path, PREFIX, format!("the header is not usable: {e}")))?;

    let start = PREFIX + length;
    let promised = metadata.data_len() as u64;
    if promised > size - start {
        return Err(truncated("the tensor data", start, promised));
    }
    if promised < size - start {
        let what = format!("the header covers {promised} of {} bytes of data", size - start);
        return Err(IoError::malformed(path, start, what));
    }
    Ok((file, metadata, start))
}

fn read_into(path: &Path, out: &mut TensorMap, wanted: impl Fn(&str) -> bool) -> Result<(), IoError> {
    let io = |e| IoError::io("read", path, e);
    let (mut file, metadata, start) = open(path)?;
    for name in metadata.offset_keys().into_iter().filter(|n| wanted(n)) {
        let Some(info) = metadata.info(&name) else { continue };
        let dtype = match info.dtype {
            Dtype::F32 => GgmlType::F32,
            Dtype::F16 => GgmlType::F16,
            Dtype::BF16 => GgmlType::BF16,
            // BERT's files carry the numbers 0, 1, 2 ... as a tensor.
            Dtype::I64 if name.ends_with("position_ids") => continue,
            other => {
                let what =
                    format!("has the type {other}, read here are F32, F16 and BF16; convert the model");
                return Err(IoError::tensor(path, &name, what));
            }
        };
        let (from, to) = info.data_offsets;
        file.seek(SeekFrom::Start(start + from as u64)).map_err(io)?;
        let mut bytes = vec![0; to - from];
        file.read_exact(&mut bytes).map_err(io)?;
        out.insert(name, TensorData { shape: info.shape.clone(), data: dequantize(dtype, &bytes) });
    }
    Ok(())
}
