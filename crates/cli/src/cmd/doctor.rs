//! `rhumb doctor`.

use std::path::{Path, PathBuf};

use rhumb_core::RunFolder;
use serde_json::json;
use sysinfo::{MemoryRefreshKind, System};

use crate::exit::Failure;
use crate::machine;
use crate::output::Output;
use crate::table::{Table, bytes};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder that runs go to.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
}

/// Tells what Rhumb sees and whether something is in the way.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    let here = machine::describe(machine::threads());
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let free = system.available_memory();
    let kernel = System::kernel_version().unwrap_or_default();
    let features = machine::features().join(" ");
    let cache = cache_folder();
    let writable = writable(&args.out);
    let (total, cores) = (here.memory_bytes.unwrap_or(0), here.cores);
    let mut t = Table::new(["", "here"]);
    let mut line = |name: &str, value: String| {
        t.row([name.to_owned(), value]);
    };
    line("version", env!("CARGO_PKG_VERSION").to_owned());
    line("system", format!("{} {kernel} {}", here.os, here.arch));
    line("processor", here.cpu.clone().unwrap_or_else(|| "unknown".to_owned()));
    line("cores", format!("{cores}"));
    line("instructions", features.clone());
    line("memory", format!("{} of {} free", bytes(free), bytes(total)));
    line("cache folder", cache.as_ref().map_or("none: set HOME".to_owned(), |c| c.display().to_string()));
    let state = match &writable {
        Ok(()) => "can be written".to_owned(),
        Err(e) => format!("CANNOT be written: {e}"),
    };
    line("run folder", format!("{} {state}", args.out.display()));
    let json = json!({
        "version": env!("CARGO_PKG_VERSION"), "machine": here, "kernel": kernel,
        "features": machine::features(), "memory_free_bytes": free, "cache": cache,
        "out": args.out, "out_writable": writable.is_ok(), "out_error": writable.err(),
    });
    Ok(Output::new(t.render(), json))
}

/// Where downloaded models go.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let named = |key: &str| std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from);
    named("RHUMB_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|d| d.join("rhumb")))
        .or_else(|| named("HOME").map(|d| d.join(".cache/rhumb")))
        .or_else(|| named("LOCALAPPDATA").map(|d| d.join("rhumb")))
}

/// Tries it in a folder of its own, and leaves nothing behind that was not there.
fn writable(out: &Path) -> Result<(), String> {
    let existed = out.exists();
    let probe = out.join(".doctor");
    let result = RunFolder::create(&probe, true).map(|_| ()).map_err(|e| e.to_string());
    // What could not be made cannot be removed either; the result above tells.
    let _ = std::fs::remove_dir(&probe);
    if !existed {
        let _ = std::fs::remove_dir(out);
    }
    result
}
