//! `rhumb eval MODEL ppl`.

use std::path::{Path, PathBuf};

use rhumb_core::Record;
use rhumb_lm::data::{Example, Tokenizing};
use rhumb_lm::eval::likelihood::{Likelihood, Sums};
use rhumb_lm::eval::sampling::Mean;
use rhumb_lm::sft::HeldOut;
use rhumb_nn::loss::LossKind;
use serde::Serialize;
use serde_json::json;

use super::options::{Limit, Place};
use super::run::Start;
use super::told::Told;
use crate::cmd::generate::positive;
use crate::cmd::train::sft::intake::FileIntake;
use crate::exit::{Code, Failure};
use crate::lm::{LanguageModel, from_eval};
use crate::output::{Global, Output, warn};
use crate::rows::{self, Format};
use crate::table::{counted, number};

/// Conversations that are packed and scored together; a run goes on at a multiple of it, so that its rows are the same.
const CHUNK: usize = 8;

/// Arguments of `eval ppl`.
#[derive(Debug, clap::Args, Serialize)]
#[command(mut_arg("limit", |a| a.help("Only the first K conversations")))]
pub(super) struct Args {
    /// JSON lines, or Parquet by the ending: messages, ShareGPT, Alpaca, prompt and completion, or text.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// How rows are read.
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    #[command(flatten)]
    #[serde(flatten)]
    limit: Limit,
    /// Tokens of a conversation at most, the rest is cut; the model's context without it.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(2..), allow_negative_numbers = true)]
    tokens: Option<u32>,
    /// Tell the cross-entropy at this sampling temperature too: that of softmax(z / T).
    #[arg(long, value_name = "T", value_parser = positive, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// The seed of the bootstrap.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    #[command(flatten)]
    #[serde(flatten)]
    place: Place,
}

/// Quantities of a conversation's record: sums over its tokens.
const KEYS: [&str; 5] = ["scored_tokens", "sum_ce", "sum_entropy", "sum_surrogate", "sum_right"];

/// Scores conversations.
pub(super) fn run(model: &Path, args: &Args, global: Global) -> Result<Output, Failure> {
    let kind = match args.temperature {
        // Its scalar is beta times the cross-entropy of softmax(z / beta).
        Some(beta) => LossKind::GemLinear { beta },
        None => LossKind::Ce,
    };
    let mut start = Start::new("ppl", &args.place, global)?;
    let lm = start.open(model)?;
    let examples = read(args, &lm)?;
    let done = start.records().min(examples.len()) / CHUNK * CHUNK;
    let settings = serde_json::to_value(args).map_err(|e| Failure::new(Code::Usage, e))?;
    let data = [("data", Some(args.data.as_path()))];
    let mut run = start.begin(&settings, args.seed, model, &data, done, examples.len())?;
    let mut sums: Vec<Sums> = run.earlier.iter().map(recorded).collect();
    run.work(|run| {
        for chunk in examples[sums.len()..].chunks(CHUNK) {
            run.go_on()?;
            for s in score(&lm, chunk, kind)? {
                run.record(record(&s))?;
                sums.push(s);
            }
        }
        Ok(())
    })?;
    let l = Likelihood::of(&sums, args.seed)?;
    run.finish(&told(args, &lm, &l, examples.len()))
}

/// Reads and tokenizes conversations, and warns of those that are cut or left out.
fn read(args: &Args, lm: &LanguageModel) -> Result<Vec<Example>, Failure> {
    let context = lm.decoder.config().positions;
    let max_len = args.tokens.map_or(context, |t| t as usize);
    if max_len > context {
        return Err(Failure::usage(format!(
            "--tokens {max_len}: the context of this model is {context} tokens; give at most that"
        )));
    }
    let tokenizing = Tokenizing {
        encoder: &lm.tokenizer,
        format: lm.template.as_ref().map(|t| t as _),
        eos: lm.eos.first().copied(),
        max_len,
    };
    let file = args.data.display().to_string();
    let rows = rows::open(&args.data, args.format)?.take(args.limit.rows());
    let mut examples = Vec::new();
    let take = |e| {
        examples.push(e);
        Ok(())
    };
    let usage = |e| Failure::new(Code::Usage, e);
    let intake = tokenizing.each(rows, &file, take).map_err(usage)?;
    intake.judge(&file, max_len).map_err(usage)?;
    FileIntake { file, intake }.warnings(max_len as u32).iter().for_each(|w| warn(w));
    Ok(examples)
}

fn score(lm: &LanguageModel, chunk: &[Example], kind: LossKind) -> Result<Vec<Sums>, Failure> {
    let len = chunk.iter().map(|e| e.ids.len()).max().unwrap_or(0);
    let held = HeldOut::new(chunk, len, kind).map_err(|e| Failure::new(Code::Usage, e))?;
    let scores = held.score(&lm.decoder, &lm.params, &[]).map_err(from_eval)?;
    Ok(scores.documents.iter().map(|d| Sums::of(d)).collect())
}

fn record(s: &Sums) -> Record {
    let mut r = Record::default();
    for (key, x) in KEYS.into_iter().zip([s.tokens, s.ce, s.entropy, s.surrogate, s.right]) {
        r.put(key, x);
    }
    r
}

fn recorded(r: &Record) -> Sums {
    let [tokens, ce, entropy, surrogate, right] = KEYS.map(|k| r.get(k).unwrap_or(0.0));
    Sums { tokens, ce, entropy, surrogate, right }
}

fn told(args: &Args, lm: &LanguageModel, l: &Likelihood, conversations: usize) -> Told {
    let about = format!(
        "{} on {}: {} of {}",
        lm.path.display(),
        args.data.display(),
        counted(l.tokens as u64, "trained token"),
        counted(conversations as u64, "conversation")
    );
    let mut told = Told::new("Perplexity", about);
    told.measure("cross-entropy", l.ce)
        .measure("perplexity", l.perplexity)
        .measure("entropy", l.entropy)
        .measure("token accuracy", l.accuracy)
        .put("conversations", conversations.into())
        .put("tokens", l.tokens.into());
    if let Some(t) = args.temperature {
        let over = |x: f64| x / t;
        let interval = l.surrogate.interval.map(|mut i| {
            (i.mean, i.low, i.high) = (over(i.mean), over(i.low), over(i.high));
            i
        });
        told.measure("cross-entropy at temperature", Mean { value: over(l.surrogate.value), interval })
            .put("temperature", json!(t))
            .remark(format!(
                "At temperature {}: of softmax(z / T), the model that is sampled there.",
                number(t)
            ));
    }
    told.remark("Means over tokens, in nats; intervals by drawing conversations again.");
    told
}
