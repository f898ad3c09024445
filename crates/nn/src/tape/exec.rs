use std::ops::Range;

use rhumb_core::EvalError;
use rhumb_linalg::Real;

use super::graph::{Graph, MAX_INPUTS, Source, Src};
use super::pool::Pool;
use super::{Span, Var};
use crate::model::KvCache;
use crate::op::{Cx, Data, LossReport};

/// The running state of a graph: values, adjoints, pools.
pub struct Tape<T: Real> {
    pub(super) graph: Graph<T>,
    pub(super) vals: Vec<Vec<T>>,
    pub(super) saved: Vec<Vec<T>>,
    pub(super) adj: Vec<Vec<T>>,
    pub(super) tvals: Vec<Vec<T>>,
    pub(super) tsaved: Vec<Vec<T>>,
    pub(super) tadj: Vec<Vec<T>>,
    /// Remaining readers of each value in the sweep under way.
    pub(super) uses: Vec<u32>,
    pub(super) base_uses: Vec<u32>,
    /// Distinct trainable spans and the number of backward rules that write each.
    pub(super) spans: Vec<(Range<usize>, u32)>,
    pub(super) span_left: Vec<u32>,
    pub(super) span_buf: Vec<Vec<T>>,
    /// Number of the span behind input `i` of node `n` (the loss has the last row).
    pub(super) span_of: Vec<[Option<usize>; MAX_INPUTS]>,
    pub(super) pool: Pool<T>,
    pub(super) scratch: Pool<T>,
}

impl<T: Real> Tape<T> {
    /// Prepares the sweeps of a graph.
    ///
    /// # Errors
    /// When two operations read overlapping but different pieces of the trainable vector.
    pub fn new(graph: Graph<T>) -> Result<Self, EvalError> {
        let n = graph.nodes.len();
        let mut spans: Vec<(Range<usize>, u32)> = Vec::new();
        let mut span_of = vec![[None; MAX_INPUTS]; n + 1];
        let readers = graph.nodes.iter().map(|n| &n.inputs).chain(graph.loss.iter().map(|l| &l.1));
        let rows: Vec<usize> = (0..n).chain(graph.loss.iter().map(|_| n)).collect();
        for (row, inputs) in rows.into_iter().zip(readers) {
            if inputs.iter().enumerate().any(|(i, s)| inputs[..i].contains(s)) {
                return Err(EvalError::Unsupported("an operation reads one value twice".into()));
            }
            for (i, s) in inputs.iter().enumerate() {
                let Src::Param(Span { range, trainable: true }) = s else { continue };
                let known = spans.iter().position(|(r, _)| r == range);
                let k = if let Some(k) = known {
                    spans[k].1 += 1;
                    k
                } else {
                    if let Some((r, _)) =
                        spans.iter().find(|(r, _)| r.start < range.end && range.start < r.end)
                    {
                        return Err(EvalError::Unsupported(format!(
                            "parameters {range:?} and {r:?} overlap: share a tensor whole or not at all"
                        )));
                    }
                    spans.push((range.clone(), 1));
                    spans.len() - 1
                };
                span_of[row][i] = Some(k);
            }
        }
        let empty = || (0..n).map(|_| Vec::new()).collect::<Vec<Vec<T>>>();
        let mut tape = Tape {
            vals: empty(),
            saved: empty(),
            adj: empty(),
            tvals: empty(),
            tsaved: empty(),
            tadj: empty(),
            uses: vec![0; n],
            base_uses: vec![0; n],
            span_left: vec![0; spans.len()],
            span_buf: spans.iter().map(|_| Vec::new()).collect(),
            spans,
            span_of,
            pool: Pool::new(),
            scratch: Pool::new(),
            graph,
        };
        tape.count_forward_uses();
        Ok(tape)
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

    fn count_forward_uses(&mut self) {
        let all = self.graph.nodes.iter().map(|n| &n.inputs).chain(self.graph.loss.iter().map(|l| &l.1));
        for inputs in all {
            for s in inputs {
                if let Src::Var(v) = s {
                    self.base_uses[v.0] += 1;
                }
            }
        }
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
        self.check(&data)?;
        self.release_all();
        self.uses.copy_from_slice(&self.base_uses);
        self.uses[out.0] += 1;
        let scratch = std::mem::take(&mut self.scratch);
        let cx = Cx { data, scratch: &scratch, dropout: None, cache, weight: 1.0 };
        for n in 0..=out.0 {
            self.forward_node(&cx, params, frozen, n);
            self.free_inputs(n);
        }
        if to.len() != self.vals[out.0].len() {
            let e = EvalError::Shape { what: "output", want: self.vals[out.0].len(), got: to.len() };
            self.scratch = scratch;
            return Err(e);
        }
        to.copy_from_slice(&self.vals[out.0]);
        self.scratch = scratch;
        self.release_all();
        Ok(())
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
        self.check(&data)?;
        self.release_all();
        self.uses.copy_from_slice(&self.base_uses);
        let scratch = std::mem::take(&mut self.scratch);
        let cx = Cx { data, scratch: &scratch, dropout: None, cache: None, weight };
        for n in 0..self.graph.nodes.len() {
            self.forward_node(&cx, params, frozen, n);
            self.free_inputs(n);
        }
        let report = self.eval_loss(&cx, params, frozen);
        self.scratch = scratch;
        self.release_all();
        report
    }

    pub(super) fn eval_loss(
        &self,
        cx: &Cx<'_, T>,
        params: &[T],
        frozen: &[T],
    ) -> Result<LossReport, EvalError> {
        let Some((loss, inputs)) = &self.graph.loss else {
            return Err(EvalError::Unsupported("the graph has no loss".into()));
        };
        let mut x: [&[T]; MAX_INPUTS] = [&[]; MAX_INPUTS];
        for (i, s) in inputs.iter().enumerate() {
            x[i] = self.read(cx, params, frozen, s);
        }
        loss.eval(cx, &x[..inputs.len()], &mut [])
    }

    pub(super) fn check(&self, data: &Data<'_, T>) -> Result<(), EvalError> {
        if data.inputs.len() != self.graph.inputs.len() {
            let (want, got) = (self.graph.inputs.len(), data.inputs.len());
            return Err(EvalError::Shape { what: "number of graph inputs", want, got });
        }
        for (x, v) in data.inputs.iter().zip(&self.graph.inputs) {
            if x.len() != self.graph.nodes[v.0].len {
                return Err(EvalError::Shape {
                    what: "graph input",
                    want: self.graph.nodes[v.0].len,
                    got: x.len(),
                });
            }
        }
        Ok(())
    }

    pub(super) fn read<'a>(&'a self, cx: &Cx<'a, T>, params: &'a [T], frozen: &'a [T], s: &Src) -> &'a [T] {
        match s {
            Src::Param(p) if p.trainable => &params[p.range.clone()],
            Src::Param(p) => &frozen[p.range.clone()],
            Src::Var(v) => match self.graph.nodes[v.0].source {
                Source::Input(i) => cx.data.inputs[i],
                Source::Op(_) => &self.vals[v.0],
            },
        }
    }

    /// Runs the forward rule of node `n`, unless its value is still held and nothing else was dropped.
    pub(super) fn forward_node(&mut self, cx: &Cx<'_, T>, params: &[T], frozen: &[T], n: usize) {
        let (len, start, saved_len) = {
            let node = &self.graph.nodes[n];
            let Source::Op(op) = &node.source else { return };
            (node.len, op.starts_from(), op.saved_len())
        };
        let mut y = std::mem::take(&mut self.vals[n]);
        if y.is_empty() {
            y = self.pool.take(len);
        }
        let mut saved = std::mem::take(&mut self.saved[n]);
        if saved.len() != saved_len {
            saved = self.pool.take(saved_len);
        }
        {
            let node = &self.graph.nodes[n];
            let Source::Op(op) = &node.source else { return };
            let mut x: [&[T]; MAX_INPUTS] = [&[]; MAX_INPUTS];
            for (i, s) in node.inputs.iter().enumerate() {
                x[i] = self.read(cx, params, frozen, s);
            }
            if let Some(i) = start {
                y.copy_from_slice(x[i]);
            }
            op.forward(cx, &x[..node.inputs.len()], &mut y, &mut saved);
        }
        self.vals[n] = y;
        self.saved[n] = saved;
    }

    /// Notes that node `n` has read its inputs and frees those without further readers.
    pub(super) fn free_inputs(&mut self, n: usize) {
        for i in 0..self.graph.nodes[n].inputs.len() {
            if let Src::Var(v) = self.graph.nodes[n].inputs[i] {
                self.unuse(v.0);
            }
        }
    }

    pub(super) fn unuse(&mut self, v: usize) {
        self.uses[v] -= 1;
        if self.uses[v] == 0 {
            self.pool.put(std::mem::take(&mut self.vals[v]));
            self.pool.put(std::mem::take(&mut self.tvals[v]));
        }
    }

    pub(super) fn release_all(&mut self) {
        for set in [
            &mut self.vals,
            &mut self.saved,
            &mut self.adj,
            &mut self.tvals,
            &mut self.tsaved,
            &mut self.tadj,
            &mut self.span_buf,
        ] {
            for b in set {
                self.pool.put(std::mem::take(b));
            }
        }
    }
}
