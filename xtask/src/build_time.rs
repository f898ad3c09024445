//! Seconds of a clean release build.

use crate::process::{Failure, cargo, run as run_process};
use std::path::Path;
use std::time::Instant;

/// Fetches the sources first, so that the network is not part of the figure, then builds the binary into an
/// empty target folder.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    run_process("fetch", cargo(root).arg("fetch"))?;
    let target = root.join("target/build-time");
    if target.exists() {
        std::fs::remove_dir_all(&target).map_err(|e| format!("{}: {e}", target.display()))?;
    }
    let start = Instant::now();
    let mut build = cargo(root);
    build.args(["build", "--release", "--package", "rhumb"]).env("CARGO_TARGET_DIR", &target);
    run_process("build", &mut build)?;
    let seconds = start.elapsed().as_secs_f64();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("clean release build: {seconds:.0} s on {threads} threads");
    std::fs::remove_dir_all(&target).map_err(|e| format!("{}: {e}", target.display()))?;
    Ok(())
}
