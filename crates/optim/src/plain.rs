//! What optimizers without a partition share: the head of their saved state and loops over equal slices.

use rhumb_core::{CheckpointError, Layout, StateReader, StateWriter};
use rhumb_linalg::Real;
use rhumb_linalg::par::{ParSlice, ParSliceMut};

use crate::kernel::{PARALLEL_FROM, TASK, sum_sq, vectorised};
use crate::state::{Meta, TensorMeta};

/// The head of a saved state; `tag` holds every setting that changes what the state means.
pub(crate) fn meta<T: Real>(kind: &str, tag: String, t: u64, layout: &Layout) -> Meta {
    Meta {
        kind: kind.to_owned(),
        partition: tag,
        scalar: T::NAME.to_owned(),
        state: crate::StateFormat::Full,
        t,
        tensors: layout
            .blocks()
            .iter()
            .map(|b| TensorMeta { name: b.name.clone(), shape: b.shape.clone(), cuts: Vec::new() })
            .collect(),
    }
}

/// Writes a flat state vector, one section `prefix/<tensor>` per tensor.
pub(crate) fn save<T: Real>(
    prefix: &str,
    layout: &Layout,
    state: &[T],
    out: &mut StateWriter<'_>,
) -> Result<(), CheckpointError> {
    layout
        .blocks()
        .iter()
        .try_for_each(|b| out.put_reals(&format!("{prefix}/{}", b.name), &state[b.range.clone()]))
}

/// Reads what [`save`] wrote.
pub(crate) fn load<T: Real>(
    prefix: &str,
    layout: &Layout,
    state: &mut [T],
    src: &mut StateReader,
) -> Result<(), CheckpointError> {
    layout
        .blocks()
        .iter()
        .try_for_each(|b| src.reals(&format!("{prefix}/{}", b.name), &mut state[b.range.clone()]))
}

/// Runs `f` over pieces of parameters, state and gradient, in parallel when there is enough work.
pub(crate) fn each<T: Real>(
    p: &mut [T],
    state: &mut [T],
    g: &[T],
    f: impl Fn(&mut [T], &mut [T], &[T]) + Sync,
) {
    if p.len() < PARALLEL_FROM {
        f(p, state, g);
    } else {
        p.par_chunks_mut(TASK)
            .zip(state.par_chunks_mut(TASK))
            .zip(g.par_chunks(TASK))
            .for_each(|((p, s), g)| f(p, s, g));
    }
}

/// Runs `f` over pieces of a slice, in parallel when there is enough work.
pub(crate) fn pieces<T: Real>(of: &mut [T], f: impl Fn(&mut [T]) + Sync + Send) {
    if of.len() < PARALLEL_FROM {
        f(of);
    } else {
        of.par_chunks_mut(TASK).for_each(f);
    }
}

/// Runs `f` over pieces of two equal slices, in parallel when there is enough work.
pub(crate) fn pair<T: Real>(to: &mut [T], from: &[T], f: impl Fn(&mut [T], &[T]) + Sync) {
    if to.len() < PARALLEL_FROM {
        f(to, from);
    } else {
        to.par_chunks_mut(TASK).zip(from.par_chunks(TASK)).for_each(|(a, b)| f(a, b));
    }
}

/// Rows, columns and number of the matrices in a tensor: the last two dimensions, as often as the others say.
/// `None` for vectors and scalars.
pub(crate) fn matrices(shape: &[usize]) -> Option<(usize, usize, usize)> {
    let (batch, &[m, n]) = shape.split_last_chunk::<2>()?;
    Some((m, n, batch.iter().product()))
}

/// Moves every second moment towards the mean square of its row of `g`, whose rows have `n` scalars.
pub(crate) fn lerp_rows<T: Real>(v: &mut [T], g: &[T], n: usize, new2: f64) {
    let one = |(v, g): (&mut T, &[T])| lerp(v, vectorised(|| sum_sq(g)) / n as f64, new2);
    if g.len() < PARALLEL_FROM {
        v.iter_mut().zip(g.chunks(n)).for_each(one);
    } else {
        v.par_iter_mut().zip(g.par_chunks(n)).for_each(one);
    }
}

/// Columns that one task adds up: a few cache lines, so that reading a stripe wastes nothing.
const STRIPE: usize = 64;

/// Moves every second moment towards the mean square of its column of `g`, which has as many columns as `v`.
pub(crate) fn lerp_columns<T: Real>(v: &mut [T], g: &[T], new2: f64) {
    let n = v.len();
    let rows = g.len() / n.max(1);
    let stripe = |(i, v): (usize, &mut [T])| {
        let mut sums = [0.0; STRIPE];
        for row in g.chunks(n) {
            for (s, g) in sums.iter_mut().zip(&row[i * STRIPE..][..v.len()]) {
                *s += g.f64() * g.f64();
            }
        }
        v.iter_mut().zip(sums).for_each(|(v, s)| lerp(v, s / rows as f64, new2));
    };
    if g.len() < PARALLEL_FROM {
        v.chunks_mut(STRIPE).enumerate().for_each(stripe);
    } else {
        v.par_chunks_mut(STRIPE).enumerate().for_each(stripe);
    }
}

/// v ← v + new (mean − v), in `f64`.
#[inline(always)]
pub(crate) fn lerp<T: Real>(v: &mut T, mean: f64, new: f64) {
    *v = T::of(v.f64() + new * (mean - v.f64()));
}
