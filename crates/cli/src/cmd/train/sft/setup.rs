//! From settings and files to what a fine-tuning starts from.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use rhumb_core::MemoryReport;
use rhumb_lm::data::{DataError, Drop, Example, Lengths, Prepared, Rows, Tokenizing, repeated, split};
use rhumb_lm::sft::SftConfig;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{Decoder, LoraConfig, init};
use rhumb_optim::{Kind, OptimizerConfig, ScheduleConfig, ScheduleKind};

use super::super::{Loss, OptimizerName, ScheduleName, SftSettings};
use crate::exit::{Code, Failure};
use crate::lm::{LanguageModel, activation_bytes};
use crate::machine;
use crate::table::bytes;

/// A definition to train, its trained parameters and its frozen ones.
pub(crate) type Start = (Decoder, Vec<f32>, Arc<Vec<f32>>);

/// What the data became.
pub(crate) struct Data {
    /// Conversations to train on.
    pub(crate) train: Vec<Example>,
    /// Conversations to judge by.
    pub(crate) held_out: Vec<Example>,
    /// What a user should know about them.
    pub(crate) notes: Vec<String>,
}

/// The model and the data that the settings name.
pub(crate) fn named(s: &SftSettings) -> Result<(&Path, &Path), Failure> {
    match (&s.model, &s.data) {
        (Some(model), Some(data)) => Ok((model, data)),
        _ => Err(Failure::usage("a fine-tuning needs a model and data: name both")),
    }
}

/// Reads and tokenizes what is trained on and what is held out.
pub(crate) fn read(s: &SftSettings, model: &LanguageModel) -> Result<Data, Failure> {
    let tokenizing = Tokenizing {
        encoder: &model.tokenizer,
        format: model.template.as_ref().map(|t| t as _),
        eos: model.eos.first().copied(),
        max_len: s.tokens as usize,
    };
    let mut notes = Vec::new();
    let prepared = read_file(named(s)?.1, &tokenizing, &mut notes)?;
    let data_error = |e: DataError| Failure::new(Code::Usage, e);
    let (train, held_out) = match &s.eval_data {
        Some(path) => {
            let held_out = read_file(path, &tokenizing, &mut notes)?.examples;
            let same = repeated(&prepared.examples, &held_out);
            if same > 0 {
                notes.push(format!(
                    "{same} of {} held-out conversations are trained too: what is said about them is partly memory",
                    held_out.len()
                ));
            }
            (prepared.examples, held_out)
        }
        None => {
            let parts = split(prepared.examples, s.held_out, s.seed).map_err(data_error)?;
            if parts.twins > 0 {
                notes.push(format!("{} repetitions of held-out conversations left out", parts.twins));
            }
            (parts.train, parts.held_out)
        }
    };
    let l = Lengths::of(&train);
    notes.push(format!(
        "{} conversations to train on, {} held out; tokens median {}, 95 % {}, longest {}; {} of {} tokens trained",
        l.documents,
        held_out.len(),
        l.median,
        l.p95,
        l.max,
        l.live,
        l.tokens
    ));
    Ok(Data { train, held_out, notes })
}

fn read_file(path: &Path, tokenizing: &Tokenizing<'_>, notes: &mut Vec<String>) -> Result<Prepared, Failure> {
    let file = File::open(path).map_err(|e| {
        let code = if e.kind() == std::io::ErrorKind::NotFound { Code::Missing } else { Code::Usage };
        Failure::new(code, anyhow::anyhow!("cannot read {}: {e}; check the path", path.display()))
    })?;
    let name = path.display().to_string();
    let rows = Rows::new(BufReader::new(file), name.clone());
    let prepared = tokenizing.run(rows, &name).map_err(|e| Failure::new(Code::Usage, e))?;
    let lines = |l: &[usize]| {
        let shown: Vec<String> = l.iter().take(10).map(usize::to_string).collect();
        format!("{}{}", shown.join(", "), if l.len() > 10 { ", ..." } else { "" })
    };
    if !prepared.truncated.is_empty() {
        notes.push(format!(
            "{name}: {} conversations cut at {} tokens (lines {})",
            prepared.truncated.len(),
            tokenizing.max_len,
            lines(&prepared.truncated)
        ));
    }
    for (why, text) in [(Drop::NothingLive, "without an answer"), (Drop::CutAway, "cut before the answer")] {
        let dropped: Vec<usize> = prepared.dropped.iter().filter(|d| d.why == why).map(|d| d.line).collect();
        if !dropped.is_empty() {
            notes.push(format!(
                "{name}: {} conversations {text} dropped (lines {})",
                dropped.len(),
                lines(&dropped)
            ));
        }
    }
    Ok(prepared)
}

/// The definition that is trained, its trained parameters and its frozen ones. The weights move out of
/// `model`: a second copy would be most of the memory.
pub(crate) fn prepare(s: &SftSettings, model: &mut LanguageModel) -> Result<Start, Failure> {
    let weights = std::mem::take(&mut model.params);
    let Some(rank) = s.lora else {
        return Ok((model.decoder.clone(), weights, Arc::new(Vec::new())));
    };
    let lora = LoraConfig {
        rank: rank as usize,
        alpha: s.lora_alpha.unwrap_or(2.0 * f64::from(rank)),
        ..LoraConfig::default()
    };
    let config = model.decoder.config().clone();
    let layers = config.layers;
    let decoder = Decoder::with_lora(config, &lora).map_err(|e| Failure::new(Code::Usage, e))?;
    let params = init(decoder.layout(), layers, 0.0, s.seed);
    Ok((decoder, params, Arc::new(weights)))
}

/// The settings as the algorithm takes them; `train` decides how many steps an epoch has.
pub(crate) fn config(s: &SftSettings, train: &[Example]) -> Result<SftConfig, Failure> {
    if s.dropout != 0.0 {
        return Err(Failure::usage(format!(
            "--dropout {}: the decoders here are built without dropout, as Llama, Qwen and SmolLM are trained; leave it out, \
             and against overfitting take fewer --steps, --weight-decay or --lora",
            s.dropout
        )));
    }
    let per_step = (s.batch * s.accumulate) as usize;
    let rows =
        rhumb_lm::data::pack(train, s.tokens as usize).map_err(|e| Failure::new(Code::Usage, e))?.len();
    let steps = s.steps.unwrap_or_else(|| ((rows as f64 * s.epochs / per_step as f64).ceil() as u64).max(1));
    let loss = match s.loss {
        Loss::Ce => LossKind::Ce,
        Loss::GemLinear => LossKind::GemLinear { beta: s.beta },
        Loss::GemLogSigmoid => LossKind::GemLogsigmoid { beta: s.beta },
    };
    let config = SftConfig {
        steps,
        batch: s.batch as usize,
        accumulate: s.accumulate as usize,
        tokens: s.tokens as usize,
        optimizer: OptimizerConfig {
            kind: match s.optimizer {
                OptimizerName::AdamW => Kind::AdamW,
                OptimizerName::AdamMini => Kind::AdamMini,
                OptimizerName::Sgd => Kind::Sgd,
            },
            lr: s.lr,
            beta2: 0.95,
            weight_decay: s.weight_decay,
            ..OptimizerConfig::default()
        },
        schedule: ScheduleConfig {
            kind: match s.schedule {
                ScheduleName::Cosine => ScheduleKind::Cosine,
                ScheduleName::Linear => ScheduleKind::Linear,
                ScheduleName::Constant => ScheduleKind::Constant,
            },
            warmup_steps: (s.warmup * steps as f64).round() as u64,
            ..ScheduleConfig::default()
        },
        loss,
        clip_norm: (s.clip > 0.0).then_some(s.clip),
        recompute: s.recompute,
        update_in_backward: s.update_in_backward,
        eval_every: s.eval_every,
        seed: s.seed,
    };
    config.check()?;
    Ok(config)
}

/// Memory of a run before it starts, by category. Scratch is one chunk of scores and its hidden states.
pub(crate) fn estimate(decoder: &Decoder, config: &SftConfig, adapted: bool) -> MemoryReport {
    let (trained, base) = (decoder.layout().len() as u64, decoder.base_layout().len() as u64);
    // The best weights stand beside the current ones.
    let copies = if adapted { base + 2 * trained } else { 2 * trained };
    MemoryReport {
        parameters: 4 * copies,
        gradients: if config.update_in_backward { 0 } else { 4 * trained },
        optimizer: config.optimizer.state_bytes(decoder.layout(), 4).map_or(0, |b| b as u64),
        activations: activation_bytes(decoder, config.batch * config.tokens, config.recompute),
        scratch: 128 << 20,
    }
}

/// Refuses a run whose estimate is above what it may use, before anything is allocated.
pub(crate) fn refuse_if_too_large(s: &SftSettings, estimate: &MemoryReport) -> Result<(), Failure> {
    let Some(memory) = machine::available_memory() else { return Ok(()) };
    let limit = (memory as f64 * s.memory_share) as u64;
    if estimate.total() <= limit {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "this run needs about {} (parameters {}, gradients {}, optimizer {}, activations {}) and may use {} of the {} \
         that are free: try a smaller --batch or --tokens, --recompute, --update-in-backward with --clip 0, or --lora 8",
        bytes(estimate.total()),
        bytes(estimate.parameters),
        bytes(estimate.gradients),
        bytes(estimate.optimizer),
        bytes(estimate.activations),
        bytes(limit),
        bytes(memory)
    )))
}
