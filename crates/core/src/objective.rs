//! Losses over one flat vector.

use std::ops::Range;

use rhumb_linalg::Real;
use serde::{Deserialize, Serialize};

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

/// A curvature matrix of a loss `l(z(x))` with scores `z` of parameters `x`, mean or sum over rows as the loss is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Curvature {
    /// `H = d^2 l / dx^2`, exact.
    #[default]
    Hessian,
    /// `G = J^T l_zz J`, the generalised Gauss-Newton matrix (Schraudolph 2002): the Hessian without the curvature of
    /// the scores. For cross-entropy and squared error it is the Fisher matrix up to a factor.
    GaussNewton,
    /// `F = sum_n w_n g_n g_n^T` with the gradient `g_n` of each row's loss and its weight, one row being one label.
    EmpiricalFisher,
}

/// One product with a diagonal block of a curvature matrix.
#[derive(Debug)]
pub struct Product<'a, T> {
    /// The matrix.
    pub of: Curvature,
    /// The rows and columns of the block: ascending, disjoint pieces of the parameter vector.
    pub block: &'a [Range<usize>],
    /// The vector, the pieces one after another.
    pub v: &'a [T],
    /// The product, overwritten.
    pub out: &'a mut [T],
}

impl<T: Real> Product<'_, T> {
    /// Whether the pieces lie in order within `params` parameters and the vectors fit them.
    ///
    /// # Errors
    /// [`EvalError::Shape`] and [`EvalError::Unsupported`].
    pub fn check(&self, params: usize) -> Result<(), EvalError> {
        let mut end = 0;
        for r in self.block {
            if r.start < end || r.end < r.start || r.end > params {
                return Err(EvalError::Unsupported(format!(
                    "block piece {}..{} is out of order or beyond the {params} parameters",
                    r.start, r.end
                )));
            }
            end = r.end;
        }
        let want = self.block.iter().map(Range::len).sum();
        for (what, got) in [("direction", self.v.len()), ("curvature product", self.out.len())] {
            if got != want {
                return Err(EvalError::Shape { what, want, got });
            }
        }
        Ok(())
    }

    /// What the block has in common with a piece of the parameter vector: places in that piece, and in the vectors.
    pub fn parts(&self, piece: &Range<usize>) -> Vec<(Range<usize>, Range<usize>)> {
        let (mut parts, mut offset) = (Vec::new(), 0);
        for r in self.block {
            let (a, z) = (r.start.max(piece.start), r.end.min(piece.end));
            if a < z {
                let at = offset + a - r.start;
                parts.push((a - piece.start..z - piece.start, at..at + z - a));
            }
            offset += r.len();
        }
        parts
    }
}

/// An objective with exact Hessian-vector products.
pub trait SecondOrder<T: Real>: Objective<T> {
    /// Overwrites `out` with `H(at) v`.
    ///
    /// # Errors
    /// See [`Objective`].
    fn hvp(&mut self, at: &[T], batch: &Self::Batch, v: &[T], out: &mut [T]) -> Result<(), EvalError>;

    /// Products with diagonal blocks, which may share work; by default one whole Hessian product each.
    ///
    /// # Errors
    /// See [`Objective`]; a curvature that the objective does not know.
    fn products(
        &mut self,
        at: &[T],
        batch: &Self::Batch,
        requests: &mut [Product<'_, T>],
    ) -> Result<(), EvalError> {
        let n = self.layout().len();
        let (mut v, mut hv) = (vec![T::ZERO; n], vec![T::ZERO; n]);
        for r in requests {
            r.check(n)?;
            if r.of != Curvature::Hessian {
                return Err(EvalError::Unsupported(
                    "this objective knows its Hessian only: choose the operator hessian".into(),
                ));
            }
            v.fill(T::ZERO);
            let parts = r.parts(&(0..n));
            parts.iter().for_each(|(at, from)| v[at.clone()].copy_from_slice(&r.v[from.clone()]));
            self.hvp(at, batch, &v, &mut hv)?;
            parts.iter().for_each(|(at, to)| r.out[to.clone()].copy_from_slice(&hv[at.clone()]));
        }
        Ok(())
    }
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
