//! `rhumb eval MODEL gsm8k`.

use std::path::{Path, PathBuf};

use rhumb_core::Record;
use rhumb_lm::eval::gsm8k::{Judgement, Problem};
use rhumb_lm::eval::sampling::{self, Mean, Tally, best_of, majority, mean_pass_at_k};
use serde::Serialize;

use super::ask::{Answer, Asker, Judge, Scorer, prompts};
use super::options::{Data, Passes, Place, Sampling};
use super::read::rows;
use super::run::Start;
use super::told::{Told, size};
use crate::exit::Failure;
use crate::lm::LanguageModel;
use crate::output::{Global, Output};

/// Arguments of `eval gsm8k`.
#[derive(Debug, clap::Args, Serialize)]
#[command(
    mut_arg("data", |a| a.help("JSON lines, or Parquet by the ending, with question and answer; the number follows ####")),
    mut_arg("limit", |a| a.help("Only the first K problems"))
)]
pub(super) struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    file: Data,
    #[command(flatten)]
    #[serde(flatten)]
    passes: Passes,
    /// Another model whose mean log-probability of an answer is a score for best of k.
    #[arg(long, value_name = "MODEL")]
    scorer: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    #[serde(flatten)]
    place: Place,
}

struct Numbers(Vec<Problem>);

impl Judge for Numbers {
    type Verdict = Judgement;

    fn judge(&mut self, question: usize, answers: &[&str]) -> Result<Vec<Judgement>, Failure> {
        Ok(answers.iter().map(|a| self.0[question].judge(a)).collect())
    }

    fn note(&self, verdicts: &[&Judgement], record: &mut Record) {
        record.put("right", verdicts.iter().filter(|v| v.right).count() as f64);
    }
}

/// Asks the problems and reads the answers.
pub(super) fn run(model: &Path, args: &Args, global: Global) -> Result<Output, Failure> {
    let draws = args.sampling.draws(1, 512)?;
    let ks = args.passes.of(draws.n)?;
    if args.scorer.is_some() && draws.n == 1 {
        return Err(Failure::usage("--scorer chooses among several answers: give -n above 1"));
    }
    let problems = rows(&args.file.data, &args.file.limit, |v| Problem::from_row(&v))?;
    let mut start = Start::new("gsm8k", &args.place, global)?;
    let lm = start.open(model)?;
    let questions: Vec<String> = problems.iter().map(Problem::prompt).collect();
    let prompts_ = prompts(&lm, &args.sampling, &questions)?;
    let scorer = args.scorer.as_deref().map(|path| scorer(path, args, &questions)).transpose()?;
    let files = [("data", Some(args.file.data.as_path())), ("scorer", args.scorer.as_deref())];
    let mut run = start.ask(args, &draws, model, &files, &prompts_)?;
    let own = draws.n > 1;
    let plain = Asker::new(&lm, &draws, &args.sampling.stop, &prompts_);
    let asker = Asker { own, scorer: scorer.as_ref(), ..plain };
    let mut judge = Numbers(problems);
    let answers = asker.ask(&mut run, &mut judge)?;
    let about = format!(
        "{} on {}: {}; {}",
        lm.path.display(),
        args.file.data.display(),
        size(answers.len(), draws.n),
        draws.told()
    );
    let mut told = Told::new("GSM8K", about);
    if draws.n == 1 {
        alone(&mut told, &answers, args.sampling.seed)?;
    } else {
        several(&mut told, &answers, &ks, args)?;
    }
    unread(&mut told, &answers);
    told.asked(&answers, &draws);
    run.finish(&told)
}

fn scorer(path: &Path, args: &Args, questions: &[String]) -> Result<Scorer, Failure> {
    let lm = LanguageModel::open(path)?;
    let prompts = prompts(&lm, &args.sampling, questions).map_err(|e| e.context("--scorer"))?;
    Ok(Scorer { lm, prompts })
}

type Answers = [Vec<Answer<Judgement>>];

/// The mean over problems of a number of each.
fn over(answers: &Answers, seed: u64, f: impl Fn(&[Answer<Judgement>]) -> f64) -> Result<Mean, Failure> {
    Ok(sampling::rate(&answers.iter().map(|a| f(a)).collect::<Vec<_>>(), seed)?)
}

fn one(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

/// Measures of one answer to each problem.
fn alone(told: &mut Told, answers: &Answers, seed: u64) -> Result<(), Failure> {
    told.measure("accuracy", over(answers, seed, |a| one(a.iter().all(|a| a.verdict.right)))?)
        .measure("strict accuracy", over(answers, seed, |a| one(a.iter().all(|a| a.verdict.strict)))?)
        .remark(
            "Strict: by the number after \"the answer is\" alone, rounded to an integer, as published scores of GEM compare.",
        );
    Ok(())
}

/// Measures of several answers to each problem.
fn several(told: &mut Told, answers: &Answers, ks: &[usize], args: &Args) -> Result<(), Failure> {
    let seed = args.sampling.seed;
    let right = |a: &[Answer<Judgement>]| a.iter().map(|a| a.verdict.right).collect::<Vec<_>>();
    let tallies: Vec<Tally> = answers.iter().map(|a| Tally::of(&right(a))).collect();
    for &k in ks {
        told.measure(format!("pass@{k}"), mean_pass_at_k(&tallies, k, seed)?);
    }
    for &k in ks.iter().filter(|k| **k > 1) {
        told.measure(format!("majority@{k}"), over(answers, seed, |a| one(voted(&a[..k])))?);
    }
    for &k in ks.iter().filter(|k| **k > 1) {
        told.measure(
            format!("best@{k} oracle"),
            over(answers, seed, |a| one(right(&a[..k]).contains(&true)))?,
        );
        told.measure(format!("best@{k} logprob"), best(answers, k, seed, |a| a.logprob)?);
        if args.scorer.is_some() {
            told.measure(format!("best@{k} scorer"), best(answers, k, seed, |a| a.scorer)?);
        }
    }
    told.remark(
        "majority@k and best@k are of the first k answers. oracle: one of them is right; logprob: the one whose mean \
         log-probability per token is highest by the model itself, scorer: by the model of --scorer.",
    );
    Ok(())
}

/// Whether the number that most answers gave is right; answers without a number have no vote.
fn voted(answers: &[Answer<Judgement>]) -> bool {
    let votes: Vec<Option<&str>> = answers.iter().map(|a| a.verdict.number.as_deref()).collect();
    let won = majority(&votes);
    answers.iter().any(|a| a.verdict.right && a.verdict.number.as_deref() == won.copied())
}

fn best(
    answers: &Answers,
    k: usize,
    seed: u64,
    score: impl Fn(&Answer<Judgement>) -> Option<f64>,
) -> Result<Mean, Failure> {
    let chosen = |a: &Vec<Answer<Judgement>>| {
        let (i, _) = best_of(a, k, |a| score(a).unwrap_or(f64::MIN))?;
        Ok(one(a[i].verdict.right))
    };
    let values: Vec<f64> = answers.iter().map(chosen).collect::<Result<_, Failure>>()?;
    Ok(sampling::rate(&values, seed)?)
}

/// How many answers hold no number at all.
fn unread(told: &mut Told, answers: &Answers) {
    let all = answers.iter().flatten();
    let none = all.clone().filter(|a| a.verdict.number.is_none()).count();
    told.remark(format!("{none} of {} answers hold no number.", all.count()))
        .put("without_number", none.into());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
    use rhumb_io::complete::Stop;

    use super::*;

    fn answer(number: Option<&str>, logprob: f64) -> Answer<Judgement> {
        let verdict = Judgement {
            number: number.map(str::to_owned),
            found: None,
            right: number == Some("7"),
            strict: false,
        };
        let text = String::new();
        Answer {
            text,
            tokens: 1,
            stop: Stop::Eos,
            looped: false,
            logprob: Some(logprob),
            scorer: None,
            verdict,
        }
    }

    #[test]
    fn answers_without_a_number_have_no_vote_and_ties_go_to_the_first() {
        let of = |n: &[Option<&str>]| n.iter().map(|n| answer(*n, 0.0)).collect::<Vec<_>>();
        assert!(voted(&of(&[None, None, Some("7")])));
        assert!(!voted(&of(&[Some("8"), Some("7")])) && voted(&of(&[Some("7"), Some("8")])));
        assert!(!voted(&of(&[Some("7"), Some("8"), Some("8")])) && !voted(&of(&[None])));
    }

    #[test]
    fn the_best_of_the_first_k_is_that_of_the_highest_score() {
        let all = [
            vec![answer(Some("7"), -2.0), answer(Some("8"), -1.0), answer(Some("7"), -0.5)],
            vec![answer(Some("7"), -1.0), answer(None, -3.0), answer(Some("9"), -0.1)],
        ];
        let at = |k| best(&all, k, 0, |a| a.logprob).unwrap().value;
        assert_eq!((at(1), at(2), at(3)), (1.0, 0.5, 0.5));
    }
}
