//! What the compiler does not know about this workspace.

pub(crate) mod direction;
pub(crate) mod recipes;
pub(crate) mod text;
pub(crate) mod tree;

use crate::process::program;
use std::path::{Path, PathBuf};

/// What the lints found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Each stops the gate.
    pub(crate) errors: Vec<String>,
    /// Each is only shown.
    pub(crate) notices: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, other: Report) {
        self.errors.extend(other.errors);
        self.notices.extend(other.notices);
    }
}

/// Every lint that needs no compiler.
pub(crate) fn all(root: &Path) -> Result<Report, String> {
    let mut report = Report::default();
    report.add(direction::check(root)?);
    report.add(recipes::check(root)?);
    report.add(text::check(root, &files(root)?));
    Ok(report)
}

/// The files of the project relative to the root, sorted: those git tracks or would track, or in an
/// unpacked archive all of them.
pub(crate) fn files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut out = Vec::new();
    let list =
        program(root, "git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).output();
    match list {
        Ok(list) if list.status.success() => {
            let names = String::from_utf8_lossy(&list.stdout).into_owned();
            out.extend(names.split('\0').filter(|n| !n.is_empty()).map(PathBuf::from));
        }
        _ => walk(root, Path::new(""), &mut out)?,
    }
    out.retain(|f| root.join(f).is_file());
    out.sort();
    Ok(out)
}

fn walk(root: &Path, below: &Path, out: &mut Vec<PathBuf>) -> Result<(), String> {
    for path in entries(&root.join(below))? {
        let Some(name) = path.file_name() else { continue };
        let here = below.join(name);
        if !path.is_dir() {
            out.push(here);
        } else if !matches!(name.to_str(), Some("target" | "runs" | "__pycache__" | ".git")) {
            walk(root, &here, out)?;
        }
    }
    Ok(())
}

/// The entries of a folder, sorted; none if it does not exist.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>, String> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let read = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut out = Vec::new();
    for entry in read {
        out.push(entry.map_err(|e| format!("{}: {e}", dir.display()))?.path());
    }
    out.sort();
    Ok(out)
}

/// A fresh folder for one test.
#[cfg(test)]
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("rhumb-xtask-{}-{name}", std::process::id()));
    drop(std::fs::remove_dir_all(&dir));
    std::fs::create_dir_all(&dir).expect("a temporary folder can be made");
    dir
}
