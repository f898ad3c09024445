//! The loss along a direction.

use rhumb_core::{EvalError, Layout, Objective};
use rhumb_linalg::Real;
use rhumb_linalg::vec::norm;
use serde::{Deserialize, Serialize};

/// The loss on a line through a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// Steps along the direction.
    pub steps: Vec<f64>,
    /// The loss there; `None` where it is not finite.
    pub losses: Vec<Option<f64>>,
}

/// A direction whose every row (filter) has the norm of the parameters' row: steps of size 1 then change each filter by
/// as much as it is.
///
/// # Equation
/// `d_ij <- d_ij |w_ij| / |d_ij|` for row `i` of tensor `j`; tensors of one dimension (norms, biases) are left out.
///
/// # Reference
/// Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, section 4.
pub fn filter_normalised<T: Real>(layout: &Layout, at: &[T], direction: &[T]) -> Vec<T> {
    let mut out = vec![T::ZERO; direction.len()];
    for b in layout.blocks().iter().filter(|b| b.shape.len() > 1) {
        let rows = b.shape[0].max(1);
        let len = b.range.len() / rows;
        for r in (0..rows).map(|i| b.range.start + i * len..b.range.start + (i + 1) * len) {
            let size = norm(&direction[r.clone()]);
            if size > 0.0 {
                let by = T::of(norm(&at[r.clone()]) / size);
                out[r.clone()].iter_mut().zip(&direction[r]).for_each(|(o, d)| *o = *d * by);
            }
        }
    }
    out
}

/// The loss at `at + s direction` for each `s`.
///
/// # Errors
/// Those of the objective, but for values that are not finite, which are left out.
///
/// # Cost
/// A gradient for each step, since objectives give both together.
pub fn slice<T: Real, P: Objective<T>>(
    objective: &mut P,
    at: &[T],
    direction: &[T],
    batch: &P::Batch,
    steps: &[f64],
) -> Result<Slice, EvalError> {
    let mut grad = vec![T::ZERO; at.len()];
    let mut losses = Vec::with_capacity(steps.len());
    for &s in steps {
        let moved: Vec<T> = at.iter().zip(direction).map(|(a, d)| *a + T::of(s) * *d).collect();
        losses.push(match objective.value_grad(&moved, batch, &mut grad) {
            Ok(v) => Some(v),
            Err(EvalError::NonFinite { .. }) => None,
            Err(e) => return Err(e),
        });
    }
    Ok(Slice { steps: steps.to_vec(), losses })
}
