//! Exit codes, and the error that carries one.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use rhumb_core::{CheckpointError, ObserveError, RunError};

/// Bytes that are read at once.
const BUFFER: usize = 1 << 16;

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

impl From<CheckpointError> for Failure {
    fn from(e: CheckpointError) -> Self {
        Failure::new(Code::Usage, e)
    }
}

impl From<ObserveError> for Failure {
    fn from(e: ObserveError) -> Self {
        Failure::new(Code::Usage, e)
    }
}

/// Reads a text file that the user named.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| {
        let (code, advice) = match e.kind() {
            io::ErrorKind::NotFound => (Code::Missing, "check the path"),
            io::ErrorKind::InvalidData => (Code::Usage, "convert it to UTF-8"),
            _ => (Code::Usage, "check the path"),
        };
        Failure::new(code, anyhow::anyhow!("cannot read {}: {e}; {advice}", path.display()))
    })
}

/// Opens a file that the user named; one packed by gzip, told by its first bytes, is unpacked as it is read.
pub(crate) fn open_packed(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    let wrong = |e: io::Error| {
        let code = if e.kind() == io::ErrorKind::NotFound { Code::Missing } else { Code::Usage };
        Failure::new(code, anyhow::anyhow!("cannot read {}: {e}; check the path", path.display()))
    };
    let mut file = BufReader::with_capacity(BUFFER, File::open(path).map_err(wrong)?);
    let packed = file.fill_buf().map_err(wrong)?.starts_with(&[0x1f, 0x8b]);
    Ok(if packed {
        Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file)))
    } else {
        Box::new(file)
    })
}

/// Reads a text file that the user named, which may be packed by gzip.
pub(crate) fn read_packed(path: &Path) -> Result<String, Failure> {
    let wrong = |e: String| Failure::usage(format!("cannot read {}: {e}", path.display()));
    let mut bytes = Vec::new();
    open_packed(path)?.read_to_end(&mut bytes).map_err(|e| wrong(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| wrong(format!("{e}; convert it to UTF-8")))
}

/// Writes a file that the user named, making its folder.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    folder
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(path, bytes))
        .map_err(|e| Failure::usage(format!("cannot write {}: {e}; choose another place", path.display())))
}
