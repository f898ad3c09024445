use std::sync::Arc;

use rhumb_core::{EvalError, Layout, Objective, Product, SecondOrder};
use rhumb_linalg::Real;

use super::config::ModelError;
use super::decoder::{BatchShape, Decoder, Plan};
use crate::loss::{LossKind, TokenScore, score_rows};
use crate::op::{Data, IGNORE, LossReport};
use crate::ops::RopeTable;
use crate::tape::{Request, SpanStep, Tape};

/// Tokens of one evaluation, owned.
///
/// # Shapes
/// All vectors `[rows len]`; see [`Data`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenBatch {
    /// Rows.
    pub rows: usize,
    /// Tokens in a row.
    pub len: usize,
    /// Token numbers.
    pub ids: Vec<u32>,
    /// Position of each token in its document.
    pub positions: Vec<u32>,
    /// Keys each token sees, `[lo, hi)` within its row.
    pub spans: Vec<(u32, u32)>,
    /// Labels; [`IGNORE`] takes no part.
    pub targets: Vec<u32>,
    /// Factor on the loss and its gradient; zero stands for one over the number of live tokens.
    pub weight: f64,
}

impl TokenBatch {
    /// Whole rows as one causal document each; every token but the last predicts its successor.
    ///
    /// `ids` has `rows * len` tokens, row after row. With another number of them the batch keeps them as they are
    /// and every evaluation refuses it with both numbers.
    pub fn causal(rows: usize, len: usize, ids: Vec<u32>) -> Self {
        let at = |i: usize| (i % len) as u32;
        let next = |i: usize| if (i + 1).is_multiple_of(len) { None } else { ids.get(i + 1).copied() };
        TokenBatch {
            rows,
            len,
            positions: (0..rows * len).map(at).collect(),
            spans: (0..rows * len).map(|i| (0, at(i) + 1)).collect(),
            targets: (0..rows * len).map(|i| next(i).unwrap_or(IGNORE)).collect(),
            ids,
            weight: 0.0,
        }
    }

    /// Tokens that take part in the loss.
    pub fn live(&self) -> usize {
        self.targets.iter().filter(|t| **t != IGNORE).count()
    }

    pub(crate) fn data<T>(&self) -> Data<'_, T> {
        Data {
            ids: &self.ids,
            positions: &self.positions,
            spans: &self.spans,
            targets: &self.targets,
            inputs: &[],
        }
    }

    /// The factor in force.
    pub fn effective_weight(&self) -> f64 {
        if self.weight > 0.0 { self.weight } else { 1.0 / self.live().max(1) as f64 }
    }
}

/// A decoder with a loss, as an objective over its trained parameters.
pub struct DecoderObjective<T: Real> {
    model: Decoder,
    plan: Plan,
    frozen: Arc<Vec<T>>,
    rope: Option<Arc<RopeTable<T>>>,
    tape: Option<(BatchShape, Tape<T>)>,
    /// Seed of the noise of the next sweep with gradients; `None` switches noise off.
    pub seed: Option<u64>,
}

impl<T: Real> DecoderObjective<T> {
    /// An objective; `frozen` holds the base parameters of an adapted model and is empty otherwise.
    ///
    /// # Errors
    /// When `frozen` does not fit.
    pub fn new(
        model: Decoder,
        loss: LossKind,
        checkpoint: bool,
        frozen: Arc<Vec<T>>,
    ) -> Result<Self, ModelError> {
        let want = if model.is_adapted() { model.base_layout().len() } else { 0 };
        if frozen.len() != want {
            return Err(ModelError::Config(format!(
                "frozen parameters: expected {want}, got {}",
                frozen.len()
            )));
        }
        let plan = Plan { loss: Some(loss), checkpoint };
        Ok(DecoderObjective { model, plan, frozen, rope: None, tape: None, seed: None })
    }

    /// The model.
    pub fn model(&self) -> &Decoder {
        &self.model
    }

    /// The frozen parameters.
    pub fn frozen(&self) -> &Arc<Vec<T>> {
        &self.frozen
    }

    /// Bytes of activations and scratch held by the tape.
    pub fn bytes(&self) -> (usize, usize) {
        self.tape.as_ref().map_or((0, 0), |(_, t)| (t.activation_bytes(), t.scratch_bytes()))
    }

    fn prepare(&mut self, batch: &TokenBatch) -> Result<(), EvalError> {
        check(self.model.config().vocab, self.model.config().positions, batch)
            .map_err(|e| EvalError::Unsupported(e.to_string()))?;
        let shape = BatchShape { rows: batch.rows, len: batch.len };
        if self.tape.as_ref().is_none_or(|(s, _)| *s != shape) {
            if self.rope.as_ref().is_none_or(|r| r.positions() < batch.len) {
                self.rope = self.model.rope(batch.len);
            }
            let (graph, _) = self.model.graph(shape, self.plan, self.rope.as_ref());
            self.tape = Some((shape, Tape::new(graph)?));
        }
        Ok(())
    }

    fn with<R>(
        &mut self,
        batch: &TokenBatch,
        f: impl FnOnce(&mut Tape<T>, Request<'_, T>) -> Result<R, EvalError>,
    ) -> Result<R, EvalError> {
        self.prepare(batch)?;
        let req = Request {
            frozen: &self.frozen,
            data: batch.data(),
            weight: batch.effective_weight(),
            seed: self.seed,
        };
        match &mut self.tape {
            Some((_, tape)) => f(tape, req),
            None => Err(EvalError::Unsupported("no tape".into())),
        }
    }

    /// The loss and its statistics, without gradients.
    ///
    /// # Errors
    /// When the batch does not fit or the loss is not finite.
    pub fn report(&mut self, at: &[T], batch: &TokenBatch) -> Result<LossReport, EvalError> {
        self.with(batch, |t, r| t.loss(at, r.frozen, r.data, r.weight))
    }

    /// The loss with its gradient, `accumulate` adding to what `grad` holds.
    ///
    /// # Errors
    /// As [`DecoderObjective::report`].
    pub fn gradient(
        &mut self,
        at: &[T],
        batch: &TokenBatch,
        grad: &mut [T],
        accumulate: bool,
    ) -> Result<LossReport, EvalError> {
        self.with(batch, |t, r| t.gradient(at, r, grad, accumulate, &mut []))
    }

    /// The loss, every span of parameters being handed to `step` once its gradient is complete.
    ///
    /// # Errors
    /// As [`DecoderObjective::report`].
    pub fn gradient_streaming(
        &mut self,
        at: &mut [T],
        batch: &TokenBatch,
        step: &mut SpanStep<'_, T>,
    ) -> Result<LossReport, EvalError> {
        self.with(batch, |t, r| t.gradient_streaming(at, r, step))
    }
}

/// Checks that a batch fits a model, so that no later loop can run out of a table.
pub(crate) fn check(vocab: usize, positions: usize, b: &TokenBatch) -> Result<(), ModelError> {
    let n = b.rows * b.len;
    let bad = |s: String| Err(ModelError::Batch(s));
    if n == 0 {
        return bad("the batch is empty".into());
    }
    for (what, got) in [
        ("ids", b.ids.len()),
        ("positions", b.positions.len()),
        ("spans", b.spans.len()),
        ("targets", b.targets.len()),
    ] {
        if got != n {
            return bad(format!("batch of {} x {} tokens has {got} {what}", b.rows, b.len));
        }
    }
    if let Some(i) = b.ids.iter().position(|&t| t as usize >= vocab) {
        return bad(format!(
            "token {} at place {i} is outside the vocabulary of {vocab}: does the tokenizer belong to this model?",
            b.ids[i]
        ));
    }
    if let Some(i) = b.positions.iter().position(|&p| p as usize >= positions || p as usize >= b.len) {
        return bad(format!(
            "position {} at place {i} is beyond the context of {} tokens: shorten the rows",
            b.positions[i],
            positions.min(b.len)
        ));
    }
    if let Some(i) = b.spans.iter().position(|&(a, z)| a >= z || z as usize > b.len) {
        return bad(format!("token {i} sees keys {:?} of a row of {} tokens", b.spans[i], b.len));
    }
    Ok(())
}

impl<T: Real> Objective<T> for DecoderObjective<T> {
    type Batch = TokenBatch;
    fn layout(&self) -> &Layout {
        self.model.layout()
    }
    fn value_grad(&mut self, at: &[T], batch: &TokenBatch, grad: &mut [T]) -> Result<f64, EvalError> {
        Ok(self.gradient(at, batch, grad, false)?.loss)
    }
}

impl<T: Real> SecondOrder<T> for DecoderObjective<T> {
    fn hvp(&mut self, at: &[T], batch: &TokenBatch, v: &[T], out: &mut [T]) -> Result<(), EvalError> {
        self.with(batch, |t, r| t.hvp(at, r, v, out)).map(|_| ())
    }

    fn products(
        &mut self,
        at: &[T],
        batch: &TokenBatch,
        requests: &mut [Product<'_, T>],
    ) -> Result<(), EvalError> {
        self.with(batch, |t, r| t.products(at, r, requests)).map(|_| ())
    }
}

/// Per-token losses of a batch.
///
/// `params` are the trained parameters, `frozen` the base of an adapted model.
///
/// # Errors
/// When the batch does not fit.
pub fn score<T: Real>(
    model: &Decoder,
    params: &[T],
    frozen: &[T],
    batch: &TokenBatch,
    kind: LossKind,
) -> Result<Vec<TokenScore>, EvalError> {
    let c = model.config();
    check(c.vocab, c.positions, batch).map_err(|e| EvalError::Unsupported(e.to_string()))?;
    let shape = BatchShape { rows: batch.rows, len: batch.len };
    let (graph, out) =
        model.graph(shape, Plan { loss: None, checkpoint: false }, model.rope(batch.len).as_ref());
    let mut hidden = vec![T::ZERO; batch.rows * batch.len * c.width];
    Tape::new(graph)?.value(params, frozen, batch.data(), None, out, &mut hidden)?;
    let base = if model.is_adapted() { frozen } else { params };
    score_rows(kind, &hidden, &base[model.head_range()], c.width, &batch.targets)
}
