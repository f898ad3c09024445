//! Running other programs, and saying so.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Why a command of the workspace stops.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something to tell.
    Message(String),
    /// The program that failed has said everything; nothing may follow its own last lines.
    Said,
}

impl Failure {
    pub(crate) fn print(&self) {
        if let Failure::Message(text) = self {
            eprintln!("xtask: {text}");
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Failure::Message(text)
    }
}

/// The cargo that runs this program.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    c.current_dir(root);
    c
}

/// A program run in the workspace root.
pub(crate) fn program(root: &Path, name: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut c = Command::new(name);
    c.current_dir(root);
    c
}

/// Whether `name --version` works.
pub(crate) fn present(command: &mut Command) -> bool {
    let quiet = command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|s| s.success())
}

/// Announces a step on stderr, runs it with inherited output, and reports its time.
pub(crate) fn step(name: &str, command: &mut Command) -> Result<(), Failure> {
    eprintln!("==> {name}");
    let start = Instant::now();
    run(name, command)?;
    eprintln!("    {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a command with inherited output.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(|e| format!("{name}: cannot start: {e}"))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Message(format!("{name} failed ({status}): {}", line(command))))
}

/// The standard output of a command that must succeed.
pub(crate) fn output(name: &str, command: &mut Command) -> Result<String, Failure> {
    let out = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{name}: cannot start: {e}"))?;
    if !out.status.success() {
        return Err(Failure::Message(format!("{name} failed ({}): {}", out.status, line(command))));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|s| s.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
