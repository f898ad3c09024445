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
        &[0.094126497341, -0.211347005317, 0.311247005317, 0.3996, 0.489107695191, -0.613256406413],
    );
    near(&first["state"]["v"], &[0.15, 0.416666666667]);
    let second = &out["steps"][1]["tensors"][0];
    near(
        &second["values"],
        &[0.094424291451, -0.218190229237, 0.314071123168, 0.394751540671, 0.487061486730, -0.622875526463],
    );
    near(&second["state"]["v"], &[0.175833333333, 0.545833333333]);

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
