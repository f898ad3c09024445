//! Those who watch a run.

use std::path::PathBuf;

use crate::{Manifest, Outcome, Record};

/// Why an observer failed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A file could not be written or read.
    #[error("cannot {action} {}: {source}; {}", .path.display(), remedy(.source))]
    Io {
        /// `"write"`, `"create"` ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the run folder does not have the expected content.
    #[error("{}, line {line}: {what}; move the folder away and start the run anew", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A record cannot be represented.
    #[error("step {step}: {what}")]
    Record {
        /// The step.
        step: u64,
        /// What is wrong and what to try.
        what: String,
    },
    /// Any other failure of a user's observer.
    #[error("{0}")]
    Other(String),
}

/// What a user can do about a failed file operation.
pub(crate) fn remedy(e: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as K;
    match e.kind() {
        K::StorageFull | K::QuotaExceeded | K::WriteZero => {
            "free some space, then resume: the last checkpoint is untouched"
        }
        K::FileTooLarge => {
            "raise the limit on the size of files, then resume: the last checkpoint is untouched"
        }
        K::PermissionDenied | K::ReadOnlyFilesystem => {
            "choose an output folder that you may write to, or change its permissions"
        }
        K::NotFound => "check the path: a folder on the way does not exist",
        K::NotADirectory | K::IsADirectory | K::AlreadyExists => {
            "something else stands at this path: choose another one"
        }
        _ => "check the disk and the path, then resume from the last checkpoint",
    }
}

/// Watches a run: a file writer, a progress bar, a test.
pub trait Observer {
    /// Before the first step of a fresh run.
    ///
    /// # Errors
    /// [`ObserveError`]; the run does not start.
    fn start(&mut self, run: &Manifest) -> Result<(), ObserveError> {
        let _ = run;
        Ok(())
    }

    /// Instead of [`Observer::start`] when a run goes on at step `next_step`: forget later records.
    ///
    /// # Errors
    /// [`ObserveError`]; the run does not go on.
    fn resume(&mut self, run: &Manifest, next_step: u64) -> Result<(), ObserveError> {
        let _ = next_step;
        self.start(run)
    }

    /// After a step that reported something.
    ///
    /// # Errors
    /// [`ObserveError`]; the run stops and its last checkpoint stays, so that a resume repeats this record.
    fn record(&mut self, r: &Record) -> Result<(), ObserveError>;

    /// Before a checkpoint: make all earlier records durable, so that no checkpoint is ahead of them.
    ///
    /// # Errors
    /// [`ObserveError`]; the checkpoint is not written.
    fn sync(&mut self) -> Result<(), ObserveError> {
        Ok(())
    }

    /// After the last step, also of an interrupted or failed run.
    ///
    /// # Errors
    /// [`ObserveError`].
    fn finish(&mut self, outcome: &Outcome) -> Result<(), ObserveError> {
        let _ = outcome;
        Ok(())
    }
}
