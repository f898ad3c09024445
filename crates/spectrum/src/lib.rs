//! Spectra of blocks of curvature matrices: what they look like, how much they differ, what follows for training.
//!
//! Everything here works on any [`rhumb_core::SecondOrder`] objective, a model of the compute core or a user's own
//! ([`FnObjective`]): products are all that is asked for.
//!
//! # Reference
//! Zhang, Chen, Ding, Li, Sun, Luo, "Why Transformers Need Adam: A Hessian Perspective", NeurIPS 2024.

mod advice;
mod block;
mod divergence;
mod error;
mod landscape;
mod operator;
mod outside;
mod sharing;
mod slq;
mod structure;
#[cfg(test)]
mod tests;

pub use advice::{Advice, Expectation, Heterogeneity};
pub use block::{BlockAt, Cut, blocks, group, whole};
pub use divergence::{Axis, Divergences, between_starts, divergences, js};
pub use error::SpectrumError;
pub use landscape::{Slice, filter_normalised, slice};
pub use operator::{BlockOp, CurvatureOf, Reduction, Sample, SelfCheck};
pub use outside::FnObjective;
pub use sharing::{Sharing, Spread, sharing};
pub use slq::{BlockSpectrum, RitzPair, SlqRun, Step, top_vector};
pub use structure::{
    Diagonality, NormMap, block_diagonality, block_norms, dense, disjoint, norm_map,
    preconditioned_condition, tau,
};
