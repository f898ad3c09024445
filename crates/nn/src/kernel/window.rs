//! Windows that slide over planes: columns for products and back, maxima and sums.

use std::ops::Range;

use rayon::prelude::*;
use rhumb_linalg::Real;

/// A window that slides over the rows and columns of a plane, surrounded by zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows and columns of the plane.
    pub plane: [usize; 2],
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Step of the window along rows and columns, at least 1.
    pub stride: [usize; 2],
    /// Rows and columns of zeros on every side.
    pub padding: [usize; 2],
}

impl Window {
    /// A square window with the same step and padding in both directions.
    pub fn square(plane: [usize; 2], kernel: usize, stride: usize, padding: usize) -> Self {
        Window { plane, kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] }
    }

    /// The whole plane as one window.
    pub fn whole(plane: [usize; 2]) -> Self {
        Window { plane, kernel: plane, stride: [1; 2], padding: [0; 2] }
    }

    /// Rows and columns of positions, `floor((plane + 2 padding - kernel) / stride) + 1`; 0 where the window is larger
    /// than the padded plane.
    pub fn out(&self) -> [usize; 2] {
        [0, 1].map(|a| {
            let room = (self.plane[a] + 2 * self.padding[a]).checked_sub(self.kernel[a]);
            room.map_or(0, |r| r / self.stride[a] + 1)
        })
    }

    /// Positions of the window.
    pub fn positions(&self) -> usize {
        self.out().iter().product()
    }

    /// Scalars of the plane.
    pub fn area(&self) -> usize {
        self.plane.iter().product()
    }

    /// Scalars under the window.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Every position sees one scalar, each scalar once.
    pub(crate) fn is_point(&self) -> bool {
        self.kernel == [1; 2] && self.stride == [1; 2] && self.padding == [0; 2]
    }

    /// The positions along an axis at which a tap lies inside the plane.
    fn inside(&self, axis: usize, tap: usize) -> Range<usize> {
        let (n, step, pad, out) = (self.plane[axis], self.stride[axis], self.padding[axis], self.out()[axis]);
        let first = pad.saturating_sub(tap).div_ceil(step).min(out);
        let end = (n + pad).saturating_sub(tap).div_ceil(step).min(out);
        first..end.max(first)
    }

    /// The part of the plane under the window at a position along an axis.
    #[inline(always)]
    fn seen(&self, axis: usize, at: usize) -> Range<usize> {
        let first = at * self.stride[axis];
        let end = (first + self.kernel[axis]).saturating_sub(self.padding[axis]).min(self.plane[axis]);
        first.saturating_sub(self.padding[axis])..end
    }
}

/// Where the columns of one product come from: some images of a task and some rows of positions.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Images, counted in the task.
    pub(crate) images: Range<usize>,
    /// Rows of positions.
    pub(crate) rows: Range<usize>,
}

/// Channels `from..from + count` of images with `all` channels, seen through a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channels {
    pub(crate) window: Window,
    pub(crate) all: usize,
    pub(crate) from: usize,
    pub(crate) count: usize,
}

/// `col[channel taps + tap][position] = ` what the tap sees there, rows of `col` at distance `ld`.
pub(crate) fn gather<T: Real>(parallel: bool, ch: Channels, x: &[T], part: &Part, col: &mut [T], ld: usize) {
    let (w, taps) = (ch.window, ch.window.taps());
    let len = part.rows.len() * w.out()[1];
    let row = |(k, row): (usize, &mut [T])| {
        for (i, to) in part.images.clone().zip(row.chunks_exact_mut(len)) {
            let plane = &x[(i * ch.all + ch.from + k / taps) * w.area()..][..w.area()];
            gather_tap(w, k % taps, plane, &part.rows, to);
        }
    };
    let rows = ch.count * taps;
    if parallel {
        col.par_chunks_mut(ld).take(rows).enumerate().for_each(row);
    } else {
        col.chunks_mut(ld).take(rows).enumerate().for_each(row);
    }
}

fn gather_tap<T: Real>(w: Window, tap: usize, x: &[T], rows: &Range<usize>, to: &mut [T]) {
    let tap = [tap / w.kernel[1], tap % w.kernel[1]];
    let (ys, xs) = (w.inside(0, tap[0]), w.inside(1, tap[1]));
    for (oy, to) in rows.clone().zip(to.chunks_exact_mut(w.out()[1])) {
        if !ys.contains(&oy) || xs.is_empty() {
            to.fill(T::ZERO);
            continue;
        }
        to[..xs.start].fill(T::ZERO);
        to[xs.end..].fill(T::ZERO);
        let to = &mut to[xs.clone()];
        let from = &x[(oy * w.stride[0] + tap[0] - w.padding[0]) * w.plane[1]..][..w.plane[1]];
        let from = &from[xs.start * w.stride[1] + tap[1] - w.padding[1]..];
        if w.stride[1] == 1 {
            to.copy_from_slice(&from[..to.len()]);
        } else {
            to.iter_mut().zip(from.iter().step_by(w.stride[1])).for_each(|(t, x)| *t = *x);
        }
    }
}

/// The adjoint of [`gather`]: adds every column to the scalars that it saw.
pub(crate) fn scatter<T: Real>(
    parallel: bool,
    ch: Channels,
    col: &[T],
    ld: usize,
    part: &Part,
    dx: &mut [T],
) {
    let (w, taps) = (ch.window, ch.window.taps());
    let (area, len) = (w.area(), part.rows.len() * w.out()[1]);
    let plane = |(index, plane): (usize, &mut [T])| {
        let (i, c) = (index / ch.all, index % ch.all);
        if !(ch.from..ch.from + ch.count).contains(&c) {
            return;
        }
        simd!(|| {
            for tap in 0..taps {
                let row = &col[((c - ch.from) * taps + tap) * ld + i * len..][..len];
                scatter_tap(w, tap, row, &part.rows, plane);
            }
        });
    };
    let images = &mut dx[part.images.start * ch.all * area..part.images.end * ch.all * area];
    if parallel {
        images.par_chunks_mut(area).enumerate().for_each(plane);
    } else {
        images.chunks_mut(area).enumerate().for_each(plane);
    }
}

#[inline(always)]
fn scatter_tap<T: Real>(w: Window, tap: usize, from: &[T], rows: &Range<usize>, dx: &mut [T]) {
    let tap = [tap / w.kernel[1], tap % w.kernel[1]];
    let (ys, xs) = (w.inside(0, tap[0]), w.inside(1, tap[1]));
    if xs.is_empty() {
        return;
    }
    for (oy, from) in rows.clone().zip(from.chunks_exact(w.out()[1])).filter(|(oy, _)| ys.contains(oy)) {
        let to = &mut dx[(oy * w.stride[0] + tap[0] - w.padding[0]) * w.plane[1]..][..w.plane[1]];
        let to = &mut to[xs.start * w.stride[1] + tap[1] - w.padding[1]..];
        let from = &from[xs.clone()];
        if w.stride[1] == 1 {
            to.iter_mut().zip(from).for_each(|(t, f)| *t += *f);
        } else {
            to.iter_mut().step_by(w.stride[1]).zip(from).for_each(|(t, f)| *t += *f);
        }
    }
}

/// The largest scalar under the window, and its place in the plane: the first of equals, but a NaN wins.
#[inline(always)]
pub(crate) fn max_plane<T: Real>(w: Window, x: &[T], y: &mut [T], at: &mut [T]) {
    let [rows, cols] = w.out();
    for oy in 0..rows {
        let ys = w.seen(0, oy);
        for ox in 0..cols {
            let xs = w.seen(1, ox);
            let mut place = ys.start * w.plane[1] + xs.start;
            let mut best = x[place];
            for iy in ys.clone() {
                let row = &x[iy * w.plane[1]..][..w.plane[1]];
                for ix in xs.clone() {
                    if row[ix] > best || is_nan(row[ix]) {
                        (best, place) = (row[ix], iy * w.plane[1] + ix);
                    }
                }
            }
            y[oy * cols + ox] = best;
            at[oy * cols + ox] = T::of(place as f64);
        }
    }
}

#[inline(always)]
fn is_nan<T: Real>(x: T) -> bool {
    x.partial_cmp(&x).is_none()
}

/// The mean under the window, zeros around the plane included.
#[inline(always)]
pub(crate) fn mean_plane<T: Real>(w: Window, x: &[T], y: &mut [T]) {
    let [rows, cols] = w.out();
    let scale = T::of(1.0 / w.taps() as f64);
    for oy in 0..rows {
        let ys = w.seen(0, oy);
        for ox in 0..cols {
            let xs = w.seen(1, ox);
            let row = |iy: usize| super::sum(&x[iy * w.plane[1]..][xs.clone()]);
            y[oy * cols + ox] = scale * ys.clone().map(row).sum::<T>();
        }
    }
}

/// The adjoint of [`mean_plane`]; adds to `dx`.
#[inline(always)]
pub(crate) fn mean_plane_backward<T: Real>(w: Window, dy: &[T], dx: &mut [T]) {
    let [rows, cols] = w.out();
    let scale = T::of(1.0 / w.taps() as f64);
    for oy in 0..rows {
        let ys = w.seen(0, oy);
        for ox in 0..cols {
            let (xs, d) = (w.seen(1, ox), scale * dy[oy * cols + ox]);
            for iy in ys.clone() {
                dx[iy * w.plane[1]..][xs.clone()].iter_mut().for_each(|x| *x += d);
            }
        }
    }
}
