//! Time and memory beside PyTorch.

use crate::process::{Failure, cargo, program, run as run_process, step};
use crate::venv;
use std::path::Path;

/// Builds our side and runs the script of the comparison, which alternates between the sides.
pub(crate) fn run(root: &Path, what: &str, rest: &[&str]) -> Result<(), Failure> {
    let (script, package, example) = match what {
        "optim" => ("optim.py", "rhumb-optim", "bench_optim"),
        "head" => ("head.py", "rhumb-nn", "bench_head"),
        "hvp" => ("hvp.py", "rhumb-nn", "bench_lm"),
        "cnn" => ("cnn.py", "rhumb-nn", "bench_cnn"),
        _ => ("lm.py", "rhumb-nn", "bench_lm"),
    };
    let script = root.join("reference/bench").join(script);
    let python = venv::python(root, &script)?;
    let build = ["build", "--release", "--package", package, "--example", example];
    step("build", cargo(root).args(build))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let ours = target.join("release/examples").join(example).with_extension(std::env::consts::EXE_EXTENSION);
    let mut bench = program(root, python);
    bench.arg("-B").arg(&script).arg(what).arg("--ours").arg(&ours).args(rest);
    run_process("bench-peer", &mut bench)
}
