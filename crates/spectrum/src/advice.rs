//! From spectra to words.

use serde::{Deserialize, Serialize};

use crate::{Axis, BlockSpectrum, SpectrumError, between_starts, divergences};

/// How much blocks differ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heterogeneity {
    /// Mean Jensen-Shannon divergence of the spectra as they are, smoothed as in the paper's code ([`Axis::OFFICIAL`]);
    /// `None` where eigenvalues so far apart fit no grid.
    pub raw: Option<f64>,
    /// The same of spectra scaled by their tenth-largest magnitude, as in the paper's plots; `None` as above.
    pub scaled: Option<f64>,
    /// The same of the logarithms of the magnitudes over the largest of their block: differences of shape.
    pub shape: f64,
    /// The same of the logarithms without scaling: differences of scale and of shape.
    pub scale: f64,
    /// Decades between the largest and the smallest of the blocks' largest magnitudes: what a single learning rate has to
    /// bridge.
    pub decades: f64,
    /// [`Heterogeneity::shape`] between start vectors of the same block: what chance alone gives; `None` with one.
    pub shape_noise: Option<f64>,
    /// The same of [`Heterogeneity::scale`].
    pub scale_noise: Option<f64>,
}

impl Heterogeneity {
    /// Width of the Gauss curves for [`Heterogeneity::scaled`], in tenth-largest magnitudes.
    pub const SIGMA: f64 = 0.05;
    /// The width for the logarithmic axes, in decades.
    pub const DECADES: f64 = 0.1;

    /// Of these blocks.
    ///
    /// # Errors
    /// [`SpectrumError::Setting`] for fewer than two blocks, or a spectrum that is zero.
    pub fn of(blocks: &[BlockSpectrum]) -> Result<Self, SpectrumError> {
        let magnitude = |b: &BlockSpectrum| b.top.value.abs().max(b.bottom.value.abs());
        let ends =
            blocks.iter().map(magnitude).fold((f64::INFINITY, 0.0_f64), |(a, b), m| (a.min(m), b.max(m)));
        Ok(Heterogeneity {
            shape: divergences(blocks, Axis::ScaledLog, Self::DECADES)?.mean,
            scale: divergences(blocks, Axis::Log, Self::DECADES)?.mean,
            decades: (ends.1 / ends.0).log10(),
            raw: divergences(blocks, Axis::Raw, Axis::OFFICIAL).ok().map(|d| d.mean),
            scaled: divergences(blocks, Axis::Scaled, Self::SIGMA).ok().map(|d| d.mean),
            shape_noise: between_starts(blocks, Axis::ScaledLog, Self::DECADES)?,
            scale_noise: between_starts(blocks, Axis::Log, Self::DECADES)?,
        })
    }
}

/// What SGD is to be expected to lose to Adam, from the distance between blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expectation {
    /// Nothing: one learning rate serves all blocks.
    Nothing,
    /// Little, once its rate is tuned.
    Little,
    /// Much.
    Much,
}

/// An expectation with what it stands on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// From the decades of all start vectors together.
    pub expectation: Expectation,
    /// From each start vector alone: what chance in them may change.
    pub single: Vec<Expectation>,
    /// Decades between the largest magnitudes of blocks, for each start vector alone.
    pub decades: Vec<f64>,
    /// The block with the largest magnitude, and it.
    pub largest: (String, f64),
    /// The block whose largest magnitude is the smallest, and it.
    pub smallest: (String, f64),
}

impl Advice {
    /// Decades up to which nothing is to be lost.
    ///
    /// This and [`Advice::LITTLE`] were drawn between nets of `hessian/block-heterogeneity`, `hessian/adam-sgd-gap` and
    /// `hessian/fine-tuning` after those were measured, and tried on no others. Nets that contradict them: a masked encoder
    /// of 5.9 decades lost nothing; perceptrons of five layers (`hessian/heterogeneity-dial`) lost 0.11, 0.06, 0.15 and
    /// 0.19 nats at 0.5, 2.3, 4.7 and 7.1 decades.
    pub const NOTHING: f64 = 1.0;
    /// Decades up to which little is to be lost.
    pub const LITTLE: f64 = 2.3;

    /// Of these blocks.
    ///
    /// # Errors
    /// [`SpectrumError::Setting`] for fewer than two blocks, or a block whose largest magnitude is zero or not a number.
    pub fn of(blocks: &[BlockSpectrum]) -> Result<Self, SpectrumError> {
        let starts = blocks.iter().map(|b| b.nodes.len()).min().unwrap_or(0);
        let all = |b: &BlockSpectrum| b.top.value.abs().max(b.bottom.value.abs());
        let mut sizes: Vec<(String, f64)> = blocks.iter().map(|b| (b.block.name.clone(), all(b))).collect();
        if let Some((name, _)) = sizes.iter().find(|(_, m)| !(*m > 0.0 && m.is_finite())) {
            return Err(SpectrumError::Setting(format!("block {name} has no curvature: leave it out")));
        }
        sizes.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (Some(smallest), Some(largest), true) = (sizes.first(), sizes.last(), blocks.len() > 1) else {
            return Err(SpectrumError::Setting("blocks are compared: choose two or more".to_owned()));
        };
        let expect = |decades: f64| {
            if decades <= Self::NOTHING {
                Expectation::Nothing
            } else if decades <= Self::LITTLE {
                Expectation::Little
            } else {
                Expectation::Much
            }
        };
        let one = |s: usize| {
            let sizes = blocks.iter().map(|b| b.nodes[s].iter().fold(0.0_f64, |m, x| m.max(x.abs())));
            let (low, high) = sizes.fold((f64::INFINITY, 0.0_f64), |(a, b), m| (a.min(m), b.max(m)));
            (high / low).log10()
        };
        let decades: Vec<f64> = (0..starts).map(one).collect();
        Ok(Advice {
            expectation: expect((largest.1 / smallest.1).log10()),
            single: decades.iter().map(|d| expect(*d)).collect(),
            decades,
            largest: largest.clone(),
            smallest: smallest.clone(),
        })
    }

    /// Whether every start vector alone says the same.
    pub fn is_settled(&self) -> bool {
        self.single.len() > 1 && self.single.iter().all(|e| *e == self.expectation)
    }
}
