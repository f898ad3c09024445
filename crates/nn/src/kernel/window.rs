//! Windows that slide over planes: columns for products and back, maxima and sums.

use std::ops::Range;

use rhumb_linalg::Real;
use rhumb_linalg::par::ParSliceMut;

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

/// One scalar of the window on its way over the plane.
struct Tap {
    window: Window,
    /// Its place in the window.
    at: [usize; 2],
    /// Positions in a row of them.
    columns: usize,
    /// Rows and columns of positions at which it lies inside the plane.
    ys: Range<usize>,
    xs: Range<usize>,
    /// It sees the plane as it lies, shifted: rows of positions are as long as those of the plane and step by one.
    shift: bool,
}

impl Tap {
    fn new(window: Window, [rows, columns]: [usize; 2], tap: usize) -> Self {
        let at = [tap / window.kernel[1], tap % window.kernel[1]];
        let inside = |axis: usize, out: usize| {
            let (n, step, pad) = (window.plane[axis], window.stride[axis], window.padding[axis]);
            let first = pad.saturating_sub(at[axis]).div_ceil(step).min(out);
            let end = (n + pad).saturating_sub(at[axis]).div_ceil(step).min(out);
            first..end.max(first)
        };
        let shift = window.stride == [1; 2] && columns == window.plane[1];
        Tap { window, at, columns, ys: inside(0, rows), xs: inside(1, columns), shift }
    }

    /// With `shift`: where it finds its first scalar at `rows`, and the part of these that lies inside the plane, both
    /// counted in scalars.
    #[inline(always)]
    fn shifted(&self, rows: &Range<usize>) -> (usize, Range<usize>) {
        let (w, columns) = (self.window, self.columns);
        let ys = self.ys.start.max(rows.start)..self.ys.end.min(rows.end);
        if ys.is_empty() {
            return (0, 0..0);
        }
        let first = (ys.start + self.at[0] - w.padding[0]) * columns + self.at[1];
        let to = (ys.start - rows.start) * columns;
        // The first scalars of the plane's first row, or the last of its last one, may be outside.
        let n = ys.len() * columns;
        let cut = w.padding[1].saturating_sub(first).min(n);
        let from = (first + cut).saturating_sub(w.padding[1]).min(w.area());
        let len = (n - cut).min(w.area() - from);
        (from, to + cut..to + cut + len)
    }

    /// The first scalar that it sees of the plane's row at position row `oy`, counted in the plane, where it sees any.
    #[inline(always)]
    fn start(&self, oy: usize) -> Option<usize> {
        if !self.ys.contains(&oy) || self.xs.is_empty() {
            return None;
        }
        let w = self.window;
        let row = (oy * w.stride[0] + self.at[0] - w.padding[0]) * w.plane[1];
        Some(row + self.xs.start * w.stride[1] + self.at[1] - w.padding[1])
    }

    /// What it sees at `rows`, zero outside the plane.
    #[inline(always)]
    fn gather<T: Real>(&self, x: &[T], rows: &Range<usize>, to: &mut [T]) {
        let step = self.window.stride[1];
        if self.shift {
            let (from, at) = self.shifted(rows);
            to[..at.start].fill(T::ZERO);
            to[at.end..].fill(T::ZERO);
            to[at.clone()].copy_from_slice(&x[from..][..at.len()]);
            clear_margins(to, self.columns, &self.xs);
            return;
        }
        for (oy, to) in rows.clone().zip(to.chunks_exact_mut(self.columns)) {
            let Some(from) = self.start(oy) else {
                to.fill(T::ZERO);
                continue;
            };
            to[..self.xs.start].fill(T::ZERO);
            to[self.xs.end..].fill(T::ZERO);
            let (to, from) = (&mut to[self.xs.clone()], &x[from..]);
            if step == 1 {
                copy_short(to, &from[..to.len()]);
            } else {
                for (t, x) in to.iter_mut().zip(from.iter().step_by(step)) {
                    *t = *x;
                }
            }
        }
    }

    /// The adjoint of [`Tap::gather`]: adds to `dx`. With `shift` the margins of `from` are zero.
    #[inline(always)]
    fn scatter<T: Real>(&self, from: &[T], rows: &Range<usize>, dx: &mut [T]) {
        let step = self.window.stride[1];
        if self.shift {
            let (to, at) = self.shifted(rows);
            for (t, f) in dx[to..][..at.len()].iter_mut().zip(&from[at]) {
                *t += *f;
            }
            return;
        }
        for (oy, from) in rows.clone().zip(from.chunks_exact(self.columns)) {
            let Some(to) = self.start(oy) else { continue };
            let (to, from) = (&mut dx[to..], &from[self.xs.clone()]);
            if step == 1 {
                for (t, f) in to.iter_mut().zip(from) {
                    *t += *f;
                }
            } else {
                for (t, f) in to.iter_mut().step_by(step).zip(from) {
                    *t += *f;
                }
            }
        }
    }
}

/// Zeroes the columns of every row but `keep`.
#[inline(always)]
fn clear_margins<T: Real>(rows: &mut [T], columns: usize, keep: &Range<usize>) {
    if keep.len() < columns {
        for row in rows.chunks_exact_mut(columns) {
            for x in &mut row[..keep.start] {
                *x = T::ZERO;
            }
            for x in &mut row[keep.end..] {
                *x = T::ZERO;
            }
        }
    }
}

/// Copies a few scalars: pieces of constant length need no call.
#[inline(always)]
fn copy_short<T: Real>(to: &mut [T], from: &[T]) {
    const PIECE: usize = 8;
    let n = to.len();
    if n < PIECE {
        for (t, f) in to.iter_mut().zip(from) {
            *t = *f;
        }
        return;
    }
    let mut at = 0;
    while at + PIECE < n {
        to[at..][..PIECE].copy_from_slice(&from[at..][..PIECE]);
        at += PIECE;
    }
    to[n - PIECE..].copy_from_slice(&from[n - PIECE..n]);
}

/// `col[channel taps + tap][position] = ` what the tap sees there, rows of `col` at distance `ld`.
pub(crate) fn gather<T: Real>(parallel: bool, ch: Channels, x: &[T], part: &Part, col: &mut [T], ld: usize) {
    let (w, taps, out) = (ch.window, ch.window.taps(), ch.window.out());
    let (area, len) = (w.area(), part.rows.len() * out[1]);
    let row = |(k, row): (usize, &mut [T])| {
        let tap = Tap::new(w, out, k % taps);
        simd!(|| {
            for (i, to) in part.images.clone().zip(row.chunks_exact_mut(len)) {
                tap.gather(&x[(i * ch.all + ch.from + k / taps) * area..][..area], &part.rows, to);
            }
        });
    };
    let rows = ch.count * taps;
    if parallel {
        col.par_chunks_mut(ld).take(rows).enumerate().for_each(row);
    } else {
        col.chunks_mut(ld).take(rows).enumerate().for_each(row);
    }
}

/// The adjoint of [`gather`], which leaves garbage in `col`: adds every column to the scalars that it saw.
pub(crate) fn scatter<T: Real>(
    parallel: bool,
    ch: Channels,
    col: &mut [T],
    ld: usize,
    part: &Part,
    dx: &mut [T],
) {
    let (w, taps, out) = (ch.window, ch.window.taps(), ch.window.out());
    let (area, len) = (w.area(), part.rows.len() * out[1]);
    // What a tap saw outside the plane goes nowhere.
    let clear = |tap: &Tap, row: &mut [T]| {
        if tap.shift {
            clear_margins(&mut row[..part.images.len() * len], tap.columns, &tap.xs);
        }
    };
    let images = &mut dx[part.images.start * ch.all * area..part.images.end * ch.all * area];
    if !parallel {
        for (k, row) in col.chunks_mut(ld).take(ch.count * taps).enumerate() {
            let tap = Tap::new(w, out, k % taps);
            simd!(|| {
                clear(&tap, row);
                for (from, dx) in row.chunks_exact(len).zip(images.chunks_exact_mut(ch.all * area)) {
                    tap.scatter(from, &part.rows, &mut dx[(ch.from + k / taps) * area..][..area]);
                }
            });
        }
        return;
    }
    col.par_chunks_mut(ld).enumerate().for_each(|(k, row)| clear(&Tap::new(w, out, k % taps), row));
    let col = &*col;
    images.par_chunks_mut(area).enumerate().for_each(|(index, plane)| {
        let (i, c) = (index / ch.all, index % ch.all);
        if !(ch.from..ch.from + ch.count).contains(&c) {
            return;
        }
        simd!(|| {
            for t in 0..taps {
                let row = &col[((c - ch.from) * taps + t) * ld + i * len..][..len];
                Tap::new(w, out, t).scatter(row, &part.rows, plane);
            }
        });
    });
}

/// The largest scalar under the window, and its place in the plane: the first of equals, but a NaN wins.
#[inline(always)]
pub(crate) fn max_plane<T: Real>(w: Window, x: &[T], y: &mut [T], at: &mut [T]) {
    let [rows, cols] = w.out();
    if (w.kernel, w.stride, w.padding) == ([2; 2], [2; 2], [0; 2]) {
        // A sum is not finite where there is a NaN; then every comparison is made with care.
        if super::sum(x).is_finite() {
            for (oy, (y, at)) in y.chunks_exact_mut(cols).zip(at.chunks_exact_mut(cols)).enumerate() {
                max_pairs(&x[2 * oy * w.plane[1]..][..2 * w.plane[1]], 2 * oy * w.plane[1], y, at);
            }
            return;
        }
    }
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

/// [`max_plane`] for squares of two, side by side in two rows of the plane of which the first starts at `start`; no scalar
/// is a NaN.
#[inline(always)]
fn max_pairs<T: Real>(x: &[T], start: usize, y: &mut [T], at: &mut [T]) {
    let (upper, lower) = x.split_at(x.len() / 2);
    let (columns, start) = (T::of(upper.len() as f64), T::of(start as f64));
    let n = y.len();
    let (upper, lower, at) = (&upper[..2 * n], &lower[..2 * n], &mut at[..n]);
    for i in 0..n {
        let (mut best, mut from) = (upper[2 * i], T::ZERO);
        for (x, offset) in
            [(upper[2 * i + 1], T::ONE), (lower[2 * i], columns), (lower[2 * i + 1], columns + T::ONE)]
        {
            let larger = x > best;
            best = if larger { x } else { best };
            from = if larger { offset } else { from };
        }
        y[i] = best;
        at[i] = start + T::of((2 * i) as f64) + from;
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
