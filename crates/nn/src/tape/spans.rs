//! Pieces of the trainable vector: which rules write their gradient, and when it is complete.

use std::ops::Range;

use rhumb_core::EvalError;
use rhumb_linalg::Real;

use super::Span;
use super::graph::{Graph, MAX_INPUTS, Src};

/// The distinct spans that a graph trains, and how far a sweep has come with them.
pub(super) struct Spans<T> {
    list: Vec<One<T>>,
    /// Number of the span behind input `i` of rule `n`; the loss has the last row.
    of: Vec<[Option<usize>; MAX_INPUTS]>,
    /// Pieces between the spans: they do not reach the loss, so their gradient is zero.
    gaps: Vec<Range<usize>>,
    /// End of the last span.
    end: usize,
}

struct One<T> {
    range: Range<usize>,
    /// Backward rules that write it.
    writers: u32,
    /// Those that the sweep under way has still to run.
    left: u32,
    /// Its gradient, where spans are handed over one by one.
    grad: Vec<T>,
}

impl<T: Real> Spans<T> {
    /// Finds the spans of a graph.
    ///
    /// # Errors
    /// When two operations read overlapping but different pieces, or one operation reads one value twice.
    pub(super) fn new(graph: &Graph<T>) -> Result<Self, EvalError> {
        let rows = graph.nodes.len();
        let mut spans = Spans { list: Vec::new(), of: Vec::new(), gaps: Vec::new(), end: 0 };
        let live = reach_loss(graph);
        for row in 0..=rows {
            let inputs = graph.inputs_of(row);
            if inputs.iter().enumerate().any(|(i, s)| inputs[..i].contains(s)) {
                return Err(EvalError::Unsupported("an operation reads one value twice".into()));
            }
            let mut of = [None; MAX_INPUTS];
            for (i, s) in inputs.iter().enumerate() {
                if let (Src::Param(Span { range, trainable: true }), true) = (s, live[row]) {
                    of[i] = Some(spans.writer(range)?);
                }
            }
            spans.of.push(of);
        }
        let mut sorted: Vec<&Range<usize>> = spans.list.iter().map(|s| &s.range).collect();
        sorted.sort_by_key(|r| r.start);
        for r in sorted {
            if spans.end < r.start {
                spans.gaps.push(spans.end..r.start);
            }
            spans.end = r.end;
        }
        Ok(spans)
    }

    /// Counts one more rule that writes `range`; returns the number of the span.
    fn writer(&mut self, range: &Range<usize>) -> Result<usize, EvalError> {
        if let Some(k) = self.list.iter().position(|s| s.range == *range) {
            self.list[k].writers += 1;
            return Ok(k);
        }
        if let Some(s) = self.list.iter().find(|s| s.range.start < range.end && range.start < s.range.end) {
            return Err(EvalError::Unsupported(format!(
                "parameters {range:?} and {:?} overlap: share a tensor whole or not at all",
                s.range
            )));
        }
        self.list.push(One { range: range.clone(), writers: 1, left: 0, grad: Vec::new() });
        Ok(self.list.len() - 1)
    }

    /// The spans behind the inputs of a rule.
    pub(super) fn of(&self, row: usize) -> [Option<usize>; MAX_INPUTS] {
        self.of[row]
    }

    /// Distinct spans.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    pub(super) fn range(&self, k: usize) -> &Range<usize> {
        &self.list[k].range
    }

    /// True when a rule of this sweep has written the span.
    pub(super) fn begun(&self, k: usize) -> bool {
        self.list[k].left < self.list[k].writers
    }

    /// The buffer of a span that is handed over when it is complete.
    pub(super) fn grad(&mut self, k: usize) -> &mut Vec<T> {
        &mut self.list[k].grad
    }

    pub(super) fn grads(&mut self) -> impl Iterator<Item = &mut Vec<T>> {
        self.list.iter_mut().map(|s| &mut s.grad)
    }

    /// Begins a sweep.
    pub(super) fn start(&mut self) {
        for s in &mut self.list {
            s.left = s.writers;
        }
    }

    /// Zeroes what no rule will write, so that no old gradient stays there.
    pub(super) fn clear_gaps(&self, grad: &mut [T]) {
        for gap in &self.gaps {
            grad[gap.clone()].fill(T::ZERO);
        }
        grad[self.end..].fill(T::ZERO);
    }

    /// Notes that a rule has written the span; true when it was the last one.
    pub(super) fn finish(&mut self, k: usize) -> bool {
        self.list[k].left -= 1;
        self.list[k].left == 0
    }
}

/// Rules whose value the loss depends on; the last entry is the loss itself.
fn reach_loss<T: Real>(graph: &Graph<T>) -> Vec<bool> {
    let rows = graph.nodes.len();
    let mut live = vec![false; rows + 1];
    live[rows] = graph.loss.is_some();
    for row in (0..=rows).rev() {
        if live[row] {
            graph.vars_of(row).for_each(|v| live[v] = true);
        }
    }
    live
}
