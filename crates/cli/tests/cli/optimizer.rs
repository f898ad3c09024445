//! `rhumb optimizer`.

use super::*;

#[test]
fn the_printed_example_replays_to_the_known_values() {
    let dir = tempfile::tempdir().unwrap();
    let example = ok(None, &["optimizer", "replay", "--example"]);
    let file = dir.path().join("example.json");
    std::fs::write(&file, &example).unwrap();
    let file = file.to_str().unwrap();

    let out = json(None, &["optimizer", "replay", file]);
    assert_eq!((&out["optimizer"], &out["scalar"]), (&"adam-mini".into(), &"f64".into()));
    let near = |got: &Value, want: &[f64]| {
        let got = got.as_array().unwrap();
        assert_eq!(got.len(), want.len());
        for (a, b) in got.iter().zip(want) {
            assert!((a.as_f64().unwrap() - b).abs() < 1e-12, "{a} instead of {b}");
        }
    };
    let first = &out["steps"][0]["tensors"][0];
    near(
        &first["values"],
        &[
            0.094_126_497_341,
            -0.211_347_005_317,
            0.311_247_005_317,
            0.3996,
            0.489_107_695_191,
            -0.613_256_406_413,
        ],
    );
    near(&first["state"]["v"], &[0.15, 0.416_666_666_667]);
    let second = &out["steps"][1]["tensors"][0];
    near(
        &second["values"],
        &[
            0.094_424_291_451,
            -0.218_190_229_237,
            0.314_071_123_168,
            0.394_751_540_671,
            0.487_061_486_730,
            -0.622_875_526_463,
        ],
    );
    near(&second["state"]["v"], &[0.175_833_333_333, 0.545_833_333_333]);

    let text = ok(None, &["optimizer", "replay", file]);
    assert!(text.contains("0.0941265") && text.ends_with("adam-mini in f64, 64 bytes of state\n"), "{text}");
}

#[test]
fn a_replay_that_cannot_be_done_says_which_file_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.json");
    let example = ok(None, &["optimizer", "replay", "--example"]);
    std::fs::write(&file, example.replace("[0, 3, 4]", "[0, 3]")).unwrap();
    let e = fails(None, 2, &["optimizer", "replay", file.to_str().unwrap()]);
    assert!(e.contains("bad.json: step 1: gradient of mlp.w"), "{e}");
    let e = fails(None, 4, &["optimizer", "replay", "nowhere.json"]);
    assert!(e.contains("nowhere.json") && e.contains("check the path"), "{e}");
    fails(None, 2, &["optimizer", "replay"]);
}
