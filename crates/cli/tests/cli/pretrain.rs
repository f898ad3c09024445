//! Recipes of kind `pretrain`: who searches, who judges, and controls.

use std::fs;
use std::path::Path;

use super::*;

const RECIPE: &str = r#"
paper = "adam-mini"
title = "a small one"

[algorithm]
kind = "pretrain"
bytes = 12_000
layers = 1
width = 16
heads = 2
batch = 2
tokens = 16
held_out = 8
lrs = [1e-5, 1e-2]

[[algorithm.arms]]
name = "adamw"
optimizer = { kind = "adamw" }

[[algorithm.arms]]
name = "half"
lrs = [1e-2]
optimizer = { kind = "adamw" }
leave_out = { tensors = 2, ratios = [1, 10] }

[[algorithm.arms]]
name = "frozen"
lrs = [1e-2]
optimizer = { kind = "adamw" }
leave_out = { tensors = 2, frozen = true }

[claim]
statement = "x"
metric = "adamw/loss"
op = "<"
value = 10.0
expect = "holds"

[[controls]]
metric = "adamw/loss"
op = "<"
value = BOUND
expect = "holds"

[full]
budget.steps = 20
budget.seeds = [0, 1]
"#;

fn written(dir: &Path, change: impl Fn(&str) -> String) -> String {
    let path = dir.join("small.toml");
    fs::write(&path, change(RECIPE)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_first_seed_searches_for_all_but_draws_and_what_is_drawn_searches_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = written(dir.path(), |t| t.replace("BOUND", "10.0"));
    let out = dir.path().join("run");
    let ran = json(None, &["run", &recipe, "--budget", "full", "--out", out.to_str().unwrap()]);
    let metric = |seed: usize, name: &str| ran["result"]["seeds"][seed]["metrics"][name].as_f64().unwrap();
    for seed in 0..2 {
        assert!((metric(seed, "adamw/lr") - 1e-2).abs() < 1e-12, "a rate of 1e-5 learns nothing in 20 steps");
        assert!((metric(seed, "adamw/choice") - 1.0).abs() < 1e-12);
        assert!(metric(seed, "adamw/loss") < 4.0 && metric(seed, "frozen/loss") < 4.1);
        // Other windows judge than choose.
        assert!((metric(seed, "adamw/loss") - metric(seed, "adamw/validation")).abs() > 1e-6);
    }
    let folders = |path: &str, start: &str| {
        let names =
            fs::read_dir(out.join(path)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n.starts_with(start)).count()
    };
    assert_eq!(
        (folders("seed-0/grid", "adamw-"), folders("seed-0", "adamw")),
        (2, 0),
        "the first seed tries both"
    );
    assert_eq!(
        (folders("seed-1/grid", "adamw-"), folders("seed-1", "adamw")),
        (0, 1),
        "and the second its choice"
    );
    for seed in ["seed-0", "seed-1"] {
        assert_eq!(folders(&format!("{seed}/grid"), "half-"), 2, "every draw is searched");
        assert_eq!(folders(seed, "frozen"), 1);
    }
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("Control: adamw/loss"));
}

#[test]
fn a_control_that_comes_out_otherwise_fails_the_check() {
    let dir = tempfile::tempdir().unwrap();
    for (bound, code) in [("10.0", 0), ("0.1", 1)] {
        let recipe =
            written(dir.path(), |t| t.replace("BOUND", bound).replace("seeds = [0, 1]", "seeds = [0]"));
        let checked = run(None, &["check", &recipe, "--budget", "full"]);
        assert_eq!(checked.status.code(), Some(code));
        let text = String::from_utf8(checked.stdout).unwrap();
        assert!(text.contains("control: adamw/loss"), "{text}");
        assert_eq!(text.contains("<- differs"), code == 1, "{text}");
    }
}

#[test]
fn settings_that_make_no_comparison_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("name = \"half\"", "name = \"adamw\"", "two are called"),
        ("held_out = 8", "held_out = 1", "half to choose"),
        ("held_out = 8", "held_out = 8000", "that leaves none to train on"),
        ("bytes = 12_000", "text = \"absent.txt\"", "absent.txt"),
        ("heads = 2", "heads = 5", "algorithm"),
        ("budget.steps = 20", "budget.steps = 20\nbudget.wall_s = 1.0", "end of their schedule"),
        ("ratios = [1, 10]", "ratios = []", "give ratios"),
        (
            "kind = \"adamw\" }\n\n[[algorithm.arms]]\nname = \"half\"",
            "kind = \"adamw\", momentum = 0.9 }\n\n[[algorithm.arms]]\nname = \"half\"",
            "momentum",
        ),
    ];
    for (i, (from, to, want)) in cases.into_iter().enumerate() {
        let recipe = written(dir.path(), |t| {
            assert!(t.contains(from), "{from}");
            t.replace("BOUND", "10.0").replacen(from, to, 1)
        });
        let out = dir.path().join(format!("run-{i}")).to_str().unwrap().to_owned();
        let out = run(None, &["run", &recipe, "--budget", "full", "--out", &out]);
        let err = String::from_utf8(out.stderr).unwrap();
        assert!(matches!(out.status.code(), Some(2 | 4)), "{to}: {err}");
        assert!(err.contains(want), "{to}: {err}");
    }
}
