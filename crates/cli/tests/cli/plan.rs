//! `rhumb plan`.

use super::*;

/// Llama 2 7B by its published configuration; no weight is on this machine, and none is needed.
const CONFIG: &str = r#"{
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": 11008,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": false
}"#;

#[test]
fn the_state_of_llama_2_7b_is_that_of_the_formula_on_one_rank_and_an_eighth_on_eight() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), CONFIG).unwrap();
    let model = dir.path().to_str().unwrap();
    let plan = |ranks: &str| json(None, &["plan", "--model", model, "--ranks", ranks]);
    let one = plan("1");
    let state = |v: &Value, side: &str, rank: usize| v[side]["per_rank"][rank]["state"].as_u64().unwrap();
    assert_eq!(one["plan"]["parameters"], 6_738_415_616_u64);
    assert_eq!(state(&one, "plan", 0), 4 * (6_738_415_616 + 1_163_841));
    assert_eq!(state(&one, "adamw", 0), 8 * 6_738_415_616);
    let eight = plan("8");
    let all: u64 = (0..8).map(|r| state(&eight, "adamw", r)).sum();
    assert_eq!(all, 8 * 6_738_415_616);
    // Rows of every matrix divide by eight; what is shared are the 65 norms.
    assert_eq!(eight["plan"]["wire"]["shared_blocks"], 65);
}

#[test]
fn a_kind_without_a_sharded_form_and_a_wrong_word_say_what_to_write() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), CONFIG).unwrap();
    let model = dir.path().to_str().unwrap();
    for (args, want) in [
        (["--optimizer", "muon"], "no sharded form of muon"),
        (["--optimizer", "adam"], "expected one of"),
        (["--state", "4bit"], "expected one of"),
        (["--shard", "rows"], "expected one of"),
    ] {
        let error = fails(None, 2, &[&["plan", "--model", model, "--ranks", "2"][..], &args[..]].concat());
        assert!(error.contains(want), "{error}");
    }
}

fn fit(more: &[&str]) -> Vec<Value> {
    json(None, &[&["plan", "--fit"][..], more].concat())["fit"].as_array().unwrap().clone()
}

#[test]
fn less_state_and_no_gradients_make_room_for_a_larger_decoder_at_every_limit() {
    let rows = fit(&["4GiB,24GiB"]);
    assert_eq!(rows.len(), 12);
    for (rows, limit) in rows.chunks(6).zip([4_u64 << 30, 24 << 30]) {
        let n: Vec<f64> = rows.iter().map(|r| r["parameters"].as_f64().unwrap()).collect();
        // AdamW, then Adam-mini: plain, in backward, with bf16 state too.
        assert!(n[..3].is_sorted() && n[3..].is_sorted() && (0..3).all(|i| n[i] < n[i + 3]), "{n:?}");
        for r in rows {
            let (peak, share) = (r["peak"].as_u64().unwrap(), (0.9 * limit as f64) as u64);
            // Close to what is allowed, and not above.
            assert!(peak <= share && peak > share / 100 * 96, "{r}");
            assert_eq!(r["limit"]["bytes"], limit);
            let (width, layers) = (r["width"].as_u64().unwrap(), r["layers"].as_u64().unwrap());
            assert!(width % 64 == 0 && (64..=128).contains(&(width / layers)), "{r}");
            let over = r["parameters"].as_f64().unwrap() / n[0];
            assert!((r["ratio"].as_f64().unwrap() - over).abs() < 1e-12, "{r}");
        }
    }
}

#[test]
fn a_model_gives_its_proportions_and_its_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), CONFIG).unwrap();
    let model = dir.path().to_str().unwrap();
    for r in fit(&["16GiB", "--model", model]) {
        let of = |key: &str| r[key].as_u64().unwrap();
        // 4096 wide, 32 heads, 11008 in the feed-forward layer: all of them over 32.
        let n = of("width") / 128;
        assert_eq!((of("width"), of("heads"), of("kv_heads"), of("ffn")), (128 * n, n, n, 344 * n), "{r}");
        let layer = of("width") * (4 * of("width") + 3 * of("ffn") + 2);
        assert_eq!(of("parameters"), of("layers") * layer + of("width") * (2 * 32000 + 1), "{r}");
    }
}

#[test]
fn a_limit_that_is_none_and_options_that_say_nothing_about_it_are_refused() {
    for (limit, want) in [
        ("0GiB", "above 0"),
        ("8 apples", "such as 8GiB"),
        ("8", "such as 8GiB"),
        ("4GiB,", "such as 8GiB"),
        ("-4GiB", "unexpected argument"),
        ("99TiB", "at most 4TiB"),
        ("100MiB", "not even 1 layer(s) of width 64"),
    ] {
        let error = fails(None, 2, &["plan", "--fit", limit]);
        assert!(error.contains(want), "{limit}: {error}");
    }
    for (more, want) in [
        (&["--ranks", "2"][..], "cannot be used with"),
        (&["--optimizer", "adamw"], "cannot be used with"),
        (&["--tokens", "1"], "2..=1048576"),
        (&["--memory-share", "1.1"], "at most 1"),
        (&["--vocab", "0"], "1..=16777216"),
    ] {
        let error = fails(None, 2, &[&["plan", "--fit", "8GiB"][..], more].concat());
        assert!(error.contains(want), "{more:?}: {error}");
    }
    let error = fails(None, 2, &["plan", "--tokens", "512"]);
    assert!(error.contains("--fit") || error.contains("--model"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), CONFIG).unwrap();
    let model = dir.path().to_str().unwrap();
    let error = fails(None, 2, &["plan", "--fit", "8GiB", "--model", model, "--tokens", "8192"]);
    assert!(error.contains("context of this model is 4096"), "{error}");
    let error = fails(None, 2, &["plan", "--fit", "100MiB", "--model", model]);
    assert!(error.contains("not even 1 layer(s) of width 128"), "{error}");
}
