//! Supervised fine-tuning as an algorithm of the run loop.

mod config;
mod evaluate;
mod source;

use std::sync::Arc;

use rhumb_core::checkpoint::{CheckpointError, StateReader, StateWriter};
use rhumb_core::{Algorithm, EvalError, MemoryReport, Optimizer, Status, Step};
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{Decoder, DecoderObjective, TokenBatch};
use rhumb_nn::op::LossReport;
use rhumb_optim::{OptimizerConfig, Schedule, clip_global_norm, global_norm};

pub use config::{SftConfig, SftError};
pub use evaluate::{HeldOut, Scores};
pub(crate) use source::Order;
pub use source::Source;

use crate::data::{Example, Examples};
use crate::gem::Tempered;

/// Fine-tuning of a decoder on packed conversations.
///
/// # Equation
/// Step `k` takes the next `batch * accumulate` rows of a seeded order that is drawn anew for every pass,
/// averages the loss over all trained tokens of these rows (not over rows or micro-batches), clips the global
/// norm of the gradient if asked to, and lets the optimizer step with the scheduled rate. The noise of `neft` is a
/// function of the seed and of the place of the row in that order, so that the cut into micro-batches changes nothing.
///
/// # State
/// Parameters, optimizer, best evaluation. The order of the data is a function of the seed and the step, so
/// a resumed run sees the rows that an undisturbed one sees.
///
/// # Errors
/// A step fails with [`EvalError::NonFinite`] when the loss or the gradient is not finite, naming the tensor.
pub struct Sft {
    config: SftConfig,
    objective: DecoderObjective<f32>,
    optimizer: Box<dyn Optimizer<f32>>,
    schedule: Schedule,
    params: Vec<f32>,
    grad: Vec<f32>,
    source: Box<dyn Source>,
    held_out: Option<HeldOut>,
    best: Option<Best>,
    /// Block of the layout at which each span of the streamed backward pass may begin.
    starts: Vec<usize>,
}

/// The best evaluation so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// Step after which it was measured.
    pub step: u64,
    /// Its held-out cross-entropy.
    pub ce: f64,
    /// The trained parameters.
    pub params: Vec<f32>,
}

/// What remains of a fine-tuning when gradients, optimizer and activations are freed.
pub struct Trained {
    /// The model.
    pub model: Decoder,
    /// The trained parameters after the last step.
    pub params: Vec<f32>,
    /// The best evaluation.
    pub best: Option<Best>,
    /// The base parameters of an adapted model.
    pub frozen: Arc<Vec<f32>>,
}

impl Sft {
    /// A fine-tuning of `model` from `params`; `frozen` holds the base of an adapted model. `train` is a list of examples,
    /// or [`Examples`] that may stand in a file.
    ///
    /// # Errors
    /// Settings that exclude each other, documents longer than a row, parameters of another model.
    pub fn new(
        config: SftConfig,
        model: Decoder,
        params: Vec<f32>,
        frozen: Arc<Vec<f32>>,
        train: impl Into<Examples>,
        held_out: &[Example],
    ) -> Result<Self, SftError> {
        let source = source::Conversations::new(train.into(), config.tokens, config.seed)?;
        Sft::from_source(config, model, params, frozen, Box::new(source), held_out)
    }

    /// A training on batches from anywhere.
    ///
    /// # Errors
    /// As [`Sft::new`].
    pub fn from_source(
        config: SftConfig,
        model: Decoder,
        params: Vec<f32>,
        frozen: Arc<Vec<f32>>,
        source: Box<dyn Source>,
        held_out: &[Example],
    ) -> Result<Self, SftError> {
        config.check()?;
        let layout = model.layout().clone();
        if params.len() != layout.len() {
            return Err(SftError::Setting(format!(
                "the model has {} trained parameters, got {}",
                layout.len(),
                params.len()
            )));
        }
        if source.rows() == 0 {
            return Err(SftError::Setting("there is nothing to train on".into()));
        }
        let optimizer = config.optimizer.build::<f32>(&layout)?;
        let schedule = config.schedule.build(config.optimizer.lr, config.steps)?;
        let held_out = match held_out {
            [] => None,
            some => Some(HeldOut::new(some, config.tokens, config.loss)?),
        };
        let objective = DecoderObjective::new(model, config.loss, config.recompute, frozen)?;
        let grad = if config.update_in_backward { Vec::new() } else { vec![0.0; params.len()] };
        let starts = layout.blocks().iter().map(|b| b.range.start).collect();
        Ok(Sft { config, objective, optimizer, schedule, params, grad, source, held_out, best: None, starts })
    }

    /// Another optimizer for a training that has not begun.
    ///
    /// # Errors
    /// Settings of the optimizer that do not fit the model.
    pub fn change_optimizer(&mut self, optimizer: OptimizerConfig) -> Result<(), SftError> {
        self.optimizer = optimizer.build::<f32>(self.objective.model().layout())?;
        self.schedule = self.config.schedule.build(optimizer.lr, self.config.steps)?;
        self.config.optimizer = optimizer;
        Ok(())
    }

    /// Rows `first .. first + rows` of the training's endless sequence of passes over its data.
    ///
    /// # Errors
    /// When the data cannot be read.
    pub fn batch(&mut self, first: u64, rows: usize) -> Result<TokenBatch, EvalError> {
        self.source.batch(first, rows)
    }

    /// The training loss, and the parameters to look at it from.
    pub fn objective(&mut self) -> (&mut DecoderObjective<f32>, &[f32]) {
        (&mut self.objective, &self.params)
    }

    /// The trained parameters.
    pub fn params(&self) -> &[f32] {
        &self.params
    }

    /// The best evaluation, when there is held-out data.
    pub fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    /// Ends the fine-tuning and frees everything but the weights.
    pub fn finish(self) -> Trained {
        let Sft { objective, params, best, .. } = self;
        Trained { model: objective.model().clone(), frozen: Arc::clone(objective.frozen()), params, best }
    }

    /// The model.
    pub fn model(&self) -> &Decoder {
        self.objective.model()
    }

    /// Packed rows of one pass over the data.
    pub fn rows(&self) -> usize {
        self.source.rows()
    }

    /// Bytes of optimizer state.
    pub fn state_bytes(&self) -> usize {
        self.optimizer.state_bytes()
    }

    /// Losses of every held-out conversation; `None` without held-out data.
    ///
    /// # Errors
    /// When the loss is not finite.
    pub fn evaluate(&self) -> Result<Option<Scores>, EvalError> {
        let frozen = self.objective.frozen();
        self.held_out.as_ref().map(|h| h.score(self.model(), &self.params, frozen)).transpose()
    }

    /// Cross-entropy and entropy of the held-out conversations at a temperature; `None` without any token.
    ///
    /// # Errors
    /// When the loss is not finite.
    pub fn evaluate_at(&self, temperature: f64) -> Result<Option<Tempered>, EvalError> {
        let kind = LossKind::GemLinear { beta: temperature };
        let frozen = self.objective.frozen();
        let scores = self
            .held_out
            .as_ref()
            .map(|h| h.score_as(kind, self.model(), &self.params, frozen))
            .transpose()?;
        Ok(scores.and_then(|s| s.summary()).map(|s| Tempered::of(&s, temperature)))
    }

    /// First row of micro-batch `part` of step `k`.
    fn first_row(&self, k: u64, part: usize) -> u64 {
        (k * self.config.accumulate as u64 + part as u64) * self.config.batch as u64
    }

    fn micro_batch(&mut self, k: u64, part: usize) -> Result<TokenBatch, EvalError> {
        let first = self.first_row(k, part);
        self.source.batch(first, self.config.batch)
    }

    /// Seed of the noise in a micro-batch that begins with row `first`.
    fn noise_seed(&self, first: u64) -> u64 {
        let scalars = (self.config.tokens * self.model().config().width) as u64;
        Rng::named(self.config.seed, "noise").next_u64().wrapping_add(first.wrapping_mul(scalars))
    }

    fn gradient(&mut self, k: u64, batches: &[TokenBatch]) -> Result<(LossReport, f64), EvalError> {
        let mut report = LossReport::default();
        for (i, b) in batches.iter().enumerate() {
            self.objective.seed = Some(self.noise_seed(self.first_row(k, i)));
            report.add(&self.objective.gradient(&self.params, b, &mut self.grad, i > 0)?);
        }
        let norm = match self.config.clip_norm {
            Some(max) => clip_global_norm(&mut self.grad, max),
            None => global_norm(&self.grad),
        };
        if !norm.is_finite() {
            let block = self.model().layout().first_non_finite(&self.grad).map(|b| b.name.clone());
            return Err(EvalError::NonFinite { what: "gradient", block });
        }
        Ok((report, norm))
    }

    /// Every tensor is updated as soon as its gradient is complete, up to the first gradient that is not finite.
    fn stream(&mut self, k: u64, lr: f64, batch: &TokenBatch) -> Result<LossReport, EvalError> {
        self.objective.seed = Some(self.noise_seed(self.first_row(k, 0)));
        let Sft { objective, optimizer, params, starts, .. } = self;
        optimizer.begin();
        let mut broken: Option<usize> = None;
        let report = objective.gradient_streaming(params, batch, &mut |range, params, grad| {
            let mut block = starts.partition_point(|s| *s < range.start);
            while block < starts.len() && starts[block] < range.end && broken.is_none() {
                let r = optimizer.layout().blocks()[block].range.clone();
                let local = r.start - range.start..r.end - range.start;
                if grad[local.clone()].iter().all(|g| g.is_finite()) {
                    optimizer.step_block(lr, block, &mut params[local.clone()], &grad[local]);
                } else {
                    broken = Some(block);
                }
                block += 1;
            }
        })?;
        match broken {
            None => Ok(report),
            Some(i) => {
                let block = optimizer.layout().blocks().get(i).map(|b| b.name.clone());
                Err(EvalError::NonFinite { what: "gradient", block })
            }
        }
    }
}

impl Algorithm for Sft {
    fn name(&self) -> &'static str {
        "sft"
    }

    fn step(&mut self, s: &mut Step<'_>) -> Result<Status, EvalError> {
        let lr = self.schedule.at(s.k);
        let mut batches = (0..self.config.accumulate)
            .map(|part| self.micro_batch(s.k, part))
            .collect::<Result<Vec<TokenBatch>, _>>()?;
        let live: usize = batches.iter().map(TokenBatch::live).sum();
        batches.iter_mut().for_each(|b| b.weight = 1.0 / live.max(1) as f64);
        let (report, norm) = if self.config.update_in_backward {
            (self.stream(s.k, lr, &batches[0])?, None)
        } else {
            let (report, norm) = self.gradient(s.k, &batches)?;
            self.optimizer.step(lr, &mut self.params, &self.grad);
            (report, Some(norm))
        };
        s.evals.gradients += self.config.accumulate as u64;
        let n = report.live.max(1) as f64;
        s.record.put("loss", report.loss);
        s.record.put("ce", report.ce / n);
        s.record.put("entropy", report.entropy / n);
        s.record.put("accuracy", report.correct as f64 / n);
        s.record.put("tokens", report.live as f64);
        s.record.put("lr", lr);
        if let Some(norm) = norm {
            s.record.put("grad_norm", norm);
        }
        if (s.k + 1).is_multiple_of(self.config.eval_every) || s.k + 1 == self.config.steps {
            self.note_evaluation(s)?;
        }
        Ok(Status::Continue)
    }

    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_reals("params", &self.params)?;
        out.scope("optimizer", |w| self.optimizer.save(w))?;
        let best = self.best.as_ref().map(|b| (b.step, b.ce));
        out.put_json("best", &best)?;
        if let Some(b) = &self.best {
            out.put_reals("best-params", &b.params)?;
        }
        Ok(())
    }

    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        src.reals("params", &mut self.params)?;
        src.scope("optimizer", |r| self.optimizer.load(r))?;
        let best: Option<(u64, f64)> = src.json("best")?;
        self.best = match best {
            Some((step, ce)) => {
                let mut params = vec![0.0; self.params.len()];
                src.reals("best-params", &mut params)?;
                Some(Best { step, ce, params })
            }
            None => None,
        };
        Ok(())
    }

    fn memory(&self) -> MemoryReport {
        let (activations, scratch) = self.objective.bytes();
        let best = self.best.as_ref().map_or(0, |b| b.params.len());
        let reals = |n: usize| 4 * n as u64;
        MemoryReport {
            parameters: reals(self.params.len() + self.objective.frozen().len() + best),
            gradients: reals(self.grad.len()),
            optimizer: self.optimizer.state_bytes() as u64,
            activations: activations as u64,
            scratch: scratch as u64,
        }
    }
}

impl Sft {
    fn note_evaluation(&mut self, s: &mut Step<'_>) -> Result<(), EvalError> {
        let Some(scores) = self.evaluate()? else { return Ok(()) };
        s.evals.values += 1;
        let Some(m) = scores.summary() else { return Ok(()) };
        s.record.put("eval_ce", m.ce);
        s.record.put("eval_ppl", m.perplexity);
        s.record.put("eval_entropy", m.entropy);
        s.record.put("eval_surrogate", m.surrogate);
        if self.best.as_ref().is_none_or(|b| m.ce < b.ce) {
            // Into the memory of the one before: a third copy of the weights would be the largest moment of a run.
            let mut params = self.best.take().map_or_else(Vec::new, |b| b.params);
            params.clone_from(&self.params);
            self.best = Some(Best { step: s.k + 1, ce: m.ce, params });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
