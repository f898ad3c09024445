//! `rhumb model new`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rhumb_io::TensorMap;
use rhumb_io::model_dir::ModelFiles;
use rhumb_io::tokenizer::{config_of_bytes, json_of_bytes};
use rhumb_nn::model::{Decoder, DecoderConfig, init};
use serde::Serialize;
use serde_json::{Value, json};

use crate::exit::{Code, Failure};
use crate::lm::{eos, from_io, open_files, text_side};
use crate::output::Output;
use crate::table::bytes;

/// Arguments of `model new`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct New {
    /// The folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Model whose tokenizer and chat template to take; one token per byte without it.
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// The family.
    #[arg(long, value_enum, default_value = "llama")]
    family: Family,
    /// Layers.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024), allow_negative_numbers = true)]
    layers: u32,
    /// Width of the residual stream.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=65536), allow_negative_numbers = true)]
    width: u32,
    /// Query heads.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024), allow_negative_numbers = true)]
    heads: u32,
    /// Key-value heads; as many as query heads without it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024), allow_negative_numbers = true)]
    kv_heads: Option<u32>,
    /// Width of the feed-forward layer; 8/3 of the width rounded up to a multiple of 32 (llama), or 4 times the width.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_048_576), allow_negative_numbers = true)]
    ffn: Option<u32>,
    /// Longest context.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..=1_048_576), allow_negative_numbers = true)]
    positions: u32,
    /// Give the output head weights of its own.
    #[arg(long)]
    untied: bool,
    /// Standard deviation of the fresh weights.
    #[arg(long, default_value_t = 0.02, value_parser = crate::cmd::generate::positive, allow_negative_numbers = true)]
    std: f64,
    /// The seed of the weights.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
}

/// Families of decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Family {
    /// RMSNorm, rotary positions, SwiGLU.
    Llama,
    /// LayerNorm, learned positions, GELU.
    #[value(name = "gpt2")]
    Gpt2,
}

impl New {
    fn config(&self, vocab: usize, eos: Option<u32>) -> Value {
        let (width, tied) = (self.width, !self.untied);
        match self.family {
            Family::Llama => json!({
                "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocab,
                "hidden_size": width, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
                "num_key_value_heads": self.kv_heads.unwrap_or(self.heads),
                "intermediate_size": self.ffn.map_or_else(|| ffn(width as usize), |n| n as usize),
                "max_position_embeddings": self.positions, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                "hidden_act": "silu", "tie_word_embeddings": tied, "torch_dtype": "float32", "eos_token_id": eos,
            }),
            Family::Gpt2 => json!({
                "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": vocab,
                "n_embd": width, "n_layer": self.layers, "n_head": self.heads,
                "n_inner": self.ffn.unwrap_or(4 * width), "n_positions": self.positions,
                "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "tie_word_embeddings": tied,
                "torch_dtype": "float32", "eos_token_id": eos,
            }),
        }
    }
}

/// The width of Llama's feed-forward layer where none is given.
pub(crate) fn ffn(width: usize) -> usize {
    (8 * width).div_ceil(3).next_multiple_of(32)
}

/// Writes a folder with fresh weights.
pub(super) fn run(args: &New) -> Result<Output, Failure> {
    if args.out.join("config.json").exists() {
        return Err(Failure::usage(format!(
            "{} holds a model already: choose another folder",
            args.out.display()
        )));
    }
    if args.family == Family::Gpt2 && args.kv_heads.is_some_and(|k| k != args.heads) {
        return Err(Failure::usage(
            "gpt2 has no key-value heads of its own: leave out --kv-heads, or use llama",
        ));
    }
    if args.kv_heads.is_none() && !args.width.is_multiple_of(args.heads) {
        return Err(Failure::usage(format!(
            "--width {} is no multiple of --heads {}: try --width {}",
            args.width,
            args.heads,
            args.width.next_multiple_of(2 * args.heads)
        )));
    }
    let mut files = text_files(args.tokenizer.as_deref())?;
    let origin = args.tokenizer.as_deref().unwrap_or(Path::new("the byte tokenizer"));
    let (tokenizer, _) = text_side(origin, &files)?;
    let end = eos(&tokenizer, &files).first().copied();
    files.config = args.config(tokenizer.vocab_size(), end);
    let decoder = DecoderConfig::from_json(&files.config)
        .and_then(Decoder::new)
        .map_err(|e| Failure::new(Code::Usage, e).context("the shape of the model"))?;
    let weights: Vec<f32> = init(decoder.layout(), args.layers as usize, args.std, args.seed);
    files.save_params(&args.out, &decoder, &weights).map_err(from_io)?;
    let n = weights.len();
    let text = format!(
        "{}: {n} parameters ({}), vocabulary {}; train it with rhumb train pretrain --model {}\n",
        args.out.display(),
        bytes(4 * n as u64),
        tokenizer.vocab_size(),
        args.out.display()
    );
    Ok(Output::new(text, json!({ "out": args.out, "parameters": n, "config": files.config })))
}

/// The files of a tokenizer, without a model.
fn text_files(from: Option<&Path>) -> Result<ModelFiles, Failure> {
    let Some(dir) = from else {
        return Ok(ModelFiles {
            config: json!({}),
            tensors: TensorMap::new(),
            tokenizer: Some(json_of_bytes()),
            tokenizer_config: Some(config_of_bytes()),
            generation_config: None,
        });
    };
    let mut files = open_files(dir)?;
    files.tensors = TensorMap::new();
    Ok(files)
}
