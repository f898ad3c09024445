//! `rhumb score`.

use std::path::PathBuf;

use rhumb_nn::loss::RowStats;
use rhumb_nn::model::{TokenBatch, score};
use serde::Serialize;
use serde_json::json;

use super::generate::{not_negative, positive, share};
use super::train::loss::{Given, Loss, standard};
use crate::exit::{Code, Failure, read_text};
use crate::lm::{LanguageModel, from_eval};
use crate::output::{Global, Output};
use crate::table::{Table, counted, number};

/// Arguments of `score`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Args {
    /// Before the numbers, which are taken out of what was given.
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) given: Given,
    /// Folder or GGUF file of the model.
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) text: Input,
    /// A loss besides cross-entropy.
    #[arg(long, value_enum)]
    pub(crate) loss: Option<Loss>,
    /// The temperature inside GEM.
    #[arg(long, default_value_t = standard("beta"), requires = "loss", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) beta: f64,
    /// Weight of the entropy in ce+entropy.
    #[arg(long, default_value_t = standard("lambda"), requires = "loss", value_parser = not_negative, allow_negative_numbers = true)]
    pub(crate) lambda: f64,
    /// Share of a label that label-smoothing spreads over the vocabulary, below 1.
    #[arg(long, default_value_t = standard("smoothing"), requires = "loss", value_parser = share, allow_negative_numbers = true)]
    pub(crate) smoothing: f64,
}

/// What is scored.
#[derive(Debug, clap::Args, Serialize)]
#[group(required = true, multiple = false)]
pub(crate) struct Input {
    /// A text.
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// A text file.
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
}

/// Longest text whose tokens are listed one by one for people.
const LISTED: usize = 200;

/// Scores a text token by token.
pub(crate) fn run(args: &Args, _global: Global) -> Result<Output, Failure> {
    let text = match (&args.text.text, &args.text.file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => read_text(file)?,
        (None, None) => String::new(),
    };
    let loss = args.loss.unwrap_or_default();
    let numbers = [("beta", args.beta), ("lambda", args.lambda), ("smoothing", args.smoothing)];
    Loss::refuse_idle(&[loss], &numbers, &args.given)?;
    let kind = loss.kind(&numbers)?;
    let lm = LanguageModel::open(&args.model)?;
    let ids = lm.tokenizer.encode_with_special(&text).map_err(|e| Failure::new(Code::Usage, e))?;
    if ids.len() < 2 {
        return Err(Failure::usage(format!(
            "the text has {}: a score needs a token and one after it, so give a longer text",
            counted(ids.len() as u64, "token")
        )));
    }
    let room = lm.decoder.config().positions;
    if ids.len() > room {
        return Err(Failure::usage(format!(
            "the text has {} tokens and the model's context {room}: shorten the text, or score it in parts",
            ids.len()
        )));
    }
    let batch = TokenBatch::causal(1, ids.len(), ids.clone());
    let scores = score(&lm.decoder, &lm.params, &[], &batch, kind).map_err(from_eval)?;
    let stats: Vec<RowStats> = scores.iter().map(|s| s.stats).collect();
    if stats.iter().any(|s| !s.loss.is_finite() || !s.ce.is_finite()) {
        let what = "the loss of a token is not finite: the weights or the activations overflowed";
        return Err(Failure::new(Code::Numerical, anyhow::Error::msg(what)));
    }
    let column = |f: fn(&RowStats) -> f64| stats.iter().map(f).collect::<Vec<f64>>();
    let mean = |f: fn(&RowStats) -> f64| stats.iter().map(f).sum::<f64>() / stats.len() as f64;
    let (ce, entropy) = (mean(|s| s.ce), mean(|s| s.entropy));
    let mut json = json!({
        "ids": ids,
        "ce": column(|s| s.ce),
        "ce_mean": ce,
        "entropy": column(|s| s.entropy),
        "entropy_mean": entropy,
    });
    let mut summary = Table::new(["mean over tokens", "nats"]);
    summary.row(["cross-entropy".to_owned(), number(ce)]).row(["entropy".to_owned(), number(entropy)]);
    let (name, entry) = (kind.name(), kind.entry());
    let more = loss != Loss::CE;
    if more {
        json[name] = json!(mean(|s| s.loss));
        json[format!("{name}_tokens")] = json!(column(|s| s.loss));
        json["surrogate_mean"] = json!(mean(|s| s.surrogate));
        let mut title = name.to_owned();
        if let Some((name, x)) =
            numbers.iter().find(|(name, _)| entry.parameter.is_some_and(|p| p.name == *name))
        {
            json[*name] = json!(x);
            title += &format!(", {name} {}", number(*x));
        }
        summary.row([title, number(mean(|s| s.loss))]);
        if !entry.lowers_ce() {
            summary.row([entry.lowers.to_owned(), number(mean(|s| s.surrogate))]);
        }
    }

    let mut text = String::new();
    if stats.len() <= LISTED {
        let mut header = vec!["id", "token", "cross-entropy", "entropy"];
        header.extend(more.then_some(name));
        let mut table = Table::new(header);
        for (s, id) in stats.iter().zip(&ids[1..]) {
            let token = lm.tokenizer.decode(&[*id], false).unwrap_or_default();
            let mut row = vec![id.to_string(), format!("{token:?}"), number(s.ce), number(s.entropy)];
            row.extend(more.then(|| number(s.loss)));
            table.row(row);
        }
        text = table.render() + "\n";
    }
    text += &format!(
        "{}\n{} of {} tokens scored (nothing precedes the first); perplexity {}\n",
        summary.render(),
        stats.len(),
        ids.len(),
        number(ce.exp())
    );
    Ok(Output::new(text, json))
}
