//! `rhumb show`.

use serde_json::json;

use crate::exit::Failure;
use crate::output::Output;
use crate::recipe::{Size, Source};
use crate::table::seconds;

/// Arguments of `show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name as in `rhumb list`, or a TOML file.
    recipe: String,
    /// Which size to resolve.
    #[arg(long, value_enum, default_value = "full")]
    budget: Size,
    /// Override a setting.
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Prints the resolved recipe.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    let source = Source::find(&args.recipe)?;
    let recipe = source.resolve(args.budget, &args.set)?;
    let time = |size| source.resolve(size, &args.set).map(|r| r.budget.expected_s);
    let (quick_s, full_s) = (time(Size::Quick)?, time(Size::Full)?);
    let toml = toml::to_string_pretty(&recipe)
        .map_err(|e| Failure::usage(format!("{}: the settings have no TOML form: {e}", source.name)))?;
    let text = format!(
        "# {}, from {}, budget {}\n# expected on two cores: quick {}, full {}\n\n{toml}",
        source.name,
        source.file,
        args.budget.key(),
        seconds(quick_s),
        seconds(full_s)
    );
    let json = json!({
        "recipe": source.name, "budget": args.budget.key(), "quick_s": quick_s, "full_s": full_s,
        "settings": recipe,
    });
    Ok(Output::new(text, json))
}
