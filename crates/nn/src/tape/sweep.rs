//! The reverse sweeps: a whole gradient, a gradient span by span, a Hessian-vector product.

use std::ops::Range;

use rhumb_core::EvalError;
use rhumb_linalg::Real;

use super::Tape;
use super::forward::Reads;
use crate::op::{Cx, Data, LossReport};

/// One reverse sweep: what is evaluated and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a, T> {
    /// The frozen parameters.
    pub frozen: &'a [T],
    /// The batch.
    pub data: Data<'a, T>,
    /// Factor on the loss and its gradient.
    pub weight: f64,
    /// Seed of dropout masks and of noise on embeddings; `None` switches both off.
    pub seed: Option<u64>,
}

/// What receives a span of parameters with its complete gradient: position, parameters, gradient.
pub type SpanStep<'a, T> = dyn FnMut(Range<usize>, &mut [T], &mut [T]) + 'a;

/// Trainable parameters during a sweep: fixed, or updated as soon as their gradient is complete.
pub(super) trait Params<T> {
    /// Spans are handed over one by one.
    const STREAMS: bool;
    fn get(&self) -> &[T];
    fn done(&mut self, range: &Range<usize>, grad: &mut [T]);
}

struct Fixed<'a, T>(&'a [T]);

impl<T> Params<T> for Fixed<'_, T> {
    const STREAMS: bool = false;
    fn get(&self) -> &[T] {
        self.0
    }
    fn done(&mut self, _: &Range<usize>, _: &mut [T]) {}
}

struct Live<'a, 'b, T> {
    params: &'a mut [T],
    step: &'a mut SpanStep<'b, T>,
}

impl<T> Params<T> for Live<'_, '_, T> {
    const STREAMS: bool = true;
    fn get(&self) -> &[T] {
        self.params
    }
    fn done(&mut self, range: &Range<usize>, grad: &mut [T]) {
        (self.step)(range.clone(), &mut self.params[range.clone()], grad);
    }
}

/// The direction of a tangent sweep and where its result goes.
pub(super) struct Tangent<'a, T> {
    pub(super) v: &'a [T],
    pub(super) hv: &'a mut [T],
}

/// One sweep under way.
pub(super) struct Sweep<'a, T, P> {
    pub(super) cx: &'a Cx<'a, T>,
    pub(super) params: P,
    pub(super) frozen: &'a [T],
    /// The flat gradient, and whether it is added to.
    pub(super) grad: Option<(&'a mut [T], bool)>,
    pub(super) tangent: Option<Tangent<'a, T>>,
}

impl<T: Real> Tape<T> {
    /// The loss and its gradient. `grad` is as long as the trainable parameters; `accumulate` adds to it.
    /// `input_grads` receives the adjoints of the inputs that were declared with one, in their order.
    ///
    /// # Errors
    /// When the data does not fit, a label is out of range or the loss is not finite.
    pub fn gradient(
        &mut self,
        params: &[T],
        req: Request<'_, T>,
        grad: &mut [T],
        accumulate: bool,
        input_grads: &mut [&mut [T]],
    ) -> Result<LossReport, EvalError> {
        if grad.len() != params.len() {
            return Err(EvalError::Shape { what: "gradient", want: params.len(), got: grad.len() });
        }
        self.sweep(Fixed(params), req, Some((grad, accumulate)), None, input_grads)
    }

    /// The loss; every parameter span is handed to `step` with its gradient as soon as that is complete,
    /// so that an optimizer can update it at once and the full gradient never exists.
    ///
    /// # Errors
    /// As [`Tape::gradient`].
    pub fn gradient_streaming(
        &mut self,
        params: &mut [T],
        req: Request<'_, T>,
        step: &mut SpanStep<'_, T>,
    ) -> Result<LossReport, EvalError> {
        self.sweep(Live { params, step }, req, None, None, &mut [])
    }

    /// The loss and the product of its Hessian with `v`, exact, in one forward-over-reverse sweep.
    ///
    /// # Errors
    /// As [`Tape::gradient`]; losses without a symmetric derivative refuse.
    pub fn hvp(
        &mut self,
        params: &[T],
        req: Request<'_, T>,
        v: &[T],
        hv: &mut [T],
    ) -> Result<LossReport, EvalError> {
        for (what, s) in [("direction", v.len()), ("Hessian-vector product", hv.len())] {
            if s != params.len() {
                return Err(EvalError::Shape { what, want: params.len(), got: s });
            }
        }
        self.sweep(Fixed(params), req, None, Some(Tangent { v, hv }), &mut [])
    }

    fn sweep<P: Params<T>>(
        &mut self,
        params: P,
        req: Request<'_, T>,
        grad: Option<(&mut [T], bool)>,
        tangent: Option<Tangent<'_, T>>,
        input_grads: &mut [&mut [T]],
    ) -> Result<LossReport, EvalError> {
        self.check(params.get(), req.frozen, &req.data)?;
        self.release_all();
        let scratch = std::mem::take(&mut self.scratch);
        let cx = Cx { data: req.data, scratch: &scratch, seed: req.seed, cache: None, weight: req.weight };
        let report = self.run(Sweep { cx: &cx, params, frozen: req.frozen, grad, tangent }, input_grads);
        self.scratch = scratch;
        self.release_all();
        report
    }

    fn run<P: Params<T>>(
        &mut self,
        mut sweep: Sweep<'_, T, P>,
        input_grads: &mut [&mut [T]],
    ) -> Result<LossReport, EvalError> {
        let total = self.graph.nodes.len();
        self.uses.copy_from_slice(&self.readers.sweep);
        self.spans.start();
        if let Some((g, false)) = &mut sweep.grad {
            self.spans.clear_gaps(g);
        }
        if let Some(t) = &mut sweep.tangent {
            self.spans.clear_gaps(t.hv);
        }
        for n in 0..total {
            let from = Reads { cx: sweep.cx, params: sweep.params.get(), frozen: sweep.frozen };
            self.forward_node(from, n);
            if let Some(t) = &sweep.tangent {
                self.tangent_node(from, t.v, n);
            }
            self.free_inputs(n);
            if self.graph.nodes[n].segment.is_some() {
                self.drop_saved(n);
            }
        }
        let report = self.loss_rule(&mut sweep)?;
        if !report.loss.is_finite() {
            return Err(EvalError::NonFinite { what: "loss", block: None });
        }
        for n in (0..total).rev() {
            if let Some(segment) = self.segment_ending_at(n) {
                let from = Reads { cx: sweep.cx, params: sweep.params.get(), frozen: sweep.frozen };
                self.recompute(from, sweep.tangent.as_ref().map(|t| t.v), n, segment);
            }
            self.backward_node(&mut sweep, n);
        }
        let wanted = self.graph.inputs.iter().filter(|v| self.graph.nodes[v.0].needs_grad);
        for (to, v) in input_grads.iter_mut().zip(wanted) {
            if self.adj[v.0].is_empty() {
                to.fill(T::ZERO);
            } else {
                to.copy_from_slice(&self.adj[v.0]);
            }
        }
        Ok(report)
    }
}
