//! One row of scores against one label: loss, statistics and gradient in two passes.
//!
//! # Symbols
//! `z` scores, `y` label, `m = max z`, `p = softmax(z)`, `q = softmax(z / beta)`,
//! `w_i = sigmoid((z_i - z_y) / 100)`.

use rhumb_linalg::Real;
use serde::{Deserialize, Serialize};

use crate::kernel::max;

/// A loss on one row of scores.
///
/// # Equation
/// - `ce`: `lse(z) - z_y`, gradient `p - 1_y`;
/// - `gem-linear`: `E_q[z] - z_y` with `q` held constant, gradient `q - 1_y`, which is `beta` times the
///   gradient of the cross-entropy of `z / beta`;
/// - `gem-logsigmoid`: `sum_i q_i w_i (z_i - z_y)` with `q` and `w` held constant, gradient
///   `a - (sum a) 1_y`, `a_i = q_i w_i`.
///
/// # Reference
/// Li et al., "Preserving Diversity in Supervised Fine-Tuning of Large Language Models", ICLR 2025,
/// arXiv 2408.16673. The values are the closed forms in which the normaliser of `p` cancels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum LossKind {
    /// Cross-entropy.
    Ce,
    /// GEM with the identity link.
    GemLinear {
        /// Temperature parameter.
        beta: f64,
    },
    /// GEM with the log-sigmoid link.
    GemLogsigmoid {
        /// Temperature parameter.
        beta: f64,
    },
}

impl LossKind {
    /// The loss of that name.
    ///
    /// # Errors
    /// An unknown name or a `beta` that is not a positive finite number.
    pub fn parse(name: &str, beta: f64) -> Result<Self, String> {
        let kind = match name {
            "ce" => LossKind::Ce,
            "gem-linear" => LossKind::GemLinear { beta },
            "gem-logsigmoid" => LossKind::GemLogsigmoid { beta },
            _ => return Err(format!("unknown loss {name:?}: use ce, gem-linear or gem-logsigmoid")),
        };
        if beta.is_finite() && beta > 0.0 {
            Ok(kind)
        } else {
            Err(format!("beta is {beta}: it must be finite and positive, usually 0.6 to 0.9"))
        }
    }

    /// The field's name.
    pub fn name(self) -> &'static str {
        match self {
            LossKind::Ce => "ce",
            LossKind::GemLinear { .. } => "gem-linear",
            LossKind::GemLogsigmoid { .. } => "gem-logsigmoid",
        }
    }

    /// The temperature parameter; 1 for cross-entropy.
    pub fn beta(self) -> f64 {
        match self {
            LossKind::Ce => 1.0,
            LossKind::GemLinear { beta } | LossKind::GemLogsigmoid { beta } => beta,
        }
    }
}

/// What one row contributes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowStats {
    /// The loss.
    pub loss: f64,
    /// `lse(z) - z_y`.
    pub ce: f64,
    /// Entropy of `p`.
    pub entropy: f64,
    /// `z_y` is the largest score.
    pub correct: bool,
}

const LANES: usize = 16;
/// Scalars summed in the row's own precision before they join an f64 sum.
const BLOCK: usize = 1024;
/// Weights below `exp(-80)` are exactly zero, so that `-inf` scores (masked vocabulary) vanish.
const FLOOR: f64 = -80.0;

/// Running sums at the two temperatures, in f64, mergeable over pieces of the row with a common shift.
#[derive(Clone, Copy, Default)]
struct Sums {
    p: f64,
    pz: f64,
    q: f64,
    qw: f64,
    qwz: f64,
}

#[inline(always)]
fn weight<T: Real>(d: T) -> T {
    if d > T::of(FLOOR) { d.exp() } else { T::ZERO }
}

/// Sums over one block; with `KEEP`, leaves the unnormalised `a_i` of the gradient in `z`.
#[inline(always)]
fn block<T: Real, const GEM: bool, const SIG: bool, const KEEP: bool>(z: &mut [T], m: T, zy: T, inv_beta: T) -> Sums {
    let mut acc = [[T::ZERO; LANES]; 5];
    let mut one = |z: &mut T, l: usize| {
        let d = *z - m;
        let e = weight(d);
        let dz = if d > T::of(FLOOR) { d } else { T::ZERO };
        acc[0][l] += e;
        acc[1][l] += e * dz;
        let mut a = e;
        if GEM {
            let q = weight(d * inv_beta);
            acc[2][l] += q;
            a = q;
            if SIG {
                let x = T::of(0.01) * (*z - zy);
                a = q / (T::ONE + (-x).exp());
            }
            acc[3][l] += a;
            acc[4][l] += a * dz;
        }
        if KEEP {
            *z = a;
        }
    };
    let mut chunks = z.chunks_exact_mut(LANES);
    for c in chunks.by_ref() {
        for l in 0..LANES {
            one(&mut c[l], l);
        }
    }
    for (l, z) in chunks.into_remainder().iter_mut().enumerate() {
        one(z, l);
    }
    let total = |a: &[T; LANES]| a.iter().map(|x| x.f64()).sum::<f64>();
    Sums { p: total(&acc[0]), pz: total(&acc[1]), q: total(&acc[2]), qw: total(&acc[3]), qwz: total(&acc[4]) }
}

#[inline(always)]
fn pass<T: Real, const GEM: bool, const SIG: bool>(z: &mut [T], m: T, zy: T, inv_beta: T, keep: bool) -> Sums {
    let mut s = Sums::default();
    for z in z.chunks_mut(BLOCK) {
        let b = if keep {
            block::<T, GEM, SIG, true>(z, m, zy, inv_beta)
        } else {
            block::<T, GEM, SIG, false>(z, m, zy, inv_beta)
        };
        s.p += b.p;
        s.pz += b.pz;
        s.q += b.q;
        s.qw += b.qw;
        s.qwz += b.qwz;
    }
    s
}

/// Loss and statistics of a row; with `scale`, replaces the scores by `scale` times the gradient.
///
/// # Panics
/// When `label` is not a column.
#[inline(always)]
pub fn row<T: Real>(kind: LossKind, z: &mut [T], label: usize, scale: Option<T>) -> RowStats {
    let (m, zy) = (max(z), z[label]);
    let inv_beta = T::of(1.0 / kind.beta());
    let s = match kind {
        LossKind::Ce => pass::<T, false, false>(z, m, zy, inv_beta, scale.is_some()),
        LossKind::GemLinear { .. } => pass::<T, true, false>(z, m, zy, inv_beta, scale.is_some()),
        LossKind::GemLogsigmoid { .. } => pass::<T, true, true>(z, m, zy, inv_beta, scale.is_some()),
    };
    let gap = m.f64() - zy.f64();
    let ce = s.p.ln() + gap;
    let (loss, norm, mass) = match kind {
        LossKind::Ce => (ce, s.p, 1.0),
        _ => (s.qwz / s.q + s.qw / s.q * gap, s.q, s.qw / s.q),
    };
    if let Some(scale) = scale {
        let c = T::of(scale.f64() / norm);
        z.iter_mut().for_each(|z| *z *= c);
        z[label] -= scale * T::of(mass);
    }
    RowStats { loss, ce, entropy: s.p.ln() - s.pz / s.p, correct: zy >= m }
}

/// Replaces the tangent `tz` of the scores by the tangent of the gradient `g` that [`row`] left.
///
/// # Equation
/// `tg = scale / beta * q (tz - <q, tz>)`, for `ce` and `gem-linear`; the field of `gem-logsigmoid` has no
/// symmetric derivative.
#[inline(always)]
pub fn row_tangent<T: Real>(kind: LossKind, g: &[T], label: usize, scale: T, tz: &mut [T]) {
    let inv = T::ONE / scale;
    let dense = crate::kernel::dot(g, tz) * inv;
    let mean = dense + tz[label];
    let c = T::of(1.0 / kind.beta());
    let at_label = (g[label] + scale) * c * (tz[label] - mean);
    for (t, g) in tz.iter_mut().zip(g) {
        *t = *g * c * (*t - mean);
    }
    tz[label] = at_label;
}
