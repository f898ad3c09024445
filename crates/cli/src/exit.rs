//! Exit codes, and the error that carries one.

use std::fmt;

use rhumb_core::{ObserveError, RunError};

/// How the program ends, besides with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The outcome of a claim differs from the record.
    Claim = 1,
    /// The command line, a recipe or a path is wrong.
    Usage = 2,
    /// A value became NaN or infinite.
    Numerical = 3,
    /// A file, a model or a data set is missing.
    Missing = 4,
    /// Interrupted by the user; the checkpoint is written.
    Interrupted = 130,
}

/// An error with its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: Code,
    error: anyhow::Error,
}

impl Failure {
    /// A failure with that code.
    pub(crate) fn new(code: Code, error: impl Into<anyhow::Error>) -> Self {
        Failure { code, error: error.into() }
    }

    /// A wrong command line, recipe or path.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Failure { code: Code::Usage, error: anyhow::Error::msg(text.into()) }
    }

    /// Something that has to be there first.
    pub(crate) fn missing(text: impl Into<String>) -> Self {
        Failure { code: Code::Missing, error: anyhow::Error::msg(text.into()) }
    }

    /// The same failure, with what was being done in front.
    pub(crate) fn context(self, what: impl fmt::Display + Send + Sync + 'static) -> Self {
        Failure { code: self.code, error: self.error.context(what) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Many errors tell their cause themselves; it is not told twice.
        let mut text = self.error.to_string();
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        f.write_str(&text)
    }
}

impl From<RunError> for Failure {
    fn from(e: RunError) -> Self {
        let code = if e.is_non_finite() { Code::Numerical } else { Code::Usage };
        Failure::new(code, e)
    }
}

impl From<ObserveError> for Failure {
    fn from(e: ObserveError) -> Self {
        Failure::new(Code::Usage, e)
    }
}

/// Reads a text file that the user named.
pub(crate) fn read_text(path: &std::path::Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| {
        let (code, advice) = match e.kind() {
            std::io::ErrorKind::NotFound => (Code::Missing, "check the path"),
            std::io::ErrorKind::InvalidData => (Code::Usage, "convert it to UTF-8"),
            _ => (Code::Usage, "check the path"),
        };
        Failure::new(code, anyhow::anyhow!("cannot read {}: {e}; {advice}", path.display()))
    })
}

/// Reads a text file that the user named, which may be packed by gzip.
pub(crate) fn read_packed(path: &std::path::Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|e| {
        let code = if e.kind() == std::io::ErrorKind::NotFound { Code::Missing } else { Code::Usage };
        Failure::new(code, anyhow::anyhow!("cannot read {}: {e}; check the path", path.display()))
    })?;
    let text = if bytes.starts_with(&[0x1f, 0x8b]) {
        std::io::read_to_string(flate2::read::MultiGzDecoder::new(&bytes[..])).map_err(|e| e.to_string())
    } else {
        String::from_utf8(bytes).map_err(|e| format!("{e}; convert it to UTF-8"))
    };
    text.map_err(|e| Failure::usage(format!("cannot read {}: {e}", path.display())))
}

/// Writes a file that the user named, making its folder.
pub(crate) fn write_file(path: &std::path::Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    folder
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(path, bytes))
        .map_err(|e| Failure::usage(format!("cannot write {}: {e}; choose another place", path.display())))
}
