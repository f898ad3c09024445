//! What a run loop can drive.

use crate::checkpoint::{CheckpointError, StateReader, StateWriter};
use crate::{Counts, EvalError, MemoryReport, Record, Streams};

/// Whether a run should go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Another step is welcome.
    Continue,
    /// The algorithm's own criterion is met.
    Done,
}

/// What the loop lends to one step.
pub struct Step<'a> {
    /// The step, from 0; it goes on counting after a resume.
    pub k: u64,
    /// The random streams of the run.
    pub streams: &'a mut Streams,
    /// Where to report; a step that puts nothing is not shown to observers.
    pub record: &'a mut Record,
    /// Oracle calls, to be raised by the algorithm.
    pub evals: &'a mut Counts,
}

/// An algorithm together with its problem and its state.
///
/// A step is the unit in which the paper's x-axis counts. The trait is object-safe: the run loop is compiled
/// once, and one virtual call per step is nothing beside the work of a step.
pub trait Algorithm {
    /// The paper's name for it, e.g. `"adam-mini"`.
    fn name(&self) -> &'static str;

    /// One step.
    ///
    /// # Errors
    /// [`EvalError`] when an evaluation fails; the loop adds the step and stops.
    fn step(&mut self, s: &mut Step<'_>) -> Result<Status, EvalError>;

    /// Writes all state that the next step depends on, except the random streams.
    ///
    /// # Errors
    /// Passes on what [`StateWriter`] says.
    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError>;

    /// Restores what [`Algorithm::save`] wrote.
    ///
    /// # Errors
    /// [`CheckpointError`] when the state belongs to something else.
    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError>;

    /// Bytes held right now; the loop keeps the largest.
    fn memory(&self) -> MemoryReport {
        MemoryReport::default()
    }
}
