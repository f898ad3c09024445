//! `rhumb eval MODEL ifeval`.

use std::path::{Path, PathBuf};

use rhumb_core::Record;
use rhumb_lm::eval::instruct::{Accuracy, Prompt, generate, loose, strict};
use rhumb_lm::eval::sampling::{self, share};
use serde::{Deserialize, Serialize};

use super::ask::{Answer, Asker, Judge, prompts};
use super::options::{Limit, Place, Sampling};
use super::read::rows;
use super::run::Start;
use super::told::{Told, size};
use crate::exit::Failure;
use crate::output::{Global, Output};
use crate::table::{Table, number};

/// Arguments of `eval ifeval`.
#[derive(Debug, clap::Args, Serialize)]
#[command(mut_arg("limit", |a| a.help("Only the first K prompts").conflicts_with("questions")))]
pub(super) struct Args {
    /// IFEval's lines of JSON with prompt, instruction_id_list and kwargs; generated prompts without it.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    limit: Limit,
    /// Generated prompts where no file is given.
    #[arg(long, value_name = "K", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000), allow_negative_numbers = true, conflicts_with = "data")]
    questions: u32,
    #[command(flatten)]
    #[serde(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    #[serde(flatten)]
    place: Place,
}

/// For each instruction of a prompt, whether it was followed.
#[derive(Debug, Serialize, Deserialize)]
struct Followed {
    strict: Vec<bool>,
    loose: Vec<bool>,
}

struct Instructions(Vec<Prompt>);

impl Judge for Instructions {
    type Verdict = Followed;

    fn judge(&mut self, question: usize, answers: &[&str]) -> Result<Vec<Followed>, Failure> {
        let p = &self.0[question];
        Ok(answers.iter().map(|a| Followed { strict: strict(p, a), loose: loose(p, a) }).collect())
    }

    fn note(&self, verdicts: &[&Followed], record: &mut Record) {
        let count = |f: fn(&Followed) -> &Vec<bool>| {
            verdicts.iter().flat_map(|v| f(v)).filter(|f| **f).count() as f64
        };
        record.put("followed_strict", count(|v| &v.strict));
        record.put("followed_loose", count(|v| &v.loose));
    }
}

/// Asks the prompts and checks what the answers follow.
pub(super) fn run(model: &Path, args: &Args, global: Global) -> Result<Output, Failure> {
    let draws = args.sampling.draws(1, 1024)?;
    let (from, all) = match &args.data {
        Some(path) => {
            (path.display().to_string(), rows(path, &args.limit, |v| Prompt::from_json(&v.to_string()))?)
        }
        None => {
            let n = args.limit.limit.unwrap_or(args.questions) as usize;
            ("generated prompts, which are not IFEval's".to_owned(), generate(args.sampling.seed, n))
        }
    };
    let mut start = Start::new("ifeval", &args.place, global)?;
    let lm = start.open(model)?;
    let questions: Vec<String> = all.iter().map(|p| p.prompt.clone()).collect();
    let prompts = prompts(&lm, &args.sampling, &questions)?;
    let files = [("data", args.data.as_deref())];
    let mut run = start.ask(args, &draws, model, &files, &prompts)?;
    let asker = Asker::new(&lm, &draws, &args.sampling.stop, &prompts);
    let mut judge = Instructions(all);
    let answers = asker.ask(&mut run, &mut judge)?;
    let about =
        format!("{} on {from}: {}; {}", lm.path.display(), size(answers.len(), draws.n), draws.told());
    let mut told = Told::new("Checkable instructions", about);
    measures(&mut told, &judge.0, &answers, args.sampling.seed)?;
    told.put("generated", args.data.is_none().into()).asked(&answers, &draws);
    run.finish(&told)
}

/// A score: its name, and what it says of an answer.
type Score = (&'static str, fn(&Followed) -> &Vec<bool>);

fn measures(
    told: &mut Told,
    all: &[Prompt],
    answers: &[Vec<Answer<Followed>>],
    seed: u64,
) -> Result<(), Failure> {
    let scores: [Score; 2] = [("strict", |f| &f.strict), ("loose", |f| &f.loose)];
    let mut accuracies = Vec::new();
    for (name, of) in scores {
        let mut accuracy = Accuracy::default();
        let (mut whole, mut parts, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for (prompt, answers) in all.iter().zip(answers) {
            let mut followed = Vec::new();
            for a in answers {
                accuracy.add(prompt, of(&a.verdict));
                followed.push(of(&a.verdict));
            }
            if prompt.unchecked.is_empty() {
                let right = followed.iter().filter(|f| f.iter().all(|f| *f)).count();
                whole.push(right as f64 / followed.len().max(1) as f64);
            }
            let n = followed.iter().map(|f| f.len()).sum::<usize>();
            if n > 0 {
                counts.push(n as f64);
                parts.push(followed.iter().flat_map(|f| f.iter()).filter(|f| **f).count() as f64);
            }
        }
        if !whole.is_empty() {
            told.measure(format!("prompt {name}"), sampling::rate(&whole, seed)?);
        }
        if !counts.is_empty() {
            told.measure(format!("instruction {name}"), share(&parts, &counts, seed)?);
        }
        accuracies.push(accuracy);
    }
    let [strict, loose] = accuracies.as_slice() else { return Ok(()) };
    let mut table = Table::new(["kind", "instructions", "strict", "loose"]);
    for (kind, s) in &strict.kinds {
        let rate = |a: &Accuracy| a.kinds.get(kind).and_then(|s| s.rate()).map_or_else(String::new, number);
        table.row([kind.clone(), s.all.to_string(), rate(strict), rate(loose)]);
    }
    told.table("Share of instructions that were followed, by kind", table)
        .put("unchecked", strict.unchecked.into());
    if strict.unchecked > 0 {
        told.remark(format!(
            "{} instructions have no check here; their prompts are left out of the scores of prompts.",
            strict.unchecked
        ));
    }
    Ok(())
}
