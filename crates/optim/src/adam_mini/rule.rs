//! The update of Adam with one second moment per block, in one pass over parameters, moments and gradient.
//!
//! A gradient is read from memory once: the mean square of a block brings it into the cache, from where the update
//! takes it. Work is divided at places that depend on the shape alone, never on threads. A step allocates nothing.

use rhumb_linalg::Real;

use super::partition::Cut;
use crate::kernel::{TASK, halves, par_sum_sq, simd, sum_sq};
use crate::store::{GRAIN, PIECE, View};

/// The numbers of one step of one tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coefficients {
    /// Step size divided by the bias correction of the first moment, `lr / (1 - b1^t)`.
    pub(crate) step: f64,
    /// `1 - lr wd`, or 1 without decay.
    pub(crate) keep: f64,
    /// Decay rate of the first moment.
    pub(crate) beta1: f64,
    /// Decay rate of the second moment.
    pub(crate) beta2: f64,
    /// Added after the bias correction, outside the root.
    pub(crate) eps: f64,
    /// `sqrt(1 - b2^t)`.
    pub(crate) root2: f64,
}

/// Blocks up to this size are read for the mean square and updated by one task, while still in its cache.
const CACHED: usize = 1 << 17;

/// Numbers of blocks that are summed before they are updated, where blocks are smaller.
const TOGETHER: usize = 512;

/// Updates one run of equal blocks of more than one element.
pub(crate) fn apply<T: Real>(c: &Coefficients, cut: Cut, p: &mut [T], m: View<'_, T>, v: &mut [T], g: &[T]) {
    let width = cut.block;
    // Whole blocks whose first moments are whole blocks of the format too.
    let group = common_multiple(width, m.grain());
    if group > CACHED {
        if width > CACHED {
            for (v, g) in v.iter_mut().zip(g.chunks_exact(width)) {
                advance(c, v, par_sum_sq(g) / width as f64);
            }
        } else {
            advance_all(c, width, v, g);
        }
        shift_all(c, width, 0, p, m, v, g);
    } else {
        let group = group * (TOGETHER / group).max(1);
        small_blocks(c, width, group, p, m, v, g);
    }
}

fn common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// Blocks of one element: AdamW.
pub(crate) fn per_element<T: Real>(
    c: &Coefficients,
    p: &mut [T],
    mut m: View<'_, T>,
    mut v: View<'_, T>,
    g: &[T],
) {
    let Some(at) = halves(p.len(), TASK) else {
        return simd!(|| elements(c, p, &mut m, &mut v, g));
    };
    let ((p0, p1), (m0, m1)) = (p.split_at_mut(at), m.split_at(at));
    let ((v0, v1), (g0, g1)) = (v.split_at(at), g.split_at(at));
    rayon::join(|| per_element(c, p0, m0, v0, g0), || per_element(c, p1, m1, v1, g1));
}

#[inline(always)]
fn elements<T: Real>(c: &Coefficients, p: &mut [T], m: &mut View<'_, T>, v: &mut View<'_, T>, g: &[T]) {
    let (keep, step, eps) = (T::of(c.keep), T::of(-c.step), T::of(c.eps));
    let (new1, old2, new2) = (T::of(1.0 - c.beta1), T::of(c.beta2), T::of(1.0 - c.beta2));
    let unroot = T::of(1.0 / c.root2);
    let (mut first, mut second) = ([T::ZERO; PIECE], [T::ZERO; PIECE]);
    let mut at = 0;
    for (p, g) in p.chunks_mut(PIECE).zip(g.chunks(PIECE)) {
        let n = p.len();
        {
            let m = m.open(at, n, &mut first);
            let v = v.open(at, n, &mut second);
            for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
                // Stored last: a vector that crosses a cache line is not read back before it is written.
                let first = new1.mul_add(*g - *m, *m);
                let second = old2.mul_add(*v, new2 * (*g * *g));
                *p = keep.mul_add(*p, step * (first / second.sqrt().mul_add(unroot, eps)));
                *m = first;
                *v = second;
            }
        }
        m.close(at, n, &first);
        v.close(at, n, &second);
        at += n;
    }
}

/// Blocks that fit a cache, in groups of `group` elements.
fn small_blocks<T: Real>(
    c: &Coefficients,
    width: usize,
    group: usize,
    p: &mut [T],
    mut m: View<'_, T>,
    v: &mut [T],
    g: &[T],
) {
    let Some(at) = halves(p.len(), group * (TASK / group).max(1)) else {
        return simd!(|| {
            let mut buffer = [T::ZERO; PIECE];
            let mut at = 0;
            for ((p, g), v) in p.chunks_mut(group).zip(g.chunks(group)).zip(v.chunks_mut(group / width)) {
                for (v, g) in v.iter_mut().zip(g.chunks_exact(width)) {
                    advance(c, v, sum_sq(g) / width as f64);
                }
                shift(c, width, 0, p, &mut m, at, v, g, &mut buffer);
                at += p.len();
            }
        });
    };
    let ((p0, p1), (m0, m1)) = (p.split_at_mut(at), m.split_at(at));
    let ((v0, v1), (g0, g1)) = (v.split_at_mut(at / width), g.split_at(at));
    rayon::join(
        || small_blocks(c, width, group, p0, m0, v0, g0),
        || small_blocks(c, width, group, p1, m1, v1, g1),
    );
}

/// Moves the second moments of blocks that no task could update as well.
fn advance_all<T: Real>(c: &Coefficients, width: usize, v: &mut [T], g: &[T]) {
    let Some(at) = halves(v.len(), (TASK / width).max(1)) else {
        return simd!(|| for (v, g) in v.iter_mut().zip(g.chunks_exact(width)) {
            advance(c, v, sum_sq(g) / width as f64);
        });
    };
    let ((v0, v1), (g0, g1)) = (v.split_at_mut(at), g.split_at(at * width));
    rayon::join(|| advance_all(c, width, v0, g0), || advance_all(c, width, v1, g1));
}

/// Updates parameters whose second moments have been moved; they begin `skip` elements into the first block of `v`.
fn shift_all<T: Real>(
    c: &Coefficients,
    width: usize,
    skip: usize,
    p: &mut [T],
    mut m: View<'_, T>,
    v: &[T],
    g: &[T],
) {
    const { assert!(TASK.is_multiple_of(GRAIN) && PIECE.is_multiple_of(GRAIN)) };
    let Some(at) = halves(p.len(), TASK) else {
        return simd!(|| shift(c, width, skip, p, &mut m, 0, v, g, &mut [T::ZERO; PIECE]));
    };
    let ((p0, p1), (m0, m1), (g0, g1)) = (p.split_at_mut(at), m.split_at(at), g.split_at(at));
    let later = (skip + at) % width;
    let v1 = &v[(skip + at) / width..];
    rayon::join(|| shift_all(c, width, skip, p0, m0, v, g0), || shift_all(c, width, later, p1, m1, v1, g1));
}

/// Moves the second moment of a block.
#[inline(always)]
fn advance<T: Real>(c: &Coefficients, v: &mut T, mean_sq: f64) {
    *v = T::of(c.beta2 * v.f64() + (1.0 - c.beta2) * mean_sq);
}

/// The first moments of `p` begin at `m_at` in `m`.
#[inline(always)]
fn shift<T: Real>(
    c: &Coefficients,
    width: usize,
    skip: usize,
    p: &mut [T],
    m: &mut View<'_, T>,
    m_at: usize,
    v: &[T],
    g: &[T],
    buffer: &mut [T; PIECE],
) {
    let (keep, new1) = (T::of(c.keep), T::of(1.0 - c.beta1));
    let (mut at, mut block, mut left) = (m_at, 0, width - skip);
    for (p, g) in p.chunks_mut(PIECE).zip(g.chunks(PIECE)) {
        let n = p.len();
        {
            let m = m.open(at, n, buffer);
            let mut i = 0;
            while i < n {
                let end = n.min(i + left);
                // Times the first moment gives minus the step.
                let h = T::of(-c.step / (v[block].f64().sqrt() / c.root2 + c.eps));
                for ((p, m), g) in p[i..end].iter_mut().zip(&mut m[i..end]).zip(&g[i..end]) {
                    let first = new1.mul_add(*g - *m, *m);
                    *p = keep.mul_add(*p, h * first);
                    *m = first;
                }
                left -= end - i;
                if left == 0 {
                    left = width;
                    block += 1;
                }
                i = end;
            }
        }
        m.close(at, n, buffer);
        at += n;
    }
}
