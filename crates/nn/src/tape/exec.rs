use rhumb_core::EvalError;
use rhumb_linalg::Real;

use super::forward::{ALL, Reads};
use super::graph::{Graph, Source, Src};
use super::pool::Pool;
use super::segments::Readers;
use super::spans::Spans;
use super::{Span, Var};
use crate::model::KvCache;
use crate::op::{Cx, Data, LossReport};

/// The running state of a graph: values, adjoints, pools.
///
/// # Cost
/// The first sweep of each kind allocates its buffers, further ones nothing.
pub struct Tape<T: Real> {
    pub(super) graph: Graph<T>,
    pub(super) vals: Vec<Vec<T>>,
    pub(super) saved: Vec<Vec<T>>,
    pub(super) adj: Vec<Vec<T>>,
    /// Tangents of the three above.
    pub(super) tvals: Vec<Vec<T>>,
    pub(super) tsaved: Vec<Vec<T>>,
    pub(super) tadj: Vec<Vec<T>>,
    pub(super) readers: Readers,
    /// Remaining readers of each value in the sweep under way.
    pub(super) uses: Vec<u32>,
    pub(super) spans: Spans<T>,
    /// Fewest trainable and frozen parameters that the graph reads.
    needs: (usize, usize),
    pub(super) pool: Pool<T>,
    pub(super) scratch: Pool<T>,
}

impl<T: Real> Tape<T> {
    /// Prepares the sweeps of a graph.
    ///
    /// # Errors
    /// When two operations read overlapping but different pieces of the trainable vector, one operation reads
    /// a value twice, or one hands its adjoint on to parameters.
    pub fn new(graph: Graph<T>) -> Result<Self, EvalError> {
        let n = graph.nodes.len();
        let mut needs = (0, 0);
        for row in 0..=n {
            for s in graph.inputs_of(row) {
                if let Src::Param(Span { range, trainable }) = s {
                    let need = if *trainable { &mut needs.0 } else { &mut needs.1 };
                    *need = range.end.max(*need);
                }
            }
        }
        for node in &graph.nodes {
            if let Source::Op(op) = &node.source
                && let Some(Src::Param(Span { trainable: true, .. })) = op.passes().map(|i| &node.inputs[i])
            {
                return Err(EvalError::Unsupported(format!(
                    "{} hands its adjoint on to parameters: give it a computed value there",
                    op.name()
                )));
            }
        }
        let empty = || (0..n).map(|_| Vec::new()).collect::<Vec<Vec<T>>>();
        Ok(Tape {
            vals: empty(),
            saved: empty(),
            adj: empty(),
            tvals: empty(),
            tsaved: empty(),
            tadj: empty(),
            readers: Readers::new(&graph),
            uses: vec![0; n],
            spans: Spans::new(&graph)?,
            needs,
            pool: Pool::new(),
            scratch: Pool::new(),
            graph,
        })
    }

    /// Bytes of values and adjoints.
    pub fn activation_bytes(&self) -> usize {
        self.pool.bytes()
    }

    /// Bytes of temporary buffers inside operations.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch.bytes()
    }

    /// Scalars of each outside input, in order of declaration.
    pub fn input_lens(&self) -> Vec<usize> {
        self.graph.inputs.iter().map(|v| self.graph.nodes[v.0].len).collect()
    }

    /// The graph.
    pub fn graph(&self) -> &Graph<T> {
        &self.graph
    }

    /// Computes values up to `out` and copies that one to `to`.
    ///
    /// # Errors
    /// When the data does not fit the graph's inputs.
    pub fn value(
        &mut self,
        params: &[T],
        frozen: &[T],
        data: Data<'_, T>,
        cache: Option<&KvCache<T>>,
        out: Var,
        to: &mut [T],
    ) -> Result<(), EvalError> {
        let len = self.graph.nodes[out.0].len;
        if to.len() != len {
            return Err(EvalError::Shape { what: "output", want: len, got: to.len() });
        }
        self.forward_pass(params, frozen, data, cache, 1.0, Some(out), |tape, _| {
            to.copy_from_slice(&tape.vals[out.0]);
            Ok(())
        })
    }

    /// The loss, without gradients.
    ///
    /// # Errors
    /// When the data does not fit, a label is out of range or the loss is not finite.
    pub fn loss(
        &mut self,
        params: &[T],
        frozen: &[T],
        data: Data<'_, T>,
        weight: f64,
    ) -> Result<LossReport, EvalError> {
        self.forward_pass(params, frozen, data, None, weight, None, |tape, from| {
            let Some((loss, inputs)) = &tape.graph.loss else {
                return Err(EvalError::Unsupported("the graph has no loss".into()));
            };
            let x = tape.inputs(from, inputs, ALL);
            let report = loss.eval(from.cx, &x[..inputs.len()], &mut [])?;
            if report.loss.is_finite() {
                return Ok(report);
            }
            Err(EvalError::NonFinite { what: "loss", block: None })
        })
    }

    /// Runs the forward rules up to `out`, or all of them, and reads the result.
    fn forward_pass<R>(
        &mut self,
        params: &[T],
        frozen: &[T],
        data: Data<'_, T>,
        cache: Option<&KvCache<T>>,
        weight: f64,
        out: Option<Var>,
        result: impl FnOnce(&Self, Reads<'_, T>) -> Result<R, EvalError>,
    ) -> Result<R, EvalError> {
        self.check(params, frozen, &data)?;
        self.release_all();
        self.uses.copy_from_slice(&self.readers.forward);
        if let Some(out) = out {
            self.uses[out.0] += 1;
        }
        let scratch = std::mem::take(&mut self.scratch);
        let cx = Cx { data, scratch: &scratch, seed: None, cache, weight };
        let from = Reads { cx: &cx, params, frozen };
        for n in 0..out.map_or(self.graph.nodes.len(), |v| v.0 + 1) {
            self.forward_node(from, n);
            self.free_inputs(n);
        }
        let report = result(self, from);
        self.scratch = scratch;
        self.release_all();
        report
    }

    pub(super) fn check(&self, params: &[T], frozen: &[T], data: &Data<'_, T>) -> Result<(), EvalError> {
        let shape = |what, want, got| Err(EvalError::Shape { what, want, got });
        if params.len() < self.needs.0 {
            return shape("parameters", self.needs.0, params.len());
        }
        if frozen.len() < self.needs.1 {
            return shape("frozen parameters", self.needs.1, frozen.len());
        }
        if data.inputs.len() != self.graph.inputs.len() {
            return shape("number of graph inputs", self.graph.inputs.len(), data.inputs.len());
        }
        for (x, v) in data.inputs.iter().zip(&self.graph.inputs) {
            if x.len() != self.graph.nodes[v.0].len {
                return shape("graph input", self.graph.nodes[v.0].len, x.len());
            }
        }
        Ok(())
    }
}
