use rhumb_linalg::Real;

use crate::kernel::{self, act};
use crate::op::{Adj, Ctx, Cx, Ins, Needs, Op, TanCtx, Tans};
use crate::ops::Act;

/// `y = f(x)` elementwise.
#[derive(Clone, Copy, Debug)]
pub struct Activation {
    /// Scalars.
    pub len: usize,
    /// The function.
    pub act: Act,
}

impl<T: Real> Op<T> for Activation {
    fn name(&self) -> &'static str {
        "activation"
    }
    fn out_len(&self) -> usize {
        self.len
    }
    fn needs(&self) -> Needs {
        Needs::inputs(1)
    }
    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        act::forward(self.act, x[0], y);
    }
    fn backward(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        if let Some(d) = &mut dx[0] {
            act::derivative(self.act, at.x[0], dy, d.buf, d.add);
        }
    }
    fn forward_tangent(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        match tx[0] {
            Some(t) => act::derivative(self.act, at.x[0], t, ty, false),
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
        if let Some(d) = &mut tdx[0] {
            match t.tx[0] {
                Some(tx) => act::backward_tangent(self.act, at.x[0], tx, t.dy, t.tdy, d),
                None => act::derivative(self.act, at.x[0], t.tdy, d.buf, d.add),
            }
        }
    }
}

/// `y = silu(gate) up` (Shazeer 2020), rows of the input being `[gate | up]`.
///
/// # Shapes
/// Input `[rows, 2 width]`, `y [rows, width]`.
#[derive(Clone, Copy, Debug)]
pub struct SwiGlu {
    /// Rows.
    pub rows: usize,
    /// Columns of the output.
    pub width: usize,
}

impl<T: Real> Op<T> for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }
    fn out_len(&self) -> usize {
        self.rows * self.width
    }
    fn needs(&self) -> Needs {
        Needs::inputs(1)
    }
    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        act::swiglu(y, x[0], self.width);
    }
    fn backward(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        if let Some(d) = &mut dx[0] {
            act::swiglu_backward(at.x[0], dy, d, self.width);
        }
    }
    fn forward_tangent(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        match tx[0] {
            Some(t) => act::swiglu_tangent(at.x[0], t, ty, self.width),
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
        if let Some(d) = &mut tdx[0] {
            match t.tx[0] {
                Some(tx) => act::swiglu_backward_tangent(at.x[0], tx, t.dy, t.tdy, d, self.width),
                None => act::swiglu_backward(at.x[0], t.tdy, d, self.width),
            }
        }
    }
}

/// `y = a + b`.
#[derive(Clone, Copy, Debug)]
pub struct Residual {
    /// Scalars.
    pub len: usize,
}

impl<T: Real> Op<T> for Residual {
    fn name(&self) -> &'static str {
        "residual"
    }
    fn out_len(&self) -> usize {
        self.len
    }
    fn needs(&self) -> Needs {
        Needs::NONE
    }
    fn passes(&self) -> Option<usize> {
        Some(0)
    }
    fn starts_from(&self) -> Option<usize> {
        Some(0)
    }
    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        kernel::add_assign(y, x[1]);
    }
    fn backward(&self, _: &Cx<'_, T>, _: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        if let Some(d) = &mut dx[1] {
            kernel::assign(d.buf, dy, d.add);
        }
    }
    fn forward_tangent(&self, _: &Cx<'_, T>, _: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        if let Some(t) = tx[1] {
            kernel::add_assign(ty, t);
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
