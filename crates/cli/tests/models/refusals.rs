//! Broken input, each kind once through the program: exit code, place, remedy, and nothing left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::fixture::{Ended, model, rhumb, save};
use crate::train::data;

/// A call that has to end with that code, with these words on standard error and nothing on standard output.
pub(crate) fn refused(args: &[&str], code: i32, words: &[&str]) {
    judge(&rhumb(args), args, code, words);
}

pub(crate) fn judge(e: &Ended, args: &[&str], code: i32, words: &[&str]) {
    assert_eq!(e.code, code, "{args:?}: {}", e.err);
    assert!(e.out.is_empty(), "{args:?}: {}", e.out);
    assert!(!e.err.contains("panicked") && e.err.contains("error: "), "{args:?}: {}", e.err);
    for word in words {
        assert!(e.err.contains(word), "{args:?}: no {word:?} in: {}", e.err);
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small model as one GGUF file.
fn gguf(dir: &Path) -> PathBuf {
    let m = save(&model(), &dir.join("m"));
    let path = dir.join("m.gguf");
    assert_eq!(rhumb(&["model", "export", &m, "--format", "gguf", "--out", text(&path)]).code, 0);
    path
}

#[test]
fn a_truncated_gguf_is_told_with_the_byte_where_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = gguf(dir.path());
    let whole = fs::read(&path).unwrap();
    let (out, cut) = (dir.path().join("out"), dir.path().join("cut.gguf"));
    // Inside the head, the names, the tokenizer, the weights, and one byte before the end.
    for keep in [10, 40, 600, whole.len() / 2, whole.len() - 1] {
        fs::write(&cut, &whole[..keep]).unwrap();
        let size = format!("the file has {keep}");
        let mut words = vec!["cut.gguf", "at byte", "again"];
        // Shorter ones contradict their own counts already.
        if keep >= whole.len() / 2 {
            words.extend(["ends too early", size.as_str()]);
        }
        refused(&["model", "import", text(&cut), "--out", text(&out)], 2, &words);
        refused(&["generate", text(&cut), "--prompt", "x"], 2, &words);
        assert!(!out.exists(), "nothing is written before all is read");
    }
}

#[test]
fn a_file_with_another_magic_is_told_with_what_it_begins_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = gguf(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[..4].copy_from_slice(b"PK\x03\x04");
    fs::write(&path, &bytes).unwrap();
    let out = dir.path().join("out");
    refused(
        &["model", "import", text(&path), "--out", text(&out)],
        2,
        &["m.gguf is not a GGUF file", "PK", "check the path"],
    );
    bytes[..8].copy_from_slice(b"GGUF\x63\0\0\0");
    fs::write(&path, &bytes).unwrap();
    refused(&["model", "info", text(&path)], 2, &["GGUF version 99"]);
}

/// A safetensors file with this head in front of `bytes` of weights.
fn safetensors(path: &Path, head: &str, bytes: usize) {
    let mut file = (head.len() as u64).to_le_bytes().to_vec();
    file.extend(head.as_bytes());
    file.resize(file.len() + bytes, 0);
    fs::write(path, file).unwrap();
}

#[test]
fn a_safetensors_head_that_lies_is_told_before_memory_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), dir.path());
    let weights = dir.path().join("model.safetensors");
    let entry = |shape: &str, from: u64, to: u64| {
        format!(r#"{{"model.norm.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}}}"#)
    };
    for head in [
        entry("[64]", 0, 1 << 40),              // past the end of the file
        entry("[4611686018427387904]", 0, 256), // a shape that does not fit its bytes, nor any memory
        entry("[64]", 256, 0),                  // backwards
        entry("[63]", 0, 256),                  // another number of values
        "{\"model.norm.weight\":".to_owned(),   // no JSON
    ] {
        safetensors(&weights, &head, 256);
        refused(&["model", "info", &m], 2, &["model.safetensors"]);
    }
    // A length of the head that is larger than the file.
    fs::write(&weights, u64::MAX.to_le_bytes()).unwrap();
    refused(&["score", &m, "--text", "abc"], 2, &["model.safetensors"]);
}

/// `train sft` of the model at `m`, with `more`.
pub(crate) fn train(m: &str, data: &str, out: &Path, more: &[&str]) -> Ended {
    let mut args = vec!["train", "sft", "--model", m, "--data", data, "--out", text(out), "--json"];
    for pair in
        [["--tokens", "48"], ["--batch", "2"], ["--held-out", "4"], ["--steps", "4"], ["--lr", "1e-2"]]
    {
        if !more.contains(&pair[0]) {
            args.extend(pair);
        }
    }
    args.extend(more);
    rhumb(&args)
}

#[test]
fn a_broken_line_of_the_data_is_told_with_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let out = dir.path().join("run");
    for (line, word) in [
        ("{\"messages\": [", "EOF"),
        ("{\"txt\": \"x\"}", "its keys (txt) fit no format"),
        ("{\"messages\":[{\"role\":\"user\"}]}", "content"),
        ("[1, 2]", "one JSON object"),
    ] {
        let d = data(dir.path(), Some(line));
        let words = ["chat.jsonl, line 7: ", word, "Each line is one JSON object"];
        judge(&train(&m, &d, &out, &[]), &[line], 2, &words);
        refused(&["data", "preview", "--model", &m, "--data", &d, "-n", "12"], 2, &words);
        assert!(!out.exists(), "data are read before a folder is made");
    }
}

#[test]
fn a_template_that_prints_no_answer_trains_nothing_and_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = model();
    // What assistants say is left out, so that no token of it can be trained.
    let template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}";
    files.tokenizer_config = Some(json!({ "eos_token": "<|im_end|>", "chat_template": template }));
    let m = save(&files, &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    let words = ["none of the 12 conversations has a token to train on", "chat template", "data preview"];
    judge(&train(&m, &d, &out, &[]), &[], 2, &words);
    assert!(!out.exists());
    let shown = rhumb(&["data", "preview", "--model", &m, "--data", &d]);
    assert!(shown.code == 0 && shown.out.contains("this conversation trains nothing"), "{}", shown.out);
}

#[test]
fn a_nan_in_the_weights_is_named_with_its_tensor_by_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let weights = dir.path().join("m/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let n = bytes.len();
    bytes[n - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    let words = ["tensor model.", "NaN", "the model is broken", "the original"];
    judge(&train(&m, &d, &out, &[]), &[], 2, &words);
    let gguf = dir.path().join("x.gguf");
    refused(&["model", "export", &m, "--format", "gguf", "--out", text(&gguf)], 2, &words);
    refused(&["score", &m, "--text", "abc"], 2, &words);
    assert!(!out.exists() && !gguf.exists());
}

#[test]
fn a_training_that_diverges_ends_with_three_and_names_step_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    let e = train(&m, &d, &out, &["--optimizer", "sgd", "--clip", "0", "--lr", "1e30", "--warmup", "0"]);
    judge(&e, &[], 3, &["step ", "not finite"]);
    assert!(!out.join("model").exists(), "weights that are not finite are not saved");
    let outcome = fs::read_to_string(out.join("outcome.json")).unwrap();
    assert!(outcome.contains("failed") && outcome.contains("not finite"), "{outcome}");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_the_training() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = data(dir.path(), None);
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let words = ["cannot create", "file/run", "choose another"];
    judge(&train(&m, &d, &file.join("run"), &[]), &[], 2, &words);
    refused(&["model", "import", &m, "--out", text(&file.join("x"))], 2, &["cannot create", "file/x"]);
    refused(&["quickstart", "--out", text(&file.join("q"))], 2, &["cannot create", "file/q"]);
    // The folder of a run that is there already.
    let out = dir.path().join("run");
    assert_eq!(train(&m, &d, &out, &[]).code, 0);
    judge(&train(&m, &d, &out, &[]), &[], 2, &["holds a run already", "choose another"]);
}

#[test]
fn settings_without_a_meaning_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    for (more, words) in [
        (&["--dropout", "0.1"][..], &["--dropout 0.1", "built without dropout", "--weight-decay"][..]),
        (
            &["--held-out", "12"],
            &["12 of 12 different conversations", "hold out fewer (--held-out, 11 at most)", "(--eval-data)"],
        ),
        (&["--update-in-backward"], &["clipping by global norm", "--clip 0"]),
        (&["--update-in-backward", "--clip", "0", "--accumulate", "2"], &["--accumulate 1"]),
        (&["--memory-share", "0.000000001"], &["this run needs about", "--batch", "--lora"]),
        (&["--beta", "0"], &["--beta"]),
        (&["--lora", "0"], &["--lora"]),
        (&["--optimizer", "adam"], &["adam-mini"]),
    ] {
        judge(&train(&m, &d, &out, more), more, 2, words);
        assert!(!out.exists(), "{more:?}");
    }
}

/// The call with a limit on the size of every file it writes, which is how a full disk looks to it.
#[cfg(unix)]
fn limited(blocks: u64, args: &[&str]) -> Ended {
    shell(&format!("trap '' XFSZ; ulimit -f {blocks}"), args)
}

/// The call after some words of a shell.
#[cfg(unix)]
pub(crate) fn shell(first: &str, args: &[&str]) -> Ended {
    let script = format!("{first}; exec \"$0\" \"$@\"");
    let out =
        Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_rhumb")]).args(args).output().unwrap();
    Ended {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8(out.stdout).unwrap(),
        err: String::from_utf8(out.stderr).unwrap(),
    }
}

fn call(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_keeps_the_last_checkpoint_and_the_run_goes_on_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = data(dir.path(), None);
    let args = |run: &str, more: &[&str]| {
        let mut a: Vec<String> =
            ["train", "sft", "--model", &m, "--data", &d, "--json"].map(Into::into).to_vec();
        a.extend(["--tokens", "48", "--batch", "2", "--held-out", "4", "--steps", "8"].map(Into::into));
        a.extend(["--lr", "1e-2", "--eval-every", "5", "--checkpoint-every", "2", "--out"].map(Into::into));
        a.push(text(&dir.path().join(run)).to_owned());
        a.extend(more.iter().map(|s| (*s).to_owned()));
        a
    };
    assert_eq!(rhumb(&call(&args("whole", &[]))).code, 0);
    let whole = fs::metadata(dir.path().join("whole/state.bin")).unwrap().len();
    // After the evaluation of step 5 a checkpoint holds the best weights too, and becomes half as large again.
    let e = limited(whole * 4 / 5 / 512, &call(&args("full", &[])));
    judge(&e, &[], 2, &["step 6", "cannot write", "state.bin", "os error", "then resume"]);
    let full = dir.path().join("full");
    assert!(!full.join("model").exists());
    let names: Vec<_> = fs::read_dir(&full).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|n| n.to_str().unwrap().contains("tmp")), "{names:?}");
    assert_eq!(rhumb(&call(&args("full", &["--resume"]))).code, 0);
    let weights = |run: &str| fs::read(dir.path().join(run).join("model/model.safetensors")).unwrap();
    assert!(weights("whole") == weights("full"));
}

#[cfg(unix)]
#[test]
fn an_export_to_a_full_disk_leaves_the_file_that_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = gguf(dir.path());
    let before = fs::read(&path).unwrap();
    let m = dir.path().join("m");
    let args =
        ["model", "export", text(&m), "--format", "gguf", "--dtype", "f16", "--out", text(&path), "--force"];
    judge(&limited(8, &args), &args, 2, &["cannot write", "m.gguf", "os error"]);
    assert!(fs::read(&path).unwrap() == before);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

/// A real file system of 700 kB. Skips where a user may not mount one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_file_system_ends_the_training_with_the_words_of_the_system() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = data(dir.path(), None);
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = format!("mount -t tmpfs -o size=700k none {}", text(&disk));
    let inside = |script: &str| Command::new("unshare").args(["-rm", "sh", "-c", script]).output();
    if !inside(&mount).is_ok_and(|o| o.status.success()) {
        println!("skipped: mounting is not allowed here");
        return;
    }
    let run = format!(
        "{} train sft --model {m} --data {d} --out {}/run --json --tokens 48 --batch 2 --held-out 4 --steps 8 \
         --checkpoint-every 1",
        env!("CARGO_BIN_EXE_rhumb"),
        text(&disk)
    );
    let out = inside(&format!("{mount} && {run}")).unwrap();
    let e = Ended {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8(out.stdout).unwrap(),
        err: String::from_utf8(out.stderr).unwrap(),
    };
    judge(&e, &[], 2, &["No space left on device", "state.bin", "free some space"]);
}
