//! A model from nothing: `model new`, `data tokenize`, `train pretrain`, `generate`.

use std::fs;
use std::path::Path;

use crate::fixture::{model, rhumb, save};
use crate::refusals::{judge, refused, text};

/// A text whose letters follow from those before them, mostly.
fn corpus(dir: &Path) -> String {
    let path = dir.join("corpus.txt");
    let words = ["one", "two", "three", "four", "five", "six", "seven"];
    let lines: Vec<String> =
        (0..400).map(|i| (0..6).map(|j| words[(i + j) % 7]).collect::<Vec<_>>().join(" ") + ".").collect();
    fs::write(&path, lines.join("\n")).unwrap();
    text(&path).to_owned()
}

/// A fresh model of bytes and the shards of the corpus.
fn prepared(dir: &Path) -> (String, String) {
    let (m, shards) = (dir.join("fresh"), dir.join("shards"));
    let new = [
        "model",
        "new",
        "--layers",
        "1",
        "--width",
        "32",
        "--heads",
        "2",
        "--positions",
        "64",
        "--out",
        text(&m),
    ];
    assert_eq!(rhumb(&new).code, 0);
    let c = corpus(dir);
    let made = rhumb(&[
        "data",
        "tokenize",
        "--model",
        text(&m),
        &c,
        "--out",
        text(&shards),
        "--shard-tokens",
        "3000",
        "--json",
    ])
    .json();
    // One token per byte, and one that ends the document.
    assert_eq!(made["tokens"].as_u64().unwrap(), fs::metadata(&c).unwrap().len() + 1);
    assert!(made["shards"].as_u64().unwrap() > 3 && made["documents"] == 1, "{made}");
    (text(&m).to_owned(), text(&shards).to_owned())
}

fn args<'a>(m: &'a str, shards: &'a str, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut a = vec!["train", "pretrain", "--model", m, "--data", shards, "--out", text(out), "--json"];
    for pair in
        [["--tokens", "32"], ["--batch", "4"], ["--held-out", "8"], ["--steps", "40"], ["--lr", "1e-2"]]
    {
        if !more.contains(&pair[0]) {
            a.extend(pair);
        }
    }
    a.extend(more);
    a
}

/// Killed when its first checkpoint stands; a fast machine may be through before.
fn killed_at_its_first_checkpoint(args: &[&str], out: &Path) {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_rhumb"))
        .args(args)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..4000 {
        if out.join("state.bin").exists() || child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn a_model_from_nothing_learns_the_text_and_goes_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (m, shards) = prepared(dir.path());
    let out = dir.path().join("run");
    let told = rhumb(&args(&m, &shards, &out, &[])).json();
    let ce = &told["held_out"][0];
    // Fresh weights know nothing of 257 tokens: log 257 = 5.55.
    assert!((ce["before"].as_f64().unwrap() - 5.55).abs() < 0.2, "{ce}");
    assert!(ce["after"].as_f64().unwrap() < 2.8, "{ce}");
    let trained = out.join("model");
    let said =
        rhumb(&["generate", text(&trained), "--prompt", "one two", "--greedy", "--max-new", "8", "--json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("Held-out windows"));
}

#[test]
fn a_resumed_pre_training_ends_with_the_bits_of_an_undisturbed_one() {
    let dir = tempfile::tempdir().unwrap();
    let (m, shards) = prepared(dir.path());
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let more = ["--separate-documents", "--checkpoint-every", "5"];
    assert_eq!(rhumb(&args(&m, &shards, &whole, &more)).code, 0);
    killed_at_its_first_checkpoint(&args(&m, &shards, &cut, &more), &cut);
    let other = args(&m, &shards, &cut, &["--resume", "--lr", "3e-3", "--separate-documents"]);
    judge(&rhumb(&other), &other, 2, &["holds a run with another lr"]);
    let again = rhumb(&args(&m, &shards, &cut, &[&more[..], &["--resume"]].concat()));
    assert_eq!(again.code, 0, "{}", again.err);
    let weights = |d: &Path| fs::read(d.join("model/model.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&cut));
    judge(&rhumb(&other), &other, 2, &["holds a run with another lr"]);
}

#[test]
fn measured_blocks_are_written_down_and_a_resumed_training_keeps_them() {
    let dir = tempfile::tempdir().unwrap();
    let (m, shards) = prepared(dir.path());
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let more = ["--partition", "measured", "--checkpoint-every", "5"];
    let run = rhumb(&args(&m, &shards, &whole, &more));
    assert_eq!(run.code, 0, "{}", run.err);
    let decided = |d: &Path| fs::read_to_string(d.join("partition.json")).unwrap();
    let rules: serde_json::Value = serde_json::from_str(&decided(&whole)).unwrap();
    let rules = rules.as_array().unwrap();
    let of = |name: &str| rules.iter().find(|r| r["rule"]["names"].as_str().unwrap().contains(name)).unwrap();
    // Bytes that the text does not have are rows of the embedding without any curvature.
    assert_eq!(of("embed_tokens")["rule"]["unit"], "row");
    assert!(of("embed_tokens")["mean"]["whole"]["cv2"].as_f64().unwrap() > 2.0);
    assert!(of("q_proj")["mean"]["heads"]["error"].as_f64().unwrap() > 0.0);
    for r in rules {
        let (unit, whole) =
            (r["rule"]["unit"].as_str().unwrap(), r["mean"]["whole"]["cv2"].as_f64().unwrap());
        assert_eq!(unit == "tensor", whole <= 1.0, "{r}");
    }
    killed_at_its_first_checkpoint(&args(&m, &shards, &cut, &more), &cut);
    assert_eq!(decided(&cut), decided(&whole));
    let again = args(&m, &shards, &cut, &[&more[..], &["--resume"]].concat());
    assert_eq!(rhumb(&again).code, 0);
    let weights = |d: &Path| fs::read(d.join("model/model.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&cut));

    let plain = dir.path().join("plain");
    assert_eq!(rhumb(&args(&m, &shards, &plain, &[])).code, 0);
    assert!(weights(&plain) != weights(&whole), "the blocks make a difference");
    let other = dir.path().join("other");
    let adamw = args(&m, &shards, &other, &["--partition", "measured", "--optimizer", "adamw"]);
    refused(&adamw, 2, &["--partition measured belongs to --optimizer adam-mini"]);
    let unknown = args(&m, &shards, &other, &["--partition", "guessed"]);
    refused(&unknown, 2, &["guessed", "measured"]);
    assert!(!other.exists());
}

#[test]
fn shards_of_another_tokenizer_unfinished_ones_and_too_little_text_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (m, shards) = prepared(dir.path());
    let out = dir.path().join("run");
    let foreign = save(&model(), &dir.path().join("foreign"));
    refused(&args(&foreign, &shards, &out, &[]), 2, &["another tokenizer", "tokenize the text again"]);
    refused(&args(&m, &m, &out, &[]), 4, &["holds no token shards", "rhumb data tokenize"]);
    refused(
        &args(&m, &shards, &out, &["--held-out", "100000"]),
        2,
        &["that leaves none to train on", "(--held-out)"],
    );
    refused(&args(&m, &shards, &out, &["--tokens", "65"]), 2, &["context of this model is 64"]);
    let tokenize = |more: &[&'static str]| {
        let mut a = vec!["data", "tokenize", "--model", &m, "--out", &shards];
        a.extend(more);
        a.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()
    };
    let missing = tokenize(&["absent.txt"]);
    refused(&missing.iter().map(String::as_str).collect::<Vec<_>>(), 4, &["absent.txt"]);
    let c = corpus(dir.path());
    refused(&["data", "tokenize", "--model", &m, &c, "--out", &shards], 2, &["already holds token shards"]);
    let bad = dir.path().join("bad.jsonl");
    fs::write(&bad, "{\"text\":\"a\"}\n{\"txt\":1}\n").unwrap();
    let fresh = dir.path().join("fresh-shards");
    refused(
        &["data", "tokenize", "--model", &m, text(&bad), "--out", text(&fresh)],
        2,
        &["bad.jsonl, line 2", "missing field `text`"],
    );
}

#[test]
fn nothing_that_trains_or_reads_needs_a_network() {
    let alone = |args: &[&str]| {
        std::process::Command::new("unshare")
            .args([&["-rn", env!("CARGO_BIN_EXE_rhumb")], args].concat())
            .output()
    };
    if !alone(&["licenses"]).is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: network namespaces are not allowed here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (m, shards) = prepared(dir.path());
    let chat = crate::train::data(dir.path(), None);
    let chatty = save(&model(), &dir.path().join("chatty"));
    let (own, tuned, gguf) = (dir.path().join("own"), dir.path().join("tuned"), dir.path().join("x.gguf"));
    let sft = ["train", "sft", "--model", &chatty, "--data", &chat, "--tokens", "48", "--held-out", "4"];
    for args in [
        args(&m, &shards, &own, &["--steps", "2"]),
        [&sft[..], &["--steps", "2", "--out", text(&tuned)]].concat(),
        vec!["generate", &m, "--prompt", "a", "--max-new", "2"],
        vec!["score", &m, "--text", "abc"],
        vec!["model", "info", &m],
        vec!["model", "export", &chatty, "--format", "gguf", "--out", text(&gguf)],
        vec!["data", "preview", "--model", &chatty, "--data", &chat],
        vec!["plan", "--model", &m],
        vec!["report", text(&own)],
        vec!["doctor"],
    ] {
        let out = alone(&args).unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
}
