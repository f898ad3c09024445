//! Eigenvalues and eigenvectors of dense symmetric and of tridiagonal matrices, in `f64`.

use faer::{MatRef, Side};

use crate::KrylovError;
use rhumb_linalg::dense::DenseError;

/// All eigenpairs of a symmetric matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct SymEig {
    /// Eigenvalues, ascending.
    pub values: Vec<f64>,
    /// Unit eigenvectors, one after the other: vector `k` is `vectors[k * n..(k + 1) * n]`.
    pub vectors: Vec<f64>,
}

impl SymEig {
    /// The eigenvector of value `k`.
    ///
    /// # Panics
    /// When `k` is not below the number of values.
    pub fn vector(&self, k: usize) -> &[f64] {
        let n = self.values.len();
        &self.vectors[k * n..(k + 1) * n]
    }
}

/// Eigenpairs of the symmetric `n x n` matrix `a`, row-major; the lower triangle is read.
///
/// ```
/// let e = rhumb_krylov::symmetric_eigen(&[2.0, 1.0, 1.0, 2.0], 2)?;
/// assert!((e.values[0] - 1.0).abs() < 1e-15 && (e.values[1] - 3.0).abs() < 1e-15);
/// # Ok::<(), rhumb_linalg::dense::DenseError>(())
/// ```
///
/// # Errors
/// [`DenseError`] for a wrong length or values that are not finite.
///
/// # Cost
/// `O(n^3)` and about three times the matrix in memory.
pub fn symmetric_eigen(a: &[f64], n: usize) -> Result<SymEig, DenseError> {
    if a.len() != n * n {
        return Err(DenseError::Shape { n, got: a.len() });
    }
    if a.iter().any(|v| !v.is_finite()) {
        return Err(DenseError::Eigenvalues { n });
    }
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

/// Eigenpairs of the symmetric tridiagonal matrix with diagonal `alpha` and off-diagonal `beta`, of which the first
/// `alpha.len() - 1` values are read (Lanczos keeps one more).
///
/// # Errors
/// [`KrylovError`] where `beta` is too short or a value is not finite.
///
/// # Cost
/// `O(m^3)` for `m` rows: Krylov spaces have hundreds.
pub fn tridiagonal_eigen(alpha: &[f64], beta: &[f64]) -> Result<SymEig, KrylovError> {
    let m = alpha.len();
    if beta.len() + 1 < m {
        return Err(KrylovError::OffDiagonal { n: m, got: beta.len() });
    }
    let mut a = vec![0.0; m * m];
    for i in 0..m {
        a[i * m + i] = alpha[i];
        if i + 1 < m {
            a[(i + 1) * m + i] = beta[i];
            a[i * m + i + 1] = beta[i];
        }
    }
    Ok(symmetric_eigen(&a, m)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_linalg::dense::{haar_orthogonal, symmetric_eigenvalues};
    use rhumb_linalg::rng::Rng;

    #[test]
    fn the_second_difference_has_its_closed_form() {
        let n = 40;
        let e = tridiagonal_eigen(&vec![2.0; n], &vec![-1.0; n - 1]).unwrap();
        let h = std::f64::consts::PI / (n + 1) as f64;
        for k in 0..n {
            let want = 2.0 - 2.0 * ((k + 1) as f64 * h).cos();
            assert!((e.values[k] - want).abs() < 1e-14 * 4.0, "{k}");
            let sign = e.vector(k)[0].signum();
            for j in 0..n {
                let v = (2.0 / (n + 1) as f64).sqrt() * ((k + 1) as f64 * (j + 1) as f64 * h).sin();
                assert!((sign * e.vector(k)[j] - v).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_random_symmetric_matrix_is_its_own_decomposition() {
        let n = 70;
        let mut rng = Rng::new(3);
        let q = haar_orthogonal(n, &mut rng);
        let d: Vec<f64> = (0..n).map(|i| (i as f64 - 20.0) * 0.7).collect();
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                a[i * n + j] = (0..n).map(|k| q[i * n + k] * d[k] * q[j * n + k]).sum();
            }
        }
        let e = symmetric_eigen(&a, n).unwrap();
        let jacobi = symmetric_eigenvalues(&a, n).unwrap();
        for k in 0..n {
            assert!((e.values[k] - d[k]).abs() < 1e-11 && (e.values[k] - jacobi[k]).abs() < 1e-11);
            for i in 0..n {
                let av: f64 = (0..n).map(|j| a[i * n + j] * e.vector(k)[j]).sum();
                assert!((av - e.values[k] * e.vector(k)[i]).abs() < 1e-11);
            }
        }
    }

    #[test]
    fn small_and_wrong_input() {
        assert!(symmetric_eigen(&[], 0).unwrap().values.is_empty());
        let one = symmetric_eigen(&[-4.0], 1).unwrap();
        assert!((one.values[0] + 4.0).abs() < 1e-15 && (one.vector(0)[0].abs() - 1.0).abs() < 1e-15);
        assert!(matches!(symmetric_eigen(&[1.0; 3], 2), Err(DenseError::Shape { .. })));
        assert!(matches!(symmetric_eigen(&[f64::NAN], 1), Err(DenseError::Eigenvalues { n: 1 })));
        assert!(matches!(
            tridiagonal_eigen(&[1.0; 3], &[1.0]),
            Err(KrylovError::OffDiagonal { n: 3, got: 1 })
        ));
        // Zeros on the off-diagonal split the matrix.
        let split = tridiagonal_eigen(&[5.0, 1.0], &[0.0]).unwrap();
        assert!((split.values[0] - 1.0).abs() < 1e-15 && split.vector(0)[0].abs() < 1e-15);
    }
}
