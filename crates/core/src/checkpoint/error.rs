use std::io;
use std::path::{Path, PathBuf};

use crate::observer::remedy;

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refused.
    #[error("cannot {action} {}: {source}; {}", .path.display(), remedy(.source))]
    Io {
        /// `"write"`, `"open"` ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not begin like a checkpoint.
    #[error("{} is not a checkpoint of this program: it begins with other bytes; check the path", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by another version of the format.
    #[error("{} has checkpoint format {found}, this program reads {known}: use the version that wrote it", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version of this program.
        known: u32,
    },
    /// The file ends too early.
    #[error("{} is cut off at byte {at}: take the file kept beside it with the ending .prev, or start anew", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where it ends.
        at: u64,
    },
    /// The bytes are not those that were written.
    #[error("{} is damaged in {place}: take the file kept beside it with the ending .prev, or start anew", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Section or part.
        place: String,
    },
    /// A section that the reader needs is not there, or has another size.
    #[error("{}, section {section}: {what}; the checkpoint belongs to another model or configuration", .path.display())]
    Section {
        /// The file.
        path: PathBuf,
        /// Its name.
        section: String,
        /// What does not fit.
        what: String,
    },
    /// The state does not belong to this algorithm, layout or seed.
    #[error("{0}")]
    Mismatch(String),
}

impl CheckpointError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        CheckpointError::Io { action, path: path.to_owned(), source }
    }
}
