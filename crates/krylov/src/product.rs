use super::KrylovError;
use rhumb_linalg::{LinearOp, Real};

/// Products with an operator, counted and checked.
pub(crate) struct Products<'a, T: Real> {
    op: &'a mut dyn LinearOp<T>,
    /// Products so far.
    pub(crate) count: usize,
}

impl<'a, T: Real> Products<'a, T> {
    pub(crate) fn new(op: &'a mut dyn LinearOp<T>) -> Self {
        Products { op, count: 0 }
    }

    pub(crate) fn dim(&self) -> usize {
        self.op.dim()
    }

    pub(crate) fn apply(&mut self, v: &[T], out: &mut [T]) -> Result<(), KrylovError> {
        apply(self.op, self.count + 1, v, out)?;
        self.count += 1;
        Ok(())
    }

    pub(crate) fn fits(&self, what: &'static str, len: usize) -> Result<(), KrylovError> {
        let dim = self.dim();
        if len == dim { Ok(()) } else { Err(KrylovError::Dimension { what, len, dim }) }
    }
}

/// One product, with errors that carry its number.
pub(crate) fn apply<T: Real>(
    op: &mut dyn LinearOp<T>,
    product: usize,
    v: &[T],
    out: &mut [T],
) -> Result<(), KrylovError> {
    op.apply(v, out).map_err(|source| KrylovError::Operator { product, source })?;
    finite(product, out)
}

pub(crate) fn finite<T: Real>(product: usize, x: &[T]) -> Result<(), KrylovError> {
    match x.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(KrylovError::NonFinite { product, at, value: x[at].f64() }),
        None => Ok(()),
    }
}

/// A scalar of a recurrence or an estimate, which may overflow though its vectors are finite.
pub(crate) fn coefficient(step: usize, value: f64) -> Result<f64, KrylovError> {
    if value.is_finite() { Ok(value) } else { Err(KrylovError::Coefficient { step, value }) }
}

/// The distance of 1 to the next number.
pub(crate) fn epsilon<T: Real>() -> f64 {
    if T::BYTES == 4 { f64::from(f32::EPSILON) } else { f64::EPSILON }
}
