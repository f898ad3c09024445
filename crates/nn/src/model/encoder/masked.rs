use rhumb_core::{EvalError, Layout, Objective, Product, Role, SecondOrder};
use rhumb_linalg::rng::Rng;
use rhumb_linalg::{Real, compiled};

use super::{Affine, Encoder, EncoderConfig, affine, norm, read_tensors, span, stacked};
use crate::loss::{LmHead, LossKind};
use crate::model::config::ModelError;
use crate::model::decoder::BatchShape;
use crate::model::objective::{TokenBatch, check};
use crate::model::weights::Tensors;
use crate::op::{IGNORE, LossReport};
use crate::ops::{Act, Activation, LayerNorm};
use crate::tape::{Graph, Request, SpanStep, Tape};

/// How tokens are hidden from a masked language model.
///
/// # Reference
/// Devlin et al. 2019: of the chosen tokens, eight in ten become the mask, one a random token, one stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Masking {
    /// Probability that a token is chosen; 0.15 in the paper.
    pub share: f64,
    /// The token that stands for a hidden one.
    pub mask: u32,
    /// Tokens in the vocabulary.
    pub vocab: usize,
}

impl TokenBatch {
    /// Whole rows seen from all sides, of which some tokens are hidden and have to be found.
    ///
    /// `ids` has `rows * len` tokens, row after row. With another number of them the batch keeps them as they are and
    /// every evaluation refuses it with both numbers.
    pub fn masked(rows: usize, len: usize, mut ids: Vec<u32>, how: Masking, rng: &mut Rng) -> Self {
        let n = rows * len;
        let mut targets = vec![IGNORE; n];
        for (id, target) in ids.iter_mut().zip(&mut targets) {
            if rng.uniform() >= how.share {
                continue;
            }
            *target = *id;
            match rng.below(10) {
                0..=7 => *id = how.mask,
                8 => *id = rng.below(how.vocab) as u32,
                _ => {}
            }
        }
        let positions = (0..n).map(|i| (i % len) as u32).collect();
        TokenBatch { rows, len, ids, positions, spans: vec![(0, len as u32); n], targets, weight: 0.0 }
    }
}

/// An encoder that finds hidden tokens: the training task of BERT.
///
/// # Equation
/// Scores `E norm(gelu(W h + b))` of the last hidden states `h`, `E` being the table of token embeddings. The bias that the
/// published models add to every score is left out.
///
/// # Reference
/// Devlin et al. 2019.
#[derive(Clone, Debug)]
pub struct MaskedEncoder {
    encoder: Encoder,
    layout: Layout,
    dense: Affine,
    norm: Affine,
}

compiled!(MakeGraph<'a>, |(model, shape, kind): (&'a MaskedEncoder, BatchShape, LossKind)| -> Graph<T> {
    model.built(shape, kind)
});

impl MaskedEncoder {
    /// An encoder of that shape with its head.
    pub fn new(config: EncoderConfig) -> Self {
        let encoder = Encoder::new(config);
        let (mut l, width) = (encoder.layout.clone(), encoder.config.width);
        let name = |s: &str| format!("cls.predictions.transform.{s}");
        let dense = stacked(&mut l, width, &[(name("dense"), width, Role::Mlp)]);
        let norm = norm(&mut l, &name("LayerNorm"), width);
        MaskedEncoder { encoder, layout: l, dense, norm }
    }

    /// The encoder; its parameters are the first of [`MaskedEncoder::layout`].
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The tensors, by the names of Hugging Face.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Fresh parameters: matrices and tables normal with standard deviation 0.02, norms 1, biases 0, one stream per tensor
    /// name, as in BERT.
    pub fn init<T: Real>(&self, seed: u64) -> Vec<T> {
        let mut out = vec![T::ZERO; self.layout.len()];
        for b in self.layout.blocks().iter().filter(|b| b.role != Role::Bias) {
            let (to, mut rng) = (&mut out[b.range.clone()], Rng::named(seed, &b.name));
            match b.role {
                Role::Norm => to.fill(T::ONE),
                _ => to.iter_mut().for_each(|v| *v = T::of(0.02 * rng.normal())),
            }
        }
        out
    }

    /// Copies a checkpoint; the pooler, the bias of the scores and heads for other tasks are left out.
    ///
    /// # Errors
    /// As [`Encoder::load`].
    pub fn load<T: Real>(&self, from: &dyn Tensors) -> Result<Vec<T>, ModelError> {
        let mut out = read_tensors(&self.layout, from)?;
        self.encoder.add_segment(from, &mut out)?;
        Ok(out)
    }

    /// The loss of hidden tokens for batches of one shape.
    pub fn graph<T: Real>(&self, shape: BatchShape, kind: LossKind) -> Graph<T> {
        T::compiled::<MakeGraph<'_>>((self, shape, kind))
    }

    fn built<T: Real>(&self, shape: BatchShape, kind: LossKind) -> Graph<T> {
        let c = &self.encoder.config;
        let (mut g, x) = self.encoder.built(shape);
        let n = shape.rows * shape.len;
        let h = affine(&mut g, &self.dense, n, c.width, x, None);
        let h = g.push(Activation { len: n * c.width, act: Act::Gelu }, &[h.into()]);
        let op = LayerNorm { rows: n, width: c.width, eps: c.eps };
        let h = g.push(op, &[h.into(), span(&self.norm.w), span(&self.norm.b)]);
        g.finish(LmHead::new(n, c.width, c.vocab, kind), &[h.into(), span(&self.encoder.embed)]);
        g
    }
}

/// A masked encoder with a loss, as an objective over its parameters.
///
/// # Cost
/// The tape of the last shape is kept: batches of one shape allocate nothing after the first.
pub struct MaskedObjective<T: Real> {
    model: MaskedEncoder,
    loss: LossKind,
    tape: Option<(BatchShape, Tape<T>)>,
}

impl<T: Real> MaskedObjective<T> {
    /// The objective of a model.
    pub fn new(model: MaskedEncoder, loss: LossKind) -> Self {
        MaskedObjective { model, loss, tape: None }
    }

    /// The model.
    pub fn model(&self) -> &MaskedEncoder {
        &self.model
    }

    /// Bytes of activations and scratch held by the tape.
    pub fn bytes(&self) -> (usize, usize) {
        self.tape.as_ref().map_or((0, 0), |(_, t)| (t.activation_bytes(), t.scratch_bytes()))
    }

    fn with<R>(
        &mut self,
        params: usize,
        batch: &TokenBatch,
        f: impl FnOnce(&mut Tape<T>, Request<'_, T>) -> Result<R, EvalError>,
    ) -> Result<R, EvalError> {
        let want = self.model.layout.len();
        if params != want {
            return Err(EvalError::Shape { what: "parameters", want, got: params });
        }
        let c = &self.model.encoder.config;
        check(c.vocab, c.positions, batch).map_err(|e| EvalError::Unsupported(e.to_string()))?;
        let shape = BatchShape { rows: batch.rows, len: batch.len };
        let tape = match &mut self.tape {
            Some((s, tape)) if *s == shape => tape,
            slot => &mut slot.insert((shape, Tape::new(self.model.graph(shape, self.loss))?)).1,
        };
        f(tape, Request { frozen: &[], data: batch.data(), weight: batch.effective_weight(), seed: None })
    }

    /// The loss and its statistics, without gradients.
    ///
    /// # Errors
    /// When parameters or batch do not fit or the loss is not finite.
    pub fn report(&mut self, at: &[T], batch: &TokenBatch) -> Result<LossReport, EvalError> {
        let out = self.with(at.len(), batch, |t, r| t.loss(at, r.frozen, r.data, r.weight));
        out.map_err(|e| self.locate(at, e))
    }

    /// The loss with its gradient, `accumulate` adding to what `grad` holds.
    ///
    /// # Errors
    /// As [`MaskedObjective::report`].
    pub fn gradient(
        &mut self,
        at: &[T],
        batch: &TokenBatch,
        grad: &mut [T],
        accumulate: bool,
    ) -> Result<LossReport, EvalError> {
        let out = self.with(at.len(), batch, |t, r| t.gradient(at, r, grad, accumulate, &mut []));
        out.map_err(|e| self.locate(at, e))
    }

    /// The loss, every span of parameters being handed to `step` once its gradient is complete.
    ///
    /// # Errors
    /// As [`MaskedObjective::report`].
    pub fn gradient_streaming(
        &mut self,
        at: &mut [T],
        batch: &TokenBatch,
        step: &mut SpanStep<'_, T>,
    ) -> Result<LossReport, EvalError> {
        let out = self.with(at.len(), batch, |t, r| t.gradient_streaming(at, r, step));
        out.map_err(|e| self.locate(at, e))
    }

    /// Names the first tensor that is not finite, when one is the reason.
    fn locate(&self, at: &[T], e: EvalError) -> EvalError {
        match e {
            EvalError::NonFinite { what, block: None } => {
                let block = self.model.layout.first_non_finite(at).map(|b| b.name.clone());
                EvalError::NonFinite { what, block }
            }
            e => e,
        }
    }
}

impl<T: Real> Objective<T> for MaskedObjective<T> {
    type Batch = TokenBatch;
    fn layout(&self) -> &Layout {
        &self.model.layout
    }
    fn value_grad(&mut self, at: &[T], batch: &TokenBatch, grad: &mut [T]) -> Result<f64, EvalError> {
        Ok(self.gradient(at, batch, grad, false)?.loss)
    }
}

impl<T: Real> SecondOrder<T> for MaskedObjective<T> {
    fn hvp(&mut self, at: &[T], batch: &TokenBatch, v: &[T], out: &mut [T]) -> Result<(), EvalError> {
        let done = self.with(at.len(), batch, |t, r| t.hvp(at, r, v, out));
        done.map(|_| ()).map_err(|e| self.locate(at, e))
    }

    fn products(
        &mut self,
        at: &[T],
        batch: &TokenBatch,
        requests: &mut [Product<'_, T>],
    ) -> Result<(), EvalError> {
        let done = self.with(at.len(), batch, |t, r| t.products(at, r, requests));
        done.map(|_| ()).map_err(|e| self.locate(at, e))
    }
}
