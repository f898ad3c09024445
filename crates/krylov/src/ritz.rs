use super::KrylovError;
use crate::symeig::{SymEig, tridiagonal_eigen};

/// Eigenpairs of a Lanczos matrix: approximations of those of the operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Ritz {
    eig: SymEig,
    bounds: Vec<f64>,
}

impl Ritz {
    /// Of the tridiagonal matrix with diagonal `alpha`, where `beta` holds the off-diagonal and at its end the norm of
    /// the last remainder.
    ///
    /// # Errors
    /// [`KrylovError::Dense`] for lengths or values that make no matrix.
    pub fn of(alpha: &[f64], beta: &[f64]) -> Result<Self, KrylovError> {
        let eig = tridiagonal_eigen(alpha, beta)?;
        let m = alpha.len();
        let rest = m.checked_sub(1).and_then(|i| beta.get(i)).copied().unwrap_or(0.0);
        let bounds = (0..m).map(|k| (rest * eig.vector(k)[m - 1]).abs()).collect();
        Ok(Ritz { eig, bounds })
    }

    /// Ritz values, ascending.
    pub fn values(&self) -> &[f64] {
        &self.eig.values
    }

    /// `|beta_m s_mk|`: with an orthonormal basis, the norm of the residual `A x - theta x`, so that an eigenvalue lies
    /// within it.
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// The unit eigenvector `s_k` of the tridiagonal matrix.
    ///
    /// # Panics
    /// When there is no value `k`.
    pub fn vector(&self, k: usize) -> &[f64] {
        self.eig.vector(k)
    }

    /// Weights `s_1k^2` of Gauss' quadrature for the measure of the start vector; their sum is 1.
    pub fn weights(&self) -> Vec<f64> {
        (0..self.values().len()).map(|k| self.vector(k)[0].powi(2)).collect()
    }
}
