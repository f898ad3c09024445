#![allow(clippy::unwrap_used, reason = "tests")]
//! Against sacrebleu and NLTK, see `reference/gem_text.py`.

use serde_json::Value;

use super::bleu::{SelfBleu, bleu, self_bleu};
use super::{diversity, tokenize_13a, words};

fn fixture() -> Value {
    serde_json::from_str(include_str!("../../../../../fixtures/gem/text.json")).unwrap()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect()
}

#[test]
fn tokens_of_13a_are_those_of_sacrebleu() {
    for case in fixture()["tokens"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenize_13a(text), texts(&case["13a"]), "{text}");
    }
}

#[test]
fn bleu_is_that_of_sacrebleu() {
    for case in fixture()["bleu"].as_array().unwrap() {
        let got = bleu(case["text"].as_str().unwrap(), &texts(&case["references"]));
        let want = case["score"].as_f64().unwrap();
        assert!((got - want).abs() < 1e-9, "{}: {got} against {want}", case["text"]);
    }
}

#[test]
fn both_kinds_of_self_bleu_and_distinct_are_those_of_the_libraries() {
    for case in fixture()["samples"].as_array().unwrap() {
        let samples = texts(&case["samples"]);
        let tokens: Vec<Vec<String>> = samples.iter().map(|s| words(s)).collect();
        let got = [
            self_bleu(&samples, SelfBleu::Multi).unwrap(),
            self_bleu(&samples, SelfBleu::Official).unwrap(),
            diversity::distinct(&tokens),
        ];
        let want = ["multi", "official", "distinct"].map(|k| case[k].as_f64().unwrap());
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 1e-9, "{samples:?}: {got:?} against {want:?}");
        }
    }
}

#[test]
fn words_of_plain_texts_are_those_of_nltk() {
    for case in fixture()["words"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(words(text), texts(&case["words"]), "{text}");
    }
}
