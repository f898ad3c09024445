//! `rhumb eval MODEL humaneval`.

use std::path::Path;

use rhumb_core::Record;
use rhumb_lm::eval::code::{self, Problem, STOPS, Verdict};
use rhumb_lm::eval::sampling::{Tally, mean_pass_at_k};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::{Answer, Asker, Judge, prompts};
use super::options::{Data, Passes, Place, Sampling};
use super::run::Start;
use super::told::{Told, size};
use crate::cmd::judge::{SandboxArgs, verdict_counts, verdict_table};
use crate::exit::{Failure, read_packed};
use crate::output::{Global, Output};
use crate::sandbox::{Ran, Sandbox};

/// Arguments of `eval humaneval`.
#[derive(Debug, clap::Args, Serialize)]
#[command(
    mut_arg("data", |a| a.help("Problems, JSON lines as of HumanEval, also packed (`.gz`)")),
    mut_arg("limit", |a| a.help("Only the first K problems"))
)]
pub(super) struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    file: Data,
    #[command(flatten)]
    passes: Passes,
    #[command(flatten)]
    execution: SandboxArgs,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    place: Place,
}

/// An answer as it was run.
#[derive(Debug, Serialize, Deserialize)]
struct Judged {
    /// What followed the prompt in the program.
    completion: String,
    #[serde(flatten)]
    ran: Ran,
}

struct Programs {
    problems: Vec<Problem>,
    sandbox: Sandbox,
    /// Answers are continuations.
    plain: bool,
}

impl Judge for Programs {
    type Verdict = Judged;

    fn judge(&mut self, question: usize, answers: &[&str]) -> Result<Vec<Judged>, Failure> {
        let problem = &self.problems[question];
        let completion = |a: &&str| {
            if self.plain { code::continuation(a).to_owned() } else { code::answer(problem, a) }
        };
        let completions: Vec<String> = answers.iter().map(completion).collect();
        let programs: Vec<String> = completions.iter().map(|c| problem.program(c)).collect();
        let ran = self.sandbox.run_all(&programs)?;
        Ok(completions.into_iter().zip(ran).map(|(completion, ran)| Judged { completion, ran }).collect())
    }

    fn note(&self, verdicts: &[&Judged], record: &mut Record) {
        record.put("right", verdicts.iter().filter(|v| passed(v)).count() as f64);
    }
}

fn passed(judged: &Judged) -> bool {
    judged.ran.verdict == Verdict::Passed
}

/// Asks for the functions and runs the answers.
pub(super) fn run(model: &Path, args: &Args, global: Global) -> Result<Output, Failure> {
    let draws = args.sampling.draws(1, 512)?;
    let ks = args.passes.of(draws.n)?;
    let data = args.file.data.display().to_string();
    let mut problems = code::problems(&read_packed(&args.file.data)?, &data)?;
    problems.truncate(args.file.limit.rows());
    let mut start = Start::new("humaneval", &args.place, global)?;
    let sandbox = args.execution.open()?;
    let lm = start.open(model)?;
    let plain = args.sampling.plain;
    let ask = |p: &Problem| if plain { p.prompt.clone() } else { p.request() };
    let questions: Vec<String> = problems.iter().map(ask).collect();
    let prompts = prompts(&lm, &args.sampling, &questions)?;
    let files = [("data", Some(args.file.data.as_path()))];
    let mut run = start.ask(args, &draws, model, &files, &prompts)?;
    let mut stop = args.sampling.stop.clone();
    stop.extend(STOPS.iter().filter(|_| plain).map(|s| (*s).to_owned()));
    let asker = Asker::new(&lm, &draws, &stop, &prompts);
    let mut judge = Programs { problems, sandbox, plain };
    let answers = asker.ask(&mut run, &mut judge)?;
    let about = format!(
        "{} on {data}: {}, {}; {}; {}",
        lm.path.display(),
        size(answers.len(), draws.n),
        if plain { "continuations of the prompts" } else { "asked for the whole function" },
        draws.told(),
        judge.sandbox.version()
    );
    let mut told = Told::new("HumanEval", about);
    measures(&mut told, &answers, &ks, args.sampling.seed)?;
    told.put("sandbox", judge.sandbox.json());
    told.asked(&answers, &draws);
    run.finish(&told)
}

fn measures(
    told: &mut Told,
    answers: &[Vec<Answer<Judged>>],
    ks: &[usize],
    seed: u64,
) -> Result<(), Failure> {
    let tally =
        |a: &Vec<Answer<Judged>>| Tally::of(&a.iter().map(|a| passed(&a.verdict)).collect::<Vec<_>>());
    let tallies: Vec<Tally> = answers.iter().map(tally).collect();
    for &k in ks {
        told.measure(format!("pass@{k}"), mean_pass_at_k(&tallies, k, seed)?);
    }
    let verdicts = || answers.iter().flatten().map(|a| a.verdict.ran.verdict);
    told.table("How the programs ended", verdict_table(verdicts()))
        .put("verdicts", json!(verdict_counts(verdicts())));
    Ok(())
}
