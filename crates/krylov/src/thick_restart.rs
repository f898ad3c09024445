use super::KrylovError;
use super::basis::Basis;
use super::lanczos::normal_vector;
use super::product::{Products, coefficient, epsilon};
use crate::symeig::{SymEig, symmetric_eigen};
use rhumb_linalg::rng::Rng;
use rhumb_linalg::vec::{norm, scale};
use rhumb_linalg::{LinearOp, Real};

/// Which eigenvalues are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The largest, in descending order.
    Largest,
    /// The smallest (most negative), in ascending order.
    Smallest,
    /// Half from each end, one more of the largest when odd; in ascending order.
    BothEnds,
    /// The largest in magnitude, in descending order of it.
    Magnitude,
}

/// What [`eigenpairs`] shall find.
#[derive(Clone, Debug, PartialEq)]
pub struct EigenOptions {
    /// Which end.
    pub which: Which,
    /// How many.
    pub count: usize,
    /// Vectors of the basis; zero takes `max(2 count + 10, 20)`, at most the dimension.
    pub basis: usize,
    /// A pair has converged when `|A x - theta x|` is at most this share of the largest Ritz value in magnitude.
    pub tolerance: f64,
    /// The most products, those of the final residuals not counted.
    pub products: usize,
    /// Of the start vector.
    pub seed: u64,
}

impl Default for EigenOptions {
    /// The largest eigenvalue to 1e-8 in at most 1000 products.
    fn default() -> Self {
        EigenOptions { which: Which::Largest, count: 1, basis: 0, tolerance: 1e-8, products: 1000, seed: 0 }
    }
}

/// Extreme eigenpairs.
#[derive(Clone, Debug, PartialEq)]
pub struct EigenPairs<T: Real> {
    /// Eigenvalues, in the order of [`Which`].
    pub values: Vec<f64>,
    /// Their unit eigenvectors.
    pub vectors: Basis<T>,
    /// `|A x - theta x|`, each measured by a product.
    pub residuals: Vec<f64>,
    /// Products, those of the residuals included.
    pub products: usize,
    /// How often the basis was contracted.
    pub restarts: usize,
}

/// Extreme eigenpairs by thick-restart Lanczos with full orthogonality.
///
/// # Equation
/// `A V = V H + r e_m'`; the basis is contracted to its best Ritz vectors and `r`, and grows again.
///
/// # Reference
/// Wu, Simon, SIAM J. Matrix Anal. Appl. 22 (2000). Deviation: `H` is taken whole from the orthogonalisation instead
/// of from its arrow form, so that rounding in the contracted part is seen.
///
/// # Assumes
/// A symmetric operator. Of a multiple eigenvalue one copy is found, and others only where rounding or a breakdown
/// brings them up before the rest has converged.
///
/// # Errors
/// [`KrylovError::NotConverged`] with the largest residual reached; [`KrylovError::Setting`]; a failed product.
///
/// # Cost
/// A product and `4 m n` multiplications each step, `m + 1` vectors and, at a contraction, half as many again.
pub fn eigenpairs<T: Real>(
    op: &mut dyn LinearOp<T>,
    options: &EigenOptions,
) -> Result<EigenPairs<T>, KrylovError> {
    let n = op.dim();
    let size = basis_size(options, n)?;
    let mut ops = Products::new(op);
    let mut run = Run::new(n, size, options.seed)?;
    let mut restarts = 0;
    loop {
        let stopped = run.grow(&mut ops, options.products)?;
        let (eig, bounds) = run.ritz()?;
        let order = order(&eig.values, options.which);
        let wanted = &order[..options.count.min(order.len())];
        let target = options.tolerance * eig.values.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
        let residual = wanted.iter().map(|&k| bounds[k]).fold(0.0, f64::max);
        let converged = wanted.iter().filter(|&&k| bounds[k] <= target).count();
        // Half: the residual that is measured at the end differs from its bound by rounding.
        let done = wanted.len() == options.count && residual <= 0.5 * target;
        if done || run.is_whole() {
            return run.finish(&mut ops, &eig, wanted, target, restarts, options.which);
        }
        if stopped {
            let (wanted, products) = (options.count, ops.count);
            return Err(KrylovError::NotConverged { wanted, converged, products, residual, target });
        }
        run.contract(&eig, &order, options.count);
        restarts += 1;
    }
}

fn basis_size(options: &EigenOptions, n: usize) -> Result<usize, KrylovError> {
    let k = options.count;
    if k == 0 || k > n {
        let allowed = format!("1 to the dimension {n}");
        return Err(KrylovError::setting("the number of eigenpairs", k as f64, allowed));
    }
    if !(options.tolerance > 0.0 && options.tolerance.is_finite()) {
        return Err(KrylovError::setting("the tolerance", options.tolerance, "positive"));
    }
    if options.products == 0 {
        return Err(KrylovError::setting("the number of products", 0.0, "1 or more"));
    }
    let size = if options.basis == 0 { (2 * k + 10).max(20) } else { options.basis };
    if size < (k + 2).min(n) {
        let allowed = format!("{} or more for {k} eigenpairs", (k + 2).min(n));
        return Err(KrylovError::setting("the size of the basis", size as f64, allowed));
    }
    Ok(size.min(n))
}

/// Indices from the most to the least wanted.
fn order(values: &[f64], which: Which) -> Vec<usize> {
    let m = values.len();
    let mut at: Vec<usize> = (0..m).collect();
    match which {
        Which::Smallest => {}
        Which::Largest => at.reverse(),
        Which::Magnitude => at.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs())),
        Which::BothEnds => at = (0..m).map(|i| if i % 2 == 0 { m - 1 - i / 2 } else { i / 2 }).collect(),
    }
    at
}

struct Run<T: Real> {
    /// Vectors `0..filled` have been multiplied; one more follows unless the space is whole.
    basis: Basis<T>,
    filled: usize,
    size: usize,
    /// The projected operator, `size x size`.
    h: Vec<f64>,
    /// Norm of the last remainder.
    rest: f64,
    scale: f64,
    rng: Rng,
}

impl<T: Real> Run<T> {
    fn new(n: usize, size: usize, seed: u64) -> Result<Self, KrylovError> {
        let mut v = normal_vector::<T>(n, seed, "eigenpairs/start");
        let length = norm(&v);
        if length.is_nan() || length <= 0.0 {
            return Err(KrylovError::Start { what: "the start vector", norm: length });
        }
        scale(T::of(1.0 / length), &mut v);
        let rng = Rng::named(seed, "eigenpairs/restart");
        let basis = Basis::from_values(n, v);
        Ok(Run { basis, filled: 0, size, h: vec![0.0; size * size], rest: 0.0, scale: 0.0, rng })
    }

    fn is_whole(&self) -> bool {
        self.filled == self.basis.dim()
    }

    /// Multiplies until the basis is full; true when the products ran out.
    fn grow(&mut self, ops: &mut Products<'_, T>, limit: usize) -> Result<bool, KrylovError> {
        let mut w = vec![T::ZERO; self.basis.dim()];
        while self.filled < self.size {
            if ops.count >= limit {
                return Ok(true);
            }
            let j = self.filled;
            ops.apply(self.basis.vector(j), &mut w)?;
            self.scale = self.scale.max(norm(&w));
            for (i, c) in self.basis.orthogonalise(&mut w).into_iter().enumerate() {
                self.h[i * self.size + j] = c;
                self.h[j * self.size + i] = c;
            }
            self.rest = norm(&w);
            for value in [self.scale, self.rest, self.h[j * self.size + j]] {
                coefficient(ops.count, value)?;
            }
            self.filled += 1;
            if self.rest <= 32.0 * epsilon::<T>() * self.scale {
                self.rest = 0.0;
                match self.basis.fresh(&mut self.rng) {
                    Some(v) => self.basis.push(&v),
                    None => return Ok(false),
                }
            } else if self.is_whole() {
                self.rest = 0.0;
            } else {
                w.iter_mut().for_each(|x| *x = T::of(x.f64() / self.rest));
                self.basis.push(&w);
            }
        }
        Ok(ops.count >= limit)
    }

    fn ritz(&self) -> Result<(SymEig, Vec<f64>), KrylovError> {
        let m = self.filled;
        let h: Vec<f64> = (0..m * m).map(|i| self.h[i / m * self.size + i % m]).collect();
        let eig = symmetric_eigen(&h, m)?;
        let bounds = (0..m).map(|k| (self.rest * eig.vector(k)[m - 1]).abs()).collect();
        Ok((eig, bounds))
    }

    /// Keeps the Ritz vectors that are wanted, half of the room beside them, and the remainder.
    fn contract(&mut self, eig: &SymEig, order: &[usize], count: usize) {
        let keep = (count + (self.size - count) / 2).min(self.size - 1);
        let mut next = Basis::new(self.basis.dim());
        self.h.fill(0.0);
        for (i, &k) in order[..keep].iter().enumerate() {
            next.push(&self.basis.combine(eig.vector(k)));
            self.h[i * self.size + i] = eig.values[k];
        }
        next.push(self.basis.vector(self.filled));
        self.basis = next;
        self.filled = keep;
    }

    fn finish(
        &self,
        ops: &mut Products<'_, T>,
        eig: &SymEig,
        wanted: &[usize],
        target: f64,
        restarts: usize,
        which: Which,
    ) -> Result<EigenPairs<T>, KrylovError> {
        let mut wanted = wanted.to_vec();
        if which == Which::BothEnds {
            wanted.sort_unstable();
        }
        let (values, mut residuals): (Vec<f64>, Vec<f64>) =
            (wanted.iter().map(|&k| eig.values[k]).collect(), Vec::new());
        let (mut vectors, mut ax) = (Basis::new(self.basis.dim()), vec![T::ZERO; self.basis.dim()]);
        for (&k, &theta) in wanted.iter().zip(&values) {
            let mut x = self.basis.combine(eig.vector(k));
            let length = norm(&x);
            scale(T::of(1.0 / length), &mut x);
            ops.apply(&x, &mut ax)?;
            residuals.push(
                ax.iter().zip(&x).map(|(a, x)| (a.f64() - theta * x.f64()).powi(2)).sum::<f64>().sqrt(),
            );
            vectors.push(&x);
        }
        let worst = residuals.iter().copied().fold(0.0, f64::max);
        if worst > target {
            let converged = residuals.iter().filter(|&&r| r <= target).count();
            return Err(KrylovError::NotConverged {
                wanted: wanted.len(),
                converged,
                products: ops.count,
                residual: worst,
                target,
            });
        }
        Ok(EigenPairs { values, vectors, residuals, products: ops.count, restarts })
    }
}
