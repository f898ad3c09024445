//! `rhumb eval MODEL humaneval` on a model whose answers do not matter: a prompt that ends in a comment is a program.
#![cfg(target_os = "linux")]

use std::path::Path;

use serde_json::json;

use crate::fixture::{model, rhumb, save};

const RISKY: [&str; 3] = ["--allow-code-execution", "--python", "/usr/bin/python3"];

fn data(dir: &Path) -> String {
    let problem = |name: &str, value: &str| {
        json!({
            "task_id": name, "prompt": format!("def f():\n    return {value}\n\n#"), "entry_point": "f",
            "canonical_solution": "", "test": "def check(f):\n    assert f() == 1\n",
        })
        .to_string()
    };
    let path = dir.join("data.jsonl");
    let lines = [problem("t/right", "1"), problem("t/wrong", "2"), problem("t/broken", "x")];
    std::fs::write(&path, lines.join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Whether a sandbox can be made here.
fn sandboxed(data: &str) -> bool {
    let probe = rhumb(&[&["judge", "--data", data][..], &RISKY].concat());
    if probe.code != 0 {
        eprintln!("skipped: {}", probe.err.trim());
    }
    probe.code == 0
}

#[test]
fn programs_of_a_model_are_judged_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (m, data) = (save(&model(), &dir.path().join("m")), data(dir.path()));
    if !sandboxed(&data) {
        return;
    }
    let out = dir.path().join("out").to_str().unwrap().to_owned();
    let args =
        ["eval", &m, "humaneval", "--data", &data, "--plain", "--max-new", "1", "-n", "2", "-k", "1,2"];
    let more = ["--out", &out, "--json", "--quiet"];
    let e = rhumb(&[&args[..], &RISKY, &more].concat()).json();
    assert_eq!(e["verdicts"], json!({ "passed": 2, "assertion": 2, "exception": 2 }));
    let third = |v: &serde_json::Value| (v.as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-12;
    assert!(third(&e["measures"]["pass@1"]["value"]) && third(&e["measures"]["pass@2"]["value"]), "{e}");
    assert_eq!(e["sandbox"]["network"], "none");
    let samples = std::fs::read_to_string(dir.path().join("out/samples.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(samples.lines().nth(2).unwrap()).unwrap();
    let verdict = &line["answers"][1]["verdict"];
    assert_eq!(verdict["verdict"], "exception");
    assert!(verdict["detail"].as_str().unwrap().starts_with("NameError: name 'x'"), "{verdict}");
    assert_eq!(verdict["completion"], line["answers"][1]["text"]);
}

#[test]
fn nothing_is_sampled_before_execution_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let (m, data) = (save(&model(), &dir.path().join("m")), data(dir.path()));
    let out = dir.path().join("out").to_str().unwrap().to_owned();
    let args = ["eval", &m, "humaneval", "--data", &data, "--plain", "--out", &out];
    let e = rhumb(&args);
    assert!(e.code == 2 && e.err.contains("give --allow-code-execution"), "{}", e.err);
    let e = rhumb(&[&args[..], &["-k", "2", "--allow-code-execution"]].concat());
    assert!(e.code == 2 && e.err.contains("pass@2"), "{}", e.err);
    assert!(!dir.path().join("out").exists());
}
