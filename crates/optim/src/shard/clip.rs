//! The norm of a gradient that is spread over ranks.

use rhumb_linalg::Real;

use super::{Reduce, ShardError, ShardPlan};
use crate::kernel::{simd, sum_sq};

/// Euclidean norm of the whole gradient, from every rank's part. Pieces that all ranks hold count once.
///
/// # Cost
/// One pass over the part; 8 bytes on the wire.
///
/// # Errors
/// [`ShardError::Length`] for a part of another length, and what [`Reduce`] says.
pub fn global_norm<T: Real>(
    plan: &ShardPlan,
    grad: &[T],
    reduce: &mut dyn Reduce,
) -> Result<f64, ShardError> {
    let rank = reduce.rank();
    if rank >= plan.ranks() {
        return Err(ShardError::Plan { what: format!("rank {rank} of {}", plan.ranks()) });
    }
    let want = plan.len(rank);
    if grad.len() != want {
        return Err(ShardError::Length { rank, what: "the gradient", have: grad.len(), want });
    }
    let (mut sum, mut at) = (0.0, 0);
    for piece in plan.pieces(rank) {
        if !piece.replicated || rank == 0 {
            let part = &grad[at..at + piece.len()];
            sum += simd!(|| sum_sq(part));
        }
        at += piece.len();
    }
    let mut wire = [sum];
    reduce.all_reduce_sum(&mut wire)?;
    Ok(wire[0].sqrt())
}

/// Scales every rank's part so that the whole gradient has at most the norm `limit`, as
/// [`crate::clip_global_norm`] does on one rank; returns the norm before. A norm that is not finite changes nothing.
///
/// # Errors
/// As [`global_norm`].
pub fn clip_global_norm<T: Real>(
    plan: &ShardPlan,
    grad: &mut [T],
    limit: f64,
    reduce: &mut dyn Reduce,
) -> Result<f64, ShardError> {
    let norm = global_norm(plan, grad, reduce)?;
    let factor = limit / (norm + 1e-6);
    if norm.is_finite() && factor < 1.0 {
        let factor = T::of(factor);
        grad.iter_mut().for_each(|g| *g *= factor);
    }
    Ok(norm)
}
