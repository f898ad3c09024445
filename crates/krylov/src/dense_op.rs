use rhumb_linalg::vec::dot;
use rhumb_linalg::{LinearOp, OpError, Real};

/// A dense square matrix as an operator, for references and small problems.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseOp<T: Real> {
    n: usize,
    rows: Vec<T>,
}

impl<T: Real> DenseOp<T> {
    /// The `n x n` matrix `rows`, row-major.
    ///
    /// # Errors
    /// [`OpError::Dimension`] for another number of values.
    pub fn new(rows: Vec<T>, n: usize) -> Result<Self, OpError> {
        if rows.len() == n * n {
            Ok(DenseOp { n, rows })
        } else {
            Err(OpError::Dimension { what: "a dense matrix", len: rows.len(), dim: n * n })
        }
    }

    /// The diagonal matrix of `d`.
    pub fn diagonal(d: &[T]) -> Self {
        let n = d.len();
        let mut rows = vec![T::ZERO; n * n];
        for (i, &d) in d.iter().enumerate() {
            rows[i * n + i] = d;
        }
        DenseOp { n, rows }
    }

    /// The values, row-major.
    pub fn rows(&self) -> &[T] {
        &self.rows
    }
}

impl<T: Real> LinearOp<T> for DenseOp<T> {
    fn dim(&self) -> usize {
        self.n
    }

    fn apply(&mut self, v: &[T], out: &mut [T]) -> Result<(), OpError> {
        for (what, len) in [("v", v.len()), ("out", out.len())] {
            if len != self.n {
                return Err(OpError::Dimension { what, len, dim: self.n });
            }
        }
        for (o, row) in out.iter_mut().zip(self.rows.chunks(self.n.max(1))) {
            *o = T::of(dot(row, v));
        }
        Ok(())
    }
}
