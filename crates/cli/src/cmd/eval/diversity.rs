//! `rhumb eval MODEL diversity`.

mod embed;

use std::path::{Path, PathBuf};

use rhumb_core::Record;
use rhumb_lm::eval::sampling::mean;
use rhumb_lm::eval::text::bleu::{SelfBleu, self_bleu};
use rhumb_lm::eval::text::{diversity, words};
use serde::Serialize;
use serde_json::{Value, json};

use self::embed::Embedder;
use super::ask::{Answer, Asker, Judge, Prompt, prompts};
use super::options::{Limit, Place, Sampling};
use super::read::rows;
use super::run::Start;
use super::told::{Told, size};
use crate::exit::{Failure, read_packed};
use crate::output::{Global, Output};
use crate::table::{Table, number};

/// Arguments of `eval diversity`.
#[derive(Debug, clap::Args, Serialize)]
#[command(mut_arg("limit", |a| a.help("Only the first K prompts")))]
pub(super) struct Args {
    /// A prompt a line, or JSON lines or Parquet with a field prompt, by the ending of the name.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    #[command(flatten)]
    #[serde(flatten)]
    limit: Limit,
    /// Folder of a sentence encoder (BERT, such as all-MiniLM-L6-v2) for the diversity of embeddings.
    #[arg(long, value_name = "DIR")]
    encoder: Option<PathBuf>,
    /// Score the prompt, with what the chat template puts around it, together with each answer, as published scores do.
    #[arg(long)]
    with_prompt: bool,
    #[command(flatten)]
    #[serde(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    #[serde(flatten)]
    place: Place,
}

/// Nothing is said of a single answer.
struct Unjudged;

impl Judge for Unjudged {
    type Verdict = ();

    fn judge(&mut self, _: usize, answers: &[&str]) -> Result<Vec<()>, Failure> {
        Ok(vec![(); answers.len()])
    }

    fn note(&self, _: &[&()], _: &mut Record) {}
}

/// Draws several answers to each prompt and measures how they differ.
pub(super) fn run(model: &Path, args: &Args, global: Global) -> Result<Output, Failure> {
    let draws = args.sampling.draws(16, 512)?;
    if draws.n < 2 {
        return Err(Failure::usage("-n 1: diversity is that of several answers; give at least 2"));
    }
    let texts = read(args)?;
    let encoder = args.encoder.as_deref().map(Embedder::open).transpose()?;
    let mut start = Start::new("diversity", &args.place, global)?;
    let lm = start.open(model)?;
    let prompts = prompts(&lm, &args.sampling, &texts)?;
    let files = [("data", Some(args.prompts.as_path())), ("encoder", args.encoder.as_deref())];
    let mut run = start.ask(args, &draws, model, &files, &prompts)?;
    let asker = Asker::new(&lm, &draws, &args.sampling.stop, &prompts);
    let answers = asker.ask(&mut run, &mut Unjudged)?;
    let about = format!(
        "{} on {}: {}; {}",
        lm.path.display(),
        args.prompts.display(),
        size(answers.len(), draws.n),
        draws.told()
    );
    let mut told = Told::new("Diversity", about);
    measures(&mut told, args, &prompts, &answers, encoder.as_ref())?;
    told.put("encoder", json!(encoder.map(|e| e.name)))
        .put("with_prompt", args.with_prompt.into())
        .asked(&answers, &draws);
    run.finish(&told)
}

fn read(args: &Args) -> Result<Vec<String>, Failure> {
    let path = &args.prompts;
    let ending = |p: &Path| p.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let kind = match ending(path).as_str() {
        "gz" => ending(&path.with_extension("")),
        other => other.to_owned(),
    };
    if ["jsonl", "json", "parquet"].contains(&kind.as_str()) {
        return rows(path, &args.limit, |row| match row.get("prompt") {
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
            Some(_) => Err("the field prompt is empty or no text"),
            None => Err("the field prompt is missing"),
        });
    }
    let text = read_packed(path)?;
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned);
    let prompts: Vec<String> = lines.take(args.limit.rows()).collect();
    if prompts.is_empty() {
        return Err(Failure::usage(format!("{} is empty: it has no line to evaluate on", path.display())));
    }
    Ok(prompts)
}

/// Names of the measures, in the order in which they are taken.
const NAMES: [&str; 5] = ["distinct", "self-bleu multi", "self-bleu official", "loop rate", "words"];

fn measures(
    told: &mut Told,
    args: &Args,
    prompts: &[Prompt],
    answers: &[Vec<Answer<()>>],
    encoder: Option<&Embedder>,
) -> Result<(), Failure> {
    let mut columns: Vec<(String, Vec<f64>)> = NAMES.iter().map(|n| ((*n).to_owned(), Vec::new())).collect();
    if let Some(e) = encoder {
        columns.push((format!("embedding by {}", e.name), Vec::new()));
    }
    for (prompt, answers) in prompts.iter().zip(answers) {
        let before = if args.with_prompt { prompt.text.as_str() } else { "" };
        let texts: Vec<String> = answers.iter().map(|a| format!("{before}{}", a.text)).collect();
        let all: Vec<&str> = texts.iter().map(String::as_str).collect();
        let tokens: Vec<Vec<String>> = all.iter().map(|t| words(t)).collect();
        let n = answers.len() as f64;
        let looped = answers.iter().filter(|a| a.looped).count() as f64;
        let lengths = answers.iter().map(|a| words(&a.text).len()).sum::<usize>() as f64;
        let bleu = |mode| self_bleu(&all, mode).unwrap_or(f64::NAN);
        let mut values = vec![
            diversity::distinct(&tokens),
            bleu(SelfBleu::Multi),
            bleu(SelfBleu::Official),
            looped / n,
            lengths / n,
        ];
        if let Some(e) = encoder {
            values.push(diversity::embedding(&e.embed(&all)?)?);
        }
        columns.iter_mut().zip(values).for_each(|(c, v)| c.1.push(v));
    }
    for (name, values) in &columns {
        told.measure(name.clone(), mean(values, args.sampling.seed)?);
    }
    let mut table = Table::new(std::iter::once("prompt").chain(columns.iter().map(|c| c.0.as_str())));
    for i in 0..answers.len() {
        let mut row = vec![(i + 1).to_string()];
        row.extend(columns.iter().map(|c| number(c.1[i])));
        table.row(row);
    }
    told.table("By prompt", table).remark(format!(
        "Scored: {}. Self-BLEU falls as diversity rises, the others rise; official compares with one other answer only. \
         Compare equal numbers of answers of similar lengths.",
        if args.with_prompt { "prompt and answer" } else { "the answers only" }
    ));
    Ok(())
}
