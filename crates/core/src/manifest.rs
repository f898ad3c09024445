//! What is needed to run the same thing again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The description of a run, written before its first step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Recipe or command, e.g. `"gem/sft-smol"`.
    pub name: String,
    /// The configuration with every default filled in.
    pub config: serde_json::Value,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// Program, crate and file versions by name; a source commit belongs here too.
    pub versions: BTreeMap<String, String>,
    /// Where it ran.
    pub machine: Machine,
    /// Seconds since 1970 at the start, given by the caller because libraries read no clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_unix_s: Option<f64>,
}

/// The machine of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Operating system.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
    /// Processor model, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Logical cores that the process may use.
    pub cores: usize,
    /// Threads that the run uses.
    pub threads: usize,
    /// Bytes of memory, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

impl Machine {
    /// What the standard library knows about this machine; the caller adds the processor and the memory.
    pub fn here(threads: usize) -> Self {
        Machine {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            cpu: None,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads,
            memory_bytes: None,
        }
    }
}
