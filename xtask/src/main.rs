//! Commands of the workspace, on the standard library only, so that they compile in a second.
//!
//! `cargo xtask check` is the gate; `cargo xtask help` lists the rest.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program talks to its user")]

mod build_time;
mod fixtures;
mod gate;
mod lint;
mod peer;
mod process;
mod venv;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  check                 the gate: format, own lints, clippy, documentation, tests last
  lint                  only the lints of this workspace (structure, sizes, texts)
  fixtures [PAPER]...   run reference/*.py again in a Python environment of its own, then show what moved
  claims                check the claim of every recipe at budget quick
  bench-peer lm|layer|hvp|head|optim|cnn [ARGS]   time and memory beside PyTorch, in alternating pairs
  python SCRIPT         the Python interpreter with what a script's header asks for
  build-time            seconds of a clean release build, in a target folder of its own

Python commands make their environment under target/venv; RHUMB_PYTHON=FILE uses that interpreter instead.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root();
    let result = match words.as_slice() {
        ["check"] => gate::check(&root),
        ["lint"] => gate::lints(&root),
        ["fixtures", papers @ ..] => fixtures::run(&root, papers),
        ["claims"] => gate::claims(&root),
        ["bench-peer", what @ ("lm" | "layer" | "hvp" | "head" | "optim" | "cnn"), rest @ ..] => {
            peer::run(&root, what, rest)
        }
        ["python", script] => venv::python(&root, Path::new(script)).map(|p| println!("{}", p.display())),
        ["build-time"] => build_time::run(&root),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("unknown command: {}\n\n{HELP}", other.join(" "));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::FAILURE
        }
    }
}

/// The workspace root, from where this crate was compiled.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
