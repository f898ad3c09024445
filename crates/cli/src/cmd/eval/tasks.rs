//! `rhumb eval MODEL tasks`.

use std::path::Path;

use rhumb_core::Record;
use rhumb_lm::eval::sampling::{Mean, Tally, mean, mean_pass_at_k};
use rhumb_lm::eval::task::{Problem, Task, cut, distinct_right};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ask::{Answer, Asker, Judge, prompts};
use super::options::{Passes, Place, Sampling};
use super::run::Start;
use super::told::{Told, interval, size, value};
use crate::exit::Failure;
use crate::output::{Global, Output};
use crate::table::{Table, number};

/// Arguments of `eval tasks`.
#[derive(Debug, clap::Args, Serialize)]
pub(super) struct Args {
    /// Tasks, separated by commas; all without it: add, mod, sort, count, split, make, word, path, order, close.
    #[arg(long, value_name = "TASK,..", value_delimiter = ',')]
    task: Vec<String>,
    /// Questions of each task.
    #[arg(long, value_name = "K", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000), allow_negative_numbers = true)]
    questions: u32,
    #[command(flatten)]
    #[serde(flatten)]
    passes: Passes,
    #[command(flatten)]
    #[serde(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    #[serde(flatten)]
    place: Place,
}

/// An answer as it was judged.
#[derive(Debug, Serialize, Deserialize)]
struct Judged {
    /// What was cut out of the response.
    answer: String,
    right: bool,
}

struct Verifier(Vec<(Task, Box<dyn Problem>)>);

impl Judge for Verifier {
    type Verdict = Judged;

    fn judge(&mut self, question: usize, answers: &[&str]) -> Result<Vec<Judged>, Failure> {
        let problem = &self.0[question].1;
        let judge = |a: &&str| {
            let answer = cut(a).to_owned();
            Judged { right: problem.verify(&answer), answer }
        };
        Ok(answers.iter().map(judge).collect())
    }

    fn note(&self, verdicts: &[&Judged], record: &mut Record) {
        record.put("right", verdicts.iter().filter(|v| v.right).count() as f64);
    }
}

/// Asks generated questions and verifies the answers.
pub(super) fn run(model: &Path, args: &Args, global: Global) -> Result<Output, Failure> {
    let draws = args.sampling.draws(16, 64)?;
    let ks = args.passes.of(draws.n)?;
    let seed = args.sampling.seed;
    let tasks = tasks(&args.task)?;
    let mut problems = Vec::new();
    for task in &tasks {
        let questions = task.questions(seed, 0, args.questions as usize)?;
        problems.extend(questions.held_out.into_iter().map(|p| (*task, p)));
    }
    let mut start = Start::new("tasks", &args.place, global)?;
    let lm = start.open(model)?;
    let ask = |p: &(Task, Box<dyn Problem>)| if args.sampling.plain { p.1.prompt() } else { p.1.prose() };
    let questions: Vec<String> = problems.iter().map(ask).collect();
    let prompts = prompts(&lm, &args.sampling, &questions)?;
    let mut run = start.ask(args, &draws, model, &[], &prompts)?;
    let asker = Asker::new(&lm, &draws, &args.sampling.stop, &prompts);
    let mut judge = Verifier(problems);
    let answers = asker.ask(&mut run, &mut judge)?;
    let about = format!(
        "{} on {} of {}: {}; {}",
        lm.path.display(),
        if args.sampling.plain { "short forms" } else { "questions in English" },
        tasks.iter().map(|t| t.name()).collect::<Vec<_>>().join(", "),
        size(answers.len(), draws.n),
        draws.told()
    );
    let mut told = Told::new("Generated tasks", about);
    measures(&mut told, &tasks, &judge.0, &answers, &ks, seed)?;
    told.asked(&answers, &draws);
    run.finish(&told)
}

fn tasks(names: &[String]) -> Result<Vec<Task>, Failure> {
    let mut out = Vec::new();
    for name in names {
        let task = Task::parse(name.trim())?;
        if !out.contains(&task) {
            out.push(task);
        }
    }
    Ok(if out.is_empty() { Task::ALL.to_vec() } else { out })
}

/// What the answers to one question come to.
struct Question {
    task: Task,
    tally: Tally,
    /// Different right answers among those that were given.
    distinct: f64,
    /// Right answers that there are.
    possible: f64,
}

fn measures(
    told: &mut Told,
    tasks: &[Task],
    problems: &[(Task, Box<dyn Problem>)],
    answers: &[Vec<Answer<Judged>>],
    ks: &[usize],
    seed: u64,
) -> Result<(), Failure> {
    let all: Vec<Question> = problems
        .iter()
        .zip(answers)
        .map(|((task, problem), answers)| {
            let texts: Vec<&str> = answers.iter().map(|a| a.verdict.answer.as_str()).collect();
            let right: Vec<bool> = answers.iter().map(|a| a.verdict.right).collect();
            let distinct = distinct_right(problem.as_ref(), &texts) as f64;
            let possible = problem.answers().len() as f64;
            Question { task: *task, tally: Tally::of(&right), distinct, possible }
        })
        .collect();
    let every: Vec<&Question> = all.iter().collect();
    for (name, m) in of(&every, ks, seed)? {
        told.measure(name, m);
    }
    let mut header = vec!["task".to_owned(), "right answers".to_owned()];
    header.extend(ks.iter().map(|k| format!("pass@{k}")));
    header.push("distinct right".to_owned());
    header.push("95 % of pass@1".to_owned());
    let mut table = Table::new(header);
    let mut json = Map::new();
    for task in tasks {
        let own: Vec<&Question> = all.iter().filter(|q| q.task == *task).collect();
        let found = of(&own, ks, seed)?;
        let possible = mean(&own.iter().map(|q| q.possible).collect::<Vec<_>>(), seed)?;
        let mut row = vec![task.name().to_owned(), number(possible.value)];
        row.extend(found.iter().map(|(_, m)| number(m.value)));
        row.push(found.first().map_or_else(String::new, |(_, m)| interval(m)));
        table.row(row);
        let values: Map<String, Value> =
            found.iter().map(|(name, m)| (name.replace(' ', "_"), value(m))).collect();
        json.insert(task.name().to_owned(), values.into());
    }
    told.table("By task; right answers: how many a question has on average", table)
        .put("tasks", json.into())
        .remark("distinct right: different right answers to a question among those given.");
    Ok(())
}

/// Every measure of some questions by its name.
fn of(questions: &[&Question], ks: &[usize], seed: u64) -> Result<Vec<(String, Mean)>, Failure> {
    let tallies: Vec<Tally> = questions.iter().map(|q| q.tally).collect();
    let mut out = Vec::new();
    for &k in ks {
        out.push((format!("pass@{k}"), mean_pass_at_k(&tallies, k, seed)?));
    }
    let distinct: Vec<f64> = questions.iter().map(|q| q.distinct).collect();
    out.push(("distinct right".to_owned(), mean(&distinct, seed)?));
    Ok(out)
}
