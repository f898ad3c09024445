//! What this machine is.

use std::collections::BTreeMap;

use rhumb_core::Machine;
use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// The machine of a manifest, processor and memory included.
pub(crate) fn describe(threads: usize) -> Machine {
    let mut machine = Machine::here(threads);
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    machine.cpu =
        system.cpus().first().map(|c| c.brand().trim().to_owned()).filter(|brand| !brand.is_empty());
    machine.memory_bytes = Some(system.total_memory());
    machine
}

/// Bytes that a new allocation may hope for, where the system tells; the limit of a container counts.
pub(crate) fn available_memory() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let free = system.cgroup_limits().map_or(u64::MAX, |c| c.free_memory).min(system.available_memory());
    (free > 0).then_some(free)
}

/// Threads that computations use.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Versions for a manifest.
pub(crate) fn versions() -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([("rhumb".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    if let Some(commit) = option_env!("RHUMB_COMMIT") {
        out.insert("commit".to_owned(), commit.to_owned());
    }
    out
}

/// Instructions that kernels may use, as far as this processor has them.
pub(crate) fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! present {
            ($($name:tt),*) => {
                [$(($name, std::arch::is_x86_feature_detected!($name))),*]
            };
        }
        let all = present!("sse4.2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vnni");
        all.into_iter().filter(|f| f.1).map(|f| f.0).collect()
    }
    #[cfg(target_arch = "aarch64")]
    {
        vec!["neon"]
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        Vec::new()
    }
}

/// Memory of this process, read anew at every call.
#[derive(Debug)]
pub(crate) struct OwnMemory {
    system: System,
    pid: Option<Pid>,
}

impl OwnMemory {
    /// Finds this process.
    pub(crate) fn new() -> Self {
        OwnMemory { system: System::new(), pid: sysinfo::get_current_pid().ok() }
    }

    /// Resident bytes, where the system tells.
    pub(crate) fn resident(&mut self) -> Option<u64> {
        let pid = self.pid?;
        let kind = ProcessRefreshKind::nothing().with_memory();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kind);
        self.system.process(pid).map(sysinfo::Process::memory)
    }
}
