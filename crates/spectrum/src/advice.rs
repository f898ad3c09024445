//! From spectra to words.

use serde::{Deserialize, Serialize};

use crate::{Axis, BlockSpectrum, SpectrumError, divergences};

/// How much blocks differ, in three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heterogeneity {
    /// Mean Jensen-Shannon divergence of the spectra, each scaled by its tenth-largest magnitude: differences of shape.
    pub shape: f64,
    /// The same on a logarithmic axis without scaling: differences of scale and of shape.
    pub scale: f64,
    /// Decades between the largest and the smallest of the blocks' largest magnitudes: what a single learning rate has to
    /// bridge.
    pub decades: f64,
}

impl Heterogeneity {
    /// Width of the Gauss curves for [`Heterogeneity::shape`], in tenth-largest magnitudes.
    pub const SIGMA: f64 = 0.05;
    /// The width for [`Heterogeneity::scale`], in decades.
    pub const DECADES: f64 = 0.1;

    /// Of these blocks.
    ///
    /// # Errors
    /// As [`divergences`].
    pub fn of(blocks: &[BlockSpectrum]) -> Result<Self, SpectrumError> {
        let magnitude = |b: &BlockSpectrum| b.top.value.abs().max(b.bottom.value.abs());
        let ends =
            blocks.iter().map(magnitude).fold((f64::INFINITY, 0.0_f64), |(a, b), m| (a.min(m), b.max(m)));
        Ok(Heterogeneity {
            shape: divergences(blocks, Axis::Scaled, Self::SIGMA)?.mean,
            scale: divergences(blocks, Axis::Log, Self::DECADES)?.mean,
            decades: (ends.1 / ends.0).log10(),
        })
    }
}
