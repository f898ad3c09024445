//! From settings and files to what a fine-tuning starts from.

use std::path::Path;
use std::sync::Arc;

use rhumb_core::Role;
use rhumb_lm::data::{Example, Examples};
use rhumb_lm::sft::SftConfig;
use rhumb_nn::model::{Decoder, init};
use rhumb_optim::{Kind, OptimizerConfig, ScheduleConfig, ScheduleKind};

use super::super::measured;
use super::super::memory::{Estimate, Shape};
use super::super::{MAX_STEPS, ScheduleName, SftSettings};
use crate::exit::{Code, Failure};
use crate::lm::{LanguageModel, adapters};
use crate::table::counted;

/// A definition to train, its trained parameters and its frozen ones.
pub(crate) type Start = (Decoder, Vec<f32>, Arc<Vec<f32>>);

/// The model and the data that the settings name.
pub(crate) fn named(s: &SftSettings) -> Result<(&Path, &Path), Failure> {
    match (&s.model, &s.data) {
        (Some(model), Some(data)) => Ok((model, data)),
        _ => Err(Failure::usage("a fine-tuning needs a model and data: name both")),
    }
}

/// The definition that is trained, on a model of this definition.
pub(crate) fn trained(s: &SftSettings, plain: &Decoder) -> Result<Decoder, Failure> {
    let context = plain.config().positions;
    if s.tokens as usize > context {
        return Err(Failure::usage(format!(
            "--tokens {}: the context of this model is {context} tokens; give at most that",
            s.tokens
        )));
    }
    let Some(rank) = s.lora else { return Ok(plain.clone()) };
    let alpha = s.lora_alpha.unwrap_or(2.0 * f64::from(rank));
    let config = plain.config().clone();
    let mut lora = adapters(&config, rank as usize, alpha);
    if let Some(unknown) = s.lora_targets.iter().find(|t| !lora.targets.contains(t)) {
        return Err(Failure::usage(format!(
            "--lora-targets {unknown}: this model has no such projection; choose from {}",
            lora.targets.join(", ")
        )));
    }
    if !s.lora_targets.is_empty() {
        // In the model's order, so that the order on the command line changes nothing.
        lora.targets.retain(|t| s.lora_targets.contains(t));
    }
    let decoder = Decoder::with_lora(config, &lora).map_err(|e| Failure::new(Code::Usage, e))?;
    // The factors of an adapter come in pairs: A is rank x in, B is out x rank.
    let sides = |role: Role, side: usize| {
        let blocks = decoder.layout().blocks().iter().filter(move |b| b.role == role);
        blocks.map(move |b| b.shape[side])
    };
    let full = sides(Role::LoraA, 1).zip(sides(Role::LoraB, 0)).map(|(a, b)| a.min(b)).max().unwrap_or(0);
    if rank as usize > full {
        return Err(Failure::usage(format!(
            "--lora {rank}: no projection of this model has a rank above {full}; use 4 to 64, or --full"
        )));
    }
    Ok(decoder)
}

/// The definition that is trained, its trained parameters and its frozen ones. The weights move out of
/// `model`: a second copy would be most of the memory.
pub(crate) fn prepare(s: &SftSettings, model: &mut LanguageModel) -> Result<Start, Failure> {
    prepare_from(s, &model.decoder, std::mem::take(&mut model.params))
}

/// As [`prepare`], from weights that stand alone.
pub(crate) fn prepare_from(s: &SftSettings, plain: &Decoder, weights: Vec<f32>) -> Result<Start, Failure> {
    let decoder = trained(s, plain)?;
    if !decoder.is_adapted() {
        return Ok((decoder, weights, Arc::new(Vec::new())));
    }
    let params = init(decoder.layout(), decoder.config().layers, 0.0, s.seed);
    Ok((decoder, params, Arc::new(weights)))
}

/// Whether the betas and epsilon of the settings mean something; the others have rates of their own.
fn adam_family(kind: Kind) -> bool {
    !matches!(kind, Kind::Sgd | Kind::Lion | Kind::Adafactor)
}

fn optimizer(s: &SftSettings) -> OptimizerConfig {
    let plain = OptimizerConfig::default();
    let (beta1, beta2, eps) = if adam_family(s.optimizer) {
        (s.beta1, s.beta2, s.eps)
    } else {
        (plain.beta1, plain.beta2, plain.eps)
    };
    OptimizerConfig {
        kind: s.optimizer,
        preset: s.preset,
        state: s.state,
        seed: s.seed,
        lr: s.lr,
        beta1,
        beta2,
        eps,
        weight_decay: s.weight_decay,
        ..plain
    }
}

/// Rows of a step; more are a slip of the keyboard.
const MAX_ROWS: u64 = 1 << 20;

/// Refuses numbers that a recipe can hold and the command line does not let through, and those that make no sense
/// together.
pub(crate) fn check(s: &SftSettings) -> Result<(), Failure> {
    measured::check(s)?;
    let bad = |what: String| Err(Failure::usage(what));
    if s.dropout != 0.0 {
        return bad(format!(
            "--dropout {}: the decoders here are built without dropout, as Llama, Qwen and SmolLM are trained; leave it out, \
             and against overfitting take fewer --steps, --weight-decay or --lora",
            s.dropout
        ));
    }
    let plain = SftSettings::default();
    let same = |(a, b): (f64, f64)| a.to_bits() == b.to_bits();
    let pairs = [(s.beta1, plain.beta1), (s.beta2, plain.beta2), (s.eps, plain.eps)];
    if !adam_family(s.optimizer) && !pairs.into_iter().all(same) {
        return bad(format!(
            "--beta1, --beta2 and --eps say nothing about --optimizer {}: leave them out",
            s.optimizer.name()
        ));
    }
    for (name, x, most) in [
        ("--clip", s.clip, f64::MAX),
        ("--weight-decay", s.weight_decay, f64::MAX),
        ("--warmup", s.warmup, 1.0),
        ("--epochs", s.epochs, f64::MAX),
    ] {
        if !(0.0..=most).contains(&x) {
            let limit = if most < f64::MAX { format!(" and at most {most}") } else { String::new() };
            return bad(format!("{name} {x}: give a finite number of at least 0{limit}"));
        }
    }
    let rows = u64::from(s.batch) * u64::from(s.accumulate);
    if rows > MAX_ROWS {
        return bad(format!(
            "--batch {} and --accumulate {} are {rows} rows a step: {MAX_ROWS} at most",
            s.batch, s.accumulate
        ));
    }
    Ok(())
}

/// Steps of a number of passes over packed rows.
fn steps(s: &SftSettings, rows: usize) -> Result<u64, Failure> {
    if let Some(steps) = s.steps {
        return Ok(steps);
    }
    let per_step = f64::from(s.batch) * f64::from(s.accumulate);
    let steps = (rows as f64 * s.epochs / per_step).ceil().max(1.0);
    if steps > MAX_STEPS as f64 {
        return Err(Failure::usage(format!(
            "--epochs {:e} over {} are {steps:e} steps, and {MAX_STEPS} are the most: lower it, or give --steps",
            s.epochs,
            counted(rows as u64, "packed row")
        )));
    }
    Ok(steps as u64)
}

/// The settings as the algorithm takes them; `train` decides how many steps an epoch has.
pub(crate) fn config(s: &SftSettings, train: &[Example]) -> Result<SftConfig, Failure> {
    let rows =
        rhumb_lm::data::pack(train, s.tokens as usize).map_err(|e| Failure::new(Code::Usage, e))?.len();
    config_for(s, rows)
}

/// The settings as the algorithm takes them, for the conversations of a file.
pub(crate) fn config_of(s: &SftSettings, train: &Examples) -> Result<SftConfig, Failure> {
    let rows = train.pack(s.tokens as usize).map_err(|e| Failure::new(Code::Usage, e))?.len();
    config_for(s, rows)
}

/// The settings as the algorithm takes them, for a pass of so many rows.
pub(crate) fn config_for(s: &SftSettings, rows: usize) -> Result<SftConfig, Failure> {
    check(s)?;
    let steps = steps(s, rows)?;
    let config = SftConfig {
        steps,
        batch: s.batch as usize,
        accumulate: s.accumulate as usize,
        tokens: s.tokens as usize,
        optimizer: optimizer(s),
        schedule: ScheduleConfig {
            kind: match s.schedule {
                ScheduleName::Cosine => ScheduleKind::Cosine,
                ScheduleName::Linear => ScheduleKind::Linear,
                ScheduleName::Constant => ScheduleKind::Constant,
                ScheduleName::Wsd => ScheduleKind::Wsd,
                ScheduleName::InverseSqrt => ScheduleKind::InverseSqrt,
            },
            warmup_steps: (s.warmup * steps as f64).round() as u64,
            ..ScheduleConfig::default()
        },
        loss: s.loss.kind(&s.numbers())?,
        clip_norm: (s.clip > 0.0).then_some(s.clip),
        recompute: s.recompute,
        update_in_backward: s.update_in_backward,
        eval_every: s.eval_every,
        seed: s.seed,
    };
    config.check()?;
    Ok(config)
}

/// Memory of a run before it starts.
pub(crate) fn memory(s: &SftSettings, decoder: &Decoder) -> Result<Estimate, Failure> {
    Estimate::of(&Shape {
        decoder,
        optimizer: &optimizer(s),
        batch: u64::from(s.batch),
        accumulate: u64::from(s.accumulate),
        tokens: u64::from(s.tokens),
        recompute: s.recompute,
        streamed: s.update_in_backward,
    })
}
