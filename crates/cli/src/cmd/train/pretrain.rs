//! `rhumb train pretrain`: from token shards to a model folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rhumb_io::tokens::{TokenShards, fingerprint};
use rhumb_lm::pretrain::Windows;
use rhumb_lm::sft::Sft;
use rhumb_optim::{Kind as Optimizer, Preset, StateFormat};
use serde::Serialize;

use super::session::{Kind, Session, too_large};
use super::sft::setup::{check, config_for, trained};
use super::{MAX_STEPS, PartitionBy, Place, ScheduleName, SftSettings, origin};
use crate::cmd::generate::{fraction, not_negative, positive, share};
use crate::cmd::plan::spelled;
use crate::exit::{Code, Failure};
use crate::interrupt;
use crate::lm::{self, LanguageModel, from_io};
use crate::output::{Global, Output};
use crate::table::{bytes, counted};

const KIND: Kind = Kind {
    name: "train/pretrain",
    label: "pretrain",
    title: "Pre-training",
    what: "pre-training",
    unit: "window",
    try_it: "--prompt \"The\" --temperature 0.7",
};

/// Arguments of `train pretrain`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Pretrain {
    #[command(flatten)]
    settings: PretrainSettings,
    #[command(flatten)]
    place: Place,
}

/// Settings of a pre-training.
#[derive(Clone, Debug, clap::Args, Serialize)]
struct PretrainSettings {
    /// Folder of the model to start from; `rhumb model new` makes one with fresh weights.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of token shards; `rhumb data tokenize` makes them.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Windows held out, at the end of the shards.
    #[arg(long, default_value_t = 64, allow_negative_numbers = true)]
    held_out: usize,
    /// Do not let documents that share a window see each other.
    #[arg(long)]
    separate_documents: bool,
    /// The optimizer: adam-mini, adamw, sgd, lion, adafactor, muon or slim-adam.
    #[arg(long, default_value = "adam-mini", value_parser = spelled::<Optimizer>)]
    optimizer: Optimizer,
    /// How Adam-mini cuts the model into blocks: rhumb, 1.1.1, 1.1.0, 1.0.4 or v0.
    #[arg(long, default_value = "rhumb", value_parser = spelled::<Preset>)]
    preset: Preset,
    /// Which rule decides over Adam-mini's blocks: the preset, or for matrices the curvature of the first, middle and last
    /// layer, measured on the first micro-batch before the training begins.
    #[arg(long, value_enum, default_value = "preset")]
    partition: PartitionBy,
    /// Storage of the moments of adam-mini and adamw: f32, bf16 or 8bit.
    #[arg(long, default_value = "f32", value_parser = spelled::<StateFormat>)]
    state: StateFormat,
    /// Decay of the first moment.
    #[arg(long, default_value_t = 0.9, value_parser = share, allow_negative_numbers = true)]
    beta1: f64,
    /// Decay of the second moment.
    #[arg(long, default_value_t = 0.95, value_parser = share, allow_negative_numbers = true)]
    beta2: f64,
    /// Added to the root of the second moment.
    #[arg(long, default_value_t = 1e-8, value_parser = positive, allow_negative_numbers = true)]
    eps: f64,
    /// Steps; the number of epochs decides without it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_STEPS), allow_negative_numbers = true)]
    steps: Option<u64>,
    /// Passes over the shards.
    #[arg(long, default_value_t = 1.0, value_parser = positive, allow_negative_numbers = true)]
    epochs: f64,
    /// Windows of a micro-batch (batch size per device).
    #[arg(long, visible_alias = "batch-size", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65536), allow_negative_numbers = true)]
    batch: u32,
    /// Micro-batches of a step.
    #[arg(long, visible_alias = "gradient-accumulation-steps", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536), allow_negative_numbers = true)]
    accumulate: u32,
    /// Tokens of a window, at most the model's context.
    #[arg(long, visible_alias = "max-seq-len", default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..=1_048_576), allow_negative_numbers = true)]
    tokens: u32,
    /// The largest learning rate.
    #[arg(long, default_value_t = 1e-3, value_parser = positive, allow_negative_numbers = true)]
    lr: f64,
    /// How the learning rate falls after the warm-up.
    #[arg(long, value_enum, default_value = "cosine")]
    schedule: ScheduleName,
    /// Share of the steps, rounded to w steps, in which the learning rate rises: lr (k + 1) / (w + 1) in step k.
    #[arg(long, visible_alias = "warmup-ratio", default_value_t = 0.01, value_parser = share, allow_negative_numbers = true)]
    warmup: f64,
    /// Weight decay, decoupled but for sgd; norms and biases are spared.
    #[arg(long, default_value_t = 0.1, value_parser = not_negative, allow_negative_numbers = true)]
    weight_decay: f64,
    /// Largest global norm of the gradient; 0 does not clip. Refused together with `--update-in-backward`.
    #[arg(long, visible_alias = "max-grad-norm", default_value_t = 1.0, value_parser = not_negative, allow_negative_numbers = true)]
    clip: f64,
    /// Update every tensor during the backward pass and free its gradient.
    #[arg(long)]
    update_in_backward: bool,
    /// Compute the activations of every layer twice instead of keeping them.
    #[arg(long, visible_alias = "gradient-checkpointing")]
    recompute: bool,
    /// Steps between two evaluations.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=MAX_STEPS), allow_negative_numbers = true)]
    eval_every: u64,
    /// Share of memory that the estimate may reach before the run is refused.
    #[arg(long, default_value_t = 0.9, value_parser = fraction, allow_negative_numbers = true)]
    memory_share: f64,
    /// The seed of the order of the windows.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
}

impl PretrainSettings {
    /// The same training by the settings of a fine-tuning, which are more.
    fn as_sft(&self) -> SftSettings {
        SftSettings {
            model: Some(self.model.clone()),
            data: Some(self.data.clone()),
            held_out: self.held_out,
            optimizer: self.optimizer,
            preset: self.preset,
            partition: self.partition,
            state: self.state,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            steps: self.steps,
            epochs: self.epochs,
            batch: self.batch,
            accumulate: self.accumulate,
            tokens: self.tokens,
            lr: self.lr,
            schedule: self.schedule,
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            clip: self.clip,
            update_in_backward: self.update_in_backward,
            recompute: self.recompute,
            eval_every: self.eval_every,
            memory_share: self.memory_share,
            seed: self.seed,
            ..SftSettings::default()
        }
    }
}

/// Runs `rhumb train pretrain`.
pub(super) fn run(args: &Pretrain, global: Global) -> Result<Output, Failure> {
    let own = &args.settings;
    let s = own.as_sft();
    check(&s)?;
    let stop = interrupt::install()?;
    let session = Session::new(&KIND, &s, &args.place, global);
    let earlier = session.earlier()?;
    let manifest = || {
        let files = vec![("data", shard_files(&own.data)?)];
        origin::manifest(KIND.name, own, own.seed, &own.model, &files, None)
    };
    let mut resumed = None;
    if let Some(earlier) = &earlier {
        let now = manifest()?;
        if let Some(done) = session.finished_before(earlier, &now)? {
            return Ok(done);
        }
        resumed = Some(now);
    }
    if let Some(plain) = lm::definition(&own.model)? {
        too_large(&s, &trained(&s, &plain)?)?;
    }
    let shards = TokenShards::open(&own.data).map_err(from_io)?;
    let mut model = LanguageModel::open(&own.model)?;
    same_tokenizer(own, &shards, &model)?;
    let documents = shards.info().documents;
    let tokens = shards.len();
    let windows = Windows::new(shards, own.tokens as usize, own.held_out, own.separate_documents, own.seed)?;
    let held_out = windows.held_out().map_err(from_io)?;
    let config = config_for(&s, rhumb_lm::sft::Source::rows(&windows))?;
    let estimate = too_large(&s, &trained(&s, &model.decoder)?)?;
    let manifest = resumed.map_or_else(manifest, Ok)?;
    let params = std::mem::take(&mut model.params);
    let decoder = model.decoder.clone();
    let source = Box::new(windows);
    let sft = Sft::from_source(config.clone(), decoder, params, Arc::default(), source, &held_out)?;
    global.note(&format!(
        "{tokens} tokens of {}; {} of {} tokens to train on, {} held out; {}; estimated memory {}",
        counted(documents, "document"),
        counted(sft.rows() as u64, "window"),
        config.tokens,
        held_out.len(),
        counted(config.steps, "step"),
        bytes(estimate.peak())
    ));
    session.train(sft, &config, &model, estimate, &manifest, stop)
}

/// Token numbers mean nothing without the tokenizer that made them.
fn same_tokenizer(s: &PretrainSettings, shards: &TokenShards, model: &LanguageModel) -> Result<(), Failure> {
    let ours = model.files.tokenizer.as_ref().map(fingerprint).unwrap_or_default();
    let (theirs, vocab) = (&shards.info().tokenizer, model.decoder.config().vocab);
    if *theirs != ours || shards.info().vocab as usize > vocab {
        return Err(Failure::usage(format!(
            "{} was made with another tokenizer than that of {}: tokenize the text again with --model {}",
            s.data.display(),
            s.model.display(),
            s.model.display()
        )));
    }
    Ok(())
}

/// The files of the shards, in order.
fn shard_files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail = |e: std::io::Error| {
        Failure::new(Code::Usage, anyhow::anyhow!("cannot read {}: {e}; check the path", dir.display()))
    };
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("tokens")) {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}
