#![allow(clippy::unwrap_used, reason = "tests")]
use serde_json::{Value, json};

use super::*;
use crate::eval::MeasureError;

fn prompt(ids: &[&str], kwargs: &[Value]) -> Result<Prompt, MeasureError> {
    let line = json!({ "key": 7, "prompt": "p", "instruction_id_list": ids, "kwargs": kwargs });
    Prompt::from_json(&line.to_string())
}

/// Against the published checker, see `reference/ifeval.py`.
#[test]
fn hand_made_responses_are_judged_as_by_the_published_checker() {
    let fixture: Value =
        serde_json::from_str(include_str!("../../../../../fixtures/gem/ifeval.json")).unwrap();
    let responses = fixture["responses"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in fixture["instructions"].as_array().unwrap() {
        let p = prompt(&[case["instruction_id"].as_str().unwrap()], &[case["kwargs"].clone()]).unwrap();
        for (mode, follow) in [("strict", strict as fn(&Prompt, &str) -> Vec<bool>), ("loose", loose)] {
            let want = case[mode].as_str().unwrap().bytes().map(|b| b == b'1');
            for (response, want) in responses.iter().zip(want) {
                if follow(&p, response.as_str().unwrap()) != [want] {
                    wrong.push(format!("{mode} {:?} {response}: not {want}", p.instructions[0]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_line_of_the_public_file_is_read() {
    let line = r#"{"key": 1000, "prompt": "Write.", "instruction_id_list": ["punctuation:no_comma",
        "detectable_format:number_highlighted_sections", "length_constraints:number_words",
        "language:response_language"], "kwargs": [{}, {"num_highlights": 3},
        {"relation": "at least", "num_words": 300}, {"language": "kn"}]}"#;
    let p = Prompt::from_json(&line.replace('\n', " ")).unwrap();
    assert_eq!((p.key, p.prompt.as_str()), (json!(1000), "Write."));
    assert_eq!(
        p.instructions,
        [
            Instruction::NoComma {},
            Instruction::Highlights { num_highlights: 3 },
            Instruction::Words { num_words: 300, relation: Relation::AtLeast },
        ]
    );
    assert_eq!(p.unchecked, ["language:response_language"]);
}

#[test]
fn null_and_foreign_fields_are_passed_over_and_whole_floats_read() {
    let p = prompt(
        &["startend:quotation", "length_constraints:number_paragraphs"],
        &[json!({ "num_words": null }), json!({ "num_paragraphs": 3.0, "keyword": null, "letter": "x" })],
    )
    .unwrap();
    let paragraphs = Instruction::Paragraphs { num_paragraphs: 3 };
    assert_eq!(p.instructions, [Instruction::Quotation {}, paragraphs.clone()]);
    let json = serde_json::to_value(&paragraphs).unwrap();
    let want = json!({ "instruction_id": "length_constraints:number_paragraphs", "kwargs": { "num_paragraphs": 3 } });
    assert_eq!(json, want);
    assert_eq!(serde_json::from_value::<Instruction>(json).unwrap(), paragraphs);
}

#[test]
fn unknown_kinds_and_missing_fields_are_errors_that_name_them() {
    let error = |id: &str, kwargs: Value| prompt(&[id], &[kwargs]).unwrap_err().to_string();
    assert!(error("keywords:rhymes", json!({})).contains("\"keywords:rhymes\""));
    assert!(error("length_constraints:number_words", json!({ "num_words": 3 })).contains("relation"));
    let relation = json!({ "num_words": 3, "relation": "at most" });
    assert!(error("length_constraints:number_words", relation).contains("at most"));
    assert!(error("detectable_format:number_bullet_lists", json!({ "num_bullets": 1.5 })).contains("1.5"));
    assert!(error("keywords:existence", json!({ "keywords": [] })).contains("keywords is empty"));
    assert!(error("startend:end_checker", json!({ "end_phrase": " " })).contains("end_phrase is empty"));
    assert!(error("keywords:letter_frequency", json!({ "letter": "ab" })).contains("ab"));
    assert!(
        prompt(&["punctuation:no_comma"], &[]).unwrap_err().to_string().contains("1 instructions have 0")
    );
    assert!(Prompt::from_json("{}").unwrap_err().to_string().contains("instruction_id_list"));
}

#[test]
fn keywords_are_taken_literally() {
    let a = Instruction::Keywords { keywords: vec!["a.c (x)".into()] };
    assert!(a.check("see A.C (X)") && !a.check("see abc (x)"));
    let f = Instruction::Frequency { keyword: "*".into(), frequency: 2, relation: Relation::AtLeast };
    assert!(f.check("* and *") && !f.check("*"));
    let w = Instruction::Forbidden { forbidden_words: vec!["C++".into()] };
    assert!(w.check("a c+++x"), "no border of a word stands behind the last sign");
}

#[test]
fn loose_forgives_first_and_last_lines_and_asterisks() {
    assert_eq!(
        loose_variants("a*\nb\nc"),
        ["a*\nb\nc", "b\nc", "a*\nb", "b", "a\nb\nc", "b\nc", "a\nb", "b"]
    );
    assert_eq!(loose_variants("*one*"), ["*one*", "one"]);
    assert_eq!(loose_variants("\n*\n"), ["\n*\n", "*", "*", "*"]);
    assert!(loose_variants(" \n ").is_empty());
    let p = prompt(&["change_case:english_lowercase"], &[json!({})]).unwrap();
    let r = "Sure:\nall small\nBye!";
    assert_eq!((strict(&p, r), loose(&p, r)), (vec![false], vec![true]));
}

#[test]
fn accuracy_counts_prompts_and_instructions_and_leaves_unchecked_prompts_out() {
    let both = prompt(&["punctuation:no_comma", "startend:quotation"], &[json!({}), json!({})]).unwrap();
    let language =
        prompt(&["language:response_language", "punctuation:no_comma"], &[json!({}), json!({})]).unwrap();
    let mut a = Accuracy::default();
    for (p, r) in [(&both, "\"yes\""), (&both, "yes"), (&both, " "), (&language, "ja")] {
        a.add(p, &strict(p, r));
    }
    assert_eq!(a.prompts, Share { followed: 1, all: 3 });
    assert_eq!(a.instructions, Share { followed: 4, all: 7 });
    assert_eq!(a.unchecked, 1);
    assert_eq!(a.kinds["punctuation:no_comma"], Share { followed: 3, all: 4 });
    assert_eq!(a.kinds["startend:quotation"].rate(), Some(1.0 / 3.0));
    assert_eq!(Share::default().rate(), None);
}
