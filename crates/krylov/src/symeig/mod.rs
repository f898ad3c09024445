//! Eigenvalues and eigenvectors of dense symmetric and of tridiagonal matrices, in `f64`.

#[cfg(feature = "faer")]
mod by_faer;
mod reduce;

use crate::KrylovError;
use reduce::{Tridiagonal, normalize};
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
/// By Householder's reduction and the implicit QL iteration, in one thread: for the projected problems of Krylov
/// methods, of hundreds of rows. With the feature `faer`, by the crate of that name: for thousands.
///
/// # Reference
/// Golub, Van Loan, Matrix Computations, 8.3.
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
    checked(a, n)?;
    #[cfg(feature = "faer")]
    return by_faer::symmetric_eigen(a, n);
    #[cfg(not(feature = "faer"))]
    dense(a, n, true)
}

/// The eigenvalues of [`symmetric_eigen`] alone, ascending.
///
/// # Errors
/// As [`symmetric_eigen`].
///
/// # Cost
/// A third of [`symmetric_eigen`].
pub fn symmetric_values(a: &[f64], n: usize) -> Result<Vec<f64>, DenseError> {
    checked(a, n)?;
    #[cfg(feature = "faer")]
    return by_faer::symmetric_values(a, n);
    #[cfg(not(feature = "faer"))]
    dense(a, n, false).map(|e| e.values)
}

fn checked(a: &[f64], n: usize) -> Result<(), DenseError> {
    if a.len() != n * n {
        return Err(DenseError::Shape { n, got: a.len() });
    }
    if a.iter().any(|v| !v.is_finite()) {
        return Err(DenseError::Eigenvalues { n });
    }
    Ok(())
}

#[cfg(any(test, not(feature = "faer")))]
fn dense(a: &[f64], n: usize, vectors: bool) -> Result<SymEig, DenseError> {
    let mut full: Vec<f64> =
        (0..n * n).map(|at| a[(at / n).max(at % n) * n + (at / n).min(at % n)]).collect();
    let unit = normalize(&mut [&mut full]);
    solved(Tridiagonal::reduce(&mut full, n, vectors), unit)
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
    let off = m.checked_sub(1).map_or(Some(&[][..]), |rest| beta.get(..rest));
    let Some(off) = off else {
        return Err(KrylovError::OffDiagonal { n: m, got: beta.len() });
    };
    if alpha.iter().chain(off).any(|v| !v.is_finite()) {
        return Err(DenseError::Eigenvalues { n: m }.into());
    }
    let (mut alpha, mut off) = (alpha.to_vec(), off.to_vec());
    let unit = normalize(&mut [&mut alpha, &mut off]);
    Ok(solved(Tridiagonal::new(&alpha, &off), unit)?)
}

fn solved(mut t: Tridiagonal, unit: f64) -> Result<SymEig, DenseError> {
    let n = t.diagonal.len();
    t.diagonalize().ok_or(DenseError::Eigenvalues { n })?;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| t.diagonal[i].total_cmp(&t.diagonal[j]));
    let values = order.iter().map(|&i| t.diagonal[i] * unit).collect();
    let vectors = if t.rows.is_empty() {
        Vec::new()
    } else {
        order.iter().flat_map(|&i| &t.rows[i * n..(i + 1) * n]).copied().collect()
    };
    Ok(SymEig { values, vectors })
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

    /// Eigenpairs of `a` are right to `tolerance` times its norm, and the vectors orthonormal to the last digits.
    fn assert_decomposes(a: &[f64], n: usize, e: &SymEig, tolerance: f64) {
        let norm = a.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!(e.values.is_sorted());
        for k in 0..n {
            for i in 0..n {
                let av: f64 = (0..n).map(|j| a[i * n + j] * e.vector(k)[j]).sum();
                assert!((av - e.values[k] * e.vector(k)[i]).abs() <= tolerance * norm, "{k} {i}");
                let dot: f64 = e.vector(k).iter().zip(e.vector(i)).map(|(x, y)| x * y).sum();
                assert!((dot - f64::from(u8::from(i == k))).abs() < 1e-13, "{k} {i}: {dot}");
            }
        }
    }

    #[test]
    fn hard_matrices_decompose() {
        let n = 24;
        let at = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            (0..n * n).map(|i| f((i / n).max(i % n), (i / n).min(i % n))).collect()
        };
        let cases = [
            at(&|_, _| 0.0),
            at(&|_, _| 1.0),
            // Hilbert's matrix, the eigenvalues of which cluster at zero.
            at(&|i, j| 1.0 / (i + j + 1) as f64),
            // Graded down and up over 40 decades.
            at(&|i, j| 10_f64.powi(-(i as i32) - j as i32 + 3)),
            at(&|i, j| 10_f64.powi(i as i32 + j as i32 - 43)),
            // At the ends of the range of numbers.
            at(&|i, j| 1e300 * ((i * 7 + j * 3) % 5) as f64),
            at(&|i, j| 1e-300 * ((i * 7 + j * 3) % 5) as f64),
            // An arrow, as thick restart leaves it.
            at(&|i, j| {
                if i == j {
                    i as f64
                } else if i + 1 == n {
                    1e-3
                } else {
                    0.0
                }
            }),
            // Pairs that coincide: the same block twice.
            at(&|i, j| if (i < 12) == (j < 12) { ((i % 12) * (j % 12) % 5) as f64 } else { 0.0 }),
        ];
        for a in &cases {
            let largest = a.iter().fold(0.0_f64, |m, x| m.max(x.abs())).max(1e-300);
            let scaled: Vec<f64> = a.iter().map(|x| x / largest).collect();
            let mut e = symmetric_eigen(a, n).unwrap();
            let values = symmetric_values(a, n).unwrap();
            assert!(e.values.iter().zip(&values).all(|(x, y)| (x - y).abs() <= 1e-14 * largest * n as f64));
            e.values.iter_mut().for_each(|v| *v /= largest);
            assert_decomposes(&scaled, n, &e, 1e-14);
        }
        // Wilkinson's matrix: its largest eigenvalues coincide to fifteen digits, and are 10.746194182903393.
        let alpha: Vec<f64> = (0..21).map(|i| f64::from((i - 10_i32).abs())).collect();
        let e = tridiagonal_eigen(&alpha, &[1.0; 20]).unwrap();
        assert!((e.values[20] - 10.746_194_182_903_393).abs() < 1e-14 * 21.0);
        assert!((e.values[19] - 10.746_194_182_903_322).abs() < 1e-14 * 21.0);
    }

    #[cfg(feature = "faer")]
    #[test]
    fn both_solvers_agree() {
        let mut rng = Rng::new(8);
        for n in [1, 2, 3, 17, 90] {
            let mut a: Vec<f64> = (0..n * n).map(|_| rng.normal()).collect();
            for i in 0..n * n {
                a[i] = a[(i / n).max(i % n) * n + (i / n).min(i % n)];
            }
            let (own, other) = (dense(&a, n, true).unwrap(), symmetric_eigen(&a, n).unwrap());
            let values = symmetric_values(&a, n).unwrap();
            assert_decomposes(&a, n, &own, 1e-14);
            assert_decomposes(&a, n, &other, 1e-14);
            for k in 0..n {
                assert!((own.values[k] - other.values[k]).abs() < 1e-13 * n as f64);
                assert!((own.values[k] - values[k]).abs() < 1e-13 * n as f64);
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
