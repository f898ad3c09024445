//! Every optimizer and storage of state through `train sft`.

use crate::fixture::{model, save};
use crate::refusals::{judge, train};
use crate::train::data;

#[test]
fn every_optimizer_and_every_storage_of_state_trains() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let d = data(dir.path(), None);
    let mut bytes = Vec::new();
    for (i, more) in [
        &["--optimizer", "adamw"][..],
        &["--optimizer", "adam-mini"],
        &["--optimizer", "adam-mini", "--preset", "1.1.1"],
        &["--optimizer", "adam-mini", "--state", "bf16"],
        &["--optimizer", "adam-mini", "--state", "8bit"],
        &["--optimizer", "adamw", "--state", "8bit"],
        &["--optimizer", "sgd"],
        &["--optimizer", "lion", "--lr", "1e-5"],
        &["--optimizer", "adafactor"],
        &["--optimizer", "muon"],
        &["--optimizer", "slim-adam", "--beta1", "0.8", "--beta2", "0.99", "--eps", "1e-6"],
    ]
    .iter()
    .enumerate()
    {
        let e = train(&m, &d, &dir.path().join(i.to_string()), &[&["--steps", "2"], *more].concat());
        assert_eq!(e.code, 0, "{more:?}: {}", e.err);
        bytes.push(e.json()["optimizer_state_bytes"].as_u64().unwrap());
    }
    let [adamw, mini, named, bf16, eight, adamw8, sgd, ..] = bytes[..] else { panic!("{bytes:?}") };
    assert!(sgd == 0 && eight < bf16 && bf16 < mini && mini < adamw && adamw8 < adamw, "{bytes:?}");
    // Two numbers and one number per parameter, up to the blocks.
    assert!((mini as f64 / adamw as f64 - 0.5).abs() < 0.02 && named < adamw, "{bytes:?}");
}

#[test]
fn what_an_optimizer_does_not_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let m = save(&model(), &dir.path().join("m"));
    let (d, out) = (data(dir.path(), None), dir.path().join("run"));
    for (more, words) in [
        (&["--optimizer", "adam"][..], &["expected one of", "adam-mini"][..]),
        (&["--optimizer", "sgd", "--state", "bf16"], &["state"]),
        (&["--state", "4bit"], &["expected one of"]),
        (&["--beta1", "1"], &["beta1"]),
        (&["--optimizer", "lion", "--beta2", "0.99"], &["say nothing about --optimizer lion"]),
        (&["--tokens", "65"], &["--tokens 65", "context of this model is 64"]),
    ] {
        let e = train(&m, &d, &out, more);
        judge(&e, more, 2, words);
    }
}
