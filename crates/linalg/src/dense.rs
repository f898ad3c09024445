//! Small dense matrices in `f64`, row-major.

use crate::rng::Rng;

/// Why a decomposition failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DenseError {
    /// The slice is no square matrix of that size.
    #[error("a matrix of {n} rows and columns has {} values, got {got}", n * n)]
    Shape {
        /// Rows.
        n: usize,
        /// Values given.
        got: usize,
    },
    /// A value is NaN or infinite, or the iteration did not end.
    #[error(
        "the eigenvalues of a matrix of {n} rows could not be computed: check it for values that are not finite"
    )]
    Eigenvalues {
        /// Rows.
        n: usize,
    },
}

/// Eigenvalues of a symmetric matrix in ascending order, by Jacobi's cyclic rotations: for tens of rows. The lower
/// triangle is read.
///
/// # Errors
/// [`DenseError`] for a wrong length or values that are not finite.
///
/// # Cost
/// `O(n^3)` per sweep, about ten sweeps.
pub fn symmetric_eigenvalues(a: &[f64], n: usize) -> Result<Vec<f64>, DenseError> {
    if a.len() != n * n {
        return Err(DenseError::Shape { n, got: a.len() });
    }
    if a.iter().any(|v| !v.is_finite()) {
        return Err(DenseError::Eigenvalues { n });
    }
    let mut m: Vec<f64> = (0..n * n).map(|at| a[(at / n).max(at % n) * n + (at / n).min(at % n)]).collect();
    let norm = m.iter().map(|v| v * v).sum::<f64>().sqrt();
    for _ in 0..SWEEPS {
        let mut done = true;
        for p in 0..n {
            for q in p + 1..n {
                // Measured by its own row and column, so that small eigenvalues of a graded matrix keep their digits.
                let scale = (m[p * n + p] * m[q * n + q]).abs().sqrt().max(f64::EPSILON * norm);
                if m[p * n + q].abs() > f64::EPSILON * scale {
                    rotate(&mut m, n, p, q);
                    done = false;
                }
            }
        }
        if done {
            let mut values: Vec<f64> = (0..n).map(|i| m[i * n + i]).collect();
            values.sort_by(f64::total_cmp);
            return Ok(values);
        }
    }
    Err(DenseError::Eigenvalues { n })
}

/// Sweeps of Jacobi's method; ten are enough for any matrix that is finite.
const SWEEPS: usize = 60;

/// The rotation of rows and columns `p` and `q` that makes their common entry zero.
fn rotate(m: &mut [f64], n: usize, p: usize, q: usize) {
    let (app, aqq, apq) = (m[p * n + p], m[q * n + q], m[p * n + q]);
    let theta = (aqq - app) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for k in 0..n {
        let (x, y) = (m[k * n + p], m[k * n + q]);
        (m[k * n + p], m[k * n + q]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..n {
        let (x, y) = (m[p * n + k], m[q * n + k]);
        (m[p * n + k], m[q * n + k]) = (c * x - s * y, s * x + c * y);
    }
    (m[p * n + q], m[q * n + p]) = (0.0, 0.0);
}

/// An orthogonal matrix from the Haar distribution: the columns of a matrix of normal numbers, orthonormalised in
/// order (Gram-Schmidt, twice, for orthogonality to the last digits).
pub fn haar_orthogonal(n: usize, rng: &mut Rng) -> Vec<f64> {
    let mut columns: Vec<Vec<f64>> = Vec::with_capacity(n);
    while columns.len() < n {
        let mut v: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        for _ in 0..2 {
            for q in &columns {
                let dot: f64 = q.iter().zip(&v).map(|(a, b)| a * b).sum();
                v.iter_mut().zip(q).for_each(|(v, q)| *v -= dot * q);
            }
        }
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        // A draw inside the span of the others has probability zero; another draw is as good.
        if norm > 1e-12 {
            v.iter_mut().for_each(|x| *x /= norm);
            columns.push(v);
        }
    }
    (0..n * n).map(|i| columns[i % n][i / n]).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn eigenvalues_of_known_matrices() {
        let near = |a: Vec<f64>, b: &[f64]| {
            a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-12) && a.len() == b.len()
        };
        assert!(near(symmetric_eigenvalues(&[2.0, 1.0, 1.0, 2.0], 2).unwrap(), &[1.0, 3.0]));
        // Only the lower triangle counts.
        assert!(near(symmetric_eigenvalues(&[2.0, 9.0, 1.0, 2.0], 2).unwrap(), &[1.0, 3.0]));
        // The second difference on n points: 2 - 2 cos(k pi / (n + 1)).
        let n = 7_usize;
        let a: Vec<f64> = (0..n * n)
            .map(|i| match (i / n).abs_diff(i % n) {
                0 => 2.0,
                1 => -1.0,
                _ => 0.0,
            })
            .collect();
        let want: Vec<f64> =
            (1..=n).map(|k| 2.0 - 2.0 * (k as f64 * std::f64::consts::PI / (n + 1) as f64).cos()).collect();
        assert!(near(symmetric_eigenvalues(&a, n).unwrap(), &want));
        assert!(symmetric_eigenvalues(&[], 0).unwrap().is_empty());
    }

    #[test]
    fn a_matrix_with_rows_of_very_different_scale_keeps_its_small_eigenvalue() {
        let (d, h) = ([1e9, 1.0, 1e-4], [3.0, 1.0, 0.5, 1.0, 4.0, 1.5, 0.5, 1.5, 5.0]);
        let a: Vec<f64> = (0..9).map(|i| d[i / 3] * h[i] * d[i % 3]).collect();
        let got = symmetric_eigenvalues(&a, 3).unwrap();
        // The determinant is the product: det(h) = 3 (20 - 2.25) - (5 - 0.75) + 0.5 (1.5 - 2) = 48.75.
        let product: f64 = got.iter().product();
        assert!((product / (48.75 * (1e5_f64).powi(2)) - 1.0).abs() < 1e-12, "{got:?}");
    }

    #[test]
    fn wrong_lengths_and_values_are_errors() {
        assert!(symmetric_eigenvalues(&[1.0; 3], 2).is_err());
        assert!(symmetric_eigenvalues(&[1.0, 0.0, f64::NAN, 1.0], 2).is_err());
    }

    #[test]
    fn a_random_orthogonal_matrix_is_orthogonal_and_uniform() {
        let mut rng = Rng::new(4);
        let n = 5;
        let q = haar_orthogonal(n, &mut rng);
        for i in 0..n {
            for j in 0..n {
                let dot: f64 = (0..n).map(|k| q[k * n + i] * q[k * n + j]).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-14);
            }
        }
        // Under the Haar distribution the square of an entry has mean 1/n and its fourth power 3 / (n (n + 2)).
        let trials = 20_000;
        let (mut second, mut fourth) = (0.0, 0.0);
        for _ in 0..trials {
            let last = haar_orthogonal(3, &mut rng)[8];
            second += last * last / f64::from(trials);
            fourth += last.powi(4) / f64::from(trials);
        }
        // Four standard errors: the variances are 1/5 - 1/9 and 1/9 - 1/25.
        assert!((second - 1.0 / 3.0).abs() < 4.0 * (0.0889_f64 / 20_000.0).sqrt(), "{second}");
        assert!((fourth - 0.2).abs() < 4.0 * (0.0711_f64 / 20_000.0).sqrt(), "{fourth}");
    }
}
