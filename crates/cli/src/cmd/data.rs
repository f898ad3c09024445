//! `rhumb data`.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Global, Output};

/// Commands on training data.
#[derive(Debug, Subcommand, Serialize)]
pub(crate) enum Command {
    /// Show, in colour, which tokens are trained.
    Preview {
        /// Folder of the model, for tokenizer and chat template.
        #[arg(long, value_name = "DIR")]
        model: PathBuf,
        /// JSONL with `messages`, or `prompt` and `completion`.
        #[arg(long, value_name = "FILE")]
        data: PathBuf,
        /// Conversations to show.
        #[arg(short = 'n', default_value_t = 3)]
        n: usize,
        /// The first one to show, from 0.
        #[arg(long, default_value_t = 0)]
        skip: usize,
    },
}

/// Shows data as the trainer sees it.
pub(crate) fn run(command: &Command, _global: Global) -> Result<Output, Failure> {
    Err(super::not_connected("data preview", "tokenizers and chat templates", command))
}
