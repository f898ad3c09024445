//! Loops over the planes of images, one channel of one image each.

use rhumb_linalg::Real;
use rhumb_linalg::par::ParSliceMut;

use super::CHUNK;

/// `f(i, plane i)` for every plane of `len` scalars; `f` touches about `work` scalars.
pub(crate) fn each_plane<T: Real>(
    y: &mut [T],
    len: usize,
    work: usize,
    f: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    let some = (CHUNK / work.max(1)).max(1);
    y.par_chunks_mut(len * some).enumerate().for_each(|(t, planes)| {
        planes.chunks_exact_mut(len).enumerate().for_each(|(i, plane)| f(t * some + i, plane));
    });
}

/// The same beside another buffer with planes of the same length.
pub(crate) fn each_pair<T: Real>(
    a: &mut [T],
    b: &mut [T],
    len: usize,
    work: usize,
    f: impl Fn(usize, &mut [T], &mut [T]) + Sync + Send,
) {
    let some = (CHUNK / work.max(1)).max(1);
    a.par_chunks_mut(len * some).zip(b.par_chunks_mut(len * some)).enumerate().for_each(|(t, (a, b))| {
        let pairs = a.chunks_exact_mut(len).zip(b.chunks_exact_mut(len)).enumerate();
        pairs.for_each(|(i, (a, b))| f(t * some + i, a, b));
    });
}

/// Sums of a plane that [`channel_sums`] takes at once.
pub(crate) const SUMS: usize = 4;

/// `out[q][c] = sum over images of f(plane of channel c)[q]`, images in order; `planes [images channels, SUMS]` is scratch
/// and `len` the scalars of a plane. The sum over images is taken in f64.
pub(crate) fn channel_sums<T: Real>(
    planes: &mut [T],
    len: usize,
    f: impl Fn(usize) -> [T; SUMS] + Sync + Send,
    out: &mut [T],
) {
    let some = (CHUNK / len.max(1)).max(1);
    planes.par_chunks_mut(SUMS * some).enumerate().for_each(|(t, planes)| {
        planes.chunks_exact_mut(SUMS).enumerate().for_each(|(i, p)| p.copy_from_slice(&f(t * some + i)));
    });
    let channels = out.len() / SUMS;
    for (q, out) in out.chunks_exact_mut(channels).enumerate() {
        for (c, out) in out.iter_mut().enumerate() {
            let of = planes.chunks_exact(SUMS).skip(c).step_by(channels);
            *out = T::of(of.map(|p| p[q].f64()).sum());
        }
    }
}
