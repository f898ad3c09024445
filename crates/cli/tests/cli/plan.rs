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
