//! How often every value is read, and the recomputation of values that checkpointing dropped.
//!
//! Activation checkpointing (Chen et al. 2016): inside a segment, values that no rule outside it reads are
//! dropped after the forward pass and computed again just before the segment's backward rules run.

use rhumb_linalg::Real;

use super::Tape;
use super::forward::Reads;
use super::graph::{Graph, Source, Src};

/// Readers of every value: its buffer is free when the last one has run.
pub(super) struct Readers {
    /// In a forward pass alone.
    pub(super) forward: Vec<u32>,
    /// In a whole sweep without the recomputation of internal values.
    pub(super) sweep: Vec<u32>,
    /// Values that are read in their own segment only.
    internal: Vec<bool>,
}

impl Readers {
    pub(super) fn new<T: Real>(graph: &Graph<T>) -> Self {
        let rows = graph.nodes.len();
        let segment = |row: usize| graph.nodes.get(row).and_then(|n| n.segment);
        let mut internal: Vec<bool> = graph.nodes.iter().map(|n| n.segment.is_some()).collect();
        let mut forward = vec![0; rows];
        for row in 0..=rows {
            for v in graph.vars_of(row) {
                forward[v] += 1;
                internal[v] &= segment(row) == segment(v);
            }
        }
        let mut sweep = forward.clone();
        for n in 0..rows {
            for (i, s) in graph.nodes[n].inputs.iter().enumerate() {
                let Src::Var(v) = s else { continue };
                if !internal[v.0] {
                    sweep[v.0] += u32::from(graph.nodes[n].segment.is_some());
                    sweep[v.0] += u32::from(backward_reads(graph, n, i));
                }
            }
            sweep[n] += u32::from(!internal[n] && backward_reads_output(graph, n));
        }
        Readers { forward, sweep, internal }
    }
}

/// Whether the backward rule of node `n` reads its input `i`.
pub(super) fn backward_reads<T: Real>(graph: &Graph<T>, n: usize, i: usize) -> bool {
    let node = &graph.nodes[n];
    match &node.source {
        Source::Op(op) => node.needs_grad && op.needs().inputs & (1 << i) != 0,
        Source::Input(_) => false,
    }
}

/// Whether the backward rule of node `n` reads its output.
pub(super) fn backward_reads_output<T: Real>(graph: &Graph<T>, n: usize) -> bool {
    let node = &graph.nodes[n];
    match &node.source {
        Source::Op(op) => node.needs_grad && op.needs().output,
        Source::Input(_) => false,
    }
}

impl<T: Real> Tape<T> {
    /// The segment that ends with node `n`, if one does.
    pub(super) fn segment_ending_at(&self, n: usize) -> Option<usize> {
        let segment = self.graph.nodes[n].segment?;
        let next = self.graph.nodes.get(n + 1).and_then(|n| n.segment);
        (next != Some(segment)).then_some(segment)
    }

    /// Computes the dropped values of the segment whose last node is `last` again, with their tangents in
    /// direction `v`.
    pub(super) fn recompute(&mut self, from: Reads<'_, T>, v: Option<&[T]>, last: usize, segment: usize) {
        let mut first = last;
        while first > 0 && self.graph.nodes[first - 1].segment == Some(segment) {
            first -= 1;
        }
        for n in first..=last {
            for i in 0..self.graph.nodes[n].inputs.len() {
                if let Src::Var(u) = self.graph.nodes[n].inputs[i]
                    && self.readers.internal[u.0]
                {
                    self.uses[u.0] += 1 + u32::from(backward_reads(&self.graph, n, i));
                }
            }
            let output = self.readers.internal[n] && backward_reads_output(&self.graph, n);
            self.uses[n] += u32::from(output);
        }
        for n in first..=last {
            let Source::Op(op) = &self.graph.nodes[n].source else { continue };
            let held = !self.vals[n].is_empty();
            if !held || op.saved_len() > 0 {
                self.forward_node(from, n);
                if let Some(v) = v {
                    self.tangent_node(from, v, n);
                }
            }
            self.free_inputs(n);
        }
    }
}
