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
    /// A layer of a net does not fit what it reads.
    #[error("{layer}: {what}")]
    Layer {
        /// Its name.
        layer: String,
        /// What is wrong and what to try.
        what: String,
    },
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

/// Largest values that make sense, well above every published model; their products fit 64 bits.
const MAX_VOCAB: usize = 1 << 24;
const MAX_WIDTH: usize = 1 << 20;
const MAX_LAYERS: usize = 1 << 12;
const MAX_HEADS: usize = 1 << 16;
const MAX_HEAD_DIM: usize = 1 << 16;
const MAX_FFN: usize = 1 << 24;
const MAX_POSITIONS: usize = 1 << 28;
const MAX_PARAMETERS: usize = 1 << 42;

pub(super) struct Keys<'a>(pub(super) &'a Value);

impl Keys<'_> {
    pub(super) fn find(&self, names: &[&str]) -> Option<&Value> {
        names.iter().find_map(|n| self.0.get(n).filter(|v| !v.is_null()))
    }
    pub(super) fn count(&self, names: &[&str]) -> Result<usize, ModelError> {
        self.count_or(names, None)
    }
    pub(super) fn count_or(&self, names: &[&str], default: Option<usize>) -> Result<usize, ModelError> {
        match (self.find(names), default) {
            (Some(v), _) => {
                v.as_u64().and_then(|v| usize::try_from(v).ok()).filter(|v| *v > 0).ok_or_else(|| {
                    ModelError::Config(format!("{} is {v}: not a positive whole number", names[0]))
                })
            }
            (None, Some(v)) => Ok(v),
            (None, None) => Err(ModelError::Config(format!("{} is missing", names[0]))),
        }
    }
    pub(super) fn real(&self, names: &[&str], default: f64) -> Result<f64, ModelError> {
        match self.find(names) {
            None => Ok(default),
            Some(v) => v
                .as_f64()
                .filter(|v| v.is_finite() && *v > 0.0)
                .ok_or_else(|| ModelError::Config(format!("{} is not a positive number: {v}", names[0]))),
        }
    }
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, ModelError> {
        match self.find(&[name]) {
            None => Ok(default),
            Some(v) => v
                .as_bool()
                .ok_or_else(|| ModelError::Config(format!("{name} is {v}: neither true nor false"))),
        }
    }
    pub(super) fn text(&self, names: &[&str]) -> Result<Option<&str>, ModelError> {
        match self.find(names) {
            None => Ok(None),
            Some(v) => match v.as_str() {
                Some(s) => Ok(Some(s)),
                None => Err(ModelError::Config(format!("{} is {v}: not a string", names[0]))),
            },
        }
    }
}

impl RopeConfig {
    /// What the rotary frequencies of a head are divided by.
    ///
    /// # Equation
    /// With wavelength `w = 2 pi theta^(2i / head_dim)` and `s = clamp((context / w - low) / (high - low), 0, 1)`,
    /// the divisor is `1 / ((1 - s) / factor + s)`; 1 without stretching.
    ///
    /// # Reference
    /// Llama 3's stretching as published with its weights: wavelengths above `context / low` are divided by
    /// `factor`, those below `context / high` are kept, between them the two are blended.
    pub fn divisors(&self, head_dim: usize) -> Vec<f64> {
        let Some([factor, low, high, context]) = self.llama3 else { return vec![1.0; head_dim / 2] };
        let divisor = |f: &f64| {
            let wave = 2.0 * std::f64::consts::PI / f;
            let s = ((context / wave - low) / (high - low)).clamp(0.0, 1.0);
            1.0 / ((1.0 - s) / factor + s)
        };
        RopeTable::<f64>::inv_freq(self.theta, head_dim).iter().map(divisor).collect()
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
        let act = k.text(&["hidden_act"])?.unwrap_or("silu");
        if act != "silu" {
            return Err(ModelError::Config(format!("hidden_act is {act:?}: only silu is known")));
        }
        if k.flag("mlp_bias", false)? {
            return Err(ModelError::Config("mlp_bias is true: such models are not known".into()));
        }
        if k.flag("use_sliding_window", kind == "mistral" && k.find(&["sliding_window"]).is_some())? {
            return Err(ModelError::Config("sliding-window attention is not known".into()));
        }
        let heads = k.count(&["num_attention_heads"])?;
        let width = k.count(&["hidden_size"])?;
        let attention_bias = k.flag("attention_bias", false)?;
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
            tied: k.flag("tie_word_embeddings", false)?,
        })
    }

    fn rope(k: &Keys<'_>) -> Result<RopeConfig, ModelError> {
        let bad = |s: String| Err(ModelError::Config(s));
        let scaling = k.find(&["rope_parameters", "rope_scaling"]);
        if let Some(v) = scaling.filter(|v| !v.is_object()) {
            return bad(format!("rope_scaling is {v}: not an object"));
        }
        let none = Value::Null;
        let inner = Keys(scaling.unwrap_or(&none));
        let outer = k.real(&["rope_theta"], 10_000.0)?;
        let theta = inner.real(&["rope_theta"], outer)?;
        if k.find(&["rope_theta"]).is_some() && theta.to_bits() != outer.to_bits() {
            return bad(format!(
                "rope_theta is {outer}, and {theta} in rope_parameters: remove the wrong one"
            ));
        }
        for part in [k, &inner] {
            let turned = part.real(&["partial_rotary_factor"], 1.0)?;
            if turned < 1.0 {
                return bad(format!("partial_rotary_factor is {turned}: only whole heads can be rotated"));
            }
        }
        let kind = inner.text(&["rope_type", "type"])?;
        if let (None, Some(factor)) = (kind, inner.find(&["factor"])) {
            return bad(format!("rope_scaling has the factor {factor} but no rope_type"));
        }
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
                return bad(format!("rope_scaling {other:?}: only llama3 is known"));
            }
        };
        Ok(RopeConfig { theta, llama3 })
    }

    fn gpt2(k: &Keys<'_>) -> Result<Self, ModelError> {
        let act = k.text(&["activation_function"])?.unwrap_or("gelu_new");
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
            ffn: k.count_or(&["n_inner"], Some(width.saturating_mul(4)))?,
            positions: k.count(&["n_positions", "n_ctx"])?,
            eps: k.real(&["layer_norm_epsilon"], 1e-5)?,
            rope: None,
            qkv_bias: true,
            qk_norm: false,
            tied: k.flag("tie_word_embeddings", true)?,
        })
    }

    /// Checks that every number lies within sane bounds and that they fit each other.
    ///
    /// # Errors
    /// The first that does not, with its key in `config.json` and its value.
    pub fn check(&self) -> Result<(), ModelError> {
        let bad = |s: String| Err(ModelError::Config(s));
        let gpt2 = self.family == Family::Gpt2;
        let key = |llama: &'static str, other: &'static str| if gpt2 { other } else { llama };
        for (key, value, max) in [
            ("vocab_size", self.vocab, MAX_VOCAB),
            (key("hidden_size", "n_embd"), self.width, MAX_WIDTH),
            (key("num_hidden_layers", "n_layer"), self.layers, MAX_LAYERS),
            (key("num_attention_heads", "n_head"), self.heads, MAX_HEADS),
            (key("num_key_value_heads", "n_head"), self.kv_heads, MAX_HEADS),
            ("head_dim", self.head_dim, MAX_HEAD_DIM),
            (key("intermediate_size", "n_inner"), self.ffn, MAX_FFN),
            (key("max_position_embeddings", "n_positions"), self.positions, MAX_POSITIONS),
        ] {
            if !(1..=max).contains(&value) {
                return bad(format!("{key} is {value}: it must lie between 1 and {max}"));
            }
        }
        let mut reals = vec![(key("rms_norm_eps", "layer_norm_epsilon"), self.eps, f64::MIN_POSITIVE, 1.0)];
        if let Some(rope) = &self.rope {
            reals.push(("rope_theta", rope.theta, 1.0, 1e18));
            if let Some([factor, low, high, context]) = rope.llama3 {
                reals.extend([
                    ("factor", factor, 1.0, 1e6),
                    ("low_freq_factor", low, 1e-6, 1e6),
                    ("high_freq_factor", high, low * (1.0 + 1e-9), 1e6),
                    ("original_max_position_embeddings", context, 1.0, MAX_POSITIONS as f64),
                ]);
            }
        }
        if let Some((key, value, min, max)) = reals.into_iter().find(|(_, v, a, z)| !(*a..=*z).contains(v)) {
            return bad(format!("{key} is {value}: it must lie between {min} and {max}"));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return bad(format!(
                "{} query heads are no multiple of {} key-value heads",
                self.heads, self.kv_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return bad(format!("head_dim is {}: it must be even", self.head_dim));
        }
        if gpt2 && self.head_dim * self.heads != self.width {
            return bad(format!("width {} is no multiple of {} heads", self.width, self.heads));
        }
        match self.parameters() {
            Some(n) if n <= MAX_PARAMETERS => Ok(()),
            _ => bad(format!(
                "{} layers of width {} with {} heads of {} and a feed-forward layer of {}, vocabulary {}: more than \
                 {MAX_PARAMETERS} parameters",
                self.layers, self.width, self.heads, self.head_dim, self.ffn, self.vocab
            )),
        }
    }

    /// Scalars in the matrices, which nearly are the model; `None` beyond 64 bits.
    fn parameters(&self) -> Option<usize> {
        let gate = if self.family == Family::Gpt2 { 2 } else { 3 };
        let rows = self.vocab.checked_mul(if self.tied { 1 } else { 2 })?;
        let rows = rows.checked_add(if self.rope.is_none() { self.positions } else { 0 })?;
        let attention = self.heads.checked_add(self.kv_heads)?.checked_mul(2)?.checked_mul(self.head_dim)?;
        let layer = self.ffn.checked_mul(gate)?.checked_add(attention)?;
        self.layers.checked_mul(layer)?.checked_add(rows)?.checked_mul(self.width)
    }

    /// The first setting in which another configuration differs, as a sentence. Reals may differ by the
    /// rounding to 32 bits.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let say = |key: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
            Some(format!("{key} is {b:?} instead of {a:?}"))
        };
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs();
        let (a, b) = (self, other);
        for (key, a, b) in [
            ("vocabulary", a.vocab, b.vocab),
            ("width", a.width, b.width),
            ("number of layers", a.layers, b.layers),
            ("number of query heads", a.heads, b.heads),
            ("number of key-value heads", a.kv_heads, b.kv_heads),
            ("head_dim", a.head_dim, b.head_dim),
            ("feed-forward width", a.ffn, b.ffn),
            ("context", a.positions, b.positions),
        ] {
            if a != b {
                return say(key, &a, &b);
            }
        }
        for (key, a, b) in [
            ("query, key and value bias", a.qkv_bias, b.qkv_bias),
            ("normalised heads", a.qk_norm, b.qk_norm),
            ("tied head", a.tied, b.tied),
        ] {
            if a != b {
                return say(key, &a, &b);
            }
        }
        let rope = |r: &RopeConfig| -> Vec<f64> {
            [r.theta].into_iter().chain(r.llama3.into_iter().flatten()).collect()
        };
        let (p, q) = (a.rope.as_ref().map(rope), b.rope.as_ref().map(rope));
        let (x, y) = (p.clone().unwrap_or_default(), q.clone().unwrap_or_default());
        if x.len() != y.len() || !x.iter().zip(&y).all(|(x, y)| near(*x, *y)) {
            return say("rotary base and stretching", &p, &q);
        }
        if a.family != b.family {
            return say("family", &a.family, &b.family);
        }
        if near(a.eps, b.eps) { None } else { say("epsilon of the norms", &a.eps, &b.eps) }
    }

    /// Angular frequencies of the rotary pairs, stretched as [`RopeConfig::divisors`] says.
    pub fn inv_freq(&self) -> Option<Vec<f64>> {
        let rope = self.rope.as_ref()?;
        let mut f = RopeTable::<f64>::inv_freq(rope.theta, self.head_dim);
        f.iter_mut().zip(rope.divisors(self.head_dim)).for_each(|(f, d)| *f /= d);
        Some(f)
    }

    /// Columns of the packed query, key and value rows.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

#[cfg(test)]
mod tests;
