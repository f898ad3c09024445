use std::io;
use std::path::{Path, PathBuf};

/// Why a model file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The system refused.
    #[error("cannot {action} {}: {source}; {}", .path.display(), remedy(.source))]
    Io {
        /// `"open"`, `"read"`, `"write"` ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file ends before what it promises.
    #[error(
        "{} ends too early: {what} at byte {at} needs {needed} bytes, the file has {size}; download or copy it \
         again", .path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What was to be read, with the tensor or key.
        what: String,
        /// Where it starts.
        at: u64,
        /// Its length.
        needed: u64,
        /// The length of the file.
        size: u64,
    },
    /// The file is of another kind.
    #[error("{} is not a {expected} file: it begins with {found}; check the path", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The kind that was expected.
        expected: &'static str,
        /// Its first bytes, printably.
        found: String,
    },
    /// A version of the format that is not read here.
    #[error("{} has {format} version {found}: {hint}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// `"GGUF"`.
        format: &'static str,
        /// Its version.
        found: u32,
        /// What to try.
        hint: &'static str,
    },
    /// The bytes contradict the format.
    #[error("{} is malformed at byte {at}: {what}; download or convert it again", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong there.
        what: String,
    },
    /// A file that is needed is not there.
    #[error("{} {what}", .path.display())]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// What is missing and what to try.
        what: String,
    },
    /// A tensor is missing, of an unreadable type or of the wrong shape.
    #[error("{}, tensor {tensor}: {what}", .path.display())]
    Tensor {
        /// The file or folder.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// What is wrong and what to try.
        what: String,
    },
    /// A setting is missing or cannot be used.
    #[error("{}, key {key}: {what}", .path.display())]
    Key {
        /// The file or folder.
        path: PathBuf,
        /// The metadata or JSON key.
        key: String,
        /// What is wrong and what to try.
        what: String,
    },
    /// A row of a table cannot be read.
    #[error("{}, row {row}: {what}; write the file again", .path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The row, counted from one.
        row: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A JSON file does not parse.
    #[error("{} is not the JSON that was expected: {source}; restore the file from its source", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// With line and column.
        source: serde_json::Error,
    },
    /// The tokenizer cannot be built.
    #[error(transparent)]
    Tokenizer(#[from] super::tokenizer::TokenizerError),
}

impl IoError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        IoError::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn malformed(path: &Path, at: u64, what: impl Into<String>) -> Self {
        IoError::Malformed { path: path.to_owned(), at, what: what.into() }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, what: impl Into<String>) -> Self {
        IoError::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), what: what.into() }
    }

    pub(crate) fn key(path: &Path, key: &str, what: impl Into<String>) -> Self {
        IoError::Key { path: path.to_owned(), key: key.to_owned(), what: what.into() }
    }
}

fn remedy(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "choose a place that you may write to, or change the permissions"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space",
        io::ErrorKind::IsADirectory => "give a file, not a folder",
        io::ErrorKind::AlreadyExists => "choose another place or remove what is there",
        io::ErrorKind::NotADirectory => "a file stands where a folder is needed",
        _ => "check the disk and the path",
    }
}
