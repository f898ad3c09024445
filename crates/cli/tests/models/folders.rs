//! Where runs and models go, and how a run is gone on with.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::fixture::{model, rhumb, save};
use crate::refusals::{judge, refused, text, train};
use crate::train::data;

fn manifest(run: &Path) -> Json {
    serde_json::from_str(&fs::read_to_string(run.join("manifest.json")).unwrap()).unwrap()
}

/// What makes a finished run look like one that was cut off before it saved its model.
fn unfinish(run: &Path) {
    fs::remove_dir_all(run.join("model")).unwrap();
}

#[test]
fn a_finished_run_says_so_and_its_files_say_what_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    judge(&train(&m, &d, &out, &["--resume"]), &[], 4, &["holds no run to resume", "leave out --resume"]);
    assert!(!out.exists());
    let e = train(&m, &d, &out, &["--checkpoint-every", "1"]);
    assert_eq!(e.code, 0, "{}", e.err);
    assert!(out.join("state.bin").is_file() && !out.join("state.bin.prev").exists());
    let told = manifest(&out);
    assert_eq!(told["config"]["full"], true);
    assert_eq!(told["machine"]["threads"], std::thread::available_parallelism().unwrap().get());
    for key in ["model", "data"] {
        assert!(told["versions"][key].as_str().unwrap().contains(" bytes, "), "{told}");
    }
    let again = train(&m, &d, &out, &["--checkpoint-every", "1", "--resume"]);
    assert_eq!(again.json(), e.json(), "the result of the finished run");
    let mut args = vec!["train", "sft", "--model", &m, "--data", &d, "--out", text(&out), "--resume"];
    args.extend(["--tokens", "48", "--batch", "2", "--held-out", "4", "--steps", "4", "--lr", "1e-2"]);
    let words = rhumb(&args);
    assert!(
        words.code == 0 && words.out.contains("is finished after 4 steps"),
        "{} {}",
        words.out,
        words.err
    );
}

#[test]
fn a_finished_run_is_not_gone_on_with_under_other_settings_or_on_other_files() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    assert_eq!(train(&m, &d, &out, &[]).code, 0);
    let other = ["--resume", "--lr", "0.25", "--seed", "3"];
    judge(&train(&m, &d, &out, &other), &[], 2, &["another lr, seed", "choose another --out"]);
    let lines = fs::read_to_string(&d).unwrap();
    fs::write(&d, lines.replace("q3", "Q3")).unwrap();
    judge(&train(&m, &d, &out, &["--resume"]), &[], 2, &["the data changed since"]);
    fs::write(&d, &lines).unwrap();
    assert_eq!(train(&m, &d, &out, &["--resume"]).code, 0);
}

#[test]
fn a_run_is_not_gone_on_with_on_other_files() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    assert_eq!(train(&m, &d, &out, &[]).code, 0);
    unfinish(&out);
    let lines = fs::read_to_string(&d).unwrap();
    fs::write(&d, lines.replace("q3", "Q3")).unwrap();
    judge(&train(&m, &d, &out, &["--resume"]), &[], 2, &["the data changed since", "choose another --out"]);
    fs::write(&d, &lines).unwrap();
    let weights = dir.path().join("m/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let n = bytes.len();
    bytes[n - 4] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    judge(&train(&m, &d, &out, &["--resume"]), &[], 2, &["the model changed since"]);
    bytes[n - 4] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    assert_eq!(train(&m, &d, &out, &["--resume"]).code, 0);
}

/// As a run that was killed while it wrote its model.
#[test]
fn a_run_that_goes_on_removes_what_a_killed_one_left() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    assert_eq!(train(&m, &d, &out, &[]).code, 0);
    fs::remove_file(out.join("report.html")).unwrap();
    let left = ["tokens.tmp", "model/model.safetensors.4000000000.tmp", "model/config.json.4000000000.tmp"];
    left.iter().for_each(|name| fs::write(out.join(name), "part").unwrap());
    assert_eq!(train(&m, &d, &out, &["--resume"]).code, 0);
    for name in left {
        assert!(!out.join(name).exists(), "{name}");
    }
}

/// As a run that was killed while it still read its data.
#[test]
fn a_folder_with_nothing_but_spilled_tokens_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    fs::create_dir(&out).unwrap();
    fs::write(out.join("tokens.tmp"), "part").unwrap();
    assert_eq!(train(&m, &d, &out, &[]).code, 0);
    assert!(!out.join("tokens.tmp").exists());
}

#[test]
fn the_time_of_a_template_is_recorded_and_taken_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = model();
    let template = files.tokenizer_config.as_ref().unwrap()["chat_template"].as_str().unwrap().to_owned();
    files.tokenizer_config.as_mut().unwrap()["chat_template"] =
        json!(format!("{{{{ strftime_now('%Y') }}}} {template}"));
    let m = save(&files, &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    assert_eq!(train(&m, &d, &out, &[]).code, 0);
    let mut told = manifest(&out);
    assert!(told["config"]["template_unix_s"].as_u64().unwrap() > 1_600_000_000);
    told["config"]["template_unix_s"] = json!(1_000_000_000);
    fs::write(out.join("manifest.json"), told.to_string()).unwrap();
    unfinish(&out);
    assert_eq!(train(&m, &d, &out, &["--resume"]).code, 0);
    assert_eq!(manifest(&out)["config"]["template_unix_s"], 1_000_000_000);
}

/// The printed command is typed as it stands, in a folder with a space in its name.
#[cfg(unix)]
#[test]
fn the_command_that_goes_on_after_ctrl_c_can_be_typed() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("my work");
    let m = save(&model(), &work.join("a model"));
    let d = data(&work, None);
    let child = Command::new(env!("CARGO_BIN_EXE_rhumb"))
        .current_dir(&work)
        .args([
            "train",
            "sft",
            "--model",
            &m,
            "--data",
            &d,
            "--tokens",
            "48",
            "--batch",
            "2",
            "--held-out",
            "4",
        ])
        .args(["--steps", "300", "--lr", "1e-3", "--eval-every", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let lines = || {
        let run = fs::read_dir(work.join("runs")).ok()?.next()?.ok()?.path();
        Some(fs::read_to_string(run.join("manifest.json")).is_ok())
    };
    while lines() != Some(true) {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let out = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(130), "{err}");
    let line = err.split("go on with: rhumb ").nth(1).unwrap().trim();
    assert!(
        line.contains("a model'") && line.contains(" --out runs/sft-") && line.ends_with(" --resume"),
        "{line}"
    );
    let script = format!("exec \"$0\" {line} --json");
    let again = Command::new("sh")
        .current_dir(&work)
        .args(["-c", &script, env!("CARGO_BIN_EXE_rhumb")])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success(), "{line}: {err}");
    let result: Json = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(result["steps"], 300);
}

#[test]
fn nothing_is_written_into_a_folder_of_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, other) = (data(dir.path(), None), dir.path().join("other"));
    fs::create_dir(&other).unwrap();
    let note = other.join("note.txt");
    fs::write(&note, "mine").unwrap();
    judge(&train(&m, &d, &other, &[]), &[], 2, &["is not empty and holds no run"]);
    refused(&["quickstart", "--out", text(&other)], 2, &["is not empty and holds no run"]);
    refused(&["model", "import", &m, "--out", text(&other)], 2, &["is not empty", "--force"]);
    refused(
        &["model", "export", &m, "--format", "hf", "--out", text(&other)],
        2,
        &["is not empty", "--force"],
    );
    refused(
        &["model", "export", &m, "--format", "gguf", "--out", text(&note)],
        2,
        &["note.txt exists", "--force"],
    );
    assert_eq!(fs::read_to_string(&note).unwrap(), "mine");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    let export = ["model", "export", &m, "--format", "gguf", "--out", text(&note), "--force"];
    assert_eq!(rhumb(&export).code, 0);
    assert_eq!(rhumb(&["model", "import", &m, "--out", text(&other), "--force"]).code, 0);
}

#[test]
fn a_report_is_written_again_from_the_files_of_any_run() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    assert_eq!(train(&m, &d, &out, &["--loss", "gem-linear"]).code, 0);
    let page = out.join("report.html");
    let first = fs::read_to_string(&page).unwrap();
    for word in ["eval_ce", "cross-entropy", "rhumb train sft", "threads", "began", "Settings"] {
        assert!(first.contains(word), "{word}");
    }
    fs::remove_file(&page).unwrap();
    assert_eq!(rhumb(&["report", text(&out)]).code, 0);
    assert_eq!(fs::read_to_string(&page).unwrap(), first);
    let md = rhumb(&["report", text(&out), "--format", "md"]);
    assert_eq!(md.code, 0, "{}", md.err);
    assert_eq!(rhumb(&["report", text(&out), "--format", "csv"]).code, 0);
    assert!(fs::read_to_string(out.join("report.csv")).unwrap().contains(",3,\"eval_ce\","));
    refused(&["compare", text(&out), text(&out)], 2, &["neither a run of a recipe", "rhumb run"]);
    // A run that was killed has no summary yet.
    fs::remove_file(out.join("summary.json")).unwrap();
    assert_eq!(rhumb(&["report", text(&out)]).code, 0);
    assert!(fs::read_to_string(&page).unwrap().contains("did not finish"));
}

#[test]
fn without_held_out_conversations_no_empty_table_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    let args =
        ["train", "sft", "--model", &m, "--data", &d, "--out", text(&out), "--tokens", "48", "--steps", "1"];
    let e = rhumb(&[&args[..], &["--held-out", "0"]].concat());
    assert_eq!(e.code, 0, "{}", e.err);
    assert!(!e.out.contains("held out ") && e.out.contains("No held-out conversations"), "{}", e.out);
    assert!(!fs::read_to_string(out.join("report.html")).unwrap().contains("Held-out conversations</"));
}

/// Interrupted, and begun anew in the same folder.
#[cfg(unix)]
#[test]
fn an_interrupted_quick_start_begins_anew_with_the_same_command() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("q");
    let arm = out.join("pretrain/manifest.json");
    for _ in 0..2 {
        let before = fs::read_to_string(&arm).ok();
        let child = Command::new(env!("CARGO_BIN_EXE_rhumb"))
            .args(["quickstart", "--out", text(&out)])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let began = Instant::now();
        // The arm that was cut off stands there until the new one takes its place.
        while fs::read_to_string(&arm).map_or(true, |now| now.is_empty() || Some(now) == before) {
            assert!(began.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let ended = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(130), "{err}");
        assert!(err.contains("begins anew: rhumb quickstart --out") && !err.contains("checkpoint;"), "{err}");
        assert!(!err.contains("writing a checkpoint"), "{err}");
    }
    assert!(out.join("manifest.json").is_file());
}
