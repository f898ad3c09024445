//! Stop strings, penalties, `chat`, and adapters as files of their own.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use crate::fixture::{model, rhumb, save};
use crate::refusals::train;
use crate::train::data;

fn chat(args: &[&str], lines: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rhumb"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), dir.path());
    let of = |more: &[&str]| {
        let args =
            [&["generate", &m, "--prompt", "abc", "--seed", "3", "--max-new", "12", "--json"], more].concat();
        rhumb(&args).json()["completions"][0].clone()
    };
    let plain = of(&[]);
    let text = plain["text"].as_str().unwrap();
    let (at, stop) = text.char_indices().filter(|(i, c)| *i > 0 && c.is_ascii_graphic()).nth(1).unwrap();
    let stopped = of(&["--stop", &stop.to_string(), "--stop", "no such text"]);
    let first = text.find(stop).unwrap().min(at);
    assert_eq!(stopped["text"].as_str().unwrap(), &text[..first]);
    assert_eq!(stopped["stop"], "stop-string");
    assert!(stopped["tokens"].as_u64() < plain["tokens"].as_u64());
}

#[test]
fn a_large_penalty_lets_no_token_come_twice() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), dir.path());
    let args =
        ["generate", &m, "--prompt", "a", "--greedy", "--max-new", "20", "--json", "--repetition-penalty"];
    let of = |penalty: &str| {
        let json = rhumb(&[&args[..], &[penalty]].concat()).json();
        let ids: Vec<u64> =
            json["completions"][0]["ids"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
        let different: std::collections::HashSet<_> = ids.iter().collect();
        (ids.len(), different.len())
    };
    let (n, different) = of("100");
    assert_eq!(n, different);
    let (n, different) = of("1");
    assert!(different < n, "the control repeats nothing: {n} tokens, {different} different ones");
    let refused = rhumb(&[&args[..], &["0"]].concat());
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("above 0"), "{}", refused.err);
}

#[test]
fn a_conversation_is_the_same_fed_at_once_or_turn_by_turn() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), dir.path());
    let args = ["chat", &m, "--greedy", "--max-new", "3", "--json"];
    let (code, out, err) = chat(&args, "Hi\n\n/undo\nHi\n/nonsense\nyo\n/quit\nnever\n");
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("/nonsense is no command"), "{err}");
    let json: Json = serde_json::from_str(&out).unwrap();
    let turns = json["turns"].as_array().unwrap();
    assert_eq!(turns.len(), 3);
    let said = |i: usize| turns[i]["assistant"].as_str().unwrap();
    // Taken back and said again, with the cache of the first try.
    assert_eq!(said(0), said(1));
    assert_eq!(json["messages"].as_array().unwrap().len(), 4);
    let alone = rhumb(&["generate", &m, "--chat", "Hi", "--greedy", "--max-new", "3", "--json"]).json();
    assert_eq!(said(0), alone["completions"][0]["text"].as_str().unwrap());
}

#[test]
fn what_was_said_comes_out_before_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), dir.path());
    let lines = format!("Hi\n{}\nnever\n", "a".repeat(80));
    let (code, out, err) = chat(&["chat", &m, "--greedy", "--max-new", "3", "--json"], &lines);
    assert!(code == 2 && err.contains("context 64"), "{code} {err}");
    let json: Json = serde_json::from_str(&out).unwrap();
    let turns = json["turns"].as_array().unwrap();
    assert_eq!((turns.len(), &turns[0]["user"]), (1, &Json::from("Hi")));
    let messages = json["messages"].as_array().unwrap();
    assert_eq!(messages[1]["content"], turns[0]["assistant"]);
    // What was asked last has no answer.
    assert_eq!((messages.len(), &messages[2]["role"]), (3, &Json::from("user")));
}

#[test]
fn a_conversation_that_outgrows_the_context_or_has_no_template_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = model();
    let m = save(&files, &dir.path().join("m"));
    let (code, _, err) = chat(&["chat", &m, "--max-new", "2"], &format!("{}\n", "a".repeat(80)));
    assert_eq!(code, 2);
    assert!(err.contains("context 64") && err.contains("/reset"), "{err}");
    files.tokenizer_config = None;
    let plain = save(&files, &dir.path().join("plain"));
    let (code, _, err) = chat(&["chat", &plain], "Hi\n");
    assert_eq!(code, 2);
    assert!(err.contains("chat template"), "{err}");
}

#[test]
fn an_adapter_merged_by_hand_is_the_model_that_the_run_saved() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, run) = (data(dir.path(), None), dir.path().join("run"));
    train(&m, &d, &run, &["--lora", "4", "--lr", "0.01"]).json();
    let path = |p: &str| dir.path().join(p).to_str().unwrap().to_owned();
    let merge = |adapter: &str, out: &str| {
        rhumb(&["model", "merge", &m, "--adapter", &path(adapter), "--out", &path(out), "--json"])
    };
    let json = merge("run/adapter", "merged").json();
    assert_eq!((json["rank"].as_u64(), json["projections"].as_u64()), (Some(4), Some(14)));
    assert!(json["relative_change"].as_f64().unwrap() > 1e-6);
    let bytes = |p: &str| fs::read(dir.path().join(p)).unwrap();
    assert_eq!(bytes("merged/model.safetensors"), bytes("run/model/model.safetensors"));
    assert_ne!(bytes("merged/model.safetensors"), bytes("m/model.safetensors"));

    // Two of the seven projections in each of the two layers, in either order.
    for (out, targets) in [("a", "v_proj,q_proj"), ("b", "q_proj,v_proj")] {
        let more = ["--lora", "4", "--lora-targets", targets, "--lr", "0.01"];
        train(&m, &d, &dir.path().join(out), &more).json();
    }
    assert_eq!(merge("a/adapter", "fewer").json()["projections"], 4);
    assert_eq!(bytes("fewer/model.safetensors"), bytes("a/model/model.safetensors"));
    assert_eq!(bytes("b/model/model.safetensors"), bytes("a/model/model.safetensors"));
    assert_ne!(bytes("merged/model.safetensors"), bytes("a/model/model.safetensors"));

    let again = merge("run/adapter", "merged");
    assert_eq!(again.code, 2);
    assert!(again.err.contains("is not empty"), "{}", again.err);
    let none = merge("m", "other");
    assert_eq!(none.code, 4);
    assert!(none.err.contains("adapter_config.json"), "{}", none.err);
    fs::remove_file(dir.path().join("run/adapter/adapter_model.safetensors")).unwrap();
    let cut = merge("run/adapter", "other");
    assert_eq!(cut.code, 4, "{}", cut.err);
    assert!(!dir.path().join("other").exists());
}
