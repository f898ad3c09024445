use rhumb_linalg::Real;

use crate::kernel::plane::{each_pair, each_plane};
use crate::kernel::simd;
use crate::kernel::window::{Window, max_plane, mean_plane, mean_plane_backward};
use crate::op::{Adj, Ctx, Cx, Ins, Needs, Op, TanCtx, Tans};

/// `y = max of x` under a window.
///
/// # Equation
/// Padding takes no part. Of equal scalars the first, row by row, passes the gradient on, as in the common frameworks; a
/// NaN wins.
///
/// # Shapes
/// `x [planes, rows, columns]`, `y [planes, positions]`; saves the place of each maximum, exact for planes of at most
/// `2^24` scalars. The padding is at most half the window.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool2d {
    /// Images times channels.
    pub planes: usize,
    /// The window on its way over a plane.
    pub window: Window,
}

impl MaxPool2d {
    fn place<T: Real>(at: T) -> usize {
        at.f64() as usize
    }

    fn pick<T: Real>(&self, x: &[T], places: &[T], y: &mut [T]) {
        let (len, area) = (self.window.positions(), self.window.area());
        each_plane(y, len, len, |i, y| {
            let (x, places) = (&x[i * area..][..area], &places[i * len..][..len]);
            y.iter_mut().zip(places).for_each(|(y, at)| *y = x[Self::place(*at)]);
        });
    }

    fn put<T: Real>(&self, dy: &[T], places: &[T], dx: &mut Adj<'_, T>) {
        let (len, area, add) = (self.window.positions(), self.window.area(), dx.add);
        each_plane(dx.buf, area, area, |i, dx| {
            if !add {
                dx.fill(T::ZERO);
            }
            let (dy, places) = (&dy[i * len..][..len], &places[i * len..][..len]);
            dy.iter().zip(places).for_each(|(d, at)| dx[Self::place(*at)] += *d);
        });
        dx.add = true;
    }
}

impl<T: Real> Op<T> for MaxPool2d {
    fn name(&self) -> &'static str {
        "max-pool2d"
    }
    fn out_len(&self) -> usize {
        self.planes * self.window.positions()
    }
    fn saved_len(&self) -> usize {
        self.planes * self.window.positions()
    }
    fn needs(&self) -> Needs {
        Needs::NONE
    }
    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], saved: &mut [T]) {
        let (len, area, x, window) = (self.window.positions(), self.window.area(), x[0], self.window);
        each_pair(y, saved, len, area, |i, y, at| {
            simd!(|| max_plane(window, &x[i * area..][..area], y, at));
        });
    }
    fn backward(&self, _: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        if let Some(d) = &mut dx[0] {
            self.put(dy, at.saved, d);
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
        tsaved.fill(T::ZERO);
        match tx[0] {
            Some(t) => self.pick(t, at.saved, ty),
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

/// `y = mean of x` under a window.
///
/// # Equation
/// The zeros of the padding count. With [`Window::whole`] it is the mean of each plane.
///
/// # Shapes
/// `x [planes, rows, columns]`, `y [planes, positions]`.
#[derive(Clone, Copy, Debug)]
pub struct AvgPool2d {
    /// Images times channels.
    pub planes: usize,
    /// The window on its way over a plane.
    pub window: Window,
}

impl AvgPool2d {
    fn mean<T: Real>(&self, x: &[T], y: &mut [T]) {
        let (len, area, window) = (self.window.positions(), self.window.area(), self.window);
        each_plane(y, len, area, |i, y| simd!(|| mean_plane(window, &x[i * area..][..area], y)));
    }
}

impl<T: Real> Op<T> for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg-pool2d"
    }
    fn out_len(&self) -> usize {
        self.planes * self.window.positions()
    }
    fn needs(&self) -> Needs {
        Needs::NONE
    }
    fn forward(&self, _: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        self.mean(x[0], y);
    }
    fn backward(&self, _: &Cx<'_, T>, _: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        let Some(d) = &mut dx[0] else { return };
        let (len, window, add) = (self.window.positions(), self.window, d.add);
        each_plane(d.buf, window.area(), window.area(), |i, dx| {
            if !add {
                dx.fill(T::ZERO);
            }
            simd!(|| mean_plane_backward(window, &dy[i * len..][..len], dx));
        });
        d.add = true;
    }
    fn forward_tangent(&self, _: &Cx<'_, T>, _: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        match tx[0] {
            Some(t) => self.mean(t, ty),
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
