//! `rhumb compare`.

use std::path::PathBuf;

use serde_json::json;

use super::report::folder::is_run;
use crate::exit::Failure;
use crate::output::Output;
use crate::session::{RunResult, paired};
use crate::table::{Table, number};

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the first run.
    first: PathBuf,
    /// Folder of the second run.
    second: PathBuf,
    /// Only this metric.
    #[arg(long)]
    metric: Option<String>,
}

/// Compares the metrics of two runs over their common seeds.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    for dir in [&args.first, &args.second] {
        if is_run(dir) && !dir.join(RunResult::FILE).exists() {
            return Err(Failure::usage(format!(
                "{} is no run of a recipe: seeds are what is paired here, and only `rhumb run` measures several (a recipe \
                 of kind sft takes a model and data). Read the report.html of both runs instead",
                dir.display()
            )));
        }
    }
    let (a, b) = (RunResult::load(&args.first)?, RunResult::load(&args.second)?);
    let pairs: Vec<_> =
        a.seeds.iter().filter_map(|s| Some((s, b.seeds.iter().find(|t| t.seed == s.seed)?))).collect();
    if pairs.is_empty() {
        return Err(Failure::usage("the runs have no seed in common, so nothing is paired".to_owned()));
    }
    let names: Vec<&str> = pairs[0].0.metrics.iter().map(|m| m.0).collect();
    if let Some(m) = args.metric.as_deref().filter(|m| !names.contains(m)) {
        return Err(crate::embedded::unknown("metric of the first run", m, &names));
    }
    let mut table = Table::new(["metric", "first", "second", "second - first", "95 % interval", "verdict"]);
    let mut list = Vec::new();
    for name in names.into_iter().filter(|n| args.metric.as_deref().is_none_or(|m| m == *n)) {
        let both: Option<Vec<(f64, f64)>> =
            pairs.iter().map(|(s, t)| Some((s.metrics.get(name)?, t.metrics.get(name)?))).collect();
        let Some(both) = both else { continue };
        let (x, y): (Vec<f64>, Vec<f64>) = both.into_iter().unzip();
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let interval = paired(&y, &x);
        let equal = x == y;
        let verdict = match interval {
            _ if equal => "equal",
            None => "not finite",
            Some(_) if x.len() < 2 => "one pair only, undecided",
            Some(i) if i.low > 0.0 => "second is larger",
            Some(i) if i.high < 0.0 => "second is smaller",
            Some(_) => "no difference shown",
        };
        let range = interval.map(|i| format!("{} to {}", number(i.low), number(i.high))).unwrap_or_default();
        let range = if x.len() < 2 { "–".to_owned() } else { range };
        table.row([
            name,
            &number(mean(&x)),
            &number(mean(&y)),
            &number(mean(&y) - mean(&x)),
            &range,
            verdict,
        ]);
        list.push(json!({
            "metric": name, "first": x, "second": y, "difference": interval, "verdict": verdict,
        }));
    }
    let seeds: Vec<u64> = pairs.iter().map(|p| p.0.seed).collect();
    let head = format!(
        "first   {} ({})\nsecond  {} ({})\npaired  {} seed{}\n\n",
        args.first.display(),
        a.recipe,
        args.second.display(),
        b.recipe,
        seeds.len(),
        if seeds.len() == 1 { "" } else { "s" }
    );
    Ok(Output::new(head + &table.render(), json!({ "seeds": seeds, "metrics": list })))
}
