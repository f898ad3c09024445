//! `rhumb judge`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use rhumb_lm::eval::code::{self, Problem, Verdict};
use rhumb_lm::eval::sampling::{Mean, Tally, mean_pass_at_k};
use serde::Serialize;
use serde_json::{Value, json};

use super::generate::positive;
use crate::exit::{Failure, read_packed};
use crate::output::{Global, Output};
use crate::sandbox::{Limits, Ran, Sandbox};
use crate::table::{Table, counted, number, seconds};

/// Arguments of `judge`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Problems, JSON lines as of HumanEval, also packed (`.gz`).
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Completions, JSON lines of `task_id` and `completion`, also packed; without them, the problems' own solutions.
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// pass@k for these k.
    #[arg(short = 'k', value_name = "K,..", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    k: Vec<u32>,
    /// The seed of the interval.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    execution: SandboxArgs,
}

/// How programs are executed.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct SandboxArgs {
    /// Execute programs that nobody has read, in a sandbox; nothing is executed without it.
    #[arg(long)]
    allow_code_execution: bool,
    /// The interpreter, CPython 3.
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
    /// Longest run of a program on the clock, the start of Python included.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = time_limit, allow_negative_numbers = true)]
    time_limit: f64,
    /// Address space of a program.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(256..=1 << 20), allow_negative_numbers = true)]
    memory_limit: u64,
}

/// A limit that a clock can keep.
fn time_limit(text: &str) -> Result<f64, String> {
    let x = positive(text)?;
    if (0.1..=3600.0).contains(&x) { Ok(x) } else { Err("give 0.1 to 3600 seconds".to_owned()) }
}

const RISK: &str = "\
this would execute Python programs that a model or a file brings along, which nobody has read: they run without \
network, without the files of the user and with limits of time and memory, yet against a hole in the kernel such a \
sandbox is no help; read \"Programs as answers\" in the documentation, take a virtual machine where that is not \
enough, and give --allow-code-execution";

impl SandboxArgs {
    /// A sandbox, where the user allows execution.
    pub(crate) fn open(&self) -> Result<Sandbox, Failure> {
        if !self.allow_code_execution {
            return Err(Failure::usage(RISK));
        }
        let limits = Limits { wall_s: self.time_limit, memory_mib: self.memory_limit };
        Sandbox::open(&self.python, limits)
    }
}

/// Executes completions of problems.
pub(crate) fn run(args: &Args, global: Global) -> Result<Output, Failure> {
    let (data, began) = (args.data.display().to_string(), Instant::now());
    let problems = code::problems(&read_packed(&args.data)?, &data)?;
    let tries: Vec<(usize, String)> = match &args.samples {
        None => problems.iter().map(|p| p.canonical_solution.clone()).enumerate().collect(),
        Some(path) => {
            let all = code::samples(&read_packed(path)?, &path.display().to_string(), &problems);
            all?.into_iter().map(|(i, s)| (i, s.completion)).collect()
        }
    };
    let of: Vec<usize> = tries.iter().map(|t| t.0).collect();
    // k that no estimate exists for is refused before anything runs.
    estimates(&tallies(&of, &vec![false; of.len()]), &args.k, args.seed)?;
    let sandbox = args.execution.open()?;
    global.note(&format!("{} in {}", counted(tries.len() as u64, "program"), sandbox.version()));
    let programs: Vec<String> = tries.iter().map(|(i, c)| problems[*i].program(c)).collect();
    let ran = sandbox.run_all(&programs)?;
    let passed: Vec<bool> = ran.iter().map(|r| r.verdict == Verdict::Passed).collect();
    let pass = estimates(&tallies(&of, &passed), &args.k, args.seed)?;
    Ok(told(&problems, &of, &ran, &pass, &sandbox, began.elapsed().as_secs_f64()))
}

/// Tallies of the problems that have a sample.
fn tallies(of: &[usize], passed: &[bool]) -> Vec<Tally> {
    let mut by = BTreeMap::<usize, Vec<bool>>::new();
    of.iter().zip(passed).for_each(|(i, p)| by.entry(*i).or_default().push(*p));
    by.values().map(|p| Tally::of(p)).collect()
}

fn estimates(tallies: &[Tally], k: &[u32], seed: u64) -> Result<Vec<(u32, Mean)>, Failure> {
    k.iter().map(|k| Ok((*k, mean_pass_at_k(tallies, *k as usize, seed)?))).collect()
}

fn told(
    problems: &[Problem],
    of: &[usize],
    ran: &[Ran],
    pass: &[(u32, Mean)],
    sandbox: &Sandbox,
    wall_s: f64,
) -> Output {
    let mut measures = Table::new(["measure", "value", "95 % interval"]);
    for (k, mean) in pass {
        let interval = mean.interval.map(|i| format!("[{}, {}]", number(i.low), number(i.high)));
        measures.row([format!("pass@{k}"), number(mean.value), interval.unwrap_or_default()]);
    }
    let tried = tallies(of, &vec![false; of.len()]).len();
    let text = format!(
        "{}, {} of {} problems, {}\n\n{}\n{}",
        counted(ran.len() as u64, "program"),
        tried,
        problems.len(),
        seconds(wall_s),
        measures.render(),
        verdict_table(ran.iter().map(|r| r.verdict)).render()
    );
    let results: Vec<Value> = of
        .iter()
        .zip(ran)
        .map(|(i, r)| {
            json!({
                "task_id": problems[*i].task_id, "verdict": r.verdict, "detail": r.detail, "wall_s": r.wall_s,
            })
        })
        .collect();
    let pass: Vec<Value> = pass
        .iter()
        .map(|(k, m)| {
            json!({ "k": k, "value": m.value, "low": m.interval.map(|i| i.low), "high": m.interval.map(|i| i.high) })
        })
        .collect();
    let json = json!({
        "problems": problems.len(),
        "tried": tried,
        "pass_at_k": pass,
        "verdicts": verdict_counts(ran.iter().map(|r| r.verdict)),
        "sandbox": sandbox.json(),
        "wall_s": wall_s,
        "results": results,
    });
    Output::new(text, json)
}

/// How often each verdict was given, those that were not left out.
pub(crate) fn verdict_counts(verdicts: impl Iterator<Item = Verdict>) -> BTreeMap<Verdict, usize> {
    let mut counts = BTreeMap::new();
    verdicts.for_each(|v| *counts.entry(v).or_default() += 1);
    counts
}

/// The counts as a table.
pub(crate) fn verdict_table(verdicts: impl Iterator<Item = Verdict>) -> Table {
    let mut table = Table::new(["verdict", "programs"]);
    for (verdict, n) in verdict_counts(verdicts) {
        table.row([verdict.name().to_owned(), n.to_string()]);
    }
    table
}
