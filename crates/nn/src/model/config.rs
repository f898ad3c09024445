use serde_json::Value;

use crate::ops::RopeTable;

/// Why a model cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The configuration lacks a key or has a value that makes no sense.
    #[error("config.json: {0}")]
    Config(String),
    /// The checkpoint and the configuration do not fit.
    #[error("tensor {name}: {what}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The batch does not fit the model.
    #[error("{0}")]
    Batch(String),
    /// The widths of a perceptron make no sense.
    #[error("layer sizes {sizes:?}: {what}")]
    Sizes {
        /// The widths.
        sizes: Vec<usize>,
        /// What is wrong.
        what: String,
    },
}

/// The family of a decoder, which decides names and normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// RMSNorm, rotary positions, SwiGLU: Llama 2 and 3, SmolLM2, Qwen2, Qwen3.
    Llama,
    /// LayerNorm, learned positions, GELU: GPT-2.
    Gpt2,
}

/// Rotary positions.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Llama 3's stretching of long wavelengths: factor, low and high frequency factors, old context.
    pub llama3: Option<[f64; 4]>,
}

/// The shape of a decoder, read from a Hugging Face `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Names and normalisation.
    pub family: Family,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Longest context.
    pub positions: usize,
    /// Epsilon of the norms.
    pub eps: f64,
    /// Rotary positions; `None` for learned ones.
    pub rope: Option<RopeConfig>,
    /// Query, key and value have biases.
    pub qkv_bias: bool,
    /// Query and key heads are normalised.
    pub qk_norm: bool,
    /// The output head is the embedding.
    pub tied: bool,
}

struct Keys<'a>(&'a Value);

impl Keys<'_> {
    fn find(&self, names: &[&str]) -> Option<&Value> {
        names.iter().find_map(|n| self.0.get(n)).filter(|v| !v.is_null())
    }
    fn count(&self, names: &[&str]) -> Result<usize, ModelError> {
        self.count_or(names, None)
    }
    fn count_or(&self, names: &[&str], default: Option<usize>) -> Result<usize, ModelError> {
        let v = match (self.find(names), default) {
            (Some(v), _) => v.as_u64().map(|v| v as usize),
            (None, d) => d,
        };
        match v {
            Some(v) if v > 0 => Ok(v),
            _ => Err(ModelError::Config(format!("{} is missing or not a positive whole number", names[0]))),
        }
    }
    fn real(&self, names: &[&str], default: f64) -> Result<f64, ModelError> {
        match self.find(names) {
            None => Ok(default),
            Some(v) => v
                .as_f64()
                .filter(|v| v.is_finite() && *v > 0.0)
                .ok_or_else(|| ModelError::Config(format!("{} is not a positive number: {v}", names[0]))),
        }
    }
    fn flag(&self, name: &str, default: bool) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(default)
    }
}

impl DecoderConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// An unknown `model_type`, a missing or absurd value, a feature that would change results silently.
    pub fn from_json(v: &Value) -> Result<Self, ModelError> {
        let k = Keys(v);
        let kind = v.get("model_type").and_then(Value::as_str).unwrap_or("");
        let config = match kind {
            "llama" | "mistral" | "qwen2" | "qwen3" => Self::llama(&k, kind)?,
            "gpt2" => Self::gpt2(&k)?,
            other => {
                return Err(ModelError::Config(format!(
                    "model_type is {other:?}: llama, mistral, qwen2, qwen3 and gpt2 are known"
                )));
            }
        };
        config.check()?;
        Ok(config)
    }

    fn llama(k: &Keys<'_>, kind: &str) -> Result<Self, ModelError> {
        let act = k.find(&["hidden_act"]).and_then(Value::as_str).unwrap_or("silu");
        if act != "silu" {
            return Err(ModelError::Config(format!("hidden_act is {act:?}: only silu is known")));
        }
        if k.flag("mlp_bias", false) {
            return Err(ModelError::Config("mlp_bias is true: such models are not known".into()));
        }
        if k.flag("use_sliding_window", kind == "mistral" && k.find(&["sliding_window"]).is_some()) {
            return Err(ModelError::Config("sliding-window attention is not known".into()));
        }
        let heads = k.count(&["num_attention_heads"])?;
        let width = k.count(&["hidden_size"])?;
        let attention_bias = k.flag("attention_bias", false);
        if attention_bias && kind != "qwen2" {
            return Err(ModelError::Config("attention_bias is true: only qwen2 has known biases".into()));
        }
        Ok(DecoderConfig {
            family: Family::Llama,
            vocab: k.count(&["vocab_size"])?,
            width,
            layers: k.count(&["num_hidden_layers"])?,
            heads,
            kv_heads: k.count_or(&["num_key_value_heads"], Some(heads))?,
            head_dim: k.count_or(&["head_dim"], Some(width / heads))?,
            ffn: k.count(&["intermediate_size"])?,
            positions: k.count_or(&["max_position_embeddings"], Some(2048))?,
            eps: k.real(&["rms_norm_eps"], 1e-6)?,
            rope: Some(Self::rope(k)?),
            qkv_bias: kind == "qwen2",
            qk_norm: kind == "qwen3",
            tied: k.flag("tie_word_embeddings", false),
        })
    }

    fn rope(k: &Keys<'_>) -> Result<RopeConfig, ModelError> {
        let scaling = k.find(&["rope_scaling", "rope_parameters"]);
        let nested = scaling.and_then(|s| s.get("rope_theta")).and_then(Value::as_f64);
        let theta = k.real(&["rope_theta"], nested.unwrap_or(10_000.0))?;
        let kind = scaling.and_then(|s| s.get("rope_type").or_else(|| s.get("type"))).and_then(Value::as_str);
        let llama3 = match (scaling, kind) {
            (None, _) | (_, None | Some("default")) => None,
            (Some(s), Some("llama3")) => {
                let s = Keys(s);
                Some([
                    s.real(&["factor"], 8.0)?,
                    s.real(&["low_freq_factor"], 1.0)?,
                    s.real(&["high_freq_factor"], 4.0)?,
                    s.real(&["original_max_position_embeddings"], 8192.0)?,
                ])
            }
            (_, Some(other)) => {
                return Err(ModelError::Config(format!("rope_scaling {other:?}: only llama3 is known")));
            }
        };
        Ok(RopeConfig { theta, llama3 })
    }

    fn gpt2(k: &Keys<'_>) -> Result<Self, ModelError> {
        let act = k.find(&["activation_function"]).and_then(Value::as_str).unwrap_or("gelu_new");
        if act != "gelu_new" && act != "gelu_pytorch_tanh" {
            return Err(ModelError::Config(format!(
                "activation_function is {act:?}: only gelu_new is known"
            )));
        }
        let (width, heads) =
            (k.count(&["n_embd", "hidden_size"])?, k.count(&["n_head", "num_attention_heads"])?);
        Ok(DecoderConfig {
            family: Family::Gpt2,
            vocab: k.count(&["vocab_size"])?,
            width,
            layers: k.count(&["n_layer", "num_hidden_layers"])?,
            heads,
            kv_heads: heads,
            head_dim: width / heads,
            ffn: k.count_or(&["n_inner"], Some(4 * width))?,
            positions: k.count(&["n_positions", "n_ctx"])?,
            eps: k.real(&["layer_norm_epsilon"], 1e-5)?,
            rope: None,
            qkv_bias: true,
            qk_norm: false,
            tied: k.flag("tie_word_embeddings", true),
        })
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), ModelError> {
        let bad = |s: String| Err(ModelError::Config(s));
        if !self.heads.is_multiple_of(self.kv_heads) {
            return bad(format!(
                "{} query heads are no multiple of {} key-value heads",
                self.heads, self.kv_heads
            ));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return bad(format!("head_dim is {}: it must be even", self.head_dim));
        }
        if self.family == Family::Gpt2 && self.head_dim * self.heads != self.width {
            return bad(format!("width {} is no multiple of {} heads", self.width, self.heads));
        }
        if self.vocab > u32::MAX as usize - 1 {
            return bad(format!("vocab_size {} is too large", self.vocab));
        }
        Ok(())
    }

    /// Angular frequencies of the rotary pairs.
    ///
    /// # Reference
    /// Llama 3's stretching as published with its weights: wavelengths above `context / low` are divided by
    /// `factor`, those below `context / high` are kept, between them the two are blended.
    pub fn inv_freq(&self) -> Option<Vec<f64>> {
        let rope = self.rope.as_ref()?;
        let mut f = RopeTable::<f64>::inv_freq(rope.theta, self.head_dim);
        if let Some([factor, low, high, context]) = rope.llama3 {
            for f in &mut f {
                let wave = 2.0 * std::f64::consts::PI / *f;
                let smooth = ((context / wave - low) / (high - low)).clamp(0.0, 1.0);
                *f = (1.0 - smooth) * *f / factor + smooth * *f;
            }
        }
        Some(f)
    }

    /// Columns of the packed query, key and value rows.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}
