//! A root file system with the system's libraries and Python, read-only, and nothing of the user's.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, pivot_root};

use super::order::{DISK, Report, Step};

/// The folder of the program, and the copy of this program, in the new root.
pub(super) const WORK: &str = "/work";
pub(super) const SELF: &str = "/rhumb";

const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];
const NONE: Option<&str> = None;

/// Makes the root in the empty folder `root` of a new mount namespace, and enters it. None of `readable` lies in another.
pub(super) fn enter(root: &Path, readable: &[PathBuf], exe: &Path) -> Result<(), Report> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(Step::Root.failed("private mounts"))?;
    // Memory that files take counts against the size, and every folder that is mounted over takes an inode.
    let size = format!("size={DISK},nr_inodes=4096,mode=0755");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), root, Some("tmpfs"), flags, Some(size.as_str()))
        .map_err(Step::Root.failed("tmpfs"))?;

    for path in readable {
        show(root, path)?;
    }
    for device in DEVICES {
        let target = inside(root, Path::new(device));
        bind(root, Path::new(device), &target)?;
        seal(&target, MsFlags::empty())?;
    }
    let own = inside(root, Path::new(SELF));
    bind(root, exe, &own)?;
    // Landlock keeps nobody from changing the mode or the times of a file that is the user's own.
    seal(&own, MsFlags::MS_NODEV)?;

    let work = inside(root, Path::new(WORK));
    fs::create_dir(&work).map_err(Step::Root.failed("folder"))?;
    fs::set_permissions(&work, fs::Permissions::from_mode(0o777)).map_err(Step::Root.failed("folder"))?;
    let old = root.join("old");
    fs::create_dir(&old).map_err(Step::Root.failed("folder"))?;
    pivot_root(root, &old).map_err(Step::Root.failed("pivot_root"))?;
    chdir("/").map_err(Step::Root.failed("chdir"))?;
    umount2("/old", MntFlags::MNT_DETACH).map_err(Step::Root.failed("umount"))?;
    fs::remove_dir("/old").map_err(Step::Root.failed("folder"))
}

/// Makes a file, a folder or a symbolic link visible, read-only; what is not there stays so.
fn show(root: &Path, path: &Path) -> Result<(), Report> {
    let failed = |e: std::io::Error| Step::Root.failed(path.display())(e);
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    let target = inside(root, path);
    if meta.is_symlink() {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        return fs::read_link(path).and_then(|to| symlink(to, &target)).map_err(failed);
    }
    bind(root, path, &target)?;
    for mounted in below(&target)? {
        seal(&mounted, MsFlags::MS_NODEV)?;
    }
    Ok(())
}

/// What is mounted at a path and below it: a flag holds for one mount and not for those inside.
fn below(target: &Path) -> Result<Vec<PathBuf>, Report> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(Step::Root.failed("mountinfo"))?;
    let at = |line: &str| Some(PathBuf::from(unescaped(line.split(' ').nth(4)?)));
    Ok(table.lines().filter_map(at).filter(|m| m.starts_with(target)).collect())
}

/// A path as the table of mounts writes it: spaces and the like as three octal digits.
fn unescaped(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |t, (from, to)| t.replace(from, to))
}

fn bind(root: &Path, path: &Path, target: &Path) -> Result<(), Report> {
    let make = || {
        fs::create_dir_all(target.parent().unwrap_or(root))?;
        if path.is_dir() { fs::create_dir_all(target) } else { File::create(target).map(drop) }
    };
    make().map_err(Step::Root.failed(target.display()))?;
    mount(Some(path), target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .map_err(Step::Root.failed(format!("showing {}", path.display())))
}

/// Read-only, with the restrictions of the original, which a user must not lift.
fn seal(target: &Path, more: MsFlags) -> Result<(), Report> {
    let failed = || Step::Root.failed(format!("making {} read-only", target.display()));
    let has = statvfs(target).map_err(failed())?.flags();
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    flags |= MsFlags::MS_NOSUID | more;
    for (is, keep) in [
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if has.contains(is) {
            flags |= keep;
        }
    }
    mount(NONE, target, NONE, flags, NONE).map_err(failed())
}

/// An absolute path below the new root.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
