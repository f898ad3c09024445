//! `eval` on a small random model: what it measures, what it leaves behind, how it is gone on with, what it refuses.

use std::fs;
use std::path::Path;

use rhumb_core::runfolder::strip_machine;
use serde_json::{Value as Json, json};

use crate::fixture::{Ended, model, rhumb, save};
use crate::refusals::{refused, text};
use crate::train::data;

/// Three problems; one answer's number each.
fn problems(dir: &Path) -> String {
    let line = |i: usize| {
        json!({ "question": format!("{i}+1?"), "answer": format!("so\n#### {}", i + 1) }).to_string()
    };
    let path = dir.join("gsm.jsonl");
    fs::write(&path, (1..=3).map(line).collect::<Vec<_>>().join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// `eval` in plain text, for a context of 64 bytes.
fn eval(m: &str, out: &Path, args: &[&str]) -> Ended {
    rhumb(&[&["eval", m], args, &["--out", text(out), "--json"]].concat())
}

fn close(got: &Json, want: f64) {
    let got = got.as_f64().unwrap();
    assert!((got - want).abs() < 1e-5 * want.abs().max(1.0), "{got} is not {want}");
}

fn lines(path: &Path) -> Vec<Json> {
    fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn perplexity_is_that_of_score_and_a_temperature_divides_the_logits() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let file = dir.path().join("t.jsonl");
    fs::write(&file, "{\"text\":\"hello there\"}\n{\"text\":\"one two three four\"}\n").unwrap();
    let out = |n: &str| dir.path().join(n);
    let found = eval(&m, &out("a"), &["ppl", "--data", text(&file), "--temperature", "1"]).json();
    // Token by token, with the end of the text that a plain text is trained with.
    let score = |t: &str| rhumb(&["score", &m, "--text", &format!("{t}<|im_end|>"), "--json"]).json();
    let scores = [score("hello there"), score("one two three four")];
    let sum = |key: &str| {
        scores.iter().flat_map(|s| s[key].as_array().unwrap()).map(|x| x.as_f64().unwrap()).sum::<f64>()
    };
    let n = scores.iter().map(|s| s["ce"].as_array().unwrap().len()).sum::<usize>();
    assert_eq!((found["tokens"].as_u64(), found["conversations"].as_u64()), (Some(n as u64), Some(2)));
    let of = |j: &Json, name: &str| j["measures"][name]["value"].clone();
    close(&of(&found, "cross_entropy"), sum("ce") / n as f64);
    close(&of(&found, "perplexity"), (sum("ce") / n as f64).exp());
    close(&of(&found, "entropy"), sum("entropy") / n as f64);
    close(&of(&found, "cross_entropy_at_temperature"), sum("ce") / n as f64);
    let hot = eval(&m, &out("b"), &["ppl", "--data", text(&file), "--temperature", "1e6"]).json();
    // Flat over the vocabulary.
    close(&of(&hot, "cross_entropy_at_temperature"), (crate::fixture::VOCAB as f64).ln());
    close(&of(&hot, "cross_entropy"), sum("ce") / n as f64);
    assert_eq!(lines(&out("a").join("records.jsonl")).len(), 2);
    assert!(out("a").join("report.html").is_file());
}

#[test]
fn perplexity_is_told_with_its_interval_over_conversations_and_by_any_limit() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = data(dir.path(), None);
    let all = eval(&m, &dir.path().join("a"), &["ppl", "--data", &d]).json();
    let ce = &all["measures"]["cross_entropy"];
    assert!(ce["low"].as_f64() < ce["value"].as_f64() && ce["value"].as_f64() < ce["high"].as_f64(), "{ce}");
    let one = eval(&m, &dir.path().join("b"), &["ppl", "--data", &d, "--limit", "1"]).json();
    assert_eq!(
        (one["conversations"].as_u64(), &one["measures"]["cross_entropy"]["low"]),
        (Some(1), &Json::Null)
    );
    let told = rhumb(&["eval", &m, "ppl", "--data", &d, "--out", text(&dir.path().join("c"))]);
    assert!(told.out.contains("token accuracy") && told.out.contains("12 conversations"), "{}", told.out);
}

#[test]
fn problems_are_answered_greedily_by_default_and_judged() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = problems(dir.path());
    let out = dir.path().join("run");
    // The prompt that asks to reason is longer than this model's context.
    refused(
        &["eval", &m, "gsm8k", "--data", &d, "--out", text(&out)],
        2,
        &["question 1 has", "context is 64"],
    );
    let large = large(dir.path());
    let found = eval(&large, &out, &["gsm8k", "--data", &d, "--max-new", "6"]).json();
    assert_eq!((found["questions"].as_u64(), found["n"].as_u64()), (Some(3), Some(1)));
    assert_eq!(found["measure"], "gsm8k");
    let samples = lines(&out.join("samples.jsonl"));
    assert_eq!(samples.len(), 3);
    let question = samples[1]["prompt"].as_str().unwrap();
    assert!(question.contains("2+1?") && question.contains("<|im_start|>assistant"), "{question}");
    let generate = |q: &str| {
        let asked = q.split("user\n").nth(1).unwrap().split("<|im_end|>").next().unwrap();
        let args = ["generate", &large, "--chat", asked, "--greedy", "--max-new", "6", "--json"];
        rhumb(&args).json()["completions"][0]["text"].clone()
    };
    assert_eq!(samples[1]["answers"][0]["text"], generate(question));
    let right = samples.iter().filter(|s| s["answers"][0]["verdict"]["right"] == true).count();
    close(&found["measures"]["accuracy"]["value"], right as f64 / 3.0);
    // The draws of a question do not depend on how many there are.
    let one =
        eval(&large, &dir.path().join("one"), &["gsm8k", "--data", &d, "--max-new", "6", "--limit", "1"])
            .json();
    assert_eq!(one["questions"], 1);
    assert_eq!(lines(&dir.path().join("one/samples.jsonl"))[0], samples[0]);
}

/// The random model with room for prompts of the real measures.
pub(crate) fn large(dir: &Path) -> String {
    let mut files = model();
    files.config["max_position_embeddings"] = 512.into();
    save(&files, &dir.join("large"))
}

#[test]
fn several_answers_give_passes_votes_and_the_best_by_two_scorers() {
    let dir = tempfile::tempdir().unwrap();
    let m = large(dir.path());
    // Bytes of random text hold a digit often enough; every one-digit number is asked for.
    let line = |i: usize| json!({ "question": "?", "answer": format!("#### {i}") }).to_string();
    let file = dir.path().join("g.jsonl");
    fs::write(&file, (0..6).map(line).collect::<Vec<_>>().join("\n")).unwrap();
    let out = dir.path().join("run");
    let args = ["gsm8k", "--data", text(&file), "-n", "4", "-k", "1,2,4", "--max-new", "12", "--scorer", &m];
    let found = eval(&m, &out, &args).json();
    let measures = found["measures"].as_object().unwrap();
    let mut want: Vec<String> = [1, 2, 4].iter().map(|k| format!("pass@{k}")).collect();
    for k in [2, 4] {
        want.push(format!("majority@{k}"));
        want.extend(["oracle", "logprob", "scorer"].map(|w| format!("best@{k}_{w}")));
    }
    want.sort();
    let mut names: Vec<&str> = measures.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, want);
    let value = |name: &str| measures[name]["value"].as_f64().unwrap();
    assert!(value("pass@1") <= value("pass@2") && value("pass@2") <= value("pass@4"));
    // With all answers allowed, the oracle and the unbiased estimate are one number.
    close(&measures["best@4_oracle"]["value"], value("pass@4"));
    for s in lines(&out.join("samples.jsonl")) {
        for a in s["answers"].as_array().unwrap() {
            // The same model scores its own answers alike, up to the tokens of a text that ends within a character.
            assert!(a["logprob"].as_f64().unwrap() < 0.0 && a["scorer"].as_f64().is_some());
        }
    }
    // Answers are drawn apart.
    let first = lines(&out.join("samples.jsonl"))[0]["answers"].clone();
    assert_ne!(first[0]["text"], first[1]["text"]);
    let fewer =
        eval(&m, &dir.path().join("fewer"), &["gsm8k", "--data", text(&file), "-n", "2", "--max-new", "12"]);
    assert_eq!(fewer.code, 0, "{}", fewer.err);
    assert_eq!(lines(&dir.path().join("fewer/samples.jsonl"))[0]["answers"][1]["text"], first[1]["text"]);
}

#[test]
fn instructions_are_checked_from_a_file_and_from_generated_prompts() {
    let dir = tempfile::tempdir().unwrap();
    let m = large(dir.path());
    let file = dir.path().join("if.jsonl");
    let line = |ids: Json, kwargs: Json| {
        json!({ "key": 1, "prompt": "Say.", "instruction_id_list": ids, "kwargs": kwargs }).to_string()
    };
    let text_ = [
        line(json!(["punctuation:no_comma"]), json!([{}])),
        line(
            json!(["length_constraints:number_words", "punctuation:no_comma"]),
            json!([{ "relation": "at least", "num_words": 5000 }, {}]),
        ),
        line(json!(["language:response_language"]), json!([{ "language": "de" }])),
    ]
    .join("\n");
    fs::write(&file, text_).unwrap();
    let out = dir.path().join("run");
    let found = eval(&m, &out, &["ifeval", "--data", text(&file), "--max-new", "8"]).json();
    let samples = lines(&out.join("samples.jsonl"));
    let free = |i: usize| !samples[i]["answers"][0]["text"].as_str().unwrap().contains(',');
    let rate = |b: bool| f64::from(u8::from(b));
    let of = |name: &str| found["measures"][name]["value"].as_f64().unwrap();
    // The second prompt is never followed as a whole, the third not judged.
    assert!((of("prompt_strict") - rate(free(0)) / 2.0).abs() < 1e-12, "{found}");
    assert!((of("instruction_strict") - (rate(free(0)) + rate(free(1))) / 3.0).abs() < 1e-12, "{found}");
    assert!(of("prompt_loose") >= of("prompt_strict"));
    assert_eq!(found["unchecked"], 1);
    let own = eval(&m, &dir.path().join("own"), &["ifeval", "--questions", "4", "--max-new", "8", "-n", "2"])
        .json();
    assert_eq!((own["questions"].as_u64(), own["answers"].as_u64()), (Some(4), Some(8)));
    assert_eq!(own["generated"], true);
}

#[test]
fn tasks_are_asked_in_short_form_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let args = ["tasks", "--task", "add,split", "--questions", "3", "-n", "4", "--max-new", "5", "--plain"];
    let found = eval(&m, &dir.path().join("run"), &args).json();
    assert_eq!(found["questions"], 6);
    let tasks: Vec<&String> = found["tasks"].as_object().unwrap().keys().collect();
    assert_eq!(tasks, ["add", "split"]);
    assert!(
        found["measures"]["distinct_right"]["value"].is_number()
            && found["measures"]["pass@4"]["value"].is_number()
    );
    let samples = lines(&dir.path().join("run/samples.jsonl"));
    assert!(
        samples[0]["prompt"].as_str().unwrap().starts_with("add ")
            && samples[5]["prompt"].as_str().unwrap().starts_with("split ")
    );
    // Another seed asks other questions.
    let other = eval(&m, &dir.path().join("other"), &[&args[..], &["--seed", "1"]].concat());
    assert_eq!(other.code, 0, "{}", other.err);
    assert_ne!(lines(&dir.path().join("other/samples.jsonl"))[0]["prompt"], samples[0]["prompt"]);
}

#[test]
fn diversity_is_high_where_answers_differ_and_zero_where_one_token_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let prompts = dir.path().join("p.txt");
    fs::write(&prompts, "a\n\nb c\n").unwrap();
    let base = ["diversity", "--prompts", text(&prompts), "--plain", "-n", "4", "--max-new", "20"];
    let of = |out: &str, more: &[&str]| eval(&m, &dir.path().join(out), &[&base[..], more].concat()).json();
    let free = of("free", &[]);
    let value = |j: &Json, name: &str| j["measures"][name]["value"].as_f64().unwrap();
    let one = of("one", &["--top-k", "1"]);
    assert!(value(&free, "distinct") > value(&one, "distinct"), "{free} {one}");
    let samples = lines(&dir.path().join("one/samples.jsonl"));
    assert_eq!(samples[0]["answers"][0]["text"], samples[0]["answers"][3]["text"]);
    assert_eq!(free["encoder"], Json::Null);
    // Equal texts of four words or more have BLEU 100; the prompt in front brings some along.
    let prefix = dir.path().join("long.jsonl");
    fs::write(&prefix, "{\"prompt\":\"these are four words\"}\n").unwrap();
    let args = [
        "diversity",
        "--prompts",
        text(&prefix),
        "--plain",
        "-n",
        "2",
        "--max-new",
        "2",
        "--top-k",
        "1",
        "--with-prompt",
    ];
    let with = eval(&m, &dir.path().join("with"), &args).json();
    close(&with["measures"]["self_bleu_multi"]["value"], 100.0);
    close(&with["measures"]["self_bleu_official"]["value"], 100.0);
}

#[test]
fn a_run_that_was_cut_off_goes_on_and_ends_with_the_same_answers() {
    let dir = tempfile::tempdir().unwrap();
    let m = large(dir.path());
    let d = problems(dir.path());
    let args = ["gsm8k", "--data", &d, "-n", "2", "--max-new", "10"];
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let want = eval(&m, &whole, &args).json();
    assert_eq!(eval(&m, &cut, &args).code, 0);
    // As after a kill in the middle of the second line.
    let samples = fs::read_to_string(cut.join("samples.jsonl")).unwrap();
    let first = samples.find('\n').unwrap() + 1;
    fs::write(cut.join("samples.jsonl"), &samples[..first + 20]).unwrap();
    for name in ["outcome.json", "report.html", "summary.json"] {
        fs::remove_file(cut.join(name)).unwrap();
    }
    let go_on = [&args[..], &["--resume"]].concat();
    let got = eval(&m, &cut, &go_on).json();
    assert_eq!(got["measures"], want["measures"]);
    let read = |p: &Path, name: &str| fs::read_to_string(p.join(name)).unwrap();
    assert_eq!(read(&cut, "samples.jsonl"), read(&whole, "samples.jsonl"));
    let bare = |p: &Path| {
        read(p, "records.jsonl").lines().map(|l| strip_machine(l).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(bare(&cut), bare(&whole));
    // Nothing is left to do, and it is told again.
    assert_eq!(eval(&m, &cut, &go_on).json()["measures"], want["measures"]);
    let other = [&args[..], &["--resume", "--seed", "9"]].concat();
    let e = eval(&m, &cut, &other);
    assert!(e.code == 2 && e.err.contains("holds a run with another"), "{}", e.err);
    let e = eval(&m, &cut, &args);
    assert!(e.code == 2 && e.err.contains("holds a run already"), "{}", e.err);
    let e = eval(&m, &cut, &["ppl", "--data", &d, "--resume"]);
    assert!(e.code == 2 && e.err.contains("no eval/ppl"), "{}", e.err);
}

#[test]
fn perplexity_goes_on_at_the_border_of_a_chunk_with_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = data(dir.path(), None);
    let args = ["ppl", "--data", &d];
    let out = dir.path().join("run");
    let want = eval(&m, &out, &args).json();
    let records = fs::read_to_string(out.join("records.jsonl")).unwrap();
    let ten = records.match_indices('\n').nth(9).unwrap().0 + 1;
    fs::write(out.join("records.jsonl"), &records[..ten + 5]).unwrap();
    let got = eval(&m, &out, &[&args[..], &["--resume"]].concat()).json();
    assert_eq!(got["measures"], want["measures"]);
    let again = fs::read_to_string(out.join("records.jsonl")).unwrap();
    let bare = |t: &str| t.lines().map(|l| strip_machine(l).into_owned()).collect::<Vec<_>>();
    assert_eq!(bare(&again), bare(&records));
}

#[test]
fn an_adapter_is_merged_for_an_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, run) = (data(dir.path(), None), dir.path().join("run"));
    crate::refusals::train(&m, &d, &run, &["--lora", "4", "--lr", "0.05"]).json();
    let of = |model: &str, out: &str, more: &[&str]| {
        eval(model, &dir.path().join(out), &[&["ppl", "--data", &d], more].concat()).json()["measures"]
            .clone()
    };
    let adapted = of(&m, "a", &["--adapter", text(&run.join("adapter"))]);
    assert_eq!(adapted, of(text(&run.join("model")), "b", &[]));
    assert_ne!(adapted, of(&m, "c", &[]));
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let m = large(dir.path());
    let d = problems(dir.path());
    let out = dir.path().join("out");
    let file = |name: &str, text_: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text_).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let empty = file("empty.jsonl", "\n");
    let field = file("field.jsonl", "{\"question\":\"1\",\"answer\":\"#### 1\"}\n{\"question\":\"2\"}\n");
    let kind = file(
        "kind.jsonl",
        "{\"prompt\":\"a\",\"instruction_id_list\":[\"punctuation:no_comma\"],\"kwargs\":[{}]}\n{\"prompt\":\"a\"}\n",
    );
    let prompt = file("prompt.txt", "a\n");
    let cases: [(&[&str], i32, &[&str]); 17] = [
        (&["gsm8k", "--data", &d, "-n", "4", "-k", "1,8"], 2, &["-k 8 with -n 4", "raise -n"]),
        (&["tasks", "-n", "2", "-k", "4"], 2, &["-k 4 with -n 2"]),
        (&["gsm8k", "--data", &d, "-n", "2", "--temperature", "0"], 2, &["-n 2 with --temperature 0"]),
        (&["diversity", "--prompts", &d, "-n", "1"], 2, &["-n 1: diversity"]),
        (&["diversity", "--prompts", &d, "--temperature", "0"], 2, &["-n 16 with --temperature 0"]),
        (&["gsm8k", "--data", &d, "--scorer", &m], 2, &["--scorer chooses among several"]),
        (&["gsm8k", "--data", &empty], 2, &["empty.jsonl is empty"]),
        (&["ifeval", "--data", &empty], 2, &["empty.jsonl is empty"]),
        (&["diversity", "--prompts", &empty], 2, &["empty.jsonl is empty"]),
        (&["ppl", "--data", &empty], 2, &["empty.jsonl holds no conversation"]),
        (&["gsm8k", "--data", &field], 2, &["field.jsonl, line 2: the field answer is missing"]),
        (&["ifeval", "--data", &kind], 2, &["kind.jsonl, line 2", "instruction_id_list"]),
        (&["diversity", "--prompts", &field], 2, &["field.jsonl, line 1: the field prompt is missing"]),
        (&["gsm8k", "--data", "absent.jsonl"], 4, &["cannot read absent.jsonl"]),
        (&["tasks", "--task", "splt"], 2, &["no task is called \"splt\"", "split"]),
        (&["tasks", "--task", "split", "--questions", "500"], 2, &["the task split gave", "ask for fewer"]),
        (&["diversity", "--prompts", &prompt, "--encoder", &m], 2, &["--encoder", "model_type"]),
    ];
    for (args, code, words) in cases {
        refused(&[&["eval", &m], args, &["--out", text(&out)]].concat(), code, words);
        assert!(!out.exists(), "{args:?} left something");
    }
    let mut bare = model();
    bare.tokenizer_config = None;
    let bare = save(&bare, &dir.path().join("bare"));
    let e = ["no chat template", "--template", "--plain"];
    refused(&["eval", &bare, "gsm8k", "--data", &d, "--out", text(&out)], 2, &e);
    refused(&["eval", &m, "gsm8k", "--data", &d, "--out", text(&out), "--resume"], 4, &["no run to resume"]);
    refused(&["eval", "absent", "tasks", "--out", text(&out)], 4, &["no model at absent"]);
}

#[test]
fn an_interruption_ends_after_a_question_and_tells_how_to_go_on() {
    #[cfg(unix)]
    {
        use std::process::{Command, Stdio};
        use std::time::{Duration, Instant};
        let dir = tempfile::tempdir().unwrap();
        let m = large(dir.path());
        let out = dir.path().join("run");
        let mut command = Command::new(env!("CARGO_BIN_EXE_rhumb"));
        command.args([
            "eval",
            &m,
            "tasks",
            "--task",
            "add",
            "--questions",
            "400",
            "--max-new",
            "20",
            "--out",
            text(&out),
        ]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        let lines = || fs::read_to_string(out.join("samples.jsonl")).map_or(0, |t| t.matches('\n').count());
        while lines() < 2 {
            assert!(began.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let ended = child.wait_with_output().unwrap();
        let err = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(130), "{err}");
        assert!(
            err.contains("interrupted after ") && err.contains(" of 400; go on with: rhumb eval "),
            "{err}"
        );
        assert!(err.contains("--resume"), "{err}");
        let outcome: Json =
            serde_json::from_str(&fs::read_to_string(out.join("outcome.json")).unwrap()).unwrap();
        assert_eq!(outcome["steps"].as_u64().unwrap() as usize, lines());
    }
}

#[test]
fn two_evaluations_are_paired_over_their_questions() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let mut other = model();
    other.tensors.values_mut().for_each(|t| t.data.iter_mut().for_each(|x| *x *= 2.0));
    let n = save(&other, &dir.path().join("n"));
    let (one, two) = (dir.path().join("one.jsonl"), dir.path().join("two.jsonl"));
    let texts = ["hello there", "one two three four", "so it goes", "a", "bc"];
    let lines: Vec<String> = texts.iter().map(|t| json!({ "text": t }).to_string()).collect();
    fs::write(&one, lines.join("\n")).unwrap();
    fs::write(&two, lines[1..].join("\n")).unwrap();
    let out = |n: &str| dir.path().join(n);
    let ce = |m: &str, name: &str, data: &Path| {
        let found = eval(m, &out(name), &["ppl", "--data", text(data)]).json();
        found["measures"]["cross_entropy"]["value"].as_f64().unwrap()
    };
    let (a, b) = (ce(&m, "a", &one), ce(&n, "b", &one));
    let told = rhumb(&["compare", text(&out("a")), text(&out("b")), "--metric", "ce", "--json"]).json();
    assert_eq!(told["questions"], 5);
    let ce_of = &told["metrics"][0];
    close(&ce_of["difference"]["mean"], b - a);
    let (low, high) = (&ce_of["difference"]["low"], &ce_of["difference"]["high"]);
    assert!(low.as_f64().unwrap() < b - a && b - a < high.as_f64().unwrap(), "{ce_of}");
    let mean =
        |side: &str| ce_of[side].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).sum::<f64>() / 5.0;
    assert!((mean("first") - a).abs() < 1e-9 && (mean("second") - b).abs() < 1e-9);
    let same = rhumb(&["compare", text(&out("a")), text(&out("a")), "--json"]).json();
    assert!(same["metrics"].as_array().unwrap().iter().all(|m| m["verdict"] == "equal"));
    ce(&m, "c", &two);
    refused(&["compare", text(&out("a")), text(&out("c"))], 2, &["read different data"]);
    let (file, large) = (problems(dir.path()), large(dir.path()));
    eval(&large, &out("g"), &["gsm8k", "--data", &file, "--max-new", "4"]).json();
    eval(&large, &out("h"), &["gsm8k", "--data", &file, "--max-new", "4", "-n", "2"]).json();
    refused(&["compare", text(&out("a")), text(&out("g"))], 2, &["eval/ppl and eval/gsm8k"]);
    let told = rhumb(&["compare", text(&out("g")), text(&out("h")), "--metric", "right", "--json"]).json();
    assert_eq!(told["questions"], 3);
    refused(&["compare", text(&out("g")), text(&out("h")), "--metric", "rigth"], 2, &["right"]);
}
