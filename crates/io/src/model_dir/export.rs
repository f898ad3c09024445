use std::borrow::Cow;
use std::path::Path;

use serde_json::Value as Json;

use super::names::{Arch, reorder_heads};
use super::{CONFIG, ModelFiles, check_finite, rope, vocab};
use crate::IoError;
use crate::gguf::{self, GgmlType, Metadata, TensorOut, Value};
use rhumb_nn::model::DecoderConfig;
use rhumb_nn::model::TensorData;

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
        let c = self.decoder_config(path)?;
        architecture(&c, arch, &mut meta);
        vocab::to_gguf(self, path, c.vocab, &mut meta)?;
        let mut out = self.tensors_out(path, arch, dtype, &c)?;
        if let Some(t) = c.rope.as_ref().and_then(|r| rope::tensor(r, c.head_dim).transpose()) {
            let t = t.map_err(|what| IoError::key(path, "rope_scaling", what))?;
            out.insert(
                0,
                TensorOut { name: rope::ROPE_FREQS.into(), tensor: Cow::Owned(t), dtype: GgmlType::F32 },
            );
        }
        gguf::write(path, &meta, &out)
    }

    /// Reads what was written to `path` again: a loss is known before the file is shipped.
    ///
    /// # Errors
    /// [`IoError`] when it cannot be read or describes another model; what rounding does to the weights is for the
    /// caller to compare.
    pub fn read_again(&self, path: &Path) -> Result<ModelFiles, IoError> {
        let back = ModelFiles::open(path)?;
        match self.decoder_config(path)?.difference(&back.decoder_config(path)?) {
            None => Ok(back),
            Some(what) => Err(IoError::key(
                path,
                CONFIG,
                format!("read again, {what}: the file would be another model"),
            )),
        }
    }

    fn decoder_config(&self, path: &Path) -> Result<DecoderConfig, IoError> {
        DecoderConfig::from_json(&self.config).map_err(|e| IoError::key(path, CONFIG, e.to_string()))
    }

    fn tensors_out(
        &self,
        path: &Path,
        arch: Arch,
        dtype: GgmlType,
        c: &DecoderConfig,
    ) -> Result<Vec<TensorOut<'_>>, IoError> {
        let tied = c.tied;
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
            if let Some(heads) = arch.interleaved_heads(&name, c.heads, c.kv_heads) {
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

/// Writes the sizes.
fn architecture(c: &DecoderConfig, arch: Arch, meta: &mut Metadata) {
    let key = |k: &str| format!("{}.{k}", arch.name());
    // Checked sizes are far below 32 bits.
    let size = |n: usize| Value::U32(n as u32);
    meta.insert(key("block_count"), size(c.layers));
    meta.insert(key("context_length"), size(c.positions));
    meta.insert(key("embedding_length"), size(c.width));
    meta.insert(key("feed_forward_length"), size(c.ffn));
    meta.insert(key("attention.head_count"), size(c.heads));
    let Some(rope) = &c.rope else {
        meta.insert(key("attention.layer_norm_epsilon"), c.eps as f32);
        return;
    };
    meta.insert(key("attention.head_count_kv"), size(c.kv_heads));
    meta.insert(key("rope.freq_base"), rope.theta as f32);
    if let Some([.., context]) = rope.llama3.filter(|p| p[3].to_bits() != rope::CONTEXT.to_bits()) {
        meta.insert(key(rope::ORIGINAL), size(context as usize));
    }
    meta.insert(key("attention.layer_norm_rms_epsilon"), c.eps as f32);
    meta.insert(key("attention.key_length"), size(c.head_dim));
    meta.insert(key("attention.value_length"), size(c.head_dim));
    meta.insert(key("rope.dimension_count"), size(c.head_dim));
    meta.insert(key("vocab_size"), size(c.vocab));
}
