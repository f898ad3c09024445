//! The two stages between `rhumb` and Python.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::order::{DISK, Ended, Order, Report, Step};
use super::{files, root};

/// First argument of a stage; the second is its order.
pub(super) const STAGE: &str = "__sandbox";

/// Whom root becomes.
const NOBODY: u32 = 65_534;

const HARNESS: &str = include_str!("harness.py");

/// Runs a stage, where the arguments ask for one. For `main` to call before it does anything else.
pub(crate) fn stage() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != STAGE {
        return None;
    }
    let order = args.next().and_then(|a| serde_json::from_str::<Order>(a.to_str()?).ok());
    let report = match order {
        None => Some(Report::Failed { step: Step::Start, reason: "not for people: no order".to_owned() }),
        Some(order) if order.inner => Some(inner(&order).unwrap_or_else(|e| e)),
        Some(order) => outer(order).err(),
    };
    let Some(report) = report else { return Some(ExitCode::SUCCESS) };
    let done = matches!(report, Report::Ran { .. });
    let text = serde_json::to_string(&report).unwrap_or_default();
    let told = writeln!(std::io::stderr(), "{text}").is_ok();
    Some(if done && told { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Leaves the namespaces and the user of the parent. The inner stage has reported when this is `Ok`.
fn outer(mut order: Order) -> Result<(), Report> {
    end_with_parent()?;
    umask(Mode::from_bits_truncate(0o022));
    let mut exe = std::env::current_exe().map_err(Step::Start.failed("current_exe"))?;
    let is_root = Uid::effective().is_root();
    namespaces(is_root)?;
    root::enter(&order.folder, &order.readable, &exe)?;
    (exe, order.folder) = (PathBuf::from(root::SELF), PathBuf::from(root::WORK));
    if is_root {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        setgroups(&[]).map_err(Step::Start.failed("setgroups"))?;
        setresgid(gid, gid, gid).map_err(Step::Start.failed("setresgid"))?;
        setresuid(uid, uid, uid).map_err(Step::Start.failed("setresuid"))?;
        // It is forgotten with the user.
        end_with_parent()?;
    }
    order.inner = true;
    let text = serde_json::to_string(&order).map_err(Step::Start.failed("order"))?;
    let status = Command::new(exe)
        .args([STAGE, &text])
        .env_clear()
        .current_dir(&order.folder)
        .status()
        .map_err(Step::Start.failed("the inner stage"))?;
    // It reports itself, unless it was ended from outside.
    if status.code().is_some() {
        return Ok(());
    }
    Err(Report::Failed { step: Step::Start, reason: format!("the inner stage: {status}") })
}

fn namespaces(is_root: bool) -> Result<(), Report> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let mut flags = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    flags.set(CloneFlags::CLONE_NEWUSER, !is_root);
    unshare(flags).map_err(Step::Namespaces.failed("unshare"))?;
    // Shared memory is in no address space. Only root may set its limits.
    for limit in ["shmmni", "msgmni"] {
        let _ = fs::write(format!("/proc/sys/kernel/{limit}"), "0");
    }
    if is_root {
        return Ok(());
    }
    // The user stays who it is, so that the capabilities end with the next exec.
    let write = |path: &str, text: String| fs::write(path, text).map_err(Step::Namespaces.failed(path));
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    // A user namespace inside this one would give the program capabilities in it. Root's limit would be that of the
    // whole machine, and is left alone.
    let _ = fs::write("/proc/sys/user/max_user_namespaces", "0");
    Ok(())
}

/// Takes limits, starts Python and waits for its end.
fn inner(order: &Order) -> Result<Report, Report> {
    end_with_parent()?;
    // Nobody else of the same user traces this process.
    prctl::set_dumpable(false).map_err(Step::Start.failed("prctl"))?;
    prctl::set_no_new_privs().map_err(Step::Start.failed("prctl"))?;
    let seconds = order.limits.wall_s.ceil() as u64 + 1;
    for (resource, limit) in [
        (Resource::RLIMIT_AS, order.limits.memory_mib << 20),
        (Resource::RLIMIT_CPU, seconds),
        (Resource::RLIMIT_FSIZE, DISK),
        (Resource::RLIMIT_NOFILE, 64),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, limit, limit).map_err(Step::Start.failed("setrlimit"))?;
    }
    let landlock = files::restrict(&order.readable, &order.folder)?;
    Ok(Report::Ran { landlock, ended: python(order).map_err(Step::Start.failed(order.python.display()))? })
}

/// Standard input is the program's text, standard output the way of its verdict.
fn python(order: &Order) -> std::io::Result<Ended> {
    let deadline = Instant::now() + Duration::from_secs_f64(order.limits.wall_s);
    let mut child = Command::new(&order.python)
        .args(["-I", "-S", "-B", "-c", HARNESS])
        .env_clear()
        .current_dir(Path::new(&order.folder))
        .stderr(Stdio::null())
        .spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status
                .code()
                .map_or_else(|| Ended::Signal(status.signal().unwrap_or(0)), Ended::Code));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(Ended::Timeout);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn end_with_parent() -> Result<(), Report> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(Step::Start.failed("prctl"))
}
