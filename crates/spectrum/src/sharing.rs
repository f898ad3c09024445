//! Which rows of a matrix may share one scale.

use rhumb_core::{Layout, SecondOrder};
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::{BlockAt, CurvatureOf, Cut, SpectrumError, blocks};

/// How unequal the curvature of the rows of a matrix is, within blocks of two sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sharing {
    /// The matrix.
    pub tensor: String,
    /// Mean eigenvalue of its diagonal block.
    pub mean: f64,
    /// Within the matrix.
    pub whole: Spread,
    /// Within its heads: the sum of their variances over the sum of their squared means; `None` where it has fewer than two.
    pub heads: Option<Spread>,
}

/// A squared coefficient of variation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Variance of the rows' mean eigenvalues over their squared mean; an unbiased estimate of both, so that it may be
    /// below zero where the rows are alike.
    pub cv2: f64,
    /// Its standard error, by the jackknife over random vectors.
    pub error: f64,
}

impl Sharing {
    /// The largest blocks inside which the rows are alike: a squared coefficient of variation of at most `limit`.
    pub fn cut(&self, limit: f64) -> Cut {
        if self.whole.cv2 <= limit {
            Cut::Tensor
        } else if self.heads.is_some_and(|h| h.cv2 <= limit) {
            Cut::Head
        } else {
            Cut::Row
        }
    }
}

/// The spreads of the curvature of the named matrices, from `probes` vectors of random signs for each.
///
/// # Equation
/// `z_r' (C z)_r / n` estimates the mean eigenvalue `k_r = tr C_r / n` of the diagonal block of row `r`, of `n`
/// parameters, for all rows by one product. `cv2 = mean_r (k_r - k)^2 / k^2`, with `k` the mean over the rows of the block and
/// each square the mean product of two different vectors, which have errors that do not depend on each other.
///
/// A positive semidefinite matrix (Gauss-Newton, Fisher) is meant: the mean of eigenvalues of both signs is no scale.
///
/// # Errors
/// [`SpectrumError::Setting`] for fewer than three vectors, a name that is no matrix, or a matrix without curvature; a failed
/// product; [`SpectrumError::Stopped`] when `before`, which is called with the number of each vector, says no.
///
/// # Cost
/// `probes` products with the block of each matrix; those of one vector share a linearization.
pub fn sharing<T: Real, P: SecondOrder<T>>(
    of: &mut CurvatureOf<'_, T, P>,
    layout: &Layout,
    names: &[String],
    (probes, seed): (usize, u64),
    before: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Sharing>, SpectrumError> {
    if probes < 3 {
        return Err(SpectrumError::Setting(format!(
            "{probes} random vectors say nothing of an error: take 3 or more"
        )));
    }
    let tensors = blocks(layout, Cut::Tensor, names)?;
    let rows: Vec<usize> = tensors.iter().map(|b| rows_of(layout, b)).collect::<Result<_, _>>()?;
    let heads: Vec<usize> = tensors
        .iter()
        .map(|b| blocks(layout, Cut::Head, std::slice::from_ref(&b.name)).map(|h| h.len()))
        .collect::<Result<_, _>>()?;
    // Estimates of vector p: `found[matrix][p][row]`.
    let mut found: Vec<Vec<Vec<f64>>> = vec![Vec::new(); tensors.len()];
    let (asked, mut outs): (Vec<&BlockAt>, _) = (tensors.iter().collect(), vec![Vec::new(); tensors.len()]);
    for p in 0..probes {
        if !before(p) {
            return Err(SpectrumError::Stopped);
        }
        let signs: Vec<Vec<T>> = tensors.iter().map(|b| signs(b, seed, p)).collect();
        let given: Vec<&[T]> = signs.iter().map(Vec::as_slice).collect();
        of.products(&asked, &given, &mut outs)?;
        for (k, (z, y)) in signs.iter().zip(&outs).enumerate() {
            let n = z.len() / rows[k];
            let each = z.chunks_exact(n).zip(y.chunks_exact(n));
            let inner = |(z, y): (&[T], &[T])| rhumb_linalg::vec::dot(z, y) / n as f64;
            found[k].push(each.map(inner).collect());
        }
    }
    tensors
        .iter()
        .zip(&found)
        .zip(&heads)
        .map(|((b, f), &heads)| {
            let mean = f.iter().flatten().sum::<f64>() / (probes * f[0].len()) as f64;
            let none = || {
                SpectrumError::Setting(format!(
                    "{} has no positive curvature (mean eigenvalue {mean:.1e}): measure it after some training, by \
                     another operator, or leave it out",
                    b.name
                ))
            };
            Ok(Sharing {
                tensor: b.name.clone(),
                mean,
                whole: spread(f, 1).ok_or_else(none)?,
                heads: if heads > 1 { Some(spread(f, heads).ok_or_else(none)?) } else { None },
            })
        })
        .collect()
}

fn rows_of(layout: &Layout, b: &BlockAt) -> Result<usize, SpectrumError> {
    match layout.find(&b.name).map(|t| t.shape.as_slice()) {
        Some([rows, _, ..]) => Ok(*rows),
        _ => Err(SpectrumError::Setting(format!(
            "{} has no rows that could share a scale: name matrices",
            b.name
        ))),
    }
}

fn signs<T: Real>(b: &BlockAt, seed: u64, p: usize) -> Vec<T> {
    let mut rng = Rng::named(seed, &format!("sharing/{p}/{}", b.name));
    (0..b.dim()).map(|_| if rng.uniform() < 0.5 { -T::ONE } else { T::ONE }).collect()
}

/// The spread inside `groups` equal groups of neighbouring rows; `None` where the squared mean is not positive.
fn spread(found: &[Vec<f64>], groups: usize) -> Option<Spread> {
    let cv2 = |skip: Option<usize>| -> Option<f64> {
        let kept: Vec<&Vec<f64>> =
            found.iter().enumerate().filter(|(p, _)| Some(*p) != skip).map(|(_, f)| f).collect();
        let size = found[0].len() / groups;
        let (mut variance, mut square) = (0.0, 0.0);
        for group in 0..groups {
            let rows = group * size..(group + 1) * size;
            let means: Vec<f64> =
                kept.iter().map(|f| f[rows.clone()].iter().sum::<f64>() / size as f64).collect();
            square += pairs(means.iter().copied());
            let off = rows.map(|r| pairs(kept.iter().zip(&means).map(|(f, m)| f[r] - m)));
            variance += off.sum::<f64>() / size as f64;
        }
        (square > 0.0).then_some(variance / square)
    };
    let n = found.len();
    let left: Vec<f64> = (0..n).map(|p| cv2(Some(p))).collect::<Option<_>>()?;
    let mean = left.iter().sum::<f64>() / n as f64;
    let sum: f64 = left.iter().map(|x| (x - mean).powi(2)).sum();
    Some(Spread { cv2: cv2(None)?, error: ((n - 1) as f64 / n as f64 * sum).sqrt() })
}

/// The mean product of two different numbers.
fn pairs(x: impl Iterator<Item = f64>) -> f64 {
    let (n, sum, squares) = x.fold((0.0, 0.0, 0.0), |(n, s, q), x| (n + 1.0, s + x, q + x * x));
    (sum * sum - squares) / (n * (n - 1.0))
}
