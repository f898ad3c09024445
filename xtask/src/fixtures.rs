//! Runs the reference scripts again.

use crate::lint::entries;
use crate::process::{Failure, program, step};
use crate::venv;
use std::path::{Path, PathBuf};

/// Runs `reference/<paper>.py` for the given papers, or every script, and shows which fixtures moved.
pub(crate) fn run(root: &Path, papers: &[&str]) -> Result<(), Failure> {
    let scripts = select(entries(&root.join("reference"))?, papers)?;
    for script in scripts {
        let python = venv::python(root, &script)?;
        let name = script.strip_prefix(root).unwrap_or(&script).display().to_string();
        step(&name, program(root, python).arg("-B").arg(&script))?;
    }
    step("what moved", program(root, "git").args(["--no-pager", "diff", "--stat", "--", "fixtures"]))
}

fn select(files: Vec<PathBuf>, papers: &[&str]) -> Result<Vec<PathBuf>, String> {
    let all: Vec<PathBuf> = files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "py")).collect();
    let stem = |f: &Path| f.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let mut out = Vec::new();
    for paper in papers {
        let wanted = paper.replace('-', "_");
        let known = || all.iter().map(|f| stem(f)).collect::<Vec<_>>().join(", ");
        let script = all.iter().find(|f| stem(f) == wanted);
        out.push(script.ok_or_else(|| format!("no reference/{wanted}.py; there are: {}", known()))?.clone());
    }
    Ok(if papers.is_empty() { all } else { out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paper_finds_its_script_and_a_wrong_name_lists_them() {
        let files = || vec![PathBuf::from("reference/adam_mini.py"), PathBuf::from("reference/bench")];
        assert_eq!(select(files(), &["adam-mini"]).expect("known").len(), 1);
        assert_eq!(select(files(), &[]).expect("all").len(), 1);
        let error = select(files(), &["adam"]).expect_err("unknown");
        assert!(error.ends_with("there are: adam_mini"), "{error}");
    }
}
