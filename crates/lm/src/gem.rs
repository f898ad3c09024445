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
//! arXiv 2408.16673.
//!
//! # What to look at
//! `L` is signed and is no objective, since `q` is held constant. The gradient of `gem-linear` is exactly
//! that of `S = beta * CE(z / beta, y) >= 0`, so that is the curve that falls ([`RowStats::surrogate`]). The
//! same identity names the control of every comparison: plain cross-entropy sampled at temperature
//! `1 / beta`.
//!
//! # Deviations
//! - The loss is the sum over live tokens divided by their number in the whole accumulation window, not a
//!   mean of means; an empty window gives zero instead of NaN.
//! - Scores of minus infinity (masked vocabulary) have weight zero.
//! - Scores and sums are at least f32, also where weights are stored in 16 bits.
//! - Held-out evaluation is cross-entropy, never the GEM loss.

mod summary;

pub use rhumb_nn::loss::{LOSSES, LossEntry, LossError, LossKind, RowStats, TokenScore};
pub use summary::{Summary, Tempered, paired_change};

/// The temperature at which samples of a cross-entropy model are the control of `gem-linear` at `beta`: both
/// then come from the data's distribution to the power `beta`, where the data are fitted.
pub fn control_temperature(beta: f64) -> f64 {
    1.0 / beta
}
