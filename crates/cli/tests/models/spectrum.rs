//! `spectrum` on a small random model: what it measures and leaves behind, how it is gone on with, what it refuses.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::fixture::{Ended, model, rhumb, save};
use crate::refusals::{judge, refused, text};
use crate::train::data;

fn spectrum(models: &[&str], data: &str, out: &Path, more: &[&str]) -> Ended {
    let batch = if more.contains(&"--batch") { &[][..] } else { &["--batch", "2"] };
    let fixed = ["--data", data, "--tokens", "32", "--out", text(out), "--json"];
    rhumb(&[&["spectrum"], models, &fixed, batch, more].concat())
}

fn blocks(found: &Json) -> &Vec<Json> {
    found["models"][0]["blocks"].as_array().unwrap()
}

fn number(j: &Json) -> f64 {
    j.as_f64().unwrap()
}

#[test]
fn blocks_have_quadratures_bounds_and_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let (m, d) = (save(&model(), &dir.path().join("m")), data(dir.path(), None));
    let out = dir.path().join("run");
    let more = [
        "-m",
        "12",
        "--probes",
        "2",
        "--double",
        "--blocks",
        "*q_proj*,*down_proj*",
        "--structure",
        "4",
        "--map",
        "2",
    ];
    let found = spectrum(&[&m], &d, &out, &[&more[..], &["--landscape"]].concat()).json();
    let all = blocks(&found);
    assert!(all.len() >= 2 && all.iter().all(|b| b["block"]["name"].as_str().unwrap().contains("_proj")));
    for b in all {
        let (nodes, weights) = (b["nodes"].as_array().unwrap(), b["weights"].as_array().unwrap());
        assert_eq!((nodes.len(), weights.len()), (2, 2));
        for (n, w) in nodes.iter().zip(weights) {
            let sum: f64 = w.as_array().unwrap().iter().map(number).sum();
            assert!((sum - 1.0).abs() < 1e-12 && n.as_array().unwrap().len() == 12);
            let last = number(n.as_array().unwrap().last().unwrap());
            assert!(last <= number(&b["top"]["value"]));
        }
        // Twelve steps of small blocks, in f64.
        assert!(number(&b["top"]["residual"]) < 0.5 * number(&b["top"]["value"]).abs(), "{b}");
    }
    let first = &found["models"][0];
    assert!(number(&first["check"]["asymmetry"]) < 1e-12);
    assert_eq!(first["structure"].as_array().unwrap().len(), all.len());
    for s in first["structure"].as_array().unwrap() {
        let share = number(&s["rows"]["share"]);
        assert!((0.0..=1.0).contains(&share) && number(&s["rows"]["unstructured"]) < 0.5, "{s}");
    }
    let losses = first["landscape"]["slice"]["losses"].as_array().unwrap();
    assert!(losses.len() == 21 && number(&losses[10]) > 0.0);
    assert!(number(&first["heterogeneity"]["decades"]) >= 0.0);
    assert_eq!(first["map"]["squares"].as_array().unwrap().len(), all.len() * all.len());
    assert_eq!(first["advice"]["single"].as_array().unwrap().len(), 2);
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("SGD on ") && report.contains("Blocks of Adam-mini for "));
    for file in ["report.html", "blocks.csv", "spectrum.json", "records.jsonl"] {
        assert!(out.join(file).exists(), "{file}");
    }
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for word in ["Density of eigenvalues", "Jensen-Shannon", "decades apart", "<rect"] {
        assert!(page.contains(word), "{word}");
    }
    let rows = fs::read_to_string(out.join("blocks.csv")).unwrap();
    assert_eq!(rows.lines().count(), all.len() + 1);
}

#[test]
fn gauss_newton_and_fisher_have_no_negative_eigenvalues_and_the_sum_grows_with_the_batches() {
    let dir = tempfile::tempdir().unwrap();
    let (m, d) = (save(&model(), &dir.path().join("m")), data(dir.path(), None));
    let one = ["-m", "8", "--double", "--blocks", "*0*q_proj*", "--cut", "head"];
    let at = |name: &str| dir.path().join(name);
    for operator in ["ggn", "fisher"] {
        let found =
            spectrum(&[&m], &d, &at(operator), &[&one[..], &["--operator", operator]].concat()).json();
        assert!(blocks(&found).len() > 1, "heads");
        for b in blocks(&found) {
            let (low, high) = (number(&b["bottom"]["value"]), number(&b["top"]["value"]));
            assert!(high > 0.0 && low > -1e-12 * high, "{operator}: {low} to {high}");
        }
    }
    let two = [&one[..], &["--batch", "1", "--batches", "2"]].concat();
    let top = |name: &str, reduction: &str| {
        let found = spectrum(&[&m], &d, &at(name), &[&two[..], &["--reduction", reduction]].concat()).json();
        number(&blocks(&found)[0]["top"]["value"])
    };
    let ratio = top("sum", "sum") / top("mean", "mean");
    assert!((1.5..2.5).contains(&ratio), "about twice the mean of two batches: {ratio}");
}

#[test]
fn several_models_are_measured_one_after_another() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let mut other = model();
    other.tensors.values_mut().for_each(|t| t.data.iter_mut().for_each(|x| *x *= 1.5));
    let n = save(&other, &dir.path().join("n"));
    let d = data(dir.path(), None);
    let (both, alone) = (dir.path().join("both"), dir.path().join("alone"));
    let more = ["-m", "6", "--blocks", "*q_proj*"];
    let found = spectrum(&[&m, &n], &d, &both, &more).json();
    let single = spectrum(&[&n], &d, &alone, &more).json();
    assert_eq!(found["models"].as_array().unwrap().len(), 2);
    assert_eq!(found["models"][1], single["models"][0]);
    assert_ne!(found["models"][0]["blocks"], found["models"][1]["blocks"]);
    assert!(fs::read_to_string(both.join("report.html")).unwrap().contains("Models"));
}

#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (m, d) = (save(&model(), &dir.path().join("m")), data(dir.path(), None));
    let (calm, stormy) = (dir.path().join("calm"), dir.path().join("stormy"));
    let more = ["-m", "40", "--probes", "3", "--blocks", "*proj*", "--save-every", "0.0001"];
    let want = spectrum(&[&m], &d, &calm, &more).json();
    let lines = || fs::read_to_string(stormy.join("records.jsonl")).map_or(0, |t| t.matches('\n').count());
    for kill in 0..3 {
        let mut c = Command::new(env!("CARGO_BIN_EXE_rhumb"));
        c.args(["spectrum", &m, "--data", &d, "--tokens", "32", "--batch", "2", "--out", text(&stormy)]);
        c.args(more).args(if kill > 0 { &["--resume"][..] } else { &[] });
        let mut child = c.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (began, from) = (Instant::now(), lines());
        while lines() < from + 10 {
            assert!(child.try_wait().unwrap().is_none(), "the run ended before kill {kill}");
            assert!(began.elapsed() < Duration::from_secs(60), "no progress");
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!stormy.join("spectrum.json").exists(), "the run was finished at kill {kill}");
    }
    let other = ["-m", "39", "--probes", "3", "--blocks", "*proj*", "--resume"];
    judge(&spectrum(&[&m], &d, &stormy, &other), &other, 2, &["another steps"]);
    let after = spectrum(&[&m], &d, &stormy, &[&more[..], &["--resume"]].concat()).json();
    assert_eq!(after, want);
    let records = |p: &Path| fs::read_to_string(p.join("records.jsonl")).unwrap().lines().count();
    assert_eq!(records(&stormy), records(&calm));
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_block_or_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let (m, d) = (save(&model(), &dir.path().join("m")), data(dir.path(), None));
    let out = dir.path().join("run");
    let base = ["spectrum", &m, "--data", &d, "--out", text(&out)];
    let bad = |more: &[&str], code: i32, words: &[&str]| {
        refused(&[&base[..], more].concat(), code, words);
        assert!(!out.exists(), "nothing was begun");
    };
    let short = |more: &[&'static str]| [&["--tokens", "32"], more].concat();
    bad(&short(&["--blocks", "*nothing*"]), 2, &["no tensor matches the pattern `*nothing*`", "model has"]);
    bad(
        &short(&["--blocks", "*norm*", "-m", "5000"]),
        2,
        &["5000 Lanczos steps are more than block", "norm"],
    );
    bad(&short(&["--batch", "9999"]), 2, &["give more data", "--batch"]);
    bad(&["--tokens", "65"], 2, &["context of this model is 64"]);
    bad(&["--plain", "--landscape"], 2, &["--landscape needs the eigenvector"]);
    bad(&short(&["--resume"]), 4, &["no run to resume"]);
    bad(&short(&["-m", "0"]), 2, &["0"]);
    let mut broken = model();
    broken.tensors.values_mut().for_each(|t| t.data.iter_mut().for_each(|x| *x *= 1e30));
    let n = save(&broken, &dir.path().join("n"));
    let e = rhumb(&["spectrum", &n, "--data", &d, "--tokens", "32", "-m", "4", "--out", text(&out)]);
    judge(&e, &["overflowing weights"], 3, &["not finite", "batch 0"]);
}
