//! `rhumb score`.

use std::path::PathBuf;

use rhumb_nn::loss::{LossKind, RowStats};
use rhumb_nn::model::{TokenBatch, score};
use serde::Serialize;
use serde_json::json;

use super::generate::positive;
use super::train::Loss;
use crate::exit::{Code, Failure, read_text};
use crate::lm::{LanguageModel, from_eval};
use crate::output::{Global, Output};
use crate::table::{Table, counted, number};

/// Arguments of `score`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Args {
    /// Folder or GGUF file of the model.
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) text: Input,
    /// A loss besides cross-entropy.
    #[arg(long, value_enum)]
    pub(crate) loss: Option<Loss>,
    /// The temperature inside GEM.
    #[arg(long, default_value_t = 0.7, requires = "loss", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) beta: f64,
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
    if args.loss == Some(Loss::Ce) && (args.beta - 0.7).abs() > 0.0 {
        return Err(Failure::usage(format!(
            "--beta {} says nothing about --loss ce: choose gem-linear or gem-logsigmoid, or leave it out",
            args.beta
        )));
    }
    let kind = LossKind::parse(args.loss.map_or("ce", loss_name), args.beta)
        .map_err(|e| Failure::new(Code::Usage, e))?;
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
    let gem = kind != LossKind::Ce;
    if gem {
        let name = kind.name();
        json[name] = json!(mean(|s| s.loss));
        json[format!("{name}_tokens")] = json!(column(|s| s.loss));
        json["surrogate_mean"] = json!(mean(|s| s.surrogate));
        json["beta"] = json!(args.beta);
        summary
            .row([format!("{name}, beta {}", number(args.beta)), number(mean(|s| s.loss))])
            .row(["beta x cross-entropy at temperature beta".to_owned(), number(mean(|s| s.surrogate))]);
    }

    let mut text = String::new();
    if stats.len() <= LISTED {
        let mut header = vec!["id", "token", "cross-entropy", "entropy"];
        header.extend(gem.then(|| kind.name()));
        let mut table = Table::new(header);
        for (s, id) in stats.iter().zip(&ids[1..]) {
            let token = lm.tokenizer.decode(&[*id], false).unwrap_or_default();
            let mut row = vec![id.to_string(), format!("{token:?}"), number(s.ce), number(s.entropy)];
            row.extend(gem.then(|| number(s.loss)));
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

fn loss_name(loss: Loss) -> &'static str {
    match loss {
        Loss::Ce => "ce",
        Loss::GemLinear => "gem-linear",
        Loss::GemLogSigmoid => "gem-logsigmoid",
    }
}
