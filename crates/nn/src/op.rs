//! The contract of one differentiable operation: forward, backward, and the tangent of both.

use rhumb_core::Curvature;
use rhumb_linalg::Real;

use crate::model::KvCache;
use crate::tape::Pool;

/// Where an operation writes an adjoint (a gradient with respect to one of its inputs).
pub struct Adj<'a, T> {
    /// The buffer, as long as the input.
    pub buf: &'a mut [T],
    /// Add to what is there (true) or overwrite garbage (false).
    pub add: bool,
}

impl<T: Real> Adj<'_, T> {
    /// Zeroes the buffer unless it already holds a partial sum, for operations that scatter.
    pub fn prepare_scatter(&mut self) {
        if !self.add {
            self.buf.fill(T::ZERO);
            self.add = true;
        }
    }
    /// `buf[i] (+)= f(i)`.
    #[inline(always)]
    pub fn each(&mut self, f: impl Fn(usize) -> T) {
        if self.add {
            self.buf.iter_mut().enumerate().for_each(|(i, d)| *d += f(i));
        } else {
            self.buf.iter_mut().enumerate().for_each(|(i, d)| *d = f(i));
        }
    }
}

/// What an evaluation reads besides parameters: token tables and outside values.
///
/// # Shapes
/// With `N` tokens: `ids`, `positions`, `spans`, `targets` are `[N]`, rows of a batch one after another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Data<'a, T> {
    /// Token numbers.
    pub ids: &'a [u32],
    /// Position of each token in its document.
    pub positions: &'a [u32],
    /// Keys that each token sees, `[lo, hi)` within its row of the batch.
    pub spans: &'a [(u32, u32)],
    /// Label of each token; [`IGNORE`] takes no part in the loss.
    pub targets: &'a [u32],
    /// Values of the graph's inputs, in the order they were declared.
    pub inputs: &'a [&'a [T]],
}

/// The label of a token that takes no part in the loss.
pub const IGNORE: u32 = u32::MAX;

/// What an operation may use while it runs.
pub struct Cx<'a, T> {
    /// The batch.
    pub data: Data<'a, T>,
    /// Temporary buffers, returned when the guard drops.
    pub scratch: &'a Pool<T>,
    /// Seed of what is random in this sweep, dropout masks and noise on embeddings; `None` switches both off.
    pub seed: Option<u64>,
    /// Key-value cache while generating; `None` in training.
    pub cache: Option<&'a KvCache<T>>,
    /// Factor on the loss and its gradient (the weight of this micro-batch).
    pub weight: f64,
}

/// Which values the backward rule reads; all others are freed after the forward pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    /// Bit `i`: the value of input `i`.
    pub inputs: u32,
    /// The operation's own output.
    pub output: bool,
}

impl Needs {
    /// Nothing.
    pub const NONE: Needs = Needs { inputs: 0, output: false };
    /// Inputs only.
    pub fn inputs(mask: u32) -> Self {
        Needs { inputs: mask, output: false }
    }
    /// The output only.
    pub const OUTPUT: Needs = Needs { inputs: 0, output: true };
}

/// Values of the inputs; a value that the backward rule did not ask for is an empty slice there.
pub type Ins<'a, T> = &'a [&'a [T]];
/// Tangents of the inputs; `None` is zero.
pub type Tans<'a, T> = &'a [Option<&'a [T]>];

/// The values around one operation while its backward rules run.
#[derive(Clone, Copy)]
pub struct Ctx<'a, T> {
    /// Inputs.
    pub x: Ins<'a, T>,
    /// Output.
    pub y: &'a [T],
    /// What the forward rule saved.
    pub saved: &'a [T],
}

/// One fused, differentiable operation with fixed shapes.
///
/// Four rules: the value, its vector-Jacobian product (VJP), and the tangent (directional derivative) of
/// each. A Hessian-vector product is one sweep of tangents over values and adjoints.
///
/// # Contract
/// `y`, `ty` and every adjoint with `add == false` hold garbage on entry and are fully written.
pub trait Op<T: Real>: Send + Sync {
    /// Name for errors and tables.
    fn name(&self) -> &'static str;
    /// Scalars of the output.
    fn out_len(&self) -> usize;
    /// Scalars saved by the forward rule for the backward one.
    fn saved_len(&self) -> usize {
        0
    }
    /// What the backward rule reads.
    fn needs(&self) -> Needs;
    /// Input whose adjoint receives `dy` unchanged (a residual); the tape adds it, `backward` does not.
    fn passes(&self) -> Option<usize> {
        None
    }
    /// Input whose value (and tangent) already stands in `y` (and `ty`) when the rule is called.
    fn starts_from(&self) -> Option<usize> {
        None
    }
    /// The value.
    fn forward(&self, cx: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], saved: &mut [T]);
    /// The VJP: adjoints of the inputs from the adjoint of the output. `None`: not wanted.
    fn backward(&self, cx: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]);
    /// The tangent of [`Op::forward`]; writes `tsaved`, the tangent of `saved`.
    fn forward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        tx: Tans<'_, T>,
        ty: &mut [T],
        tsaved: &mut [T],
    );
    /// The tangent of [`Op::backward`]: tangents of the inputs' adjoints.
    fn backward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    );
}

/// The tangents around one operation while [`Op::backward_tangent`] runs.
#[derive(Clone, Copy)]
pub struct TanCtx<'a, T> {
    /// Tangents of the inputs.
    pub tx: Tans<'a, T>,
    /// Tangent of the output.
    pub ty: &'a [T],
    /// Tangent of what was saved.
    pub tsaved: &'a [T],
    /// Adjoint of the output.
    pub dy: &'a [T],
    /// Its tangent.
    pub tdy: &'a [T],
}

/// Sums over the live rows of one evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossReport {
    /// The loss that was differentiated: sum over live rows times the weight.
    pub loss: f64,
    /// Sum of cross-entropies.
    pub ce: f64,
    /// Sum of entropies of the predicted distribution.
    pub entropy: f64,
    /// Rows whose label has the largest score.
    pub correct: u64,
    /// Live rows.
    pub live: u64,
}

impl LossReport {
    /// Adds another evaluation.
    pub fn add(&mut self, o: &LossReport) {
        self.loss += o.loss;
        self.ce += o.ce;
        self.entropy += o.entropy;
        self.correct += o.correct;
        self.live += o.live;
    }
}

/// The end of a graph: value and adjoints in one pass, so that nothing large outlives it.
pub trait Loss<T: Real>: Send + Sync {
    /// Name for errors and tables.
    fn name(&self) -> &'static str;
    /// The value; writes the adjoints that are wanted.
    ///
    /// # Errors
    /// A label out of range.
    fn eval(
        &self,
        cx: &Cx<'_, T>,
        x: Ins<'_, T>,
        dx: &mut [Option<Adj<'_, T>>],
    ) -> Result<LossReport, rhumb_core::EvalError>;
    /// The value, the adjoints and their tangents.
    ///
    /// # Errors
    /// As [`Loss::eval`], and for losses whose gradient field has no symmetric derivative.
    fn eval_tangent(
        &self,
        cx: &Cx<'_, T>,
        x: Ins<'_, T>,
        tx: Tans<'_, T>,
        dx: &mut [Option<Adj<'_, T>>],
        tdx: &mut [Option<Adj<'_, T>>],
    ) -> Result<LossReport, rhumb_core::EvalError>;
    /// The curvature of the row losses in the scores times the tangent of the scores, taken back to the inputs as if
    /// the scores were linear in them: `tdx = J^T B J tx` with `B` the Hessian of each row's loss
    /// ([`Curvature::GaussNewton`]) or the outer product of its gradient ([`Curvature::EmpiricalFisher`]).
    ///
    /// # Errors
    /// As [`Loss::eval_tangent`], and for a matrix that the loss does not define; by default for both.
    fn curvature(
        &self,
        _cx: &Cx<'_, T>,
        _x: Ins<'_, T>,
        _tx: Tans<'_, T>,
        of: Curvature,
        _tdx: &mut [Option<Adj<'_, T>>],
    ) -> Result<(), rhumb_core::EvalError> {
        let what = format!("the loss {} does not define {of:?}: choose the operator hessian", self.name());
        Err(rhumb_core::EvalError::Unsupported(what))
    }
}
