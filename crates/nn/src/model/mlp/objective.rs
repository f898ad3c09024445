use rhumb_core::{EvalError, Layout, Objective, Product, SecondOrder};
use rhumb_linalg::Real;

use super::{Mlp, MlpBatch, Targets, check_rows};
use crate::op::{Data, LossReport};
use crate::tape::{Request, SpanStep, Tape, Var};

/// A multilayer perceptron with its loss, as an objective over its parameters.
///
/// # Cost
/// The tape of the last number of rows is kept: batches of one size allocate nothing after the first.
pub struct MlpObjective<T: Real> {
    model: Mlp,
    tape: Option<(usize, Tape<T>)>,
    predictor: Option<(usize, Tape<T>, Var)>,
}

impl<T: Real> MlpObjective<T> {
    /// The objective of a model.
    pub fn new(model: Mlp) -> Self {
        MlpObjective { model, tape: None, predictor: None }
    }

    /// The model.
    pub fn model(&self) -> &Mlp {
        &self.model
    }

    /// Bytes of activations and scratch held by the tapes.
    pub fn bytes(&self) -> (usize, usize) {
        let tapes = self.tape.iter().map(|t| &t.1).chain(self.predictor.iter().map(|t| &t.1));
        tapes.fold((0, 0), |(a, s), t| (a + t.activation_bytes(), s + t.scratch_bytes()))
    }

    fn with<R>(
        &mut self,
        params: usize,
        batch: &MlpBatch<T>,
        f: impl FnOnce(&mut Tape<T>, Request<'_, T>) -> Result<R, EvalError>,
    ) -> Result<R, EvalError> {
        let want = self.model.layout().len();
        if params != want {
            return Err(EvalError::Shape { what: "parameters", want, got: params });
        }
        self.model.check(batch)?;
        let rows = batch.rows;
        let tape = match &mut self.tape {
            Some((n, tape)) if *n == rows => tape,
            slot => &mut slot.insert((rows, Tape::new(self.model.graph(rows, true).0)?)).1,
        };
        let (labels, values): (&[u32], &[T]) = match &batch.targets {
            Targets::Labels(l) => (l, &[]),
            Targets::Values(v) => (&[], v),
        };
        let inputs = [&batch.inputs[..], values];
        let inputs = if values.is_empty() { &inputs[..1] } else { &inputs };
        let data = Data { targets: labels, inputs, ..Data::default() };
        f(tape, Request { frozen: &[], data, weight: self.model.tape_weight(batch), seed: None })
    }

    /// The loss and its statistics, without gradients.
    ///
    /// # Errors
    /// When parameters or batch do not fit, a value of the batch or the loss is not finite, or a label is
    /// outside the classes.
    pub fn report(&mut self, at: &[T], batch: &MlpBatch<T>) -> Result<LossReport, EvalError> {
        let out = self.with(at.len(), batch, |t, r| t.loss(at, r.frozen, r.data, r.weight));
        out.map_err(|e| self.locate(at, e))
    }

    /// The loss with its gradient, `accumulate` adding to what `grad` holds.
    ///
    /// # Errors
    /// As [`MlpObjective::report`].
    pub fn gradient(
        &mut self,
        at: &[T],
        batch: &MlpBatch<T>,
        grad: &mut [T],
        accumulate: bool,
    ) -> Result<LossReport, EvalError> {
        let out = self.with(at.len(), batch, |t, r| t.gradient(at, r, grad, accumulate, &mut []));
        out.map_err(|e| self.locate(at, e))
    }

    /// The loss, every tensor being handed to `step` once its gradient is complete.
    ///
    /// # Errors
    /// As [`MlpObjective::report`].
    pub fn gradient_streaming(
        &mut self,
        at: &mut [T],
        batch: &MlpBatch<T>,
        step: &mut SpanStep<'_, T>,
    ) -> Result<LossReport, EvalError> {
        let out = self.with(at.len(), batch, |t, r| t.gradient_streaming(at, r, step));
        out.map_err(|e| self.locate(at, e))
    }

    /// The outputs of `rows` rows: scores before the softmax, or values.
    ///
    /// # Shapes
    /// `inputs [rows, model().inputs()]`, `out [rows, model().outputs()]`.
    ///
    /// # Errors
    /// When a length is wrong or an input is not finite.
    pub fn predict(&mut self, at: &[T], rows: usize, inputs: &[T], out: &mut [T]) -> Result<(), EvalError> {
        check_rows("inputs", inputs, rows, self.model.inputs())?;
        let (tape, var) = match &mut self.predictor {
            Some((n, tape, var)) if *n == rows => (tape, *var),
            slot => {
                let (graph, var) = self.model.graph(rows, false);
                (&mut slot.insert((rows, Tape::new(graph)?, var)).1, var)
            }
        };
        tape.value(at, &[], Data { inputs: &[inputs], ..Data::default() }, None, var, out)
    }

    /// Names the first tensor that is not finite, when one is the reason.
    fn locate(&self, at: &[T], e: EvalError) -> EvalError {
        match e {
            EvalError::NonFinite { what, block: None } => {
                let block = self.model.layout().first_non_finite(at).map(|b| b.name.clone());
                EvalError::NonFinite { what, block }
            }
            e => e,
        }
    }
}

impl<T: Real> Objective<T> for MlpObjective<T> {
    type Batch = MlpBatch<T>;
    fn layout(&self) -> &Layout {
        self.model.layout()
    }
    fn value_grad(&mut self, at: &[T], batch: &MlpBatch<T>, grad: &mut [T]) -> Result<f64, EvalError> {
        Ok(self.gradient(at, batch, grad, false)?.loss)
    }
}

impl<T: Real> SecondOrder<T> for MlpObjective<T> {
    fn hvp(&mut self, at: &[T], batch: &MlpBatch<T>, v: &[T], out: &mut [T]) -> Result<(), EvalError> {
        let done = self.with(at.len(), batch, |t, r| t.hvp(at, r, v, out));
        done.map(|_| ()).map_err(|e| self.locate(at, e))
    }

    fn products(
        &mut self,
        at: &[T],
        batch: &MlpBatch<T>,
        requests: &mut [Product<'_, T>],
    ) -> Result<(), EvalError> {
        let done = self.with(at.len(), batch, |t, r| t.products(at, r, requests));
        done.map(|_| ()).map_err(|e| self.locate(at, e))
    }
}
