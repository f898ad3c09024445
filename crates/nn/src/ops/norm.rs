use rhumb_linalg::Real;
use rhumb_linalg::par::{ParSlice, ParSliceMut};

use crate::kernel::norm::{self, RowTan};
use crate::kernel::{self, ROWS, simd};
use crate::op::{Adj, Ctx, Cx, Ins, Needs, Op, TanCtx, Tans};

/// `y = x / sqrt(mean(x^2) + eps) * w` per row.
///
/// # Reference
/// Zhang, Sennrich, NeurIPS 2019.
///
/// # Shapes
/// `x, y [rows, width]`, `w [width]`; saves one scalar per row.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub width: usize,
    /// Added to the mean square.
    pub eps: f64,
}

/// The buffer of an adjoint; scratch where none is wanted.
fn buffer<'a, T: Real>(adj: Option<&'a mut Adj<'_, T>>, spare: &'a mut [T]) -> (&'a mut [T], bool) {
    match adj {
        Some(a) => (&mut *a.buf, a.add),
        None => (spare, false),
    }
}

impl<T: Real> Op<T> for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }
    fn out_len(&self) -> usize {
        self.rows * self.width
    }
    fn saved_len(&self) -> usize {
        self.rows
    }
    fn needs(&self) -> Needs {
        Needs::inputs(0b11)
    }

    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], saved: &mut [T]) {
        let (d, eps, w) = (self.width, T::of(self.eps), x[1]);
        let size = d * ROWS;
        y.par_chunks_mut(size).zip(saved.par_chunks_mut(ROWS)).zip(x[0].par_chunks(size)).for_each(
            |((y, r), x)| {
                simd!(|| {
                    for ((y, r), x) in y.chunks_exact_mut(d).zip(r).zip(x.chunks_exact(d)) {
                        *r = norm::rms_scale(x, eps);
                        norm::rms_row(y, x, w, *r);
                    }
                });
            },
        );
    }

    fn backward(&self, cx: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        let (d, w) = (self.width, at.x[1]);
        let size = d * ROWS;
        let (dx, dw) = dx.split_at_mut(1);
        let want_w = dw[0].is_some();
        let mut part = cx.scratch.get(kernel::parts_len(self.rows, d));
        let mut spare = cx.scratch.get(if dx[0].is_some() { 0 } else { self.rows * d });
        let (to, add) = buffer(dx[0].as_mut(), &mut spare);
        let given = dy.par_chunks(size).zip(at.x[0].par_chunks(size)).zip(at.saved.par_chunks(ROWS));
        to.par_chunks_mut(d * ROWS).zip(part.par_chunks_mut(d)).zip(given).for_each(
            |((dx, part), ((dy, x), r))| {
                simd!(|| {
                    part.fill(T::ZERO);
                    let mut dx = dx.chunks_exact_mut(d);
                    for ((dy, x), r) in dy.chunks_exact(d).zip(x.chunks_exact(d)).zip(r) {
                        let row = dx.next().map(|b| (b, add));
                        norm::rms_row_backward(row, want_w.then_some(&mut *part), dy, x, w, *r);
                    }
                });
            },
        );
        if let Some(dw) = &mut dw[0] {
            kernel::fold_parts(&part, d, dw.buf, dw.add);
        }
    }

    fn forward_tangent(
        &self,
        _: &Cx<'_, T>,
        at: Ctx<'_, T>,
        tx: Tans<'_, T>,
        ty: &mut [T],
        tsaved: &mut [T],
    ) {
        let (d, w, tw) = (self.width, at.x[1], tx[1]);
        ty.par_chunks_mut(d).zip(tsaved.par_iter_mut()).enumerate().with_min_len(ROWS).for_each(
            |(i, (ty, tr))| {
                simd!(|| {
                    let (x, r) = (&at.x[0][i * d..][..d], at.saved[i]);
                    let t = tx[0].map(|t| &t[i * d..][..d]);
                    *tr = t.map_or(T::ZERO, |t| norm::rms_scale_tangent(x, t, r));
                    match t {
                        Some(t) => {
                            for (((ty, x), t), w) in ty.iter_mut().zip(x).zip(t).zip(w) {
                                *ty = (*t * r + *x * *tr) * *w;
                            }
                        }
                        None => ty.fill(T::ZERO),
                    }
                    if let Some(tw) = tw {
                        ty.iter_mut().zip(x).zip(tw).for_each(|((ty, x), tw)| *ty += *x * r * *tw);
                    }
                });
            },
        );
    }

    fn backward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        let d = self.width;
        let (tdx, tdw) = tdx.split_at_mut(1);
        let want_w = tdw[0].is_some();
        let mut part = cx.scratch.get(kernel::parts_len(self.rows, d));
        let mut spare = cx.scratch.get(if tdx[0].is_some() { 0 } else { self.rows * d });
        let (to, add) = buffer(tdx[0].as_mut(), &mut spare);
        to.par_chunks_mut(d * ROWS).zip(part.par_chunks_mut(d)).enumerate().for_each(|(task, (dx, part))| {
            simd!(|| {
                part.fill(T::ZERO);
                let mut dx = dx.chunks_exact_mut(d);
                for i in task * ROWS..((task + 1) * ROWS).min(self.rows) {
                    let at_row = |v: &'_ [T]| -> std::ops::Range<usize> {
                        debug_assert!(v.len() >= (i + 1) * d);
                        i * d..(i + 1) * d
                    };
                    let row = RowTan {
                        x: &at.x[0][at_row(at.x[0])],
                        tx: t.tx[0].map(|v| &v[at_row(v)]),
                        w: at.x[1],
                        tw: t.tx[1],
                        dy: &t.dy[at_row(t.dy)],
                        tdy: &t.tdy[at_row(t.tdy)],
                        r: at.saved[i],
                        tr: t.tsaved[i],
                    };
                    let out = dx.next().map(|b| (b, add));
                    norm::rms_row_backward_tangent(out, want_w.then_some(&mut *part), &row);
                }
            });
        });
        if let Some(dw) = &mut tdw[0] {
            kernel::fold_parts(&part, d, dw.buf, dw.add);
        }
    }
}

/// `y = (x - mean) / sqrt(var + eps) * w + b` per row, `var` the biased variance.
///
/// # Reference
/// Ba, Kiros, Hinton 2016.
///
/// # Shapes
/// `x, y [rows, width]`, `w, b [width]`; saves mean and scale of each row.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub width: usize,
    /// Added to the variance.
    pub eps: f64,
}

impl<T: Real> Op<T> for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }
    fn out_len(&self) -> usize {
        self.rows * self.width
    }
    fn saved_len(&self) -> usize {
        2 * self.rows
    }
    fn needs(&self) -> Needs {
        Needs::inputs(0b11)
    }

    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], saved: &mut [T]) {
        let (d, eps, w, b) = (self.width, T::of(self.eps), x[1], x[2]);
        let size = d * ROWS;
        let given = saved.par_chunks_mut(2 * ROWS).zip(x[0].par_chunks(size));
        y.par_chunks_mut(size).zip(given).for_each(|(y, (s, x))| {
            simd!(|| {
                for ((y, s), x) in y.chunks_exact_mut(d).zip(s.chunks_exact_mut(2)).zip(x.chunks_exact(d)) {
                    let (mean, r) = norm::layer_stats(x, eps);
                    (s[0], s[1]) = (mean, r);
                    for (((y, x), w), b) in y.iter_mut().zip(x).zip(w).zip(b) {
                        *y = (*x - mean) * r * *w + *b;
                    }
                }
            });
        });
    }

    fn backward(&self, cx: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        let (d, w) = (self.width, at.x[1]);
        let mut part = cx.scratch.get(kernel::parts_len(self.rows, d));
        if let Some(db) = &mut dx[2] {
            kernel::column_sums(dy, d, &mut part, db.buf, db.add);
        }
        let (dx, dw) = dx.split_at_mut(1);
        let want_w = dw[0].is_some();
        let mut spare = cx.scratch.get(if dx[0].is_some() { 0 } else { self.rows * d });
        let (to, add) = buffer(dx[0].as_mut(), &mut spare);
        let given =
            dy.par_chunks(d * ROWS).zip(at.x[0].par_chunks(d * ROWS)).zip(at.saved.par_chunks(2 * ROWS));
        to.par_chunks_mut(d * ROWS).zip(part.par_chunks_mut(d)).zip(given).for_each(
            |((dx, part), ((dy, x), s))| {
                simd!(|| {
                    part.fill(T::ZERO);
                    let mut dx = dx.chunks_exact_mut(d);
                    for ((dy, x), s) in dy.chunks_exact(d).zip(x.chunks_exact(d)).zip(s.chunks_exact(2)) {
                        let row = dx.next().map(|b| (b, add));
                        norm::layer_row_backward(row, want_w.then_some(&mut *part), dy, x, w, s[0], s[1]);
                    }
                });
            },
        );
        if let Some(dw) = &mut dw[0] {
            kernel::fold_parts(&part, d, dw.buf, dw.add);
        }
    }

    fn forward_tangent(
        &self,
        _: &Cx<'_, T>,
        at: Ctx<'_, T>,
        tx: Tans<'_, T>,
        ty: &mut [T],
        tsaved: &mut [T],
    ) {
        let d = self.width;
        for i in 0..self.rows {
            let (x, mean, r) = (&at.x[0][i * d..][..d], at.saved[2 * i], at.saved[2 * i + 1]);
            let t = tx[0].map(|t| &t[i * d..][..d]);
            let (tmean, tr) =
                t.map_or((T::ZERO, T::ZERO), |t| simd!(|| norm::layer_stats_tangent(x, t, mean, r)));
            (tsaved[2 * i], tsaved[2 * i + 1]) = (tmean, tr);
            for (j, ty) in ty[i * d..][..d].iter_mut().enumerate() {
                let c = x[j] - mean;
                let mut v = t.map_or(T::ZERO, |t| ((t[j] - tmean) * r + c * tr) * at.x[1][j]);
                if let Some(tw) = tx[1] {
                    v += c * r * tw[j];
                }
                if let Some(tb) = tx[2] {
                    v += tb[j];
                }
                *ty = v;
            }
        }
    }

    fn backward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        let d = self.width;
        let mut part = cx.scratch.get(kernel::parts_len(self.rows, d));
        if let Some(db) = &mut tdx[2] {
            kernel::column_sums(t.tdy, d, &mut part, db.buf, db.add);
        }
        let (tdx, tdw) = tdx.split_at_mut(1);
        let want_w = tdw[0].is_some();
        let mut spare = cx.scratch.get(if tdx[0].is_some() { 0 } else { self.rows * d });
        let (to, add) = buffer(tdx[0].as_mut(), &mut spare);
        to.par_chunks_mut(d * ROWS).zip(part.par_chunks_mut(d)).enumerate().for_each(|(task, (dx, part))| {
            simd!(|| {
                part.fill(T::ZERO);
                let mut dx = dx.chunks_exact_mut(d);
                for i in task * ROWS..((task + 1) * ROWS).min(self.rows) {
                    let at_row = i * d..(i + 1) * d;
                    let row = RowTan {
                        x: &at.x[0][at_row.clone()],
                        tx: t.tx[0].map(|v| &v[at_row.clone()]),
                        w: at.x[1],
                        tw: t.tx[1],
                        dy: &t.dy[at_row.clone()],
                        tdy: &t.tdy[at_row.clone()],
                        r: at.saved[2 * i + 1],
                        tr: t.tsaved[2 * i + 1],
                    };
                    let out = dx.next().map(|b| (b, add));
                    let (mean, tmean) = (at.saved[2 * i], t.tsaved[2 * i]);
                    norm::layer_row_backward_tangent(out, want_w.then_some(&mut *part), &row, mean, tmean);
                }
            });
        });
        if let Some(dw) = &mut tdw[0] {
            kernel::fold_parts(&part, d, dw.buf, dw.add);
        }
    }
}

/// RMSNorm of every query and key head (Qwen3), values copied.
///
/// # Shapes
/// `x, y [rows, (heads + 2 kv_heads) head_dim]` (query, key, value columns), `wq, wk [head_dim]`; saves one
/// scalar per row and normalised head.
#[derive(Clone, Copy, Debug)]
pub struct QkNorm {
    /// Rows.
    pub rows: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
    /// Added to the mean square.
    pub eps: f64,
}

impl QkNorm {
    fn width(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
    fn normed(self) -> usize {
        self.heads + self.kv_heads
    }
    fn pick<'a, T>(self, head: usize, q: &'a [T], k: &'a [T]) -> &'a [T] {
        if head < self.heads { q } else { k }
    }
}

impl<T: Real> Op<T> for QkNorm {
    fn name(&self) -> &'static str {
        "qk-norm"
    }
    fn out_len(&self) -> usize {
        self.rows * self.width()
    }
    fn saved_len(&self) -> usize {
        self.rows * self.normed()
    }
    fn needs(&self) -> Needs {
        Needs::inputs(0b111)
    }
    fn starts_from(&self) -> Option<usize> {
        Some(0)
    }

    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], saved: &mut [T]) {
        let (w, hd, n) = (self.width(), self.head_dim, self.normed());
        y.par_chunks_mut(w).zip(saved.par_chunks_mut(n)).zip(x[0].par_chunks(w)).with_min_len(ROWS).for_each(
            |((y, r), row)| {
                simd!(|| {
                    for h in 0..n {
                        let at = h * hd..(h + 1) * hd;
                        r[h] = norm::rms_scale(&row[at.clone()], T::of(self.eps));
                        norm::rms_row(&mut y[at.clone()], &row[at], self.pick(h, x[1], x[2]), r[h]);
                    }
                });
            },
        );
    }

    fn backward(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        let (w, hd, n) = (self.width(), self.head_dim, self.normed());
        let [dx, dq, dk] = dx else { return };
        for d in [&mut *dq, &mut *dk].into_iter().flatten() {
            d.prepare_scatter();
        }
        for i in 0..self.rows {
            let (x, dy) = (&at.x[0][i * w..][..w], &dy[i * w..][..w]);
            for h in 0..n {
                let c = h * hd..(h + 1) * hd;
                let dw = if h < self.heads { dq.as_mut() } else { dk.as_mut() }.map(|d| &mut *d.buf);
                let weight = self.pick(h, at.x[1], at.x[2]);
                let to = dx.as_mut().map(|d| (&mut d.buf[i * w..][..w][c.clone()], d.add));
                simd!(|| norm::rms_row_backward(to, dw, &dy[c.clone()], &x[c], weight, at.saved[i * n + h]));
            }
            if let Some(d) = dx {
                let rest = n * hd..w;
                kernel::assign(&mut d.buf[i * w..][..w][rest.clone()], &dy[rest], d.add);
            }
        }
    }

    fn forward_tangent(
        &self,
        _: &Cx<'_, T>,
        at: Ctx<'_, T>,
        tx: Tans<'_, T>,
        ty: &mut [T],
        tsaved: &mut [T],
    ) {
        let (w, hd, n) = (self.width(), self.head_dim, self.normed());
        for i in 0..self.rows {
            let x = &at.x[0][i * w..][..w];
            for h in 0..n {
                let c = h * hd..(h + 1) * hd;
                let (x, r) = (&x[c.clone()], at.saved[i * n + h]);
                let t = tx[0].map(|t| &t[i * w..][..w][c.clone()]);
                let tr = t.map_or(T::ZERO, |t| norm::rms_scale_tangent(x, t, r));
                tsaved[i * n + h] = tr;
                let weight = self.pick(h, at.x[1], at.x[2]);
                let tw = if h < self.heads { tx[1] } else { tx[2] };
                for (j, ty) in ty[i * w..][..w][c].iter_mut().enumerate() {
                    *ty = t.map_or(T::ZERO, |t| (t[j] * r + x[j] * tr) * weight[j]);
                    if let Some(tw) = tw {
                        *ty += x[j] * r * tw[j];
                    }
                }
            }
        }
    }

    fn backward_tangent(
        &self,
        _: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        let (w, hd, n) = (self.width(), self.head_dim, self.normed());
        let [dx, dq, dk] = tdx else { return };
        for d in [&mut *dq, &mut *dk].into_iter().flatten() {
            d.prepare_scatter();
        }
        for i in 0..self.rows {
            for h in 0..n {
                let c = i * w + h * hd..i * w + (h + 1) * hd;
                let row = RowTan {
                    x: &at.x[0][c.clone()],
                    tx: t.tx[0].map(|v| &v[c.clone()]),
                    w: self.pick(h, at.x[1], at.x[2]),
                    tw: if h < self.heads { t.tx[1] } else { t.tx[2] },
                    dy: &t.dy[c.clone()],
                    tdy: &t.tdy[c.clone()],
                    r: at.saved[i * n + h],
                    tr: t.tsaved[i * n + h],
                };
                let dw = if h < self.heads { dq.as_mut() } else { dk.as_mut() }.map(|d| &mut *d.buf);
                let to = dx.as_mut().map(|d| (&mut d.buf[c], d.add));
                simd!(|| norm::rms_row_backward_tangent(to, dw, &row));
            }
            if let Some(d) = dx {
                let rest = i * w + n * hd..(i + 1) * w;
                kernel::assign(&mut d.buf[rest.clone()], &t.tdy[rest], d.add);
            }
        }
    }
}
