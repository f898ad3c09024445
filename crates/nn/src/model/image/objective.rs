use std::sync::Arc;

use rhumb_core::{EvalError, Layout, Objective, Product, SecondOrder};
use rhumb_linalg::Real;

use super::{ImageModel, Statistics};
use crate::loss::LossKind;
use crate::op::{Data, IGNORE, LossReport};
use crate::ops::BatchMoments;
use crate::tape::{Request, SpanStep, Tape, Var};

/// Images of one evaluation with their classes.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageBatch<T> {
    /// Images.
    pub rows: usize,
    /// `[rows, channels, rows of an image, columns]`.
    pub images: Vec<T>,
    /// `[rows]`, one class an image; [`IGNORE`] takes no part in the loss.
    pub labels: Vec<u32>,
    /// Factor on the sum over images; zero stands for the mean.
    pub weight: f64,
}

/// An image classifier with a loss, as an objective over its parameters.
///
/// # Cost
/// The tapes of the last number of images are kept, one for each kind of statistics: batches of one size allocate nothing
/// after the first.
pub struct ImageObjective<T: Real> {
    model: ImageModel,
    loss: LossKind,
    /// Where batch norms take mean and variance from in losses, gradients and Hessian products.
    pub statistics: Statistics,
    buffers: Vec<T>,
    sinks: Vec<Arc<BatchMoments>>,
    tapes: [Option<(usize, Tape<T>)>; 2],
    predictor: Option<(usize, Tape<T>, Var)>,
    /// Of a net with attention, for every row of the batch.
    positions: Vec<u32>,
    spans: Vec<(u32, u32)>,
}

impl<T: Real> ImageObjective<T> {
    /// The objective of a model with fresh running statistics.
    pub fn new(model: ImageModel, loss: LossKind, statistics: Statistics) -> Self {
        let norms = model.buffers().blocks().len() / 2;
        ImageObjective {
            buffers: model.fresh_buffers(),
            sinks: (0..norms).map(|_| Arc::default()).collect(),
            model,
            loss,
            statistics,
            tapes: [None, None],
            predictor: None,
            positions: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// The model.
    pub fn model(&self) -> &ImageModel {
        &self.model
    }

    /// The running statistics, in the layout of [`ImageModel::buffers`].
    pub fn buffers(&self) -> &[T] {
        &self.buffers
    }

    /// Puts running statistics in place, of a checkpoint for instance.
    ///
    /// # Errors
    /// Another length, a value that is not finite or a variance below zero.
    pub fn set_buffers(&mut self, from: &[T]) -> Result<(), EvalError> {
        let layout = self.model.buffers();
        if from.len() != layout.len() {
            return Err(EvalError::Shape { what: "running statistics", want: layout.len(), got: from.len() });
        }
        let wrong = |b: &rhumb_core::Block| {
            let least = if b.name.ends_with("running_var") { T::ZERO } else { T::of(f64::NEG_INFINITY) };
            from[b.range.clone()].iter().any(|v| !v.is_finite() || *v < least)
        };
        if let Some(b) = layout.blocks().iter().find(|b| wrong(b)) {
            return Err(EvalError::NonFinite { what: "a running statistic", block: Some(b.name.clone()) });
        }
        self.buffers.copy_from_slice(from);
        Ok(())
    }

    /// Moves the running statistics towards those of the batch that was seen last with [`Statistics::Batch`].
    ///
    /// # Equation
    /// `running = (1 - momentum) running + momentum batch`, variances unbiased; PyTorch's momentum is 0.1.
    pub fn track(&mut self, momentum: f64) {
        let mut rest = &mut self.buffers[..];
        for sink in &self.sinks {
            sink.read(|mean, var| {
                let (here, after) = std::mem::take(&mut rest).split_at_mut(mean.len() + var.len());
                for (r, b) in here.iter_mut().zip(mean.iter().chain(var)) {
                    *r = T::of((1.0 - momentum) * r.f64() + momentum * b);
                }
                rest = after;
            });
        }
    }

    /// Bytes of activations and scratch held by the tapes.
    pub fn bytes(&self) -> (usize, usize) {
        let tapes = self.tapes.iter().flatten().map(|t| &t.1).chain(self.predictor.iter().map(|t| &t.1));
        tapes.fold((0, 0), |(a, s), t| (a + t.activation_bytes(), s + t.scratch_bytes()))
    }

    fn with<R>(
        &mut self,
        params: usize,
        batch: &ImageBatch<T>,
        f: impl FnOnce(&mut Tape<T>, Request<'_, T>) -> Result<R, EvalError>,
    ) -> Result<R, EvalError> {
        let (want, rows) = (self.model.layout().len(), batch.rows);
        if params != want {
            return Err(EvalError::Shape { what: "parameters", want, got: params });
        }
        check(&self.model, rows, &batch.images)?;
        self.fill_places(rows);
        let tape = match &mut self.tapes[self.statistics as usize] {
            Some((n, tape)) if *n == rows => tape,
            slot => {
                let graph = self.model.graph(rows, self.statistics, Some(self.loss), &self.sinks).0;
                &mut slot.insert((rows, Tape::new(graph)?)).1
            }
        };
        let live = batch.labels.iter().filter(|t| **t != IGNORE).count();
        let weight = if batch.weight > 0.0 { batch.weight } else { 1.0 / live.max(1) as f64 };
        let inputs = [&batch.images[..]];
        let data = Data {
            ids: &[],
            positions: &self.positions,
            spans: &self.spans,
            targets: &batch.labels,
            inputs: &inputs,
        };
        f(tape, Request { frozen: &self.buffers, data, weight, seed: None })
    }

    fn fill_places(&mut self, batch: usize) {
        let rows = self.model.net.rows;
        if self.spans.len() != batch * rows {
            self.positions = (0..batch * rows).map(|i| (i % rows) as u32).collect();
            self.spans = vec![(0, rows as u32); batch * rows];
        }
    }

    /// The loss and its statistics, without gradients.
    ///
    /// # Errors
    /// When parameters or batch do not fit, a value of the batch or the loss is not finite, or a label is outside the
    /// classes.
    pub fn report(&mut self, at: &[T], batch: &ImageBatch<T>) -> Result<LossReport, EvalError> {
        let out = self.with(at.len(), batch, |t, r| t.loss(at, r.frozen, r.data, r.weight));
        out.map_err(|e| self.locate(at, e))
    }

    /// The loss with its gradient, `accumulate` adding to what `grad` holds.
    ///
    /// # Errors
    /// As [`ImageObjective::report`].
    pub fn gradient(
        &mut self,
        at: &[T],
        batch: &ImageBatch<T>,
        grad: &mut [T],
        accumulate: bool,
    ) -> Result<LossReport, EvalError> {
        let out = self.with(at.len(), batch, |t, r| t.gradient(at, r, grad, accumulate, &mut []));
        out.map_err(|e| self.locate(at, e))
    }

    /// The loss, every tensor being handed to `step` once its gradient is complete.
    ///
    /// # Errors
    /// As [`ImageObjective::report`].
    pub fn gradient_streaming(
        &mut self,
        at: &mut [T],
        batch: &ImageBatch<T>,
        step: &mut SpanStep<'_, T>,
    ) -> Result<LossReport, EvalError> {
        let out = self.with(at.len(), batch, |t, r| t.gradient_streaming(at, r, step));
        out.map_err(|e| self.locate(at, e))
    }

    /// The scores of `rows` images before the softmax, with the running statistics.
    ///
    /// # Shapes
    /// `images [rows, model().inputs()]`, `out [rows, classes]`.
    ///
    /// # Errors
    /// When a length is wrong or a pixel is not finite.
    pub fn predict(&mut self, at: &[T], rows: usize, images: &[T], out: &mut [T]) -> Result<(), EvalError> {
        check(&self.model, rows, images)?;
        self.fill_places(rows);
        let (tape, var) = match &mut self.predictor {
            Some((n, tape, var)) if *n == rows => (tape, *var),
            slot => {
                let (graph, var) = self.model.graph(rows, Statistics::Running, None, &[]);
                (&mut slot.insert((rows, Tape::new(graph)?, var)).1, var)
            }
        };
        let (positions, spans) = (&self.positions[..], &self.spans[..]);
        let data = Data { positions, spans, inputs: &[images], ..Data::default() };
        tape.value(at, &self.buffers, data, None, var, out)
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

/// Checks that images fit, so that no later loop can run out of a slice.
fn check<T: Real>(model: &ImageModel, rows: usize, images: &[T]) -> Result<(), EvalError> {
    if rows == 0 {
        return Err(EvalError::Unsupported("the batch is empty: give it at least one image".into()));
    }
    let each = model.inputs();
    match rows.checked_mul(each) {
        Some(want) if want == images.len() => {}
        want => {
            let want = want.unwrap_or(usize::MAX);
            return Err(EvalError::Shape { what: "pixels of the images", want, got: images.len() });
        }
    }
    let Some(i) = images.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let [_, height, width] = model.config().image;
    let (image, pixel) = (i / each, i % each);
    let (channel, y, x) = (pixel / (height * width), pixel / width % height, pixel % width);
    Err(EvalError::NonFinite {
        what: "a pixel of the batch",
        block: Some(format!("image {image}, channel {channel}, row {y}, column {x}")),
    })
}

impl<T: Real> Objective<T> for ImageObjective<T> {
    type Batch = ImageBatch<T>;
    fn layout(&self) -> &Layout {
        self.model.layout()
    }
    fn value_grad(&mut self, at: &[T], batch: &ImageBatch<T>, grad: &mut [T]) -> Result<f64, EvalError> {
        Ok(self.gradient(at, batch, grad, false)?.loss)
    }
}

impl<T: Real> SecondOrder<T> for ImageObjective<T> {
    fn hvp(&mut self, at: &[T], batch: &ImageBatch<T>, v: &[T], out: &mut [T]) -> Result<(), EvalError> {
        let done = self.with(at.len(), batch, |t, r| t.hvp(at, r, v, out));
        done.map(|_| ()).map_err(|e| self.locate(at, e))
    }

    fn products(
        &mut self,
        at: &[T],
        batch: &ImageBatch<T>,
        requests: &mut [Product<'_, T>],
    ) -> Result<(), EvalError> {
        let done = self.with(at.len(), batch, |t, r| t.products(at, r, requests));
        done.map(|_| ()).map_err(|e| self.locate(at, e))
    }
}
