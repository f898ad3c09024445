#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::*;
use crate::model::{Decoder, LoraConfig};

fn llama() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 80,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "attention_bias": false,
        "mlp_bias": false, "use_sliding_window": false, "tie_word_embeddings": true,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "partial_rotary_factor": 1.0}
    })
}

fn gpt2() -> Value {
    json!({
        "model_type": "gpt2", "vocab_size": 97, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_inner": 80,
        "n_positions": 32, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
        "tie_word_embeddings": true
    })
}

fn refused(v: &Value) -> String {
    DecoderConfig::from_json(v).unwrap_err().to_string()
}

#[test]
fn absurd_values_of_every_key_are_refused_or_make_a_model() {
    let absurd = [
        json!(null),
        json!(0),
        json!(1),
        json!(3),
        json!(-1),
        json!(1.5),
        json!("x"),
        json!(true),
        json!([1]),
        json!({"a": 1}),
        json!(1u64 << 16),
        json!(1u64 << 31),
        json!(1u64 << 40),
        json!(1u64 << 62),
        json!(u64::MAX),
        json!(1e300),
        json!(1e-300),
        json!(f64::MIN_POSITIVE / 4.0),
    ];
    for good in [llama(), gpt2()] {
        Decoder::new(DecoderConfig::from_json(&good).unwrap()).unwrap();
        for key in good.as_object().unwrap().keys() {
            for value in &absurd {
                let mut v = good.clone();
                v[key] = value.clone();
                if let Ok(c) = DecoderConfig::from_json(&v) {
                    let model = Decoder::new(c).unwrap();
                    assert!(model.base_layout().len() <= 2 * MAX_PARAMETERS, "{key} = {value}");
                }
            }
        }
        let inner = good.get("rope_parameters").and_then(Value::as_object);
        for (key, value) in inner.into_iter().flatten().flat_map(|(k, _)| absurd.iter().map(move |v| (k, v)))
        {
            let mut v = good.clone();
            v["rope_parameters"][key] = value.clone();
            let Ok(c) = DecoderConfig::from_json(&v) else { continue };
            assert!(c.inv_freq().unwrap().iter().all(|f| f.is_finite() && *f > 0.0), "{key} = {value}");
        }
    }
}

#[test]
fn numbers_beyond_all_bounds_are_named_with_their_key() {
    for good in [llama(), gpt2()] {
        for (key, old) in good.as_object().unwrap().iter().filter(|(_, v)| v.is_number()) {
            for value in [json!(1u64 << 40), json!(1u64 << 62), json!(u64::MAX)] {
                let mut v = good.clone();
                v[key] = value.clone();
                let e = refused(&v);
                assert!(e.contains(key) && (!old.is_u64() || e.contains(&value.to_string())), "{key}: {e}");
            }
        }
    }
}

#[test]
fn every_number_at_its_bound_is_refused_for_the_product() {
    let mut v = llama();
    for (key, value) in [
        ("vocab_size", MAX_VOCAB),
        ("hidden_size", MAX_WIDTH),
        ("num_hidden_layers", MAX_LAYERS),
        ("num_attention_heads", MAX_HEADS),
        ("num_key_value_heads", MAX_HEADS),
        ("head_dim", MAX_HEAD_DIM),
        ("intermediate_size", MAX_FFN),
        ("max_position_embeddings", MAX_POSITIONS),
    ] {
        v[key] = json!(value);
    }
    assert!(refused(&v).contains("parameters"), "{}", refused(&v));
}

#[test]
fn a_configuration_built_by_hand_is_checked_too() {
    let mut c = DecoderConfig::from_json(&llama()).unwrap();
    c.kv_heads = 0;
    assert!(Decoder::new(c.clone()).unwrap_err().to_string().contains("num_key_value_heads is 0"));
    c.kv_heads = 2;
    for (rank, alpha) in [(0, 1.0), (usize::MAX, 1.0), (4, f64::NAN)] {
        let lora = LoraConfig { rank, alpha, ..LoraConfig::default() };
        assert!(Decoder::with_lora(c.clone(), &lora).is_err(), "{rank} {alpha}");
    }
}

#[test]
fn settings_that_would_change_the_model_in_silence_are_refused() {
    for (key, value, part) in [
        ("tie_word_embeddings", json!("yes"), "tie_word_embeddings"),
        ("hidden_act", json!(["gelu"]), "hidden_act"),
        ("partial_rotary_factor", json!(0.5), "partial_rotary_factor is 0.5"),
        ("rope_parameters", json!("yarn"), "not an object"),
        ("rope_parameters", json!({"rope_type": "yarn", "factor": 4.0}), "yarn"),
        ("rope_parameters", json!({"factor": 4.0}), "no rope_type"),
        ("rope_parameters", json!({"rope_theta": "big"}), "rope_theta"),
        ("rope_theta", json!(10_000.0), "remove the wrong one"),
    ] {
        let mut v = llama();
        v[key] = value;
        assert!(refused(&v).contains(part), "{key}: {}", refused(&v));
    }
}

#[test]
fn base_and_stretching_are_found_in_both_places() {
    let new = DecoderConfig::from_json(&llama()).unwrap();
    assert_eq!(new.rope, Some(RopeConfig { theta: 5e5, llama3: Some([8.0, 1.0, 4.0, 8192.0]) }));
    let mut v = llama();
    v["rope_scaling"] = v["rope_parameters"].take();
    v["rope_scaling"]["rope_theta"].take();
    v["rope_theta"] = json!(5e5);
    assert_eq!(DecoderConfig::from_json(&v).unwrap(), new);
    // An empty old key does not hide the new one.
    let mut v = llama();
    v["rope_scaling"] = Value::Null;
    assert_eq!(DecoderConfig::from_json(&v).unwrap(), new);
}

#[test]
fn long_wavelengths_are_stretched_and_short_ones_kept() {
    let rope = RopeConfig { theta: 5e5, llama3: Some([32.0, 1.0, 4.0, 8192.0]) };
    let d = rope.divisors(64);
    assert_eq!((d.len(), d[0], d[31]), (32, 1.0, 32.0));
    // Wavelength 2 pi 5e5^(17/32) = 6695.1: s = (8192 / 6695.1 - 1) / 3 = 0.074527.
    assert!((d[17] - 1.0 / ((1.0 - 0.074_527) / 32.0 + 0.074_527)).abs() < 1e-4, "{}", d[17]);
    assert_eq!(RopeConfig { theta: 1e4, llama3: None }.divisors(4), [1.0, 1.0]);
}

#[test]
fn the_difference_of_two_configurations_names_the_setting() {
    let a = DecoderConfig::from_json(&llama()).unwrap();
    assert_eq!(a.difference(&a), None);
    let rounded = DecoderConfig { eps: f64::from(1e-5f32), ..a.clone() };
    assert_eq!(a.difference(&rounded), None);
    let plain = DecoderConfig { rope: Some(RopeConfig { theta: 5e5, llama3: None }), ..a.clone() };
    assert!(a.difference(&plain).unwrap().contains("rotary"));
    let base = DecoderConfig {
        rope: Some(RopeConfig { theta: 1e4, llama3: a.rope.as_ref().unwrap().llama3 }),
        ..a.clone()
    };
    assert!(a.difference(&base).unwrap().contains("10000"));
    assert!(a.difference(&DecoderConfig { tied: false, ..a.clone() }).unwrap().contains("tied"));
}
