//! Linear maps known only through their product with a vector.

use crate::Real;

/// Why an operator could not be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// A vector does not fit the operator.
    #[error("operator of dimension {dim} was given {what} of {len} values: pass vectors of exactly {dim}")]
    Dimension {
        /// Which vector.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The operator's dimension.
        dim: usize,
    },
    /// The result holds infinities or not-a-number.
    #[error("product of {operator} is not finite: check the point it was taken at, or use f64")]
    NonFinite {
        /// The operator, as its author calls it.
        operator: String,
    },
    /// What stands behind the operator failed (an evaluation, a file).
    #[error("operator could not be applied: {0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A square linear map: what power iteration, Lanczos and conjugate gradients need to know of a matrix.
///
/// ```
/// use rhumb_linalg::{LinearOp, OpError};
///
/// struct Diagonal(Vec<f64>);
/// impl LinearOp<f64> for Diagonal {
///     fn dim(&self) -> usize {
///         self.0.len()
///     }
///     fn apply(&mut self, v: &[f64], out: &mut [f64]) -> Result<(), OpError> {
///         for ((o, d), v) in out.iter_mut().zip(&self.0).zip(v) {
///             *o = d * v;
///         }
///         Ok(())
///     }
/// }
///
/// let mut out = [0.0; 2];
/// Diagonal(vec![2.0, 3.0]).apply(&[1.0, 1.0], &mut out)?;
/// assert_eq!(out, [2.0, 3.0]);
/// # Ok::<(), OpError>(())
/// ```
pub trait LinearOp<T: Real> {
    /// Rows and columns.
    fn dim(&self) -> usize;

    /// `out = A v`, both of length [`dim`](LinearOp::dim); `out` is overwritten.
    ///
    /// Takes `&mut self` because operators own the scratch their product needs.
    ///
    /// # Errors
    /// [`OpError`]: the lengths, the finiteness of the result, or what the operator calls failed.
    fn apply(&mut self, v: &[T], out: &mut [T]) -> Result<(), OpError>;
}
