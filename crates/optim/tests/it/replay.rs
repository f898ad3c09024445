//! The parity harness: a file in, every step out, or a refusal that says where.

use rhumb_optim::{REPLAY_EXAMPLE, Replay, replay};

use crate::close;

fn tensor(r: &Replay, step: usize) -> &rhumb_optim::ReplayTensor {
    &r.steps[step].tensors[0]
}

#[test]
fn the_example_gives_the_known_values_of_two_steps() {
    let r = replay(REPLAY_EXAMPLE).unwrap();
    assert_eq!((r.optimizer, r.scalar, r.state_bytes, r.steps.len()), ("adam-mini", "f64", 64, 2));
    let want = [
        0.094_126_497_341,
        -0.211_347_005_317,
        0.311_247_005_317,
        0.3996,
        0.489_107_695_191,
        -0.613_256_406_413,
    ];
    close(&tensor(&r, 0).values, &want, 1e-12);
    close(&tensor(&r, 0).state["v"], &[0.15, 0.416_666_666_667], 1e-12);
    close(&tensor(&r, 0).state["m"], &[0.1, 0.2, -0.2, 0.0, 0.3, 0.4], 1e-12);
    close(&tensor(&r, 1).state["v"], &[0.175_833_333_333, 0.545_833_333_333], 1e-12);
}

#[test]
fn flat_and_nested_lists_and_both_scalars_are_read() {
    let flat =
        REPLAY_EXAMPLE.replace("[[0.1, -0.2, 0.3], [0.4, 0.5, -0.6]]", "[0.1, -0.2, 0.3, 0.4, 0.5, -0.6]");
    assert_eq!(replay(&flat).unwrap(), replay(REPLAY_EXAMPLE).unwrap());
    let single = replay(&REPLAY_EXAMPLE.replace("f64", "f32")).unwrap();
    assert_eq!((single.scalar, single.state_bytes), ("f32", 32));
    let double = replay(REPLAY_EXAMPLE).unwrap();
    for (a, b) in tensor(&single, 1).values.iter().zip(&tensor(&double, 1).values) {
        assert!((a / b - 1.0).abs() < 1e-6 && a.to_bits() != b.to_bits());
    }
}

#[test]
fn a_number_comes_back_with_the_bits_it_was_written_with() {
    // Needs correctly rounded parsing: a digit less and the last bit is another.
    for x in ["0.1", "2.2250738585072014e-308", "1.7976931348623157e308", "0.30000000000000004"] {
        let text = format!(
            r#"{{"optimizer": {{"kind": "sgd"}}, "tensors": [{{"name": "w", "shape": [], "values": {x}}}],
                "steps": [{{"gradients": {{}}}}]}}"#
        );
        let r = replay(&text).unwrap();
        assert_eq!(tensor(&r, 0).values[0].to_bits(), x.parse::<f64>().unwrap().to_bits(), "{x}");
    }
}

#[test]
fn a_tensor_without_gradient_stays_and_the_learning_rate_may_change() {
    let text = r#"{"optimizer": {"kind": "sgd", "lr": 0.5}, "scalar": "f64",
        "tensors": [{"name": "a", "shape": [1], "values": [1]}, {"name": "b", "shape": [1], "values": [1]}],
        "steps": [{"gradients": {"a": [1]}}, {"lr": 0.25, "gradients": {"b": [1]}}]}"#;
    let r = replay(text).unwrap();
    let seen: Vec<Vec<f64>> =
        r.steps.iter().map(|s| s.tensors.iter().map(|t| t.values[0]).collect()).collect();
    assert_eq!(seen, [[0.5, 1.0], [0.5, 0.75]]);
    assert_eq!((r.steps[0].lr, r.steps[1].lr), (0.5, 0.25));
}

#[test]
fn every_kind_shows_the_state_of_its_equations() {
    for (kind, extra, want) in [
        ("adam-mini", "", "m,v"),
        ("adamw", "", "m,v"),
        ("sgd", "", ""),
        ("sgd", r#", "momentum": 0.9"#, "momentum"),
        ("lion", "", "m"),
        ("adafactor", "", "v"),
        ("adafactor", r#", "adafactor": {"beta1": 0.9}"#, "m,v"),
        ("muon", "", "momentum"),
        ("slim-adam", "", "m,v"),
        ("adamw", r#", "groups": [{"names": ["m*"], "lr_ratio": 0.5}]"#, "m,v"),
    ] {
        let text = REPLAY_EXAMPLE.replace("mlp.w", "mlp/w").replace(
            r#"{"kind": "adam-mini", "preset": "rhumb", "lr": 0.01, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}"#,
            &format!(r#"{{"kind": "{kind}"{extra}}}"#),
        );
        let r = replay(&text).unwrap();
        let names: Vec<&str> = tensor(&r, 1).state.keys().map(String::as_str).collect();
        assert_eq!(names.join(","), want, "{kind}{extra}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_the_place_and_the_remedy() {
    for (from, to, words) in [
        (r#""steps""#, r#""stepz""#, &["unknown field `stepz`", "line 7"][..]),
        (r#""lr": 0.01, "gradients""#, r#""lrr": 0.01, "gradients""#, &["unknown field `lrr`", "line 9"]),
        (r#""role""#, r#""rolle""#, &["unknown field `rolle`"]),
        (r#""mlp", "values""#, r#""mpl", "values""#, &["unknown variant `mpl`"]),
        (r#""kind": "adam-mini""#, r#""kind": "adamini""#, &["adamini", "adam-mini"]),
        (r#""beta1": 0.9"#, r#""beta1": 1.9"#, &["optimizer: beta1 = 1.9"]),
        (r#""f64""#, r#""f16""#, &["f16", "f32"]),
        ("[1, 2, -2]", "[1, 2]", &["step 1", "gradient of mlp.w", "a list of 2 where the shape has 3"]),
        ("[[1, 2, -2], [0, 3, 4]]", "[1, 2, -2, 0, 3]", &["step 1", "5 numbers", "[2, 3] has 6"]),
        ("[[-1, 0, 1], [2, -2, 1]]", "[[-1, 0, 1], [2, null, 1]]", &["step 2", "null is not a number"]),
        ("[2, -2, 1]", "[2, \"NaN\", 1]", &["step 2", "\"NaN\" is not a number"]),
        ("[2, -2, 1]", "[2, NaN, 1]", &["line 9"]),
        ("[2, -2, 1]", "7", &["7 where the shape has a list"]),
        ("[2, -2, 1]", "[[2], -2, 1]", &["more deeply"]),
        ("-0.2, 0.3", "-0.2", &["tensor mlp.w", "a list of 2"]),
        ("[2, 3]", "[4294967296, 4294967296, 3]", &["tensor mlp.w", "too large"]),
        (r#"{"mlp.w": [[1"#, r#"{"mlp.v": [[1"#, &["step 1", "mlp.v", "tensors are mlp.w"]),
        (r#"{"lr": 0.01, "g"#, r#"{"lr": -0.01, "g"#, &["step 2", "lr = -0.01"]),
    ] {
        let text = REPLAY_EXAMPLE.replacen(from, to, 1);
        assert_ne!(text, REPLAY_EXAMPLE, "{from}");
        let e = replay(&text).unwrap_err().to_string();
        for word in words {
            assert!(e.contains(word), "{from} -> {to}: {e}");
        }
    }
    let f32 = REPLAY_EXAMPLE.replace("f64", "f32").replace("[0, 3, 4]", "[0, 3, 1e300]");
    assert!(replay(&f32).unwrap_err().to_string().contains("does not fit into f32"));
    let twice =
        REPLAY_EXAMPLE.replace("-0.6]]}", r#"-0.6]]}, {"name": "mlp.w", "shape": [0], "values": []}"#);
    assert!(replay(&twice).unwrap_err().to_string().contains("given twice"));
    for text in ["", "{", "[]", "null", r#"{"optimizer": {}}"#] {
        assert!(replay(text).unwrap_err().to_string().contains("--example"), "{text}");
    }
}
