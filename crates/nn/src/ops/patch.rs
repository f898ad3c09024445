use rhumb_linalg::Real;

use crate::kernel;
use crate::kernel::plane::each_plane;
use crate::op::{Adj, Ctx, Cx, Ins, Needs, Op, TanCtx, Tans};

/// Images cut into patches, one row each, for a linear map: a convolution whose step is its kernel.
///
/// # Shapes
/// `x [batch, channels, rows, columns]`, both a multiple of `size`; `y [batch patches, channels size size]`, patches row by
/// row and their scalars in the order of a convolution's kernel.
#[derive(Clone, Copy, Debug)]
pub struct Patches {
    /// Images.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// Rows and columns of an image.
    pub plane: [usize; 2],
    /// Side of a patch.
    pub size: usize,
}

impl Patches {
    /// Patches of an image.
    pub fn count(&self) -> usize {
        self.plane[0] / self.size * (self.plane[1] / self.size)
    }

    /// Scalars of a patch.
    pub fn width(&self) -> usize {
        self.channels * self.size * self.size
    }

    /// `f(place in an image, place among its patches)` for every run of `size` scalars.
    fn each_run(&self, mut f: impl FnMut(usize, usize)) {
        let (size, [rows, columns]) = (self.size, self.plane);
        let across = columns / size;
        for c in 0..self.channels {
            for y in 0..rows {
                for px in 0..across {
                    let patch = y / size * across + px;
                    let to = patch * self.width() + (c * size + y % size) * size;
                    f((c * rows + y) * columns + px * size, to);
                }
            }
        }
    }

    fn cut<T: Real>(&self, x: &[T], y: &mut [T]) {
        let len = self.count() * self.width();
        each_plane(y, len, len, |i, y| {
            let x = &x[i * len..][..len];
            self.each_run(|from, to| y[to..][..self.size].copy_from_slice(&x[from..][..self.size]));
        });
    }
}

impl<T: Real> Op<T> for Patches {
    fn name(&self) -> &'static str {
        "patches"
    }
    fn out_len(&self) -> usize {
        self.batch * self.count() * self.width()
    }
    fn needs(&self) -> Needs {
        Needs::NONE
    }
    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        self.cut(x[0], y);
    }
    fn backward(&self, _: &Cx<'_, T>, _: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        let Some(d) = &mut dx[0] else { return };
        let (len, add) = (self.count() * self.width(), d.add);
        each_plane(d.buf, len, len, |i, dx| {
            let dy = &dy[i * len..][..len];
            self.each_run(|to, from| {
                put(&mut dx[to..][..self.size], &dy[from..][..self.size], add);
            });
        });
        d.add = true;
    }
    fn forward_tangent(&self, _: &Cx<'_, T>, _: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        match tx[0] {
            Some(t) => self.cut(t, ty),
            None => ty.fill(T::ZERO),
        }
    }
    fn backward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        self.backward(cx, at, t.tdy, tdx);
    }
}

fn put<T: Real>(to: &mut [T], from: &[T], add: bool) {
    if add {
        to.iter_mut().zip(from).for_each(|(t, f)| *t += *f);
    } else {
        to.copy_from_slice(from);
    }
}

/// A class token before the rows of each image, and a learned position added to every row.
///
/// # Reference
/// Dosovitskiy et al., ICLR 2021.
///
/// # Shapes
/// `x [batch len, width]`, positions `P [len (+ 1), width]`, class token `c [width]` (optional last input);
/// `y [batch (len (+ 1)), width]`.
#[derive(Clone, Copy, Debug)]
pub struct Positions {
    /// Images.
    pub batch: usize,
    /// Rows of an image.
    pub len: usize,
    /// Columns.
    pub width: usize,
    /// A class token comes first.
    pub class: bool,
}

impl Positions {
    /// Rows of an image in the output.
    pub fn rows(&self) -> usize {
        self.len + usize::from(self.class)
    }

    /// Scalars of the class token.
    fn head(&self) -> usize {
        self.width * usize::from(self.class)
    }

    fn place<T: Real>(&self, x: Option<&[T]>, p: Option<&[T]>, class: Option<&[T]>, y: &mut [T]) {
        let (len, body) = (self.rows() * self.width, self.len * self.width);
        each_plane(y, len, len, |i, y| {
            match p {
                Some(p) => y.copy_from_slice(p),
                None => y.fill(T::ZERO),
            }
            let (head, rest) = y.split_at_mut(self.head());
            if let Some(c) = class {
                put(head, c, true);
            }
            if let Some(x) = x {
                put(rest, &x[i * body..][..body], true);
            }
        });
    }
}

impl<T: Real> Op<T> for Positions {
    fn name(&self) -> &'static str {
        "positions"
    }
    fn out_len(&self) -> usize {
        self.batch * self.rows() * self.width
    }
    fn needs(&self) -> Needs {
        Needs::NONE
    }
    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        self.place(Some(x[0]), Some(x[1]), x.get(2).copied(), y);
    }
    fn backward(&self, _: &Cx<'_, T>, _: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        let (len, body) = (self.rows() * self.width, self.len * self.width);
        if let Some(d) = &mut dx[0] {
            let add = d.add;
            each_plane(d.buf, body, body, |i, dx| put(dx, &dy[i * len + self.head()..][..body], add));
        }
        // Images in order: the sum does not depend on the threads.
        let (p, class) = dx[1..].split_at_mut(1);
        for (d, n) in [(&mut p[0], len), (class.first_mut().unwrap_or(&mut None), self.head())] {
            if let Some(d) = d {
                d.prepare_scatter();
                dy.chunks_exact(len).for_each(|dy| put(d.buf, &dy[..n], true));
            }
        }
    }
    fn forward_tangent(&self, _: &Cx<'_, T>, _: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        self.place(tx[0], tx[1], tx.get(2).copied().flatten(), ty);
    }
    fn backward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        self.backward(cx, at, t.tdy, tdx);
    }
}

/// One row from the rows of each image: the first, or their mean.
///
/// # Shapes
/// `x [batch len, width]`, `y [batch, width]`.
#[derive(Clone, Copy, Debug)]
pub struct PoolRows {
    /// Images.
    pub batch: usize,
    /// Rows of an image.
    pub len: usize,
    /// Columns.
    pub width: usize,
    /// The first row alone, else the mean.
    pub first: bool,
}

impl PoolRows {
    fn taken(&self) -> usize {
        if self.first { 1 } else { self.len }
    }

    fn pool<T: Real>(&self, x: &[T], y: &mut [T]) {
        let (d, n) = (self.width, self.taken());
        let scale = T::of(1.0 / n as f64);
        each_plane(y, d, n * d, |i, y| {
            y.fill(T::ZERO);
            let rows = x[i * self.len * d..][..n * d].chunks_exact(d);
            kernel::simd!(|| {
                rows.for_each(|x| y.iter_mut().zip(x).for_each(|(y, x)| *y += scale * *x));
            });
        });
    }
}

impl<T: Real> Op<T> for PoolRows {
    fn name(&self) -> &'static str {
        "pool-rows"
    }
    fn out_len(&self) -> usize {
        self.batch * self.width
    }
    fn needs(&self) -> Needs {
        Needs::NONE
    }
    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        self.pool(x[0], y);
    }
    fn backward(&self, _: &Cx<'_, T>, _: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        let Some(a) = &mut dx[0] else { return };
        let (d, n, add) = (self.width, self.taken(), a.add);
        let scale = T::of(1.0 / n as f64);
        each_plane(a.buf, self.len * d, self.len * d, |i, dx| {
            if !add {
                dx.fill(T::ZERO);
            }
            let dy = &dy[i * d..][..d];
            let rows = dx[..n * d].chunks_exact_mut(d);
            rows.for_each(|dx| dx.iter_mut().zip(dy).for_each(|(x, y)| *x += scale * *y));
        });
        a.add = true;
    }
    fn forward_tangent(&self, _: &Cx<'_, T>, _: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        match tx[0] {
            Some(t) => self.pool(t, ty),
            None => ty.fill(T::ZERO),
        }
    }
    fn backward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        self.backward(cx, at, t.tdy, tdx);
    }
}
