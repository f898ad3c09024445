//! The dense solver of faer: blocked, and several times faster from hundreds of rows on.

use super::SymEig;
use faer::{MatRef, Side};
use rhumb_linalg::dense::DenseError;

pub(super) fn symmetric_eigen(a: &[f64], n: usize) -> Result<SymEig, DenseError> {
    if n == 0 {
        return Ok(SymEig { values: Vec::new(), vectors: Vec::new() });
    }
    let eig = MatRef::from_row_major_slice(a, n, n)
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| DenseError::Eigenvalues { n })?;
    let values: Vec<f64> = eig.S().column_vector().iter().copied().collect();
    let mut vectors = Vec::with_capacity(n * n);
    for k in 0..n {
        vectors.extend(eig.U().col(k).iter().copied());
    }
    if values.iter().chain(&vectors).any(|v| !v.is_finite()) {
        return Err(DenseError::Eigenvalues { n });
    }
    Ok(SymEig { values, vectors })
}

pub(super) fn symmetric_values(a: &[f64], n: usize) -> Result<Vec<f64>, DenseError> {
    MatRef::from_row_major_slice(a, n, n)
        .self_adjoint_eigenvalues(Side::Lower)
        .map_err(|_| DenseError::Eigenvalues { n })
}
