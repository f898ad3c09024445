//! Low-rank adapters as folders in the layout of the PEFT package: `adapter_config.json` and
//! `adapter_model.safetensors`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::gguf::GgmlType;
use super::model_dir::{read_json, write_json};
use super::{IoError, safetensors};
use rhumb_nn::model::{Decoder, Family, LoraConfig};
use rhumb_nn::model::{TensorData, TensorMap};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Adapters with what is known of the model that they belong to.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFiles {
    /// Rank, scale and projections.
    pub lora: LoraConfig,
    /// The model as its user named it.
    pub base: String,
    /// Factors by their names in the file.
    pub tensors: TensorMap,
}

impl AdapterFiles {
    /// The adapters of a decoder that was made by [`Decoder::with_lora`].
    pub fn of(decoder: &Decoder, lora: &LoraConfig, base: &str, params: &[f32]) -> Self {
        let blocks = decoder.layout().blocks().iter();
        let tensor = |b: &rhumb_core::Block| TensorData {
            shape: b.shape.clone(),
            data: params[b.range.clone()].to_vec(),
        };
        let tensors = blocks.map(|b| (outside(decoder, &b.name), tensor(b))).collect();
        AdapterFiles { lora: lora.clone(), base: base.to_owned(), tensors }
    }

    /// The parameters in the order of [`Decoder::layout`].
    ///
    /// # Errors
    /// [`IoError`] naming a factor that is missing, has another shape, or has no place in this model.
    pub fn params(&self, dir: &Path, decoder: &Decoder) -> Result<Vec<f32>, IoError> {
        let path = dir.join(WEIGHTS);
        let layout = decoder.layout();
        let mut out = vec![0.0; layout.len()];
        for b in layout.blocks() {
            let name = outside(decoder, &b.name);
            let found = self.tensors.get(&name).or_else(|| self.tensors.get(&b.name));
            let Some(t) = found else {
                let what = format!("has no tensor {name}, which adapter_config.json asks for");
                return Err(IoError::Missing { path, what });
            };
            if t.shape != b.shape {
                let what = format!(
                    "has shape {:?}, this model asks for {:?}; does it belong to it?",
                    t.shape, b.shape
                );
                return Err(IoError::key(&path, &name, what));
            }
            out[b.range.clone()].copy_from_slice(&t.data);
        }
        let known =
            |name: &str| layout.blocks().iter().any(|b| b.name == name || outside(decoder, &b.name) == name);
        match self.tensors.keys().find(|name| !known(name)) {
            Some(name) => {
                Err(IoError::key(&path, name, "has no place in this model; does the adapter belong to it?"))
            }
            None => Ok(out),
        }
    }

    /// Writes a folder that the PEFT package loads.
    ///
    /// # Errors
    /// [`IoError`] when the folder cannot be made or written.
    pub fn save(&self, dir: &Path, family: Family) -> Result<(), IoError> {
        fs::create_dir_all(dir).map_err(|e| IoError::io("create", dir, e))?;
        safetensors::write(&dir.join(WEIGHTS), &self.tensors, GgmlType::F32)?;
        write_json(
            &dir.join(CONFIG),
            &json!({
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": self.base,
                "r": self.lora.rank,
                "lora_alpha": self.lora.alpha,
                "lora_dropout": 0.0,
                "target_modules": self.lora.targets,
                "bias": "none",
                // GPT-2 stores its projections as (in, out).
                "fan_in_fan_out": family == Family::Gpt2,
                "inference_mode": true,
                "use_rslora": false,
                "use_dora": false,
                "modules_to_save": null,
                "rank_pattern": {},
                "alpha_pattern": {},
            }),
        )
    }

    /// Reads a folder.
    ///
    /// # Errors
    /// [`IoError`] for missing or malformed files, and for kinds of adapters that are not read here: other than
    /// LoRA, with DoRA, trained biases or whole modules, or ranks that differ between projections.
    pub fn load(dir: &Path) -> Result<Self, IoError> {
        let path = dir.join(CONFIG);
        let config = read_json(&path)?.ok_or_else(|| IoError::Missing {
            path: dir.to_owned(),
            what: "has no adapter_config.json; give a folder that PEFT or `rhumb train sft --lora` wrote"
                .to_owned(),
        })?;
        let lora = lora(&path, &config)?;
        let base =
            config.get("base_model_name_or_path").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(AdapterFiles { lora, base, tensors: safetensors::read(&dir.join(WEIGHTS))? })
    }
}

/// The name that PEFT gives a factor: GPT-2's modules stand inside `transformer`.
fn outside(decoder: &Decoder, name: &str) -> String {
    match decoder.config().family {
        Family::Llama => name.to_owned(),
        Family::Gpt2 => name.replacen("base_model.model.", "base_model.model.transformer.", 1),
    }
}

fn lora(path: &Path, config: &Value) -> Result<LoraConfig, IoError> {
    let wrong = |key: &str, what: &str| Err(IoError::key(path, key, what));
    if config.get("peft_type").and_then(Value::as_str) != Some("LORA") {
        return wrong("peft_type", "is not LORA, the only kind of adapter that is read here");
    }
    let set = |key: &str| match config.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Object(o)) => !o.is_empty(),
        Some(Value::Array(a)) => !a.is_empty(),
        Some(_) => true,
    };
    for (key, what) in [
        ("use_dora", "asks for DoRA, which is not read here; merge the adapter with PEFT"),
        ("modules_to_save", "holds whole modules, which are not read here; merge the adapter with PEFT"),
        ("rank_pattern", "gives projections ranks of their own, which is not read here; merge it with PEFT"),
        (
            "alpha_pattern",
            "gives projections scales of their own, which is not read here; merge it with PEFT",
        ),
    ] {
        if set(key) {
            return wrong(key, what);
        }
    }
    if config.get("bias").and_then(Value::as_str).is_some_and(|b| b != "none") {
        return wrong("bias", "holds trained biases, which are not read here; merge the adapter with PEFT");
    }
    let Some(rank) = config.get("r").and_then(Value::as_u64).filter(|r| *r > 0) else {
        return wrong("r", "is no rank above 0");
    };
    let Some(alpha) = config.get("lora_alpha").and_then(Value::as_f64).filter(|a| a.is_finite()) else {
        return wrong("lora_alpha", "is no number");
    };
    let Some(targets) = config.get("target_modules").and_then(Value::as_array) else {
        return wrong("target_modules", "is no list of projections; patterns are not read here");
    };
    let targets: Option<Vec<String>> =
        targets.iter().map(|t| t.as_str().map(|t| t.rsplit('.').next().unwrap_or(t).to_owned())).collect();
    let Some(targets) = targets else { return wrong("target_modules", "is no list of names") };
    // Rank-stabilised adapters scale by alpha / sqrt(r) instead of alpha / r.
    let alpha = if set("use_rslora") { alpha * (rank as f64).sqrt() } else { alpha };
    Ok(LoraConfig { rank: rank as usize, alpha, targets })
}
