use std::ops::Range;

use rhumb_linalg::Real;

use crate::op::{Loss, Op};

/// A value computed by the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Var(pub(crate) usize);

/// A contiguous piece of a parameter vector: one tensor, or neighbours that act as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Position in its vector.
    pub range: Range<usize>,
    /// False: the piece lies in the frozen vector and gets no gradient.
    pub trainable: bool,
}

/// Where an operation reads an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Src {
    /// A computed value.
    Var(Var),
    /// Parameters.
    Param(Span),
}

impl From<Var> for Src {
    fn from(v: Var) -> Src {
        Src::Var(v)
    }
}

impl From<&Span> for Src {
    fn from(s: &Span) -> Src {
        Src::Param(s.clone())
    }
}

pub(crate) enum Source<T> {
    /// Number of the outside input and whether its gradient is wanted.
    Input(usize),
    Op(Box<dyn Op<T>>),
}

pub(crate) struct Node<T> {
    pub(crate) source: Source<T>,
    pub(crate) inputs: Vec<Src>,
    pub(crate) len: usize,
    pub(crate) needs_grad: bool,
    /// Segment of activation checkpointing; `None` keeps the value.
    pub(crate) segment: Option<usize>,
}

/// A computation with fixed shapes, in the order it was described.
pub struct Graph<T: Real> {
    pub(crate) nodes: Vec<Node<T>>,
    pub(crate) loss: Option<(Box<dyn Loss<T>>, Vec<Src>)>,
    pub(crate) inputs: Vec<Var>,
    segment: Option<usize>,
    segments: usize,
}

/// Most inputs that one operation or loss may have.
pub(crate) const MAX_INPUTS: usize = 6;

impl<T: Real> Default for Graph<T> {
    fn default() -> Self {
        Graph { nodes: Vec::new(), loss: None, inputs: Vec::new(), segment: None, segments: 0 }
    }
}

impl<T: Real> Graph<T> {
    /// An empty graph.
    pub fn new() -> Self {
        Graph::default()
    }

    /// Declares an outside input of `len` scalars ([`crate::op::Data::inputs`], in order of declaration);
    /// `grad` asks for its adjoint.
    pub fn input(&mut self, len: usize, grad: bool) -> Var {
        let v = Var(self.nodes.len());
        let source = Source::Input(self.inputs.len());
        self.inputs.push(v);
        self.nodes.push(Node { source, inputs: Vec::new(), len, needs_grad: grad, segment: None });
        v
    }

    /// Appends an operation.
    ///
    /// # Panics
    /// With more than six inputs: a new operation must stay small or raise the limit.
    pub fn push(&mut self, op: impl Op<T> + 'static, inputs: &[Src]) -> Var {
        assert!(inputs.len() <= MAX_INPUTS, "{}: at most {MAX_INPUTS} inputs", op.name());
        let needs_grad = inputs.iter().any(|s| self.wants_grad(s));
        let len = op.out_len();
        self.nodes.push(Node {
            source: Source::Op(Box::new(op)),
            inputs: inputs.to_vec(),
            len,
            needs_grad,
            segment: self.segment,
        });
        Var(self.nodes.len() - 1)
    }

    /// Ends the graph.
    ///
    /// # Panics
    /// With more than six inputs.
    pub fn finish(&mut self, loss: impl Loss<T> + 'static, inputs: &[Src]) {
        assert!(inputs.len() <= MAX_INPUTS, "{}: at most {MAX_INPUTS} inputs", loss.name());
        self.loss = Some((Box::new(loss), inputs.to_vec()));
    }

    /// Opens a segment of activation checkpointing: until [`Graph::keep`], values are dropped after the
    /// forward pass and computed again before the segment's backward pass.
    pub fn checkpoint(&mut self) {
        self.segment = Some(self.segments);
        self.segments += 1;
    }

    /// Closes the segment.
    pub fn keep(&mut self) {
        self.segment = None;
    }

    /// Scalars of a value.
    pub fn len_of(&self, v: Var) -> usize {
        self.nodes[v.0].len
    }

    /// Inputs of operation `row`; the loss has the last row.
    pub(crate) fn inputs_of(&self, row: usize) -> &[Src] {
        match self.nodes.get(row) {
            Some(node) => &node.inputs,
            None => self.loss.as_ref().map_or(&[], |l| &l.1),
        }
    }

    /// Numbers of the values among them.
    pub(crate) fn vars_of(&self, row: usize) -> impl Iterator<Item = usize> {
        self.inputs_of(row).iter().filter_map(|s| match s {
            Src::Var(v) => Some(v.0),
            Src::Param(_) => None,
        })
    }

    pub(crate) fn wants_grad(&self, s: &Src) -> bool {
        match s {
            Src::Var(v) => self.nodes[v.0].needs_grad,
            Src::Param(p) => p.trainable,
        }
    }
}
