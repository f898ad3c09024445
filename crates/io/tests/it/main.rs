//! Integration tests of files, tokenizers and templates.
#![allow(clippy::unwrap_used, clippy::float_cmp, clippy::print_stderr, reason = "tests")]

mod adapter;
mod convert;
mod gguf;
#[cfg(feature = "hub")]
mod hub;
mod idx;
mod model_dir;
mod real;
mod safetensors;
mod tokens;
