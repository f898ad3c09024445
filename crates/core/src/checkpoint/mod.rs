//! Checkpoint files: named sections with checksums, replaced atomically.
//!
//! # Format
//! All numbers little-endian. `RHUMBCKP`, version `u32`; then for every section a byte 1, name length `u16`,
//! name (UTF-8), data length `u64`, data, CRC-32C `u32` of name, length and data; then a byte 0, the number of
//! sections `u64` and its CRC-32C `u32`. Nothing follows.
//!
//! # Durability
//! [`write()`] fills a temporary file beside the target, syncs it, moves the target to `NAME.prev`, moves the
//! temporary file to the target and syncs the folder. A process that is killed at any moment leaves the new or
//! the old checkpoint; [`open_latest`] takes the newest whole one.

mod error;
mod reader;
mod writer;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

pub use error::CheckpointError;
pub use reader::StateReader;
pub use writer::StateWriter;

pub(crate) const MAGIC: &[u8; 8] = b"RHUMBCKP";
pub(crate) const VERSION: u32 = 1;

/// Replaces the checkpoint at `path` by the sections that `fill` writes, keeping the old one as `NAME.prev`.
///
/// # Errors
/// [`CheckpointError`]; the old checkpoint is then untouched and no temporary file is left.
pub fn write(
    path: &Path,
    fill: impl FnOnce(&mut StateWriter<'_>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    replace(path, true, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let mut w = StateWriter::new(&mut out, path)?;
        fill(&mut w)?;
        w.finish()?;
        out.flush().map_err(|e| CheckpointError::io("write", path, e))
    })
}

/// Replaces a small file atomically; readers see the old or the new text, never a part.
///
/// # Errors
/// [`CheckpointError::Io`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    replace(path, false, |file| file.write_all(bytes).map_err(|e| CheckpointError::io("write", path, e)))
}

/// Opens one checkpoint file after checking every byte of it.
///
/// # Errors
/// [`CheckpointError`]: missing, foreign, of another version, truncated or corrupt.
pub fn open(path: &Path) -> Result<StateReader, CheckpointError> {
    let file = File::open(path).map_err(|e| CheckpointError::io("open", path, e))?;
    StateReader::new(Box::new(file), path)
}

/// Opens the newest whole checkpoint: `path`, or the one kept before it. The second value says why the older
/// one was taken.
///
/// # Errors
/// The error of `path` itself when neither is whole.
pub fn open_latest(path: &Path) -> Result<(StateReader, Option<String>), CheckpointError> {
    match open(path) {
        Ok(r) => Ok((r, None)),
        Err(first) => match open(&previous(path)) {
            Ok(r) => {
                let note = format!("took the checkpoint before the last one, because: {first}");
                Ok((r, Some(note)))
            }
            Err(_) => Err(first),
        },
    }
}

/// True when a checkpoint, or the one kept before it, stands at `path`.
pub fn exists(path: &Path) -> bool {
    path.exists() || previous(path).exists()
}

/// Where the checkpoint before the last one is kept.
pub fn previous(path: &Path) -> PathBuf {
    with_suffix(path, ".prev")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

fn replace(
    path: &Path,
    keep: bool,
    fill: impl FnOnce(&mut File) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let tmp = with_suffix(path, ".tmp");
    let result = (|| {
        let mut file = File::create(&tmp).map_err(|e| CheckpointError::io("create", &tmp, e))?;
        fill(&mut file)?;
        file.sync_all().map_err(|e| CheckpointError::io("sync", &tmp, e))
    })();
    if let Err(e) = result {
        // The error that matters is the first one; a temporary file that cannot be removed is overwritten later.
        let _ = fs::remove_file(&tmp);
        return Err(e);
    }
    if keep && path.exists() {
        let prev = previous(path);
        fs::rename(path, &prev).map_err(|e| CheckpointError::io("keep", &prev, e))?;
    }
    fs::rename(&tmp, path).map_err(|e| CheckpointError::io("rename", path, e))?;
    sync_folder(path)
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> Result<(), CheckpointError> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|d| d.sync_all()).map_err(|e| CheckpointError::io("sync", folder, e))
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<(), CheckpointError> {
    Ok(())
}

#[cfg(test)]
mod tests;
