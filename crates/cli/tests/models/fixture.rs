//! A small random model on disk, and calls of the program.

use std::path::Path;
use std::process::{Command, Output};

use rhumb_io::gguf::{Array, Metadata, Value};
use rhumb_io::model_dir::ModelFiles;
use rhumb_io::tokenizer::json_from_gguf;
use rhumb_io::{TensorData, TensorMap};
use rhumb_nn::model::{Decoder, DecoderConfig, init, store};
use serde_json::{Value as Json, json};

pub(crate) const VOCAB: usize = 259;
pub(crate) const CONTEXT: usize = 64;
const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// How the program ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// The JSON of a successful call.
    pub(crate) fn json(&self) -> Json {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap()
    }
}

pub(crate) fn rhumb(args: &[&str]) -> Ended {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_rhumb")).args(args).output().unwrap();
    Ended {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// Three special tokens, then the 256 bytes in the alphabet of byte-level vocabularies.
fn tokenizer() -> Json {
    let printable = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut shifted = 0;
    let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from).to_vec();
    for b in 0..256u32 {
        let c = if printable(b) { b } else { 256 + shifted };
        shifted += u32::from(!printable(b));
        tokens.push(char::from_u32(c).unwrap().to_string());
    }
    let mut types = vec![1i32; VOCAB];
    types[..3].fill(3);
    let mut meta = Metadata::new();
    meta.insert("tokenizer.ggml.model", "gpt2");
    meta.insert("tokenizer.ggml.pre", "smollm");
    meta.insert("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    meta.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    meta.insert("tokenizer.ggml.merges", Value::Array(Array::String(Vec::new())));
    json_from_gguf(&meta).unwrap()
}

/// A decoder of two layers with random weights.
pub(crate) fn model() -> ModelFiles {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 32, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0,
        "hidden_act": "silu", "tie_word_embeddings": true, "eos_token_id": 2,
    });
    let decoder = Decoder::new(DecoderConfig::from_json(&config).unwrap()).unwrap();
    let params: Vec<f32> = init(decoder.layout(), 2, 0.3, 7);
    let tensors: TensorMap = store(&decoder, &params)
        .into_iter()
        .map(|(name, shape, data)| (name, TensorData { shape, data }))
        .collect();
    ModelFiles {
        config,
        tensors,
        tokenizer: Some(tokenizer()),
        tokenizer_config: Some(json!({ "eos_token": "<|im_end|>", "chat_template": TEMPLATE })),
        generation_config: None,
    }
}

/// Writes it and returns its path as an argument.
pub(crate) fn save(files: &ModelFiles, dir: &Path) -> String {
    files.save(dir).unwrap();
    dir.to_str().unwrap().to_owned()
}
