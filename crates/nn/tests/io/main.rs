//! Integration tests of files, tokenizers and templates.
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]

mod gguf;
#[cfg(feature = "hub")]
mod hub;
mod model_dir;
mod real;
mod safetensors;
