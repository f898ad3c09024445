//! From spectra to words.

use serde::{Deserialize, Serialize};

use crate::{Axis, BlockSpectrum, SpectrumError, divergences};

/// How much blocks differ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heterogeneity {
    /// Mean Jensen-Shannon divergence of the spectra as they are, smoothed as in the paper's code ([`Axis::OFFICIAL`]);
    /// `None` where eigenvalues so far apart fit no grid.
    pub raw: Option<f64>,
    /// The same of spectra scaled by their tenth-largest magnitude, as in the paper's plots; `None` as above.
    pub scaled: Option<f64>,
    /// The same of the logarithms of the scaled magnitudes: differences of shape.
    pub shape: f64,
    /// The same of the logarithms without scaling: differences of scale and of shape.
    pub scale: f64,
    /// Decades between the largest and the smallest of the blocks' largest magnitudes: what a single learning rate has to
    /// bridge.
    pub decades: f64,
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
        })
    }
}
