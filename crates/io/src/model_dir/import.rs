use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::names::{Arch, reorder_heads};
use super::{ModelFiles, check_finite, rope, vocab};
use crate::IoError;
use crate::gguf::{GgufFile, Value};
use rhumb_nn::model::TensorMap;

/// The sizes of a GGUF model.
struct Sizes {
    layers: u64,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    theta: f64,
    /// Context before a stretching of the positions.
    original: f64,
}

impl ModelFiles {
    /// Converts a GGUF file of architecture llama, qwen2, qwen3 or gpt2 to the Hugging Face layout.
    ///
    /// Quantised weights become the `f32` values that they stand for. Rows of query and key heads, which
    /// llama files hold in the order of interleaved rotary pairs, get the order of halves again.
    ///
    /// # Errors
    /// [`IoError`] for a malformed file, an architecture or setting that is not known, a tensor that has no place
    /// in the architecture or is missing, weights that are not finite.
    pub fn from_gguf(path: &Path) -> Result<Self, IoError> {
        let mut file = GgufFile::open(path)?;
        let key = "general.architecture";
        let name = file.require(key, "the name of the architecture", Value::as_str)?;
        let arch = Arch::from_gguf(name).ok_or_else(|| {
            IoError::key(path, key, format!("{name:?} is not known: llama, qwen2, qwen3 and gpt2 are"))
        })?;
        let sizes = sizes(&file, arch)?;
        let (tensors, scaling) = tensors(&mut file, arch, &sizes)?;
        check_finite(path, &tensors)?;
        let mut config = config(&file, arch, &sizes, &tensors)?;
        if let Some(scaling) = scaling {
            config.insert("rope_scaling".into(), scaling);
        }
        let ids = vocab::special_ids(file.metadata());
        for (name, id) in &ids {
            config.insert(format!("{name}_token_id"), json!(id));
        }
        let generation = (!ids.is_empty()).then(|| {
            let mut g: Map<String, Json> =
                [("_from_model_config".to_owned(), json!(true))].into_iter().collect();
            g.extend(
                ids.iter().filter(|(n, _)| *n != "unk").map(|(n, id)| (format!("{n}_token_id"), json!(id))),
            );
            Json::Object(g)
        });
        let context = config.get("max_position_embeddings").or_else(|| config.get("n_positions"));
        let (tokenizer, tokenizer_config) = vocab::from_gguf(file.metadata(), context)?;
        Ok(ModelFiles {
            config: Json::Object(config),
            tensors,
            tokenizer,
            tokenizer_config,
            generation_config: generation,
        })
    }
}

fn sizes(file: &GgufFile, arch: Arch) -> Result<Sizes, IoError> {
    let key = |k: &str| format!("{}.{k}", arch.name());
    let count = |k: &str| -> Result<u64, IoError> {
        let v = file.require(&key(k), "a whole number", Value::as_u64)?;
        // Far above every model; it keeps products of sizes from overflowing.
        if (1..1 << 31).contains(&v) {
            Ok(v)
        } else {
            Err(IoError::key(file.path(), &key(k), format!("{v} cannot be; convert the model again")))
        }
    };
    let heads = count("attention.head_count")? as usize;
    let kv_heads = match file.metadata().get(&key("attention.head_count_kv")) {
        None => heads,
        Some(_) => count("attention.head_count_kv")? as usize,
    };
    let width = count("embedding_length")? as usize;
    let head_dim = match file.metadata().get(&key("attention.key_length")) {
        None => width / heads,
        Some(_) => count("attention.key_length")? as usize,
    };
    for (k, expected) in [("rope.dimension_count", head_dim), ("attention.value_length", head_dim)] {
        let found = file.optional(&key(k), "a whole number", Value::as_u64)?;
        if found.is_some_and(|v| v != expected as u64) {
            let what = format!("only {expected}, the width of a head, is known");
            return Err(IoError::key(file.path(), &key(k), what));
        }
    }
    let scaling = file.optional(&key("rope.scaling.type"), "a string", Value::as_str)?;
    if let Some(kind) = scaling.filter(|k| *k != "none") {
        let what = format!("{kind:?} is not known; take a model without stretched positions");
        return Err(IoError::key(file.path(), &key("rope.scaling.type"), what));
    }
    let theta = file.optional(&key("rope.freq_base"), "a number", Value::as_f64)?.unwrap_or(10_000.0);
    let original = file.optional(&key(rope::ORIGINAL), "a whole number", Value::as_u64)?;
    let original = original.map_or(rope::CONTEXT, |n| n as f64);
    Ok(Sizes { layers: count("block_count")?, heads, kv_heads, head_dim, theta, original })
}

fn tensors(file: &mut GgufFile, arch: Arch, sizes: &Sizes) -> Result<(TensorMap, Option<Json>), IoError> {
    let path = file.path().to_owned();
    let names: Vec<String> = file.tensors().keys().cloned().collect();
    let (mut out, mut scaling) = (TensorMap::with_capacity(names.len()), None);
    for name in names {
        let mut t = file.tensor(&name)?;
        if name == rope::ROPE_FREQS {
            scaling =
                Some(rope::to_config(&t, sizes.head_dim, sizes.theta, sizes.original).ok_or_else(|| {
                    IoError::tensor(&path, &name, "holds rotary frequencies that no known rope_scaling gives")
                })?);
            continue;
        }
        let hf = arch.to_hf(&name).filter(|_| layer_of(&name).is_none_or(|n| n < sizes.layers)).ok_or_else(
            || {
                let what = format!("has no place in a {} model of {} layers", arch.name(), sizes.layers);
                IoError::tensor(&path, &name, what)
            },
        )?;
        if let Some(heads) = arch.interleaved_heads(&name, sizes.heads, sizes.kv_heads) {
            t = reorder_heads(&t, heads, true).ok_or_else(|| {
                let what =
                    format!("{:?} rows do not divide into {heads} heads of even width", t.shape.first());
                IoError::tensor(&path, &name, what)
            })?;
        }
        if arch.is_transposed(&name) {
            t = t.transposed();
        }
        out.insert(hf, t);
    }
    // Older converters of GPT-2 wrote the tied head a second time.
    if arch == Arch::Gpt2 && out.get("lm_head.weight") == out.get("transformer.wte.weight") {
        out.shift_remove("lm_head.weight");
    }
    Ok((out, scaling))
}

fn layer_of(gguf: &str) -> Option<u64> {
    gguf.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

fn config(
    file: &GgufFile,
    arch: Arch,
    sizes: &Sizes,
    tensors: &TensorMap,
) -> Result<Map<String, Json>, IoError> {
    let key = |k: &str| format!("{}.{k}", arch.name());
    let whole = |k: &str| file.require(&key(k), "a whole number", Value::as_u64);
    let real = |k: &str| file.require(&key(k), "a number", Value::as_f64);
    let embedding = arch.to_hf("token_embd.weight").unwrap_or_default();
    let vocab = tensors.get(&embedding).and_then(|t| t.shape.first()).copied().ok_or_else(|| {
        IoError::tensor(
            file.path(),
            "token_embd.weight",
            "missing; the file is a part of a model, give it whole",
        )
    })?;
    let tied = !tensors.contains_key("lm_head.weight");
    let has_bias = |module: &str| tensors.contains_key(&format!("model.layers.0.self_attn.{module}.bias"));
    let mut config = match arch {
        Arch::Gpt2 => json!({
            "activation_function": "gelu_new",
            "layer_norm_epsilon": real("attention.layer_norm_epsilon")?,
            "n_ctx": whole("context_length")?,
            "n_embd": whole("embedding_length")?,
            "n_head": sizes.heads,
            "n_inner": whole("feed_forward_length")?,
            "n_layer": sizes.layers,
            "n_positions": whole("context_length")?,
        }),
        _ => json!({
            "attention_bias": has_bias("q_proj") || has_bias("k_proj") || has_bias("v_proj"),
            "head_dim": sizes.head_dim,
            "hidden_act": "silu",
            "hidden_size": whole("embedding_length")?,
            "intermediate_size": whole("feed_forward_length")?,
            "max_position_embeddings": whole("context_length")?,
            "num_attention_heads": sizes.heads,
            "num_hidden_layers": sizes.layers,
            "num_key_value_heads": sizes.kv_heads,
            "rms_norm_eps": real("attention.layer_norm_rms_epsilon")?,
            "rope_theta": sizes.theta,
        }),
    };
    let Some(map) = config.as_object_mut() else { return Ok(Map::new()) };
    let mut out = Map::new();
    if let Some(name) = file.metadata().get_str("general.name") {
        out.insert("_name_or_path".into(), json!(name));
    }
    out.insert("architectures".into(), json!([arch.class()]));
    out.insert("model_type".into(), json!(arch.name()));
    out.append(map);
    out.insert("tie_word_embeddings".into(), json!(tied));
    out.insert("torch_dtype".into(), json!("float32"));
    out.insert("vocab_size".into(), json!(vocab));
    Ok(out)
}
