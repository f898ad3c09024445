//! Files: model folders, GGUF, safetensors, tokenizers, chat templates, tokens, images and Parquet tables; answers as
//! text.
//!
//! The model on disk is a folder in the layout of the Hugging Face Hub: `config.json`, `model.safetensors` (or
//! shards with an index), `tokenizer.json`, `tokenizer_config.json`. Everything else is converted to and from
//! that: see [`model_dir::ModelFiles`]. Weights are `f32` in memory whatever the file holds.

pub mod adapter;
pub mod atomic;
pub mod complete;
mod error;
pub mod gguf;
#[cfg(feature = "hub")]
pub mod hub;
pub mod idx;
pub mod model_dir;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod safetensors;
pub mod template;
pub mod tokenizer;
pub mod tokens;
pub mod words;

pub use error::IoError;
pub use rhumb_nn::model::{TensorData, TensorMap};
