//! Runs of recipes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rhumb_core::runfolder::strip_machine;

use super::*;

const DENSE: &str = "adam-mini/dense-blocks";

#[test]
fn a_run_leaves_a_whole_folder_with_an_offline_report() {
    let dir = tempfile::tempdir().unwrap();
    let d = Some(dir.path());
    ok(d, &["run", DENSE, "--out", "a", "-s", "budget.steps=50"]);
    for file in
        ["manifest.json", "records.jsonl", "records.csv", "outcome.json", "result.json", "tensorboard"]
    {
        assert!(dir.path().join("a").join(file).exists(), "{file}");
    }
    let arm = dir.path().join("a/seed-0/adamw-lr1e-1");
    for file in ["manifest.json", "records.jsonl", "records.csv", "outcome.json", "state.bin", "tensorboard"]
    {
        assert!(arm.join(file).exists(), "{file}");
    }
    let html = std::fs::read_to_string(dir.path().join("a/report.html")).unwrap();
    assert!(html.contains("<svg") && html.contains("The claim") && !html.contains("<script"));
    for (format, file) in [("md", "report.md"), ("csv", "report.csv"), ("svg", "plot-1.svg")] {
        ok(d, &["report", "a", "--format", format]);
        assert!(dir.path().join("a").join(file).exists(), "{file}");
    }
}

#[test]
fn a_recipe_that_cannot_run_does_not_take_the_others_verdicts_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = run(Some(dir.path()), &["check", "gem/smol-chat", HALF]);
    assert_eq!(out.status.code(), Some(4));
    let text = String::from_utf8(out.stdout).unwrap();
    for words in
        ["gem/smol-chat: not run: there is no model at smol", "as recorded; 1 could not be run", HALF]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let json = run(Some(dir.path()), &["check", "gem/smol-chat", HALF, "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json[0]["error"].is_string() && json[1]["as_recorded"] == true, "{json}");
}

#[test]
fn check_ends_with_one_when_the_outcome_differs_from_the_record() {
    assert!(json(None, &["check", HALF])[0]["as_recorded"].as_bool().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = recipe(dir.path(), HALF, |t| t.replace("expect = \"holds\"", "expect = \"refuted\""));
    let out = run(None, &["check", &path]);
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        text.contains("refuted   holds  <- differs") && text.contains("1 of 1 outcomes differ"),
        "{text}"
    );
    // A refuted claim that is recorded as refuted is no failure.
    let path = recipe(dir.path(), HALF, |t| {
        t.replace("expect = \"holds\"", "expect = \"refuted\"").replace("value = 0.497", "value = 0.6")
    });
    assert!(ok(None, &["check", &path]).contains("every outcome is as recorded"));
}

#[test]
fn the_same_seed_gives_the_same_records_and_compare_says_equal() {
    let dir = tempfile::tempdir().unwrap();
    let d = Some(dir.path());
    for out in ["a", "b"] {
        ok(d, &["run", DENSE, "--out", out, "-s", "budget.steps=60", "--seeds", "0..2"]);
    }
    let mut compared = 0;
    for file in records(&dir.path().join("a")) {
        let twin = dir.path().join("b").join(file.strip_prefix(dir.path().join("a")).unwrap());
        let text = |p: &Path| std::fs::read_to_string(p).unwrap();
        for (x, y) in text(&file).lines().zip(text(&twin).lines()) {
            assert_eq!(strip_machine(x), strip_machine(y), "{}", file.display());
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared}");
    let verdicts = json(d, &["compare", "a", "b"]);
    assert!(verdicts["metrics"].as_array().unwrap().iter().all(|m| m["verdict"] == "equal"), "{verdicts}");
}

#[test]
fn a_value_that_is_not_finite_ends_with_three_and_names_arm_and_step() {
    let e = fails(None, 3, &["check", &diverging(&tempfile::tempdir().unwrap().keep())]);
    assert!(e.contains("adamw-lr") && e.contains("step ") && e.contains("not finite"), "{e}");
}

fn diverging(dir: &Path) -> String {
    recipe(dir, DENSE, |t| t.replace("beta1 = 0.9", "beta1 = 0.0").replace("[\n    0.0003", "[\n    1e200"))
}

/// Ctrl-C writes a checkpoint and ends with 130; the resumed run ends with the bits of an undisturbed one.
#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on_to_the_same_result() {
    let dir = tempfile::tempdir().unwrap();
    let d = Some(dir.path());
    let args = |out: &'static str| ["run", DENSE, "--out", out, "-s", "budget.steps=20000"];
    ok(d, &args("whole"));
    let mut child = rhumb(d).args(args("cut")).spawn().unwrap();
    let began = Instant::now();
    while !dir.path().join("cut/seed-0/adam-mini-lr3e-3/records.jsonl").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "the run did not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut again = args("cut").to_vec();
    again.push("--resume");
    ok(d, &again);
    let metrics = |out: &str| {
        let text = std::fs::read_to_string(dir.path().join(out).join("result.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["seeds"][0]["metrics"].clone()
    };
    assert_eq!(metrics("whole"), metrics("cut"));
}

/// Nothing but `model pull` needs a network. Skips where namespaces are not allowed.
#[cfg(target_os = "linux")]
#[test]
fn recipes_run_in_a_network_namespace_without_a_network() {
    let allowed = Command::new("unshare").args(["-rn", "true"]).status().is_ok_and(|s| s.success());
    if !allowed {
        println!("skipped: network namespaces are not allowed here");
        return;
    }
    let out =
        Command::new("unshare").args(["-rn", env!("CARGO_BIN_EXE_rhumb"), "check", HALF]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn records(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(records(&path));
        } else if path.file_name().unwrap() == "records.jsonl" {
            out.push(path);
        }
    }
    out
}
