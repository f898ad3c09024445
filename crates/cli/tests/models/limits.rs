//! Memory: one estimate, made before anything is read, and configurations that ask for the impossible.

#[cfg(target_os = "linux")]
use serde_json::{Value as Json, json};
use std::fs;

use crate::fixture::rhumb;
use crate::fixture::{model, save};
use crate::refusals::{judge, refused, shell, text, train};
use crate::train::data;

#[test]
fn a_configuration_that_asks_for_the_impossible_is_refused_by_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = data(dir.path(), None);
    let config = dir.path().join("m/config.json");
    let honest: Json = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let (out, gguf) = (dir.path().join("out"), dir.path().join("x.gguf"));
    // The second number of each is one that the bounds of a single number let through.
    for (key, numbers) in [
        ("hidden_size", [1_000_000_000u64, 1 << 20]),
        ("intermediate_size", [9_000_000_000_000_000, 1 << 24]),
        ("head_dim", [1_000_000_000, 1 << 16]),
        ("num_hidden_layers", [9_000_000_000_000_000, 1 << 12]),
        ("vocab_size", [1_000_000_000, 1 << 24]),
        ("num_attention_heads", [9_000_000_000_000_000, 1 << 16]),
    ] {
        for n in numbers {
            let mut absurd = honest.clone();
            absurd[key] = json!(n);
            fs::write(&config, absurd.to_string()).unwrap();
            for args in [
                &["generate", &m, "--prompt", "a", "--max-new", "1"][..],
                &["score", &m, "--text", "abc"],
                &["train", "sft", "--model", &m, "--data", &d, "--out", text(&out)],
                &["model", "info", &m],
                &["model", "import", &m, "--out", text(&out)],
                &["model", "export", &m, "--format", "gguf", "--out", text(&gguf)],
                &["model", "export", &m, "--format", "hf", "--out", text(&out)],
            ] {
                refused(args, 2, &[]);
                assert!(!out.exists() && !gguf.exists(), "{key} {n}: {args:?}");
            }
        }
    }
}

#[test]
fn tensors_of_other_shapes_than_the_configuration_asks_for_are_refused_before_a_copy_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = model();
    files.config["intermediate_size"] = json!(48);
    let m = save(&files, &dir.path().join("m"));
    let (out, gguf) = (dir.path().join("out"), dir.path().join("x.gguf"));
    for args in [
        &["model", "info", &m][..],
        &["model", "import", &m, "--out", text(&out)],
        &["model", "export", &m, "--format", "gguf", "--out", text(&gguf)],
        &["generate", &m, "--prompt", "a"],
    ] {
        refused(args, 2, &["tensor model.layers.0", "shape", "the configuration asks for"]);
    }
    assert!(!out.exists() && !gguf.exists());
}

#[test]
fn the_estimate_is_the_one_of_model_info_and_no_less_than_what_a_run_holds() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = data(dir.path(), None);
    let info = rhumb(&["model", "info", &m, "--tokens", "48", "--batch", "2", "--json"]).json();
    let of = |name: &str| {
        let rows = info["memory"].as_array().unwrap();
        rows.iter().find(|r| r["optimizer"] == name).unwrap()["total"].clone()
    };
    for (i, more) in [
        &["--optimizer", "adam-mini"][..],
        &["--optimizer", "adamw"],
        &["--optimizer", "adamw", "--recompute"],
        &["--lora", "8"],
        &["--update-in-backward", "--clip", "0"],
        &["--accumulate", "3"],
    ]
    .iter()
    .enumerate()
    {
        let e = train(&m, &d, &dir.path().join(i.to_string()), more).json();
        for part in ["parameters", "gradients", "optimizer", "activations", "scratch"] {
            let (measured, told) = (&e["peak_bytes"][part], &e["estimate"]["training"][part]);
            assert!(
                measured.as_u64().unwrap() <= told.as_u64().unwrap(),
                "{more:?} {part}: {measured} {told}"
            );
        }
        let total = e["estimate_bytes"].as_u64().unwrap();
        if let Some(peak) = e["peak_resident_bytes"].as_u64() {
            assert!(peak <= total, "{more:?}: {peak} {total}");
        }
        match i {
            0 => assert_eq!(e["estimate_bytes"], of("adam-mini")),
            1 => assert_eq!(e["estimate_bytes"], of("adamw")),
            _ => {}
        }
    }
}

#[test]
fn a_model_that_is_too_large_is_refused_before_its_weights_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = model();
    let m = save(&files, &dir.path().join("m"));
    for (key, n) in [("hidden_size", 16384), ("num_hidden_layers", 500), ("intermediate_size", 65536)] {
        files.config[key] = json!(n);
    }
    fs::write(dir.path().join("m/config.json"), files.config.to_string()).unwrap();
    fs::write(dir.path().join("m/model.safetensors"), "never read").unwrap();
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    judge(&train(&m, &d, &out, &[]), &[], 2, &["this run needs about", " TB", "--lora 8"]);
    assert!(!out.exists());
}

/// `ulimit -v` counts addresses, so what the program maps anyway is part of it.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_of_address_space_is_respected() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    let args = [
        "train",
        "sft",
        "--model",
        &m,
        "--data",
        &d,
        "--out",
        text(&out),
        "--tokens",
        "64",
        "--held-out",
        "4",
    ];
    let large = [&args[..], &["--batch", "4096", "--steps", "1"]].concat();
    judge(&shell("ulimit -v 1500000", &large), &large, 2, &["this run needs about", "may use"]);
    assert!(!out.exists());
    let small = [&args[..], &["--batch", "2", "--steps", "1"]].concat();
    let e = shell("ulimit -v 1500000", &small);
    assert_eq!(e.code, 0, "{}", e.err);
}

/// `plan --fit` and `train sft` have one estimate, so that what the first one finds is what the second one takes.
#[test]
fn the_largest_model_of_a_limit_has_the_estimate_of_the_run_and_the_run_keeps_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path().join("pairs.jsonl");
    let pair = |i: usize| format!("{{\"prompt\":\"q{i}\",\"completion\":\"a{i}\"}}\n");
    fs::write(&d, (0..12).map(pair).collect::<String>()).unwrap();
    let plain = dir.path().join("plain");
    let made =
        rhumb(&["model", "new", "--out", text(&plain), "--width", "64", "--heads", "1", "--json"]).json();
    let vocab = made["config"]["vocab_size"].as_u64().unwrap().to_string();
    let fit = ["plan", "--fit", "450MB", "--tokens", "64", "--vocab", &vocab, "--json"];
    let rows = rhumb(&fit).json()["fit"].as_array().unwrap().clone();
    for (i, more) in [
        (0, &["--optimizer", "adamw"][..]),
        (5, &["--optimizer", "adam-mini", "--update-in-backward", "--clip", "0", "--state", "bf16"]),
    ] {
        let (m, out) = (dir.path().join(format!("m{i}")), dir.path().join(format!("run{i}")));
        let shape = ["width", "heads", "layers"].map(|key| rows[i][key].to_string());
        let mut new = vec!["model", "new", "--out", text(&m), "--width", &shape[0], "--heads", &shape[1]];
        new.extend(["--layers", &shape[2], "--json"]);
        assert_eq!(rhumb(&new).json()["parameters"], rows[i]["parameters"]);
        let mut args = vec!["train", "sft", "--model", text(&m), "--data", text(&d), "--out", text(&out)];
        args.extend([
            "--tokens",
            "64",
            "--held-out",
            "4",
            "--steps",
            "3",
            "--eval-every",
            "1",
            "--batch",
            "1",
        ]);
        args.extend(more);
        args.push("--json");
        let run = rhumb(&args).json();
        assert_eq!(run["estimate_bytes"], rows[i]["peak"], "{more:?}");
        if let Some(peak) = run["peak_resident_bytes"].as_u64() {
            assert!(peak <= rows[i]["peak"].as_u64().unwrap(), "{more:?}: {peak}");
        }
    }
}
