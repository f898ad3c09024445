//! One row of scores against one label: loss, statistics and gradient in two passes.
//!
//! # Symbols
//! `z` scores, `y` label, `m = max z`, `p = softmax(z)`, `q = softmax(z / beta)`,
//! `w_i = sigmoid((z_i - z_y) / 100)`.
//!
//! # Pieces
//! Sums over a piece of the row are kept relative to the piece's own largest score ([`RowState`]) and merge
//! associatively, so that a row may be cut over lanes, chunks of the vocabulary or machines.

use rhumb_linalg::Real;
use serde::{Deserialize, Serialize};

use crate::kernel::max;

#[cfg(test)]
mod tests;

/// A loss that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LossError {
    /// No loss of that name.
    #[error("unknown loss {0:?}: use ce, gem-linear or gem-logsigmoid")]
    Unknown(String),
    /// The temperature parameter makes no distribution.
    #[error("beta is {0}: it must be finite and positive, usually 0.6 to 0.9")]
    Beta(f64),
}

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
    pub fn parse(name: &str, beta: f64) -> Result<Self, LossError> {
        match name {
            "ce" => LossKind::Ce,
            "gem-linear" => LossKind::GemLinear { beta },
            "gem-logsigmoid" => LossKind::GemLogsigmoid { beta },
            _ => return Err(LossError::Unknown(name.to_owned())),
        }
        .checked()
    }

    /// The loss itself when its parameter makes sense, for values that were read from a file.
    ///
    /// # Errors
    /// A `beta` that is not a positive finite number.
    pub fn checked(self) -> Result<Self, LossError> {
        let beta = self.beta();
        if beta.is_finite() && beta > 0.0 { Ok(self) } else { Err(LossError::Beta(beta)) }
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
    /// `beta CE(z / beta) >= 0`, the scalar that gradient descent on `gem-linear` lowers; `ce` for `ce`.
    pub surrogate: f64,
    /// `z_y` is the largest score.
    pub correct: bool,
}

const LANES: usize = 16;
/// Scalars summed in the row's own precision before they join an f64 sum.
const BLOCK: usize = 1024;
/// Weights below `exp(-80)` are exactly zero, so that `-inf` scores (masked vocabulary) vanish.
const FLOOR: f64 = -80.0;

/// Sums at the two temperatures relative to one shift, in f64.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    p: f64,
    pz: f64,
    q: f64,
    qw: f64,
    qwz: f64,
}

impl Sums {
    fn add(&mut self, b: Sums) {
        self.p += b.p;
        self.pz += b.pz;
        self.q += b.q;
        self.qw += b.qw;
        self.qwz += b.qwz;
    }
}

/// What is known of a row after some of its scores: the largest one and the sums relative to it.
///
/// # Equation
/// With `d_i = z_i - m`: `sum e^{d}`, `sum e^{d} d`, `sum e^{d / beta}`, `sum e^{d / beta} w`,
/// `sum e^{d / beta} w d`. Going from `m` to `m' >= m` with `c = m - m'` and `f = e^{c / beta}` multiplies
/// the sums by `f` and turns the last one into `f (t + c s)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowState {
    kind: LossKind,
    max: f64,
    sums: Sums,
}

impl RowState {
    /// Nothing seen yet; the neutral element of [`RowState::merge`].
    pub fn new(kind: LossKind) -> Self {
        RowState { kind, max: f64::NEG_INFINITY, sums: Sums::default() }
    }

    /// The state after a piece of the row, where `at_label` is the score of the label, wherever it lies.
    #[inline(always)]
    pub fn scan<T: Real>(kind: LossKind, piece: &[T], at_label: T) -> Self {
        if piece.is_empty() {
            return RowState::new(kind);
        }
        let m = max(piece);
        let sums = match kind {
            LossKind::Ce => scan::<T, false, false>(piece, m, at_label, T::ONE),
            LossKind::GemLinear { beta } => scan::<T, true, false>(piece, m, at_label, T::of(1.0 / beta)),
            LossKind::GemLogsigmoid { beta } => scan::<T, true, true>(piece, m, at_label, T::of(1.0 / beta)),
        };
        RowState { kind, max: m.f64(), sums }
    }

    /// The state after both pieces. Associative and commutative up to rounding.
    pub fn merge(self, other: Self) -> Self {
        let max = self.max.max(other.max);
        let mut sums = self.relative_to(max);
        sums.add(other.relative_to(max));
        RowState { kind: self.kind, max, sums }
    }

    fn relative_to(&self, max: f64) -> Sums {
        // A piece without finite scores has weight zero, whatever the distance.
        if self.max == f64::NEG_INFINITY {
            return Sums::default();
        }
        let c = self.max - max;
        let (fp, fq) = (c.exp(), (c / self.kind.beta()).exp());
        let s = &self.sums;
        Sums {
            p: fp * s.p,
            pz: fp * (s.pz + c * s.p),
            q: fq * s.q,
            qw: fq * s.qw,
            qwz: fq * (s.qwz + c * s.qw),
        }
    }

    /// Loss and statistics of the whole row.
    pub fn finish<T: Real>(&self, at_label: T) -> RowStats {
        let (s, beta) = (&self.sums, self.kind.beta());
        let zy = at_label.f64();
        // The gap first: the mean score and the label's score are large numbers of nearly equal size.
        let gap = self.max - zy;
        let ce = s.p.ln() + gap;
        let (loss, surrogate) = match self.kind {
            LossKind::Ce => (ce, ce),
            _ => (s.qwz / s.q + s.qw / s.q * gap, beta * s.q.ln() + gap),
        };
        RowStats { loss, ce, entropy: s.p.ln() - s.pz / s.p, surrogate, correct: zy >= self.max }
    }

    /// Normaliser of the gradient's weights, and the mass that the label loses.
    fn gradient(&self) -> (f64, f64) {
        match self.kind {
            LossKind::Ce => (self.sums.p, 1.0),
            _ => (self.sums.q, self.sums.qw / self.sums.q),
        }
    }
}

#[inline(always)]
fn weight<T: Real>(d: T) -> T {
    if d > T::of(FLOOR) { d.exp() } else { T::ZERO }
}

/// Partial sums of one block.
struct Lanes<T>([[T; LANES]; 5]);

impl<T: Real> Lanes<T> {
    /// Adds one score; returns its unnormalised weight in the gradient.
    #[inline(always)]
    fn add<const GEM: bool, const SIG: bool>(&mut self, z: T, l: usize, m: T, zy: T, inv_beta: T) -> T {
        let acc = &mut self.0;
        let d = z - m;
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
                let x = T::of(0.01) * (z - zy);
                a = q / (T::ONE + (-x).exp());
            }
            acc[3][l] += a;
            acc[4][l] += a * dz;
        }
        a
    }

    fn total(&self) -> Sums {
        let [p, pz, q, qw, qwz] = self.0.map(|a| a.iter().map(|x| x.f64()).sum::<f64>());
        Sums { p, pz, q, qw, qwz }
    }
}

/// Sums over a piece of a row.
#[inline(always)]
fn scan<T: Real, const GEM: bool, const SIG: bool>(z: &[T], m: T, zy: T, inv_beta: T) -> Sums {
    let mut sums = Sums::default();
    for z in z.chunks(BLOCK) {
        let mut acc = Lanes([[T::ZERO; LANES]; 5]);
        let chunks = z.chunks_exact(LANES);
        let rest = chunks.remainder();
        for c in chunks {
            for l in 0..LANES {
                acc.add::<GEM, SIG>(c[l], l, m, zy, inv_beta);
            }
        }
        for (l, z) in rest.iter().enumerate() {
            acc.add::<GEM, SIG>(*z, l, m, zy, inv_beta);
        }
        sums.add(acc.total());
    }
    sums
}

/// The same sums; leaves the unnormalised weights of the gradient in `z`.
#[inline(always)]
fn scan_keep<T: Real, const GEM: bool, const SIG: bool>(z: &mut [T], m: T, zy: T, inv_beta: T) -> Sums {
    let mut sums = Sums::default();
    for z in z.chunks_mut(BLOCK) {
        let mut acc = Lanes([[T::ZERO; LANES]; 5]);
        let mut chunks = z.chunks_exact_mut(LANES);
        for c in chunks.by_ref() {
            for l in 0..LANES {
                c[l] = acc.add::<GEM, SIG>(c[l], l, m, zy, inv_beta);
            }
        }
        for (l, z) in chunks.into_remainder().iter_mut().enumerate() {
            *z = acc.add::<GEM, SIG>(*z, l, m, zy, inv_beta);
        }
        sums.add(acc.total());
    }
    sums
}

/// Loss and statistics of a row; with `scale`, replaces the scores by `scale` times the gradient.
///
/// Scores of `-inf` (masked columns of the vocabulary) have weight zero. A label on such a column has no
/// loss: `ce` and `loss` are infinite, the gradient is zero, and the caller has to refuse the row.
///
/// # Panics
/// When `label` is not a column.
#[inline(always)]
pub fn row<T: Real>(kind: LossKind, z: &mut [T], label: usize, scale: Option<T>) -> RowStats {
    let zy = z[label];
    if zy < T::ZERO && !zy.is_finite() {
        if scale.is_some() {
            z.fill(T::ZERO);
        }
        let inf = f64::INFINITY;
        return RowStats { loss: inf, ce: inf, entropy: 0.0, surrogate: inf, correct: false };
    }
    let Some(scale) = scale else { return RowState::scan(kind, z, zy).finish(zy) };
    let m = max(z);
    let sums = match kind {
        LossKind::Ce => scan_keep::<T, false, false>(z, m, zy, T::ONE),
        LossKind::GemLinear { beta } => scan_keep::<T, true, false>(z, m, zy, T::of(1.0 / beta)),
        LossKind::GemLogsigmoid { beta } => scan_keep::<T, true, true>(z, m, zy, T::of(1.0 / beta)),
    };
    let state = RowState { kind, max: m.f64(), sums };
    let (norm, mass) = state.gradient();
    let c = T::of(scale.f64() / norm);
    for z in z.iter_mut() {
        *z *= c;
    }
    z[label] -= scale * T::of(mass);
    state.finish(zy)
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
