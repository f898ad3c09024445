use std::io::Write;
use std::path::Path;

use super::block::{GgmlType, quantize};
use super::value::{Array, Metadata, Value};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, VERSION};
use crate::TensorData;
use crate::{IoError, atomic};
use rhumb_nn::model::elements;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct TensorOut<'a> {
    /// Its name in the file.
    pub name: String,
    /// Values and shape, slowest dimension first.
    pub tensor: std::borrow::Cow<'a, TensorData>,
    /// F32, F16 or Q8_0.
    pub dtype: GgmlType,
}

/// Writes a GGUF version 3 file, atomically. `general.alignment` of the metadata is respected.
///
/// # Errors
/// [`IoError::Tensor`] for values that the type cannot hold, [`IoError::Io`] when the disk refuses.
pub fn write(path: &Path, metadata: &Metadata, tensors: &[TensorOut<'_>]) -> Result<(), IoError> {
    let alignment = metadata.get(ALIGNMENT_KEY).map_or(Some(DEFAULT_ALIGNMENT), Value::as_u64);
    let alignment = alignment
        .filter(|a| *a >= 8 && a % 8 == 0)
        .ok_or_else(|| IoError::key(path, ALIGNMENT_KEY, "the alignment must be a positive multiple of 8"))?;
    let head = head(path, metadata, tensors, alignment)?;
    atomic::write(path, |out| {
        let io = |e| IoError::io("write", path, e);
        out.write_all(&head).map_err(io)?;
        pad(out, head.len() as u64, alignment).map_err(io)?;
        for t in tensors {
            let bytes = quantize(t.dtype, &t.tensor.data).map_err(|at| refused(path, t, at))?;
            out.write_all(&bytes).map_err(io)?;
            pad(out, bytes.len() as u64, alignment).map_err(io)?;
        }
        Ok(())
    })
}

fn head(
    path: &Path,
    metadata: &Metadata,
    tensors: &[TensorOut<'_>],
    alignment: u64,
) -> Result<Vec<u8>, IoError> {
    let mut out = Vec::new();
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        put_string(&mut out, key);
        out.extend(value.tag().to_le_bytes());
        put_value(&mut out, value);
    }
    let mut offset = 0u64;
    for t in tensors {
        let shape = &t.tensor.shape;
        let (per_block, block_bytes) = t.dtype.block();
        let n = elements(shape).filter(|&n| n == t.tensor.data.len()).ok_or_else(|| {
            let what = format!("{} values do not fill the shape {shape:?}", t.tensor.data.len());
            IoError::tensor(path, &t.name, what)
        })?;
        if shape.len() > 4 || shape.last().is_some_and(|row| row % per_block != 0) {
            let what = format!("the shape {shape:?} cannot be stored as {}; use F16 or F32", t.dtype.name());
            return Err(IoError::tensor(path, &t.name, what));
        }
        put_string(&mut out, &t.name);
        out.extend((shape.len() as u32).to_le_bytes());
        for &d in shape.iter().rev() {
            out.extend((d as u64).to_le_bytes());
        }
        out.extend((t.dtype as u32).to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += ((n / per_block * block_bytes) as u64).next_multiple_of(alignment);
    }
    Ok(out)
}

fn refused(path: &Path, t: &TensorOut<'_>, at: Option<usize>) -> IoError {
    let dtype = t.dtype.name();
    let what = match at {
        None => format!("{dtype} is not written here; use F32, F16 or Q8_0"),
        Some(i) => {
            let value = t.tensor.data.get(i).copied().unwrap_or(f32::NAN);
            format!("value {i} is {value}, which {dtype} cannot hold; export as F32, or check the weights")
        }
    };
    IoError::tensor(path, &t.name, what)
}

fn pad(out: &mut dyn Write, written: u64, alignment: u64) -> std::io::Result<()> {
    let missing = written.next_multiple_of(alignment) - written;
    out.write_all(&vec![0; missing as usize])
}

fn put_string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.extend(v.to_le_bytes()),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => put_string(out, v),
        Value::Array(v) => put_array(out, v),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.tag().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => out.extend(v.iter().map(|&x| x as u8)),
        Array::U16(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::I16(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::U32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::I32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::F32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::Bool(v) => out.extend(v.iter().map(|&x| u8::from(x))),
        Array::String(v) => v.iter().for_each(|s| put_string(out, s)),
        Array::Array(v) => v.iter().for_each(|a| put_array(out, a)),
        Array::U64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::I64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::F64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
    }
}
