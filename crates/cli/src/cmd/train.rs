//! `rhumb train`.

mod blocks;
mod finished;
pub(crate) use self::blocks::pattern;
pub(crate) mod loss;
pub(crate) mod measured;
pub(crate) mod memory;
pub(crate) mod origin;
mod pretrain;
mod session;
pub(crate) mod sft;

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use rhumb_optim::{Kind, Preset, StateFormat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::loss::{Given, Loss, NUMBERS, Number, standard};
use super::generate::{fraction, not_negative, positive, share};
use super::plan::spelled;
use crate::exit::Failure;
use crate::output::{Global, Output};
use crate::rows::Format;

/// Kinds of training.
#[derive(Debug, Subcommand, Serialize)]
pub(crate) enum Command {
    /// Supervised fine-tuning on conversations.
    #[command(after_long_help = DISK)]
    Sft(Box<Sft>),
    /// Training on token shards, from fresh weights or from those of a model.
    #[command(after_long_help = DISK)]
    Pretrain(Box<pretrain::Pretrain>),
}

const DISK: &str = "\
Disk: a checkpoint holds the trained weights, the optimizer's state and the best weights so far, 12 bytes per trained
weight with Adam-mini and 16 with AdamW. Three of them exist for a moment while one is written, two during the run, and
one, state.bin, at its end; delete it when no --resume is wanted. The folders model (the last weights) and best (those
with the lowest held-out cross-entropy, where these are others) take 4 bytes per weight of the model each.";

/// Steps of a run; more are a slip of the keyboard.
pub(crate) const MAX_STEPS: u64 = 1_000_000_000;

/// Arguments of `train sft`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Sft {
    /// Before the settings, which take their values out of what was given.
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) given: Given,
    #[command(flatten)]
    pub(crate) settings: SftSettings,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Where a run stands, and how it is kept.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Place {
    /// Folder of the run, new or empty; `runs/KIND-TIME` otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with the run in `--out`, with the same settings, model and data.
    #[arg(long, requires = "out")]
    pub(crate) resume: bool,
    /// Steps between two checkpoints; every two minutes without it.
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..=MAX_STEPS), allow_negative_numbers = true)]
    pub(crate) checkpoint_every: Option<u64>,
}

/// Settings of a fine-tuning, the same on the command line and in a recipe.
#[derive(Clone, Debug, PartialEq, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SftSettings {
    /// Folder of the model.
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) model: Option<PathBuf>,
    /// JSON lines, or Parquet by the ending: messages, ShareGPT, Alpaca, prompt and completion, or text.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) data: Option<PathBuf>,
    /// Held-out conversations in a file of the same kinds; without it a share of the data is held out.
    #[arg(long, value_name = "FILE")]
    pub(crate) eval_data: Option<PathBuf>,
    /// How rows are read.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) format: Format,
    /// A chat template in Jinja instead of the model's own; the trained model keeps it.
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    /// Conversations held out when there is no `--eval-data`.
    #[arg(long, default_value_t = 64, allow_negative_numbers = true)]
    pub(crate) held_out: usize,
    /// The optimizer: adam-mini, adamw, sgd, lion, adafactor, muon or slim-adam.
    #[arg(long, default_value = "adam-mini", value_parser = spelled::<Kind>)]
    pub(crate) optimizer: Kind,
    /// How Adam-mini cuts the model into blocks: rhumb, 1.1.1, 1.1.0, 1.0.4 or v0.
    #[arg(long, default_value = "rhumb", value_parser = spelled::<Preset>)]
    pub(crate) preset: Preset,
    /// Which rule decides over Adam-mini's blocks: the preset, or for matrices the curvature of the first, middle and last
    /// layer, measured on the first micro-batch before the training begins.
    #[arg(long, value_enum, default_value = "preset")]
    pub(crate) partition: PartitionBy,
    /// Storage of the moments of adam-mini and adamw: f32, bf16 or 8bit.
    #[arg(long, default_value = "f32", value_parser = spelled::<StateFormat>)]
    pub(crate) state: StateFormat,
    /// Decay of the first moment.
    #[arg(long, default_value_t = 0.9, value_parser = share, allow_negative_numbers = true)]
    pub(crate) beta1: f64,
    /// Decay of the second moment; language models are trained with 0.95, PyTorch's default is 0.999.
    #[arg(long, default_value_t = 0.95, value_parser = share, allow_negative_numbers = true)]
    pub(crate) beta2: f64,
    /// Added to the root of the second moment.
    #[arg(long, default_value_t = 1e-8, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) eps: f64,
    /// The loss.
    #[arg(long, value_enum, default_value = "ce")]
    pub(crate) loss: Loss,
    /// The temperature inside GEM, below 1 to keep diversity.
    #[arg(long, default_value_t = standard("beta"), requires = "loss", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) beta: f64,
    /// Weight of the entropy in ce+entropy.
    #[arg(long, default_value_t = standard("lambda"), requires = "loss", value_parser = not_negative, allow_negative_numbers = true)]
    pub(crate) lambda: f64,
    /// Share of a label that label-smoothing spreads over the vocabulary, below 1.
    #[arg(long, default_value_t = standard("smoothing"), requires = "loss", value_parser = share, allow_negative_numbers = true)]
    pub(crate) smoothing: f64,
    /// Size of the noise of neft on the token embeddings.
    #[arg(long, default_value_t = standard("noise-alpha"), requires = "loss", value_parser = not_negative, allow_negative_numbers = true)]
    pub(crate) noise_alpha: f64,
    /// Train low-rank adapters of this rank instead of the weights.
    #[arg(long, value_name = "RANK", conflicts_with = "full", value_parser = clap::value_parser!(u32).range(1..=65536), allow_negative_numbers = true)]
    pub(crate) lora: Option<u32>,
    /// Train every weight (the default).
    #[arg(long)]
    pub(crate) full: bool,
    /// Scale of the adapters; twice the rank without it.
    #[arg(long, requires = "lora", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) lora_alpha: Option<f64>,
    /// Projections that get an adapter, as in `q_proj,v_proj`; all of attention and feed-forward without it.
    #[arg(long, value_name = "NAMES", requires = "lora", value_delimiter = ',')]
    pub(crate) lora_targets: Vec<String>,
    /// Steps; the number of epochs decides without it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_STEPS), allow_negative_numbers = true)]
    pub(crate) steps: Option<u64>,
    /// Passes over the data.
    #[arg(long, default_value_t = 1.0, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) epochs: f64,
    /// Packed rows of a micro-batch (batch size per device).
    #[arg(long, visible_alias = "batch-size", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65536), allow_negative_numbers = true)]
    pub(crate) batch: u32,
    /// Micro-batches of a step: a step trains on batch x accumulate rows, every trained token weighing the same.
    #[arg(long, visible_alias = "gradient-accumulation-steps", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536), allow_negative_numbers = true)]
    pub(crate) accumulate: u32,
    /// Tokens of a packed row, at most the model's context; longer conversations are cut.
    #[arg(long, visible_alias = "max-seq-len", default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..=1_048_576), allow_negative_numbers = true)]
    pub(crate) tokens: u32,
    /// The largest learning rate.
    #[arg(long, default_value_t = 2e-5, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) lr: f64,
    /// How the learning rate falls after the warm-up.
    #[arg(long, value_enum, default_value = "cosine")]
    pub(crate) schedule: ScheduleName,
    /// Share of the steps, rounded to w steps, in which the learning rate rises: lr (k + 1) / (w + 1) in step k.
    #[arg(long, visible_alias = "warmup-ratio", default_value_t = 0.03, value_parser = share, allow_negative_numbers = true)]
    pub(crate) warmup: f64,
    /// Weight decay, decoupled but for sgd; norms and biases are spared.
    #[arg(long, default_value_t = 0.0, value_parser = not_negative, allow_negative_numbers = true)]
    pub(crate) weight_decay: f64,
    /// Largest global norm of the gradient; 0 does not clip. Refused together with `--update-in-backward`.
    #[arg(long, visible_alias = "max-grad-norm", default_value_t = 1.0, value_parser = not_negative, allow_negative_numbers = true)]
    pub(crate) clip: f64,
    /// Dropout; 0 only, since the decoders have none.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) dropout: f64,
    /// Update every tensor during the backward pass and free its gradient.
    #[arg(long)]
    pub(crate) update_in_backward: bool,
    /// Compute the activations of every layer twice instead of keeping them.
    #[arg(long, visible_alias = "gradient-checkpointing")]
    pub(crate) recompute: bool,
    /// Steps between two evaluations.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=MAX_STEPS), allow_negative_numbers = true)]
    pub(crate) eval_every: u64,
    /// Share of memory that the estimate may reach before the run is refused.
    #[arg(long, default_value_t = 0.9, value_parser = fraction, allow_negative_numbers = true)]
    pub(crate) memory_share: f64,
    /// The seed of the split, the order and the adapters.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) seed: u64,
}

impl Default for SftSettings {
    fn default() -> Self {
        SftSettings {
            model: None,
            data: None,
            eval_data: None,
            format: Format::default(),
            template: None,
            held_out: 64,
            optimizer: Kind::default(),
            preset: Preset::default(),
            partition: PartitionBy::default(),
            state: StateFormat::default(),
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            loss: Loss::default(),
            beta: standard("beta"),
            lambda: standard("lambda"),
            smoothing: standard("smoothing"),
            noise_alpha: standard("noise-alpha"),
            lora: None,
            full: false,
            lora_alpha: None,
            lora_targets: Vec::new(),
            steps: None,
            epochs: 1.0,
            batch: 8,
            accumulate: 1,
            tokens: 256,
            lr: 2e-5,
            schedule: ScheduleName::default(),
            warmup: 0.03,
            weight_decay: 0.0,
            clip: 1.0,
            dropout: 0.0,
            update_in_backward: false,
            recompute: false,
            eval_every: 20,
            memory_share: 0.9,
            seed: 0,
        }
    }
}

impl SftSettings {
    /// The numbers of the losses, under the names of their flags.
    pub(crate) fn numbers(&self) -> [Number; 4] {
        let [beta, lambda, smoothing, noise] = NUMBERS;
        [(beta, self.beta), (lambda, self.lambda), (smoothing, self.smoothing), (noise, self.noise_alpha)]
    }
}

/// What decides over Adam-mini's blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PartitionBy {
    /// `--preset`.
    #[default]
    Preset,
    /// Curvature.
    Measured,
}

/// Schedules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ScheduleName {
    /// Half a cosine down to zero.
    #[default]
    Cosine,
    /// A straight line down to zero.
    Linear,
    /// No fall.
    Constant,
    /// No fall, then a straight line down to zero over the last fifth of the steps.
    Wsd,
    /// With the root of the step, from the end of the warm-up on.
    InverseSqrt,
}

/// Trains.
pub(crate) fn run(command: &Command, global: Global) -> Result<Output, Failure> {
    match command {
        Command::Sft(args) => sft::run(args, global),
        Command::Pretrain(args) => pretrain::run(args, global),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: SftSettings,
    }

    #[test]
    fn a_recipe_and_a_command_line_have_the_same_defaults() {
        let line = Line::try_parse_from(["sft", "--model", "m", "--data", "d"]).unwrap().settings;
        let recipe: SftSettings = toml::from_str("model = 'm'\ndata = 'd'").unwrap();
        assert_eq!(line, recipe);
        let bare: SftSettings = toml::from_str("").unwrap();
        assert_eq!(bare, SftSettings::default());
        assert!(Line::try_parse_from(["sft", "--model", "m"]).is_err());
        assert!(Line::try_parse_from(["sft", "--data", "d"]).is_err());
    }

    #[test]
    fn adapters_and_full_training_exclude_each_other() {
        assert!(
            Line::try_parse_from(["sft", "--model", "m", "--data", "d", "--lora", "8", "--full"]).is_err()
        );
        assert!(Line::try_parse_from(["sft", "--model", "m", "--data", "d", "--lora-alpha", "8"]).is_err());
    }
}
