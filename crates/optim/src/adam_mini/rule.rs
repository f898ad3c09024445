//! The update of Adam with one second moment per block.

use rayon::prelude::*;
use rhumb_linalg::Real;

use super::partition::Cut;
use crate::kernel::{PARALLEL_FROM, TASK, sum_sq, vectorised};

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

/// Blocks up to this size are read for the mean square and updated while still in the cache.
const CACHED: usize = 1 << 18;

/// Updates one run of equal blocks.
pub(crate) fn apply<T: Real>(c: &Coefficients, cut: Cut, p: &mut [T], m: &mut [T], v: &mut [T], g: &[T]) {
    if cut.block == 1 {
        per_element(c, p, m, v, g);
    } else if cut.block > CACHED {
        let width = cut.block;
        for (((p, m), g), v) in
            p.chunks_exact_mut(width).zip(m.chunks_exact_mut(width)).zip(g.chunks_exact(width)).zip(v)
        {
            large_block(c, p, m, v, g);
        }
    } else {
        let blocks = (TASK / cut.block).max(1);
        let width = blocks * cut.block;
        if p.len() < PARALLEL_FROM {
            vectorised(|| small_blocks(c, cut.block, p, m, v, g));
        } else {
            p.par_chunks_mut(width)
                .zip(m.par_chunks_mut(width))
                .zip(g.par_chunks(width))
                .zip(v.par_chunks_mut(blocks))
                .for_each(|(((p, m), g), v)| vectorised(|| small_blocks(c, cut.block, p, m, v, g)));
        }
    }
}

/// Blocks of one element: AdamW.
fn per_element<T: Real>(c: &Coefficients, p: &mut [T], m: &mut [T], v: &mut [T], g: &[T]) {
    if p.len() < PARALLEL_FROM {
        vectorised(|| elements(c, p, m, v, g));
    } else {
        p.par_chunks_mut(TASK)
            .zip(m.par_chunks_mut(TASK))
            .zip(g.par_chunks(TASK))
            .zip(v.par_chunks_mut(TASK))
            .for_each(|(((p, m), g), v)| vectorised(|| elements(c, p, m, v, g)));
    }
}

#[inline(always)]
fn elements<T: Real>(c: &Coefficients, p: &mut [T], m: &mut [T], v: &mut [T], g: &[T]) {
    let (keep, step, eps) = (T::of(c.keep), T::of(c.step), T::of(c.eps));
    let (new1, old2, new2) = (T::of(1.0 - c.beta1), T::of(c.beta2), T::of(1.0 - c.beta2));
    let unroot = T::of(1.0 / c.root2);
    for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
        *m += new1 * (*g - *m);
        *v = old2 * *v + new2 * (*g * *g);
        *p = keep * *p - step * (*m / (v.sqrt() * unroot + eps));
    }
}

#[inline(always)]
fn small_blocks<T: Real>(c: &Coefficients, width: usize, p: &mut [T], m: &mut [T], v: &mut [T], g: &[T]) {
    for (((p, m), g), v) in
        p.chunks_exact_mut(width).zip(m.chunks_exact_mut(width)).zip(g.chunks_exact(width)).zip(v)
    {
        let h = advance(c, v, sum_sq(g) / width as f64);
        shift(c, h, p, m, g);
    }
}

fn large_block<T: Real>(c: &Coefficients, p: &mut [T], m: &mut [T], v: &mut T, g: &[T]) {
    let parts: Vec<f64> = g.par_chunks(TASK).map(|g| vectorised(|| sum_sq(g))).collect();
    let h = advance(c, v, parts.iter().sum::<f64>() / g.len() as f64);
    p.par_chunks_mut(TASK)
        .zip(m.par_chunks_mut(TASK))
        .zip(g.par_chunks(TASK))
        .for_each(|((p, m), g)| vectorised(|| shift(c, h, p, m, g)));
}

/// Moves the second moment of a block and returns what multiplies its first moment.
#[inline(always)]
fn advance<T: Real>(c: &Coefficients, v: &mut T, mean_sq: f64) -> T {
    *v = T::of(c.beta2 * v.f64() + (1.0 - c.beta2) * mean_sq);
    T::of(c.step / (v.f64().sqrt() / c.root2 + c.eps))
}

#[inline(always)]
fn shift<T: Real>(c: &Coefficients, h: T, p: &mut [T], m: &mut [T], g: &[T]) {
    let (keep, new1) = (T::of(c.keep), T::of(1.0 - c.beta1));
    for ((p, m), g) in p.iter_mut().zip(m).zip(g) {
        *m += new1 * (*g - *m);
        *p = keep * *p - h * *m;
    }
}
