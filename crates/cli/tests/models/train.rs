//! `train sft` on a small random model: what it leaves behind, and what it refuses.

use std::fs;
use std::path::Path;

use crate::fixture::{model, rhumb, save};

/// Twelve short conversations; `broken` replaces line 7.
pub(crate) fn data(dir: &Path, broken: Option<&str>) -> String {
    let line = |i: usize| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"q{i}"}},{{"role":"assistant","content":"a{i}"}}]}}"#
        )
    };
    let lines: Vec<String> =
        (1..=12).map(|i| broken.filter(|_| i == 7).map_or_else(|| line(i), str::to_owned)).collect();
    let path = dir.join("chat.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn train(dir: &Path, data: &str, more: &[&str]) -> crate::fixture::Ended {
    let m = save(&model(), &dir.join("m"));
    let out = dir.join("run").to_str().unwrap().to_owned();
    let mut args = vec!["train", "sft", "--model", &m, "--data", data, "--out", &out, "--json"];
    args.extend(["--tokens", "48", "--batch", "2", "--held-out", "4", "--steps", "3", "--lr", "1e-2"]);
    args.extend(more);
    rhumb(&args)
}

#[test]
fn a_run_leaves_a_model_that_answers_and_a_report() {
    for more in [&["--loss", "gem-linear"][..], &["--lora", "2"], &["--update-in-backward", "--clip", "0"]] {
        let dir = tempfile::tempdir().unwrap();
        let json = train(dir.path(), &data(dir.path(), None), more).json();
        assert_eq!(json["steps"], 3, "{more:?}");
        let held = &json["held_out"][0];
        assert!(held["after"].as_f64().unwrap() < held["before"].as_f64().unwrap(), "{more:?}: {held}");
        let saved = json["saved"][0].as_str().unwrap();
        assert_eq!(rhumb(&["generate", saved, "--prompt", "q", "--greedy", "--max-new", "2"]).code, 0);
        assert!(dir.path().join("run/report.html").is_file());
        assert_eq!(fs::read_to_string(dir.path().join("run/records.jsonl")).unwrap().lines().count(), 3);
    }
}

#[test]
fn every_loss_trains_by_its_name_and_tells_what_it_lowers_beside_cross_entropy_and_perplexity() {
    for (loss, flag, lowers) in [
        ("ce+entropy", &["--lambda", "0.2"][..], Some("CE - lambda H")),
        ("label-smoothing", &["--smoothing", "0.2"], Some("smoothed cross-entropy")),
        ("neft", &["--noise-alpha", "10"], None),
        ("dft", &[], Some("1 - p_y")),
        ("gem-logsigmoid", &["--beta", "0.8"], Some("S = beta CE(z / beta)")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let json = train(dir.path(), &data(dir.path(), None), &[&["--loss", loss], flag].concat()).json();
        let held = json["held_out"].as_array().unwrap();
        let names: Vec<&str> = held.iter().map(|h| h["name"].as_str().unwrap()).collect();
        let want: Vec<&str> = lowers.into_iter().chain(["cross-entropy", "perplexity", "entropy"]).collect();
        assert_eq!(names, want, "{loss}");
        let at = |name: &str| &held[names.iter().position(|n| *n == name).unwrap()];
        let (ce, perplexity) = (at("cross-entropy"), at("perplexity"));
        for side in ["before", "after"] {
            let want = ce[side].as_f64().unwrap().exp();
            assert!((perplexity[side].as_f64().unwrap() / want - 1.0).abs() < 1e-12, "{loss}");
        }
        assert!(held[0]["after"].as_f64() < held[0]["before"].as_f64(), "{loss}: {}", held[0]);
        let records = fs::read_to_string(dir.path().join("run/records.jsonl")).unwrap();
        let last: serde_json::Value = serde_json::from_str(records.lines().last().unwrap()).unwrap();
        for name in ["loss", "ce", "entropy", "accuracy", "tokens", "eval_ce", "eval_ppl"] {
            assert!(last[name].is_number(), "{loss}: {name}");
        }
        let page = fs::read_to_string(dir.path().join("run/report.html")).unwrap();
        let gem = loss.starts_with("gem");
        for missing in [
            "by temperature alone",
            "Missing: cross-entropy on the same data; the same sampled at temperature 1.250",
        ] {
            assert_eq!(page.contains(missing), gem, "{loss}: {missing}");
        }
        let alone = json["temperatures"]["before"]["entropy"].as_f64();
        assert_eq!(alone.is_some(), gem, "{loss}");
        // A temperature above 1 flattens every prediction.
        assert!(alone.is_none_or(|h| h > at("entropy")["before"].as_f64().unwrap()), "{alone:?}");
    }
}

#[test]
fn bad_input_is_refused_with_its_place_and_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let broken = data(dir.path(), Some("{\"messages\": ["));
    let refused = train(dir.path(), &broken, &[]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("chat.jsonl") && refused.err.contains('7'), "{}", refused.err);
    let good = data(dir.path(), None);
    for (more, words) in [
        (&["--memory-share", "0.000000001"][..], "--recompute"),
        (&["--update-in-backward"], "the norm is known only when"),
    ] {
        let refused = train(dir.path(), &good, more);
        assert_eq!(refused.code, 2, "{more:?}: {}", refused.err);
        assert!(refused.err.contains(words), "{more:?}: {}", refused.err);
        assert!(!dir.path().join("run/model").exists());
    }
    assert_eq!(train(dir.path(), "no/such.jsonl", &[]).code, 4);
}

#[test]
fn prompts_with_completions_train_the_completion_and_the_best_weights_are_kept_beside_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let lines: Vec<String> =
        (1..=12).map(|i| format!(r#"{{"prompt":"q{i}","completion":" a{i}"}}"#)).collect();
    let path = dir.path().join("pairs.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    // A rate that undoes what the first steps learnt, so that an earlier evaluation stays the best one.
    let more =
        ["--loss", "gem-logsigmoid", "--schedule", "constant", "--optimizer", "sgd", "--eval-every", "1"];
    let m = save(&model(), &dir.path().join("m"));
    let out = dir.path().join("run").to_str().unwrap().to_owned();
    let mut args =
        vec!["train", "sft", "--model", &m, "--data", path.to_str().unwrap(), "--out", &out, "--json"];
    args.extend(["--tokens", "48", "--batch", "2", "--held-out", "4", "--steps", "4", "--lr", "3"]);
    args.extend(more);
    let json = rhumb(&args).json();
    let evaluations: Vec<f64> = fs::read_to_string(dir.path().join("run/records.jsonl"))
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["eval_ce"].as_f64().unwrap())
        .collect();
    let (last, best) = (evaluations[3], evaluations.iter().copied().fold(f64::INFINITY, f64::min));
    let saved = json["saved"].as_array().unwrap();
    assert_eq!(saved.len(), if best < last { 2 } else { 1 }, "{evaluations:?}");
    assert!(best < last, "the rate was meant to be too large: {evaluations:?}");
    for (folder, want) in saved.iter().zip([last, best]) {
        // The folder scores what its evaluation said, on the same held-out pairs.
        let again = dir.path().join(format!("again{want}")).to_str().unwrap().to_owned();
        let folder = folder.as_str().unwrap();
        let mut args = vec![
            "train",
            "sft",
            "--model",
            folder,
            "--data",
            path.to_str().unwrap(),
            "--out",
            &again,
            "--json",
        ];
        args.extend(["--tokens", "48", "--held-out", "4", "--steps", "1", "--lr", "1e-30"]);
        let before = &rhumb(&args).json()["held_out"][0]["before"];
        assert!((before.as_f64().unwrap() - want).abs() < 1e-9, "{folder}: {before} {want}");
    }
}
