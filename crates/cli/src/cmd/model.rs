//! `rhumb model`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Global, Output};

/// Commands on models.
#[derive(Debug, Subcommand, Serialize)]
pub(crate) enum Command {
    /// Read a GGUF file or a Hugging Face folder and write Rhumb's folder.
    Import {
        /// `X.gguf`, or a folder with `config.json` and safetensors.
        from: PathBuf,
        /// The folder to write.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Parameters, types, blocks, and the memory that training needs with each optimizer.
    Info {
        /// Folder or GGUF file of the model.
        model: PathBuf,
        /// Tokens of a batch row, for the memory estimate.
        #[arg(long, default_value_t = 256)]
        tokens: u32,
        /// Rows of a batch, for the memory estimate.
        #[arg(long, default_value_t = 1)]
        batch: u32,
    },
    /// Write a model for other programs.
    Export {
        /// Folder or GGUF file of the model.
        model: PathBuf,
        /// The format.
        #[arg(long, value_enum)]
        format: Format,
        /// Type of the weights in the file.
        #[arg(long, value_enum, default_value = "f32")]
        dtype: Dtype,
        /// A folder for `hf`, a file for `gguf`.
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
    },
    /// Download a model. The only command that opens a connection.
    Pull {
        /// `ORG/NAME` on the hub.
        name: String,
        /// Where to put it; the cache folder otherwise (see `rhumb doctor`).
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// File formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// A folder with `config.json`, tokenizer and safetensors.
    Hf,
    /// One GGUF file.
    Gguf,
}

/// Types of exported weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dtype {
    /// 32 bits; re-imported bit for bit.
    F32,
    /// 16 bits, IEEE.
    F16,
    /// 16 bits, brain float; safetensors only.
    Bf16,
    /// 8 bits with a scale per 32 weights; GGUF only.
    #[value(name = "q8_0")]
    #[serde(rename = "q8_0")]
    Q8_0,
}

/// Imports, inspects, exports or downloads.
pub(crate) fn run(command: &Command, _global: Global) -> Result<Output, Failure> {
    Err(super::not_connected("model", "model files", command))
}
