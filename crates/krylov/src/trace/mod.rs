//! Trace, diagonal and Frobenius norm of a symmetric operator from products with random vectors.
//!
//! Each sample has a random stream of its own, named by its index, so that more samples extend a smaller run.

mod hutchinson;
mod hutchpp;
#[cfg(test)]
mod tests;
mod xtrace;

pub use hutchinson::{frobenius_norm, hutchinson, hutchinson_diagonal};
pub use hutchpp::hutchpp;
pub use xtrace::{xdiag, xtrace};

use crate::KrylovError;
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;

/// The distribution of random vectors; both have independent entries of mean 0 and variance 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// Signs: the smaller variance, and exact for a diagonal operator.
    #[default]
    Rademacher,
    /// Normal numbers: the variance depends on the eigenvalues alone.
    Normal,
}

impl Probe {
    fn draw<T: Real>(self, dim: usize, rng: &mut Rng) -> Vec<T> {
        match self {
            Probe::Normal => (0..dim).map(|_| T::of(rng.normal())).collect(),
            Probe::Rademacher => {
                let mut bits = 0;
                let sign = |i: usize| {
                    if i.is_multiple_of(64) {
                        bits = rng.next_u64();
                    }
                    let sign = if bits & 1 == 0 { T::ONE } else { -T::ONE };
                    bits >>= 1;
                    sign
                };
                (0..dim).map(sign).collect()
            }
        }
    }

    /// Sample `i` of the stream `seed x purpose`.
    fn sample<T: Real>(self, dim: usize, seed: u64, purpose: &str, i: usize) -> Vec<T> {
        self.draw(dim, &mut Rng::named(seed, &format!("{purpose}/{i}")))
    }
}

/// A number that was estimated.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error; none from fewer than two samples.
    pub stderr: Option<f64>,
    /// The terms whose mean is taken (for [`hutchpp`], those of the part outside the sketch).
    pub samples: Vec<f64>,
    /// Products with the operator.
    pub products: usize,
}

/// A diagonal that was estimated.
#[derive(Clone, Debug, PartialEq)]
pub struct DiagonalEstimate {
    /// The estimate of each entry.
    pub values: Vec<f64>,
    /// The standard error of each entry; none from fewer than two samples.
    pub stderr: Option<Vec<f64>>,
    /// Products with the operator.
    pub products: usize,
}

/// Mean and standard error of the mean.
pub(crate) fn mean(samples: &[f64]) -> (f64, Option<f64>) {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let squares: f64 = samples.iter().map(|s| (s - mean).powi(2)).sum();
    (mean, (samples.len() > 1).then(|| (squares / (n * (n - 1.0))).sqrt()))
}

/// Running mean and sum of squares of each entry (Welford 1962).
struct Entries {
    count: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Entries {
    fn new(dim: usize) -> Self {
        Entries { count: 0.0, mean: vec![0.0; dim], squares: vec![0.0; dim] }
    }

    fn add(&mut self, values: impl Iterator<Item = f64>) {
        self.count += 1.0;
        for ((m, s), x) in self.mean.iter_mut().zip(&mut self.squares).zip(values) {
            let d = x - *m;
            *m += d / self.count;
            *s += d * (x - *m);
        }
    }

    fn finish(self, products: usize) -> DiagonalEstimate {
        let n = self.count;
        let stderr = (n > 1.0).then(|| self.squares.iter().map(|s| (s / (n * (n - 1.0))).sqrt()).collect());
        DiagonalEstimate { values: self.mean, stderr, products }
    }
}

fn some_samples(samples: usize) -> Result<(), KrylovError> {
    if samples == 0 {
        return Err(KrylovError::setting("the number of samples", 0.0, "1 or more"));
    }
    Ok(())
}
