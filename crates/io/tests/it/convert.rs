//! Corners of the conversion between folders and GGUF.

use std::borrow::Cow;
use std::fs;

use rhumb_io::gguf::{self, Array, GgmlType, GgufFile, Metadata, TensorOut};
use rhumb_io::model_dir::ModelFiles;
use rhumb_io::{IoError, TensorData};
use rhumb_nn::model::DecoderConfig;
use serde_json::json;

use super::model_dir::model;

fn matrix(rows: usize, cols: usize) -> TensorData {
    TensorData { shape: vec![rows, cols], data: (0..rows * cols).map(|i| (i as f32).sin()).collect() }
}

fn refused<T>(r: Result<T, IoError>, parts: &[&str]) {
    let message = r.err().unwrap().to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} in {message}");
    }
}

#[test]
fn a_second_export_is_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("1.gguf"), dir.path().join("2.gguf"));
    for kind in ["llama", "qwen2", "qwen3"] {
        model(kind).to_gguf(&first, GgmlType::F32).unwrap();
        ModelFiles::from_gguf(&first).unwrap().to_gguf(&second, GgmlType::F32).unwrap();
        assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "{kind}");
    }
}

#[test]
fn the_tokenizer_of_an_export_is_the_one_that_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let files = model("llama");
    files.to_gguf(&path, GgmlType::F32).unwrap();
    assert_eq!(ModelFiles::from_gguf(&path).unwrap().tokenizer, files.tokenizer);
    let file = GgufFile::open(&path).unwrap();
    let m = file.metadata();
    assert_eq!(m.get_str("tokenizer.ggml.model"), Some("gpt2"));
    assert_eq!(m.get_str("tokenizer.ggml.pre"), Some("smollm"));
    assert_eq!(m.get_bool("tokenizer.ggml.add_bos_token"), Some(false));
    assert_eq!(m.str_array("tokenizer.ggml.merges").unwrap()[2], "Ġ the");
    assert_eq!(m.i32_array("tokenizer.ggml.token_type").unwrap()[..4], [3, 3, 3, 1]);
    assert_eq!(
        (m.get_u32("tokenizer.ggml.bos_token_id"), m.get_u32("tokenizer.ggml.eos_token_id")),
        (Some(1), Some(2))
    );
}

#[test]
fn rows_that_fill_no_block_stay_in_half_precision() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.gguf");
    let mut files = model("llama");
    files.tensors["model.layers.0.mlp.down_proj.weight"] = matrix(64, 40);
    files.to_gguf(&path, GgmlType::Q8_0).unwrap();
    let file = GgufFile::open(&path).unwrap();
    assert_eq!(file.tensors()["blk.0.ffn_down.weight"].dtype, GgmlType::F16);
    assert_eq!(file.tensors()["blk.1.ffn_down.weight"].dtype, GgmlType::Q8_0);
}

#[test]
fn llama_3_frequencies_survive_gguf() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let mut files = model("llama");
    files.config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    files.to_gguf(&path, GgmlType::F32).unwrap();
    assert_eq!(GgufFile::open(&path).unwrap().tensors()["rope_freqs.weight"].shape, [16]);
    let back = ModelFiles::from_gguf(&path).unwrap();
    assert_eq!(back.config["rope_scaling"], files.config["rope_scaling"]);
    assert_eq!(back.tensors, files.tensors);
    files.config["rope_scaling"]["rope_type"] = json!("yarn");
    refused(files.to_gguf(&path, GgmlType::F32), &["rope_scaling", "yarn"]);
}

#[test]
fn base_and_stretching_of_the_newer_key_survive_gguf() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    for context in [8192, 4096] {
        let mut files = model("llama");
        files.config.as_object_mut().unwrap().remove("rope_theta");
        files.config["rope_parameters"] = json!({"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": context});
        files.to_gguf(&path, GgmlType::F32).unwrap();
        let back = files.read_again(&path).unwrap();
        let config = |m: &ModelFiles| DecoderConfig::from_json(&m.config).unwrap();
        assert_eq!(config(&back), config(&files));
        assert_eq!(config(&back).rope.unwrap().theta, 500_000.0);
        assert_eq!(back.tensors, files.tensors);
    }
}

#[test]
fn a_file_of_another_model_is_not_taken_for_the_export() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let mut files = model("llama");
    files.to_gguf(&path, GgmlType::F32).unwrap();
    assert_eq!(files.read_again(&path).unwrap().tensors, files.tensors);
    files.config["rope_theta"] = json!(500_000.0);
    refused(files.read_again(&path), &["m.gguf", "rotary base", "100000", "500000", "another model"]);
}

#[test]
fn a_template_in_its_own_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = model("llama");
    files.tokenizer_config = None;
    files.save(dir.path()).unwrap();
    fs::write(dir.path().join("chat_template.jinja"), "{{ 1 }}").unwrap();
    let config = ModelFiles::load(dir.path()).unwrap().tokenizer_config.unwrap();
    assert_eq!(config["chat_template"], "{{ 1 }}");
}

#[test]
fn what_gguf_cannot_hold_is_refused_before_a_file_stands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let refuse = |change: &dyn Fn(&mut ModelFiles), dtype: GgmlType, parts: &[&str]| {
        let mut files = model("llama");
        change(&mut files);
        refused(files.to_gguf(&path, dtype), parts);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    };
    let f32 = GgmlType::F32;
    refuse(&|_| (), GgmlType::Q4_K, &["Q4_K", "Q8_0"]);
    refuse(&|m| m.config["hidden_size"] = json!(-3), f32, &["hidden_size"]);
    refuse(&|m| m.config["num_attention_heads"] = json!(0), f32, &["num_attention_heads"]);
    refuse(&|m| m.config["num_attention_heads"] = json!(5), f32, &["q_proj", "5 heads"]);
    let adapter = |m: &mut ModelFiles| {
        m.tensors.insert("model.layers.0.lora_a".into(), matrix(2, 2));
    };
    refuse(&adapter, f32, &["lora_a", "merge adapters"]);
    refuse(&|m| m.config["vocab_size"] = json!(3), f32, &["tokenizer.json", "3 rows"]);
    refuse(
        &|m| m.tokenizer = Some(json!({"model": {"type": "Unigram"}})),
        f32,
        &["Unigram", "byte-level BPE"],
    );
    refuse(&|m| m.tensors[0].data[3] = 1e6, GgmlType::F16, &["token_embd.weight", "value 3"]);
}

#[test]
fn a_folder_that_is_missing_is_named_on_export() {
    let dir = tempfile::tempdir().unwrap();
    refused(
        model("llama").to_gguf(&dir.path().join("no/m.gguf"), GgmlType::F32),
        &["no/m.gguf", "check the path"],
    );
}

#[test]
fn a_truncated_file_is_refused_on_import_with_the_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.gguf");
    model("llama").to_gguf(&path, GgmlType::Q8_0).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    refused(ModelFiles::open(&path), &["cut.gguf", "ends too early", "output_norm.weight"]);
}

fn least(arch: &str) -> Metadata {
    let mut m = Metadata::new();
    m.insert("general.architecture", arch);
    for key in ["block_count", "context_length", "feed_forward_length", "attention.head_count"] {
        m.insert(format!("{arch}.{key}"), 1u32);
    }
    m.insert(format!("{arch}.embedding_length"), 32u32);
    m.insert(format!("{arch}.attention.layer_norm_rms_epsilon"), 1e-5f32);
    m
}

#[test]
fn infinite_weights_and_foreign_frequencies_are_refused_on_import() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let out = |name: &str, t: TensorData| TensorOut {
        name: name.into(),
        tensor: Cow::Owned(t),
        dtype: GgmlType::F32,
    };
    let mut wrong = matrix(2, 32);
    wrong.data[5] = f32::INFINITY;
    gguf::write(&path, &least("llama"), &[out("token_embd.weight", wrong)]).unwrap();
    refused(ModelFiles::from_gguf(&path), &["m.gguf", "embed_tokens", "value 5", "inf"]);
    let freqs = TensorData { shape: vec![16], data: vec![3.0; 16] };
    gguf::write(
        &path,
        &least("llama"),
        &[out("token_embd.weight", matrix(2, 32)), out("rope_freqs.weight", freqs)],
    )
    .unwrap();
    refused(ModelFiles::from_gguf(&path), &["rope_freqs.weight", "rope_scaling"]);
}

#[test]
fn a_model_without_a_vocabulary_has_no_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let mut files = model("llama");
    files.tokenizer = None;
    files.to_gguf(&path, GgmlType::F32).unwrap();
    let back = ModelFiles::from_gguf(&path).unwrap();
    assert_eq!((back.tokenizer, back.tokenizer_config), (None, None));
    assert_eq!(back.tensors, files.tensors);
}

#[test]
fn per_layer_head_counts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let mut m = least("llama");
    m.insert("llama.attention.head_count_kv", Array::I32(vec![1, 2]));
    gguf::write(&path, &m, &[]).unwrap();
    refused(ModelFiles::from_gguf(&path), &["llama.attention.head_count_kv", "whole number"]);
}

#[test]
fn tensors_that_share_bytes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let out =
        |name: &str| TensorOut { name: name.into(), tensor: Cow::Owned(matrix(1, 16)), dtype: GgmlType::F32 };
    gguf::write(&path, &Metadata::new(), &[out("first"), out("second")]).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|w| w == b"second").unwrap() + 6 + 4 + 16 + 4;
    assert_eq!(bytes[at..at + 8], 64u64.to_le_bytes());
    bytes[at] = 32;
    fs::write(&path, bytes).unwrap();
    refused(GgufFile::open(&path), &["m.gguf", "first and second overlap"]);
}
