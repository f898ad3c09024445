//! The program as a user meets it: texts, exit codes, files, signals.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; a skipped one must be seen")]

mod errors;
mod judge;
mod optimizer;
mod plan;
mod pretrain;
mod results;
mod runs;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const HALF: &str = "adam-mini/state-half";

/// The program, in a folder of its own where one is given.
fn rhumb(dir: Option<&Path>) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_rhumb"));
    if let Some(dir) = dir {
        c.current_dir(dir);
    }
    c.stdin(Stdio::null());
    c
}

fn run(dir: Option<&Path>, args: &[&str]) -> Output {
    rhumb(dir).args(args).output().unwrap()
}

/// Standard output of a command that has to succeed.
fn ok(dir: Option<&Path>, args: &[&str]) -> String {
    let out = run(dir, args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn json(dir: Option<&Path>, args: &[&str]) -> Value {
    let mut all = args.to_vec();
    all.push("--json");
    serde_json::from_str(&ok(dir, &all)).unwrap()
}

/// Standard error of a command that has to end with that code; nothing may be on standard output.
fn fails(dir: Option<&Path>, code: i32, args: &[&str]) -> String {
    let out = run(dir, args);
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
    assert!(out.stdout.is_empty(), "{args:?}");
    text
}

/// A recipe file made from an embedded one.
fn recipe(dir: &Path, name: &str, edit: impl Fn(String) -> String) -> String {
    let text = ok(None, &["show", name, "--budget", "quick"]);
    let path = dir.join("mine.toml");
    std::fs::write(&path, edit(text)).unwrap();
    path.to_str().unwrap().to_owned()
}
