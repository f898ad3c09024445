use std::ops::Range;

use rhumb_core::EvalError;
use rhumb_linalg::Real;

use super::Tape;
use super::graph::{Graph, MAX_INPUTS, Source, Src};
use crate::op::{Adj, Ctx, Cx, Data, LossReport, TanCtx};

/// One reverse sweep: what is evaluated and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a, T> {
    /// The frozen parameters.
    pub frozen: &'a [T],
    /// The batch.
    pub data: Data<'a, T>,
    /// Factor on the loss and its gradient.
    pub weight: f64,
    /// Seed of the dropout masks; `None` switches dropout off.
    pub dropout: Option<u64>,
}

/// What receives a span of parameters with its complete gradient: position, parameters, gradient.
pub type SpanStep<'a, T> = dyn FnMut(Range<usize>, &mut [T], &mut [T]) + 'a;

/// Trainable parameters during a sweep: fixed, or updated as soon as their gradient is complete.
trait Params<T> {
    fn get(&self) -> &[T];
    fn done(&mut self, range: &Range<usize>, grad: &mut [T]);
    const STREAMS: bool;
}

struct Fixed<'a, T>(&'a [T]);

impl<T> Params<T> for Fixed<'_, T> {
    fn get(&self) -> &[T] {
        self.0
    }
    fn done(&mut self, _: &Range<usize>, _: &mut [T]) {}
    const STREAMS: bool = false;
}

struct Live<'a, 'b, T> {
    params: &'a mut [T],
    step: &'a mut SpanStep<'b, T>,
}

impl<T> Params<T> for Live<'_, '_, T> {
    fn get(&self) -> &[T] {
        self.params
    }
    fn done(&mut self, range: &Range<usize>, grad: &mut [T]) {
        (self.step)(range.clone(), &mut self.params[range.clone()], grad);
    }
    const STREAMS: bool = true;
}

/// The direction of a tangent sweep and where its result goes.
struct Tangent<'a, T> {
    v: &'a [T],
    hv: &'a mut [T],
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
        self.sweep(&mut Fixed(params), req, Some((grad, accumulate)), None, input_grads)
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
        self.sweep(&mut Live { params, step }, req, None, None, &mut [])
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
        self.sweep(&mut Fixed(params), req, None, Some(Tangent { v, hv }), &mut [])
    }

    fn sweep<P: Params<T>>(
        &mut self,
        params: &mut P,
        req: Request<'_, T>,
        grad: Option<(&mut [T], bool)>,
        tangent: Option<Tangent<'_, T>>,
        input_grads: &mut [&mut [T]],
    ) -> Result<LossReport, EvalError> {
        self.check(&req.data)?;
        self.release_all();
        let scratch = std::mem::take(&mut self.scratch);
        let cx =
            Cx { data: req.data, scratch: &scratch, dropout: req.dropout, cache: None, weight: req.weight };
        let report = self.run(&cx, params, req.frozen, grad, tangent, input_grads);
        self.scratch = scratch;
        self.release_all();
        report
    }

    fn run<P: Params<T>>(
        &mut self,
        cx: &Cx<'_, T>,
        params: &mut P,
        frozen: &[T],
        mut grad: Option<(&mut [T], bool)>,
        mut tangent: Option<Tangent<'_, T>>,
        input_grads: &mut [&mut [T]],
    ) -> Result<LossReport, EvalError> {
        let total = self.graph.nodes.len();
        self.plan_uses();
        for (left, (_, n)) in self.span_left.iter_mut().zip(&self.spans) {
            *left = *n;
        }
        // Spans that no rule of this graph writes must not keep an old gradient.
        if let Some((g, false)) = &mut grad {
            clear_unwritten(g, &self.spans);
        }
        if let Some(t) = &mut tangent {
            clear_unwritten(t.hv, &self.spans);
        }
        let mut first = vec![true; self.spans.len()];
        for n in 0..total {
            self.forward_node(cx, params.get(), frozen, n);
            if let Some(t) = &tangent {
                self.tangent_node(cx, params.get(), frozen, t.v, n);
            }
            self.free_inputs(n);
            if self.graph.nodes[n].segment.is_some() {
                self.drop_saved(n);
                // An internal value without a forward reader left was freed by its last reader.
            }
        }
        let report = self.loss_rules(cx, params, frozen, &mut grad, &mut tangent, &mut first)?;
        if !report.loss.is_finite() {
            return Err(EvalError::NonFinite { what: "loss", block: None });
        }
        let mut n = total;
        while n > 0 {
            n -= 1;
            if let Some(s) = self.graph.nodes[n].segment
                && (n + 1 == total || self.graph.nodes[n + 1].segment != Some(s))
            {
                self.recompute(cx, params.get(), frozen, tangent.as_ref().map(|t| t.v), n, s);
            }
            self.backward_node(cx, params, frozen, &mut grad, &mut tangent, &mut first, n);
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

    /// Readers of every value in a whole sweep: forward rules, backward rules, recomputation.
    fn plan_uses(&mut self) {
        self.uses.fill(0);
        let internal = self.internal_values();
        let graph = &self.graph;
        for n in 0..graph.nodes.len() {
            for (i, s) in graph.nodes[n].inputs.iter().enumerate() {
                let Src::Var(v) = s else { continue };
                self.uses[v.0] += 1;
                if internal[v.0] {
                    continue;
                }
                if graph.nodes[n].segment.is_some() {
                    self.uses[v.0] += 1;
                }
                if backward_reads(graph, n, i) {
                    self.uses[v.0] += 1;
                }
            }
            if !internal[n] && backward_reads_output(graph, n) {
                self.uses[n] += 1;
            }
        }
        if let Some((_, inputs)) = &graph.loss {
            for s in inputs {
                if let Src::Var(v) = s {
                    self.uses[v.0] += 1;
                }
            }
        }
    }

    /// Values that are read in their own checkpointed segment only.
    fn internal_values(&self) -> Vec<bool> {
        let graph = &self.graph;
        let mut internal: Vec<bool> = graph.nodes.iter().map(|n| n.segment.is_some()).collect();
        for node in &graph.nodes {
            for s in &node.inputs {
                if let Src::Var(v) = s
                    && node.segment != graph.nodes[v.0].segment
                {
                    internal[v.0] = false;
                }
            }
        }
        if let Some((_, inputs)) = &graph.loss {
            for s in inputs {
                if let Src::Var(v) = s {
                    internal[v.0] = false;
                }
            }
        }
        internal
    }

    fn drop_saved(&mut self, n: usize) {
        self.pool.put(std::mem::take(&mut self.saved[n]));
        self.pool.put(std::mem::take(&mut self.tsaved[n]));
    }

    /// Computes the dropped values of segment `s`, whose last node is `last`, again.
    fn recompute(
        &mut self,
        cx: &Cx<'_, T>,
        params: &[T],
        frozen: &[T],
        v: Option<&[T]>,
        last: usize,
        s: usize,
    ) {
        let mut start = last;
        while start > 0 && self.graph.nodes[start - 1].segment == Some(s) {
            start -= 1;
        }
        let internal = self.internal_values();
        for n in start..=last {
            for i in 0..self.graph.nodes[n].inputs.len() {
                if let Src::Var(u) = self.graph.nodes[n].inputs[i]
                    && internal[u.0]
                {
                    self.uses[u.0] += 1 + u32::from(backward_reads(&self.graph, n, i));
                }
            }
            if internal[n] && backward_reads_output(&self.graph, n) {
                self.uses[n] += 1;
            }
        }
        for n in start..=last {
            let Source::Op(op) = &self.graph.nodes[n].source else { continue };
            let held = !self.vals[n].is_empty();
            if !held || op.saved_len() > 0 {
                self.forward_node(cx, params, frozen, n);
                if let Some(v) = v {
                    self.tangent_node(cx, params, frozen, v, n);
                }
            }
            self.free_inputs(n);
        }
    }

    fn tangent_of<'a>(&'a self, v: &'a [T], s: &Src) -> Option<&'a [T]> {
        match s {
            Src::Param(p) if p.trainable => Some(&v[p.range.clone()]),
            Src::Param(_) => None,
            Src::Var(u) => (!self.tvals[u.0].is_empty()).then(|| self.tvals[u.0].as_slice()),
        }
    }

    fn tangent_node(&mut self, cx: &Cx<'_, T>, params: &[T], frozen: &[T], v: &[T], n: usize) {
        if !self.graph.nodes[n].needs_grad || self.vals[n].is_empty() {
            return;
        }
        let mut ty = std::mem::take(&mut self.tvals[n]);
        if ty.is_empty() {
            ty = self.pool.take(self.graph.nodes[n].len);
        }
        let node = &self.graph.nodes[n];
        let Source::Op(op) = &node.source else { return };
        let mut tsaved = std::mem::take(&mut self.tsaved[n]);
        if tsaved.len() != op.saved_len() {
            tsaved = self.pool.take(op.saved_len());
        }
        let mut x: [&[T]; MAX_INPUTS] = [&[]; MAX_INPUTS];
        let mut tx: [Option<&[T]>; MAX_INPUTS] = [None; MAX_INPUTS];
        for (i, s) in node.inputs.iter().enumerate() {
            x[i] = self.read(cx, params, frozen, s);
            tx[i] = self.tangent_of(v, s);
        }
        if let Some(i) = op.starts_from() {
            match tx[i] {
                Some(t) => ty.copy_from_slice(t),
                None => ty.fill(T::ZERO),
            }
        }
        let k = node.inputs.len();
        let at = Ctx { x: &x[..k], y: &self.vals[n], saved: &self.saved[n] };
        op.forward_tangent(cx, at, &tx[..k], &mut ty, &mut tsaved);
        self.tvals[n] = ty;
        self.tsaved[n] = tsaved;
    }

    fn loss_rules<P: Params<T>>(
        &mut self,
        cx: &Cx<'_, T>,
        params: &mut P,
        frozen: &[T],
        grad: &mut Option<(&mut [T], bool)>,
        tangent: &mut Option<Tangent<'_, T>>,
        first: &mut [bool],
    ) -> Result<LossReport, EvalError> {
        let row = self.graph.nodes.len();
        let Some((_, inputs)) = &self.graph.loss else {
            return Err(EvalError::Unsupported("the graph has no loss".into()));
        };
        let k = inputs.len();
        let mut wants = [false; MAX_INPUTS];
        for i in 0..k {
            wants[i] = self.graph.wants_grad(&self.graph.loss.as_ref().map_or(&[][..], |l| &l.1)[i]);
        }
        let is_param: [bool; MAX_INPUTS] = std::array::from_fn(|i| self.span_of[row][i].is_some());
        let mut bufs = self.take_adjoints(row, &wants, P::STREAMS, first, false);
        let mut tbufs = if tangent.is_some() {
            self.take_adjoints(row, &wants, false, first, true)
        } else {
            Default::default()
        };
        let report = {
            let Some((loss, inputs)) = &self.graph.loss else {
                return Err(EvalError::Unsupported("the graph has no loss".into()));
            };
            let mut x: [&[T]; MAX_INPUTS] = [&[]; MAX_INPUTS];
            for (i, s) in inputs.iter().enumerate() {
                x[i] = self.read(cx, params.get(), frozen, s);
            }
            let flat = grad.as_mut().map(|(g, a)| (&mut **g, *a));
            let primal_params = flat.is_some() || P::STREAMS;
            let mut dx = views(&mut bufs, &wants, &is_param, flat, &self.spans, &self.span_of[row], first);
            for i in 0..k {
                if is_param[i] && !primal_params {
                    dx[i] = None;
                }
            }
            if let Some(t) = tangent {
                let mut tx: [Option<&[T]>; MAX_INPUTS] = [None; MAX_INPUTS];
                for (i, s) in inputs.iter().enumerate() {
                    tx[i] = self.tangent_of(t.v, s);
                }
                let flat = Some((&mut *t.hv, false));
                let mut tdx =
                    views(&mut tbufs, &wants, &is_param, flat, &self.spans, &self.span_of[row], first);
                loss.eval_tangent(cx, &x[..k], &tx[..k], &mut dx[..k], &mut tdx[..k])?
            } else {
                loss.eval(cx, &x[..k], &mut dx[..k])?
            }
        };
        self.put_adjoints(row, bufs, P::STREAMS, false);
        if tangent.is_some() {
            self.put_adjoints(row, tbufs, false, true);
        }
        self.finish_spans(row, params, first);
        if let Some((_, inputs)) = &self.graph.loss {
            let read: Vec<usize> =
                inputs.iter().filter_map(|s| if let Src::Var(v) = s { Some(v.0) } else { None }).collect();
            for v in read {
                self.unuse(v);
            }
        }
        Ok(report)
    }

    fn backward_node<P: Params<T>>(
        &mut self,
        cx: &Cx<'_, T>,
        params: &mut P,
        frozen: &[T],
        grad: &mut Option<(&mut [T], bool)>,
        tangent: &mut Option<Tangent<'_, T>>,
        first: &mut [bool],
        n: usize,
    ) {
        if matches!(self.graph.nodes[n].source, Source::Input(_)) {
            return;
        }
        if !self.graph.nodes[n].needs_grad {
            self.drop_saved(n);
            return;
        }
        let dy = std::mem::take(&mut self.adj[n]);
        let tdy = std::mem::take(&mut self.tadj[n]);
        if !dy.is_empty() {
            let passes = self.run_backward(cx, params, frozen, grad, tangent, first, n, &dy, &tdy);
            match passes {
                Some(u) => {
                    let left = give(&mut self.adj[u], dy);
                    self.pool.put(left);
                    if !tdy.is_empty() {
                        let left = give(&mut self.tadj[u], tdy);
                        self.pool.put(left);
                    }
                }
                None => {
                    self.pool.put(dy);
                    self.pool.put(tdy);
                }
            }
        }
        self.finish_spans(n, params, first);
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

    /// Runs the backward rules of node `n`; returns the variable that receives `dy` itself.
    fn run_backward<P: Params<T>>(
        &mut self,
        cx: &Cx<'_, T>,
        params: &mut P,
        frozen: &[T],
        grad: &mut Option<(&mut [T], bool)>,
        tangent: &mut Option<Tangent<'_, T>>,
        first: &mut [bool],
        n: usize,
        dy: &[T],
        tdy: &[T],
    ) -> Option<usize> {
        let k = self.graph.nodes[n].inputs.len();
        let Source::Op(op) = &self.graph.nodes[n].source else { return None };
        let (passes, needs) = (op.passes(), op.needs());
        let mut wants = [false; MAX_INPUTS];
        let mut target = None;
        for i in 0..k {
            let s = &self.graph.nodes[n].inputs[i];
            wants[i] = self.graph.wants_grad(s);
            if passes == Some(i) {
                if let (Src::Var(v), true) = (s, wants[i]) {
                    target = Some(v.0);
                }
                wants[i] = false;
            }
        }
        let is_param: [bool; MAX_INPUTS] = std::array::from_fn(|i| self.span_of[n][i].is_some());
        let mut bufs = self.take_adjoints(n, &wants, P::STREAMS, first, false);
        let mut tbufs = if tangent.is_some() {
            self.take_adjoints(n, &wants, false, first, true)
        } else {
            Default::default()
        };
        {
            let node = &self.graph.nodes[n];
            let Source::Op(op) = &node.source else { return None };
            let mut x: [&[T]; MAX_INPUTS] = [&[]; MAX_INPUTS];
            for (i, s) in node.inputs.iter().enumerate() {
                if needs.inputs & (1 << i) != 0 {
                    x[i] = self.read(cx, params.get(), frozen, s);
                }
            }
            let at = Ctx { x: &x[..k], y: &self.vals[n], saved: &self.saved[n] };
            let flat = grad.as_mut().map(|(g, a)| (&mut **g, *a));
            let primal_params = flat.is_some() || P::STREAMS;
            let mut dx = views(&mut bufs, &wants, &is_param, flat, &self.spans, &self.span_of[n], first);
            for i in 0..k {
                if is_param[i] && !primal_params {
                    dx[i] = None;
                }
            }
            op.backward(cx, at, dy, &mut dx[..k]);
            if let Some(t) = tangent {
                let mut tx: [Option<&[T]>; MAX_INPUTS] = [None; MAX_INPUTS];
                for (i, s) in node.inputs.iter().enumerate() {
                    if needs.inputs & (1 << i) != 0 {
                        tx[i] = self.tangent_of(t.v, s);
                    }
                }
                let flat = Some((&mut *t.hv, false));
                let mut tdx =
                    views(&mut tbufs, &wants, &is_param, flat, &self.spans, &self.span_of[n], first);
                let tan = TanCtx { tx: &tx[..k], ty: &self.tvals[n], tsaved: &self.tsaved[n], dy, tdy };
                op.backward_tangent(cx, at, tan, &mut tdx[..k]);
            }
        }
        self.put_adjoints(n, bufs, P::STREAMS, false);
        if tangent.is_some() {
            self.put_adjoints(n, tbufs, false, true);
        }
        target
    }

    fn take_adjoints(
        &mut self,
        row: usize,
        wants: &[bool; MAX_INPUTS],
        streams: bool,
        first: &[bool],
        tangent: bool,
    ) -> [(Vec<T>, bool); MAX_INPUTS] {
        let mut out: [(Vec<T>, bool); MAX_INPUTS] = Default::default();
        let inputs = inputs_of(&self.graph, row);
        for (i, s) in inputs.iter().enumerate().filter(|(i, _)| wants[*i]) {
            out[i] = match s {
                Src::Var(v) => {
                    let set = if tangent { &mut self.tadj } else { &mut self.adj };
                    let buf = std::mem::take(&mut set[v.0]);
                    if buf.is_empty() {
                        (self.pool.take(self.graph.nodes[v.0].len), false)
                    } else {
                        (buf, true)
                    }
                }
                Src::Param(p) if streams => {
                    let Some(k) = self.span_of[row][i] else { continue };
                    let buf = std::mem::take(&mut self.span_buf[k]);
                    if buf.is_empty() { (self.pool.take(p.range.len()), false) } else { (buf, !first[k]) }
                }
                Src::Param(_) => continue,
            };
        }
        out
    }

    fn put_adjoints(&mut self, row: usize, bufs: [(Vec<T>, bool); MAX_INPUTS], streams: bool, tangent: bool) {
        for (i, (buf, _)) in bufs.into_iter().enumerate() {
            if buf.is_empty() {
                continue;
            }
            match inputs_of(&self.graph, row)[i] {
                Src::Var(v) if tangent => self.tadj[v.0] = buf,
                Src::Var(v) => self.adj[v.0] = buf,
                Src::Param(_) => {
                    if let (Some(k), true) = (self.span_of[row][i], streams) {
                        self.span_buf[k] = buf;
                    }
                }
            }
        }
    }

    /// Notes that the rules of `row` have written their spans; hands over those that are complete.
    fn finish_spans<P: Params<T>>(&mut self, row: usize, params: &mut P, first: &mut [bool]) {
        for i in 0..MAX_INPUTS {
            let Some(k) = self.span_of[row][i] else { continue };
            first[k] = false;
            self.span_left[k] -= 1;
            if P::STREAMS && self.span_left[k] == 0 {
                let mut buf = std::mem::take(&mut self.span_buf[k]);
                if !buf.is_empty() {
                    params.done(&self.spans[k].0, &mut buf);
                }
                self.pool.put(buf);
            }
        }
    }
}

fn inputs_of<T: Real>(graph: &Graph<T>, row: usize) -> &[Src] {
    match graph.nodes.get(row) {
        Some(node) => &node.inputs,
        None => graph.loss.as_ref().map_or(&[], |l| &l.1),
    }
}

fn backward_reads<T: Real>(graph: &Graph<T>, n: usize, i: usize) -> bool {
    let node = &graph.nodes[n];
    match &node.source {
        Source::Op(op) => node.needs_grad && op.needs().inputs & (1 << i) != 0,
        Source::Input(_) => false,
    }
}

fn backward_reads_output<T: Real>(graph: &Graph<T>, n: usize) -> bool {
    let node = &graph.nodes[n];
    match &node.source {
        Source::Op(op) => node.needs_grad && op.needs().output,
        Source::Input(_) => false,
    }
}

fn clear_unwritten<T: Real>(grad: &mut [T], spans: &[(Range<usize>, u32)]) {
    let mut ranges: Vec<&Range<usize>> = spans.iter().map(|(r, _)| r).collect();
    ranges.sort_by_key(|r| r.start);
    let mut at = 0;
    for r in ranges {
        grad[at..r.start].fill(T::ZERO);
        at = r.end;
    }
    grad[at..].fill(T::ZERO);
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

/// Adjoint views for one rule: variables and streamed spans from `bufs`, other parameters as disjoint
/// pieces of the flat gradient.
fn views<'a, T: Real>(
    bufs: &'a mut [(Vec<T>, bool); MAX_INPUTS],
    wants: &[bool; MAX_INPUTS],
    is_param: &[bool; MAX_INPUTS],
    flat: Option<(&'a mut [T], bool)>,
    spans: &[(Range<usize>, u32)],
    span_of: &[Option<usize>; MAX_INPUTS],
    first: &[bool],
) -> [Option<Adj<'a, T>>; MAX_INPUTS] {
    let mut out: [Option<Adj<'a, T>>; MAX_INPUTS] = std::array::from_fn(|_| None);
    for (i, (buf, add)) in bufs.iter_mut().enumerate() {
        if wants[i] && !buf.is_empty() {
            out[i] = Some(Adj { buf, add: *add });
        }
    }
    let Some((mut rest, accumulate)) = flat else { return out };
    let mut order: [usize; MAX_INPUTS] = std::array::from_fn(|i| i);
    let start = |i: usize| span_of[i].map_or(usize::MAX, |k| spans[k].0.start);
    order.sort_unstable_by_key(|&i| start(i));
    let mut offset = 0;
    for i in order {
        let (Some(k), true, true) = (span_of[i], wants[i], is_param[i]) else { continue };
        let r = &spans[k].0;
        let (_, tail) = rest.split_at_mut(r.start - offset);
        let (piece, tail) = tail.split_at_mut(r.len());
        rest = tail;
        offset = r.end;
        out[i] = Some(Adj { buf: piece, add: accumulate || !first[k] });
    }
    out
}
