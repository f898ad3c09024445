//! What the stages tell each other: an order in the arguments, a report on standard error.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a program may take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Time on the clock, the start of Python included.
    pub(crate) wall_s: f64,
    /// Address space.
    pub(crate) memory_mib: u64,
}

/// Largest file, and size of the folder that a program may write, in bytes.
pub(super) const DISK: u64 = 16 << 20;

/// The work of a stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The stage.
    pub(super) inner: bool,
    /// Python's executable.
    pub(super) python: PathBuf,
    /// What may be read.
    pub(super) readable: Vec<PathBuf>,
    /// An empty folder: the new root in the outer stage, the folder of the program in the inner one.
    pub(super) folder: PathBuf,
    pub(super) limits: Limits,
}

/// How a stage ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The sandbox could not be made.
    Failed {
        /// What was being done.
        step: Step,
        /// Why it failed.
        reason: String,
    },
    /// Python ended, or was ended.
    Ran {
        /// Whether Landlock holds.
        landlock: bool,
        ended: Ended,
    },
}

/// Steps of making a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    Namespaces,
    Root,
    Landlock,
    Start,
}

/// How Python ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ended {
    Timeout,
    Code(i32),
    Signal(i32),
}

impl Step {
    /// A failure of this step, for `map_err`.
    pub(super) fn failed<E: std::fmt::Display>(
        self,
        what: impl std::fmt::Display,
    ) -> impl FnOnce(E) -> Report {
        move |e| Report::Failed { step: self, reason: format!("{what}: {e}") }
    }
}
