//! `rhumb eval`.

mod ask;
mod diversity;
mod gsm8k;
mod humaneval;
mod ifeval;
mod options;
mod ppl;
mod read;
mod run;
mod scorer;
mod tasks;
mod told;

use std::path::PathBuf;

use clap::Subcommand;
use rhumb_lm::eval::MeasureError;
use serde::Serialize;

use crate::exit::{Code, Failure};
use crate::output::{Global, Output};

/// Arguments of `eval`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Args {
    /// Folder or GGUF file of the model.
    model: PathBuf,
    /// What is measured.
    #[command(subcommand)]
    measure: Measure,
}

/// What can be measured.
#[derive(Debug, Subcommand, Serialize)]
enum Measure {
    /// Cross-entropy, perplexity, entropy and token accuracy of conversations.
    Ppl(ppl::Args),
    /// Word problems with a number for an answer, from a file of GSM8K's form.
    Gsm8k(gsm8k::Args),
    /// Instructions whose following a program checks, from IFEval's file or generated ones.
    Ifeval(ifeval::Args),
    /// Generated questions with verifiers, most of them with several right answers.
    Tasks(tasks::Args),
    /// Functions to complete, from HumanEval's file; the answers are executed in a sandbox.
    Humaneval(humaneval::Args),
    /// How much the answers to one prompt differ.
    Diversity(diversity::Args),
}

/// Measures a model.
pub(crate) fn run(args: &Args, global: Global) -> Result<Output, Failure> {
    let model = args.model.as_path();
    match &args.measure {
        Measure::Ppl(a) => ppl::run(model, a, global),
        Measure::Gsm8k(a) => gsm8k::run(model, a, global),
        Measure::Ifeval(a) => ifeval::run(model, a, global),
        Measure::Tasks(a) => tasks::run(model, a, global),
        Measure::Humaneval(a) => humaneval::run(model, a, global),
        Measure::Diversity(a) => diversity::run(model, a, global),
    }
}

impl From<MeasureError> for Failure {
    fn from(e: MeasureError) -> Self {
        Failure::new(Code::Usage, e)
    }
}
