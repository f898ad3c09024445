//! The gate: cheapest first, tests last.

use crate::lint;
use crate::process::{Failure, cargo, output, present, program, run, step};
use std::path::Path;

/// Recipes whose `quick` claims the gate checks: one of each kind, six minutes together at most.
const CLAIMS: [&str; 9] = [
    "adam-mini/state-half",
    "adam-mini/dense-blocks",
    "adam-mini/quadratic-blocks",
    "adam-mini/partition-ablation",
    "gem/diversity",
    "gem/fixed-point",
    "gem/toy-diversity",
    "hessian/quadratic-cases",
    "hessian/mlp-block-diagonal",
];

/// What tests need from outside, and what is left out without it.
const OUTSIDE: [(&str, &str); 2] = [
    (
        "RHUMB_MODELS",
        "tests on the real model and the real conversations (scripts/fetch-models.sh prints a folder for it)",
    ),
    (
        "RHUMB_PYTHON",
        "the test that the gguf package of Python reads our exports (cargo xtask python \
                      reference/gguf_foreign.py prints an interpreter for it)",
    ),
];

/// Runs everything a commit has to pass. On success and on failing tests the last lines are those of the
/// test runner.
pub(crate) fn check(root: &Path) -> Result<(), Failure> {
    step("fmt", cargo(root).args(["fmt", "--all", "--check"]))?;
    lints(root)?;
    optional(root)?;
    step(
        "clippy",
        cargo(root).args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-Dwarnings"]),
    )?;
    step(
        "doc",
        cargo(root).args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-Dwarnings"),
    )?;
    let mut dense = cargo(root);
    dense.args(["test", "--package", "rhumb-krylov", "--features", "faer", "--lib", "--quiet", "symeig"]);
    step("eigenproblems by faer", &mut dense)?;
    step("doctests", cargo(root).args(["test", "--workspace", "--doc", "--quiet"]))?;
    let mut check = cargo(root);
    check.args(["run", "--quiet", "--package", "rhumb", "--", "check", "--budget", "quick"]).args(CLAIMS);
    step("claims (quick)", &mut check)?;
    tests(root)
}

/// The lints of this workspace alone.
pub(crate) fn lints(root: &Path) -> Result<(), Failure> {
    eprintln!("==> lints");
    let mut report = lint::all(root)?;
    let mut tree = cargo(root);
    tree.args(["tree", "--workspace", "-e", "normal,build", "--prefix", "none", "--quiet"]);
    report.add(lint::tree::check(&output("cargo tree", &mut tree)?));
    for notice in &report.notices {
        eprintln!("    notice: {notice}");
    }
    if report.errors.is_empty() {
        return Ok(());
    }
    for error in &report.errors {
        eprintln!("    error: {error}");
    }
    Err(format!("{} lint errors", report.errors.len()).into())
}

/// Tools that a bare toolchain lacks.
fn optional(root: &Path) -> Result<(), Failure> {
    if present(&mut program(root, "typos")) {
        step("typos", &mut program(root, "typos"))?;
    } else {
        skipped("typos");
    }
    if present(&mut program(root, "taplo")) {
        step("taplo", program(root, "taplo").args(["fmt", "--check"]))?;
    } else {
        skipped("taplo");
    }
    if present(cargo(root).arg("deny")) {
        // Advisories need the network, which the gate does not.
        step("cargo deny", cargo(root).args(["deny", "check", "bans", "licenses", "sources"]))?;
    } else {
        skipped("cargo-deny");
    }
    Ok(())
}

fn skipped(tool: &str) {
    eprintln!("    notice: {tool} is not installed; its check is skipped");
}

fn tests(root: &Path) -> Result<(), Failure> {
    // The runner shows nothing of a test that passes, so what is skipped has to be said here.
    for (variable, what) in OUTSIDE {
        if std::env::var_os(variable).is_none() {
            eprintln!("    notice: {variable} is not set; skipped: {what}");
        }
    }
    let mut command = cargo(root);
    if present(cargo(root).arg("nextest")) {
        eprintln!("==> tests (nextest)");
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    } else {
        eprintln!("==> tests (cargo test)");
        command.args(["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests", "--examples"]);
    }
    run("tests", &mut command).map_err(|_| Failure::Said)
}

/// Checks the claim of every recipe at budget `quick`.
pub(crate) fn claims(root: &Path) -> Result<(), Failure> {
    let recipes = lint::recipes::names(root)?;
    if recipes.is_empty() {
        return Err("no recipe under recipes/PAPER/NAME.toml".to_owned().into());
    }
    step("build", cargo(root).args(["build", "--release", "--package", "rhumb"]))?;
    eprintln!("==> {} claims", recipes.len());
    let mut command = cargo(root);
    command.args(["run", "--release", "--quiet", "--package", "rhumb", "--"]);
    run("claims", command.args(["check", "--budget", "quick"]).args(&recipes))
}
