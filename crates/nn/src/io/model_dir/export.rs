use std::borrow::Cow;
use std::path::Path;

use serde_json::Value as Json;

use super::names::{Arch, reorder_heads};
use super::{CONFIG, ModelFiles, check_finite, rope, vocab};
use crate::io::IoError;
use crate::io::gguf::{self, GgmlType, Metadata, TensorOut, Value};
use crate::io::tensor::TensorData;

/// Keys of `config.json`, with the other name that some models use, and whether GGUF wants them.
struct Config<'a> {
    json: &'a Json,
    path: &'a Path,
}

impl Config<'_> {
    fn find(&self, names: &[&str]) -> Option<&Json> {
        names.iter().find_map(|n| self.json.get(n)).filter(|v| !v.is_null())
    }

    fn count(&self, names: &[&str], default: Option<u32>) -> Result<u32, IoError> {
        let found = match self.find(names) {
            None => default,
            Some(v) => v.as_u64().and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0),
        };
        found.ok_or_else(|| {
            let what = "of config.json is missing or no positive whole number";
            IoError::key(self.path, names[0], what)
        })
    }

    fn real(&self, names: &[&str], default: f64) -> Result<f64, IoError> {
        match self.find(names) {
            None => Ok(default),
            Some(v) => v.as_f64().ok_or_else(|| {
                IoError::key(self.path, names[0], format!("of config.json is no number: {v}"))
            }),
        }
    }
}

impl ModelFiles {
    /// Writes the model as one GGUF file, atomically: matrices as F32, F16 or Q8_0, everything else as F32, with
    /// the tokenizer and the chat template, in the row order that llama.cpp expects.
    ///
    /// A matrix whose rows are no multiple of 32 stays F16 where Q8_0 is asked for.
    ///
    /// # Errors
    /// [`IoError`] for a `model_type` other than llama, mistral, qwen2, qwen3 and gpt2, a tensor that has no place
    /// in it, a tokenizer that GGUF cannot hold, values that the type cannot hold, a disk that refuses.
    pub fn to_gguf(&self, path: &Path, dtype: GgmlType) -> Result<(), IoError> {
        check_finite(path, &self.tensors)?;
        let c = Config { json: &self.config, path };
        let kind = self.config.get("model_type").and_then(Json::as_str).unwrap_or("");
        let arch = Arch::from_model_type(kind).ok_or_else(|| {
            let what =
                format!("of {CONFIG} is {kind:?}: llama, mistral, qwen2, qwen3 and gpt2 can be exported");
            IoError::key(path, "model_type", what)
        })?;
        let file_type = match dtype {
            GgmlType::F32 => 0u32,
            GgmlType::F16 => 1,
            GgmlType::Q8_0 => 7,
            other => {
                let what = format!("{} is not written here; use F32, F16 or Q8_0", other.name());
                return Err(IoError::key(path, "general.file_type", what));
            }
        };
        let mut meta = Metadata::new();
        meta.insert("general.architecture", arch.name());
        meta.insert("general.type", "model");
        let name = self.config.get("_name_or_path").and_then(Json::as_str).filter(|n| !n.is_empty());
        meta.insert("general.name", name.unwrap_or("model"));
        meta.insert("general.file_type", file_type);
        meta.insert("general.quantization_version", 2u32);
        let (heads, kv_heads, head_dim) = architecture(&c, arch, &mut meta)?;
        let rows = c.count(&["vocab_size"], None)?;
        vocab::to_gguf(self, path, rows as usize, &mut meta)?;
        let mut out = self.tensors_out(path, arch, dtype, heads, kv_heads)?;
        if arch != Arch::Gpt2
            && let Some(scaling) = c.find(&["rope_scaling"])
            && scaling.get("rope_type").and_then(Json::as_str) != Some("default")
        {
            let theta = c.real(&["rope_theta"], 10_000.0)?;
            let t = rope::from_config(scaling, head_dim, theta)
                .map_err(|what| IoError::key(path, "rope_scaling", what))?;
            out.insert(
                0,
                TensorOut { name: rope::ROPE_FREQS.into(), tensor: Cow::Owned(t), dtype: GgmlType::F32 },
            );
        }
        gguf::write(path, &meta, &out)
    }

    fn tensors_out(
        &self,
        path: &Path,
        arch: Arch,
        dtype: GgmlType,
        heads: usize,
        kv_heads: usize,
    ) -> Result<Vec<TensorOut<'_>>, IoError> {
        let tied =
            self.config.get("tie_word_embeddings").and_then(Json::as_bool).unwrap_or(arch == Arch::Gpt2);
        let mut out = Vec::with_capacity(self.tensors.len());
        for (hf, t) in &self.tensors {
            // A tied head is the embedding again; loaders take the embedding when there is no head.
            if arch.is_buffer(hf) || (tied && hf == "lm_head.weight") {
                continue;
            }
            let name = arch.to_gguf(hf).ok_or_else(|| {
                let what =
                    format!("has no place in a {} file; merge adapters before the export", arch.name());
                IoError::tensor(path, hf, what)
            })?;
            let mut tensor = Cow::Borrowed(t);
            if let Some(heads) = arch.interleaved_heads(&name, heads, kv_heads) {
                tensor = Cow::Owned(reorder_heads(t, heads, false).ok_or_else(|| {
                    let what =
                        format!("shape {:?} does not divide into {heads} heads of even width", t.shape);
                    IoError::tensor(path, hf, what)
                })?);
            }
            if arch.is_transposed(&name) {
                tensor = Cow::Owned(tensor.into_owned().transposed());
            }
            let dtype = stored(&name, &tensor, dtype);
            out.push(TensorOut { name, tensor, dtype });
        }
        Ok(out)
    }
}

/// Norms, biases and positions are small and sensitive, and llama.cpp wants them as F32.
fn stored(name: &str, t: &TensorData, dtype: GgmlType) -> GgmlType {
    let row = t.shape.last().copied().unwrap_or(1);
    if t.shape.len() < 2 || name.starts_with("position_embd") {
        GgmlType::F32
    } else if !row.is_multiple_of(dtype.block().0) {
        GgmlType::F16
    } else {
        dtype
    }
}

/// Writes the sizes; returns query heads, key-value heads and the width of a head.
fn architecture(c: &Config<'_>, arch: Arch, meta: &mut Metadata) -> Result<(usize, usize, usize), IoError> {
    let key = |k: &str| format!("{}.{k}", arch.name());
    let width = c.count(&["hidden_size", "n_embd"], None)?;
    let heads = c.count(&["num_attention_heads", "n_head"], None)?;
    let context = c.count(&["max_position_embeddings", "n_positions", "n_ctx"], Some(2048))?;
    let ffn_default = (arch == Arch::Gpt2).then(|| width.saturating_mul(4));
    meta.insert(key("block_count"), c.count(&["num_hidden_layers", "n_layer"], None)?);
    meta.insert(key("context_length"), context);
    meta.insert(key("embedding_length"), width);
    meta.insert(key("feed_forward_length"), c.count(&["intermediate_size", "n_inner"], ffn_default)?);
    meta.insert(key("attention.head_count"), heads);
    if arch == Arch::Gpt2 {
        let eps = c.real(&["layer_norm_epsilon"], 1e-5)?;
        meta.insert(key("attention.layer_norm_epsilon"), eps as f32);
        return Ok((heads as usize, heads as usize, (width / heads) as usize));
    }
    let kv_heads = c.count(&["num_key_value_heads"], Some(heads))?;
    let head_dim = c.count(&["head_dim"], Some(width / heads))?;
    meta.insert(key("attention.head_count_kv"), kv_heads);
    meta.insert(key("rope.freq_base"), c.real(&["rope_theta"], 10_000.0)? as f32);
    meta.insert(key("attention.layer_norm_rms_epsilon"), c.real(&["rms_norm_eps"], 1e-6)? as f32);
    meta.insert(key("attention.key_length"), head_dim);
    meta.insert(key("attention.value_length"), head_dim);
    meta.insert(key("rope.dimension_count"), head_dim);
    meta.insert(key("vocab_size"), Value::U32(c.count(&["vocab_size"], None)?));
    Ok((heads as usize, kv_heads as usize, head_dim as usize))
}
