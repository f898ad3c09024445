//! Python environments for the reference scripts.

use crate::process::{Failure, present, program, step};
use std::path::{Path, PathBuf};

/// The Python interpreter with what the script's header (PEP 723) asks for: `RHUMB_PYTHON` if set, else an
/// environment under `target/venv`, made on first use and shared by scripts that ask for the same.
pub(crate) fn python(root: &Path, script: &Path) -> Result<PathBuf, Failure> {
    if let Some(given) = std::env::var_os("RHUMB_PYTHON") {
        return Ok(given.into());
    }
    let text = std::fs::read_to_string(script).map_err(|e| format!("{}: {e}", script.display()))?;
    let wanted = dependencies(&text).map_err(|e| format!("{}: {e}", script.display()))?;
    let dir = root.join("target/venv").join(format!("{:016x}", fnv(&wanted.join("\n"))));
    let python = dir.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    // Written last, so that an interrupted installation is repeated.
    let complete = dir.join("requirements.txt");
    if complete.is_file() && python.is_file() {
        return Ok(python);
    }
    let base = if present(&mut program(root, "python3")) { "python3" } else { "python" };
    step("python -m venv", program(root, base).args(["-m", "venv", "--clear"]).arg(&dir))?;
    if !wanted.is_empty() {
        let mut pip = program(root, &python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(&wanted);
        step(&format!("pip install {}", wanted.join(" ")), &mut pip)?;
    }
    std::fs::write(&complete, wanted.join("\n")).map_err(|e| format!("{}: {e}", complete.display()))?;
    Ok(python)
}

/// The `dependencies` of a script's inline metadata.
fn dependencies(script: &str) -> Result<Vec<String>, String> {
    let mut lines = script.lines().skip_while(|l| l.trim_end() != "# /// script");
    if lines.next().is_none() {
        return Err("no `# /// script` header with its dependencies".into());
    }
    let block: String = lines
        .take_while(|l| l.trim_end() != "# ///")
        .map(|l| l.trim_start_matches('#').trim())
        .collect::<Vec<_>>()
        .join(" ");
    let Some((_, list)) = block.split_once("dependencies") else { return Ok(Vec::new()) };
    let list = list.split_once('[').and_then(|(_, l)| l.split_once(']')).map(|(l, _)| l);
    let list = list.ok_or("`dependencies` of the header is no list")?;
    Ok(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_script_names_its_dependencies() {
        let one = "# /// script\n# requires-python = \">=3.10\"\n# dependencies = [\"torch==2\", \"numpy\"]\n# ///\nx = [\"no\"]\n";
        assert_eq!(dependencies(one).expect("a header"), ["torch==2", "numpy"]);
        let many = "#!/usr/bin/env python3\n# /// script\n# dependencies = [\n#   \"numpy\",\n#   \"gguf\",\n# ]\n# ///\n";
        assert_eq!(dependencies(many).expect("a header"), ["numpy", "gguf"]);
    }

    #[test]
    fn a_script_without_a_header_is_refused() {
        assert!(dependencies("import numpy\n").is_err());
    }
}
