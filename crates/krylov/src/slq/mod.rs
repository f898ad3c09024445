//! Stochastic Lanczos quadrature: the spectral density of a symmetric operator.
//!
//! Each start vector gives nodes and weights of Gauss' quadrature for its own measure of the spectrum; their mean over
//! random start vectors estimates the density of eigenvalues. Nodes and weights are kept raw, every smoothing and every
//! moment is computed from them afterwards.

mod density;
#[cfg(test)]
mod tests;

pub use density::{Density, Grid};

use crate::trace::mean;
use crate::{KrylovError, Lanczos, LanczosStep, Orthogonality, normal_vector};
use rhumb_linalg::{LinearOp, Real};

/// Nodes and weights of Gauss' quadrature; the weights are not negative and sum to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quadrature {
    /// Ritz values, ascending.
    pub nodes: Vec<f64>,
    /// The share of the start vector in each.
    pub weights: Vec<f64>,
}

impl Quadrature {
    /// The rule of a Lanczos run: of the part before its first restart, since what follows is orthogonal to the start.
    ///
    /// # Errors
    /// [`KrylovError::Dense`] where the tridiagonal eigenproblem fails; [`KrylovError::Setting`] before the first step.
    pub fn of<T: Real>(run: &Lanczos<T>) -> Result<Self, KrylovError> {
        let m = run.restarts().first().copied().unwrap_or(run.steps());
        if m == 0 {
            return Err(KrylovError::setting("the number of Lanczos steps", 0.0, "1 or more"));
        }
        let ritz = crate::Ritz::of(&run.alpha()[..m], &run.beta()[..m])?;
        Ok(Quadrature { nodes: ritz.values().to_vec(), weights: ritz.weights() })
    }

    /// The exact rule of known eigenvalues: what estimates are compared with.
    pub fn exact(eigenvalues: &[f64]) -> Self {
        let mut nodes = eigenvalues.to_vec();
        nodes.sort_by(f64::total_cmp);
        let weights = vec![1.0 / nodes.len() as f64; nodes.len()];
        Quadrature { nodes, weights }
    }

    /// `sum_i w_i theta_i^k`, equal to `v'A^k v` for `k` up to `2 m - 1` in `m` steps.
    pub fn moment(&self, k: u32) -> f64 {
        self.apply(|t| t.powi(k as i32))
    }

    /// `sum_i w_i f(theta_i)`, which estimates `v'f(A)v`.
    pub fn apply(&self, f: impl Fn(f64) -> f64) -> f64 {
        self.nodes.iter().zip(&self.weights).map(|(&t, &w)| w * f(t)).sum()
    }
}

/// Settings of [`slq`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlqOptions {
    /// Lanczos steps for each start vector.
    pub steps: usize,
    /// Start vectors.
    pub starts: usize,
    /// Of the start vectors; each has a stream of its own.
    pub seed: u64,
    /// How the basis stays orthogonal.
    pub orthogonality: Orthogonality,
}

impl Default for SlqOptions {
    /// 100 steps from 10 normal vectors, as Zhang et al., NeurIPS 2024. **Deviation**: full orthogonality.
    fn default() -> Self {
        SlqOptions { steps: 100, starts: 10, seed: 0, orthogonality: Orthogonality::Full }
    }
}

/// The Lanczos run of start vector `start`, before its first step: for a caller that saves between steps.
///
/// # Errors
/// [`KrylovError::Start`] for the dimension zero.
pub fn start<T: Real>(dim: usize, options: &SlqOptions, start: usize) -> Result<Lanczos<T>, KrylovError> {
    let v = normal_vector::<T>(dim, options.seed, &format!("slq/{start}"));
    Lanczos::new(&v, options.orthogonality, options.seed)
}

/// The rule of start vector number `start`: fewer nodes than steps where the space is invariant before.
///
/// # Errors
/// [`KrylovError::Setting`] for more steps than the dimension; a failed product.
///
/// # Cost
/// As [`Lanczos`], for [`SlqOptions::steps`] steps.
pub fn quadrature<T: Real>(
    op: &mut dyn LinearOp<T>,
    options: &SlqOptions,
    start: usize,
) -> Result<Quadrature, KrylovError> {
    let mut run = self::start::<T>(op.dim(), options, start)?;
    let _: LanczosStep = run.run(op, options.steps)?;
    Quadrature::of(&run)
}

/// Rules of several start vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spectrum {
    /// One rule for each start vector.
    pub runs: Vec<Quadrature>,
}

/// Stochastic Lanczos quadrature from [`SlqOptions::starts`] normal vectors.
///
/// # Reference
/// Golub, Meurant 1994; Ubaru, Chen, Saad, SIAM J. Matrix Anal. Appl. 38 (2017).
///
/// ```
/// use rhumb_krylov::DenseOp;
/// use rhumb_krylov::slq::{SlqOptions, slq};
///
/// let mut a = DenseOp::diagonal(&[1.0f64, 2.0, 3.0]);
/// let spectrum = slq(&mut a, &SlqOptions { steps: 3, starts: 4, ..SlqOptions::default() })?;
/// assert!((spectrum.runs[0].nodes[2] - 3.0).abs() < 1e-12);
/// # Ok::<(), rhumb_krylov::KrylovError>(())
/// ```
///
/// # Errors
/// [`KrylovError::Setting`] for no start vector or more steps than the dimension; a failed product.
///
/// # Cost
/// `starts` times that of [`quadrature`]; one basis at a time.
pub fn slq<T: Real>(op: &mut dyn LinearOp<T>, options: &SlqOptions) -> Result<Spectrum, KrylovError> {
    if options.starts == 0 {
        return Err(KrylovError::setting("the number of start vectors", 0.0, "1 or more"));
    }
    let runs = (0..options.starts).map(|i| quadrature(op, options, i)).collect::<Result<_, _>>()?;
    Ok(Spectrum { runs })
}

impl Spectrum {
    /// The smallest and the largest node; zeros without runs.
    pub fn range(&self) -> (f64, f64) {
        let nodes = || self.runs.iter().flat_map(|r| r.nodes.iter().copied());
        let (low, high) = (nodes().fold(f64::INFINITY, f64::min), nodes().fold(f64::NEG_INFINITY, f64::max));
        if low <= high { (low, high) } else { (0.0, 0.0) }
    }

    /// `tr A^k / n`: the mean of the moments of the runs, and its standard error from two runs on.
    pub fn moment(&self, k: u32) -> (f64, Option<f64>) {
        self.apply(|t| t.powi(k as i32))
    }

    /// `tr f(A) / n`, and its standard error from two runs on.
    pub fn apply(&self, f: impl Fn(f64) -> f64) -> (f64, Option<f64>) {
        let samples: Vec<f64> = self.runs.iter().map(|r| r.apply(&f)).collect();
        mean(&samples)
    }

    /// The density of eigenvalues, each node smoothed by a Gauss curve of width `sigma`.
    ///
    /// # Errors
    /// [`KrylovError::Setting`] for a width that is not positive, a grid coarser than half of it, or no runs.
    pub fn density(&self, grid: &Grid, sigma: f64) -> Result<Density, KrylovError> {
        density::smooth(self, grid, sigma, |t| t)
    }

    /// The density of `log10 max(|lambda|, floor)`: `sigma` and the grid are in decades.
    ///
    /// # Errors
    /// As [`density`](Spectrum::density), and for a floor that is not positive.
    pub fn log_density(&self, grid: &Grid, sigma: f64, floor: f64) -> Result<Density, KrylovError> {
        if !(floor > 0.0 && floor.is_finite()) {
            return Err(KrylovError::setting("the floor", floor, "positive"));
        }
        density::smooth(self, grid, sigma, |t| t.abs().max(floor).log10())
    }

    /// A grid for [`density`](Spectrum::density): it covers all nodes.
    ///
    /// # Errors
    /// As [`Grid::covering`].
    pub fn grid(&self, sigma: f64) -> Result<Grid, KrylovError> {
        let (low, high) = self.range();
        Grid::covering(low, high, sigma)
    }

    /// A grid for [`log_density`](Spectrum::log_density): from the floor to the largest magnitude.
    ///
    /// # Errors
    /// As [`Grid::covering`], and for a floor that is not positive.
    pub fn log_grid(&self, sigma: f64, floor: f64) -> Result<Grid, KrylovError> {
        if !(floor > 0.0 && floor.is_finite()) {
            return Err(KrylovError::setting("the floor", floor, "positive"));
        }
        let (low, high) = self.range();
        Grid::covering(floor.log10(), low.abs().max(high.abs()).max(floor).log10(), sigma)
    }
}
