//! Files that are replaced whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::IoError;

/// Replaces the file at `path` by what `fill` writes: into a temporary file beside it, which is synced and
/// renamed. Readers see the old or the new file, never a part.
///
/// # Errors
/// [`IoError`]; the old file is then untouched and no temporary file is left.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<(), IoError>) -> Result<(), IoError> {
    let tmp = temporary(path);
    let result = (|| {
        let file = File::create(&tmp).map_err(|e| IoError::io("create", path, e))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        fill(&mut out)?;
        let file = out.into_inner().map_err(|e| IoError::io("write", path, e.into_error()))?;
        file.sync_all().map_err(|e| IoError::io("sync", path, e))?;
        fs::rename(&tmp, path).map_err(|e| IoError::io("rename", path, e))
    })();
    if result.is_err() {
        // The error that matters is the first one; a temporary file that cannot be removed is overwritten later.
        let _ = fs::remove_file(&tmp);
        return result;
    }
    sync_folder(path)
}

/// Replaces the file at `path` by these bytes.
///
/// # Errors
/// As [`write()`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), IoError> {
    write(path, |out| out.write_all(bytes).map_err(|e| IoError::io("write", path, e)))
}

fn temporary(path: &Path) -> PathBuf {
    let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> Result<(), IoError> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|d| d.sync_all()).map_err(|e| IoError::io("sync", folder, e))
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> Result<(), IoError> {
    Ok(())
}
