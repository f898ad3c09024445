//! `rhumb generate`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Instant;

use rhumb_nn::io::template::Message;
use rhumb_nn::model::Session;
use rhumb_nn::sample::{Sampler, SamplerConfig};
use serde::Serialize;
use serde_json::json;

use crate::exit::{Code, Failure};
use crate::lm::{LanguageModel, from_eval};
use crate::output::{Global, Output, stream};
use crate::table::{number, seconds};

/// Arguments of `generate`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Args {
    /// Folder or GGUF file of the model.
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) text: Input,
    /// A chat template in Jinja instead of the model's own.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub(crate) template: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// New tokens at most.
    #[arg(long, default_value_t = 128, value_name = "K", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(crate) max_new: u32,
}

/// What the model goes on with.
#[derive(Debug, clap::Args, Serialize)]
#[group(required = true, multiple = false)]
pub(crate) struct Input {
    /// A user's message, put into the chat template of the model.
    #[arg(long, value_name = "TEXT")]
    pub(crate) chat: Option<String>,
    /// A text to go on with as it is.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
}

/// How the next token is chosen.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Sampling {
    /// Always the most likely token.
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p", "seed", "n"])]
    pub(crate) greedy: bool,
    /// Divides the logits; above 1 is more varied.
    #[arg(long, default_value_t = 1.0, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) temperature: f64,
    /// Only the K most likely tokens.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(crate) top_k: Option<u32>,
    /// Only the most likely tokens that together have this probability.
    #[arg(long, value_name = "P", value_parser = fraction, allow_negative_numbers = true)]
    pub(crate) top_p: Option<f64>,
    /// Only tokens with at least this share of the probability of the most likely one.
    #[arg(long, value_name = "P", value_parser = fraction, allow_negative_numbers = true)]
    pub(crate) min_p: Option<f64>,
    /// The seed of the draws.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// Answers.
    #[arg(short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(crate) n: u32,
}

/// A number above zero.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let x: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if x.is_finite() && x > 0.0 { Ok(x) } else { Err("give a finite number above 0".to_owned()) }
}

/// A number of at least zero.
pub(crate) fn not_negative(text: &str) -> Result<f64, String> {
    let x: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if x.is_finite() && x >= 0.0 { Ok(x) } else { Err("give a finite number of at least 0".to_owned()) }
}

/// A number in [0, 1].
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let x = not_negative(text)?;
    if x <= 1.0 { Ok(x) } else { Err("give a share, at least 0 and at most 1".to_owned()) }
}

/// A number in (0, 1].
pub(crate) fn fraction(text: &str) -> Result<f64, String> {
    let x = positive(text)?;
    if x <= 1.0 { Ok(x) } else { Err("give a number above 0 and at most 1".to_owned()) }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Stop {
    /// The model ended it.
    Eos,
    /// `--max-new` was reached.
    MaxNew,
    /// The context is full.
    Context,
}

/// One answer.
#[derive(Debug, Serialize)]
struct Completion {
    /// Its tokens, the one that ended it included.
    ids: Vec<u32>,
    /// Its text without special tokens.
    text: String,
    /// How many tokens.
    tokens: usize,
    /// Why it ended.
    stop: Stop,
}

/// Lets the model answer.
pub(crate) fn run(args: &Args, global: Global) -> Result<Output, Failure> {
    let config = sampler_config(&args.sampling);
    config.validate().map_err(|e| Failure::new(Code::Usage, e))?;
    let lm = LanguageModel::open_with(&args.model, args.template.as_deref())?;
    let prompt = prompt_ids(&lm, &args.text)?;
    let room = lm.decoder.config().positions;
    if prompt.len() >= room {
        return Err(Failure::usage(format!(
            "the prompt has {} tokens and the model's context {room}: shorten the prompt",
            prompt.len()
        )));
    }
    let capacity = prompt.len().saturating_add(args.max_new as usize).min(room);
    let live = !global.json && std::io::stdout().is_terminal();

    let start = Instant::now();
    let mut session = Session::new(&lm.decoder, &lm.params, &[], capacity);
    let first = session.push(&prompt).map_err(from_eval)?;
    let prefill = start.elapsed();
    let mut text = String::new();
    let mut completions = Vec::new();
    for index in 0..args.sampling.n {
        session.truncate(prompt.len());
        let mut sampler = Sampler::of_completion(config.clone(), u64::from(index))
            .map_err(|e| Failure::new(Code::Usage, e))?;
        if args.sampling.n > 1 {
            show(live, &mut text, &format!("[{}] ", index + 1))?;
        }
        let mut piece = |p: &str| show(live, &mut text, p);
        completions.push(complete(
            &lm,
            &mut session,
            &first,
            &mut sampler,
            args.max_new as usize,
            &mut piece,
        )?);
        show(live, &mut text, "\n")?;
    }
    let decode = start.elapsed().saturating_sub(prefill).as_secs_f64();
    let new: usize = completions.iter().map(|c| c.tokens).sum();
    if live {
        global.note(&format!(
            "{} prompt tokens in {}, {new} new ones at {} tokens/s",
            prompt.len(),
            seconds(prefill.as_secs_f64()),
            number((10.0 * new as f64 / decode.max(1e-9)).round() / 10.0)
        ));
    }
    let json = json!({
        "prompt_ids": prompt,
        "prompt_tokens": prompt.len(),
        "new_tokens": new,
        "completions": completions,
    });
    Ok(Output::new(text, json))
}

/// Prints at once where somebody watches, and keeps the text otherwise.
fn show(live: bool, text: &mut String, piece: &str) -> Result<(), Failure> {
    if live {
        return stream(piece).map_err(|e| Failure::usage(format!("cannot write the answer: {e}")));
    }
    text.push_str(piece);
    Ok(())
}

/// The tokens before the answer.
fn prompt_ids(lm: &LanguageModel, input: &Input) -> Result<Vec<u32>, Failure> {
    let ids = if let Some(message) = &input.chat {
        let text = lm
            .chat()?
            .render(&[Message::new("user", message)], true)
            .map_err(|e| Failure::new(Code::Usage, e))?;
        // The template prints the special tokens itself.
        lm.tokenizer.encode(&text)
    } else {
        lm.tokenizer.encode_with_special(input.prompt.as_deref().unwrap_or_default())
    };
    let ids = ids.map_err(|e| Failure::new(Code::Usage, e))?;
    if ids.is_empty() {
        return Err(Failure::usage("the prompt has no tokens: give a text to go on with"));
    }
    Ok(ids)
}

fn sampler_config(s: &Sampling) -> SamplerConfig {
    SamplerConfig {
        greedy: s.greedy,
        temperature: s.temperature,
        top_k: s.top_k.map_or(0, |k| k as usize),
        top_p: s.top_p.unwrap_or(1.0),
        min_p: s.min_p.unwrap_or(0.0),
        seed: s.seed,
    }
}

/// One answer after a prompt whose next scores are `first`.
fn complete(
    lm: &LanguageModel,
    session: &mut Session<'_, f32>,
    first: &[f32],
    sampler: &mut Sampler,
    max_new: usize,
    piece: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<Completion, Failure> {
    let room = lm.decoder.config().positions;
    let mut told = lm.tokenizer.stream(true);
    let (mut ids, mut text) = (Vec::new(), String::new());
    let mut logits = first.to_vec();
    let stop = loop {
        let id = sampler.next(&logits).map_err(|e| Failure::new(Code::Numerical, e))?;
        ids.push(id);
        if lm.eos.contains(&id) {
            break Stop::Eos;
        }
        if let Some(p) = told.push(id) {
            piece(&p)?;
            text.push_str(&p);
        }
        if ids.len() == max_new {
            break Stop::MaxNew;
        }
        if session.len() == room {
            break Stop::Context;
        }
        logits = session.push(&[id]).map_err(from_eval)?;
    };
    if let Some(p) = told.finish() {
        piece(&p)?;
        text.push_str(&p);
    }
    Ok(Completion { tokens: ids.len(), ids, text, stop })
}
