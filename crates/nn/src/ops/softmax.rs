use rhumb_linalg::Real;
use rhumb_linalg::par::{ParSlice, ParSliceMut};

use crate::kernel::{self, ROWS, simd};
use crate::op::{Adj, Ctx, Cx, Ins, Needs, Op, TanCtx, Tans};

/// `y = exp(x) / sum(exp(x))` per row.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub width: usize,
}

/// `out (+)= y (d - <y, d>)`: softmax is its own transpose.
fn softmax_jacobian<T: Real>(width: usize, y: &[T], d: &[T], out: &mut [T], add: bool) {
    out.par_chunks_mut(width).zip(y.par_chunks(width)).zip(d.par_chunks(width)).with_min_len(ROWS).for_each(
        |((out, y), d)| {
            simd!(|| {
                let s = kernel::dot(y, d);
                for ((o, y), d) in out.iter_mut().zip(y).zip(d) {
                    let v = *y * (*d - s);
                    *o = if add { *o + v } else { v };
                }
            });
        },
    );
}

impl<T: Real> Op<T> for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }
    fn out_len(&self) -> usize {
        self.rows * self.width
    }
    fn needs(&self) -> Needs {
        Needs::OUTPUT
    }
    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        y.par_chunks_mut(self.width).zip(x[0].par_chunks(self.width)).with_min_len(ROWS).for_each(
            |(y, x)| {
                simd!(|| {
                    y.copy_from_slice(x);
                    let s = kernel::exp_shift(y, kernel::max(x));
                    let inv = T::ONE / s;
                    y.iter_mut().for_each(|y| *y *= inv);
                });
            },
        );
    }
    fn backward(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        if let Some(d) = &mut dx[0] {
            softmax_jacobian(self.width, at.y, dy, d.buf, d.add);
        }
    }
    fn forward_tangent(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        match tx[0] {
            Some(t) => softmax_jacobian(self.width, at.y, t, ty, false),
            None => ty.fill(T::ZERO),
        }
    }
    fn backward_tangent(
        &self,
        _: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        let Some(d) = &mut tdx[0] else { return };
        let (w, add) = (self.width, d.add);
        d.buf.par_chunks_mut(w).enumerate().with_min_len(ROWS).for_each(|(i, out)| {
            let row = i * w..(i + 1) * w;
            let (y, ty) = (&at.y[row.clone()], &t.ty[row.clone()]);
            let (dy, tdy) = (&t.dy[row.clone()], &t.tdy[row]);
            simd!(|| {
                let s = kernel::dot(y, dy);
                let ts = kernel::dot(ty, dy) + kernel::dot(y, tdy);
                for j in 0..w {
                    let v = ty[j] * (dy[j] - s) + y[j] * (tdy[j] - ts);
                    out[j] = if add { out[j] + v } else { v };
                }
            });
        });
    }
}

/// `y = x - log(sum(exp(x)))` per row.
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmax {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub width: usize,
}

impl<T: Real> Op<T> for LogSoftmax {
    fn name(&self) -> &'static str {
        "log-softmax"
    }
    fn out_len(&self) -> usize {
        self.rows * self.width
    }
    fn needs(&self) -> Needs {
        Needs::OUTPUT
    }
    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        y.par_chunks_mut(self.width).zip(x[0].par_chunks(self.width)).with_min_len(ROWS).for_each(
            |(y, x)| {
                simd!(|| {
                    let m = kernel::max(x);
                    y.copy_from_slice(x);
                    let lse = m + kernel::exp_shift(y, m).ln();
                    y.iter_mut().zip(x).for_each(|(y, x)| *y = *x - lse);
                });
            },
        );
    }
    fn backward(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        let Some(d) = &mut dx[0] else { return };
        let (w, add) = (self.width, d.add);
        let given = at.y.par_chunks(w).zip(dy.par_chunks(w));
        d.buf.par_chunks_mut(w).zip(given).with_min_len(ROWS).for_each(|(out, (y, dy))| {
            simd!(|| {
                let s = kernel::sum(dy);
                for ((o, y), d) in out.iter_mut().zip(y).zip(dy) {
                    let v = *d - y.exp() * s;
                    *o = if add { *o + v } else { v };
                }
            });
        });
    }
    fn forward_tangent(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        let Some(t) = tx[0] else {
            ty.fill(T::ZERO);
            return;
        };
        let w = self.width;
        let given = at.y.par_chunks(w).zip(t.par_chunks(w));
        ty.par_chunks_mut(w).zip(given).with_min_len(ROWS).for_each(|(ty, (y, t))| {
            simd!(|| {
                let s = kernel::sum2(y, t, |y, t| y.exp() * t);
                ty.iter_mut().zip(t).for_each(|(ty, t)| *ty = *t - s);
            });
        });
    }
    fn backward_tangent(
        &self,
        _: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        let Some(d) = &mut tdx[0] else { return };
        let (w, add) = (self.width, d.add);
        d.buf.par_chunks_mut(w).enumerate().with_min_len(ROWS).for_each(|(i, out)| {
            let row = i * w..(i + 1) * w;
            let (y, ty) = (&at.y[row.clone()], &t.ty[row.clone()]);
            let (dy, tdy) = (&t.dy[row.clone()], &t.tdy[row]);
            simd!(|| {
                let (s, ts) = (kernel::sum(dy), kernel::sum(tdy));
                for j in 0..w {
                    let v = tdy[j] - y[j].exp() * (ts + ty[j] * s);
                    out[j] = if add { out[j] + v } else { v };
                }
            });
        });
    }
}
