use rhumb_nn::loss::LossKind;
use rhumb_nn::model::ModelError;
use rhumb_optim::{OptimError, OptimizerConfig, ScheduleConfig};
use serde::{Deserialize, Serialize};

use crate::data::DataError;

/// Settings of a fine-tuning. A step takes `batch * accumulate` packed rows of `tokens` tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
    /// Updates of the parameters in the whole run. One takes `batch * accumulate` packed rows, so that a pass over
    /// the data is `rows / (batch * accumulate)` steps; a step at the end of a pass goes on with the next one.
    pub steps: u64,
    /// Packed rows of a micro-batch, the rows that are in memory at once (elsewhere: batch size per device).
    pub batch: usize,
    /// Micro-batches whose gradients are added up for a step (elsewhere: gradient accumulation steps).
    pub accumulate: usize,
    /// Tokens of a packed row, at least those of the longest document (elsewhere: maximum sequence length).
    pub tokens: usize,
    /// The optimizer with its peak learning rate.
    pub optimizer: OptimizerConfig,
    /// The course of the learning rate.
    pub schedule: ScheduleConfig,
    /// The loss.
    pub loss: LossKind,
    /// Largest global norm of the gradient.
    pub clip_norm: Option<f64>,
    /// Compute each layer's values again in the backward pass instead of keeping them.
    pub recompute: bool,
    /// Update every tensor during the backward pass.
    pub update_in_backward: bool,
    /// Steps between evaluations.
    pub eval_every: u64,
    /// Seed of the order of the data.
    pub seed: u64,
}

/// Why a fine-tuning cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SftError {
    /// A setting.
    #[error("{0}")]
    Setting(String),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The optimizer or the schedule.
    #[error(transparent)]
    Optimizer(#[from] OptimError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl SftConfig {
    /// Looks for settings that make no sense together.
    ///
    /// # Errors
    /// The first one, with the reason.
    pub fn check(&self) -> Result<(), SftError> {
        let bad = |s: &str| Err(SftError::Setting(s.into()));
        if self.steps == 0 || self.batch == 0 || self.accumulate == 0 || self.eval_every == 0 {
            return bad("steps, batch, accumulate and eval_every must be at least 1");
        }
        if self.update_in_backward && self.clip_norm.is_some() {
            return bad(
                "update-in-backward and clipping by global norm exclude each other: the norm is known only when every \
                 gradient is, and by then the first tensors have been updated and their gradients freed; use --clip 0",
            );
        }
        if self.update_in_backward && self.accumulate > 1 {
            return bad(
                "update-in-backward and accumulation exclude each other: a tensor would be updated before the gradients \
                 of later micro-batches exist; use --accumulate 1",
            );
        }
        if let Some(c) = self.clip_norm
            && !(c.is_finite() && c > 0.0)
        {
            return bad("the clipping norm must be positive; leave it out to switch clipping off");
        }
        self.loss.checked().map_err(|e| SftError::Setting(e.to_string()))?;
        Ok(())
    }
}
