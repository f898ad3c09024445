//! `eval` with SmolLM2-135M-Instruct and all-MiniLM-L6-v2, when `RHUMB_MODELS` names the folder that holds them.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::fixture::rhumb;
use crate::real::{CHAT, smollm};

#[test]
fn the_real_model_is_measured_as_it_is_scored() {
    let Some(m) = smollm() else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
    let messages = [
        turn("user", "What is the capital of France?"),
        turn("assistant", "The capital of France is Paris."),
    ];
    fs::write(at("chat.jsonl"), json!({ "messages": messages }).to_string()).unwrap();
    let args = ["eval", &m, "ppl", "--data", &at("chat.jsonl"), "--out", &at("ppl"), "--json"];
    let found = rhumb(&args).json();
    // Eight tokens of the answer, and the line break that the template prints behind it.
    assert_eq!(found["tokens"], 9);
    let score = rhumb(&["score", &m, "--text", &format!("{CHAT}\n"), "--json"]).json();
    let ce: Vec<f64> = score["ce"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let want = ce[ce.len() - 9..].iter().sum::<f64>() / 9.0;
    let got = found["measures"]["cross_entropy"]["value"].as_f64().unwrap();
    assert!((got - want).abs() < 1e-5, "{got} {want}");
}

#[test]
fn the_real_model_answers_a_task_and_its_answers_are_embedded() {
    let Some(m) = smollm() else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("p.txt"), "Name a colour in one word.\n").unwrap();
    let encoder = std::env::var_os("RHUMB_MODELS").map(|d| PathBuf::from(d).join("all-minilm-l6-v2"));
    let mut args = vec!["eval".to_owned(), m.clone(), "diversity".into(), "--prompts".into(), at("p.txt")];
    args.extend(["-n", "3", "--max-new", "8", "--json", "--out"].map(str::to_owned));
    args.push(at("run"));
    let encoder = encoder.filter(|e| e.join("model.safetensors").is_file());
    match &encoder {
        Some(e) => args.extend(["--encoder".to_owned(), e.to_str().unwrap().to_owned()]),
        None => eprintln!("skipped: RHUMB_MODELS has no all-minilm-l6-v2, so nothing is embedded"),
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let found = rhumb(&args).json();
    let value = |name: &str| found["measures"][name]["value"].clone();
    assert!(value("distinct").as_f64().unwrap() > 0.0, "{found}");
    if encoder.is_some() {
        assert_eq!(found["encoder"], "all-minilm-l6-v2");
        let x = value("embedding_by_all_minilm_l6_v2").as_f64().unwrap();
        assert!((0.0..150.0).contains(&x), "{x}");
    } else {
        assert_eq!(found["encoder"], Json::Null);
    }
}
