//! The one run loop.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, CheckpointError, StateReader};
use crate::{
    Algorithm, Budget, Counts, EvalError, Manifest, MemoryReport, ObserveError, Observer, Outcome, Record,
    Status, Step, StopReason, Streams,
};

/// Seconds from any fixed moment. Libraries read no clock of their own: the caller lends one, and a test
/// lends one that stands still. Every `Fn() -> f64` is a clock.
pub trait Clock {
    /// Seconds since the clock's origin.
    fn now_s(&self) -> f64;
}

impl<F: Fn() -> f64> Clock for F {
    fn now_s(&self) -> f64 {
        self()
    }
}

/// Where and how often to write checkpoints. One is also written at the end, and at an interruption.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointPlan {
    /// The file; its folder exists.
    pub path: PathBuf,
    /// After every so many steps.
    pub every_steps: Option<u64>,
    /// After so many seconds since the last one.
    pub every_s: Option<f64>,
}

/// What the caller lends to a run.
#[derive(Clone, Copy)]
pub struct RunControl<'a> {
    /// Handed to observers.
    pub manifest: &'a Manifest,
    /// Times the run.
    pub clock: &'a dyn Clock,
    /// Set by a signal handler; looked at before every step.
    pub stop: &'a AtomicBool,
    /// `None` writes no checkpoints.
    pub checkpoint: Option<&'a CheckpointPlan>,
    /// Go on from the checkpoint of the plan, if there is one.
    pub resume: bool,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An evaluation failed.
    #[error("step {step}: {source}")]
    Step {
        /// The step.
        step: u64,
        /// Why.
        source: EvalError,
    },
    /// An observer failed.
    #[error("step {step}: {source}")]
    Observe {
        /// The step that was being reported.
        step: u64,
        /// Why.
        source: ObserveError,
    },
    /// A checkpoint could not be written or read.
    #[error("step {step}: {source}")]
    Checkpoint {
        /// The step.
        step: u64,
        /// Why.
        source: CheckpointError,
    },
}

impl RunError {
    /// The step at which it happened.
    pub fn step(&self) -> u64 {
        match self {
            RunError::Step { step, .. }
            | RunError::Observe { step, .. }
            | RunError::Checkpoint { step, .. } => *step,
        }
    }

    /// True for a NaN or an infinity, which a program reports with an exit code of its own.
    pub fn is_non_finite(&self) -> bool {
        matches!(self, RunError::Step { source: EvalError::NonFinite { .. }, .. })
    }
}

/// What a checkpoint says about the run itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    algorithm: String,
    next_step: u64,
    converged: bool,
    wall_s: f64,
    evals: Counts,
    peak_bytes: MemoryReport,
}

/// Drives `algo` until it is done, the budget is used up or the user stops it.
///
/// Seeds, budget, observers, checkpoints and stop reasons live here and nowhere else. With the same seed,
/// a run that is interrupted or killed and resumed any number of times ends with the same state and the same
/// records as an undisturbed one; only machine values differ. `wall_s` is added to every record.
///
/// # Errors
/// [`RunError`]; observers have then seen an outcome with [`StopReason::Failed`], and the last checkpoint is
/// from before the failure.
pub fn run(
    algo: &mut dyn Algorithm,
    budget: &Budget,
    streams: &mut Streams,
    observers: &mut [&mut dyn Observer],
    control: &RunControl<'_>,
) -> Result<Outcome, RunError> {
    let mut l = Loop {
        progress: Progress { algorithm: algo.name().to_owned(), ..Progress::default() },
        notes: Vec::new(),
        began_s: control.clock.now_s(),
        before_s: 0.0,
        saved_s: 0.0,
        saved_step: None,
    };
    let resumed = l.resume(algo, streams, control)?;
    let step = l.progress.next_step;
    for o in observers.iter_mut() {
        if resumed { o.resume(control.manifest, step) } else { o.start(control.manifest) }
            .map_err(|source| RunError::Observe { step, source })?;
    }
    let result = l.drive(algo, budget, streams, observers, control).and_then(|reason| {
        l.save(algo, streams, observers, control)?;
        Ok(reason)
    });
    l.tick(control);
    let mut outcome = Outcome {
        reason: *result.as_ref().unwrap_or(&StopReason::Failed),
        steps: l.progress.next_step,
        wall_s: l.progress.wall_s,
        evals: l.progress.evals,
        peak_bytes: l.progress.peak_bytes,
        notes: l.notes,
        error: result.as_ref().err().map(ToString::to_string),
    };
    // Every observer gets to finish; of several errors the first one is told.
    let mut first = None;
    for o in observers.iter_mut() {
        if let Err(source) = o.finish(&outcome) {
            first.get_or_insert(RunError::Observe { step: outcome.steps, source });
        }
    }
    outcome.reason = result?;
    first.map_or(Ok(outcome), Err)
}

struct Loop {
    progress: Progress,
    notes: Vec<String>,
    began_s: f64,
    before_s: f64,
    saved_s: f64,
    saved_step: Option<u64>,
}

impl Loop {
    fn tick(&mut self, control: &RunControl<'_>) {
        self.progress.wall_s = self.before_s + control.clock.now_s() - self.began_s;
    }

    fn drive(
        &mut self,
        algo: &mut dyn Algorithm,
        budget: &Budget,
        streams: &mut Streams,
        observers: &mut [&mut dyn Observer],
        control: &RunControl<'_>,
    ) -> Result<StopReason, RunError> {
        loop {
            self.tick(control);
            if let Some(reason) = self.over(budget, control) {
                return Ok(reason);
            }
            let step = self.progress.next_step;
            let mut record = Record::new(step);
            let evals = &mut self.progress.evals;
            let status = algo
                .step(&mut Step { k: step, streams, record: &mut record, evals })
                .map_err(|source| RunError::Step { step, source })?;
            self.progress.peak_bytes = self.progress.peak_bytes.max(algo.memory());
            self.tick(control);
            if !record.is_empty() {
                record.machine("wall_s", self.progress.wall_s);
                for o in observers.iter_mut() {
                    o.record(&record).map_err(|source| RunError::Observe { step, source })?;
                }
            }
            self.progress.next_step += 1;
            self.progress.converged = status == Status::Done;
            if self.due(control) {
                self.save(algo, streams, observers, control)?;
            }
        }
    }

    fn over(&self, budget: &Budget, control: &RunControl<'_>) -> Option<StopReason> {
        if self.progress.converged {
            Some(StopReason::Converged)
        } else if budget.steps.is_some_and(|n| self.progress.next_step >= n) {
            Some(StopReason::Steps)
        } else if control.stop.load(Ordering::Relaxed) {
            Some(StopReason::Interrupted)
        } else if budget.wall_s.is_some_and(|s| self.progress.wall_s >= s) {
            Some(StopReason::Time)
        } else {
            None
        }
    }

    fn due(&self, control: &RunControl<'_>) -> bool {
        let Some(plan) = control.checkpoint else { return false };
        plan.every_steps.is_some_and(|n| n > 0 && self.progress.next_step.is_multiple_of(n))
            || plan.every_s.is_some_and(|s| self.progress.wall_s - self.saved_s >= s)
    }

    fn save(
        &mut self,
        algo: &dyn Algorithm,
        streams: &Streams,
        observers: &mut [&mut dyn Observer],
        control: &RunControl<'_>,
    ) -> Result<(), RunError> {
        let step = self.progress.next_step;
        for o in observers.iter_mut() {
            o.sync().map_err(|source| RunError::Observe { step, source })?;
        }
        let Some(plan) = control.checkpoint else { return Ok(()) };
        if self.saved_step == Some(step) {
            return Ok(());
        }
        checkpoint::write(&plan.path, |w| {
            w.put_json("run", &self.progress)?;
            w.put_text("streams", &streams.save())?;
            w.scope("algorithm", |w| algo.save(w))
        })
        .map_err(|source| RunError::Checkpoint { step, source })?;
        self.saved_step = Some(step);
        self.saved_s = self.progress.wall_s;
        Ok(())
    }

    fn resume(
        &mut self,
        algo: &mut dyn Algorithm,
        streams: &mut Streams,
        control: &RunControl<'_>,
    ) -> Result<bool, RunError> {
        let Some(plan) = control.checkpoint else { return Ok(false) };
        if !control.resume || !checkpoint::exists(&plan.path) {
            return Ok(false);
        }
        self.load(algo, streams, plan).map_err(|source| RunError::Checkpoint { step: 0, source })?;
        Ok(true)
    }

    fn load(
        &mut self,
        algo: &mut dyn Algorithm,
        streams: &mut Streams,
        plan: &CheckpointPlan,
    ) -> Result<(), CheckpointError> {
        let (mut src, note): (StateReader, _) = checkpoint::open_latest(&plan.path)?;
        self.notes.extend(note);
        let progress: Progress = src.json("run")?;
        if progress.algorithm != self.progress.algorithm {
            return Err(CheckpointError::Mismatch(format!(
                "{} was written by the algorithm {}, this run uses {}: choose another output folder",
                plan.path.display(),
                progress.algorithm,
                self.progress.algorithm
            )));
        }
        let text = src.text("streams")?;
        streams.load(&text).map_err(CheckpointError::Mismatch)?;
        src.scope("algorithm", |r| algo.load(r))?;
        self.before_s = progress.wall_s;
        self.saved_s = progress.wall_s;
        self.saved_step = Some(progress.next_step);
        self.progress = progress;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
