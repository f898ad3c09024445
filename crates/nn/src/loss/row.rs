//! One row of scores against one label: loss, statistics and gradient in two passes.
//!
//! # Pieces
//! Sums over a piece of the row are kept relative to the piece's own largest score ([`RowState`]) and merge
//! associatively, so that a row may be cut over lanes, chunks of the vocabulary or machines.

use rhumb_linalg::Real;

use super::scan::{At, Bend, Sums, bend, bend_tangent, moments, scan, scan_keep};
use super::table::{Field, LossKind, Scan, View};
use crate::kernel::{dot, max};

#[cfg(test)]
mod tests;

/// What one row contributes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowStats {
    /// The loss.
    pub loss: f64,
    /// `lse(z) - z_y`.
    pub ce: f64,
    /// Entropy of `p`.
    pub entropy: f64,
    /// The scalar whose gradient training follows, [`super::LossEntry::lowers`]: `beta CE(z / beta) >= 0` for
    /// `gem-linear`, `1 - p_y` for `dft`, the loss itself for the losses without constant parts.
    pub surrogate: f64,
    /// `z_y` is the largest score.
    pub correct: bool,
}

/// What is known of a row after some of its scores: the largest one and the sums relative to it.
///
/// # Equation
/// With `d_i = z_i - m`: `sum e^{d}`, `sum e^{d} d`, `sum e^{d / beta}`, `sum e^{d / beta} w`,
/// `sum e^{d / beta} w d`, `sum d`. Going from `m` to `m' >= m` with `c = m - m'` and `f = e^{c / beta}` multiplies
/// the sums with weights by `f`, turns a sum with `d` into `f (t + c s)`, and adds `c` to each plain `d`.
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
        let at = at(kind, max(piece), at_label);
        let sums = match kind.entry().scan {
            Scan::Plain | Scan::Tilted => scan::<T, false, false, false>(piece, at),
            Scan::Flat => scan::<T, false, false, true>(piece, at),
            Scan::Cold => scan::<T, true, false, false>(piece, at),
            Scan::ColdSigmoid => scan::<T, true, true, false>(piece, at),
        };
        RowState { kind, max: at.max.f64(), sums }
    }

    /// The state of a row whose scores give way to the weights of the gradient; `None`, and the scores untouched, where
    /// the gradient needs them.
    #[inline(always)]
    fn scan_keep<T: Real>(kind: LossKind, z: &mut [T], at_label: T) -> Option<Self> {
        let at = at(kind, max(z), at_label);
        let sums = match kind.entry().scan {
            Scan::Plain => scan_keep::<T, false, false>(z, at),
            Scan::Cold => scan_keep::<T, true, false>(z, at),
            Scan::ColdSigmoid => scan_keep::<T, true, true>(z, at),
            Scan::Tilted | Scan::Flat => return None,
        };
        Some(RowState { kind, max: at.max.f64(), sums })
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
            flat: s.flat + c * s.columns,
            columns: s.columns,
        }
    }

    fn view(&self, at_label: f64) -> View<'_> {
        View { sums: &self.sums, gap: self.max - at_label, x: self.kind.parameter().unwrap_or(0.0) }
    }

    /// Loss and statistics of the whole row.
    pub fn finish<T: Real>(&self, at_label: T) -> RowStats {
        let zy = at_label.f64();
        let (view, entry) = (self.view(zy), self.kind.entry());
        RowStats {
            loss: (entry.value)(&view),
            ce: view.ce(),
            entropy: view.entropy(),
            surrogate: (entry.lowered)(&view),
            correct: zy >= self.max,
        }
    }

    /// The gradient's numbers, and what its weights add up to.
    fn field<T: Real>(&self, at_label: T) -> (Field, f64) {
        let entry = self.kind.entry();
        let norm = match entry.scan {
            Scan::Plain | Scan::Tilted | Scan::Flat => self.sums.p,
            Scan::Cold | Scan::ColdSigmoid => self.sums.q,
        };
        ((entry.field)(&self.view(at_label.f64())), norm)
    }

    fn bend<T: Real>(&self, f: &Field, norm: f64, scale: T) -> Bend<T> {
        Bend {
            scale: T::of(scale.f64() * f.weight / norm),
            tilt: T::of(f.tilt),
            mean: T::of(self.sums.pz / self.sums.p),
            flat: scale * T::of(f.flat),
        }
    }

    /// Replaces the scores of a piece of the row by `scale` times their gradient. The state is that of the whole row,
    /// `label` the column of the label if it lies in this piece, `at_label` its score.
    ///
    /// # Panics
    /// When `label` is not a column of the piece.
    #[inline(always)]
    pub fn gradient<T: Real>(&self, piece: &mut [T], label: Option<usize>, at_label: T, scale: T) {
        let at = at(self.kind, T::of(self.max), at_label);
        let (f, norm) = self.field(at_label);
        let by = self.bend(&f, norm, scale);
        match self.kind.entry().scan {
            Scan::Plain | Scan::Tilted | Scan::Flat => bend::<T, false, false>(piece, at, by),
            Scan::Cold => bend::<T, true, false>(piece, at, by),
            Scan::ColdSigmoid => bend::<T, true, true>(piece, at, by),
        }
        if let Some(label) = label {
            piece[label] -= scale * T::of(f.mass);
        }
    }
}

fn at<T: Real>(kind: LossKind, max: T, label: T) -> At<T> {
    At { max, label, inv_beta: T::of(1.0 / kind.beta()) }
}

/// What a row has whose label lies on a column with score `-inf`; `None` for any other.
#[inline(always)]
fn impossible<T: Real>(zy: T) -> Option<RowStats> {
    let inf = f64::INFINITY;
    (zy < T::ZERO && !zy.is_finite()).then_some(RowStats {
        loss: inf,
        ce: inf,
        entropy: 0.0,
        surrogate: inf,
        correct: false,
    })
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
    if let Some(stats) = impossible(zy) {
        if scale.is_some() {
            z.fill(T::ZERO);
        }
        return stats;
    }
    let Some(scale) = scale else { return RowState::scan(kind, z, zy).finish(zy) };
    let Some(state) = RowState::scan_keep(kind, z, zy) else {
        let state = RowState::scan(kind, z, zy);
        state.gradient(z, Some(label), zy, scale);
        return state.finish(zy);
    };
    let (f, norm) = state.field(zy);
    let c = T::of(scale.f64() * f.weight / norm);
    for z in z.iter_mut() {
        *z *= c;
    }
    z[label] -= scale * T::of(f.mass);
    state.finish(zy)
}

/// As [`row`] with a scale, and replaces the tangent `tz` of the scores by the tangent of the gradient.
///
/// # Equation
/// `tg = scale / beta * q (tz - <q, tz>)` for `ce` (`beta = 1`) and `gem-linear`; the derivative of the gradient along
/// `tz` for the others. The caller refuses losses without a Hessian.
///
/// # Panics
/// When `label` is not a column.
#[inline(always)]
pub fn row_tangent<T: Real>(kind: LossKind, z: &mut [T], label: usize, scale: T, tz: &mut [T]) -> RowStats {
    let zy = z[label];
    if let Some(stats) = impossible(zy) {
        z.fill(T::ZERO);
        tz.fill(T::ZERO);
        return stats;
    }
    let Some(state) = RowState::scan_keep(kind, z, zy) else {
        let state = RowState::scan(kind, z, zy);
        let (f, norm) = state.field(zy);
        let (by, m) = (state.bend(&f, norm, scale), T::of(state.max));
        let means = moments(z, tz, m, by.mean).map(|s| T::of(s / norm));
        bend_tangent(z, tz, m, by, means);
        state.gradient(z, Some(label), zy, scale);
        return state.finish(zy);
    };
    let (f, norm) = state.field(zy);
    let c = T::of(scale.f64() * f.weight / norm);
    let along = c * T::of(1.0 / kind.beta());
    let mean = dot(z, tz) / T::of(norm);
    // The tangent of a weight that is a multiple of p_y.
    let own = if f.follows { tz[label] - mean } else { T::ZERO };
    for (t, z) in tz.iter_mut().zip(z.iter_mut()) {
        *t = *z * (along * (*t - mean) + c * own);
        *z *= c;
    }
    z[label] -= scale * T::of(f.mass);
    tz[label] -= scale * T::of(f.mass) * own;
    state.finish(zy)
}
