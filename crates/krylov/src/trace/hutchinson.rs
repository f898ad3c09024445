use super::{DiagonalEstimate, Entries, Estimate, Probe, mean, some_samples};
use crate::KrylovError;
use crate::product::{Products, coefficient};
use rhumb_linalg::vec::dot;
use rhumb_linalg::{LinearOp, Real};

/// The trace, by Hutchinson's estimator.
///
/// # Equation
/// `tr A = E z'Az`. The variance of a term is `2 (|A|_F^2 - sum A_ii^2)` for signs, `2 |A|_F^2` for normal numbers.
///
/// # Reference
/// Hutchinson 1990; Girard 1989.
///
/// ```
/// use rhumb_krylov::DenseOp;
/// use rhumb_krylov::trace::{Probe, hutchinson};
///
/// let mut a = DenseOp::diagonal(&[1.0f64, 2.0, 4.0]);
/// assert_eq!(hutchinson(&mut a, 1, Probe::Rademacher, 0)?.value, 7.0);
/// # Ok::<(), rhumb_krylov::KrylovError>(())
/// ```
///
/// # Errors
/// [`KrylovError::Setting`] for no samples; a failed product.
///
/// # Cost
/// One product each sample; two vectors.
pub fn hutchinson<T: Real>(
    op: &mut dyn LinearOp<T>,
    samples: usize,
    probe: Probe,
    seed: u64,
) -> Result<Estimate, KrylovError> {
    let (terms, products) =
        terms(op, samples, |n, i| probe.sample(n, seed, "hutchinson", i), |z, az| dot(z, az))?;
    let (value, stderr) = mean(&terms);
    Ok(Estimate { value, stderr, samples: terms, products })
}

/// The diagonal, as the mean of `z * Az` entry by entry.
///
/// # Reference
/// Bekas, Kokiopoulou, Saad 2007, without their denominator, which is 1 for signs and makes the estimate biased
/// otherwise.
///
/// # Errors
/// As [`hutchinson`].
///
/// # Cost
/// One product each sample; two vectors of `T` and two of `f64`.
pub fn hutchinson_diagonal<T: Real>(
    op: &mut dyn LinearOp<T>,
    samples: usize,
    probe: Probe,
    seed: u64,
) -> Result<DiagonalEstimate, KrylovError> {
    some_samples(samples)?;
    let mut ops = Products::new(op);
    let mut az = vec![T::ZERO; ops.dim()];
    let mut entries = Entries::new(az.len());
    for i in 0..samples {
        let z: Vec<T> = probe.sample(az.len(), seed, "hutchinson", i);
        ops.apply(&z, &mut az)?;
        entries.add(z.iter().zip(&az).map(|(z, a)| z.f64() * a.f64()));
    }
    Ok(entries.finish(ops.count))
}

/// The Frobenius norm: the root of the mean of `|Az|^2`.
///
/// The terms are squares, the value is a root: its standard error is that of the mean over twice the value, and its
/// bias is of second order in that.
///
/// # Errors
/// As [`hutchinson`].
///
/// # Cost
/// One product each sample; two vectors.
pub fn frobenius_norm<T: Real>(
    op: &mut dyn LinearOp<T>,
    samples: usize,
    probe: Probe,
    seed: u64,
) -> Result<Estimate, KrylovError> {
    let (terms, products) =
        terms(op, samples, |n, i| probe.sample(n, seed, "frobenius", i), |_, az| dot(az, az))?;
    let (square, error) = mean(&terms);
    let value = square.sqrt();
    let stderr = error.map(|e| if value > 0.0 { e / (2.0 * value) } else { 0.0 });
    Ok(Estimate { value, stderr, samples: terms, products })
}

/// A number of each random vector `z` and its product `A z`, and how many products that took.
fn terms<T: Real>(
    op: &mut dyn LinearOp<T>,
    samples: usize,
    draw: impl Fn(usize, usize) -> Vec<T>,
    of: impl Fn(&[T], &[T]) -> f64,
) -> Result<(Vec<f64>, usize), KrylovError> {
    some_samples(samples)?;
    let mut ops = Products::new(op);
    let mut az = vec![T::ZERO; ops.dim()];
    let mut terms = Vec::with_capacity(samples);
    for i in 0..samples {
        let z = draw(az.len(), i);
        ops.apply(&z, &mut az)?;
        terms.push(coefficient(ops.count, of(&z, &az))?);
    }
    Ok((terms, ops.count))
}
