//! `rhumb quickstart`.

use std::path::PathBuf;

use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Global, Output};

/// Arguments of `quickstart`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Args {
    /// Which family to try; language models without it.
    #[arg(default_value = "lm")]
    pub(crate) family: String,
    /// Folder of the report; `runs/quickstart-TIME` otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The seed of data, weights and order.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// Trains, fine-tunes four ways and reports.
pub(crate) fn run(args: &Args, _global: Global) -> Result<Output, Failure> {
    Err(super::not_connected("quickstart", "the small decoder and its fine-tuner", args))
}
