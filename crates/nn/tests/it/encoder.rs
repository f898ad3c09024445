//! The sentence encoder against the BERT of transformers.

use std::path::PathBuf;

use rhumb_io::tokenizer::Tokenizer;
use rhumb_io::{TensorData, TensorMap, safetensors};
use rhumb_linalg::rng::Rng;
use rhumb_nn::model::{Encoder, EncoderConfig};
use serde_json::{Value, json};

fn fixture(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encoder").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers<T: serde::de::DeserializeOwned>(v: &Value) -> Vec<Vec<T>> {
    serde_json::from_value(v.clone()).unwrap()
}

fn worst(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The weights of the fixture, under the names of the package.
fn small(f: &Value) -> (Encoder, TensorMap) {
    let encoder = Encoder::new(EncoderConfig::from_json(&f["config"]).unwrap());
    let seed = f["seed"].as_u64().unwrap();
    let blocks = encoder.layout().blocks().iter().map(|b| (b.name.clone(), b.shape.clone()));
    let segments = ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, encoder.config().width]);
    let tensors = blocks
        .chain([segments])
        .map(|(name, shape)| {
            let base = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
            let mut rng = Rng::named(seed, &name);
            let n = shape.iter().product();
            let data = (0..n).map(|_| (base + (2.0 * rng.uniform() - 1.0) * 0.3) as f32).collect();
            (name, TensorData { shape, data })
        })
        .collect();
    (encoder, tensors)
}

#[test]
fn embeddings_of_a_small_encoder_are_those_of_the_package() {
    let f = fixture("small.json");
    let (encoder, tensors) = small(&f);
    let (texts, want) = (numbers::<u32>(&f["texts"]), numbers::<f64>(&f["embeddings"]));
    let params: Vec<f64> = encoder.load(&tensors).unwrap();
    let got = encoder.embed(&params, &texts).unwrap();
    // The weights were rounded to f32 on the way.
    assert!(worst(&got, &want) < 1e-6, "{}", worst(&got, &want));
    for v in &got {
        assert!((v.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-12);
    }
    // Alone or beside longer texts, in any order.
    for (i, text) in texts.iter().enumerate() {
        let alone = encoder.embed(&params, std::slice::from_ref(text)).unwrap();
        assert!(worst(&alone, &got[i..=i]) < 1e-13);
    }
    // The control: without the segment table they are others.
    let mut bare = tensors.clone();
    bare.shift_remove("embeddings.token_type_embeddings.weight");
    let params: Vec<f64> = encoder.load(&bare).unwrap();
    assert!(worst(&encoder.embed(&params, &texts).unwrap(), &want) > 1e-3);
}

#[test]
fn what_an_encoder_cannot_take_is_refused() {
    let f = fixture("small.json");
    let (encoder, tensors) = small(&f);
    let params: Vec<f32> = encoder.load(&tensors).unwrap();
    let error = |texts: &[Vec<u32>]| encoder.embed(&params, texts).unwrap_err().to_string();
    assert!(error(&[vec![1], vec![]]).contains("text 1 has 0 tokens"));
    assert!(error(&[vec![0; 17]]).contains("1 to 16"));
    assert!(error(&[vec![50]]).contains("outside the vocabulary of 50"));
    assert!(encoder.embed(&params, &[]).unwrap().is_empty());

    let mut broken = tensors.clone();
    broken.shift_remove("encoder.layer.1.output.dense.bias");
    assert!(encoder.load::<f32>(&broken).unwrap_err().to_string().contains("layer.1.output.dense.bias"));
    let mut shape = tensors.clone();
    shape["embeddings.LayerNorm.weight"].shape = vec![12, 2];
    assert!(encoder.load::<f32>(&shape).unwrap_err().to_string().contains("[12, 2]"));
    let mut nan = tensors;
    nan["embeddings.LayerNorm.bias"].data[0] = f32::NAN;
    assert!(encoder.load::<f32>(&nan).unwrap_err().to_string().contains("NaN"));

    for (key, value, want) in [
        ("model_type", json!("gpt2"), "model_type"),
        ("hidden_act", json!("relu"), "hidden_act"),
        ("position_embedding_type", json!("relative_key"), "position_embedding_type"),
        ("num_attention_heads", json!(5), "no multiple"),
        ("hidden_size", json!(0), "hidden_size"),
        ("vocab_size", json!(1_u64 << 40), "far too large"),
    ] {
        let mut config = f["config"].clone();
        config[key] = value;
        let e = EncoderConfig::from_json(&config).unwrap_err().to_string();
        assert!(e.contains(want), "{e}");
    }
}

/// `all-MiniLM-L6-v2`, where `RHUMB_MODELS` names a folder with `all-minilm-l6-v2`.
#[test]
fn embeddings_of_twenty_sentences_by_minilm_are_those_of_the_package() {
    let dir = std::env::var_os("RHUMB_MODELS").map(|d| PathBuf::from(d).join("all-minilm-l6-v2"));
    let Some(dir) = dir.filter(|d| d.join("model.safetensors").exists()) else {
        eprintln!("skipped: RHUMB_MODELS does not name a folder with all-minilm-l6-v2/model.safetensors");
        return;
    };
    let f = fixture("all-minilm-l6-v2.json");
    let config: Value = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    let encoder = Encoder::new(EncoderConfig::from_json(&config).unwrap());
    let params: Vec<f32> = encoder.load(&safetensors::read(&dir.join("model.safetensors")).unwrap()).unwrap();
    let tokenizer = Tokenizer::from_file(&dir.join("tokenizer.json")).unwrap();
    let sentences: Vec<String> = serde_json::from_value(f["sentences"].clone()).unwrap();
    let texts: Vec<Vec<u32>> = sentences.iter().map(|s| tokenizer.encode_with_special(s).unwrap()).collect();
    assert_eq!(texts, numbers::<u32>(&f["texts"]));
    let got: Vec<Vec<f64>> = encoder
        .embed(&params, &texts)
        .unwrap()
        .iter()
        .map(|v| v.iter().map(|x| f64::from(*x)).collect())
        .collect();
    let difference = worst(&got, &numbers::<f64>(&f["embeddings"]));
    eprintln!("largest difference of twenty embeddings: {difference:.1e}");
    assert!(difference < 1e-5, "{difference}");
}
