//! The folder of a run: manifest, records, tables, outcome, checkpoint.
//!
//! | file | content |
//! |---|---|
//! | `manifest.json` | [`Manifest`]: resolved configuration, seeds, versions, machine |
//! | `records.jsonl` | one [`Record`] a line; equal byte for byte between runs of a seed, `machine` apart |
//! | `records.csv` | the same as a table, written at the end |
//! | `tensorboard/` | event files |
//! | `outcome.json` | [`Outcome`] |
//! | `state.bin` | the last checkpoint, and `state.bin.prev` before it |

mod csv;
mod jsonl;
mod tensorboard;

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use self::csv::CsvObserver;
pub use self::jsonl::{JsonlObserver, format_record, parse_record, strip_machine};
pub use self::tensorboard::TensorboardObserver;
use crate::checkpoint::{self, CheckpointError};
use crate::{Manifest, ObserveError, Observer, Outcome, Record};

/// The folder of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder, and proves that it can be written, before any work is done. An existing folder is
    /// accepted when it is empty or, with `resume`, when it holds a run.
    ///
    /// # Errors
    /// [`ObserveError::Io`] when it cannot be made or written, [`ObserveError::Other`] when a run stands there.
    pub fn create(path: impl Into<PathBuf>, resume: bool) -> Result<Self, ObserveError> {
        let folder = RunFolder { path: path.into() };
        fs::create_dir_all(&folder.path).map_err(|e| io("create", &folder.path, e))?;
        let probe = folder.path.join(".writable");
        fs::write(&probe, b"rhumb").map_err(|e| io("write", &probe, e))?;
        fs::remove_file(&probe).map_err(|e| io("remove", &probe, e))?;
        if !resume && (folder.file("manifest.json").exists() || folder.file("records.jsonl").exists()) {
            return Err(ObserveError::Other(format!(
                "{} holds a run already: resume it, or choose another output folder",
                folder.path.display()
            )));
        }
        Ok(folder)
    }

    /// An existing folder, for reading.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        RunFolder { path: path.into() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the checkpoint goes.
    pub fn checkpoint_path(&self) -> PathBuf {
        self.file("state.bin")
    }

    /// Replaces a file atomically.
    ///
    /// # Errors
    /// [`ObserveError::Io`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ObserveError> {
        checkpoint::write_atomic(&self.file(name), bytes).map_err(from_checkpoint)
    }

    /// The manifest.
    ///
    /// # Errors
    /// [`ObserveError`] when it is missing or does not parse.
    pub fn manifest(&self) -> Result<Manifest, ObserveError> {
        self.json("manifest.json")
    }

    /// The outcome.
    ///
    /// # Errors
    /// [`ObserveError`] when it is missing (the run did not finish) or does not parse.
    pub fn outcome(&self) -> Result<Outcome, ObserveError> {
        self.json("outcome.json")
    }

    /// All records.
    ///
    /// # Errors
    /// [`ObserveError`] with the line that does not parse.
    pub fn records(&self) -> Result<Vec<Record>, ObserveError> {
        jsonl::read_all(&self.file("records.jsonl"))
    }

    /// An observer that writes everything listed at the top of this module, the checkpoint apart.
    pub fn observer(&self) -> FolderObserver {
        FolderObserver {
            folder: self.clone(),
            parts: vec![
                Box::new(JsonlObserver::new(self.file("records.jsonl"))),
                Box::new(TensorboardObserver::new(self.file("tensorboard"))),
                Box::new(CsvObserver::new(self.file("records.jsonl"), self.file("records.csv"))),
            ],
        }
    }

    fn json<V: DeserializeOwned>(&self, name: &str) -> Result<V, ObserveError> {
        let path = self.file(name);
        let text = fs::read(&path).map_err(|e| io("read", &path, e))?;
        serde_json::from_slice(&text).map_err(|e| ObserveError::Content {
            path,
            line: e.line(),
            what: e.to_string(),
        })
    }
}

/// Writes a whole run folder; see [`RunFolder::observer`].
pub struct FolderObserver {
    folder: RunFolder,
    parts: Vec<Box<dyn Observer>>,
}

impl FolderObserver {
    fn put_json<V: serde::Serialize>(&self, name: &str, value: &V) -> Result<(), ObserveError> {
        let mut text = serde_json::to_vec_pretty(value)
            .map_err(|e| ObserveError::Other(format!("{name} has no JSON form: {e}")))?;
        text.push(b'\n');
        self.folder.write(name, &text)
    }
}

impl Observer for FolderObserver {
    fn start(&mut self, run: &Manifest) -> Result<(), ObserveError> {
        self.put_json("manifest.json", run)?;
        self.parts.iter_mut().try_for_each(|p| p.start(run))
    }

    fn resume(&mut self, run: &Manifest, next_step: u64) -> Result<(), ObserveError> {
        self.put_json("manifest.json", run)?;
        self.parts.iter_mut().try_for_each(|p| p.resume(run, next_step))
    }

    fn record(&mut self, r: &Record) -> Result<(), ObserveError> {
        self.parts.iter_mut().try_for_each(|p| p.record(r))
    }

    fn sync(&mut self) -> Result<(), ObserveError> {
        self.parts.iter_mut().try_for_each(|p| p.sync())
    }

    fn finish(&mut self, outcome: &Outcome) -> Result<(), ObserveError> {
        // A table that cannot be written must not cost the outcome.
        let mut first = Ok(());
        for p in &mut self.parts {
            first = first.and(p.finish(outcome));
        }
        let written = self.put_json("outcome.json", outcome);
        first.and(written)
    }
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> ObserveError {
    ObserveError::Io { action, path: path.to_owned(), source }
}

fn from_checkpoint(e: CheckpointError) -> ObserveError {
    match e {
        CheckpointError::Io { action, path, source } => ObserveError::Io { action, path, source },
        other => ObserveError::Other(other.to_string()),
    }
}

fn not_started() -> ObserveError {
    ObserveError::Other("a record came before the start of the run".to_owned())
}

#[cfg(test)]
mod tests;
