//! How much the spectra of blocks differ.

use rhumb_krylov::slq::{Density, Grid};
use serde::{Deserialize, Serialize};

use crate::{BlockSpectrum, SpectrumError};

/// Jensen-Shannon divergence of two distributions given by their probabilities, in nats.
///
/// # Equation
/// `1/2 sum_i p_i ln(p_i / m_i) + 1/2 sum_i q_i ln(q_i / m_i)`, `m = (p + q) / 2`; between 0 and `ln 2`.
///
/// # Panics
/// When the lengths differ.
pub fn js(p: &[f64], q: &[f64]) -> f64 {
    assert_eq!(p.len(), q.len(), "two distributions on the same points");
    let term = |a: f64, m: f64| if a > 0.0 { a * (a / m).ln() } else { 0.0 };
    let sum: f64 = p
        .iter()
        .zip(q)
        .map(|(&a, &b)| {
            let m = 0.5 * (a + b);
            term(a, m) + term(b, m)
        })
        .sum();
    (0.5 * sum).max(0.0)
}

/// What densities are densities of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// Eigenvalues as they are. With [`Axis::OFFICIAL`] as the width this is the density of the paper's code, and means
    /// something beside the scale of the loss only.
    #[default]
    Raw,
    /// Eigenvalues divided by the magnitude of the tenth-largest one, as in the paper's plots.
    Scaled,
    /// The logarithm (base 10) of the magnitudes, unscaled: spectra that differ by a factor differ.
    Log,
    /// The logarithm (base 10) of the magnitudes over the largest one: only the shape counts.
    ScaledLog,
}

impl Axis {
    /// The width of the Gauss curves in the paper's code, for [`Axis::Raw`]: the root of 1e-5.
    pub const OFFICIAL: f64 = 3.162_277_660_168_379_5e-3;
}

/// Divergences between all pairs of blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergences {
    /// Names of the blocks.
    pub names: Vec<String>,
    /// `[blocks, blocks]`, nats, row after row; zero on the diagonal.
    pub js: Vec<f64>,
    /// The mean over all pairs: JS0 where the parameters are those before training.
    pub mean: f64,
    /// `mean / step`: the scale of the paper's table, which leaves the step of the grid out of the integral. It means
    /// nothing without its grid.
    pub paper_scale: f64,
    /// The axis.
    pub axis: Axis,
    /// First point of the common grid.
    pub start: f64,
    /// Distance between its points.
    pub step: f64,
    /// Its points.
    pub points: usize,
    /// Width of the Gauss curves, on the axis.
    pub sigma: f64,
}

impl Divergences {
    /// The divergence of blocks `i` and `j`.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.js[i * self.names.len() + j]
    }

    /// The two blocks that differ most.
    pub fn farthest(&self) -> Option<(usize, usize)> {
        let n = self.names.len();
        let pairs = (0..n).flat_map(|i| (0..i).map(move |j| (j, i)));
        pairs.max_by(|a, b| self.at(a.0, a.1).total_cmp(&self.at(b.0, b.1)))
    }
}

/// Magnitudes below this share of a block's largest count as this share on a logarithmic axis: where the Ritz values of a null
/// space fall is rounding, and most of the weight is theirs.
const FLOOR: f64 = 1e-3;
/// The eigenvalue that sets the scale, by magnitude.
const TENTH: usize = 10;

/// Jensen-Shannon divergences between the smoothed spectra of all pairs of blocks, on one grid.
///
/// # Reference
/// Zhang et al., NeurIPS 2024, section 3. **Deviation**: the integral, with the step of the grid.
///
/// # Units
/// `sigma` on the axis: shares of the scale, or decades. On logarithmic axes magnitudes below a thousandth of the block's
/// largest one, a null space for the most part, count as that: blocks of different rank differ by it.
///
/// # Errors
/// [`SpectrumError::Setting`] for fewer than two blocks, a spectrum that is zero, or a width that does not fit.
pub fn divergences(blocks: &[BlockSpectrum], axis: Axis, sigma: f64) -> Result<Divergences, SpectrumError> {
    if blocks.len() < 2 {
        return Err(SpectrumError::Setting("a divergence needs at least two blocks".to_owned()));
    }
    let scaled: Vec<_> = blocks.iter().map(|b| placed(b, axis)).collect::<Result<_, _>>()?;
    let ends = scaled.iter().map(rhumb_krylov::slq::Spectrum::range);
    let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), (l, h)| (a.min(l), b.max(h)));
    let wrong = |e| SpectrumError::krylov("all", e);
    let grid = Grid::covering(low, high, sigma).map_err(wrong)?;
    let densities: Vec<Density> = scaled
        .iter()
        .map(|s| Ok(s.density(&grid, sigma).map_err(wrong)?.normalised()))
        .collect::<Result<_, SpectrumError>>()?;
    let mass: Vec<Vec<f64>> =
        densities.iter().map(|d| d.values.iter().map(|v| v * grid.step).collect()).collect();
    let n = blocks.len();
    let mut all = vec![0.0; n * n];
    let mut sum = 0.0;
    for i in 0..n {
        for j in 0..i {
            let d = js(&mass[i], &mass[j]);
            (all[i * n + j], all[j * n + i]) = (d, d);
            sum += d;
        }
    }
    let mean = sum / (n * (n - 1) / 2) as f64;
    Ok(Divergences {
        names: blocks.iter().map(|b| b.block.name.clone()).collect(),
        js: all,
        mean,
        paper_scale: mean / grid.step,
        axis,
        start: grid.start,
        step: grid.step,
        points: grid.points,
        sigma,
    })
}

/// The mean divergence between the start vectors of the same block, what two measurements of the same thing differ by: beside
/// it a mean between blocks has to be seen. `None` with fewer than two start vectors.
///
/// # Errors
/// As [`divergences`].
pub fn between_starts(
    blocks: &[BlockSpectrum],
    axis: Axis,
    sigma: f64,
) -> Result<Option<f64>, SpectrumError> {
    let mut means = Vec::with_capacity(blocks.len());
    for b in blocks.iter().filter(|b| b.nodes.len() > 1) {
        let alone = |i: usize| BlockSpectrum {
            nodes: vec![b.nodes[i].clone()],
            weights: vec![b.weights[i].clone()],
            ..b.clone()
        };
        let starts: Vec<BlockSpectrum> = (0..b.nodes.len()).map(alone).collect();
        means.push(divergences(&starts, axis, sigma)?.mean);
    }
    let n = means.len() as f64;
    Ok(if means.is_empty() { None } else { Some(means.iter().sum::<f64>() / n) })
}

/// The nodes of a block on the axis.
fn placed(b: &BlockSpectrum, axis: Axis) -> Result<rhumb_krylov::slq::Spectrum, SpectrumError> {
    let largest = b.magnitude(1);
    if largest.is_nan() || largest <= 0.0 {
        return Err(SpectrumError::Setting(format!(
            "the spectrum of block {} is zero: leave it out, or measure on more rows",
            b.block.name
        )));
    }
    let mut scale = largest;
    if axis == Axis::Scaled {
        scale = b.magnitude(TENTH);
        if b.nodes.iter().any(|n| n.len() < TENTH) || scale <= 0.0 {
            return Err(SpectrumError::Setting(format!(
                "block {} has fewer than {TENTH} Ritz values other than zero, of which the tenth is the scale: take more steps",
                b.block.name
            )));
        }
    }
    let mut s = b.spectrum();
    let place = |x: &mut f64| match axis {
        Axis::Raw => {}
        Axis::Scaled => *x /= scale,
        Axis::Log => *x = x.abs().max(FLOOR * largest).log10(),
        Axis::ScaledLog => *x = (x.abs() / scale).max(FLOOR).log10(),
    };
    s.runs.iter_mut().flat_map(|r| &mut r.nodes).for_each(place);
    Ok(s)
}
