use rayon::prelude::*;
use rhumb_linalg::Real;

use crate::kernel::{PARALLEL_FROM, TASK, sum_sq, vectorised};

/// Euclidean norm of the whole gradient, summed in a fixed order. NaN or infinite when an entry is.
pub fn global_norm<T: Real>(grad: &[T]) -> f64 {
    let parts: Vec<f64> = if grad.len() < PARALLEL_FROM {
        grad.chunks(TASK).map(|g| vectorised(|| sum_sq(g))).collect()
    } else {
        grad.par_chunks(TASK).map(|g| vectorised(|| sum_sq(g))).collect()
    };
    parts.iter().sum::<f64>().sqrt()
}

/// Scales the gradient so that its norm is at most `max_norm`; returns the norm before.
///
/// # Equation
/// g ← g · min(1, max / (‖g‖ + 10⁻⁶)), PyTorch's form of Pascanu, Mikolov, Bengio, ICML 2013.
///
/// A norm that is not finite changes nothing: the caller looks at the returned value.
pub fn clip_global_norm<T: Real>(grad: &mut [T], max_norm: f64) -> f64 {
    let norm = global_norm(grad);
    let factor = max_norm / (norm + 1e-6);
    if norm.is_finite() && factor < 1.0 {
        let factor = T::of(factor);
        let scale = |part: &mut [T]| part.iter_mut().for_each(|g| *g *= factor);
        if grad.len() < PARALLEL_FROM {
            scale(grad);
        } else {
            grad.par_chunks_mut(TASK).for_each(scale);
        }
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_four_is_five_and_is_scaled_to_one() {
        let mut g = [3.0, 0.0, 4.0];
        let norm = clip_global_norm(&mut g, 1.0);
        assert!((norm - 5.0).abs() < 1e-15);
        // torch.nn.utils.clip_grad_norm_ in float64
        assert!((g[0] - 0.599_999_880_000_024).abs() < 1e-15 && (g[2] - 0.799_999_840_000_032).abs() < 1e-15);
    }

    #[test]
    fn a_small_gradient_is_left_alone_and_nan_is_handed_back() {
        let mut g = [0.3_f32, 0.4];
        clip_global_norm(&mut g, 1.0);
        assert_eq!(g.map(f32::to_bits), [0.3_f32, 0.4].map(f32::to_bits));
        let mut g = [f64::NAN, 1.0];
        assert!(clip_global_norm(&mut g, 1.0).is_nan());
        assert_eq!(g[1].to_bits(), 1f64.to_bits());
    }
}
