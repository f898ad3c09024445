//! The side of the sandbox that is trusted: starts the stages and reads the verdict.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rhumb_lm::eval::code::Verdict;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::order::{Ended, Limits, Order, Report, Step};
use super::python::Python;
use super::stage::STAGE;
use crate::exit::{Code, Failure};

/// Longest report that is read; the rest is thrown away.
const CAP: u64 = 64 << 10;

/// Beyond the time limit: stages start and end within it, also on a busy machine.
const GRACE: Duration = Duration::from_secs(20);

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ran {
    pub(crate) verdict: Verdict,
    /// The exception and its line, or the signal.
    pub(crate) detail: String,
    pub(crate) wall_s: f64,
}

/// A sandbox that was tried.
#[derive(Debug)]
pub(crate) struct Sandbox {
    python: Python,
    limits: Limits,
    landlock: bool,
    exe: PathBuf,
}

impl Sandbox {
    /// Looks for the interpreter and runs an empty program.
    ///
    /// # Errors
    /// Without an interpreter, and where no sandbox can be made.
    pub(crate) fn open(python: &Path, limits: Limits) -> Result<Self, Failure> {
        let exe = std::env::current_exe().map_err(|e| Failure::usage(format!("where is rhumb? {e}")))?;
        let python = Python::find(python)?;
        let sandbox = Sandbox { python, limits, landlock: false, exe };
        let (report, told) = sandbox.start("")?;
        let passed = told.is_some_and(|(v, _)| v == Verdict::Passed);
        match report {
            Report::Failed { step, reason } => Err(refusal(step, &reason, &sandbox)),
            Report::Ran { landlock, ended: Ended::Code(0) } if passed => Ok(Sandbox { landlock, ..sandbox }),
            Report::Ran { ended, .. } => Err(Failure::usage(format!(
                "an empty program does not run in the sandbox ({ended:?}): {} needs more than {limits:?}, or files \
                 that the sandbox does not show; name another interpreter with --python",
                sandbox.python.executable.display()
            ))),
        }
    }

    /// Runs one program; what it does is a verdict, and an error only what the machine does.
    pub(crate) fn run(&self, program: &str) -> Result<Ran, Failure> {
        let start = Instant::now();
        let (report, verdict) = self.start(program)?;
        let wall_s = start.elapsed().as_secs_f64();
        let ended = match report {
            Report::Failed { step, reason } => return Err(refusal(step, &reason, self)),
            Report::Ran { ended, .. } => ended,
        };
        let (verdict, detail) = match (ended, verdict) {
            (Ended::Timeout, _) => (Verdict::Timeout, format!("after {} s", self.limits.wall_s)),
            (Ended::Code(0), Some(told)) => told,
            (Ended::Code(code), _) => (Verdict::Exit, format!("exit code {code}, and no verdict")),
            (Ended::Signal(n), _) if n == Signal::SIGXCPU as i32 => {
                (Verdict::Timeout, "processor time".into())
            }
            (Ended::Signal(n), _) => {
                let name = Signal::try_from(n).map_or_else(|_| n.to_string(), |s| s.to_string());
                (Verdict::Crash, name)
            }
        };
        Ok(Ran { verdict, detail, wall_s })
    }

    /// Runs several, side by side; the verdicts are in their order.
    pub(crate) fn run_all(&self, programs: &[String]) -> Result<Vec<Ran>, Failure> {
        programs.par_iter().map(|p| self.run(p)).collect()
    }

    /// What protects, for reports.
    pub(crate) fn json(&self) -> serde_json::Value {
        json!({
            "python": self.python.version,
            "network": "none",
            "landlock": self.landlock,
            "time_limit_s": self.limits.wall_s,
            "memory_mib": self.limits.memory_mib,
        })
    }

    /// The interpreter's version.
    pub(crate) fn version(&self) -> &str {
        &self.python.version
    }

    fn start(&self, program: &str) -> Result<(Report, Option<(Verdict, String)>), Failure> {
        let broken = |what: &str, e: &dyn std::fmt::Display| {
            Failure::usage(format!(
                "cannot {what} for a program: {e}; is the disk full, or the process limit reached?"
            ))
        };
        let folder = tempfile::Builder::new()
            .prefix("rhumb-sandbox-")
            .tempdir()
            .map_err(|e| broken("make a folder", &e))?;
        let order = Order {
            inner: false,
            python: self.python.executable.clone(),
            readable: self.python.readable.clone(),
            folder: folder.path().to_owned(),
            limits: self.limits,
        };
        let order = serde_json::to_string(&order).map_err(|e| broken("write an order", &e))?;
        let token = token().map_err(|e| broken("draw a token", &e))?;
        let mut child = Command::new(&self.exe)
            .args([STAGE, &order])
            .env_clear()
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| broken("start a process", &e))?;
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (output, errors) = std::thread::scope(|s| {
            s.spawn(|| {
                // A program that ends early does not read all of it.
                input.map(|mut i| i.write_all(format!("{token}\n{program}").as_bytes()))
            });
            let (output, errors) = (s.spawn(|| capped(output)), s.spawn(|| capped(errors)));
            wait(&mut child, Duration::from_secs_f64(self.limits.wall_s) + GRACE);
            (output.join().unwrap_or_default(), errors.join().unwrap_or_default())
        });
        let report = errors.lines().find_map(|l| serde_json::from_str(l).ok()).unwrap_or(Report::Failed {
            step: Step::Start,
            reason: format!("a stage gave no report: {}", errors.trim()),
        });
        Ok((report, verdict(&output, &token)))
    }
}

/// The verdict behind the token.
fn verdict(output: &str, token: &str) -> Option<(Verdict, String)> {
    let line = output.lines().find_map(|l| l.strip_prefix(token)?.strip_prefix(' '))?;
    let (name, detail) = line.split_once(' ').unwrap_or((line, ""));
    let verdict = Verdict::ALL.into_iter().find(|v| v.name() == name)?;
    Some((verdict, detail.to_owned()))
}

/// Waits for the outer stage, and ends its process group when it hangs: the others end with it.
fn wait(child: &mut Child, limit: Duration) {
    let deadline = Instant::now() + limit;
    while let Ok(None) = child.try_wait() {
        if Instant::now() >= deadline {
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The beginning of what a process writes; it is never held up by a full pipe.
fn capped(from: Option<impl Read>) -> String {
    let Some(mut from) = from else { return String::new() };
    let mut bytes = Vec::new();
    let _ = from.by_ref().take(CAP).read_to_end(&mut bytes);
    let _ = io::copy(&mut from, &mut io::sink());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// 128 random bits in hexadecimal.
fn token() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

const ALLOW: &str = "allow namespaces for this user (in a container, the right CAP_SYS_ADMIN; on Ubuntu, \
                     kernel.apparmor_restrict_unprivileged_userns=0)";

fn refusal(step: Step, reason: &str, sandbox: &Sandbox) -> Failure {
    let what = match step {
        Step::Namespaces => format!(
            "no namespaces can be made, so that programs would have the network ({reason}): {ALLOW}, or run it in a virtual \
             machine"
        ),
        Step::Root => format!(
            "no file system of its own can be made, so that programs would have the user's files ({reason}): where mounts \
             are denied, {ALLOW}; otherwise name another interpreter with --python, or run it in a virtual machine"
        ),
        Step::Landlock => format!(
            "the kernel has Landlock and refuses its rules ({reason}), without which only the root of the sandbox would keep \
             files from programs: run it outside of other sandboxes, whose rules or filters may be in the way, or in a \
             virtual machine"
        ),
        Step::Start => format!(
            "{reason}: nothing is executed; where root runs this, programs are nobody's, who has to be able to start {}",
            sandbox.python.executable.display()
        ),
    };
    Failure::new(Code::Usage, anyhow::anyhow!("the sandbox cannot be made: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_stands_behind_its_token_at_the_beginning_of_a_line() {
        let is = |output: &str, want: Option<(Verdict, &str)>| {
            assert_eq!(verdict(output, "abc"), want.map(|(v, d)| (v, d.to_owned())), "{output:?}");
        };
        is("abc passed \n", Some((Verdict::Passed, "")));
        is("noise\nabc exception KeyError: 1 (line 2)\n", Some((Verdict::Exception, "KeyError: 1 (line 2)")));
        for forged in [
            "",
            "passed \n",
            "abd passed \n",
            " abc passed \n",
            "abcpassed \n",
            "abc Passed \n",
            "xabc passed",
        ] {
            is(forged, None);
        }
    }

    #[test]
    fn what_is_read_has_a_limit_and_what_is_written_does_not_wait() {
        let endless = io::repeat(b'x').take(10 * CAP);
        assert_eq!(capped(Some(endless)).len() as u64, CAP);
    }

    #[test]
    fn a_refusal_of_landlock_speaks_of_its_rules_and_not_of_kernels_without_it() {
        let python = Python { executable: "python3".into(), readable: Vec::new(), version: String::new() };
        let limits = Limits { wall_s: 1.0, memory_mib: 1 };
        let sandbox = Sandbox { python, limits, landlock: false, exe: "rhumb".into() };
        let text = refusal(Step::Landlock, "Landlock: E2BIG", &sandbox).to_string();
        assert!(text.contains("refuses its rules (Landlock: E2BIG)") && !text.contains("5.13"), "{text}");
    }

    #[test]
    fn tokens_differ() -> io::Result<()> {
        let (a, b) = (token()?, token()?);
        assert!(a != b && a.len() == 32);
        Ok(())
    }
}
