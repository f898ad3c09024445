//! Recipes of kind `sft`: several losses beside their control, on the generated language and on files.

use std::fs;
use std::path::Path;

use serde_json::Value as Json;

use crate::fixture::{model, rhumb, save};
use crate::train::data;

/// The recipe at a size that takes a second, with `more` overrides; its metrics.
fn run(out: &Path, recipe: &str, more: &[&str]) -> Json {
    run_with(out, recipe, more, &[])
}

fn run_with(out: &Path, recipe: &str, more: &[&str], flags: &[&str]) -> Json {
    let mut args = vec!["run", recipe, "--out", out.to_str().unwrap(), "--json"];
    for s in [
        "algorithm.built_in.steps=12",
        "algorithm.built_in.documents=400",
        "algorithm.built_in.fine_tune=100",
        "algorithm.built_in.held_out=8",
        "algorithm.sft.steps=4",
    ]
    .iter()
    .chain(more)
    {
        args.extend(["-s", *s]);
    }
    args.extend(flags);
    rhumb(&args).json()["result"]["seeds"][0]["metrics"].clone()
}

fn metric(m: &Json, name: &str) -> f64 {
    m[name].as_f64().unwrap_or_else(|| panic!("no {name} in {m}"))
}

#[test]
fn every_loss_and_the_control_start_from_one_model_and_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a");
    let m = run(&out, "gem/diversity", &[]);
    for arm in ["before", "ce", "gem-linear", "gem-logsigmoid", "control"] {
        for name in ["ce", "entropy", "right", "pass@1", "pass@4", "pass@16", "coverage"] {
            assert!(metric(&m, &format!("{arm}/{name}")).is_finite());
        }
    }
    // A temperature above 1 flattens the very model of the cross-entropy arm.
    assert!(metric(&m, "control/entropy") > metric(&m, "ce/entropy"));
    assert_ne!(m["ce/ce"], m["gem-linear/ce"]);
    for arm in ["pretrain", "ce", "gem-linear", "gem-logsigmoid"] {
        let lines = fs::read_to_string(out.join("seed-0").join(arm).join("records.jsonl")).unwrap();
        assert_eq!(lines.lines().count(), if arm == "pretrain" { 12 } else { 4 }, "{arm}");
    }
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("control"));
    assert_eq!(run(&dir.path().join("b"), "gem/diversity", &[]), m, "the same seed gives the same numbers");
}

#[test]
fn at_beta_one_the_control_is_cross_entropy_and_gem_takes_its_steps() {
    let dir = tempfile::tempdir().unwrap();
    let m = run(&dir.path().join("a"), "gem/diversity", &["algorithm.sft.beta=1.0"]);
    for name in ["ce", "entropy", "pass@16", "coverage"] {
        let of = |arm: &str| metric(&m, &format!("{arm}/{name}"));
        assert_eq!(of("control").to_bits(), of("ce").to_bits(), "{name}");
        assert!((of("gem-linear") - of("ce")).abs() < 1e-4, "{name}");
        assert_ne!(of("before").to_bits(), of("ce").to_bits(), "{name}");
    }
}

/// A recipe on the files of a small model.
fn recipe(dir: &Path) -> String {
    let text = format!(
        "paper = 'gem'\ntitle = 'mine'\n[algorithm]\nkind = 'sft'\n[algorithm.sft]\nmodel = {:?}\ndata = {:?}\n\
         held_out = 4\ntokens = 48\nbatch = 2\nlr = 1e-2\n[claim]\nmetric = 'gem-linear/entropy'\nop = '>'\n\
         versus = {{ metric = 'control/entropy' }}\nexpect = 'refuted'\n",
        save(&model(), &dir.join("m")),
        data(dir, None),
    );
    let path = dir.join("mine.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_recipe_fine_tunes_a_model_from_disk_as_the_command_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = recipe(dir.path());
    let m = run(&dir.path().join("a"), &path, &[]);
    assert!(metric(&m, "ce/ce") < metric(&m, "before/ce"));
    assert!(metric(&m, "control/entropy") > metric(&m, "ce/entropy"));
    let mut args = vec!["train", "sft", "--model", "m", "--data", "d", "--held-out", "4", "--tokens", "48"];
    let (model, chat, out) = ("m", "chat.jsonl", "run");
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (model, chat, out) = (at(model), at(chat), at(out));
    (args[3], args[5]) = (&model, &chat);
    args.extend(["--batch", "2", "--lr", "1e-2", "--steps", "4", "--out", &out, "--json"]);
    let held = &rhumb(&args).json()["held_out"];
    assert_eq!(held[0]["after"], m["ce/ce"]);
    assert_eq!(held[0]["before"], m["before/ce"]);
    let adapted = run(&dir.path().join("b"), &path, &["algorithm.sft.lora=2"]);
    assert_eq!(adapted["before/ce"], m["before/ce"]);
    assert_ne!(adapted["ce/ce"], m["ce/ce"]);
}

#[test]
fn answers_are_measured_and_a_resumed_study_takes_finished_arms_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = recipe(dir.path());
    let out = dir.path().join("a");
    let more = ["algorithm.samples={prompts=2,each=3,tokens=5}", "algorithm.conversations=5"];
    let m = run(&out, &path, &more);
    for arm in ["before", "ce", "gem-linear", "control"] {
        for name in ["distinct", "self_bleu", "words", "loops", "drift"] {
            assert!(metric(&m, &format!("{arm}/{name}")).is_finite(), "{arm}/{name}");
        }
        let kept = fs::read_to_string(out.join("seed-0").join(arm).join("samples.jsonl")).unwrap();
        let lines: Vec<Json> = kept.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|l| l["answers"].as_array().unwrap().len() == 3), "{arm}");
    }
    assert!(metric(&m, "ce/drift") > 0.0 && metric(&m, "before/drift").abs() < 1e-12);
    // As if it had been cut off after the first arm, whose numbers are marked.
    let seed = out.join("seed-0");
    let file = seed.join("ce/measured.json");
    let marked = fs::read_to_string(&file).unwrap().replace(&metric(&m, "ce/words").to_string(), "123.5");
    fs::write(&file, &marked).unwrap();
    fs::remove_file(out.join("result.json")).unwrap();
    fs::remove_file(seed.join("gem-linear/measured.json")).unwrap();
    let again = run_with(&out, &path, &more, &["--resume"]);
    assert!((metric(&again, "ce/words") - 123.5).abs() < 1e-12);
    for (name, value) in m.as_object().unwrap().iter().filter(|(name, _)| *name != "ce/words") {
        assert_eq!(&again[name], value, "{name}");
    }
    fs::write(&file, "{").unwrap();
    fs::remove_file(out.join("result.json")).unwrap();
    let mut args = vec!["run", &path, "--out", out.to_str().unwrap(), "--resume"];
    let same = [
        "built_in.steps=12",
        "built_in.documents=400",
        "built_in.fine_tune=100",
        "built_in.held_out=8",
        "sft.steps=4",
    ];
    let set: Vec<String> =
        same.iter().map(|s| format!("algorithm.{s}")).chain(more.map(String::from)).collect();
    set.iter().for_each(|s| args.extend(["-s", s]));
    let refused = rhumb(&args);
    assert!(refused.code == 2 && refused.err.contains("remove the file"), "{} {}", refused.code, refused.err);
}

#[test]
fn a_study_without_sense_is_refused_with_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let path = recipe(dir.path());
    for (recipe, set, words) in [
        ("gem/diversity", "algorithm.losses=[]", "algorithm.losses: name at least one"),
        ("gem/diversity", "algorithm.losses=[\"ce\",\"ce\"]", "none twice"),
        ("gem/diversity", "algorithm.losses=[\"gem\"]", "gem-linear"),
        ("gem/diversity", "algorithm.sft.model=\"m\"", "algorithm.sft.data belong together"),
        ("gem/diversity", "algorithm.sft.lambda=0.5", "--lambda 0.5 says nothing"),
        ("gem/diversity", "algorithm.sft.beta=0.0", "beta is 0"),
        ("gem/diversity", "algorithm.built_in.held_out=0", "have to be above 0"),
        ("gem/diversity", "algorithm.sft.optimiser=\"sgd\"", "did you mean `optimizer`"),
        ("gem/diversity", "algorithm.samples.prompts=2", "need a model and data from disk"),
        ("gem/diversity", "algorithm.conversations=2", "need a model and data from disk"),
        (&path, "algorithm.samples={prompts=2,each=1}", "each of at least 2"),
        (&path, "algorithm.samples={prompts=40}", "raise algorithm.sft.held_out"),
        (&path, "algorithm.sft.held_out=12", "hold out fewer"),
    ] {
        let out = dir.path().join("out");
        let e = rhumb(&["run", recipe, "-s", set, "--out", out.to_str().unwrap()]);
        assert!(e.code == 2 && e.err.contains(words), "{set}: {} {}", e.code, e.err);
        assert!(!out.join("seed-0/pretrain").exists(), "{set}: refused after a training");
        fs::remove_dir_all(&out).ok();
    }
}
