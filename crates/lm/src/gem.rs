//! GEM: fine-tuning that preserves diversity.
//!
//! # Equation
//! With scores `z` of one token, its label `y`, `p = softmax(z)` and `q = softmax(z / beta)` held constant:
//! `L = -sum_i q_i w_i (log p_y - log p_i)`, where `w_i = 1` (`gem-linear`) or
//! `w_i = sigmoid((z_i - z_y) / 100)`, held constant too (`gem-logsigmoid`). The normaliser of `p` cancels:
//! with `a_i = q_i w_i`, `L = sum_i a_i z_i - (sum_i a_i) z_y` and `dL/dz = a - (sum_i a_i) 1_y`.
//!
//! # Reference
//! Li et al., "Preserving Diversity in Supervised Fine-Tuning of Large Language Models", ICLR 2025,
//! arXiv 2408.16673, algorithm 1 and its closed form.
//!
//! # What to look at
//! `L` is signed and is no objective, since `q` is held constant. The gradient of `gem-linear` is exactly that of
//! `S = beta * CE(z / beta, y) >= 0`, so [`surrogate`] is the curve that falls. The same identity names the
//! control of every comparison: plain cross-entropy sampled at temperature `1 / beta`.
//!
//! # Deviations
//! - The loss is the sum over live tokens divided by their number in the whole accumulation window, not a mean
//!   of means; an empty window gives zero instead of NaN.
//! - Scores of minus infinity (masked vocabulary) have weight zero.
//! - Scores and sums are at least f32, also where weights are stored in 16 bits.
//! - Held-out evaluation is cross-entropy, never the GEM loss.

pub use rhumb_nn::loss::LossKind;

/// `S = beta * (lse(z / beta) - z_y / beta)`, the objective whose gradient `gem-linear` follows; zero when
/// `z_y` is the only finite score.
///
/// Infinite when `z_y` is minus infinity, NaN when a score is NaN or `label` is not a column.
pub fn surrogate(z: &[f64], label: usize, beta: f64) -> f64 {
    let Some(&zy) = z.get(label) else { return f64::NAN };
    let m = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = z.iter().map(|z| ((z - m) / beta).exp()).sum();
    beta * sum.ln() + (m - zy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_of_the_surrogate_is_that_of_gem_linear() {
        let z = [0.3, -1.2, 2.0, 0.9];
        let beta = 0.7;
        let mut g = z;
        rhumb_nn::loss::row::row(LossKind::GemLinear { beta }, &mut g, 3, Some(1.0));
        for i in 0..4 {
            let (mut up, mut down) = (z, z);
            up[i] += 1e-5;
            down[i] -= 1e-5;
            let slope = (surrogate(&up, 3, beta) - surrogate(&down, 3, beta)) / 2e-5;
            assert!((slope - g[i]).abs() < 1e-9, "{i}: {slope} {}", g[i]);
        }
    }

    #[test]
    fn the_surrogate_is_zero_at_certainty_and_survives_large_scores() {
        assert!(surrogate(&[f64::NEG_INFINITY, 4.0], 1, 0.7).abs() < 1e-15);
        assert!((surrogate(&[5e3, 0.0], 1, 0.7) - 5e3).abs() < 1e-9);
        assert!(surrogate(&[1.0], 3, 0.7).is_nan());
    }
}
