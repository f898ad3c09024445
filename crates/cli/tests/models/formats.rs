//! Data in the formats of other trainers, templates from files, and the dry run of a fine-tuning.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixture::{model, rhumb, save};
use crate::refusals::{refused, text};
use crate::train::data;

fn fixture(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parquet");
    dir.join(name).to_str().unwrap().to_owned()
}

fn written(dir: &Path, name: &str, lines: &[Value]) -> String {
    let path = dir.join(name);
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    text(&path).to_owned()
}

/// Token numbers and masks of every row.
fn previewed(m: &str, data: &str, more: &[&str]) -> Vec<(Value, Value)> {
    let mut args = vec!["data", "preview", "--model", m, "--data", data, "-n", "99", "--json"];
    args.extend(more);
    let rows = rhumb(&args).json();
    rows.as_array().unwrap().iter().map(|r| (r["ids"].clone(), r["mask"].clone())).collect()
}

#[test]
fn one_conversation_in_every_format_is_the_same_tokens_and_the_same_mask() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let rows = [
        json!({ "messages": [{ "role": "user", "content": "Q" }, { "role": "assistant", "content": "A" }] }),
        json!({ "conversations": [{ "from": "human", "value": "Q" }, { "from": "gpt", "value": "A" }] }),
        json!({ "instruction": "Q", "input": "", "output": "A" }),
        json!({ "prompt": "Q", "completion": "A", "text": "Q A" }),
    ];
    let d = written(dir.path(), "chat.jsonl", &rows);
    let got = previewed(&m, &d, &[]);
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|r| *r == got[0] && r.1.as_array().unwrap().contains(&json!(1))), "{got:?}");
    // The same file, and only its last row has a text.
    let words = ["chat.jsonl, line 1: the format text needs text; its keys (messages)"];
    refused(&["data", "preview", "--model", &m, "--data", &d, "--format", "text"], 2, &words);
    let d = written(dir.path(), "text.jsonl", &rows[3..]);
    let (ids, mask) = previewed(&m, &d, &["--format", "text"]).remove(0);
    // Q, space, A and the end, the first of which follows nothing.
    assert_eq!((ids.as_array().unwrap().len(), mask), (4, json!([0, 1, 1, 1])));
}

#[test]
fn a_table_reads_as_the_lines_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let row = |i: usize| {
        let pair = [
            json!({ "role": "user", "content": format!("{i}+{i}?") }),
            json!({ "role": "assistant", "content": format!("{}, nämlich", 2 * i) }),
        ];
        json!({ "messages": vec![pair; 1 + i % 2].concat() })
    };
    let lines = written(dir.path(), "chat.jsonl", &(0..7).map(row).collect::<Vec<_>>());
    let want = previewed(&m, &lines, &[]);
    assert_eq!(want.len(), 7);
    for name in ["messages-snappy.parquet", "messages-zstd.parquet"] {
        assert_eq!(previewed(&m, &fixture(name), &[]), want, "{name}");
    }
    assert_eq!(previewed(&m, &fixture("alpaca-gzip.parquet"), &[]).len(), 2);
    let other = fixture("other-columns.parquet");
    let args = ["data", "preview", "--model", &m, "--data", &other];
    let forced = [&args[..], &["--format", "messages"]].concat();
    refused(&forced, 2, &["has the columns image, label, text", "messages are needed"]);
    // Its text is no UTF-8.
    refused(&args, 2, &["other-columns.parquet, row 1: column text: bytes that are not UTF-8"]);
    let fake = dir.path().join("fake.parquet");
    fs::write(&fake, "{}").unwrap();
    refused(&["data", "preview", "--model", &m, "--data", text(&fake)], 2, &["is not a Parquet file"]);
    refused(
        &["data", "preview", "--model", &m, "--data", "absent.parquet"],
        4,
        &["absent.parquet", "check the path"],
    );
}

const ALPACA: &str = "{% for m in messages %}
{% if m.role == 'user' %}Instruction: {{ m.content }}
Response: {% elif m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}
{% else %}{{ raise_exception('no role ' + m.role) }}{% endif %}
{% endfor %}";

fn template(dir: &Path, source: &str) -> String {
    let path = dir.join("own.jinja");
    fs::write(&path, source).unwrap();
    text(&path).to_owned()
}

#[test]
fn a_template_from_a_file_replaces_the_models_own_and_is_saved_with_the_result() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, t) = (data(dir.path(), None), template(dir.path(), ALPACA));
    let shown = rhumb(&["data", "preview", "--model", &m, "--data", &d, "--template", &t, "-n", "1"]);
    assert!(shown.out.contains("Instruction: q1\nResponse: [[a1<|im_end|>]]"), "{}", shown.out);
    let out = dir.path().join("run");
    let args = ["train", "sft", "--model", &m, "--data", &d, "--template", &t, "--out", text(&out)];
    let more = ["--tokens", "48", "--batch", "2", "--held-out", "4", "--steps", "2"];
    let trained = rhumb(&[&args[..], &more].concat());
    assert_eq!(trained.code, 0, "{}", trained.err);
    let config = fs::read_to_string(out.join("model/tokenizer_config.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&config).unwrap()["chat_template"], ALPACA);
    // The changed file is another run.
    template(dir.path(), &ALPACA.replace("Instruction", "Question"));
    let again = rhumb(&[&args[..], &more, &["--resume"]].concat());
    assert!(again.code == 0 || again.err.contains("the template changed since"), "{}", again.err);
    let asked = ["generate", &m, "--chat", "Hi", "--greedy", "--max-new", "1", "--json"];
    let plain = rhumb(&asked).json()["prompt_tokens"].clone();
    let own = rhumb(&[&asked[..], &["--template", &t]].concat()).json()["prompt_tokens"].clone();
    assert_ne!(plain, own);
}

#[test]
fn a_broken_template_is_told_with_its_file_and_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = data(dir.path(), None);
    let t = template(dir.path(), "{% for m in messages %}\n{{ m.content }}\n{% endif %}");
    for args in [
        vec!["data", "preview", "--model", &m, "--data", &d, "--template", &t],
        vec!["data", "check", "--model", &m, "--data", &d, "--template", &t],
        vec![
            "train",
            "sft",
            "--model",
            &m,
            "--data",
            &d,
            "--template",
            &t,
            "--out",
            "never",
            "--tokens",
            "48",
        ],
        vec!["generate", &m, "--chat", "Hi", "--template", &t],
    ] {
        refused(&args, 2, &["own.jinja", "line 3 of the chat template does not parse"]);
    }
    // One that fails while it runs: the line of the data and the line of the template.
    let t = template(
        dir.path(),
        "{% for m in messages %}\n{% if m.role == 'user' %}\n{{ raise_exception('no users') }}\n{% endif %}{% endfor %}",
    );
    let words = ["chat.jsonl, line 1", "line 3 of the chat template failed: no users"];
    refused(&["data", "preview", "--model", &m, "--data", &d, "--template", &t], 2, &words);
    refused(
        &["data", "preview", "--model", &m, "--data", &d, "--template", "absent.jinja"],
        4,
        &["absent.jinja"],
    );
}

/// `data check` with the settings of a small training; the exit code and the JSON.
fn checked(m: &str, d: &str, more: &[&str]) -> (i32, Value) {
    let args = ["data", "check", "--model", m, "--data", d, "--json", "--batch", "2"];
    let tokens: &[&str] = if more.contains(&"--tokens") { &[] } else { &["--tokens", "48"] };
    let e = rhumb(&[&args[..], tokens, more].concat());
    assert!(!e.err.contains("error: "), "{}", e.err);
    (e.code, serde_json::from_str(&e.out).unwrap())
}

#[test]
fn a_dry_run_counts_what_the_training_then_does() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    let more = ["--held-out", "4", "--epochs", "3"];
    let (code, j) = checked(&m, &d, &more);
    assert_eq!((code, &j["ok"], &j["problems"]), (0, &json!(true), &json!([])));
    assert_eq!((&j["data"]["rows"], &j["data"]["kept"], &j["held_out"]), (&json!(12), &json!(12), &json!(4)));
    assert_eq!(j["tokens"]["documents"], 8);
    for key in ["row_s", "step_s", "all_s", "memory_bytes", "packed_fill"] {
        assert!(j[key].as_f64().unwrap() > 0.0, "{key}: {j}");
    }
    let args =
        ["train", "sft", "--model", &m, "--data", &d, "--out", text(&out), "--tokens", "48", "--batch", "2"];
    let trained = rhumb(&[&args[..], &more].concat());
    assert_eq!(trained.code, 0, "{}", trained.err);
    let rows = j["packed_rows"].as_u64().unwrap();
    let outcome: Value =
        serde_json::from_str(&fs::read_to_string(out.join("outcome.json")).unwrap()).unwrap();
    assert!(trained.err.contains(&format!("{rows} packed rows of 48 tokens")), "{}", trained.err);
    assert_eq!(outcome["steps"], j["steps"]);
    assert_eq!(j["steps_per_epoch"], rows.div_ceil(2));
    let (_, quick) = checked(&m, &d, &["--held-out", "4", "--no-timing"]);
    assert_eq!((&quick["ok"], quick.get("step_s")), (&json!(true), None));
}

#[test]
fn rows_that_are_left_out_are_listed_by_the_dry_run_and_in_the_folder_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let turn = |role: &str, text: &str| json!({ "role": role, "content": text });
    let mut rows: Vec<Value> = (0..8)
        .map(|i| json!({ "messages": [turn("user", &i.to_string()), turn("assistant", "A")] }))
        .collect();
    rows[2] = json!({ "messages": [turn("user", "Q")] });
    rows[4] = json!({ "messages": [turn("user", &"long ".repeat(20)), turn("assistant", "A")] });
    rows[5] = json!({ "messages": [turn("assistant", "A"), turn("user", "Q")] });
    rows[6] = json!({ "messages": [turn("user", "Q"), turn("assistant", &"long ".repeat(20))] });
    let d = written(dir.path(), "chat.jsonl", &rows);
    let (code, j) = checked(&m, &d, &["--held-out", "1", "--no-timing"]);
    assert_eq!((code, &j["data"]["kept"], &j["data"]["truncated"]), (0, &json!(5), &json!([7])));
    let listed = |rows: &[Value]| -> Vec<(u64, String)> {
        rows.iter().map(|r| (r["line"].as_u64().unwrap(), r["why"].as_str().unwrap().to_owned())).collect()
    };
    let want = [(3, "no-answer"), (5, "cut-before-answer"), (6, "unusable")].map(|(l, w)| (l, w.to_owned()));
    assert_eq!(listed(j["data"]["dropped"].as_array().unwrap()), want);
    let out = dir.path().join("run");
    let args = ["train", "sft", "--model", &m, "--data", &d, "--out", text(&out), "--tokens", "48"];
    let trained = rhumb(&[&args[..], &["--batch", "2", "--held-out", "1", "--steps", "1"]].concat());
    assert_eq!(trained.code, 0, "{}", trained.err);
    assert!(trained.err.contains("without an answer dropped (lines 3)"), "{}", trained.err);
    let file = fs::read_to_string(out.join("dropped.jsonl")).unwrap();
    let rows: Vec<Value> = file.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(listed(&rows), [&want[..], &[(7, "cut".to_owned())]].concat());
    assert!(rows[2]["reason"].as_str().unwrap().contains("starts with another role"));
    assert!(!out.join("tokens.tmp").exists());
}

#[test]
fn a_dry_run_that_would_train_nothing_says_why_and_ends_with_two() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let user = json!({ "messages": [{ "role": "user", "content": "Q" }] });
    let answer = json!({ "messages": [
        { "role": "user", "content": "Q" }, { "role": "assistant", "content": "A" }] });
    let robot = json!({ "messages": [{ "role": "robot", "content": "Q" }] });
    let problem = |name: &str, rows: &[Value], more: &[&str]| {
        let d = written(dir.path(), name, rows);
        let (code, j) = checked(&m, &d, more);
        assert_eq!((code, &j["ok"]), (2, &json!(false)), "{j}");
        j["problems"][0].as_str().unwrap().to_owned()
    };
    assert!(problem("empty.jsonl", &[], &[]).contains("empty.jsonl holds no conversation"));
    let e = problem("mute.jsonl", &[user.clone(), user.clone()], &[]);
    assert!(e.contains("none of the 2 conversations has a token to train on"), "{e}");
    let e = problem("one.jsonl", std::slice::from_ref(&answer), &[]);
    assert!(e.contains("held out"), "{e}");
    // Every broken row is listed, not the first alone.
    let d = written(
        dir.path(),
        "broken.jsonl",
        &[answer.clone(), robot.clone(), answer.clone(), robot, json!([1])],
    );
    let (code, j) = checked(&m, &d, &["--held-out", "0", "--no-timing"]);
    assert_eq!((code, &j["data"]["rows"], &j["data"]["kept"]), (2, &json!(5), &json!(2)));
    let broken: Vec<u64> =
        j["data"]["dropped"].as_array().unwrap().iter().map(|r| r["line"].as_u64().unwrap()).collect();
    assert_eq!(broken, [2, 4, 5]);
    let e = j["problems"][0].as_str().unwrap();
    assert!(
        e.contains("3 rows cannot be read, the first in line 2: message 1 has the role \"robot\""),
        "{e}"
    );
    // Longer rows than the model can read, and no file at all.
    let e = problem("long.jsonl", &[answer.clone(), answer], &["--held-out", "0", "--tokens", "4096"]);
    assert!(e.contains("the context of this model is 64 tokens"), "{e}");
    refused(&["data", "check", "--model", &m, "--data", "absent.jsonl"], 4, &["absent.jsonl"]);
}
