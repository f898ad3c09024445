//! `rhumb run`.

use std::path::PathBuf;

use serde_json::json;

use super::summary;
use crate::exit::Failure;
use crate::output::{Global, Output};
use crate::recipe::{Size, Source};
use crate::session::{self, Plan};

/// More seeds are a slip of the keyboard.
const MAX_SEEDS: usize = 10_000;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name as in `rhumb list`, or a TOML file.
    recipe: String,
    /// How much work to do.
    #[arg(long, value_enum, default_value = "quick")]
    budget: Size,
    /// Override a setting, e.g. `-s budget.steps=100`.
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seeds, as `0,3,5` or `0..5` (5 excluded).
    #[arg(long)]
    seeds: Option<String>,
    /// Folder of the run; `runs/RECIPE-TIME` otherwise.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in `--out`.
    #[arg(long, requires = "out")]
    resume: bool,
}

/// Runs a recipe.
pub(crate) fn run(args: &Args, global: Global) -> Result<Output, Failure> {
    let source = Source::find(&args.recipe)?;
    let mut set = args.set.clone();
    set.extend(args.seeds.as_deref().map(seeds).transpose()?);
    let recipe = source.resolve(args.budget, &set)?;
    let out = args.out.clone().unwrap_or_else(|| session::fresh_folder(&source.name));
    let plan = Plan {
        name: &source.name,
        recipe: &recipe,
        size: args.budget,
        set: &set,
        out: Some(out.clone()),
        resume: args.resume,
    };
    let result = session::execute(&plan, global)?;
    let json = json!({ "folder": out, "result": result });
    Ok(Output::new(summary(&result, Some(&out)), json))
}

/// The small version of a recipe of the program, with this seed.
pub(crate) fn quick(
    recipe: &str,
    seed: u64,
    out: Option<PathBuf>,
    global: Global,
) -> Result<Output, Failure> {
    // The first seed is that of the recipe, whose verdict is recorded.
    let seeds = (seed != 0).then(|| seed.to_string());
    let args =
        Args { recipe: recipe.to_owned(), budget: Size::Quick, set: Vec::new(), seeds, out, resume: false };
    run(&args, global)
}

/// `0..5` and `0,3` as an override.
fn seeds(text: &str) -> Result<String, Failure> {
    let wrong = || Failure::usage(format!("--seeds {text}: write 0,3,5 or 0..5"));
    let number = |s: &str| s.trim().parse::<u64>().map_err(|_| wrong());
    let list = match text.split_once("..") {
        Some((from, to)) => (number(from)?..number(to)?).take(MAX_SEEDS + 1).collect(),
        None => text.split(',').map(number).collect::<Result<Vec<u64>, _>>()?,
    };
    if list.is_empty() || list.len() > MAX_SEEDS {
        return Err(wrong());
    }
    Ok(format!("budget.seeds={list:?}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn seeds_are_a_range_or_a_list() {
        assert_eq!(seeds("0..3").unwrap(), "budget.seeds=[0, 1, 2]");
        assert_eq!(seeds("4, 7").unwrap(), "budget.seeds=[4, 7]");
        for bad in ["", "3..3", "a", "1..", "-1", "0..99999999999"] {
            assert!(seeds(bad).is_err(), "{bad}");
        }
    }
}
