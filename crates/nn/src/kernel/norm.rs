//! Rows of RMSNorm and LayerNorm: value, VJP and their tangents.
//!
//! Symbols: `r = 1/sqrt(mean(c^2) + eps)` with `c = x` (RMS) or `c = x - mean(x)` (layer), `n = c r` the
//! normalised row, `w` the scale, `u = dy w`. The VJP is `dx = r (u - mean(u) - n mean(u n))`, without the
//! `mean(u)` term for RMS.

use rhumb_linalg::Real;

use super::{dot, sum, sum2};

/// `1/rms` of a row.
#[inline(always)]
pub(crate) fn rms_scale<T: Real>(x: &[T], eps: T) -> T {
    T::ONE / (dot(x, x) / T::of(x.len() as f64) + eps).sqrt()
}

/// `y = x r w`.
#[inline(always)]
pub(crate) fn rms_row<T: Real>(y: &mut [T], x: &[T], w: &[T], r: T) {
    for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
        *y = *x * r * *w;
    }
}

/// The tangent of `r`: `-r^3 mean(x tx)`.
#[inline(always)]
pub(crate) fn rms_scale_tangent<T: Real>(x: &[T], tx: &[T], r: T) -> T {
    -(r * r * r) * dot(x, tx) / T::of(x.len() as f64)
}

/// `dx (+)= r u - c x` with `c = r^3 mean(u x)`; `dw += dy x r`.
#[inline(always)]
pub(crate) fn rms_row_backward<T: Real>(
    dx: Option<(&mut [T], bool)>,
    dw: Option<&mut [T]>,
    dy: &[T],
    x: &[T],
    w: &[T],
    r: T,
) {
    if let Some(dw) = dw {
        for ((dw, dy), x) in dw.iter_mut().zip(dy).zip(x) {
            *dw += *dy * *x * r;
        }
    }
    if let Some((dx, add)) = dx {
        let c = r * r * r * dot3(dy, w, x) / T::of(x.len() as f64);
        let all = dx.iter_mut().zip(dy).zip(w).zip(x);
        if add {
            all.for_each(|(((d, dy), w), x)| *d += r * *dy * *w - c * *x);
        } else {
            all.for_each(|(((d, dy), w), x)| *d = r * *dy * *w - c * *x);
        }
    }
}

/// `sum a b c`, in a fixed order.
#[inline(always)]
pub(crate) fn dot3<T: Real>(a: &[T], b: &[T], c: &[T]) -> T {
    const L: usize = 16;
    let n = a.len() / L * L;
    let mut acc = [T::ZERO; L];
    for ((a, b), c) in a[..n].chunks_exact(L).zip(b[..n].chunks_exact(L)).zip(c[..n].chunks_exact(L)) {
        for l in 0..L {
            acc[l] += a[l] * b[l] * c[l];
        }
    }
    let mut s = T::ZERO;
    for l in 0..L {
        s += acc[l];
    }
    for ((a, b), c) in a[n..].iter().zip(&b[n..]).zip(&c[n..]) {
        s += *a * *b * *c;
    }
    s
}

/// What one tangent row of a norm's backward reads.
pub(crate) struct RowTan<'a, T> {
    pub(crate) x: &'a [T],
    pub(crate) tx: Option<&'a [T]>,
    pub(crate) w: &'a [T],
    pub(crate) tw: Option<&'a [T]>,
    pub(crate) dy: &'a [T],
    pub(crate) tdy: &'a [T],
    pub(crate) r: T,
    pub(crate) tr: T,
}

/// The tangent of [`rms_row_backward`].
#[inline(always)]
pub(crate) fn rms_row_backward_tangent<T: Real>(
    dx: Option<(&mut [T], bool)>,
    dw: Option<&mut [T]>,
    t: &RowTan<'_, T>,
) {
    let n = T::of(t.x.len() as f64);
    let (r, tr) = (t.r, t.tr);
    let txi = |i: usize| t.tx.map_or(T::ZERO, |v| v[i]);
    let twi = |i: usize| t.tw.map_or(T::ZERO, |v| v[i]);
    if let Some(dw) = dw {
        for (i, dw) in dw.iter_mut().enumerate() {
            *dw += t.tdy[i] * t.x[i] * r + t.dy[i] * (txi(i) * r + t.x[i] * tr);
        }
    }
    if let Some((dx, add)) = dx {
        let s = dot3(t.dy, t.w, t.x);
        let mut ts = dot3(t.tdy, t.w, t.x);
        if let Some(tw) = t.tw {
            ts += dot3(t.dy, tw, t.x);
        }
        if let Some(tx) = t.tx {
            ts += dot3(t.dy, t.w, tx);
        }
        let c = r * r * r * s / n;
        let tc = (T::of(3.0) * r * r * tr * s + r * r * r * ts) / n;
        for (i, d) in dx.iter_mut().enumerate() {
            let u = t.dy[i] * t.w[i];
            let tu = t.tdy[i] * t.w[i] + t.dy[i] * twi(i);
            let v = tr * u + r * tu - tc * t.x[i] - c * txi(i);
            *d = if add { *d + v } else { v };
        }
    }
}

/// Mean and `1/std` of a row.
#[inline(always)]
pub(crate) fn layer_stats<T: Real>(x: &[T], eps: T) -> (T, T) {
    let n = T::of(x.len() as f64);
    let mean = sum(x) / n;
    let var = sum2(x, x, |a, _| (a - mean) * (a - mean)) / n;
    (mean, T::ONE / (var + eps).sqrt())
}

/// The tangents of mean and `1/std`.
#[inline(always)]
pub(crate) fn layer_stats_tangent<T: Real>(x: &[T], tx: &[T], mean: T, r: T) -> (T, T) {
    let n = T::of(x.len() as f64);
    let tmean = sum(tx) / n;
    (tmean, -(r * r * r) * sum2(x, tx, |a, t| (a - mean) * (t - tmean)) / n)
}

/// The VJP of `y = (x - mean) r w + b`.
#[inline(always)]
pub(crate) fn layer_row_backward<T: Real>(
    dx: Option<(&mut [T], bool)>,
    dw: Option<&mut [T]>,
    dy: &[T],
    x: &[T],
    w: &[T],
    mean: T,
    r: T,
) {
    if let Some(dw) = dw {
        for ((dw, dy), x) in dw.iter_mut().zip(dy).zip(x) {
            *dw += *dy * (*x - mean) * r;
        }
    }
    if let Some((dx, add)) = dx {
        let n = T::of(x.len() as f64);
        let a = dot(dy, w) / n;
        let b = (dot3(dy, w, x) - mean * dot(dy, w)) * r / n;
        for (((d, dy), w), x) in dx.iter_mut().zip(dy).zip(w).zip(x) {
            let v = r * (*dy * *w - a - (*x - mean) * r * b);
            *d = if add { *d + v } else { v };
        }
    }
}

/// The tangent of [`layer_row_backward`].
#[inline(always)]
pub(crate) fn layer_row_backward_tangent<T: Real>(
    dx: Option<(&mut [T], bool)>,
    dw: Option<&mut [T]>,
    t: &RowTan<'_, T>,
    mean: T,
    tmean: T,
) {
    let n = T::of(t.x.len() as f64);
    let (r, tr) = (t.r, t.tr);
    let len = t.x.len();
    let txi = |i: usize| t.tx.map_or(T::ZERO, |v| v[i]);
    let twi = |i: usize| t.tw.map_or(T::ZERO, |v| v[i]);
    let c = |i: usize| t.x[i] - mean;
    let tc = |i: usize| txi(i) - tmean;
    let norm = |i: usize| c(i) * r;
    let tnorm = |i: usize| tc(i) * r + c(i) * tr;
    let u = |i: usize| t.dy[i] * t.w[i];
    let tu = |i: usize| t.tdy[i] * t.w[i] + t.dy[i] * twi(i);
    if let Some(dw) = dw {
        for (i, dw) in dw.iter_mut().enumerate() {
            *dw += t.tdy[i] * norm(i) + t.dy[i] * tnorm(i);
        }
    }
    if let Some((dx, add)) = dx {
        let (mut a, mut ta, mut b, mut tb) = (T::ZERO, T::ZERO, T::ZERO, T::ZERO);
        for i in 0..len {
            a += u(i);
            ta += tu(i);
            b += u(i) * norm(i);
            tb += tu(i) * norm(i) + u(i) * tnorm(i);
        }
        let (a, ta, b, tb) = (a / n, ta / n, b / n, tb / n);
        for (i, d) in dx.iter_mut().enumerate() {
            let inner = u(i) - a - norm(i) * b;
            let tinner = tu(i) - ta - tnorm(i) * b - norm(i) * tb;
            let v = tr * inner + r * tinner;
            *d = if add { *d + v } else { v };
        }
    }
}
