//! Where a Python interpreter keeps what it needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::exit::Failure;

/// An interpreter.
#[derive(Clone, Debug)]
pub(super) struct Python {
    pub(super) executable: PathBuf,
    pub(super) version: String,
    /// Everything that has to be readable for it, and the system's libraries; none lies in another.
    pub(super) readable: Vec<PathBuf>,
}

/// Libraries and programs of the system, where there are such.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/lib", "/lib64", "/lib32", "/nix/store", "/gnu/store"];

const ASK: &str = "import os, platform, sys, sysconfig
print(os.path.realpath(sys.executable))
print(platform.python_implementation(), platform.python_version())
for key in ('stdlib', 'platstdlib'):
    print(os.path.realpath(sysconfig.get_path(key)))
for path in (sysconfig.get_config_var('LIBDIR') or '', sys.base_prefix + '/lib'):
    print(os.path.realpath(path) if path else '')
";

impl Python {
    /// Asks an interpreter, which is trusted, outside of any sandbox.
    pub(super) fn find(command: &Path) -> Result<Self, Failure> {
        let name = command.display();
        let out =
            Command::new(command).args(["-I", "-S", "-B", "-c", ASK]).stdin(Stdio::null()).output().map_err(
                |e| {
                    Failure::missing(format!(
                        "cannot start {name}: {e}; install Python 3, or name an interpreter with --python"
                    ))
                },
            )?;
        let text = String::from_utf8_lossy(&out.stdout);
        let lines: Vec<&str> = text.lines().collect();
        let [executable, version, dirs @ ..] = &lines[..] else {
            let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            return Err(Failure::usage(format!(
                "{name} does not say where its libraries are: {said}; name a Python 3 with --python"
            )));
        };
        let mut readable: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
        readable.push(PathBuf::from(executable));
        // A folder that holds everything would undo the sandbox.
        readable.extend(dirs.iter().map(PathBuf::from).filter(|d| d.parent().is_some() && d.is_dir()));
        let readable = outermost(readable);
        Ok(Python { executable: executable.into(), version: (*version).to_owned(), readable })
    }
}

/// Those that lie in no other one: what is mounted first is hidden where a folder around it is mounted later.
fn outermost(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort();
    let mut out: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !out.iter().any(|o| path.starts_with(o)) {
            out.push(path);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_what_is_in_it_in_whatever_order_they_come() {
        let paths = [
            "/usr",
            "/opt/p/lib/python3.11",
            "/opt/p/bin/python3.11",
            "/opt/p/lib",
            "/opt/p/lib2",
            "/usr/lib",
        ];
        let want = ["/opt/p/bin/python3.11", "/opt/p/lib", "/opt/p/lib2", "/usr"];
        assert_eq!(outermost(paths.map(PathBuf::from).to_vec()), want.map(PathBuf::from));
        assert_eq!(outermost(want.map(PathBuf::from).to_vec()), want.map(PathBuf::from));
    }
}
