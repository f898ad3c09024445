//! Losses over one flat vector.

use rhumb_linalg::Real;

use crate::Layout;

/// Why an evaluation failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// A value is NaN or infinite.
    #[error("{what} is not finite{}: lower the learning rate or look at the data of this batch", .block.as_ref().map(|b| format!(" (block {b})")).unwrap_or_default())]
    NonFinite {
        /// The quantity.
        what: &'static str,
        /// The tensor that holds it, where known.
        block: Option<String>,
    },
    /// A slice has the wrong length.
    #[error("{what}: expected {want} values, got {got}")]
    Shape {
        /// The quantity.
        what: &'static str,
        /// Expected length.
        want: usize,
        /// Given length.
        got: usize,
    },
    /// The request makes no sense for this objective.
    #[error("{0}")]
    Unsupported(String),
}

/// A smooth loss over one flat parameter vector.
///
/// # Shapes
/// `at`, `grad`: `[layout().len()]`.
///
/// # Errors
/// [`EvalError`] when the loss or its gradient is not finite or a length is wrong.
pub trait Objective<T: Real> {
    /// What one evaluation reads besides the parameters.
    type Batch;
    /// The cut of the parameter vector.
    fn layout(&self) -> &Layout;
    /// The loss; overwrites `grad` with its gradient.
    ///
    /// # Errors
    /// See the trait.
    fn value_grad(&mut self, at: &[T], batch: &Self::Batch, grad: &mut [T]) -> Result<f64, EvalError>;
}

/// An objective with exact Hessian-vector products.
pub trait SecondOrder<T: Real>: Objective<T> {
    /// Overwrites `out` with `H(at) v`.
    ///
    /// # Errors
    /// See [`Objective`].
    fn hvp(&mut self, at: &[T], batch: &Self::Batch, v: &[T], out: &mut [T]) -> Result<(), EvalError>;
}

/// The Hessian of an objective at a point, as something that maps vectors to vectors.
pub struct HessianAt<'a, T: Real, P: SecondOrder<T>> {
    /// The objective.
    pub of: &'a mut P,
    /// The point.
    pub at: &'a [T],
    /// The batch.
    pub batch: &'a P::Batch,
}
