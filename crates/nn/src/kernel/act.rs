//! Elementwise functions with two derivatives.

use rhumb_linalg::Real;
use rhumb_linalg::par::{ParSlice, ParSliceMut};
use serde::{Deserialize, Serialize};

use super::{CHUNK, ROWS};
use crate::op::Adj;

/// An elementwise activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// `max(x, 0)`; derivative 0 at 0, as in the common frameworks.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// `x sigmoid(x)`.
    Silu,
    /// `x Phi(x)` with the error function.
    Gelu,
    /// The tanh approximation of [`Act::Gelu`].
    GeluTanh,
}

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// Value, first and second derivative of SiLU.
#[inline(always)]
pub(crate) fn silu<T: Real>(x: T) -> (T, T, T) {
    let s = sigmoid(x);
    let d = s * (T::ONE - s);
    let v = x * s;
    (v, s + x * d, d * (T::of(2.0) + x * (T::ONE - s - s)))
}

fn gelu_erf<T: Real>(x: T) -> (T, T, T) {
    let x = x.f64();
    let cdf = 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
    let pdf = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    (T::of(x * cdf), T::of(cdf + x * pdf), T::of(pdf * (2.0 - x * x)))
}

#[inline(always)]
fn gelu_tanh<T: Real>(x: T) -> (T, T, T) {
    let c = T::of(0.797_884_560_802_865_4);
    let a = T::of(0.044_715);
    let half = T::of(0.5);
    let t = (c * (x + a * x * x * x)).tanh();
    let du = c * (T::ONE + T::of(3.0) * a * x * x);
    let ddu = c * T::of(6.0) * a * x;
    let dt = (T::ONE - t * t) * du;
    let ddt = (T::ONE - t * t) * ddu - T::of(2.0) * t * dt * du;
    (half * x * (T::ONE + t), half * (T::ONE + t) + half * x * dt, dt + half * x * ddt)
}

impl Act {
    #[inline(always)]
    fn at<T: Real>(self, x: T) -> (T, T, T) {
        match self {
            Act::Relu if x > T::ZERO => (x, T::ONE, T::ZERO),
            // A NaN must stay visible.
            Act::Relu => (if x <= T::ZERO { T::ZERO } else { x }, T::ZERO, T::ZERO),
            Act::Tanh => {
                let t = x.tanh();
                let d = T::ONE - t * t;
                (t, d, T::of(-2.0) * t * d)
            }
            Act::Silu => silu(x),
            Act::Gelu => gelu_erf(x),
            Act::GeluTanh => gelu_tanh(x),
        }
    }
}

/// Evaluates an expression with the activation as a constant, so that its loop vectorises. A variable would not do: what
/// an iterator calls holds every case until it is inlined, and is too long to be inlined.
macro_rules! unrolled {
    ($act:expr, $a:ident => $body:expr) => {
        match $act {
            Act::Relu => {
                const $a: Act = Act::Relu;
                $body
            }
            Act::Tanh => {
                const $a: Act = Act::Tanh;
                $body
            }
            Act::Silu => {
                const $a: Act = Act::Silu;
                $body
            }
            Act::Gelu => {
                const $a: Act = Act::Gelu;
                $body
            }
            Act::GeluTanh => {
                const $a: Act = Act::GeluTanh;
                $body
            }
        }
    };
}

/// Writes or adds a sequence.
#[inline(always)]
fn write<T: Real>(to: &mut [T], add: bool, from: impl Iterator<Item = T>) {
    if add {
        for (t, f) in to.iter_mut().zip(from) {
            *t += f;
        }
    } else {
        for (t, f) in to.iter_mut().zip(from) {
            *t = f;
        }
    }
}

/// `y = f(x)`.
pub(crate) fn forward<T: Real>(act: Act, x: &[T], y: &mut [T]) {
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        simd!(|| unrolled!(act, A => write(y, false, x.iter().map(|x| A.at(*x).0))));
    });
}

/// `out (+)= f'(x) d`: the tangent of the value, and its transpose.
pub(crate) fn derivative<T: Real>(act: Act, x: &[T], d: &[T], out: &mut [T], add: bool) {
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(d.par_chunks(CHUNK)).for_each(|((o, x), d)| {
        simd!(|| unrolled!(act, A => write(o, add, x.iter().zip(d).map(|(x, d)| *d * A.at(*x).1))));
    });
}

/// `tdx (+)= tdy f'(x) + dy f''(x) tx`.
pub(crate) fn backward_tangent<T: Real>(
    act: Act,
    x: &[T],
    tx: &[T],
    dy: &[T],
    tdy: &[T],
    tdx: &mut Adj<'_, T>,
) {
    let add = tdx.add;
    let given =
        x.par_chunks(CHUNK).zip(tx.par_chunks(CHUNK)).zip(dy.par_chunks(CHUNK)).zip(tdy.par_chunks(CHUNK));
    tdx.buf.par_chunks_mut(CHUNK).zip(given).for_each(|(o, (((x, tx), dy), tdy))| {
        simd!(|| {
            let all = x.iter().zip(tx).zip(dy).zip(tdy);
            unrolled!(act, A => {
                let all = all.map(|(((x, tx), dy), tdy)| {
                    let (_, d, dd) = A.at(*x);
                    *tdy * d + *dy * dd * *tx
                });
                write(o, add, all);
            });
        });
    });
}

/// `a = silu(gate) up`, rows of `gu` being `[gate | up]`.
pub(crate) fn swiglu<T: Real>(a: &mut [T], gu: &[T], width: usize) {
    a.par_chunks_mut(width * ROWS).zip(gu.par_chunks(2 * width * ROWS)).for_each(|(a, gu)| {
        simd!(|| {
            for (a, gu) in a.chunks_exact_mut(width).zip(gu.chunks_exact(2 * width)) {
                let (g, u) = gu.split_at(width);
                for ((a, g), u) in a.iter_mut().zip(g).zip(u) {
                    *a = *g * *u / (T::ONE + (-*g).exp());
                }
            }
        });
    });
}

/// The adjoint of `[gate | up]`.
pub(crate) fn swiglu_backward<T: Real>(gu: &[T], da: &[T], dgu: &mut Adj<'_, T>, width: usize) {
    let add = dgu.add;
    let given = gu.par_chunks(2 * width * ROWS).zip(da.par_chunks(width * ROWS));
    dgu.buf.par_chunks_mut(2 * width * ROWS).zip(given).for_each(|(dgu, (gu, da))| {
        simd!(|| {
            let rows = gu.chunks_exact(2 * width).zip(da.chunks_exact(width));
            for (dgu, (gu, da)) in dgu.chunks_exact_mut(2 * width).zip(rows) {
                let (g, u) = gu.split_at(width);
                let (dg, du) = dgu.split_at_mut(width);
                for ((((dg, du), g), u), da) in dg.iter_mut().zip(du).zip(g).zip(u).zip(da) {
                    let s = T::ONE / (T::ONE + (-*g).exp());
                    let v = *g * s;
                    let (x, y) = (*da * *u * (s + v * (T::ONE - s)), *da * v);
                    if add {
                        *dg += x;
                        *du += y;
                    } else {
                        *dg = x;
                        *du = y;
                    }
                }
            }
        });
    });
}

/// `ta = silu'(gate) up tgate + silu(gate) tup`.
pub(crate) fn swiglu_tangent<T: Real>(gu: &[T], tgu: &[T], ta: &mut [T], width: usize) {
    let given = gu.par_chunks(2 * width * ROWS).zip(tgu.par_chunks(2 * width * ROWS));
    ta.par_chunks_mut(width * ROWS).zip(given).for_each(|(ta, (gu, tgu))| {
        simd!(|| {
            let rows = gu.chunks_exact(2 * width).zip(tgu.chunks_exact(2 * width));
            for (ta, (gu, tgu)) in ta.chunks_exact_mut(width).zip(rows) {
                let ((g, u), (tg, tu)) = (gu.split_at(width), tgu.split_at(width));
                for ((((ta, g), u), tg), tu) in ta.iter_mut().zip(g).zip(u).zip(tg).zip(tu) {
                    let (v, d, _) = silu(*g);
                    *ta = d * *tg * *u + v * *tu;
                }
            }
        });
    });
}

/// The tangent of [`swiglu_backward`].
pub(crate) fn swiglu_backward_tangent<T: Real>(
    gu: &[T],
    tgu: &[T],
    da: &[T],
    tda: &[T],
    tdgu: &mut Adj<'_, T>,
    width: usize,
) {
    let add = tdgu.add;
    let (two, one) = (2 * width * ROWS, width * ROWS);
    let given = gu.par_chunks(two).zip(tgu.par_chunks(two)).zip(da.par_chunks(one)).zip(tda.par_chunks(one));
    tdgu.buf.par_chunks_mut(two).zip(given).for_each(|(out, (((gu, tgu), da), tda))| {
        simd!(|| {
            let rows = gu
                .chunks_exact(2 * width)
                .zip(tgu.chunks_exact(2 * width))
                .zip(da.chunks_exact(width))
                .zip(tda.chunks_exact(width));
            for (out, (((gu, tgu), da), tda)) in out.chunks_exact_mut(2 * width).zip(rows) {
                let ((g, u), (tg, tu)) = (gu.split_at(width), tgu.split_at(width));
                let (og, ou) = out.split_at_mut(width);
                let all = og.iter_mut().zip(ou).zip(g).zip(u).zip(tg).zip(tu).zip(da).zip(tda);
                for (((((((og, ou), g), u), tg), tu), da), tda) in all {
                    let (v, d, dd) = silu(*g);
                    let x = *tda * *u * d + *da * (*tu * d + *u * dd * *tg);
                    let y = *tda * v + *da * d * *tg;
                    if add {
                        *og += x;
                        *ou += y;
                    } else {
                        *og = x;
                        *ou = y;
                    }
                }
            }
        });
    });
}
