//! Curvature products of blocks of parameters, around values and adjoints that are computed once.
//!
//! A product with a block of parameters needs tangents only of what is computed from them: the sweep begins where the
//! block is first read and comes back no further. Values and adjoints are those of the loss itself, so that any number
//! of blocks share one forward and one backward pass.

use std::ops::Range;

use rhumb_core::{Curvature, EvalError, Product};
use rhumb_linalg::Real;

use super::Tape;
use super::forward::{ALL, Reads};
use super::graph::{MAX_INPUTS, Source, Src};
use super::sweep::Request;
use crate::op::{Adj, Ctx, Cx, LossReport, TanCtx};

/// What one product moves: tangents of parameters in, tangents of their gradients out.
struct Moves<T> {
    /// Of each span of the graph: the direction and the result, empty outside the block.
    spans: Vec<(Vec<T>, Vec<T>)>,
    /// Spans that a rule of this product has written.
    begun: Vec<bool>,
    /// Values that are computed from the block.
    live: Vec<bool>,
}

impl<T: Real> Tape<T> {
    /// The loss, and for every request the product of a diagonal block of its curvature with a vector, exact.
    ///
    /// # Cost
    /// One forward pass and one backward pass without the gradients of parameters; for each request a tangent of both
    /// from where its block is read first. All values and adjoints are held at the same time, whatever the graph's
    /// segments say.
    ///
    /// # Errors
    /// As [`Tape::gradient`]; when a block lies outside the parameters or does not fit its vectors; losses without a
    /// symmetric derivative refuse.
    pub fn products(
        &mut self,
        params: &[T],
        req: Request<'_, T>,
        requests: &mut [Product<'_, T>],
    ) -> Result<LossReport, EvalError> {
        for r in requests.iter() {
            r.check(params.len())?;
        }
        self.check(params, req.frozen, &req.data)?;
        self.release_all();
        let scratch = std::mem::take(&mut self.scratch);
        let cx = Cx { data: req.data, scratch: &scratch, seed: req.seed, cache: None, weight: req.weight };
        let report = self.run_products(Reads { cx: &cx, params, frozen: req.frozen }, requests);
        self.scratch = scratch;
        self.release_all();
        report
    }

    fn run_products(
        &mut self,
        from: Reads<'_, T>,
        requests: &mut [Product<'_, T>],
    ) -> Result<LossReport, EvalError> {
        let total = self.graph.nodes.len();
        for n in 0..total {
            self.forward_node(from, n);
        }
        let second = requests.iter().filter(|r| r.of == Curvature::Hessian);
        let live: Vec<Vec<bool>> = second.map(|r| self.live(r.block)).collect();
        let live: Vec<bool> = (0..=total).map(|n| live.iter().any(|l| l[n])).collect();
        let report = self.loss_adjoints(from, &live)?;
        if !report.loss.is_finite() {
            return Err(EvalError::NonFinite { what: "loss", block: None });
        }
        for n in (0..total).rev().filter(|n| live[*n]) {
            self.adjoints(from, &live, n);
        }
        for r in requests {
            self.product(from, r)?;
        }
        Ok(report)
    }

    /// Values that are computed from the block; the last entry is the loss.
    fn live(&self, block: &[Range<usize>]) -> Vec<bool> {
        let hit = |r: &Range<usize>| block.iter().any(|b| b.start < r.end && r.start < b.end);
        let mut live = Vec::with_capacity(self.graph.nodes.len() + 1);
        for row in 0..=self.graph.nodes.len() {
            let moved = self.graph.inputs_of(row).iter().any(|s| match s {
                Src::Var(v) => live[v.0],
                Src::Param(p) => p.trainable && hit(&p.range),
            });
            live.push(moved);
        }
        live
    }

    /// The loss; where a block reaches it, also the adjoints of its live inputs.
    fn loss_adjoints(&mut self, from: Reads<'_, T>, live: &[bool]) -> Result<LossReport, EvalError> {
        let row = self.graph.nodes.len();
        let mut bufs: [(Vec<T>, bool); MAX_INPUTS] = std::array::from_fn(|_| (Vec::new(), false));
        for (i, v) in self.live_inputs(row, live) {
            bufs[i].0 = self.pool.take(self.graph.nodes[v].len);
        }
        let Some((loss, inputs)) = &self.graph.loss else {
            return Err(EvalError::Unsupported("the graph has no loss".into()));
        };
        let x = self.inputs(from, inputs, ALL);
        let k = inputs.len();
        let mut dx = views(&mut bufs);
        let wanted = if live[row] { k } else { 0 };
        let report = loss.eval(from.cx, &x[..k], &mut dx[..wanted]);
        for (i, v) in self.live_inputs(row, live) {
            self.adj[v] = std::mem::take(&mut bufs[i].0);
        }
        report
    }

    /// The inputs of a rule that are live values: place and number.
    fn live_inputs(&self, row: usize, live: &[bool]) -> Vec<(usize, usize)> {
        let inputs = self.graph.inputs_of(row).iter().enumerate();
        inputs
            .filter_map(|(i, s)| match s {
                Src::Var(v) if live[v.0] => Some((i, v.0)),
                _ => None,
            })
            .collect()
    }

    /// Adds what node `n` gives to the adjoints of its live inputs; its own adjoint stays.
    fn adjoints(&mut self, from: Reads<'_, T>, live: &[bool], n: usize) {
        let dy = std::mem::take(&mut self.adj[n]);
        let Source::Op(op) = &self.graph.nodes[n].source else { return };
        if dy.is_empty() {
            return;
        }
        let (passes, mask) = (op.passes(), op.needs().inputs);
        let inputs = self.live_inputs(n, live);
        let mut bufs = self.take_live(&inputs, passes, Set::Adjoint);
        let node = &self.graph.nodes[n];
        let Source::Op(op) = &node.source else { return };
        let k = node.inputs.len();
        let x = self.inputs(from, &node.inputs, mask);
        let at = Ctx { x: &x[..k], y: &self.vals[n], saved: &self.saved[n] };
        op.backward(from.cx, at, &dy, &mut views(&mut bufs)[..k]);
        self.put_live(&inputs, bufs, passes, &dy, Set::Adjoint);
        self.adj[n] = dy;
    }

    fn product(&mut self, from: Reads<'_, T>, r: &mut Product<'_, T>) -> Result<(), EvalError> {
        let total = self.graph.nodes.len();
        let mut m = self.moves(r);
        for n in (0..total).filter(|n| m.live[*n]) {
            self.tangent_of(from, &m, n);
        }
        let mut done = Ok(());
        if m.live[total] {
            done = self.loss_tangent(from, &mut m, r.of);
        }
        for n in (0..total).rev() {
            if !m.live[n] {
                continue;
            }
            if done.is_ok() {
                self.adjoint_tangent(from, &mut m, r.of, n);
            }
            for set in [&mut self.tvals, &mut self.tsaved, &mut self.tadj] {
                self.pool.put(std::mem::take(&mut set[n]));
            }
        }
        self.finish(m, r);
        done
    }

    /// Spreads the vector over the spans that the block touches.
    fn moves(&self, r: &Product<'_, T>) -> Moves<T> {
        let n = self.spans.count();
        let mut spans: Vec<(Vec<T>, Vec<T>)> = Vec::with_capacity(n);
        for k in 0..n {
            let range = self.spans.range(k);
            let parts = r.parts(range);
            let mut buf = (Vec::new(), Vec::new());
            if !parts.is_empty() {
                buf = (self.pool.take(range.len()), self.pool.take(range.len()));
                buf.0.fill(T::ZERO);
                for (at, from) in parts {
                    buf.0[at].copy_from_slice(&r.v[from]);
                }
            }
            spans.push(buf);
        }
        Moves { spans, begun: vec![false; n], live: self.live(r.block) }
    }

    fn finish(&self, m: Moves<T>, r: &mut Product<'_, T>) {
        r.out.fill(T::ZERO);
        for (k, (v, hv)) in m.spans.into_iter().enumerate() {
            if m.begun[k] {
                for (at, to) in r.parts(self.spans.range(k)) {
                    r.out[to].copy_from_slice(&hv[at]);
                }
            }
            self.pool.put(v);
            self.pool.put(hv);
        }
    }

    /// Tangents of the inputs of rule `row`; `None` is zero.
    fn tangents_of<'a>(&'a self, m: &'a Moves<T>, row: usize, mask: u32) -> [Option<&'a [T]>; MAX_INPUTS] {
        let of = self.spans.of(row);
        let mut tx = [None; MAX_INPUTS];
        for (i, s) in self.graph.inputs_of(row).iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0) {
            tx[i] = match (s, of[i]) {
                (Src::Param(_), Some(k)) => (!m.spans[k].0.is_empty()).then_some(&m.spans[k].0[..]),
                (Src::Param(_), None) => None,
                (Src::Var(v), _) => m.live[v.0].then_some(&self.tvals[v.0][..]),
            };
        }
        tx
    }

    fn tangent_of(&mut self, from: Reads<'_, T>, m: &Moves<T>, n: usize) {
        let Source::Op(op) = &self.graph.nodes[n].source else { return };
        let mut ty = self.pool.take(self.graph.nodes[n].len);
        let mut tsaved = self.pool.take(op.saved_len());
        let node = &self.graph.nodes[n];
        let k = node.inputs.len();
        let x = self.inputs(from, &node.inputs, ALL);
        let tx = self.tangents_of(m, n, ALL);
        if let Some(i) = op.starts_from() {
            match tx[i] {
                Some(t) => ty.copy_from_slice(t),
                None => ty.fill(T::ZERO),
            }
        }
        let at = Ctx { x: &x[..k], y: &self.vals[n], saved: &self.saved[n] };
        op.forward_tangent(from.cx, at, &tx[..k], &mut ty, &mut tsaved);
        self.tvals[n] = ty;
        self.tsaved[n] = tsaved;
    }

    fn loss_tangent(&mut self, from: Reads<'_, T>, m: &mut Moves<T>, of: Curvature) -> Result<(), EvalError> {
        let row = self.graph.nodes.len();
        let inputs = self.live_inputs(row, &m.live);
        let mut bufs = self.take_moved(m, row, &inputs, None);
        let Some((loss, sources)) = &self.graph.loss else { return Ok(()) };
        let k = sources.len();
        let x = self.inputs(from, sources, ALL);
        let tx = self.tangents_of(m, row, ALL);
        let mut tdx = views(&mut bufs);
        let done = match of {
            Curvature::Hessian => {
                let mut none: [Option<Adj<'_, T>>; MAX_INPUTS] = std::array::from_fn(|_| None);
                loss.eval_tangent(from.cx, &x[..k], &tx[..k], &mut none[..k], &mut tdx[..k]).map(|_| ())
            }
            _ => loss.curvature(from.cx, &x[..k], &tx[..k], of, &mut tdx[..k]),
        };
        self.put_moved(m, row, &inputs, bufs, None);
        done
    }

    fn adjoint_tangent(&mut self, from: Reads<'_, T>, m: &mut Moves<T>, of: Curvature, n: usize) {
        let tdy = std::mem::take(&mut self.tadj[n]);
        let Source::Op(op) = &self.graph.nodes[n].source else { return };
        if tdy.is_empty() {
            return;
        }
        let (passes, mask) = (op.passes(), op.needs().inputs);
        let inputs = self.live_inputs(n, &m.live);
        let mut bufs = self.take_moved(m, n, &inputs, passes);
        let node = &self.graph.nodes[n];
        let Source::Op(op) = &node.source else { return };
        let k = node.inputs.len();
        let x = self.inputs(from, &node.inputs, mask);
        let at = Ctx { x: &x[..k], y: &self.vals[n], saved: &self.saved[n] };
        if of == Curvature::Hessian {
            let tx = self.tangents_of(m, n, mask);
            let (ty, tsaved) = (&self.tvals[n][..], &self.tsaved[n][..]);
            let tan = TanCtx { tx: &tx[..k], ty, tsaved, dy: &self.adj[n], tdy: &tdy };
            op.backward_tangent(from.cx, at, tan, &mut views(&mut bufs)[..k]);
        } else {
            op.backward(from.cx, at, &tdy, &mut views(&mut bufs)[..k]);
        }
        self.put_moved(m, n, &inputs, bufs, passes);
        self.put_passed(passes, n, &m.live, &tdy, Set::Tangent);
        self.pool.put(tdy);
    }

    /// Buffers for the tangents of adjoints of live values and of the block's spans.
    fn take_moved(
        &mut self,
        m: &mut Moves<T>,
        row: usize,
        inputs: &[(usize, usize)],
        passes: Option<usize>,
    ) -> Buffers<T> {
        let mut bufs = self.take_live(inputs, passes, Set::Tangent);
        for (i, k) in self.spans.of(row).into_iter().enumerate() {
            if let Some(k) = k.filter(|k| !m.spans[*k].1.is_empty()) {
                bufs[i] = (std::mem::take(&mut m.spans[k].1), m.begun[k]);
            }
        }
        bufs
    }

    fn put_moved(
        &mut self,
        m: &mut Moves<T>,
        row: usize,
        inputs: &[(usize, usize)],
        mut bufs: Buffers<T>,
        passes: Option<usize>,
    ) {
        for (i, k) in self.spans.of(row).into_iter().enumerate() {
            if let Some(k) = k
                && !bufs[i].0.is_empty()
            {
                m.spans[k].1 = std::mem::take(&mut bufs[i].0);
                m.begun[k] = true;
            }
        }
        for (i, v) in inputs {
            if passes != Some(*i) {
                self.tadj[*v] = std::mem::take(&mut bufs[*i].0);
            }
        }
    }

    fn take_live(&mut self, inputs: &[(usize, usize)], passes: Option<usize>, set: Set) -> Buffers<T> {
        let mut bufs: Buffers<T> = std::array::from_fn(|_| (Vec::new(), false));
        for &(i, v) in inputs.iter().filter(|(i, _)| passes != Some(*i)) {
            let held = std::mem::take(&mut self.set(set)[v]);
            let partial = !held.is_empty();
            let buf = if partial { held } else { self.pool.take(self.graph.nodes[v].len) };
            bufs[i] = (buf, partial);
        }
        bufs
    }

    fn put_live(
        &mut self,
        inputs: &[(usize, usize)],
        mut bufs: Buffers<T>,
        passes: Option<usize>,
        dy: &[T],
        set: Set,
    ) {
        for &(i, v) in inputs {
            if passes == Some(i) {
                self.add_copy(v, dy, set);
            } else {
                self.set(set)[v] = std::mem::take(&mut bufs[i].0);
            }
        }
    }

    fn put_passed(&mut self, passes: Option<usize>, n: usize, live: &[bool], dy: &[T], set: Set) {
        if let Some(Src::Var(v)) = passes.map(|i| &self.graph.nodes[n].inputs[i])
            && live[v.0]
        {
            self.add_copy(v.0, dy, set);
        }
    }

    fn add_copy(&mut self, v: usize, dy: &[T], set: Set) {
        let mut to = std::mem::take(&mut self.set(set)[v]);
        if to.is_empty() {
            to = self.pool.take(dy.len());
            to.copy_from_slice(dy);
        } else {
            crate::kernel::add_assign(&mut to, dy);
        }
        self.set(set)[v] = to;
    }

    fn set(&mut self, set: Set) -> &mut [Vec<T>] {
        match set {
            Set::Adjoint => &mut self.adj,
            Set::Tangent => &mut self.tadj,
        }
    }
}

/// Adjoint buffers of the inputs of one rule, each with whether it holds a partial sum.
type Buffers<T> = [(Vec<T>, bool); MAX_INPUTS];

/// Which of two sets of adjoints.
#[derive(Clone, Copy)]
enum Set {
    Adjoint,
    Tangent,
}

fn views<T>(bufs: &mut Buffers<T>) -> [Option<Adj<'_, T>>; MAX_INPUTS] {
    let mut out = [const { None }; MAX_INPUTS];
    for (o, (buf, add)) in out.iter_mut().zip(bufs) {
        if !buf.is_empty() {
            *o = Some(Adj { buf, add: *add });
        }
    }
    out
}
