use rhumb_core::{CheckpointError, EvalError};
use rhumb_krylov::KrylovError;

/// Why a spectrum could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpectrumError {
    /// A pattern names no tensor.
    #[error("no tensor matches the pattern `{pattern}`: the model has {some}")]
    Pattern {
        /// As it was given.
        pattern: String,
        /// Some of the names.
        some: String,
    },
    /// More Lanczos steps than a block has dimensions.
    #[error(
        "{steps} Lanczos steps are more than block {block} has parameters ({dim}): take fewer steps, or leave it out"
    )]
    Steps {
        /// Its name.
        block: String,
        /// Steps asked for.
        steps: usize,
        /// Its parameters.
        dim: usize,
    },
    /// A setting is out of its range.
    #[error("{0}")]
    Setting(String),
    /// The objective failed.
    #[error("batch {batch}{}: {source}", .block.as_ref().map(|b| format!(", block {b}")).unwrap_or_default())]
    Objective {
        /// The block, where one product failed.
        block: Option<String>,
        /// Number of the batch, from 0.
        batch: usize,
        /// What it says.
        #[source]
        source: EvalError,
    },
    /// A product holds NaN or infinities.
    #[error("the product with block {block} is not finite at batch {batch}: look at that batch, or use f64")]
    NonFinite {
        /// Its name.
        block: String,
        /// Number of the batch, from 0.
        batch: usize,
    },
    /// Two products with the same vector differ.
    #[error(
        "the objective is not deterministic: two products with block {block} at batch {batch} differ by {difference:.1e} \
         of their size. Switch dropout and other noise off"
    )]
    Random {
        /// Its name.
        block: String,
        /// Number of the batch, from 0.
        batch: usize,
        /// Relative.
        difference: f64,
    },
    /// Lanczos or another method failed.
    #[error("block {block}: {source}")]
    Krylov {
        /// Its name.
        block: String,
        /// What it says.
        #[source]
        source: KrylovError,
    },
    /// The caller said stop.
    #[error("stopped before the end")]
    Stopped,
    /// A saved state does not fit or cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl SpectrumError {
    pub(crate) fn krylov(block: &str, source: KrylovError) -> Self {
        SpectrumError::Krylov { block: block.to_owned(), source }
    }
}
