//! `rhumb list`.

use serde_json::json;

use super::claim_table;
use crate::exit::Failure;
use crate::output::Output;
use crate::recipe::{Size, Source};

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only recipes of this paper.
    #[arg(long)]
    paper: Option<String>,
}

/// Lists the embedded recipes.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    let mut rows = Vec::new();
    let mut list = Vec::new();
    for source in Source::all() {
        let quick = source.resolve(Size::Quick, &[])?;
        let full = source.resolve(Size::Full, &[])?;
        if args.paper.as_ref().is_some_and(|p| *p != quick.paper) {
            continue;
        }
        let claim = &full.claim;
        let statement = claim.statement.clone().unwrap_or_default();
        list.push(json!({
            "recipe": source.name, "paper": full.paper, "title": full.title, "statement": statement,
            "expect": claim.expect, "verdict": full.verdict,
            "quick_s": quick.budget.expected_s, "full_s": full.budget.expected_s,
        }));
        rows.push((source.name, statement, claim.expect, None));
    }
    if rows.is_empty() {
        return Err(Failure::usage(match &args.paper {
            Some(p) => format!("no recipe belongs to a paper called {p}: `rhumb list` shows all"),
            None => "this program was built without recipes".to_owned(),
        }));
    }
    Ok(Output::new(claim_table(&rows).render(), json!(list)))
}
