//! Files packed by gzip are read like those that they hold, whatever they are called.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::eval::large;
use crate::fixture::{model, rhumb, save};
use crate::refusals::{refused, text, train};
use crate::train::data;

fn pack(path: &Path, name: &str) -> PathBuf {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(&fs::read(path).unwrap()).unwrap();
    let packed = path.with_file_name(name);
    fs::write(&packed, out.finish().unwrap()).unwrap();
    packed
}

#[test]
fn every_measure_says_the_same_of_a_packed_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let m = large(dir.path());
    let chat = data(dir.path(), None);
    fs::write(at("q.jsonl"), "{\"question\":\"1+1?\",\"answer\":\"#### 2\"}\n").unwrap();
    fs::write(at("p.txt"), "one\ntwo\n").unwrap();
    fs::write(at("p.jsonl"), "{\"prompt\":\"one\"}\n{\"prompt\":\"two\"}\n").unwrap();
    let short = ["--plain", "--max-new", "3"];
    for (i, (measure, flag, file, packed, more)) in [
        ("ppl", "--data", PathBuf::from(chat), "chat.jsonl.gz", &[][..]),
        ("ppl", "--data", at("chat.jsonl"), "no-ending", &[]),
        ("gsm8k", "--data", at("q.jsonl"), "q.jsonl.gz", &short),
        ("diversity", "--prompts", at("p.txt"), "p.txt.gz", &short),
        ("diversity", "--prompts", at("p.jsonl"), "p.jsonl.gz", &short),
    ]
    .into_iter()
    .enumerate()
    {
        let said = |file: &Path, out: &str| {
            let out = at(&format!("{out}{i}"));
            let args = ["eval", &m, measure, flag, text(file), "--out", text(&out), "--json"];
            rhumb(&[&args[..], more].concat()).json()["measures"].clone()
        };
        assert_eq!(said(&pack(&file, packed), "packed"), said(&file, "plain"), "{measure} {packed}");
    }
}

#[test]
fn a_fine_tuning_reads_packed_conversations_and_refuses_a_file_that_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let packed = pack(Path::new(&data(dir.path(), None)), "chat.jsonl.gz");
    let out = dir.path().join("run");
    assert_eq!(train(&m, text(&packed), &out, &[]).json()["steps"], 4);
    let bytes = fs::read(&packed).unwrap();
    fs::write(&packed, &bytes[..bytes.len() - 12]).unwrap();
    refused(&["eval", &m, "ppl", "--data", text(&packed)], 2, &["chat.jsonl.gz", "reading failed"]);
    refused(&["eval", &m, "diversity", "--prompts", text(&packed)], 2, &["cannot read", "chat.jsonl.gz"]);
}
