use rhumb_linalg::Real;
use rhumb_linalg::gemm::{Init, Mat, gemm};

use crate::kernel;
use crate::op::{Adj, Ctx, Cx, Ins, Needs, Op, TanCtx, Tans};

/// `y = x W^T (+ b) (+ r)`.
///
/// # Shapes
/// `x [rows, inp]`, `W [out, inp]`, `b [out]`, `r [rows, out]`, `y [rows, out]`; inputs in the order
/// `x, W, b?, r?`. `W` may be several tensors that lie one after another.
///
/// # Cost
/// One product forward, two backward; two and four for the tangents.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Rows of `x`.
    pub rows: usize,
    /// Columns of `x`.
    pub inp: usize,
    /// Columns of `y`.
    pub out: usize,
    /// A bias follows the weight.
    pub bias: bool,
    /// A residual comes last; its adjoint is `dy`.
    pub residual: bool,
}

impl Linear {
    fn residual_at(self) -> Option<usize> {
        self.residual.then_some(2 + usize::from(self.bias))
    }

    /// `y (+)= x w^T`.
    fn product<T: Real>(&self, y: &mut [T], x: &[T], w: &[T], init: Init<'_, T>) {
        let (m, n, k) = (self.rows, self.out, self.inp);
        gemm(true, (m, n, k), T::ONE, y, n, Mat::rows(x, k), Mat::cols(w, k), init);
    }

    /// `dx (+)= dy w`.
    fn add_input_grad<T: Real>(&self, dx: &mut Adj<'_, T>, dy: &[T], w: &[T]) {
        let (m, n, k) = (self.rows, self.inp, self.out);
        let init = if dx.add { Init::Keep } else { Init::Zero };
        gemm(true, (m, n, k), T::ONE, dx.buf, n, Mat::rows(dy, k), Mat::rows(w, n), init);
        dx.add = true;
    }

    /// `dw (+)= dy^T x`.
    fn add_weight_grad<T: Real>(&self, dw: &mut Adj<'_, T>, dy: &[T], x: &[T]) {
        let (m, n, k) = (self.out, self.inp, self.rows);
        let init = if dw.add { Init::Keep } else { Init::Zero };
        gemm(true, (m, n, k), T::ONE, dw.buf, n, Mat::cols(dy, m), Mat::rows(x, n), init);
        dw.add = true;
    }

    fn add_bias_grad<T: Real>(&self, cx: &Cx<'_, T>, db: &mut Adj<'_, T>, dy: &[T]) {
        let mut part = cx.scratch.get(kernel::parts_len(self.rows, self.out));
        kernel::column_sums(dy, self.out, &mut part, db.buf, db.add);
    }
}

impl<T: Real> Op<T> for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn out_len(&self) -> usize {
        self.rows * self.out
    }
    fn needs(&self) -> Needs {
        Needs::inputs(0b11)
    }
    fn passes(&self) -> Option<usize> {
        self.residual_at()
    }

    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        match (self.bias, self.residual_at()) {
            (false, None) => self.product(y, x[0], x[1], Init::Zero),
            (true, None) => self.product(y, x[0], x[1], Init::Bias(x[2])),
            (false, Some(r)) => self.product(y, x[0], x[1], Init::Matrix(x[r], self.out)),
            (true, Some(r)) => {
                self.product(y, x[0], x[1], Init::Bias(x[2]));
                kernel::add_assign(y, x[r]);
            }
        }
    }

    fn backward(&self, cx: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        if let Some(d) = &mut dx[1] {
            self.add_weight_grad(d, dy, at.x[0]);
        }
        if self.bias
            && let Some(d) = &mut dx[2]
        {
            self.add_bias_grad(cx, d, dy);
        }
        if let Some(d) = &mut dx[0] {
            self.add_input_grad(d, dy, at.x[1]);
        }
    }

    fn forward_tangent(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        let bias = if self.bias { tx[2] } else { None };
        let residual = self.residual_at().and_then(|r| tx[r]);
        let mut init = match (bias, residual) {
            (_, Some(r)) => Init::Matrix(r, self.out),
            (Some(b), None) => Init::Bias(b),
            (None, None) => Init::Zero,
        };
        let mut written = false;
        if let Some(t) = tx[0] {
            self.product(ty, t, at.x[1], init);
            init = Init::Keep;
            written = true;
        }
        if let Some(t) = tx[1] {
            self.product(ty, at.x[0], t, init);
            written = true;
        }
        if !written {
            gemm(
                true,
                (self.rows, self.out, 0),
                T::ONE,
                ty,
                self.out,
                Mat::rows(&[], 0),
                Mat::rows(&[], 0),
                init,
            );
        }
        if let (Some(b), Some(_)) = (bias, residual) {
            for row in ty.chunks_exact_mut(self.out) {
                row.iter_mut().zip(b).for_each(|(y, b)| *y += *b);
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
        if let Some(d) = &mut tdx[1] {
            self.add_weight_grad(d, t.tdy, at.x[0]);
            if let Some(tx) = t.tx[0] {
                self.add_weight_grad(d, t.dy, tx);
            }
        }
        if self.bias
            && let Some(d) = &mut tdx[2]
        {
            self.add_bias_grad(cx, d, t.tdy);
        }
        if let Some(d) = &mut tdx[0] {
            self.add_input_grad(d, t.tdy, at.x[1]);
            if let Some(tw) = t.tx[1] {
                self.add_input_grad(d, t.dy, tw);
            }
        }
    }
}

/// A low-rank update of some columns: `y = base`, `y[:, cols] += s u[:, from..] B^T`.
///
/// # Equation
/// LoRA (Hu et al. 2021): `y = x W^T + (alpha/r) (x A^T) B^T`; this is the second half, `u = x A^T`.
///
/// # Shapes
/// `base [rows, width]`, `u [rows, total]` of which columns `from .. from + rank` are used,
/// `B [cols.len(), rank]`; inputs in the order `base, u, B`.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// Rows.
    pub rows: usize,
    /// Columns of `base`.
    pub width: usize,
    /// Columns that are updated.
    pub cols: std::ops::Range<usize>,
    /// Columns of `u`.
    pub total: usize,
    /// First used column of `u`.
    pub from: usize,
    /// Rank.
    pub rank: usize,
    /// `alpha / rank`.
    pub scale: f64,
}

impl LowRank {
    fn add_product<T: Real>(&self, y: &mut [T], u: &[T], b: &[T]) {
        let (n, r) = (self.cols.len(), self.rank);
        let y = &mut y[self.cols.start..];
        let a = Mat::rows(&u[self.from..], self.total);
        gemm(true, (self.rows, n, r), T::of(self.scale), y, self.width, a, Mat::cols(b, r), Init::Keep);
    }
    fn to_u<T: Real>(&self, du: &mut Adj<'_, T>, dy: &[T], b: &[T]) {
        du.prepare_scatter();
        let (n, r) = (self.cols.len(), self.rank);
        let a = Mat::rows(&dy[self.cols.start..], self.width);
        let to = &mut du.buf[self.from..];
        gemm(true, (self.rows, r, n), T::of(self.scale), to, self.total, a, Mat::rows(b, r), Init::Keep);
    }
    fn to_b<T: Real>(&self, db: &mut Adj<'_, T>, dy: &[T], u: &[T]) {
        let (n, r) = (self.cols.len(), self.rank);
        let a = Mat::cols(&dy[self.cols.start..], self.width);
        let init = if db.add { Init::Keep } else { Init::Zero };
        let u = Mat::rows(&u[self.from..], self.total);
        gemm(true, (n, r, self.rows), T::of(self.scale), db.buf, r, a, u, init);
        db.add = true;
    }
}

impl<T: Real> Op<T> for LowRank {
    fn name(&self) -> &'static str {
        "low-rank"
    }
    fn out_len(&self) -> usize {
        self.rows * self.width
    }
    fn needs(&self) -> Needs {
        Needs::inputs(0b110)
    }
    fn passes(&self) -> Option<usize> {
        Some(0)
    }
    fn starts_from(&self) -> Option<usize> {
        Some(0)
    }
    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        self.add_product(y, x[1], x[2]);
    }
    fn backward(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        if let Some(d) = &mut dx[1] {
            self.to_u(d, dy, at.x[2]);
        }
        if let Some(d) = &mut dx[2] {
            self.to_b(d, dy, at.x[1]);
        }
    }
    fn forward_tangent(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        if let Some(t) = tx[1] {
            self.add_product(ty, t, at.x[2]);
        }
        if let Some(t) = tx[2] {
            self.add_product(ty, at.x[1], t);
        }
    }
    fn backward_tangent(
        &self,
        _: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        if let Some(d) = &mut tdx[1] {
            self.to_u(d, t.tdy, at.x[2]);
            if let Some(tb) = t.tx[2] {
                self.to_u(d, t.dy, tb);
            }
        }
        if let Some(d) = &mut tdx[2] {
            self.to_b(d, t.tdy, at.x[1]);
            if let Some(tu) = t.tx[1] {
                self.to_b(d, t.dy, tu);
            }
        }
    }
}
