//! The memory of a fine-tuning before it starts: one estimate for `train sft` and `model info`.

use rhumb_core::{Layout, MemoryReport};
use rhumb_nn::model::Decoder;
use rhumb_optim::OptimizerConfig;
use serde::Serialize;

use crate::exit::{Code, Failure};
use crate::lm::activation_bytes;
use crate::machine;
use crate::table::bytes;

/// The program with tokenizer and data, what small operations use for a moment, and freed memory that the allocator
/// keeps; measured on a decoder of 135 million parameters.
const FIXED: u64 = 288 << 20;
/// Scores of the output head that exist at once.
const SCORES: u64 = 64 << 20;
/// Rows of an evaluation batch.
const EVALUATED: u64 = 4;

/// What decides how much memory a fine-tuning takes.
pub(crate) struct Shape<'a> {
    /// The definition, with adapters where they are trained.
    pub(crate) decoder: &'a Decoder,
    pub(crate) optimizer: &'a OptimizerConfig,
    /// Rows of a micro-batch.
    pub(crate) batch: u64,
    /// Micro-batches of a step.
    pub(crate) accumulate: u64,
    /// Tokens of a row.
    pub(crate) tokens: u64,
    pub(crate) recompute: bool,
    /// Gradients are freed as soon as they are used.
    pub(crate) streamed: bool,
}

/// Bytes at the three moments that can be the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Estimate {
    /// A training step, the best weights so far beside the current ones.
    pub(crate) training: MemoryReport,
    /// The files and the weights made of them.
    pub(crate) loading: u64,
    /// The last and the best weights, and what is written of them at a time.
    pub(crate) saving: u64,
}

impl Estimate {
    /// # Errors
    /// What the optimizer says about its settings.
    pub(crate) fn of(s: &Shape<'_>) -> Result<Self, Failure> {
        let d = s.decoder;
        let (base, trained) = (4 * d.base_layout().len() as u64, 4 * d.layout().len() as u64);
        let state = s.optimizer.state_bytes(d.layout(), 4).map_err(|e| Failure::new(Code::Usage, e))?;
        let largest = |l: &Layout| l.blocks().iter().map(|b| 4 * b.range.len() as u64).max().unwrap_or(0);
        // Numbers, targets, positions and visible keys of every token of a step.
        let tables = s.batch.saturating_mul(s.accumulate).saturating_mul(s.tokens).saturating_mul(20);
        let (frozen, merged) = if d.is_adapted() { (base, base) } else { (0, 0) };
        // A tensor as its file holds it.
        let written = merged + largest(d.base_layout());
        // A tenth more: buffers are reused by size, and some are a little larger than what they hold.
        let activations = activation_bytes(d, s.batch.saturating_mul(s.tokens), s.recompute);
        // Four times one chunk of scores with its hidden states: steps have different numbers of trained tokens, and the
        // pool keeps buffers of several sizes.
        let (vocab, width) = (d.config().vocab.max(1) as u64, d.config().width as u64);
        let rows = s.batch.max(EVALUATED).saturating_mul(s.tokens);
        let chunk = (SCORES / (4 * vocab)).clamp(16, 1024).min(rows);
        let head = 16 * chunk * (vocab + 3 * width);
        let evaluated = activation_bytes(d, EVALUATED * s.tokens, false) / d.config().layers.max(1) as u64;
        let training = MemoryReport {
            parameters: frozen + 2 * trained,
            gradients: if s.streamed { largest(d.layout()) } else { trained },
            optimizer: state as u64,
            activations: activations.saturating_add(activations / 10),
            scratch: (FIXED + head).saturating_add(evaluated).saturating_add(tables),
        };
        Ok(Estimate { training, loading: 2 * base + FIXED, saving: frozen + 2 * trained + written + FIXED })
    }

    /// The largest of the three.
    pub(crate) fn peak(&self) -> u64 {
        let m = &self.training;
        let parts = [m.parameters, m.gradients, m.optimizer, m.activations, m.scratch];
        let training = parts.into_iter().fold(0, u64::saturating_add);
        training.max(self.loading).max(self.saving)
    }

    /// Whether it is within `share` of so much memory.
    pub(crate) fn fits(&self, memory: u64, share: f64) -> bool {
        self.peak() <= within(memory, share)
    }

    /// Refuses what is above `share` of the memory that this process may hold.
    ///
    /// # Errors
    /// The parts of the estimate, the limit, and what makes it smaller.
    pub(crate) fn refuse_if_too_large(&self, share: f64) -> Result<(), Failure> {
        let Some(memory) = machine::memory_for_process() else { return Ok(()) };
        if self.fits(memory, share) {
            return Ok(());
        }
        let m = &self.training;
        let parts = [
            ("parameters and their best copy", m.parameters),
            ("gradients", m.gradients),
            ("optimizer", m.optimizer),
            ("activations", m.activations),
            ("the rest", m.scratch),
        ];
        let parts: Vec<String> = parts.iter().map(|(name, b)| format!("{name} {}", bytes(*b))).collect();
        Err(Failure::usage(format!(
            "this run needs about {} ({}; for a moment {} to load and {} to save) and may use {} of the {} that it can \
             get: try a smaller --batch or --tokens, --recompute, --update-in-backward with --clip 0, or --lora 8",
            bytes(self.peak()),
            parts.join(", "),
            bytes(self.loading),
            bytes(self.saving),
            bytes(within(memory, share)),
            bytes(memory)
        )))
    }
}

/// The share of so much memory.
fn within(memory: u64, share: f64) -> u64 {
    (memory as f64 * share) as u64
}
