//! Forward rules and their tangents, and the life of the values they make.

use rhumb_linalg::Real;

use super::Tape;
use super::graph::{MAX_INPUTS, Source, Src};
use crate::op::{Ctx, Cx};

/// Mask of [`Tape::inputs`]: every input.
pub(super) const ALL: u32 = u32::MAX;

/// Where rules read besides computed values.
#[derive(Clone, Copy)]
pub(super) struct Reads<'a, T> {
    pub(super) cx: &'a Cx<'a, T>,
    pub(super) params: &'a [T],
    pub(super) frozen: &'a [T],
}

impl<T: Real> Tape<T> {
    /// The values of a rule's inputs; those outside `mask` are left empty.
    pub(super) fn inputs<'a>(
        &'a self,
        from: Reads<'a, T>,
        sources: &[Src],
        mask: u32,
    ) -> [&'a [T]; MAX_INPUTS] {
        let mut x: [&[T]; MAX_INPUTS] = [&[]; MAX_INPUTS];
        for (i, s) in sources.iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0) {
            x[i] = match s {
                Src::Param(p) if p.trainable => &from.params[p.range.clone()],
                Src::Param(p) => &from.frozen[p.range.clone()],
                Src::Var(v) => match self.graph.nodes[v.0].source {
                    Source::Input(k) => from.cx.data.inputs[k],
                    Source::Op(_) => &self.vals[v.0],
                },
            };
        }
        x
    }

    /// Their tangents in direction `v` of the trainable parameters; `None` is zero.
    pub(super) fn tangents<'a>(
        &'a self,
        v: &'a [T],
        sources: &[Src],
        mask: u32,
    ) -> [Option<&'a [T]>; MAX_INPUTS] {
        let mut tx = [None; MAX_INPUTS];
        for (i, s) in sources.iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0) {
            tx[i] = match s {
                Src::Param(p) if p.trainable => Some(&v[p.range.clone()]),
                Src::Param(_) => None,
                Src::Var(u) => (!self.tvals[u.0].is_empty()).then(|| self.tvals[u.0].as_slice()),
            };
        }
        tx
    }

    /// Runs the forward rule of node `n`; buffers that it still holds are written again.
    pub(super) fn forward_node(&mut self, from: Reads<'_, T>, n: usize) {
        let node = &self.graph.nodes[n];
        let Source::Op(op) = &node.source else { return };
        let mut y = std::mem::take(&mut self.vals[n]);
        if y.is_empty() {
            y = self.pool.take(node.len);
        }
        let mut saved = std::mem::take(&mut self.saved[n]);
        if saved.len() != op.saved_len() {
            saved = self.pool.take(op.saved_len());
        }
        let x = self.inputs(from, &node.inputs, ALL);
        if let Some(i) = op.starts_from() {
            y.copy_from_slice(x[i]);
        }
        op.forward(from.cx, &x[..node.inputs.len()], &mut y, &mut saved);
        self.vals[n] = y;
        self.saved[n] = saved;
    }

    /// Runs the tangent of the forward rule of node `n`.
    pub(super) fn tangent_node(&mut self, from: Reads<'_, T>, v: &[T], n: usize) {
        let node = &self.graph.nodes[n];
        let Source::Op(op) = &node.source else { return };
        if !node.needs_grad || self.vals[n].is_empty() {
            return;
        }
        let mut ty = std::mem::take(&mut self.tvals[n]);
        if ty.is_empty() {
            ty = self.pool.take(node.len);
        }
        let mut tsaved = std::mem::take(&mut self.tsaved[n]);
        if tsaved.len() != op.saved_len() {
            tsaved = self.pool.take(op.saved_len());
        }
        let x = self.inputs(from, &node.inputs, ALL);
        let tx = self.tangents(v, &node.inputs, ALL);
        if let Some(i) = op.starts_from() {
            match tx[i] {
                Some(t) => ty.copy_from_slice(t),
                None => ty.fill(T::ZERO),
            }
        }
        let k = node.inputs.len();
        let at = Ctx { x: &x[..k], y: &self.vals[n], saved: &self.saved[n] };
        op.forward_tangent(from.cx, at, &tx[..k], &mut ty, &mut tsaved);
        self.tvals[n] = ty;
        self.tsaved[n] = tsaved;
    }

    /// Notes that rule `row` has read its inputs.
    pub(super) fn free_inputs(&mut self, row: usize) {
        for i in 0..self.graph.inputs_of(row).len() {
            if let Src::Var(v) = self.graph.inputs_of(row)[i] {
                self.unuse(v.0);
            }
        }
    }

    /// Notes one reading of value `v` and frees it after the last.
    pub(super) fn unuse(&mut self, v: usize) {
        self.uses[v] -= 1;
        if self.uses[v] == 0 {
            self.pool.put(std::mem::take(&mut self.vals[v]));
            self.pool.put(std::mem::take(&mut self.tvals[v]));
        }
    }

    /// Frees what the forward rule of node `n` saved for its backward rule.
    pub(super) fn drop_saved(&mut self, n: usize) {
        self.pool.put(std::mem::take(&mut self.saved[n]));
        self.pool.put(std::mem::take(&mut self.tsaved[n]));
    }

    /// Frees whatever an earlier, perhaps interrupted sweep left.
    pub(super) fn release_all(&mut self) {
        let sets = [
            &mut self.vals,
            &mut self.saved,
            &mut self.adj,
            &mut self.tvals,
            &mut self.tsaved,
            &mut self.tadj,
        ];
        for b in sets.into_iter().flatten().chain(self.spans.grads()) {
            self.pool.put(std::mem::take(b));
        }
    }
}
