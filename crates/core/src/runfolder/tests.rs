#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use super::*;
use crate::{Counts, MemoryReport, StopReason};

fn record(step: u64) -> Record {
    let mut r = Record::new(step);
    r.put("loss", 1.0 / (step as f64 + 3.0));
    if step.is_multiple_of(2) {
        r.put("eval, \"quoted\"", -0.0);
        r.series("norms", &[0.1, 1e300, 5e-324]);
    }
    r.machine("wall_s", 0.5 * step as f64);
    r
}

fn outcome() -> Outcome {
    Outcome {
        reason: StopReason::Steps,
        steps: 4,
        wall_s: 2.0,
        evals: Counts::default(),
        peak_bytes: MemoryReport::default(),
        notes: vec![],
        error: None,
    }
}

fn manifest() -> Manifest {
    Manifest { name: "test".to_owned(), started_unix_s: Some(1_700_000_000.0), ..Manifest::default() }
}

fn write_run(folder: &RunFolder, steps: u64) {
    let mut o = folder.observer();
    o.start(&manifest()).unwrap();
    (0..steps).for_each(|k| o.record(&record(k)).unwrap());
    o.finish(&outcome()).unwrap();
}

#[test]
fn a_record_is_one_line_with_the_machine_last() {
    assert_eq!(
        format_record(&record(2)).unwrap(),
        r#"{"step":2,"loss":0.2,"eval, \"quoted\"":-0.0,"series":{"norms":[0.1,1e+300,5e-324]},"machine":{"wall_s":1.0}}"#
    );
    assert_eq!(strip_machine(&format_record(&record(1)).unwrap()), r#"{"step":1,"loss":0.25}"#);
    assert_eq!(strip_machine(r#"{"step":1}"#), r#"{"step":1}"#);
}

#[test]
fn numbers_survive_the_text_bit_for_bit() {
    let mut r = rhumb_linalg::rng::Rng::new(1);
    for k in 0..2_000 {
        let v = f64::from_bits(r.next_u64());
        let mut rec = Record::new(k);
        rec.put("v", v);
        let back = parse_record(&format_record(&rec).unwrap()).unwrap().get("v").unwrap();
        assert!(back.to_bits() == v.to_bits() || (v.is_nan() && back.is_nan()), "{v}");
    }
}

#[test]
fn values_that_are_not_finite_become_null_with_a_note_and_come_back() {
    let mut r = Record::new(0);
    r.put("loss", f64::NAN);
    r.put("bound", f64::NEG_INFINITY);
    r.series("norms", &[1.0, f64::INFINITY]);
    let line = format_record(&r).unwrap();
    assert_eq!(
        line,
        r#"{"step":0,"loss":null,"bound":null,"series":{"norms":[1.0,null]},"nonfinite":{"loss":"NaN","bound":"-inf","norms[1]":"inf"}}"#
    );
    let back = parse_record(&line).unwrap();
    assert!(back.get("loss").unwrap().is_nan());
    assert_eq!(back.get("bound"), Some(f64::NEG_INFINITY));
    assert_eq!(back.all_series()[0].1, [1.0, f64::INFINITY]);
}

#[test]
fn reserved_names_are_refused() {
    for key in crate::record::RESERVED_KEYS {
        let mut r = Record::new(4);
        r.put(key, 1.0);
        let e = format_record(&r).unwrap_err().to_string();
        assert!(e.contains("step 4") && e.contains(key), "{e}");
    }
}

#[test]
fn lines_that_are_no_records_say_what_is_wrong() {
    for (line, says) in [
        ("", "not a record"),
        ("[1]", "not a record"),
        (r#"{"loss":1.0}"#, "without a step"),
        (r#"{"step":1,"loss":"high"}"#, "`loss` is not a number"),
        (r#"{"step":1,"series":[1]}"#, "`series` is not an object"),
        (r#"{"step":1,"series":{"a":1}}"#, "`a` is not an array"),
    ] {
        let e = parse_record(line).unwrap_err();
        assert!(e.contains(says), "{line}: {e}");
    }
}

#[test]
fn the_folder_gives_back_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(dir.path().join("a/b"), false).unwrap();
    write_run(&folder, 4);
    assert_eq!(folder.records().unwrap(), (0..4).map(record).collect::<Vec<_>>());
    assert_eq!(folder.manifest().unwrap(), manifest());
    assert_eq!(folder.outcome().unwrap(), outcome());
    assert_eq!(
        fs::read_to_string(folder.file("records.csv")).unwrap(),
        "step,loss,\"eval, \"\"quoted\"\"\",wall_s\n0,0.3333333333333333,-0,0\n1,0.25,,0.5\n2,0.2,-0,1\n3,0.16666666666666666,,1.5\n"
    );
}

#[test]
fn resuming_forgets_later_records_and_a_torn_last_line() {
    let dir = tempfile::tempdir().unwrap();
    let whole = RunFolder::create(dir.path().join("whole"), false).unwrap();
    write_run(&whole, 6);
    let parts = RunFolder::create(dir.path().join("parts"), false).unwrap();
    write_run(&parts, 5);
    let file = parts.file("records.jsonl");
    let mut text = fs::read_to_string(&file).unwrap();
    text.push_str("{\"step\":5,\"lo");
    fs::write(&file, text).unwrap();
    let parts = RunFolder::create(dir.path().join("parts"), true).unwrap();
    let mut o = parts.observer();
    o.resume(&manifest(), 3).unwrap();
    (3..6).for_each(|k| o.record(&record(k)).unwrap());
    o.finish(&outcome()).unwrap();
    for name in ["records.jsonl", "records.csv", "outcome.json", "manifest.json"] {
        assert_eq!(fs::read(whole.file(name)).unwrap(), fs::read(parts.file(name)).unwrap(), "{name}");
    }
    assert_eq!(fs::read_dir(parts.file("tensorboard")).unwrap().count(), 2);
}

#[test]
fn a_broken_line_is_reported_with_file_and_number() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(dir.path(), false).unwrap();
    write_run(&folder, 2);
    let file = folder.file("records.jsonl");
    let text = fs::read_to_string(&file).unwrap() + "{\"step\":oops}\n";
    fs::write(&file, text).unwrap();
    for e in [folder.records().unwrap_err(), folder.observer().resume(&manifest(), 9).unwrap_err()] {
        let e = e.to_string();
        assert!(e.contains("records.jsonl, line 3"), "{e}");
    }
}

#[test]
fn a_folder_with_a_run_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    write_run(&RunFolder::create(dir.path(), false).unwrap(), 1);
    let e = RunFolder::create(dir.path(), false).unwrap_err().to_string();
    assert!(e.contains("holds a run already") && e.contains("resume"), "{e}");
    RunFolder::create(dir.path(), true).unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_is_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let e = RunFolder::create(file.join("run"), false).unwrap_err().to_string();
    assert!(e.contains("file/run") && e.contains("choose another"), "{e}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported_with_the_file_and_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(dir.path(), false).unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.file("records.jsonl")).unwrap();
    let mut o = folder.observer();
    o.start(&manifest()).unwrap();
    o.record(&record(0)).unwrap();
    let e = o.sync().unwrap_err().to_string();
    assert!(e.contains("records.jsonl") && e.contains("free some space"), "{e}");
}

#[test]
fn event_files_hold_the_bytes_of_the_reference_writer() {
    let dir = tempfile::tempdir().unwrap();
    let mut o = TensorboardObserver::new(dir.path().to_owned());
    o.start(&manifest()).unwrap();
    let mut r = Record::new(300);
    r.put("loss", 0.5);
    o.record(&r).unwrap();
    o.finish(&outcome()).unwrap();
    let bytes = fs::read(dir.path().join("events.out.tfevents.1700000000.rhumb")).unwrap();
    let want: Vec<u8> =
        (0..EVENTS.len()).step_by(2).map(|i| u8::from_str_radix(&EVENTS[i..i + 2], 16).unwrap()).collect();
    assert_eq!(bytes, want);
}

/// Two events, read back by the PyPI package `tensorboard` 2.21 as file version `brain.Event:2` and as
/// `loss` = 0.5 at step 300.
const EVENTS: &str = "1a00000000000000129bd82d0900000040fc54d94110001a0d627261696e2e4576656e743a32e677\
    3e1a1b000000000000001a0d9e130900000040fc54d94110ac022a0d0a0b0a046c6f7373150000003fa1f07b99";
