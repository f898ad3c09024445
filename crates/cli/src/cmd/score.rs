//! `rhumb score`.

use std::path::PathBuf;

use serde::Serialize;

use super::generate::positive;
use super::train::Loss;
use crate::exit::Failure;
use crate::output::{Global, Output};

/// Arguments of `score`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Args {
    /// Folder or GGUF file of the model.
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) text: Input,
    /// A loss besides cross-entropy.
    #[arg(long, value_enum)]
    pub(crate) loss: Option<Loss>,
    /// The temperature inside GEM.
    #[arg(long, default_value_t = 0.7, requires = "loss", value_parser = positive)]
    pub(crate) beta: f64,
}

/// What is scored.
#[derive(Debug, clap::Args, Serialize)]
#[group(required = true, multiple = false)]
pub(crate) struct Input {
    /// A text.
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// A text file.
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
}

/// Scores a text token by token.
pub(crate) fn run(args: &Args, _global: Global) -> Result<Output, Failure> {
    Err(super::not_connected("score", "models and losses", args))
}
