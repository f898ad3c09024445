//! How a run ended and what it cost.

use serde::{Deserialize, Serialize};

/// Why a run stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// The algorithm met its own criterion.
    Converged,
    /// All steps of the budget were taken.
    Steps,
    /// The time of the budget was used up.
    Time,
    /// The user asked to stop.
    Interrupted,
    /// A step or an observer failed.
    Failed,
}

impl StopReason {
    /// One sentence: what happened and what to try.
    pub fn advice(self) -> &'static str {
        match self {
            StopReason::Converged => "the algorithm met its own criterion; nothing is left to do",
            StopReason::Steps => {
                "all steps of the budget were taken; more steps are another run, from its start"
            }
            StopReason::Time => "the time budget is used up; to go on, raise the seconds and resume",
            StopReason::Interrupted => "interrupted; to go on from the last checkpoint, resume the same run",
            StopReason::Failed => {
                "a step failed; read the error, then resume from the last checkpoint with a smaller learning rate"
            }
        }
    }
}

/// What a run may use; `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// Total steps, counted from the very first one also after a resume.
    pub steps: Option<u64>,
    /// Total seconds, counted over all parts of a resumed run.
    pub wall_s: Option<f64>,
}

impl Budget {
    /// A number of steps and no time limit.
    pub fn steps(n: u64) -> Self {
        Budget { steps: Some(n), wall_s: None }
    }
}

/// Oracle calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Values without gradient.
    pub values: u64,
    /// Gradients (a value comes with each).
    pub gradients: u64,
    /// Hessian-vector (or Jacobian-vector) products.
    pub products: u64,
    /// Samples or tokens read; the algorithm's page says which.
    pub samples: u64,
}

/// Bytes by what they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryReport {
    /// Weights.
    pub parameters: u64,
    /// Gradients.
    pub gradients: u64,
    /// State of the optimizer.
    pub optimizer: u64,
    /// Values kept for the backward pass.
    pub activations: u64,
    /// Everything that lives within one operation.
    pub scratch: u64,
}

impl MemoryReport {
    /// The sum of all categories.
    pub fn total(&self) -> u64 {
        self.parameters + self.gradients + self.optimizer + self.activations + self.scratch
    }

    /// Category by category, the larger one.
    pub fn max(self, other: Self) -> Self {
        MemoryReport {
            parameters: self.parameters.max(other.parameters),
            gradients: self.gradients.max(other.gradients),
            optimizer: self.optimizer.max(other.optimizer),
            activations: self.activations.max(other.activations),
            scratch: self.scratch.max(other.scratch),
        }
    }
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Why it stopped.
    pub reason: StopReason,
    /// Steps taken in all parts of the run together.
    pub steps: u64,
    /// Seconds in all parts of the run together.
    pub wall_s: f64,
    /// Oracle calls in all parts of the run together.
    pub evals: Counts,
    /// Largest bytes of each category.
    pub peak_bytes: MemoryReport,
    /// Things a reader should know, e.g. that an older checkpoint had to be taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The error, when the reason is [`StopReason::Failed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
