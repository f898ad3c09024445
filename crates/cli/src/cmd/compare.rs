//! `rhumb compare`.

use std::path::PathBuf;

use serde_json::{Value, json};

mod evaluation;

use self::evaluation::{Evaluation, Measure, pair};
use super::report::folder::is_run;
use crate::exit::Failure;
use crate::output::Output;
use crate::session::{RunResult, SeedResult, paired};
use crate::table::{Table, number};

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the first run: of a recipe, or of an evaluation.
    first: PathBuf,
    /// Folder of the second run, of the same kind.
    second: PathBuf,
    /// Only this metric.
    #[arg(long)]
    metric: Option<String>,
}

/// Compares two runs of recipes over their common seeds, or two evaluations over their common questions.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    if let (Some(a), Some(b)) = (Evaluation::load(&args.first)?, Evaluation::load(&args.second)?) {
        let (head, pairs) = (a.name().to_owned(), a.questions().min(b.questions()));
        return told(
            args,
            [&head, &head],
            ("question", pairs),
            &pair(&a, &b)?,
            json!({ "questions": pairs }),
        );
    }
    for dir in [&args.first, &args.second] {
        if is_run(dir) && !dir.join(RunResult::FILE).exists() {
            return Err(Failure::usage(format!(
                "{} is neither a run of a recipe nor, with the other one, an evaluation: what is paired are seeds of \
                 `rhumb run` (a recipe of kind sft takes a model and data) or questions of `rhumb eval`. Read the \
                 report.html of both runs instead",
                dir.display()
            )));
        }
    }
    let (a, b) = (RunResult::load(&args.first)?, RunResult::load(&args.second)?);
    let seeds: Vec<u64> = pairs(&a, &b).iter().map(|p| p.0.seed).collect();
    if seeds.is_empty() {
        return Err(Failure::usage("the runs have no seed in common, so nothing is paired".to_owned()));
    }
    told(args, [&a.recipe, &b.recipe], ("seed", seeds.len()), &over_seeds(&a, &b), json!({ "seeds": seeds }))
}

fn pairs<'a>(a: &'a RunResult, b: &'a RunResult) -> Vec<(&'a SeedResult, &'a SeedResult)> {
    a.seeds.iter().filter_map(|s| Some((s, b.seeds.iter().find(|t| t.seed == s.seed)?))).collect()
}

fn over_seeds(a: &RunResult, b: &RunResult) -> Vec<Measure> {
    let pairs = pairs(a, b);
    let measure = |name: &str| {
        let both: Option<Vec<(f64, f64)>> =
            pairs.iter().map(|(s, t)| Some((s.metrics.get(name)?, t.metrics.get(name)?))).collect();
        let (first, second): (Vec<f64>, Vec<f64>) = both?.into_iter().unzip();
        let difference = paired(&second, &first);
        Some(Measure { name: name.to_owned(), first, second, difference })
    };
    pairs[0].0.metrics.iter().filter_map(|m| measure(m.0)).collect()
}

fn told(
    args: &Args,
    names: [&str; 2],
    (what, count): (&str, usize),
    measures: &[Measure],
    mut json: Value,
) -> Result<Output, Failure> {
    let all: Vec<&str> = measures.iter().map(|m| m.name.as_str()).collect();
    if let Some(m) = args.metric.as_deref().filter(|m| !all.contains(m)) {
        return Err(crate::embedded::unknown("metric of the first run", m, &all));
    }
    let mut table = Table::new(["metric", "first", "second", "second - first", "95 % interval", "verdict"]);
    let mut list = Vec::new();
    for m in measures.iter().filter(|m| args.metric.as_deref().is_none_or(|want| want == m.name)) {
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let (x, y) = (mean(&m.first), mean(&m.second));
        let verdict = verdict(m);
        let range =
            m.difference.map(|i| format!("{} to {}", number(i.low), number(i.high))).unwrap_or_default();
        let range = if count < 2 { "–".to_owned() } else { range };
        table.row([&m.name, &number(x), &number(y), &number(y - x), &range, verdict]);
        list.push(json!({
            "metric": m.name, "first": m.first, "second": m.second, "difference": m.difference, "verdict": verdict,
        }));
    }
    json["metrics"] = list.into();
    let head = format!(
        "first   {} ({})\nsecond  {} ({})\npaired  {count} {what}{}\n\n",
        args.first.display(),
        names[0],
        args.second.display(),
        names[1],
        if count == 1 { "" } else { "s" }
    );
    Ok(Output::new(head + &table.render(), json))
}

fn verdict(m: &Measure) -> &'static str {
    match m.difference {
        _ if m.first == m.second => "equal",
        _ if m.first.len() < 2 => "one pair only, undecided",
        None => "not finite",
        Some(i) if i.low > 0.0 => "second is larger",
        Some(i) if i.high < 0.0 => "second is smaller",
        Some(_) => "no difference shown",
    }
}
