//! GGUF, the single-file format of llama.cpp: metadata, tokenizer and (quantised) tensors.
//!
//! # Format
//! Little-endian. `GGUF`, version `u32`, number of tensors `u64`, number of metadata pairs `u64`; the pairs (key,
//! type, value); per tensor its name, dimensions **fastest first**, type and offset; then the data, every tensor
//! at a multiple of `general.alignment` (32 when absent).
//!
//! Files are read with plain positioned reads: a file that shrinks while it is read gives an error, where a
//! memory map would kill the process. Every length is compared with the size of the file before memory for it
//! is reserved.

mod block;
mod cursor;
mod reader;
mod value;
mod writer;

pub use block::{GgmlType, dequantize, quantize};
pub use reader::{GgufFile, TensorInfo};
pub use value::{Array, Metadata, Value};
pub use writer::{TensorOut, write};

pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
pub(crate) const VERSION: u32 = 3;
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
