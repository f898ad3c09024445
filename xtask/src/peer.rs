//! Time and memory beside PyTorch.

use crate::process::{Failure, cargo, program, run as run_process, step};
use crate::venv;
use std::path::Path;

/// Builds our side and runs `reference/bench/lm.py`, which alternates between both.
pub(crate) fn run(root: &Path, what: &str, rest: &[&str]) -> Result<(), Failure> {
    let script = root.join("reference/bench/lm.py");
    let python = venv::python(root, &script)?;
    let build = ["build", "--release", "--package", "rhumb-nn", "--example", "bench_lm"];
    step("build", cargo(root).args(build))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let ours = target.join("release/examples/bench_lm").with_extension(std::env::consts::EXE_EXTENSION);
    let mut bench = program(root, python);
    bench.arg("-B").arg(&script).arg(what).arg("--ours").arg(&ours).args(rest);
    run_process("bench-peer", &mut bench)
}
