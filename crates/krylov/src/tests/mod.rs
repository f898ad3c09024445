#![allow(clippy::float_cmp, reason = "exact values")]

mod eigenpairs;
mod lanczos;
mod properties;
mod solve;

use crate::DenseOp;
use rhumb_linalg::dense::haar_orthogonal;
use rhumb_linalg::rng::Rng;
use rhumb_linalg::{LinearOp, OpError, Real};

/// `Q diag(values) Q'` for a random orthogonal `Q`.
pub(crate) fn with_spectrum(values: &[f64], seed: u64) -> DenseOp<f64> {
    let n = values.len();
    let q = haar_orthogonal(n, &mut Rng::new(seed));
    let mut a = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let x: f64 = (0..n).map(|k| q[i * n + k] * values[k] * q[j * n + k]).sum();
            a[i * n + j] = x;
            a[j * n + i] = x;
        }
    }
    DenseOp::new(a, n).unwrap()
}

/// A symmetric matrix of normal numbers.
pub(crate) fn random_symmetric(n: usize, seed: u64) -> DenseOp<f64> {
    let mut rng = Rng::new(seed);
    let mut a = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let x = rng.normal();
            a[i * n + j] = x;
            a[j * n + i] = x;
        }
    }
    DenseOp::new(a, n).unwrap()
}

/// The second difference on `n` points, eigenvalues `2 - 2 cos(k pi / (n + 1))`.
pub(crate) struct Laplacian(pub(crate) usize);

impl Laplacian {
    pub(crate) fn eigenvalue(&self, k: usize) -> f64 {
        2.0 - 2.0 * (k as f64 * std::f64::consts::PI / (self.0 + 1) as f64).cos()
    }
}

impl<T: Real> LinearOp<T> for Laplacian {
    fn dim(&self) -> usize {
        self.0
    }
    fn apply(&mut self, v: &[T], out: &mut [T]) -> Result<(), OpError> {
        for i in 0..self.0 {
            let left = if i > 0 { v[i - 1] } else { T::ZERO };
            let right = v.get(i + 1).copied().unwrap_or(T::ZERO);
            out[i] = v[i] + v[i] - left - right;
        }
        Ok(())
    }
}

/// Spoils the product of a given number, once.
pub(crate) struct Spoiled<A> {
    pub(crate) op: A,
    pub(crate) at: usize,
    pub(crate) with: Spoil,
    pub(crate) seen: usize,
}

#[derive(Clone, Copy)]
pub(crate) enum Spoil {
    Nan,
    Fail,
}

impl<A: LinearOp<f64>> LinearOp<f64> for Spoiled<A> {
    fn dim(&self) -> usize {
        self.op.dim()
    }
    fn apply(&mut self, v: &[f64], out: &mut [f64]) -> Result<(), OpError> {
        self.seen += 1;
        self.op.apply(v, out)?;
        if self.seen == self.at {
            match self.with {
                Spoil::Nan => out[1] = f64::NAN,
                Spoil::Fail => return Err(OpError::Failed("interrupted".into())),
            }
        }
        Ok(())
    }
}
