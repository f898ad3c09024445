//! Objectives of users, given as closures.

use rhumb_core::{EvalError, Layout, Objective, Role, SecondOrder};
use rhumb_linalg::Real;
use rhumb_linalg::vec::norm;

/// A loss with its gradient as a closure, whose Hessian products are differences of gradients.
///
/// # Equation
/// `H v = |v| (g(x + h u) - g(x - h u)) / (2 h)` with `u = v / |v|` and `h` the step.
///
/// # Cost
/// Two gradients a product. The error is the sum of `h^2 / 6` times the third derivative along `u` and of rounding,
/// `epsilon |g| / h`, which grows with the root of the number of parameters: about 1e-9 of the product in `f64` and 1e-3 in `f32`
/// for fifty parameters of size 1. With many of them, or large ones, set the step, or compute in `f64`.
///
/// # Limits
/// The closure is one batch. A mean over several is the closure's own.
///
/// ```
/// use rhumb_core::{Curvature, Layout, Role};
/// use rhumb_krylov::slq::SlqOptions;
/// use rhumb_spectrum::{CurvatureOf, FnObjective, Reduction, Sample, SlqRun, whole};
///
/// // 1/2 (x^2 + 4 y^2) has the Hessian diag(1, 4).
/// let mut mine = FnObjective::new(2, |x: &[f64], g: &mut [f64]| {
///     (g[0], g[1]) = (x[0], 4.0 * x[1]);
///     0.5 * (x[0] * x[0] + 4.0 * x[1] * x[1])
/// });
/// let samples = [Sample { batch: (), rows: 1 }];
/// let block = whole(rhumb_core::Objective::<f64>::layout(&mine));
/// let mut hessian = CurvatureOf::new(&mut mine, &[0.3, -0.7], &samples, Curvature::Hessian, Reduction::Mean)?;
/// let mut run = SlqRun::<f64>::new(vec![block], SlqOptions { steps: 2, starts: 1, ..SlqOptions::default() })?;
/// while !run.step(&mut hessian)?.done {}
/// let found = &run.found()[0];
/// assert!((found.top.value - 4.0).abs() < 1e-7 && (found.bottom.value - 1.0).abs() < 1e-7);
/// # Ok::<(), rhumb_spectrum::SpectrumError>(())
/// ```
pub struct FnObjective<T: Real, F> {
    layout: Layout,
    f: F,
    step: T,
    scratch: [Vec<T>; 2],
}

impl<T: Real, F: FnMut(&[T], &mut [T]) -> f64> FnObjective<T, F> {
    /// A loss of `n` parameters as one tensor `x`: the closure reads the parameters, writes the gradient and returns the
    /// loss.
    pub fn new(n: usize, f: F) -> Self {
        let mut layout = Layout::new();
        layout.push("x", &[n], Role::Other);
        FnObjective::with_layout(layout, f)
    }

    /// A loss whose parameters are several tensors.
    pub fn with_layout(layout: Layout, f: F) -> Self {
        let step = if T::BYTES == 4 { 1e-3 } else { 1e-5 };
        let scratch = [vec![T::ZERO; layout.len()], vec![T::ZERO; layout.len()]];
        FnObjective { layout, f, step: T::of(step), scratch }
    }

    /// Another step; 1e-5 in `f64` and 1e-3 in `f32` by default.
    #[must_use]
    pub fn with_step(mut self, step: f64) -> Self {
        self.step = T::of(step);
        self
    }
}

impl<T: Real, F: FnMut(&[T], &mut [T]) -> f64> Objective<T> for FnObjective<T, F> {
    type Batch = ();

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn value_grad(&mut self, at: &[T], (): &(), grad: &mut [T]) -> Result<f64, EvalError> {
        let want = self.layout.len();
        for (what, got) in [("parameters", at.len()), ("gradient", grad.len())] {
            if got != want {
                return Err(EvalError::Shape { what, want, got });
            }
        }
        let loss = (self.f)(at, grad);
        if !loss.is_finite() {
            return Err(EvalError::NonFinite { what: "loss", block: None });
        }
        match self.layout.first_non_finite(grad) {
            Some(b) => Err(EvalError::NonFinite { what: "gradient", block: Some(b.name.clone()) }),
            None => Ok(loss),
        }
    }
}

impl<T: Real, F: FnMut(&[T], &mut [T]) -> f64> SecondOrder<T> for FnObjective<T, F> {
    fn hvp(&mut self, at: &[T], batch: &(), v: &[T], out: &mut [T]) -> Result<(), EvalError> {
        let size = norm(v);
        if size == 0.0 {
            out.fill(T::ZERO);
            return Ok(());
        }
        let [mut moved, mut back] = std::mem::take(&mut self.scratch);
        let by = T::of(self.step.f64() / size);
        let mut step = |to: &mut Vec<T>, by: T, grad: &mut [T]| {
            to.clear();
            to.extend(at.iter().zip(v).map(|(a, v)| *a + by * *v));
            let moved = std::mem::take(to);
            let done = self.value_grad(&moved, batch, grad);
            *to = moved;
            done
        };
        let mut grad = vec![T::ZERO; at.len()];
        let done = step(&mut moved, by, out).and_then(|_| step(&mut back, -by, &mut grad));
        let scale = T::of(0.5 / by.f64());
        out.iter_mut().zip(&grad).for_each(|(o, g)| *o = (*o - *g) * scale);
        self.scratch = [moved, back];
        done.map(|_| ())
    }
}
