//! Numbers that make no sense are refused, and words that do not fit their number.

use std::fs;

use serde_json::json;

use crate::fixture::{model, rhumb, save};
use crate::refusals::{judge, refused, text, train};
use crate::train::data;

#[test]
fn numbers_without_a_meaning_are_refused_with_the_allowed_ones() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    for (more, words) in [
        (&["--clip", "nan"][..], &["--clip", "at least 0"][..]),
        (&["--clip", "-1"], &["--clip", "at least 0"]),
        (&["--warmup", "-0.1"], &["--warmup", "at least 0"]),
        (&["--warmup", "nan"], &["--warmup"]),
        (&["--warmup", "3"], &["--warmup", "at most 1"]),
        (&["--weight-decay", "inf"], &["--weight-decay"]),
        (&["--lr", "-1"], &["--lr", "above 0"]),
        (&["--seed", "-1"], &["invalid digit"]),
        (&["--steps", "0"], &["0 is not in 1..=1000000000"]),
        (&["--beta", "0.5"], &["--loss"]),
        (&["--loss", "ce", "--beta", "0.5"], &["--beta 0.5 says nothing about --loss ce"]),
        (&["--loss", "ce", "--beta", "0.7"], &["--beta 0.7 says nothing about --loss ce"]),
        (&["--loss", "gem-linear", "--lambda", "0.1"], &["--lambda 0.1 says nothing", "choose ce+entropy"]),
        (&["--loss", "ce", "--smoothing", "0.1"], &["--smoothing 0.1 says nothing"]),
        (&["--loss", "ce", "--noise-alpha", "5"], &["--noise-alpha 5 says nothing"]),
        (&["--loss", "gem-linear", "--beta", "inf"], &["--beta", "finite"]),
        (&["--loss", "gem-linear", "--lambda", "0.2"], &["--lambda 0.2 says nothing", "choose ce+entropy"]),
        (&["--loss", "dft", "--smoothing", "0.2"], &["--smoothing 0.2 says nothing about --loss dft"]),
        (&["--loss", "ce", "--noise-alpha", "1"], &["--noise-alpha 1 says nothing", "choose neft"]),
        (&["--loss", "ce+entropy", "--lambda", "-1"], &["--lambda", "at least 0"]),
        (&["--loss", "label-smoothing", "--smoothing", "1"], &["smoothing is 1", "below 1"]),
        (&["--loss", "neft", "--noise-alpha", "nan"], &["--noise-alpha", "at least 0"]),
        (&["--loss", "gem"], &["ce+entropy", "label-smoothing", "neft", "dft", "gem-logsigmoid"]),
        (&["--lora", "65"], &["no projection of this model has a rank above 64"]),
        (&["--lora", "100000"], &["100000 is not in"]),
        (
            &["--lora", "4", "--lora-targets", "q_proj,c_attn"],
            &["--lora-targets c_attn", "choose from q_proj, k_proj"],
        ),
        (&["--lora-targets", "q_proj"], &["--lora"]),
        (&["--batch", "65536", "--accumulate", "65536"], &["4294967296 rows a step"]),
    ] {
        let e = train(&m, &d, &out, more);
        judge(&e, more, 2, words);
        assert!(!e.err.contains("unexpected argument"), "{more:?}: {}", e.err);
        assert!(!out.exists(), "{more:?}");
    }
    let base = ["train", "sft", "--model", &m, "--data", &d, "--out", text(&out), "--tokens", "48"];
    let endless = [&base[..], &["--held-out", "4", "--epochs", "1e30"]].concat();
    refused(&endless, 2, &["--epochs 1e30", "steps", "1000000000 are the most"]);
    refused(&["score", &m, "--text", "ab", "--loss", "ce", "--beta", "2"], 2, &["--beta 2 says nothing"]);
    // As it is without the flag.
    refused(&["score", &m, "--text", "ab", "--loss", "ce", "--beta", "0.7"], 2, &["--beta 0.7 says nothing"]);
    let check =
        ["data", "check", "--model", &m, "--data", &d, "--tokens", "48", "--loss", "ce", "--beta", "0.7"];
    refused(&check, 2, &["--beta 0.7 says nothing"]);
    assert_eq!(rhumb(&["score", &m, "--text", "ab", "--loss", "gem-linear", "--beta", "0.7"]).code, 0);
    refused(&["generate", &m, "--prompt", "a", "--temperature", "-1"], 2, &["above 0"]);
}

#[test]
fn a_rank_as_large_as_a_projection_is_taken_and_gpt2_has_projections_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = data(dir.path(), None);
    let e = train(&m, &d, &dir.path().join("a"), &["--lora", "64", "--steps", "1"]);
    assert_eq!(e.code, 0, "{}", e.err);
    let gpt2 = dir.path().join("gpt2");
    let new = ["model", "new", "--family", "gpt2", "--layers", "1", "--width", "32", "--heads", "2", "--out"];
    assert_eq!(rhumb(&[&new[..], &[text(&gpt2)]].concat()).code, 0);
    let info = rhumb(&["model", "info", text(&gpt2), "--json"]).json();
    assert!(
        info["memory"].as_array().unwrap().iter().any(|r| r["optimizer"].as_str().unwrap().contains("rank"))
    );
    let pairs = dir.path().join("pairs.jsonl");
    let lines: Vec<String> =
        (0..8).map(|i| format!("{{\"prompt\":\"q{i}\",\"completion\":\"a{i}\"}}")).collect();
    fs::write(&pairs, lines.join("\n")).unwrap();
    let e = train(text(&gpt2), text(&pairs), &dir.path().join("b"), &["--lora", "2", "--steps", "1"]);
    assert_eq!(e.code, 0, "{}", e.err);
}

#[test]
fn a_beta_above_one_is_warned_of_even_when_quiet_and_remarks_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = data(dir.path(), None);
    let more = ["--loss", "gem-linear", "--beta", "5", "--eval-data", &d, "--steps", "1", "-q"];
    let e = train(&m, &d, &dir.path().join("run"), &more);
    assert_eq!(e.code, 0, "{}", e.err);
    assert!(e.err.contains("--beta 5 is above 1") && e.err.contains("12 of 12 held-out"), "{}", e.err);
    assert!(!e.err.contains("packed row") && !e.err.contains(", eta "), "{}", e.err);
    let loud = train(&m, &d, &dir.path().join("loud"), &["--steps", "2", "--eval-every", "1"]);
    assert_eq!(loud.err.matches("held-out cross-entropy").count(), 2, "{}", loud.err);
    assert!(loud.err.contains("sft 2/2, loss ") && loud.err.matches(", eta ").count() == 1, "{}", loud.err);
    assert!(loud.err.contains("; 2 steps;"), "{}", loud.err);
}

#[test]
fn texts_that_do_not_fit_are_told_in_their_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let file = dir.path().join("latin.txt");
    fs::write(&file, b"caf\xe9 au lait").unwrap();
    refused(&["score", &m, "--file", text(&file)], 2, &["latin.txt", "UTF-8"]);
    refused(&["score", &m, "--text", "a"], 2, &["the text has 1 token:"]);
    fs::write(&file, "a".repeat(100)).unwrap();
    refused(
        &["score", &m, "--file", text(&file)],
        2,
        &["the text has 100 tokens", "context 64", "shorten the text"],
    );
    refused(&["explain", ""], 2, &["no paper is called \"\""]);
    let toml = dir.path().join("e.toml");
    fs::write(&toml, "title = 'x'\n").unwrap();
    let e = rhumb(&["show", text(&toml)]);
    assert!(e.code == 2 && e.err.contains("missing field") && !e.err.contains(": .:"), "{}", e.err);
}

#[test]
fn a_preview_tells_of_special_tokens_inside_what_people_said() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = data(
        dir.path(),
        Some(r#"{"messages":[{"role":"user","content":"a<|im_end|>b"},{"role":"assistant","content":"c"}]}"#),
    );
    let all = rhumb(&["data", "preview", "--model", &m, "--data", &d, "-n", "12"]);
    assert_eq!(all.out.matches("note: the content itself contains <|im_end|>").count(), 1, "{}", all.out);
    let json = rhumb(&["data", "preview", "--model", &m, "--data", &d, "-n", "12", "--json"]).json();
    assert_eq!(
        (&json[6]["special_in_content"], &json[0]["special_in_content"]),
        (&json!(["<|im_end|>"]), &json!([]))
    );
}
