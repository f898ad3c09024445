//! `rhumb data`.

mod check;
mod preview;
mod tokenize;

use clap::Subcommand;
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Global, Output};

/// Commands on training data.
#[derive(Debug, Subcommand, Serialize)]
pub(crate) enum Command {
    /// Show, in colour, which tokens are trained.
    Preview(preview::Preview),
    /// Read data as `train sft` would, and tell lengths, dropped rows, steps, memory and time; nothing is written.
    Check(Box<check::Check>),
    /// Turn text into token shards for `train pretrain`.
    Tokenize(tokenize::Tokenize),
}

/// Works on training data.
pub(crate) fn run(command: &Command, global: Global) -> Result<Output, Failure> {
    match command {
        Command::Preview(args) => preview::run(args),
        Command::Check(args) => check::run(args, global),
        Command::Tokenize(args) => tokenize::run(args, global),
    }
}
