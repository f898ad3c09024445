//! Adapters in the layout of PEFT.

use std::fs;
use std::path::Path;

use rhumb_io::adapter::AdapterFiles;
use rhumb_io::model_dir::ModelFiles;
use rhumb_nn::model::{Decoder, DecoderConfig, LoraConfig, Session, init, load};
use serde_json::{Value, json};

/// The scores after every prefix.
fn scores(d: &Decoder, params: &[f32], frozen: &[f32], ids: &[u32]) -> Vec<f32> {
    let mut session = Session::new(d, params, frozen, ids.len());
    ids.iter().flat_map(|id| session.push(&[*id]).unwrap()).collect()
}

fn worst(got: &[f32], want: &Value) -> f64 {
    let want: Vec<f64> = serde_json::from_value(want.clone()).unwrap();
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, f64::max)
}

#[test]
fn what_peft_wrote_gives_its_scores_beside_the_model_and_merged_into_it() {
    for family in ["llama", "gpt2"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/adapter").join(family);
        let expected: Value = serde_json::from_slice(&fs::read(dir.join("scores.json")).unwrap()).unwrap();
        let ids: Vec<u32> = serde_json::from_value(expected["ids"].clone()).unwrap();
        let files = ModelFiles::open(&dir.join("model")).unwrap();
        let plain = Decoder::new(DecoderConfig::from_json(&files.config).unwrap()).unwrap();
        let base: Vec<f32> = load(&plain, &files.tensors).unwrap();
        let alone = scores(&plain, &base, &[], &ids);
        assert!(worst(&alone, &expected["alone"]) < 1e-5, "{family}");

        let folder = dir.join("adapter");
        let read = AdapterFiles::load(&folder).unwrap();
        let adapted = Decoder::with_lora(plain.config().clone(), &read.lora).unwrap();
        let params = read.params(&folder, &adapted).unwrap();
        let beside = scores(&adapted, &params, &base, &ids);
        let merged = scores(&plain, &adapted.merge(&base, &params), &[], &ids);
        for got in [&beside, &merged] {
            let worst = worst(got, &expected["adapted"]);
            assert!(worst < 1e-5, "{family}: {worst}");
        }
        assert!(worst(&alone, &expected["adapted"]) > 0.1, "{family}: the adapter moves nothing");

        // Written again, the folder has the tensors and the settings of the package.
        let tmp = tempfile::tempdir().unwrap();
        AdapterFiles::of(&adapted, &read.lora, "base", &params)
            .save(tmp.path(), plain.config().family)
            .unwrap();
        let again = AdapterFiles::load(tmp.path()).unwrap();
        assert_eq!(again.tensors.len(), read.tensors.len());
        for (name, t) in &read.tensors {
            assert_eq!(
                (&again.tensors[name.as_str()].shape, &again.tensors[name.as_str()].data),
                (&t.shape, &t.data)
            );
        }
        let config = |dir: &Path| -> Value {
            serde_json::from_slice(&fs::read(dir.join("adapter_config.json")).unwrap()).unwrap()
        };
        let (ours, theirs) = (config(tmp.path()), config(&folder));
        let mut keys = 0;
        for (key, value) in ours.as_object().unwrap() {
            // Named by the user; a scale by the root of the rank is written as another alpha.
            if ["base_model_name_or_path", "lora_alpha", "use_rslora"].contains(&key.as_str()) {
                continue;
            }
            let sorted = |v: &Value| {
                let mut v = v.clone();
                if let Some(list) = v.as_array_mut() {
                    list.sort_by_key(Value::to_string);
                }
                v
            };
            assert_eq!(sorted(value), sorted(&theirs[key]), "{family}: {key}");
            keys += 1;
        }
        assert!(keys >= 10, "{keys}");
    }
}

fn config(family: &str) -> DecoderConfig {
    let llama = json!({
        "model_type": "llama", "vocab_size": 20, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": true,
    });
    let gpt2 = json!({
        "model_type": "gpt2", "vocab_size": 20, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16,
    });
    DecoderConfig::from_json(if family == "gpt2" { &gpt2 } else { &llama }).unwrap()
}

fn lora(targets: &[&str]) -> LoraConfig {
    LoraConfig { rank: 2, alpha: 6.0, targets: targets.iter().map(|t| (*t).to_owned()).collect() }
}

fn written(dir: &Path, family: &str, targets: &[&str]) -> (Decoder, Vec<f32>) {
    let lora = lora(targets);
    let d = Decoder::with_lora(config(family), &lora).unwrap();
    let params: Vec<f32> = init::<f32>(d.layout(), 2, 0.0, 1).iter().map(|v| v + 0.25).collect();
    AdapterFiles::of(&d, &lora, "org/base", &params).save(dir, d.config().family).unwrap();
    (d, params)
}

fn edit(dir: &Path, key: &str, value: Value) {
    let path = dir.join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(&path, config.to_string()).unwrap();
}

#[test]
fn what_is_written_is_read_and_has_the_names_of_peft() {
    for (family, targets, name) in [
        (
            "llama",
            &["q_proj", "down_proj"][..],
            "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight",
        ),
        ("gpt2", &["c_attn"], "base_model.model.transformer.h.1.attn.c_attn.lora_A.weight"),
    ] {
        let tmp = tempfile::tempdir().unwrap();
        let (d, params) = written(tmp.path(), family, targets);
        let read = AdapterFiles::load(tmp.path()).unwrap();
        assert_eq!((read.lora.clone(), read.base.as_str()), (lora(targets), "org/base"));
        assert_eq!(read.tensors[name].shape, [2, 8]);
        assert_eq!(read.params(tmp.path(), &d).unwrap(), params);
        let config: Value =
            serde_json::from_slice(&fs::read(tmp.path().join("adapter_config.json")).unwrap()).unwrap();
        assert_eq!(config["fan_in_fan_out"], json!(family == "gpt2"));
        assert_eq!(config["peft_type"], "LORA");
    }
}

#[test]
fn rank_stabilised_adapters_keep_their_scale() {
    let tmp = tempfile::tempdir().unwrap();
    written(tmp.path(), "llama", &["q_proj"]);
    edit(tmp.path(), "use_rslora", json!(true));
    let scale = AdapterFiles::load(tmp.path()).unwrap().lora.scale();
    assert!((scale - 6.0 / 2f64.sqrt()).abs() < 1e-12, "{scale}");
}

#[test]
fn kinds_that_are_not_read_and_damage_are_named() {
    for (key, value, want) in [
        ("peft_type", json!("IA3"), "the only kind of adapter"),
        ("use_dora", json!(true), "DoRA"),
        ("modules_to_save", json!(["lm_head"]), "whole modules"),
        ("rank_pattern", json!({"q_proj": 4}), "ranks of their own"),
        ("bias", json!("all"), "trained biases"),
        ("r", json!(0), "no rank above 0"),
        ("lora_alpha", json!("x"), "is no number"),
        ("target_modules", json!("all-linear"), "no list of projections"),
    ] {
        let tmp = tempfile::tempdir().unwrap();
        written(tmp.path(), "llama", &["q_proj"]);
        edit(tmp.path(), key, value);
        let e = AdapterFiles::load(tmp.path()).unwrap_err().to_string();
        assert!(e.contains(want) && e.contains(key) && e.contains("adapter_config.json"), "{e}");
    }
    let tmp = tempfile::tempdir().unwrap();
    let e = AdapterFiles::load(tmp.path()).unwrap_err().to_string();
    assert!(e.contains("no adapter_config.json"), "{e}");
}

#[test]
fn an_adapter_of_another_model_is_refused_by_the_name_of_a_factor() {
    let tmp = tempfile::tempdir().unwrap();
    written(tmp.path(), "llama", &["q_proj"]);
    let read = AdapterFiles::load(tmp.path()).unwrap();
    let other = |targets: &[&str]| Decoder::with_lora(config("llama"), &lora(targets)).unwrap();
    let e = read.params(tmp.path(), &other(&["q_proj", "v_proj"])).unwrap_err().to_string();
    assert!(e.contains("v_proj.lora_A.weight"), "{e}");
    let e = read.params(tmp.path(), &other(&["v_proj"])).unwrap_err().to_string();
    assert!(e.contains("v_proj"), "{e}");
    let wider = DecoderConfig { width: 16, head_dim: 8, ..config("llama") };
    let e = read.params(tmp.path(), &Decoder::with_lora(wider, &read.lora).unwrap()).unwrap_err().to_string();
    assert!(e.contains("has shape [2, 8]") && e.contains("[2, 16]"), "{e}");
    let mut more = read.clone();
    more.tensors.insert("base_model.model.x.lora_A.weight".into(), read.tensors[0].clone());
    let e = more.params(tmp.path(), &other(&["q_proj"])).unwrap_err().to_string();
    assert!(e.contains("no place in this model"), "{e}");
}
