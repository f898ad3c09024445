//! `rhumb plan --fit`: the largest decoder whose fine-tuning fits in a given memory.

use std::path::PathBuf;

use rhumb_nn::model::{Decoder, DecoderConfig};
use rhumb_optim::{Kind, Preset, StateFormat};
use serde::Serialize;
use serde_json::json;

use super::family::Family;
use crate::cmd::generate::fraction;
use crate::cmd::train::SftSettings;
use crate::cmd::train::memory::Estimate;
use crate::cmd::train::sft::setup;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Table, bytes, number};

/// Limits of memory, and the training that has to fit.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Fit {
    /// The largest decoder whose fine-tuning fits in each of these limits, e.g. 8GiB,24GiB, with AdamW and Adam-mini. The
    /// estimate is the one by which `train sft` refuses. Decoders have the proportions of `--model`, or of Llama.
    #[arg(long = "fit", value_name = "LIMITS", value_delimiter = ',', value_parser = size,
          conflicts_with_all = ["ranks", "optimizer", "state", "shard", "stage"], allow_negative_numbers = true)]
    limits: Vec<Size>,
    /// Packed rows of a micro-batch.
    #[arg(long, requires = "limits", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536), allow_negative_numbers = true)]
    batch: u32,
    /// Tokens of a row.
    #[arg(long, requires = "limits", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..=1_048_576), allow_negative_numbers = true)]
    tokens: u32,
    /// Compute the activations of every layer twice instead of keeping them.
    #[arg(long, requires = "limits")]
    recompute: bool,
    /// Share of the limit that the estimate may reach.
    #[arg(long, requires = "limits", default_value_t = 0.9, value_parser = fraction, allow_negative_numbers = true)]
    memory_share: f64,
    /// Tokens of the vocabulary.
    #[arg(long, requires = "limits", conflicts_with = "model", default_value_t = 49152, value_parser = clap::value_parser!(u32).range(1..=16_777_216), allow_negative_numbers = true)]
    vocab: u32,
}

/// A number of bytes as it was written.
#[derive(Clone, Debug, Serialize)]
struct Size {
    text: String,
    bytes: u64,
}

const UNITS: [(&str, f64); 9] = [
    ("B", 1.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];
/// No machine has as much, and the numbers of its decoders stay describable.
const MOST: f64 = 4.0 * 1_099_511_627_776.0;

fn size(text: &str) -> Result<Size, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (amount, unit) = text.split_at(digits);
    let amount: Option<f64> = amount.parse().ok();
    let unit = UNITS.iter().find(|u| u.0.eq_ignore_ascii_case(unit.trim())).map(|u| u.1);
    let (Some(amount), Some(unit)) = (amount, unit) else {
        return Err("give a size with its unit, such as 8GiB or 500MB".to_owned());
    };
    let bytes = amount * unit;
    if !(1.0..=MOST).contains(&bytes) {
        return Err("give a size above 0 and at most 4TiB".to_owned());
    }
    Ok(Size { text: text.to_owned(), bytes: bytes as u64 })
}

/// A way to train.
#[derive(Clone, Copy, Debug, Serialize)]
struct Setting {
    optimizer: Kind,
    state: StateFormat,
    update_in_backward: bool,
}

impl Setting {
    /// AdamW first: the others are compared with it.
    fn all() -> impl Iterator<Item = Setting> {
        [Kind::AdamW, Kind::AdamMini].into_iter().flat_map(|optimizer| {
            [(StateFormat::Full, false), (StateFormat::Full, true), (StateFormat::Bf16, true)]
                .map(|(state, update_in_backward)| Setting { optimizer, state, update_in_backward })
        })
    }

    fn name(self) -> String {
        let state = if self.state == StateFormat::Bf16 { ", bf16 state" } else { "" };
        let when = if self.update_in_backward { ", in backward" } else { "" };
        format!("{}{when}{state}", self.optimizer.name())
    }
}

/// The largest decoder of a limit and a setting.
#[derive(Debug, Serialize)]
struct Largest {
    limit: Size,
    #[serde(flatten)]
    setting: Setting,
    width: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    ffn: usize,
    parameters: usize,
    peak: u64,
    /// Parameters over those with AdamW.
    ratio: f64,
    estimate: Estimate,
}

impl Fit {
    /// Whether it is asked for.
    pub(super) fn is_asked(&self) -> bool {
        !self.limits.is_empty()
    }

    fn settings(&self, preset: Preset, s: Setting) -> SftSettings {
        SftSettings {
            optimizer: s.optimizer,
            preset,
            state: s.state,
            update_in_backward: s.update_in_backward,
            clip: if s.update_in_backward { 0.0 } else { 1.0 },
            batch: self.batch,
            tokens: self.tokens,
            recompute: self.recompute,
            memory_share: self.memory_share,
            ..SftSettings::default()
        }
    }

    fn largest(
        &self,
        family: &Family,
        limit: &Size,
        of: Setting,
        preset: Preset,
    ) -> Result<Largest, Failure> {
        let settings = self.settings(preset, of);
        let estimate = |config: DecoderConfig| {
            let decoder = Decoder::new(config).map_err(|e| Failure::new(Code::Usage, e))?;
            let decoder = setup::trained(&settings, &decoder)?;
            let estimate = setup::memory(&settings, &decoder)?;
            Ok::<_, Failure>((decoder, estimate))
        };
        let fits = |config| Ok(estimate(config)?.1.fits(limit.bytes, self.memory_share));
        let Some(config) = family.largest(fits)? else {
            let smallest = family.smallest();
            return Err(Failure::usage(format!(
                "--fit {}: not even {} layer(s) of width {} with a vocabulary of {} fit, which need about {} with {}, and may \
                 use {} of the limit: give a larger one",
                limit.text,
                smallest.layers,
                smallest.width,
                smallest.vocab,
                bytes(estimate(smallest.clone())?.1.peak()),
                of.name(),
                bytes((limit.bytes as f64 * self.memory_share) as u64),
            )));
        };
        let (decoder, estimate) = estimate(config.clone())?;
        Ok(Largest {
            limit: limit.clone(),
            setting: of,
            width: config.width,
            layers: config.layers,
            heads: config.heads,
            kv_heads: config.kv_heads,
            ffn: config.ffn,
            parameters: decoder.layout().len(),
            peak: estimate.peak(),
            ratio: 1.0,
            estimate,
        })
    }

    /// The table of all limits and settings.
    pub(super) fn run(&self, model: Option<(&PathBuf, &Decoder)>, preset: Preset) -> Result<Output, Failure> {
        let family = match model {
            Some((_, decoder)) => Family::of(decoder.config()),
            None => Family::llama(self.vocab as usize, self.tokens as usize),
        };
        let mut rows: Vec<Largest> = Vec::new();
        for limit in &self.limits {
            let mut of_adamw = None;
            for setting in Setting::all() {
                let mut found = self.largest(&family, limit, setting, preset)?;
                found.ratio = found.parameters as f64 / *of_adamw.get_or_insert(found.parameters) as f64;
                rows.push(found);
            }
        }
        let mut table =
            Table::new(["limit", "setting", "width x layers", "parameters", "peak", "over AdamW"]);
        for r in &rows {
            table.row([
                r.limit.text.clone(),
                r.setting.name(),
                format!("{} x {}", r.width, r.layers),
                r.parameters.to_string(),
                bytes(r.peak),
                number((r.ratio * 1000.0).round() / 1000.0),
            ]);
        }
        let shape = match model {
            Some((path, _)) => format!("the proportions of {}", path.display()),
            None => format!(
                "Llama's shape, heads of 64, a tied vocabulary of {}; rhumb model new --tokenizer MODEL --width W --heads W/64 \
                 --layers L writes one",
                self.vocab
            ),
        };
        let text = format!(
            "{}\nFine-tuning of every weight, {} x {} tokens a micro-batch{}. The predicted peak is at most {} of the limit, as \
             rhumb train sft demands.\nIn backward: --update-in-backward --clip 0; bf16 state: --state bf16.\nDecoders of {shape}; \
             width over layers from 2/3 to 4/3 of {}.\n",
            table.render(),
            self.batch,
            self.tokens,
            if self.recompute { ", activations computed twice" } else { "" },
            self.memory_share,
            number(family.steepness()),
        );
        let json = json!({
            "model": model.map(|m| m.0), "batch": self.batch, "tokens": self.tokens, "recompute": self.recompute,
            "memory_share": self.memory_share, "fit": rows,
        });
        Ok(Output::new(text, json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_are_neither_nothing_nor_absurd() {
        let of = |t| size(t).map(|s| s.bytes);
        assert_eq!(of("8GiB"), Ok(8 << 30));
        assert_eq!(of(" 1.5 gb"), Ok(1_500_000_000));
        assert_eq!(of("700MB"), Ok(700_000_000));
        for bad in ["8", "apples", "8 apples", "GiB", "1.2.3GB", "-8GiB", "1e3GB", ""] {
            assert!(of(bad).is_err_and(|e| e.contains("such as 8GiB")), "{bad}");
        }
        for bad in ["0B", "0GiB", "0.1B", "5TiB"] {
            assert!(of(bad).is_err_and(|e| e.contains("at most 4TiB")), "{bad}");
        }
    }
}
