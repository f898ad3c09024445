//! Files that are replaced whole or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::IoError;

/// Replaces the file at `path` by what `fill` writes: into a temporary file beside it, which is synced and
/// renamed. Readers see the old or the new file, never a part. Temporary files that killed processes left of this file are
/// removed first.
///
/// # Errors
/// [`IoError`]; the old file is then untouched and no temporary file is left.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<(), IoError>) -> Result<(), IoError> {
    remove_abandoned(path);
    let tmp = temporary(path);
    let result = (|| {
        let file = create(&tmp).map_err(|e| IoError::io("create", path, e))?;
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

/// A temporary file that is locked while it is written: that tells it from an abandoned one.
fn create(tmp: &Path) -> io::Result<File> {
    loop {
        let file = File::create(tmp)?;
        // Where a file system has no locks, nothing is ever taken for abandoned.
        let unlocked = file.lock().is_err();
        // Before it was locked, another process may have taken it for abandoned.
        if unlocked || tmp.exists() {
            return Ok(file);
        }
    }
}

/// Removes the temporary files beside `path` that are its own and that no process has locked.
fn remove_abandoned(path: &Path) {
    let Some(name) = path.file_name() else { return };
    let Ok(entries) = fs::read_dir(folder(path)) else { return };
    for entry in entries.flatten().filter(|e| is_temporary(&e.file_name(), name)) {
        let tmp = entry.path();
        let Ok(file) = OpenOptions::new().write(true).open(&tmp) else { continue };
        if file.try_lock().is_ok() {
            // What cannot be removed is a file too many, which is no reason to fail.
            let _ = fs::remove_file(&tmp);
        }
    }
}

/// Whether a name is that of a temporary file for `name`.
fn is_temporary(file: &OsStr, name: &OsStr) -> bool {
    let (file, name) = (file.to_string_lossy(), name.to_string_lossy());
    let process = || file.strip_prefix(&*name)?.strip_prefix('.')?.strip_suffix(".tmp");
    process().is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> Result<(), IoError> {
    let folder = folder(path);
    File::open(folder).and_then(|d| d.sync_all()).map_err(|e| IoError::io("sync", folder, e))
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> Result<(), IoError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_temporary_file_that_nobody_writes_goes_with_the_next_write_of_its_file_and_no_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let others =
            ["y.bin.17.tmp", "x.bin.tmp", "x.bin..tmp", "x.bin.1a.tmp", "x.bin.17.tmp.txt", "ax.bin.17.tmp"];
        for name in others.iter().chain(&["x.bin.17.tmp", "x.bin.4000000000.tmp"]) {
            fs::write(at(name), "part").unwrap();
        }
        let busy = File::create(at("x.bin.18.tmp")).unwrap();
        busy.lock().unwrap();
        let names = || {
            let mut names: Vec<String> = fs::read_dir(dir.path())
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let expected = |more: &[&str]| {
            let mut names: Vec<String> = others.iter().chain(more).map(|n| (*n).to_owned()).collect();
            names.sort();
            names
        };
        write_bytes(&at("x.bin"), b"whole").unwrap();
        assert_eq!(fs::read(at("x.bin")).unwrap(), b"whole");
        assert_eq!(names(), expected(&["x.bin", "x.bin.18.tmp"]));
        drop(busy);
        write_bytes(&at("x.bin"), b"again").unwrap();
        assert_eq!(names(), expected(&["x.bin"]));
    }

    #[test]
    fn a_file_that_is_written_is_not_taken_for_abandoned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.bin");
        write(&path, |out| {
            out.write_all(b"whole").map_err(|e| IoError::io("write", &path, e))?;
            remove_abandoned(&path);
            assert!(temporary(&path).exists());
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }
}
