//! `rhumb generate`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Instant;

use rhumb_io::complete::{CompleteError, Completion, Limits, complete, complete_all};
use rhumb_io::template::Message;
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
    /// Answers to the same prompt; where nobody watches, they grow side by side.
    #[arg(short = 'n', default_value_t = 1, conflicts_with = "greedy", value_parser = clap::value_parser!(u32).range(1..=65536), allow_negative_numbers = true)]
    pub(crate) n: u32,
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
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p", "seed"])]
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
    /// Above 1, tokens of the prompt and the answer become less likely: their logits are divided by it where positive
    /// and multiplied where negative.
    #[arg(long, default_value_t = 1.0, value_name = "F", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) repetition_penalty: f64,
    /// The seed of the draws.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// A text that ends the answer before it; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
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
    let mut samplers = samplers(&config, args.n, &prompt)?;
    let limits = Limits { eos: &lm.eos, stop: &args.sampling.stop, max_new: args.max_new as usize };
    let label = |i: usize| if args.n > 1 { format!("[{}] ", i + 1) } else { String::new() };
    let mut text = String::new();
    let mut completions = Vec::new();
    if live {
        for (i, sampler) in samplers.iter_mut().enumerate() {
            session.truncate(prompt.len());
            print(&label(i))?;
            completions.push(complete(&lm.tokenizer, &mut session, &first, sampler, limits, &mut print)?);
            print("\n")?;
        }
    } else {
        // Rounding differs between one and several at a time; who asks for one gets what a watcher sees.
        completions = complete_all(&lm.tokenizer, &mut session, &first, &mut samplers, limits)?;
        for (i, c) in completions.iter().enumerate() {
            text.push_str(&format!("{}{}\n", label(i), c.text));
        }
    }
    let decode = start.elapsed().saturating_sub(prefill).as_secs_f64();
    let new: usize = completions.iter().map(|c| c.ids.len()).sum();
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
        "completions": completions.iter().map(shown).collect::<Vec<_>>(),
    });
    Ok(Output::new(text, json))
}

/// Prints at once.
pub(crate) fn print(piece: &str) -> Result<(), Failure> {
    stream(piece).map_err(|e| Failure::usage(format!("cannot write the answer: {e}")))
}

fn shown(c: &Completion) -> serde_json::Value {
    json!({ "ids": c.ids, "text": c.text, "tokens": c.ids.len(), "stop": c.stop })
}

/// A sampler for every answer; asking for more answers never changes the earlier ones.
pub(crate) fn samplers(config: &SamplerConfig, n: u32, prompt: &[u32]) -> Result<Vec<Sampler>, Failure> {
    (0..n)
        .map(|i| {
            let mut sampler = Sampler::of_completion(config.clone(), u64::from(i))
                .map_err(|e| Failure::new(Code::Usage, e))?;
            sampler.see(prompt);
            Ok(sampler)
        })
        .collect()
}

impl From<CompleteError> for Failure {
    fn from(e: CompleteError) -> Self {
        match e {
            CompleteError::Eval(e) => from_eval(e),
            CompleteError::Sample(e) => Failure::new(Code::Numerical, e),
        }
    }
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

pub(crate) fn sampler_config(s: &Sampling) -> SamplerConfig {
    SamplerConfig {
        greedy: s.greedy,
        temperature: s.temperature,
        top_k: s.top_k.map_or(0, |k| k as usize),
        top_p: s.top_p.unwrap_or(1.0),
        min_p: s.min_p.unwrap_or(0.0),
        repetition_penalty: s.repetition_penalty,
        seed: s.seed,
    }
}
