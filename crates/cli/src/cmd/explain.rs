//! `rhumb explain`.

use serde_json::json;

use crate::embedded::{PAGES, unknown};
use crate::exit::Failure;
use crate::output::Output;

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the paper, as in `rhumb list`.
    paper: String,
}

/// Prints the page of a paper.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    let known: Vec<&str> = PAGES.iter().map(|p| p.0).collect();
    let page = PAGES.iter().find(|p| p.0 == args.paper);
    let (name, _, text) = page.ok_or_else(|| unknown("paper", &args.paper, &known))?;
    Ok(Output::new(*text, json!({ "paper": name, "markdown": text })))
}
