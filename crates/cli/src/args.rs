//! The command line.

use clap::{Parser, Subcommand};

use crate::cmd;

const AFTER: &str = "\
Results go to standard output, progress to standard error.
Exit codes: 0 done, or every claim as recorded; 1 the outcome of a claim differs from the record; 2 wrong command
line, recipe or path; 3 a value became NaN or infinite; 4 missing data or model; 130 interrupted;
what has checkpoints has written one.";

/// Fine-tune a small language model on your own machine, see its curvature, re-check every claim.
#[derive(Debug, Parser)]
#[command(name = "rhumb", version, after_long_help = AFTER, disable_help_subcommand = true)]
pub(crate) struct Args {
    /// Print the result as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no remarks on standard error; warnings stay.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train, fine-tune four ways and report, within two minutes and without data.
    Quickstart(cmd::quickstart::Args),
    /// Train a model.
    #[command(subcommand)]
    Train(cmd::train::Command),
    /// Let a model answer or go on with a text.
    Generate(cmd::generate::Args),
    /// Talk with a model, turn by turn.
    Chat(cmd::chat::Args),
    /// Cross-entropy and entropy of a text, token by token.
    Score(cmd::score::Args),
    /// Execute Python solutions of HumanEval's problems against their tests, in a sandbox.
    Judge(cmd::judge::Args),
    /// Measure a model: perplexity, GSM8K, HumanEval, instructions, tasks, diversity.
    Eval(Box<cmd::eval::Args>),
    /// Import, inspect, export or download a model.
    #[command(subcommand)]
    Model(cmd::model::Command),
    /// Look at training data.
    #[command(subcommand)]
    Data(cmd::data::Command),
    /// Look at an optimizer by itself.
    #[command(subcommand)]
    Optimizer(cmd::optimizer::Command),
    /// Measure the spectra of blocks of a model's curvature, and how much they differ.
    Spectrum(cmd::spectrum::Args),
    /// Memory and traffic of a run on several ranks, before it is started.
    Plan(cmd::plan::Args),
    /// The recipes, with each paper's claim and the recorded verdict.
    List(cmd::list::Args),
    /// A recipe with every default filled in.
    Show(cmd::show::Args),
    /// Run a recipe and write its folder.
    Run(cmd::run::Args),
    /// Run recipes and compare the outcome of their claims with the record.
    Check(cmd::check::Args),
    /// Write a run as one HTML, Markdown, CSV or SVG file.
    Report(cmd::report::Args),
    /// Compare two runs, seed by seed, with a confidence interval.
    Compare(cmd::compare::Args),
    /// A paper: equation, assumptions, deviations, metrics.
    Explain(cmd::explain::Args),
    /// How to cite a paper and Rhumb.
    Cite(cmd::cite::Args),
    /// Cores, memory, versions and folders, as Rhumb sees them.
    Doctor(cmd::doctor::Args),
    /// JSON Schema of recipes.
    Schema,
    /// Completion script for a shell.
    Completions(cmd::ship::CompletionArgs),
    /// Write man pages into a folder.
    Man(cmd::ship::ManArgs),
    /// Licences of the libraries inside this program.
    Licenses,
}
