//! `rhumb generate`.

use std::path::PathBuf;

use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Global, Output};

/// Arguments of `generate`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Args {
    /// Folder or GGUF file of the model.
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) text: Input,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// New tokens at most.
    #[arg(long, default_value_t = 128, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_new: u32,
}

/// What the model goes on with.
#[derive(Debug, clap::Args, Serialize)]
#[group(required = true, multiple = false)]
pub(crate) struct Input {
    /// A user's message, put into the chat template of the model.
    #[arg(long, value_name = "TEXT")]
    pub(crate) chat: Option<String>,
    /// A text to go on with as it is.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
}

/// How the next token is chosen.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Sampling {
    /// Always the most likely token.
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p", "seed", "n"])]
    pub(crate) greedy: bool,
    /// Divides the logits; above 1 is more varied.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub(crate) temperature: f64,
    /// Only the K most likely tokens.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top_k: Option<u32>,
    /// Only the most likely tokens that together have this probability.
    #[arg(long, value_name = "P", value_parser = fraction)]
    pub(crate) top_p: Option<f64>,
    /// Only tokens with at least this share of the probability of the most likely one.
    #[arg(long, value_name = "P", value_parser = fraction)]
    pub(crate) min_p: Option<f64>,
    /// The seed of the draws.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Answers.
    #[arg(short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) n: u32,
}

/// A number above zero.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let x: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if x.is_finite() && x > 0.0 { Ok(x) } else { Err("give a finite number above 0".to_owned()) }
}

/// A number in (0, 1].
pub(crate) fn fraction(text: &str) -> Result<f64, String> {
    let x = positive(text)?;
    if x <= 1.0 { Ok(x) } else { Err("give a number above 0 and at most 1".to_owned()) }
}

/// Lets the model answer.
pub(crate) fn run(args: &Args, _global: Global) -> Result<Output, Failure> {
    Err(super::not_connected("generate", "models and generation", args))
}
