use rhumb_linalg::Real;
use rhumb_linalg::gemm::{Init, Mat, gemm};
use rhumb_linalg::par::ParSliceMut;

use crate::kernel::window::{Channels, Part, Window, gather, scatter};
use crate::kernel::{self, plane};
use crate::op::{Adj, Ctx, Cx, Ins, Needs, Op, TanCtx, Tans};

/// Tasks of a batch at most: partial gradients are summed per task, so their number may not follow the threads.
const TASKS: usize = 16;
/// Scalars of all partial weight gradients, about.
const PARTIAL: usize = 1 << 20;
/// Scalars of the columns of one product, about: they stay in the second-level cache.
const COLUMNS: usize = 1 << 17;
/// Positions below which a pointwise convolution takes several images at once.
const DIRECT: usize = 64;

/// Two-dimensional cross-correlation, the convolution of networks.
///
/// # Equation
/// `y[n, o, p] = b[o] + sum over c, t of W[o, c, t] x[n, c, s p + t - pad]`, zero outside the image; output channels of a
/// group see the input channels of that group.
///
/// # Reference
/// LeCun et al. 1998; groups: Krizhevsky et al. 2012.
///
/// # Shapes
/// `x [batch, inp, rows, columns]`, `W [out, inp / groups, kernel rows, kernel columns]`, `b [out]`,
/// `y [batch, out, positions]`; inputs in the order `x, W, b?`.
///
/// # Cost
/// `2 batch out inp / groups taps positions` operations forward, twice that backward; scratch of at most sixteen blocks of
/// columns and as many weight gradients, or about a million scalars of the latter. Without steps and padding a window of
/// one scalar reads the images in place.
#[derive(Clone, Copy, Debug)]
pub struct Conv2d {
    /// Images.
    pub batch: usize,
    /// Channels of `x`; a multiple of `groups`.
    pub inp: usize,
    /// Channels of `y`; a multiple of `groups`.
    pub out: usize,
    /// Groups of channels.
    pub groups: usize,
    /// The kernel on its way over a plane of `x`.
    pub window: Window,
    /// A bias follows the weight.
    pub bias: bool,
}

/// How a batch is cut; it depends on shapes alone.
#[derive(Clone, Copy)]
struct Cut {
    tasks: usize,
    /// Images of a task.
    images: usize,
    /// Images of one product.
    together: usize,
    /// Rows of positions of one product.
    rows: usize,
    /// Columns of one product with those that only fill the last tile, which is then read in place.
    columns: usize,
    /// Distance of their rows: at a power of two, rows would evict each other from the cache.
    ld: usize,
    /// Images are read in place.
    direct: bool,
}

impl Cut {
    fn parts(self, images: usize, rows: usize) -> impl Iterator<Item = Part> {
        (0..images).step_by(self.together).flat_map(move |i| {
            (0..rows).step_by(self.rows).map(move |r| Part {
                images: i..images.min(i + self.together),
                rows: r..rows.min(r + self.rows),
            })
        })
    }

    /// Threads share a product where tasks are too few for them.
    fn parallel(self) -> bool {
        self.tasks < 4
    }
}

/// One product of an adjoint: `dy` with the values that meet it.
struct Term<'a, T> {
    dy: &'a [T],
    /// For the weight's adjoint.
    x: Option<&'a [T]>,
    /// For the image's adjoint.
    w: Option<&'a [T]>,
}

impl Conv2d {
    /// Steps of the products.
    fn depth(&self) -> usize {
        self.inp / self.groups * self.window.taps()
    }

    /// Output channels of a group.
    fn outs(&self) -> usize {
        self.out / self.groups
    }

    fn image(&self) -> usize {
        self.inp * self.window.area()
    }

    fn answer(&self) -> usize {
        self.out * self.window.positions()
    }

    fn channels(&self, group: usize) -> Channels {
        let count = self.inp / self.groups;
        Channels { window: self.window, all: self.inp, from: group * count, count }
    }

    fn cut(&self) -> Cut {
        let weights = (self.out * self.depth()).max(1);
        let tasks = (PARTIAL / weights).clamp(1, TASKS).min(self.batch.max(1));
        let images = self.batch.div_ceil(tasks).max(1);
        let [rows, columns] = self.window.out().map(|n| n.max(1));
        let wish = (COLUMNS / self.depth().max(1)).clamp(256, 1024);
        let (together, rows) = if rows * columns < wish {
            ((wish / (rows * columns)).min(images), rows)
        } else {
            (1, rows.div_ceil(rows.div_ceil((wish / columns).max(1))))
        };
        let padded = (together * rows * columns).next_multiple_of(64);
        Cut {
            tasks: self.batch.div_ceil(images),
            images,
            together,
            rows,
            columns: padded,
            ld: padded + 16,
            direct: self.window.is_point() && self.window.positions() >= DIRECT,
        }
    }

    /// `y = bias + sum of convolutions of x with w`.
    fn sum<T: Real>(&self, cx: &Cx<'_, T>, terms: &[(&[T], &[T])], bias: Option<&[T]>, y: &mut [T]) {
        let (cut, positions) = (self.cut(), self.window.positions());
        if terms.is_empty() || cut.direct {
            plane::each_plane(y, positions, positions, |i, y| {
                y.fill(bias.map_or(T::ZERO, |b| b[i % self.out]));
            });
        }
        if terms.is_empty() {
            return;
        }
        let room = if cut.direct { 1 } else { (self.depth() + self.outs()) * cut.ld };
        let mut scratch = cx.scratch.get(cut.tasks * room);
        let tasks = y.par_chunks_mut(cut.images * self.answer()).zip(scratch.par_chunks_mut(room));
        tasks.enumerate().for_each(|(t, (y, scratch))| {
            let from = t * cut.images * self.image();
            if cut.direct {
                terms.iter().for_each(|(x, w)| self.add_pointwise(cut, &x[from..], w, y));
                return;
            }
            let (col, tile) = scratch.split_at_mut(self.depth() * cut.ld);
            for part in cut.parts(y.len() / self.answer(), self.window.out()[0]) {
                for group in 0..self.groups {
                    for (i, (x, w)) in terms.iter().enumerate() {
                        gather(cut.parallel(), self.channels(group), &x[from..], &part, col, cut.ld);
                        let init = if i == 0 { Init::Zero } else { Init::Keep };
                        self.product(cut, group, w, col, tile, init);
                    }
                    self.spread(cut, group, &part, tile, bias, y);
                }
            }
        });
    }

    /// `tile (+)= W col` for one group.
    fn product<T: Real>(
        &self,
        cut: Cut,
        group: usize,
        w: &[T],
        col: &[T],
        tile: &mut [T],
        init: Init<'_, T>,
    ) {
        let (m, k, ld) = (self.outs(), self.depth(), cut.ld);
        let w = Mat::rows(&w[group * m * k..], k);
        gemm(cut.parallel(), (m, cut.columns, k), T::ONE, tile, ld, w, Mat::rows(col, ld), init);
    }

    fn add_pointwise<T: Real>(&self, cut: Cut, x: &[T], w: &[T], y: &mut [T]) {
        let (m, k, n) = (self.outs(), self.depth(), self.window.positions());
        for (x, y) in x.chunks_exact(self.image()).zip(y.chunks_exact_mut(self.answer())) {
            for g in 0..self.groups {
                let (x, w) = (Mat::rows(&x[g * k * n..], n), Mat::rows(&w[g * m * k..], k));
                gemm(cut.parallel(), (m, n, k), T::ONE, &mut y[g * m * n..], n, w, x, Init::Keep);
            }
        }
    }

    /// Pieces of the output of one group that a part computes: place in the task's `y`, place in the tile.
    fn pieces<'a>(&'a self, cut: Cut, group: usize, part: &'a Part) -> impl Iterator<Item = (usize, usize)> {
        let columns = self.window.out()[1];
        let len = part.rows.len() * columns;
        part.images.clone().enumerate().flat_map(move |(j, i)| {
            (0..self.outs()).map(move |o| {
                let plane = i * self.out + group * self.outs() + o;
                (plane * self.window.positions() + part.rows.start * columns, o * cut.ld + j * len)
            })
        })
    }

    fn spread<T: Real>(
        &self,
        cut: Cut,
        group: usize,
        part: &Part,
        tile: &[T],
        bias: Option<&[T]>,
        y: &mut [T],
    ) {
        let len = part.rows.len() * self.window.out()[1];
        kernel::simd!(|| {
            for (to, from) in self.pieces(cut, group, part) {
                let (y, tile) = (&mut y[to..][..len], &tile[from..][..len]);
                match bias {
                    Some(b) => {
                        let b = b[group * self.outs() + from / cut.ld];
                        y.iter_mut().zip(tile).for_each(|(y, t)| *y = *t + b);
                    }
                    None => y.copy_from_slice(tile),
                }
            }
        });
    }

    fn collect<T: Real>(&self, cut: Cut, group: usize, part: &Part, dy: &[T], tile: &mut [T]) {
        let len = part.rows.len() * self.window.out()[1];
        for (from, to) in self.pieces(cut, group, part) {
            tile[to..][..len].copy_from_slice(&dy[from..][..len]);
        }
    }

    /// Adjoints of image and weight.
    fn adjoints<T: Real>(
        &self,
        cx: &Cx<'_, T>,
        terms: &[Term<'_, T>],
        dx: Option<&mut Adj<'_, T>>,
        dw: Option<&mut Adj<'_, T>>,
    ) {
        if dx.is_none() && dw.is_none() {
            return;
        }
        let (cut, weights) = (self.cut(), self.out * self.depth());
        let columns = if cut.direct { 0 } else { (self.depth() + self.outs()) * cut.ld };
        let room = weights + columns;
        let mut scratch = cx.scratch.get(cut.tasks * room);
        let parts = scratch.par_chunks_mut(room).enumerate();
        match dx {
            Some(dx) => {
                let (images, add) = (cut.images * self.image(), dx.add);
                dx.add = true;
                dx.buf.par_chunks_mut(images).zip(parts).for_each(|(dx, (t, scratch))| {
                    if !add {
                        dx.fill(T::ZERO);
                    }
                    self.task_adjoints(cut, t, terms, scratch, Some(dx), dw.is_some());
                });
            }
            None => parts.for_each(|(t, s)| self.task_adjoints(cut, t, terms, s, None, true)),
        }
        if let Some(dw) = dw {
            self.fold(&mut scratch, room, dw);
        }
    }

    /// `scratch` begins with the task's weight gradient, `[groups, depth, outs]`: its rows are the longer dimension, and
    /// the columns are read as they lie.
    fn task_adjoints<T: Real>(
        &self,
        cut: Cut,
        t: usize,
        terms: &[Term<'_, T>],
        scratch: &mut [T],
        mut dx: Option<&mut [T]>,
        want_w: bool,
    ) {
        let (m, k, ld) = (self.outs(), self.depth(), cut.ld);
        let images = cut.images.min(self.batch - t * cut.images);
        let (from, dy_from) = (t * cut.images * self.image(), t * cut.images * self.answer());
        let (dw, rest) = scratch.split_at_mut(self.out * k);
        dw.fill(T::ZERO);
        if cut.direct {
            for s in terms {
                let x = s.x.filter(|_| want_w).map(|x| &x[from..]);
                self.pointwise_adjoints(cut, images, &s.dy[dy_from..], x, s.w, dx.as_deref_mut(), dw);
            }
            return;
        }
        let (col, tile) = rest.split_at_mut(k * ld);
        for part in cut.parts(images, self.window.out()[0]) {
            let columns = part.images.len() * part.rows.len() * self.window.out()[1];
            for group in 0..self.groups {
                let (ch, at) = (self.channels(group), group * m * k);
                for s in terms.iter().filter(|s| s.x.is_some() || s.w.is_some()) {
                    self.collect(cut, group, &part, &s.dy[dy_from..], tile);
                    if let (true, Some(x)) = (want_w, s.x) {
                        gather(cut.parallel(), ch, &x[from..], &part, col, ld);
                        let (a, b) = (Mat::rows(col, ld), Mat::cols(tile, ld));
                        let size = (k, m, columns);
                        gemm(cut.parallel(), size, T::ONE, &mut dw[at..], m, a, b, Init::Keep);
                    }
                    if let (Some(dx), Some(w)) = (&mut dx, s.w) {
                        let (a, b) = (Mat::cols(&w[at..], k), Mat::rows(tile, ld));
                        gemm(cut.parallel(), (k, cut.columns, m), T::ONE, col, ld, a, b, Init::Zero);
                        scatter(cut.parallel(), ch, col, ld, &part, dx);
                    }
                }
            }
        }
    }

    fn pointwise_adjoints<T: Real>(
        &self,
        cut: Cut,
        images: usize,
        dy: &[T],
        x: Option<&[T]>,
        w: Option<&[T]>,
        mut dx: Option<&mut [T]>,
        dw: &mut [T],
    ) {
        let (m, k, n) = (self.outs(), self.depth(), self.window.positions());
        for i in 0..images {
            for g in 0..self.groups {
                let (dy, at) = (&dy[i * self.answer() + g * m * n..], i * self.image() + g * k * n);
                if let Some(x) = x {
                    let (a, b) = (Mat::rows(&x[at..], n), Mat::cols(dy, n));
                    gemm(cut.parallel(), (k, m, n), T::ONE, &mut dw[g * m * k..], m, a, b, Init::Keep);
                }
                if let (Some(dx), Some(w)) = (&mut dx, w) {
                    let (a, b) = (Mat::cols(&w[g * m * k..], k), Mat::rows(dy, n));
                    gemm(cut.parallel(), (k, n, m), T::ONE, &mut dx[at..], n, a, b, Init::Keep);
                }
            }
        }
    }

    /// Adds the tasks' weight gradients in order and turns them over.
    fn fold<T: Real>(&self, scratch: &mut [T], room: usize, dw: &mut Adj<'_, T>) {
        let (m, k, all) = (self.outs(), self.depth(), self.out * self.depth());
        let (sum, rest) = scratch.split_at_mut(room);
        kernel::simd!(|| {
            for part in rest.chunks_exact(room) {
                sum[..all].iter_mut().zip(part).for_each(|(s, p)| *s += *p);
            }
        });
        let sum = &*sum;
        dw.each(|i| {
            let (o, j) = (i / k, i % k);
            sum[(o / m * k + j) * m + o % m]
        });
        dw.add = true;
    }

    fn add_bias_grad<T: Real>(&self, cx: &Cx<'_, T>, db: &mut Adj<'_, T>, dy: &[T]) {
        let mut planes = cx.scratch.get(self.batch * self.out * plane::SUMS);
        let mut sums = cx.scratch.get(self.out * plane::SUMS);
        let len = self.window.positions();
        let sum = |i: usize| {
            let mut s = [T::ZERO; plane::SUMS];
            kernel::simd!(|| s[0] = kernel::sum(&dy[i * len..][..len]));
            s
        };
        plane::channel_sums(&mut planes, len, sum, &mut sums);
        db.each(|o| sums[o]);
    }
}

impl<T: Real> Op<T> for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }
    fn out_len(&self) -> usize {
        self.batch * self.answer()
    }
    fn needs(&self) -> Needs {
        Needs::inputs(0b11)
    }

    fn forward(&self, cx: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        self.sum(cx, &[(x[0], x[1])], self.bias.then(|| x[2]), y);
    }

    fn backward(&self, cx: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        let (x, rest) = dx.split_at_mut(1);
        let (w, bias) = rest.split_at_mut(1);
        let term = Term { dy, x: Some(at.x[0]), w: Some(at.x[1]) };
        self.adjoints(cx, &[term], x[0].as_mut(), w[0].as_mut());
        if let Some(Some(d)) = bias.first_mut() {
            self.add_bias_grad(cx, d, dy);
        }
    }

    fn forward_tangent(&self, cx: &Cx<'_, T>, at: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        let bias = if self.bias { tx[2] } else { None };
        match (tx[0], tx[1]) {
            (Some(t), Some(tw)) => self.sum(cx, &[(t, at.x[1]), (at.x[0], tw)], bias, ty),
            (Some(t), None) => self.sum(cx, &[(t, at.x[1])], bias, ty),
            (None, Some(tw)) => self.sum(cx, &[(at.x[0], tw)], bias, ty),
            (None, None) => self.sum(cx, &[], bias, ty),
        }
    }

    fn backward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        let (x, rest) = tdx.split_at_mut(1);
        let (w, bias) = rest.split_at_mut(1);
        let moved = Term { dy: t.tdy, x: Some(at.x[0]), w: Some(at.x[1]) };
        let turned = Term { dy: t.dy, x: t.tx[0], w: t.tx[1] };
        self.adjoints(cx, &[moved, turned], x[0].as_mut(), w[0].as_mut());
        if let Some(Some(d)) = bias.first_mut() {
            self.add_bias_grad(cx, d, t.tdy);
        }
    }
}
