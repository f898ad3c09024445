//! A fine-tuning that is killed at random moments ends with the bits of an undisturbed one.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rhumb_core::runfolder::strip_machine;
use rhumb_linalg::rng::Rng;
use serde_json::Value as Json;

use crate::fixture::{model, save};
use crate::train::data;

const STEPS: usize = 400;
const EVERY: usize = 3;
const KILLS: usize = 6;

/// `train sft` on the same model and data, into `run`.
fn command(dir: &Path, run: &str, resume: bool) -> Command {
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let mut c = Command::new(env!("CARGO_BIN_EXE_rhumb"));
    c.args(["train", "sft", "--model", &at("m"), "--data", &at("chat.jsonl"), "--out", &at(run), "--json"]);
    c.args([
        "--tokens",
        "48",
        "--batch",
        "2",
        "--held-out",
        "4",
        "--steps",
        &STEPS.to_string(),
        "--lr",
        "3e-3",
    ]);
    c.args(["--loss", "gem-linear", "--eval-every", "10", "--checkpoint-every", &EVERY.to_string()]);
    if resume {
        c.arg("--resume");
    }
    c
}

/// Runs it to its end and returns its JSON.
fn finish(mut c: Command) -> Json {
    let out = c.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Whole lines of the records; one is written for every step.
fn progress(dir: &Path) -> usize {
    fs::read_to_string(dir.join("records.jsonl")).map_or(0, |t| t.matches('\n').count())
}

/// Waits until the run is `steps` further than at its start, and a little longer; false when it ended before.
fn wait(child: &mut Child, dir: &Path, steps: usize, extra: Duration) -> bool {
    let (began, from) = (Instant::now(), progress(dir));
    loop {
        let now = progress(dir);
        // A run that began anew would end with the right bits too.
        assert!(now + EVERY >= from, "from step {from} the run went back to {now}");
        if now >= from + steps {
            break;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no progress from step {from} on");
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(extra);
    child.try_wait().unwrap().is_none()
}

/// What a run leaves that does not depend on the machine: weights, and records without times.
fn result(dir: &Path) -> (Vec<(String, Vec<u8>)>, Vec<String>) {
    let weights = ["model", "best"].map(|m| dir.join(m).join("model.safetensors"));
    let weights = weights.iter().filter(|p| p.exists());
    let records = fs::read_to_string(dir.join("records.jsonl")).unwrap();
    (
        weights.map(|p| (p.strip_prefix(dir).unwrap().display().to_string(), fs::read(p).unwrap())).collect(),
        records.lines().map(|l| strip_machine(l).into_owned()).collect(),
    )
}

#[test]
fn a_fine_tuning_killed_at_random_moments_ends_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    save(&model(), &dir.path().join("m"));
    data(dir.path(), None);
    let calm = finish(command(dir.path(), "calm", false));
    let stormy = dir.path().join("stormy");
    let mut rng = Rng::new(29);
    for kill in 0..KILLS {
        let mut child = command(dir.path(), "stormy", kill > 0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The first kills come close behind a checkpoint, the others anywhere in the next fifty steps.
        let steps = if kill == 0 { EVERY } else { 1 + rng.below(50) };
        let hit = wait(&mut child, &stormy, steps, Duration::from_micros(rng.below(20_000) as u64));
        assert!(hit, "the run ended before kill {kill}: it proves nothing");
        child.kill().unwrap();
        child.wait().unwrap();
        let now = progress(&stormy);
        assert!((1..STEPS).contains(&now), "kill {kill} came at step {now}");
        assert!(!stormy.join("outcome.json").exists() && !stormy.join("model").exists());
    }
    let after = finish(command(dir.path(), "stormy", true));
    assert_eq!(calm["held_out"], after["held_out"]);
    assert_eq!(after["steps"], STEPS);
    let (a, b) = (result(&dir.path().join("calm")), result(&stormy));
    assert!(!a.0.is_empty() && a.1.len() == STEPS);
    assert!(a.0 == b.0, "the weights differ");
    assert!(a.1 == b.1, "the records differ");
}

/// The first Ctrl-C ends the run after its step, with a checkpoint of that step.
#[cfg(unix)]
#[test]
fn an_interrupted_fine_tuning_ends_with_130_and_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    save(&model(), &dir.path().join("m"));
    data(dir.path(), None);
    finish(command(dir.path(), "calm", false));
    let cut = dir.path().join("cut");
    let mut first = command(dir.path(), "cut", false);
    let mut child = first.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(wait(&mut child, &cut, 4 * EVERY, Duration::ZERO));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let out = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(130), "{err}");
    let done = progress(&cut);
    assert!(err.contains(&format!("interrupted after step {done};")) && err.contains("--resume"), "{err}");
    assert!((4 * EVERY..STEPS).contains(&done) && !cut.join("model").exists());
    assert_eq!(finish(command(dir.path(), "cut", true))["steps"], STEPS);
    assert!(result(&dir.path().join("calm")) == result(&cut));
}

#[test]
fn one_thread_and_two_give_the_same_records_and_weights() {
    let dir = tempfile::tempdir().unwrap();
    save(&model(), &dir.path().join("m"));
    data(dir.path(), None);
    for threads in ["1", "2"] {
        let mut c = command(dir.path(), threads, false);
        c.env("RAYON_NUM_THREADS", threads);
        finish(c);
    }
    assert!(result(&dir.path().join("1")) == result(&dir.path().join("2")));
}

#[test]
fn a_run_is_not_gone_on_with_under_other_settings() {
    let dir = tempfile::tempdir().unwrap();
    save(&model(), &dir.path().join("m"));
    data(dir.path(), None);
    let mut child =
        command(dir.path(), "run", false).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(wait(&mut child, &dir.path().join("run"), EVERY, Duration::ZERO));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut other = command(dir.path(), "run", true);
    let out = other.args(["--beta", "0.5", "--seed", "3"]).output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{err}");
    assert!(err.contains("another beta, seed"), "{err}");
}
