//! Backward rules and their tangents, and the adjoints they add up.

use rhumb_core::EvalError;
use rhumb_linalg::Real;

use super::Tape;
use super::forward::{ALL, Reads};
use super::graph::{Graph, MAX_INPUTS, Source, Src};
use super::segments::{backward_reads, backward_reads_output};
use super::spans::Spans;
use super::sweep::{Params, Sweep};
use crate::op::{Adj, Ctx, LossReport, TanCtx};

/// Adjoint buffers of the inputs of one rule, each with whether it holds a partial sum.
type Buffers<T> = [(Vec<T>, bool); MAX_INPUTS];

/// Which of two sets of adjoints.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Gradients.
    First,
    /// Their tangents.
    Second,
}

impl<T: Real> Tape<T> {
    /// Evaluates the loss, its adjoints and their tangents.
    pub(super) fn loss_rule<P: Params<T>>(
        &mut self,
        sweep: &mut Sweep<'_, T, P>,
    ) -> Result<LossReport, EvalError> {
        let row = self.graph.nodes.len();
        let wants = wanted(&self.graph, row, None);
        let mut bufs = self.take_adjoints(row, wants, P::STREAMS, Order::First);
        let mut tbufs = Buffers::default();
        if sweep.tangent.is_some() {
            tbufs = self.take_adjoints(row, wants, false, Order::Second);
        }
        let report = self.eval_loss_with(sweep, row, wants, &mut bufs, &mut tbufs);
        self.put_adjoints(row, bufs, Order::First);
        self.put_adjoints(row, tbufs, Order::Second);
        let report = report?;
        self.finish_spans(row, &mut sweep.params);
        self.free_inputs(row);
        Ok(report)
    }

    fn eval_loss_with<P: Params<T>>(
        &self,
        sweep: &mut Sweep<'_, T, P>,
        row: usize,
        wants: u32,
        bufs: &mut Buffers<T>,
        tbufs: &mut Buffers<T>,
    ) -> Result<LossReport, EvalError> {
        let Some((loss, inputs)) = &self.graph.loss else {
            return Err(EvalError::Unsupported("the graph has no loss".into()));
        };
        let Sweep { cx, params, frozen, grad, tangent } = sweep;
        let from = Reads { cx, params: params.get(), frozen };
        let k = inputs.len();
        let x = self.inputs(from, inputs, ALL);
        let flat = grad.as_mut().map(|(g, add)| (&mut **g, *add));
        let mut dx = views(bufs, wants, flat, &self.spans, row);
        let Some(t) = tangent else { return loss.eval(cx, &x[..k], &mut dx[..k]) };
        let tx = self.tangents(t.v, inputs, ALL);
        let mut tdx = views(tbufs, wants, Some((&mut *t.hv, false)), &self.spans, row);
        loss.eval_tangent(cx, &x[..k], &tx[..k], &mut dx[..k], &mut tdx[..k])
    }

    /// Runs the backward rules of node `n` and frees what only they were waiting for.
    pub(super) fn backward_node<P: Params<T>>(&mut self, sweep: &mut Sweep<'_, T, P>, n: usize) {
        if matches!(self.graph.nodes[n].source, Source::Input(_)) {
            return;
        }
        if !self.graph.nodes[n].needs_grad {
            self.drop_saved(n);
            return;
        }
        let dy = std::mem::take(&mut self.adj[n]);
        let tdy = std::mem::take(&mut self.tadj[n]);
        // Without an adjoint the loss does not depend on this value.
        if !dy.is_empty() {
            match self.run_backward(sweep, n, &dy, &tdy) {
                Some(u) => {
                    self.pool.put(give(&mut self.adj[u], dy));
                    if !tdy.is_empty() {
                        self.pool.put(give(&mut self.tadj[u], tdy));
                    }
                }
                None => {
                    self.pool.put(dy);
                    self.pool.put(tdy);
                }
            }
        }
        self.finish_spans(n, &mut sweep.params);
        self.drop_saved(n);
        for i in 0..self.graph.nodes[n].inputs.len() {
            if let Src::Var(v) = self.graph.nodes[n].inputs[i]
                && backward_reads(&self.graph, n, i)
            {
                self.unuse(v.0);
            }
        }
        if backward_reads_output(&self.graph, n) {
            self.unuse(n);
        }
    }

    /// Runs the rules; returns the value that receives `dy` itself.
    fn run_backward<P: Params<T>>(
        &mut self,
        sweep: &mut Sweep<'_, T, P>,
        n: usize,
        dy: &[T],
        tdy: &[T],
    ) -> Option<usize> {
        let Source::Op(op) = &self.graph.nodes[n].source else { return None };
        let (passes, mask) = (op.passes(), op.needs().inputs);
        let wants = wanted(&self.graph, n, passes);
        let mut bufs = self.take_adjoints(n, wants, P::STREAMS, Order::First);
        let mut tbufs = Buffers::default();
        if sweep.tangent.is_some() {
            tbufs = self.take_adjoints(n, wants, false, Order::Second);
        }
        let node = &self.graph.nodes[n];
        let Source::Op(op) = &node.source else { return None };
        let Sweep { cx, params, frozen, grad, tangent } = sweep;
        let from = Reads { cx, params: params.get(), frozen };
        let k = node.inputs.len();
        let x = self.inputs(from, &node.inputs, mask);
        let at = Ctx { x: &x[..k], y: &self.vals[n], saved: &self.saved[n] };
        let flat = grad.as_mut().map(|(g, add)| (&mut **g, *add));
        op.backward(cx, at, dy, &mut views(&mut bufs, wants, flat, &self.spans, n)[..k]);
        if let Some(t) = tangent {
            let tx = self.tangents(t.v, &node.inputs, mask);
            let tan = TanCtx { tx: &tx[..k], ty: &self.tvals[n], tsaved: &self.tsaved[n], dy, tdy };
            let flat = Some((&mut *t.hv, false));
            op.backward_tangent(cx, at, tan, &mut views(&mut tbufs, wants, flat, &self.spans, n)[..k]);
        }
        self.put_adjoints(n, bufs, Order::First);
        self.put_adjoints(n, tbufs, Order::Second);
        match self.graph.nodes[n].inputs[passes?] {
            Src::Var(v) => self.graph.nodes[v.0].needs_grad.then_some(v.0),
            Src::Param(_) => None,
        }
    }

    /// The buffers that a rule writes besides the flat gradient: adjoints of values, and with `streams` those
    /// of parameters.
    fn take_adjoints(&mut self, row: usize, wants: u32, streams: bool, order: Order) -> Buffers<T> {
        let mut out = Buffers::default();
        let spans = self.spans.of(row);
        for (i, s) in self.graph.inputs_of(row).iter().enumerate().filter(|(i, _)| wants & (1 << i) != 0) {
            let (held, len, partial) = match (s, spans[i]) {
                (Src::Var(v), _) => {
                    let set = if order == Order::First { &mut self.adj } else { &mut self.tadj };
                    (&mut set[v.0], self.graph.nodes[v.0].len, true)
                }
                (Src::Param(p), Some(k)) if streams => {
                    let begun = self.spans.begun(k);
                    (self.spans.grad(k), p.range.len(), begun)
                }
                _ => continue,
            };
            let buf = std::mem::take(held);
            out[i] = if buf.is_empty() { (self.pool.take(len), false) } else { (buf, partial) };
        }
        out
    }

    fn put_adjoints(&mut self, row: usize, bufs: Buffers<T>, order: Order) {
        let spans = self.spans.of(row);
        for (i, (buf, _)) in bufs.into_iter().enumerate().filter(|(_, (buf, _))| !buf.is_empty()) {
            match (&self.graph.inputs_of(row)[i], spans[i]) {
                (Src::Var(v), _) if order == Order::First => self.adj[v.0] = buf,
                (Src::Var(v), _) => self.tadj[v.0] = buf,
                (Src::Param(_), Some(k)) => *self.spans.grad(k) = buf,
                (Src::Param(_), None) => self.pool.put(buf),
            }
        }
    }

    /// Notes that rule `row` has written its spans; hands over those that are complete.
    fn finish_spans<P: Params<T>>(&mut self, row: usize, params: &mut P) {
        for k in self.spans.of(row).into_iter().flatten() {
            if self.spans.finish(k) && P::STREAMS {
                let mut grad = std::mem::take(self.spans.grad(k));
                if !grad.is_empty() {
                    params.done(self.spans.range(k), &mut grad);
                }
                self.pool.put(grad);
            }
        }
    }
}

/// Bit `i`: the adjoint of input `i` is wanted of rule `row`; not of the one that receives `dy` unchanged.
fn wanted<T: Real>(graph: &Graph<T>, row: usize, passes: Option<usize>) -> u32 {
    let inputs = graph.inputs_of(row).iter().enumerate();
    inputs.filter(|(i, s)| passes != Some(*i) && graph.wants_grad(s)).fold(0, |mask, (i, _)| mask | 1 << i)
}

/// Moves `from` into an empty accumulator or adds it; returns the buffer that is free afterwards.
fn give<T: Real>(to: &mut Vec<T>, from: Vec<T>) -> Vec<T> {
    if to.is_empty() {
        *to = from;
        return Vec::new();
    }
    crate::kernel::add_assign(to, &from);
    from
}

/// Where one rule writes its adjoints: values and streamed spans in `bufs`, other parameters in disjoint
/// pieces of the flat gradient.
fn views<'a, T: Real>(
    bufs: &'a mut Buffers<T>,
    wants: u32,
    flat: Option<(&'a mut [T], bool)>,
    spans: &Spans<T>,
    row: usize,
) -> [Option<Adj<'a, T>>; MAX_INPUTS] {
    let mut out: [Option<Adj<'a, T>>; MAX_INPUTS] = std::array::from_fn(|_| None);
    for (i, (buf, add)) in bufs.iter_mut().enumerate() {
        if !buf.is_empty() {
            out[i] = Some(Adj { buf, add: *add });
        }
    }
    let Some((mut rest, accumulate)) = flat else { return out };
    let of = spans.of(row);
    let mut order: [usize; MAX_INPUTS] = std::array::from_fn(|i| i);
    order.sort_unstable_by_key(|&i| of[i].map_or(usize::MAX, |k| spans.range(k).start));
    let mut offset = 0;
    for i in order {
        let (Some(k), true) = (of[i], wants & (1 << i) != 0) else { continue };
        let r = spans.range(k);
        let (_, tail) = rest.split_at_mut(r.start - offset);
        let (piece, tail) = tail.split_at_mut(r.len());
        rest = tail;
        offset = r.end;
        out[i] = Some(Adj { buf: piece, add: accumulate || spans.begun(k) });
    }
    out
}
