//! What this machine is.

use std::collections::BTreeMap;
use std::path::Path;

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

/// Bytes that new allocations may hope for, where the system tells: free memory, but no more than the limits of the
/// control groups of this process and its own limit of address space (`ulimit -v`) leave.
pub(crate) fn available_memory() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let free = [Some(system.available_memory()).filter(|f| *f > 0), group_memory(), address_space()];
    free.into_iter().flatten().min()
}

/// Bytes that this process may hold in all: what it holds already, and [`available_memory`].
pub(crate) fn memory_for_process() -> Option<u64> {
    Some(available_memory()?.saturating_add(OwnMemory::new().resident().unwrap_or(0)))
}

/// What the limit of address space leaves.
fn address_space() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|l| l.strip_prefix("Max address space"))?;
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(status("VmSize:")?))
}

/// A line of `/proc/self/status`, in bytes.
fn status(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The largest resident size of this process so far, where the system tells.
pub(crate) fn peak_resident() -> Option<u64> {
    status("VmHWM:")
}

/// What the control groups of this process leave, files that the system may drop from memory not counted as used.
fn group_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = text.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        match names {
            "" => ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
                .into_iter()
                .filter_map(|root| left(Path::new(root), path, ["memory.max", "memory.current", "file"]))
                .collect(),
            n if n.split(',').any(|n| n == "memory") => {
                let keys = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"];
                left(Path::new("/sys/fs/cgroup/memory"), path, keys).into_iter().collect()
            }
            _ => Vec::new(),
        }
    });
    limits.min()
}

/// The smallest rest among a group and those it lies in; `keys` are the files of limit and use, and the line of
/// `memory.stat` that counts files in memory.
fn left(root: &Path, path: &str, keys: [&str; 3]) -> Option<u64> {
    let number = |file: &Path| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let rest = |group: &Path| {
        let (limit, used) = (number(&group.join(keys[0]))?, number(&group.join(keys[1]))?);
        let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let files = stat.lines().find_map(|l| l.strip_prefix(keys[2])?.trim().parse::<u64>().ok());
        Some(limit.saturating_sub(used.saturating_sub(files.unwrap_or(0))))
    };
    // A container may see its own group as the root and still be told the path outside.
    let own = root.join(path.trim_start_matches('/'));
    own.ancestors().take_while(|g| g.starts_with(root)).filter_map(rest).min()
}

/// Threads that computations use.
pub(crate) fn threads() -> usize {
    rayon::current_num_threads()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;

    use super::*;

    #[test]
    fn the_tightest_group_decides_and_files_in_memory_count_as_free() {
        let dir = tempfile::tempdir().unwrap();
        let group = |path: &str, limit: &str, used: &str, file: &str| {
            let g = dir.path().join(path);
            fs::create_dir_all(&g).unwrap();
            fs::write(g.join("memory.max"), limit).unwrap();
            fs::write(g.join("memory.current"), used).unwrap();
            fs::write(g.join("memory.stat"), format!("anon 1\nfile {file}\nfile_mapped 9\n")).unwrap();
        };
        let keys = ["memory.max", "memory.current", "file"];
        group("a", "1000\n", "700\n", "300");
        group("a/b", "max\n", "5\n", "0");
        assert_eq!(left(dir.path(), "/a/b", keys), Some(600));
        group("a/b", "500\n", "100\n", "0");
        assert_eq!(left(dir.path(), "/a/b", keys), Some(400));
        assert_eq!(left(dir.path(), "/c", keys), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_tells_the_size_of_this_process() {
        let (peak, now) = (peak_resident().unwrap(), OwnMemory::new().resident().unwrap());
        assert!(peak >= now / 2 && now > 1 << 16, "{peak} {now}");
        assert!(memory_for_process().unwrap() > now);
    }
}
