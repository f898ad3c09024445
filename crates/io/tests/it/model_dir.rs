//! Models between folders and GGUF: bits, rows, settings, and what is refused.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use rhumb_io::gguf::{GgmlType, GgufFile, Metadata, TensorOut, Value, write};
use rhumb_io::model_dir::ModelFiles;
use rhumb_io::tokenizer::{Tokenizer, json_from_gguf};
use rhumb_io::{IoError, TensorData, TensorMap};
use rhumb_linalg::rng::Rng;
use rhumb_nn::model::{Decoder, DecoderConfig, load};
use serde_json::{Value as Json, json};

const VOCAB: usize = 262;
const WIDTH: usize = 64;
const FFN: usize = 96;
const LAYERS: usize = 2;
const HEADS: usize = 2;
const KV_HEADS: usize = 1;
const HEAD_DIM: usize = 32;

/// 256 bytes, three merges, three special tokens.
fn tokenizer() -> Json {
    let printable = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut shifted = 0;
    let mut tokens: Vec<String> = vec!["<end>".into(), "<start>".into(), "<turn>".into()];
    for b in 0..256u32 {
        let c = if printable(b) { b } else { 256 + shifted };
        shifted += u32::from(!printable(b));
        tokens.push(char::from_u32(c).unwrap().to_string());
    }
    tokens.extend(["th", "the", "Ġthe"].map(String::from));
    let mut types = vec![1i32; VOCAB];
    types[..3].fill(3);
    let mut meta = Metadata::new();
    meta.insert("tokenizer.ggml.model", "gpt2");
    meta.insert("tokenizer.ggml.pre", "smollm");
    meta.insert("tokenizer.ggml.tokens", Value::Array(rhumb_io::gguf::Array::String(tokens)));
    meta.insert("tokenizer.ggml.token_type", Value::Array(rhumb_io::gguf::Array::I32(types)));
    let merges = ["t h", "th e", "Ġ the"].map(String::from).to_vec();
    meta.insert("tokenizer.ggml.merges", Value::Array(rhumb_io::gguf::Array::String(merges)));
    json_from_gguf(&meta).unwrap()
}

fn random(name: &str, shape: &[usize]) -> (String, TensorData) {
    let mut rng = Rng::named(5, name);
    let data = (0..shape.iter().product()).map(|_| rng.normal() as f32 * 0.1).collect();
    (name.to_owned(), TensorData { shape: shape.to_vec(), data })
}

/// A random model of one of the Llama-like architectures.
pub(super) fn model(kind: &str) -> ModelFiles {
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let mut tensors = TensorMap::from([random("model.embed_tokens.weight", &[VOCAB, WIDTH])]);
    for l in 0..LAYERS {
        let mut add = |name: &str, shape: &[usize]| {
            tensors.extend([random(&format!("model.layers.{l}.{name}"), shape)]);
        };
        add("input_layernorm.weight", &[WIDTH]);
        for (name, rows) in [("q", q), ("k", kv), ("v", kv)] {
            add(&format!("self_attn.{name}_proj.weight"), &[rows, WIDTH]);
            if kind == "qwen2" {
                add(&format!("self_attn.{name}_proj.bias"), &[rows]);
            }
        }
        if kind == "qwen3" {
            add("self_attn.q_norm.weight", &[HEAD_DIM]);
            add("self_attn.k_norm.weight", &[HEAD_DIM]);
        }
        add("self_attn.o_proj.weight", &[WIDTH, q]);
        add("post_attention_layernorm.weight", &[WIDTH]);
        add("mlp.gate_proj.weight", &[FFN, WIDTH]);
        add("mlp.up_proj.weight", &[FFN, WIDTH]);
        add("mlp.down_proj.weight", &[WIDTH, FFN]);
    }
    tensors.extend([random("model.norm.weight", &[WIDTH])]);
    if kind == "qwen3" {
        tensors.extend([random("lm_head.weight", &[VOCAB, WIDTH])]);
    }
    ModelFiles {
        config: json!({
            "architectures": [], "model_type": kind, "vocab_size": VOCAB, "hidden_size": WIDTH,
            "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5, "rope_theta": 100_000.0, "hidden_act": "silu",
            "tie_word_embeddings": kind != "qwen3", "eos_token_id": 2, "torch_dtype": "bfloat16",
        }),
        tensors,
        tokenizer: Some(tokenizer()),
        tokenizer_config: Some(json!({
            "bos_token": "<start>", "eos_token": {"content": "<turn>"}, "chat_template": "{{ messages[0].content }}",
        })),
        generation_config: None,
    }
}

fn gpt2() -> ModelFiles {
    let mut tensors = TensorMap::from([
        random("transformer.wte.weight", &[VOCAB, WIDTH]),
        random("transformer.wpe.weight", &[16, WIDTH]),
    ]);
    for (name, shape) in [
        ("ln_1.weight", &[WIDTH][..]),
        ("ln_1.bias", &[WIDTH]),
        ("attn.c_attn.weight", &[WIDTH, 3 * WIDTH]),
        ("attn.c_attn.bias", &[3 * WIDTH]),
        ("attn.c_proj.weight", &[WIDTH, WIDTH]),
        ("attn.c_proj.bias", &[WIDTH]),
        ("ln_2.weight", &[WIDTH]),
        ("ln_2.bias", &[WIDTH]),
        ("mlp.c_fc.weight", &[WIDTH, 4 * WIDTH]),
        ("mlp.c_fc.bias", &[4 * WIDTH]),
        ("mlp.c_proj.weight", &[4 * WIDTH, WIDTH]),
        ("mlp.c_proj.bias", &[WIDTH]),
    ] {
        tensors.extend([random(&format!("transformer.h.0.{name}"), shape)]);
    }
    tensors.extend(["weight", "bias"].map(|k| random(&format!("transformer.ln_f.{k}"), &[WIDTH])));
    let mut files = model("llama");
    files.tensors = tensors;
    files.config = json!({"model_type": "gpt2", "vocab_size": VOCAB, "n_embd": WIDTH, "n_head": 2, "n_layer": 1,
        "n_positions": 16, "layer_norm_epsilon": 1e-5});
    files
}

fn assert_same_bits(a: &TensorMap, b: &TensorMap) {
    assert_eq!(a.len(), b.len());
    for (name, t) in a {
        let other = &b[name];
        assert_eq!(t.shape, other.shape, "{name}");
        assert!(t.data.iter().zip(&other.data).all(|(x, y)| x.to_bits() == y.to_bits()), "{name}");
    }
}

#[test]
fn a_saved_folder_loads_with_the_same_bits_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let files = model("llama");
    files.save(dir.path()).unwrap();
    let back = ModelFiles::load(dir.path()).unwrap();
    assert_same_bits(&files.tensors, &back.tensors);
    assert_eq!(back.config["torch_dtype"], "float32", "the type is what was written");
    assert_eq!((&back.tokenizer, &back.tokenizer_config), (&files.tokenizer, &files.tokenizer_config));
    assert_eq!(back.generation_config, None);
    assert_eq!(back, ModelFiles::open(dir.path()).unwrap());
}

#[test]
fn parameters_are_saved_as_the_tensors_that_they_are_made_of() {
    let dir = tempfile::tempdir().unwrap();
    for mut files in [model("llama"), gpt2()] {
        let decoder = Decoder::new(DecoderConfig::from_json(&files.config).unwrap()).unwrap();
        let mut params: Vec<f32> = load(&decoder, &files.tensors).unwrap();
        let tensors = std::mem::take(&mut files.tensors);
        files.save_params(dir.path(), &decoder, &params).unwrap();
        let back = ModelFiles::load(dir.path()).unwrap();
        let plain = |name: &String| name.trim_start_matches("transformer.").to_owned();
        assert_same_bits(&tensors.into_iter().map(|(n, t)| (plain(&n), t)).collect(), &back.tensors);
        params[decoder.layout().blocks()[1].range.start + 3] = f32::INFINITY;
        let message = files.save_params(dir.path(), &decoder, &params).unwrap_err().to_string();
        let name = &decoder.layout().blocks()[1].name;
        assert!(message.contains(name.as_str()) && message.contains("inf"), "{message}");
        // The old file is untouched, and nothing is left beside it.
        assert_eq!(ModelFiles::load(dir.path()).unwrap(), back);
        assert!(fs::read_dir(dir.path()).unwrap().all(|f| f.unwrap().path().extension().unwrap() != "tmp"));
    }
}

#[test]
fn a_shape_that_asks_for_other_values_is_refused_with_both_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let shapes = [("w".to_owned(), vec![2, 3])];
    let write = |shapes: &[_], n| {
        let values = |_| Ok(vec![0.0; n].into());
        rhumb_io::safetensors::write_each(&path, shapes, GgmlType::F32, values)
    };
    let message = write(&shapes, 5).unwrap_err().to_string();
    assert!(message.contains("5 values") && message.contains("[2, 3]"), "{message}");
    let endless = [("w".to_owned(), vec![usize::MAX, 2])];
    assert!(write(&endless, 1).unwrap_err().to_string().contains("larger than any file"));
    assert!(!path.exists());
    write(&shapes, 6).unwrap();
}

#[test]
fn every_architecture_survives_a_gguf_of_f32_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    for files in [model("llama"), model("qwen2"), model("qwen3"), gpt2()] {
        let kind = files.config["model_type"].as_str().unwrap().to_owned();
        let path = dir.path().join(format!("{kind}.gguf"));
        files.to_gguf(&path, GgmlType::F32).unwrap();
        let back = ModelFiles::open(&path).unwrap();
        assert_same_bits(&files.tensors, &back.tensors);
        let skipped = ["architectures", "torch_dtype", "eos_token_id"];
        for (key, want) in
            files.config.as_object().unwrap().iter().filter(|(k, _)| !skipped.contains(&k.as_str()))
        {
            assert_eq!(&back.config[key], want, "{kind}: {key}");
        }
        assert_eq!((&back.config["bos_token_id"], &back.config["eos_token_id"]), (&json!(1), &json!(2)));
        assert_eq!(back.tokenizer_config.unwrap()["chat_template"], "{{ messages[0].content }}");
        let (a, b) = (files.tokenizer.unwrap(), back.tokenizer.unwrap());
        let text = "<start>the other, 1234 thé\n";
        let ids = Tokenizer::from_json(&a).unwrap().encode(text).unwrap();
        assert_eq!(Tokenizer::from_json(&b).unwrap().encode(text).unwrap(), ids);
    }
}

#[test]
fn llama_files_hold_the_two_halves_of_a_head_interleaved_and_others_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let row = |t: &TensorData, r: usize| t.data[r * WIDTH..(r + 1) * WIDTH].to_vec();
    for kind in ["llama", "qwen3"] {
        let files = model(kind);
        let path = dir.path().join("m.gguf");
        files.to_gguf(&path, GgmlType::F32).unwrap();
        let mut gguf = GgufFile::open(&path).unwrap();
        let hf = &files.tensors["model.layers.1.self_attn.q_proj.weight"];
        let stored = gguf.tensor("blk.1.attn_q.weight").unwrap();
        let second = if kind == "llama" { HEAD_DIM / 2 } else { 1 };
        assert_eq!(row(&stored, HEAD_DIM + 1), row(hf, HEAD_DIM + second), "{kind}");
        let v = gguf.tensor("blk.1.attn_v.weight").unwrap();
        assert_eq!(v.data, files.tensors["model.layers.1.self_attn.v_proj.weight"].data);
    }
}

#[test]
fn smaller_types_keep_vectors_exact_and_matrices_close() {
    let dir = tempfile::tempdir().unwrap();
    let files = model("llama");
    for (dtype, relative) in [(GgmlType::F16, 1.0 / 2048.0), (GgmlType::Q8_0, 0.51 / 127.0)] {
        let path = dir.path().join("small.gguf");
        files.to_gguf(&path, dtype).unwrap();
        let stored = GgufFile::open(&path).unwrap();
        assert_eq!(stored.tensors()["blk.0.attn_q.weight"].dtype, dtype);
        assert_eq!(stored.tensors()["blk.0.attn_norm.weight"].dtype, GgmlType::F32);
        let back = ModelFiles::from_gguf(&path).unwrap();
        for (name, t) in &files.tensors {
            let largest = t.data.iter().fold(0f32, |m, v| m.max(v.abs()));
            let worst =
                t.data.iter().zip(&back.tensors[name].data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            if t.shape.len() == 1 {
                assert_eq!(worst, 0.0, "{name}");
            } else {
                assert!(worst > 0.0 && worst <= largest * relative, "{name}: {worst}");
            }
        }
    }
}

#[test]
fn a_weight_that_is_no_number_is_named_on_every_way() {
    let dir = tempfile::tempdir().unwrap();
    let good = model("llama");
    good.save(dir.path()).unwrap();
    let mut bad = good;
    bad.tensors["model.layers.1.mlp.up_proj.weight"].data[70] = f32::NAN;
    let named = |e: IoError| {
        let message = e.to_string();
        assert!(
            message.contains("model.layers.1.mlp.up_proj.weight") && message.contains("value 70"),
            "{message}"
        );
    };
    named(bad.save(dir.path()).unwrap_err());
    named(bad.to_gguf(&dir.path().join("m.gguf"), GgmlType::F32).unwrap_err());
    let weights = dir.path().join("model.safetensors");
    rhumb_io::safetensors::write(&weights, &bad.tensors, rhumb_io::gguf::GgmlType::F32).unwrap();
    named(ModelFiles::load(dir.path()).unwrap_err());
}

#[test]
fn folders_without_their_files_say_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &Path, part: &str| {
        let message = ModelFiles::load(path).unwrap_err().to_string();
        assert!(message.contains(part), "{part} in {message}");
    };
    refused(&dir.path().join("nowhere"), "nowhere");
    refused(dir.path(), "config.json");
    fs::write(dir.path().join("config.json"), "{\"model_type\":").unwrap();
    refused(dir.path(), "column");
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    refused(dir.path(), "model.safetensors");
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("taken");
    fs::write(&file, "").unwrap();
    let message = model("llama").save(&file.join("model")).unwrap_err().to_string();
    assert!(message.contains("taken"), "{message}");
}

#[test]
fn an_unknown_architecture_is_refused_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let mut files = model("llama");
    files.config["model_type"] = json!("mamba");
    let message = files.to_gguf(&path, GgmlType::F32).unwrap_err().to_string();
    assert!(message.contains("mamba") && message.contains("qwen3"), "{message}");
    let mut meta = Metadata::new();
    meta.insert("general.architecture", "mamba");
    write(&path, &meta, &[]).unwrap();
    let message = ModelFiles::from_gguf(&path).unwrap_err().to_string();
    assert!(message.contains("m.gguf") && message.contains("mamba") && message.contains("gpt2"), "{message}");
    write(&path, &Metadata::new(), &[]).unwrap();
    let message = ModelFiles::from_gguf(&path).unwrap_err().to_string();
    assert!(message.contains("general.architecture"), "{message}");
}

/// The tiny model as GGUF with one change to its metadata or tensors.
fn changed(change: impl FnOnce(&mut Metadata, &mut Vec<TensorOut<'static>>)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    model("llama").to_gguf(&path, GgmlType::F32).unwrap();
    let mut file = GgufFile::open(&path).unwrap();
    let mut meta = file.metadata().clone();
    let names: Vec<_> = file.tensors().keys().cloned().collect();
    let mut tensors: Vec<_> = names
        .into_iter()
        .map(|name| TensorOut { tensor: Cow::Owned(file.tensor(&name).unwrap()), name, dtype: GgmlType::F32 })
        .collect();
    change(&mut meta, &mut tensors);
    write(&path, &meta, &tensors).unwrap();
    match ModelFiles::from_gguf(&path) {
        Ok(_) => String::from("accepted"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn settings_that_would_change_the_model_in_silence_are_refused() {
    assert_eq!(changed(|_, _| ()), "accepted");
    for (key, value, part) in [
        ("llama.rope.scaling.type", Value::String("yarn".into()), "yarn"),
        ("llama.attention.head_count", Value::U32(0), "head_count"),
        ("llama.attention.head_count", Value::U32(7), "7 heads"),
        ("llama.attention.head_count", Value::String("9".into()), "whole number"),
        ("llama.rope.dimension_count", Value::U32(16), "dimension_count"),
        ("tokenizer.ggml.pre", Value::String("mystery".into()), "mystery"),
        ("tokenizer.ggml.model", Value::String("t5".into()), "t5"),
    ] {
        let message = changed(|meta, _| {
            meta.insert(key, value);
        });
        assert!(message.contains(part), "{key}: {message}");
    }
}

#[test]
fn tensors_without_a_place_are_refused_by_name() {
    for name in ["blk.9.attn_q.weight", "blk.0.ssm_in.weight"] {
        let message = changed(|_, tensors| {
            let mut extra = tensors[1].clone();
            extra.name = name.into();
            tensors.push(extra);
        });
        assert!(message.contains(name), "{message}");
    }
    let message = changed(|_, tensors| tensors.retain(|t| t.name != "token_embd.weight"));
    assert!(message.contains("token_embd.weight"), "{message}");
}
