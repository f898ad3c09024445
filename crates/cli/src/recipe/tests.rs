#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

const TEXT: &str = r#"
paper = "adam-mini"
title = "test"

[algorithm]
kind = "adam-mini-state"
architectures = ["nano"]

[claim]
metric = "saving"
op = ">="
value = 0.4
expect = "holds"

[quick]
budget.steps = 3

[full]
budget.seeds = [1, 2]
"#;

fn resolve(text: &str, size: Size, overrides: &[&str]) -> Result<Recipe, String> {
    let overrides: Vec<String> = overrides.iter().map(|&s| s.to_owned()).collect();
    Source::from_text("t", "t.toml", text).resolve(size, &overrides).map_err(|e| e.to_string())
}

#[test]
fn overlays_apply_to_their_size_only_and_overrides_come_last() {
    let quick = resolve(TEXT, Size::Quick, &[]).unwrap().budget;
    assert_eq!((quick.steps, quick.seeds), (Some(3), vec![0]));
    let full = resolve(TEXT, Size::Full, &["budget.steps=7"]).unwrap().budget;
    assert_eq!((full.steps, full.seeds), (Some(7), vec![1, 2]));
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_the_nearest_key() {
    let cases = [
        (TEXT.replace("title", "titel"), "t.toml, line 3: unknown key `titel`: did you mean `title`?"),
        (
            TEXT.replace("architectures", "architecture"),
            "t.toml, line 7: unknown key `architecture` in algorithm: did you mean `architectures`?",
        ),
        (
            TEXT.replace("budget.steps", "budget.step"),
            "t.toml, line 16: unknown key `step` in budget: did you mean `steps`?",
        ),
        (
            TEXT.replace("metric =", "metrik ="),
            "t.toml, line 10: unknown key `metrik` in claim: did you mean `metric`?",
        ),
    ];
    for (text, want) in cases {
        assert_eq!(resolve(&text, Size::Quick, &[]).unwrap_err(), want);
    }
}

#[test]
fn a_wrong_override_is_told_as_the_override_it_is() {
    let e = resolve(TEXT, Size::Quick, &["budget.stepz=3"]).unwrap_err();
    assert_eq!(e, "-s budget.stepz: unknown key `stepz` in budget: did you mean `steps`?");
    assert!(resolve(TEXT, Size::Quick, &["budget.steps"]).unwrap_err().contains("write key=value"));
    assert!(resolve(TEXT, Size::Quick, &["title.x=1"]).unwrap_err().contains("title is a string"));
    let e = resolve(TEXT, Size::Quick, &["budget.steps=many"]).unwrap_err();
    assert!(e.starts_with("-s budget.steps: budget.steps: invalid type: string \"many\""), "{e}");
}

#[test]
fn a_wrong_kind_names_the_nearest_one_with_its_line() {
    let e = resolve(&TEXT.replace("adam-mini-state", "adam-mini-stat"), Size::Quick, &[]).unwrap_err();
    assert!(e.starts_with("t.toml, line ") && e.contains("did you mean `adam-mini-state`"), "{e}");
}

#[test]
fn broken_toml_is_told_with_its_line() {
    let e = resolve("paper = \"x\"\ntitle = [", Size::Quick, &[]).unwrap_err();
    assert!(e.starts_with("t.toml, line 2: "), "{e}");
}

#[test]
fn claims_and_seeds_without_sense_are_refused() {
    assert!(resolve(&TEXT.replace("value = 0.4", ""), Size::Quick, &[]).unwrap_err().contains("no bound"));
    assert!(resolve(TEXT, Size::Quick, &["budget.seeds=[]"]).unwrap_err().contains("at least one seed"));
    assert!(resolve(TEXT, Size::Quick, &["budget.seeds=[1,1]"]).unwrap_err().contains("twice"));
}

#[test]
fn a_resolved_recipe_reads_back_as_itself() {
    let recipe = resolve(TEXT, Size::Full, &[]).unwrap();
    let text = toml::to_string(&recipe).unwrap();
    assert_eq!(resolve(&text, Size::Quick, &[]).unwrap(), recipe);
}

#[test]
fn every_embedded_recipe_resolves_at_both_sizes_and_keeps_the_minute() {
    for source in Source::all() {
        for size in [Size::Quick, Size::Full] {
            let recipe = source.resolve(size, &[]).unwrap_or_else(|e| panic!("{e}"));
            assert!(source.name.starts_with(&format!("{}/", recipe.paper)), "{}", source.name);
            if size == Size::Quick {
                assert!(recipe.budget.expected_s <= 60.0, "{}", source.name);
                assert_eq!(recipe.budget.seeds.len(), 1, "{}", source.name);
            }
        }
    }
}

#[test]
fn the_schema_knows_overlays_and_refuses_other_keys() {
    let schema = schema();
    assert!(schema.pointer("/properties/quick").is_some() && schema.pointer("/properties/claim").is_some());
    assert_eq!(schema.pointer("/additionalProperties"), Some(&serde_json::Value::Bool(false)));
}
