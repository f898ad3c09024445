//! `generate`, `score`, `model` and `data` on a small random model.

use std::fs;

use rhumb_io::model_dir::ModelFiles;
use serde_json::Value as Json;

use crate::fixture::{CONTEXT, model, rhumb, save};

fn ids(v: &Json) -> Vec<u64> {
    v.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect()
}

fn numbers(v: &Json) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// The id of a byte.
fn byte(b: u8) -> u64 {
    3 + u64::from(b)
}

#[test]
fn a_chat_goes_through_the_template_and_a_prompt_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), dir.path());
    let chat = rhumb(&["generate", &m, "--chat", "Hi", "--greedy", "--max-new", "2", "--json"]).json();
    let bytes = |s: &str| s.bytes().map(byte).collect::<Vec<_>>();
    let want = [vec![1], bytes("user\nHi"), vec![2], bytes("\n"), vec![1], bytes("assistant\n")].concat();
    assert_eq!(ids(&chat["prompt_ids"]), want);
    assert_eq!(chat["prompt_tokens"], want.len());
    let plain = rhumb(&["generate", &m, "--prompt", "Hi", "--greedy", "--max-new", "2", "--json"]).json();
    assert_eq!(ids(&plain["prompt_ids"]), bytes("Hi"));
}

#[test]
fn the_cache_and_the_score_agree_on_the_greedy_answer() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), dir.path());
    let g = rhumb(&["generate", &m, "--prompt", "abc", "--greedy", "--max-new", "5", "--json"]).json();
    let answer = &g["completions"][0];
    let got = ids(&answer["ids"]);
    assert_eq!(got.len() as u64, answer["tokens"].as_u64().unwrap());
    // The first new token has the smallest cross-entropy among all bytes that could follow.
    let ce = |last: u8| {
        let text = format!("abc{}", char::from(last));
        numbers(&rhumb(&["score", &m, "--text", &text, "--json"]).json()["ce"])[2]
    };
    if (byte(b' ')..byte(127)).contains(&got[0]) {
        let best = ce((got[0] - 3) as u8);
        assert!([b'a', b'q', b'z', b'0', b' '].iter().all(|b| byte(*b) == got[0] || ce(*b) > best));
    }
    // Sampling from the single most likely token is the greedy choice.
    let one = ["generate", &m, "--prompt", "abc", "--top-k", "1", "--max-new", "5", "-n", "2", "--json"];
    let one = rhumb(&one).json();
    for i in 0..2 {
        assert_eq!(ids(&one["completions"][i]["ids"]), got, "answer {i} starts from the prompt again");
    }
}

#[test]
fn more_answers_do_not_change_the_first_and_a_seed_repeats_them() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), dir.path());
    let draw = |n: &str, seed: &str| {
        let args = ["generate", &m, "--prompt", "ab", "-n", n, "--seed", seed, "--max-new", "8", "--json"];
        let json = rhumb(&args).json();
        json["completions"].as_array().unwrap().iter().map(|c| ids(&c["ids"])).collect::<Vec<_>>()
    };
    let (one, three) = (draw("1", "4"), draw("3", "4"));
    assert_eq!(three.len(), 3);
    assert_eq!(one[0], three[0]);
    assert_ne!(three[0], three[1]);
    assert_eq!(three, draw("3", "4"));
    assert_ne!(three, draw("3", "5"));
}

#[test]
fn an_answer_ends_at_its_limit_at_the_context_or_with_the_end_token() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = model();
    let m = save(&files, dir.path());
    let run = |m: &str, new: &str| {
        let json = rhumb(&["generate", m, "--prompt", "abcd", "--greedy", "--max-new", new, "--json"]).json();
        let answer = json["completions"][0].clone();
        (answer["stop"].as_str().unwrap().to_owned(), ids(&answer["ids"]))
    };
    let (stop, short) = run(&m, "3");
    assert_eq!((stop.as_str(), short.len()), ("max-new", 3));
    // What the model says anyway becomes its end token.
    files.config["eos_token_id"] = serde_json::json!(short[0]);
    let ended = dir.path().join("ended");
    let (stop, got) = run(&save(&files, &ended), "3");
    assert_eq!((stop.as_str(), got), ("eos", short[..1].to_vec()));
    files.config["eos_token_id"] = serde_json::json!(null);
    files.tokenizer_config = None;
    let (stop, got) = run(&save(&files, &dir.path().join("endless")), "1000");
    // The token after a full context is known, but nothing can follow it.
    assert_eq!((stop.as_str(), got.len()), ("context", CONTEXT - 4 + 1));
}

#[test]
fn a_score_has_one_value_for_every_token_but_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), dir.path());
    let args = ["score", &m, "--text", "hello", "--loss", "gem-linear", "--beta", "0.7", "--json"];
    let s = rhumb(&args).json();
    let (ce, gem) = (numbers(&s["ce"]), numbers(&s["gem-linear_tokens"]));
    assert_eq!((ids(&s["ids"]).len(), ce.len(), gem.len()), (5, 4, 4));
    assert!((s["ce_mean"].as_f64().unwrap() - mean(&ce)).abs() < 1e-12);
    assert!((s["gem-linear"].as_f64().unwrap() - mean(&gem)).abs() < 1e-12);
    // At beta 1 the loss is the cross-entropy less the entropy.
    let args = ["score", &m, "--text", "hello", "--loss", "gem-linear", "--beta", "1", "--json"];
    let s = rhumb(&args).json();
    let gap = s["ce_mean"].as_f64().unwrap() - s["entropy_mean"].as_f64().unwrap();
    assert!((s["gem-linear"].as_f64().unwrap() - gap).abs() < 1e-5);
    // The weight of dft is the probability of the token.
    let s = rhumb(&["score", &m, "--text", "hello", "--loss", "dft", "--json"]).json();
    for (ce, dft) in numbers(&s["ce"]).iter().zip(numbers(&s["dft_tokens"])) {
        assert!((dft - (-ce).exp() * ce).abs() < 1e-6, "{ce} {dft}");
    }
    let args = ["score", &m, "--text", "hello", "--loss", "ce+entropy", "--lambda", "0.5", "--json"];
    let s = rhumb(&args).json();
    let want = s["ce_mean"].as_f64().unwrap() - 0.5 * s["entropy_mean"].as_f64().unwrap();
    assert!((s["ce+entropy"].as_f64().unwrap() - want).abs() < 1e-6 && s["lambda"] == 0.5, "{s}");
}

#[test]
fn a_file_and_its_text_have_the_same_score() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), dir.path());
    let file = dir.path().join("t.txt");
    fs::write(&file, "some text").unwrap();
    let a = rhumb(&["score", &m, "--file", file.to_str().unwrap(), "--json"]);
    assert_eq!(a.out, rhumb(&["score", &m, "--text", "some text", "--json"]).out);
    assert_eq!(rhumb(&["score", &m, "--file", "absent.txt"]).code, 4);
    let short = rhumb(&["score", &m, "--text", "a"]);
    assert!(short.code == 2 && short.err.contains("longer text"), "{}", short.err);
    let long = rhumb(&["score", &m, "--text", &"a".repeat(CONTEXT + 1)]);
    assert!(long.code == 2 && long.err.contains("context"), "{}", long.err);
}

#[test]
fn what_is_missing_and_what_is_wrong_have_their_own_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");
    let absent = absent.to_str().unwrap();
    for args in [
        &["generate", absent, "--chat", "x"][..],
        &["score", absent, "--text", "xy"],
        &["model", "info", absent],
    ] {
        let r = rhumb(args);
        assert!(r.code == 4 && r.err.contains("no model at"), "{}", r.err);
    }
    let mut files = model();
    files.tokenizer_config = None;
    let plain = save(&files, &dir.path().join("plain"));
    let r = rhumb(&["generate", &plain, "--chat", "x"]);
    assert!(r.code == 2 && r.err.contains("no chat template"), "{}", r.err);
    let (_, t) = files.tensors.iter_mut().next().unwrap();
    t.data[3] = f32::NAN;
    assert!(files.save(&dir.path().join("nan")).is_err());
    let r = rhumb(&["generate", &plain, "--prompt", &"a".repeat(CONTEXT)]);
    assert!(r.code == 2 && r.err.contains("shorten the prompt"), "{}", r.err);
}

#[test]
fn a_nan_in_the_weights_is_named_before_anything_is_computed() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), dir.path());
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let n = bytes.len();
    bytes[n - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let r = rhumb(&["generate", &m, "--prompt", "x"]);
    assert!(r.code == 2 && r.err.contains("NaN") && r.err.contains("tensor"), "{}", r.err);
}

#[test]
fn exports_come_back_with_the_same_bits_and_the_same_answer() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let answer = |m: &str| {
        let args = ["generate", m, "--chat", "Hi", "--greedy", "--max-new", "6", "--json"];
        ids(&rhumb(&args).json()["completions"][0]["ids"])
    };
    let gguf = dir.path().join("m.gguf").to_str().unwrap().to_owned();
    let back = dir.path().join("back").to_str().unwrap().to_owned();
    let e = rhumb(&["model", "export", &m, "--format", "gguf", "--out", &gguf, "--json"]).json();
    assert_eq!(e["difference"]["changed"], 0);
    assert_eq!(rhumb(&["model", "import", &gguf, "--out", &back]).code, 0);
    let load = |p: &str| ModelFiles::load(p.as_ref()).unwrap().tensors;
    let (a, b) = (load(&m), load(&back));
    assert_eq!(a.len(), b.len());
    assert!(a.iter().all(|(name, t)| b[name] == *t));
    assert_eq!(answer(&m), answer(&gguf));
    assert_eq!(answer(&m), answer(&back));

    let half = rhumb(&[
        "model", "export", &m, "--format", "gguf", "--dtype", "f16", "--out", &gguf, "--force", "--json",
    ])
    .json();
    let relative = half["difference"]["relative"].as_f64().unwrap();
    assert!(relative > 0.0 && relative < 5e-4, "{relative}");
    let q8 =
        ["model", "export", &m, "--format", "gguf", "--dtype", "q8_0", "--out", &gguf, "--force", "--json"];
    let q8 = rhumb(&q8).json();
    let relative = q8["difference"]["relative"].as_f64().unwrap();
    assert!(relative > 1e-3 && relative < 2e-2, "{relative}");
    let folder = dir.path().join("bf16").to_str().unwrap().to_owned();
    let bf16 = ["model", "export", &m, "--format", "hf", "--dtype", "bf16", "--out", &folder, "--json"];
    let bf16 = rhumb(&bf16).json();
    let relative = bf16["difference"]["relative"].as_f64().unwrap();
    assert!(relative > 5e-4 && relative < 4e-3, "{relative}");
    let info = rhumb(&["model", "info", &folder, "--json"]).json();
    assert_eq!(info["stored"]["BF16"], a.len());
    assert_eq!(bf16["bytes"], 2 * info["parameters"].as_u64().unwrap());
}

#[test]
fn an_export_that_cannot_be_written_says_what_can() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let out = dir.path().join("x").to_str().unwrap().to_owned();
    for (format, dtype) in [("hf", "q8_0"), ("gguf", "bf16")] {
        let r = rhumb(&["model", "export", &m, "--format", format, "--dtype", dtype, "--out", &out]);
        assert!(r.code == 2 && r.err.contains("f32"), "{}", r.err);
        assert!(!dir.path().join("x").exists());
    }
    // A file stands where a folder is needed.
    fs::write(dir.path().join("x"), "").unwrap();
    let r = rhumb(&["model", "export", &m, "--format", "hf", "--out", &format!("{out}/y")]);
    assert!(r.code == 2 && r.err.contains("cannot create"), "{}", r.err);
    assert_eq!(rhumb(&["model", "import", &m, "--out", &m]).code, 2);
}

#[test]
fn the_memory_of_each_optimizer_follows_from_parameters_and_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let files = model();
    let m = save(&files, dir.path());
    let info = rhumb(&["model", "info", &m, "--json"]).json();
    let p = files.parameters() as u64;
    assert_eq!(info["parameters"], p);
    assert_eq!(info["stored"]["F32"], files.tensors.len());
    let blocks: u64 = info["blocks"].as_array().unwrap().iter().map(|g| g["blocks"].as_u64().unwrap()).sum();
    let state = |name: &str| {
        let rows = info["memory"].as_array().unwrap();
        rows.iter().find(|r| r["optimizer"] == name).unwrap()["optimizer_bytes"].as_u64().unwrap()
    };
    assert_eq!(state("adam-mini"), 4 * (p + blocks));
    assert_eq!(state("adamw"), 8 * p);
    assert_eq!(state("sgd"), 0);
}

#[test]
fn a_row_that_cannot_be_used_is_shown_and_left_out_with_its_line_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let data = dir.path().join("d.jsonl");
    let row = |i: usize, more: &str| {
        format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"Hi {i}\"}},\
             {{\"role\":\"assistant\",\"content\":\"Yo\"}}]{more}}}\n"
        )
    };
    let tools = ",\"tools\":[{\"name\":\"f\"}]";
    let text: String = (0..12).map(|i| row(i, if i == 1 { tools } else { "" })).collect();
    fs::write(&data, text).unwrap();
    let (d, out) = (data.to_str().unwrap(), dir.path().join("run"));
    let words = "line 2: the chat template leaves out the row's tools";
    let shown = rhumb(&["data", "preview", "--model", &m, "--data", d, "--json"]).json();
    assert!(shown[1]["unusable"].as_str().unwrap().contains(words), "{shown}");
    assert!(shown[2]["trained"].as_u64().unwrap() > 0);
    let o = out.to_str().unwrap();
    let r = rhumb(&[
        "train",
        "sft",
        "--model",
        &m,
        "--data",
        d,
        "--held-out",
        "2",
        "--steps",
        "1",
        "--batch",
        "1",
        "--tokens",
        "64",
        "--out",
        o,
    ]);
    assert!(
        r.code == 0 && r.err.contains("1 conversation that cannot be used dropped (lines 2)"),
        "{}",
        r.err
    );
    assert!(r.err.contains(words), "{}", r.err);
    fs::write(&data, row(0, tools)).unwrap();
    let r = rhumb(&["data", "preview", "--model", &m, "--data", d]);
    assert!(r.code == 2 && r.err.contains("line 1: the chat template leaves out"), "{}", r.err);
}

#[test]
fn a_preview_marks_what_is_trained_and_stops_before_a_line_it_need_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), dir.path());
    let data = dir.path().join("d.jsonl");
    fs::write(
        &data,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Yo\"}]}\n\
         {\"messages\":[{\"role\":\"user\",\"content\":\"only me\"}]}\nbroken\n",
    )
    .unwrap();
    let d = data.to_str().unwrap();
    let r = rhumb(&["data", "preview", "--model", &m, "--data", d, "-n", "2"]);
    assert_eq!(r.code, 0, "{}", r.err);
    assert!(r.out.contains("<|im_start|>assistant\n[[Yo<|im_end|>\n]]"), "{}", r.out);
    assert!(r.out.contains("this conversation trains nothing"), "{}", r.out);
    assert!(!r.out.contains('\x1b'));
    let one = rhumb(&["data", "preview", "--model", &m, "--data", d, "-n", "1", "--json"]).json();
    assert_eq!((&one[0]["line"], &one[0]["trained"]), (&Json::from(1), &Json::from(4)));
    let (ids, mask) = (one[0]["ids"].as_array().unwrap(), one[0]["mask"].as_array().unwrap());
    assert_eq!((Json::from(ids.len()), ids.len()), (one[0]["tokens"].clone(), mask.len()));
    let (rest, trained) = mask.split_at(mask.len() - 4);
    assert!(rest.iter().all(|m| m == 0) && trained.iter().all(|m| m == 1), "{mask:?}");
    let r = rhumb(&["data", "preview", "--model", &m, "--data", d]);
    assert!(r.code == 2 && r.err.contains("line 3"), "{}", r.err);
    assert_eq!(rhumb(&["data", "preview", "--model", &m, "--data", "absent.jsonl"]).code, 4);
}

#[test]
fn a_name_that_cannot_be_pulled_is_refused_without_a_connection() {
    let r = rhumb(&["model", "pull", "no-organisation"]);
    assert!(r.code == 2 && r.err.contains("ORG/NAME"), "{}", r.err);
}
