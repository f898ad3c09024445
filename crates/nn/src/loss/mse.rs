use rhumb_core::{Curvature, EvalError};
use rhumb_linalg::Real;

use crate::op::{Adj, Cx, Ins, Loss, LossReport, Tans};

/// `weight / 2 * sum (x - target)^2`, the target being the second input.
///
/// # Shapes
/// Both inputs `[len]`. With `weight = 2 / len` it is the mean squared error.
#[derive(Clone, Copy, Debug)]
pub struct Mse {
    /// Scalars.
    pub len: usize,
}

impl<T: Real> Loss<T> for Mse {
    fn name(&self) -> &'static str {
        "mse"
    }

    fn eval(
        &self,
        cx: &Cx<'_, T>,
        x: Ins<'_, T>,
        dx: &mut [Option<Adj<'_, T>>],
    ) -> Result<LossReport, EvalError> {
        let w = T::of(cx.weight);
        let sum: f64 = x[0].iter().zip(x[1]).map(|(a, b)| (*a - *b).f64().powi(2)).sum();
        for (i, d) in dx.iter_mut().enumerate() {
            if let Some(d) = d {
                let w = if i == 0 { w } else { -w };
                d.each(|j| w * (x[0][j] - x[1][j]));
            }
        }
        Ok(LossReport { loss: 0.5 * cx.weight * sum, live: self.len as u64, ..LossReport::default() })
    }

    fn eval_tangent(
        &self,
        cx: &Cx<'_, T>,
        x: Ins<'_, T>,
        tx: Tans<'_, T>,
        dx: &mut [Option<Adj<'_, T>>],
        tdx: &mut [Option<Adj<'_, T>>],
    ) -> Result<LossReport, EvalError> {
        let report = self.eval(cx, x, dx)?;
        let w = T::of(cx.weight);
        let at = |t: Option<&[T]>, j: usize| t.map_or(T::ZERO, |t| t[j]);
        for (i, d) in tdx.iter_mut().enumerate() {
            if let Some(d) = d {
                let w = if i == 0 { w } else { -w };
                d.each(|j| w * (at(tx[0], j) - at(tx[1], j)));
            }
        }
        Ok(report)
    }

    fn curvature(
        &self,
        cx: &Cx<'_, T>,
        _x: Ins<'_, T>,
        tx: Tans<'_, T>,
        of: Curvature,
        tdx: &mut [Option<Adj<'_, T>>],
    ) -> Result<(), EvalError> {
        if of == Curvature::EmpiricalFisher {
            return Err(EvalError::Unsupported(
                "squared error has no empirical Fisher matrix here: choose the operator ggn, which for this loss is \
                 the Fisher matrix up to a factor"
                    .into(),
            ));
        }
        let w = T::of(cx.weight);
        let at = |t: Option<&[T]>, j: usize| t.map_or(T::ZERO, |t| t[j]);
        for (i, d) in tdx.iter_mut().enumerate() {
            if let Some(d) = d {
                let w = if i == 0 { w } else { -w };
                d.each(|j| w * (at(tx[0], j) - at(tx[1], j)));
            }
        }
        Ok(())
    }
}
