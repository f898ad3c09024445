//! `rhumb check`.

use std::path::PathBuf;

use rhumb_core::Judgement;
use serde_json::json;

use super::claim_table;
use crate::exit::{Code, Failure};
use crate::output::{Global, Output};
use crate::recipe::{Size, Source};
use crate::session::{self, Plan};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names as in `rhumb list`, or TOML files.
    #[arg(required_unless_present = "all")]
    recipes: Vec<String>,
    /// Every embedded recipe.
    #[arg(long, conflicts_with = "recipes")]
    all: bool,
    /// How much work to do.
    #[arg(long, value_enum, default_value = "quick")]
    budget: Size,
    /// Keep the run folders in this one.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs recipes and judges their claims.
pub(crate) fn run(args: &Args, global: Global) -> Result<Output, Failure> {
    let sources = if args.all {
        Source::all()
    } else {
        args.recipes.iter().map(|r| Source::find(r)).collect::<Result<_, _>>()?
    };
    // All recipes are read before the first one runs: a typing error shall not cost an hour.
    let recipes = sources.iter().map(|s| s.resolve(args.budget, &[])).collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    let mut list = Vec::new();
    let mut sentences = String::new();
    let mut differs = 0;
    let mut failed: Option<Failure> = None;
    for (source, recipe) in sources.iter().zip(&recipes) {
        let out = args.out.as_ref().map(|d| d.join(source.name.replace('/', "-")));
        let plan = Plan { name: &source.name, recipe, size: args.budget, set: &[], out, resume: false };
        // What the others found is worth more than a clean stop; only who interrupts wants no more.
        let result = match session::execute(&plan, global) {
            Err(e) if sources.len() > 1 && e.code != Code::Interrupted => {
                let statement = recipe.claim.statement.clone().unwrap_or_default();
                let expect = recipe.claim.expect;
                rows.push((source.name.clone(), statement, expect, Some("not run".to_owned())));
                sentences.push_str(&format!("{}: not run: {e}\n", source.name));
                list.push(json!({ "recipe": source.name, "recorded": expect, "error": e.to_string() }));
                failed = failed.or(Some(e));
                continue;
            }
            result => result?,
        };
        let judgement = result
            .judgement
            .as_ref()
            .ok_or_else(|| Failure::usage(format!("{}: the run ended without a verdict", source.name)))?;
        let as_recorded = judgement.as_expected() && result.controls.iter().all(Judgement::as_expected);
        differs += usize::from(!as_recorded);
        let mark = if as_recorded { "" } else { "  <- differs" };
        let statement = recipe.claim.statement.clone().unwrap_or_default();
        let found = format!("{}{mark}", judgement.verdict.word());
        rows.push((source.name.clone(), statement, judgement.expect, Some(found)));
        sentences.push_str(&format!("{}: {}\n", source.name, judgement.sentence));
        for c in &result.controls {
            let mark = if c.as_expected() { "" } else { "  <- differs" };
            sentences.push_str(&format!("  control: {}{mark}\n", c.sentence));
        }
        list.push(json!({
            "recipe": source.name, "statement": recipe.claim.statement, "recorded": judgement.expect,
            "outcome": judgement.verdict, "as_recorded": as_recorded, "judgement": judgement,
            "controls": result.controls,
        }));
    }
    let missing = rows.iter().filter(|r| r.3.as_deref() == Some("not run")).count();
    let mut verdict = match differs {
        0 => "every outcome is as recorded".to_owned(),
        n => format!("{n} of {} outcomes differ from the record", rows.len()),
    };
    if missing > 0 {
        verdict.push_str(&format!("; {missing} could not be run"));
    }
    let mut output =
        Output::new(format!("{}\n{sentences}\n{verdict}\n", claim_table(&rows).render()), json!(list));
    output.code = (differs > 0).then_some(Code::Claim).or(failed.map(|e| e.code));
    Ok(output)
}
