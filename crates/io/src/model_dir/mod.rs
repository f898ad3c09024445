//! Models as folders in the layout of the Hugging Face Hub, and their conversion from and to GGUF.

mod export;
mod import;
mod names;
mod rope;
mod vocab;

use std::fs;
use std::path::Path;

use rayon::prelude::*;
use rhumb_linalg::Real;
use serde_json::Value;

use super::gguf::GgmlType;
use super::{IoError, atomic, safetensors};
use rhumb_nn::model::TensorMap;
use rhumb_nn::model::{Decoder, stored, stored_shape};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
/// Where newer exports keep the template instead of in `tokenizer_config.json`.
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// Everything that makes a model, in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFiles {
    /// `config.json`.
    pub config: Value,
    /// Weights by their Hugging Face names.
    pub tensors: TensorMap,
    /// `tokenizer.json`.
    pub tokenizer: Option<Value>,
    /// `tokenizer_config.json`, with the chat template.
    pub tokenizer_config: Option<Value>,
    /// `generation_config.json`.
    pub generation_config: Option<Value>,
}

impl ModelFiles {
    /// Reads a folder, or converts a GGUF file, whichever `path` is.
    ///
    /// # Errors
    /// As [`ModelFiles::load`] and [`ModelFiles::from_gguf`].
    pub fn open(path: &Path) -> Result<Self, IoError> {
        if path.is_file() { Self::from_gguf(path) } else { Self::load(path) }
    }

    /// Reads a folder.
    ///
    /// # Errors
    /// [`IoError`] when a file is missing or malformed, or a weight is not finite.
    pub fn load(dir: &Path) -> Result<Self, IoError> {
        if !dir.is_dir() {
            let what = "is no folder; give a model folder, or import a GGUF file first".to_owned();
            return Err(IoError::Missing { path: dir.to_owned(), what });
        }
        let config = read_json(&dir.join(CONFIG))?.ok_or_else(|| {
            missing(dir, "has no config.json; give a model folder of the Hugging Face layout")
        })?;
        if !dir.join(WEIGHTS).exists() && !dir.join(format!("{WEIGHTS}.index.json")).exists() {
            let what = "has no model.safetensors and no index of shards; convert the weights to safetensors";
            return Err(missing(dir, what));
        }
        let mut tokenizer_config = read_json(&dir.join(TOKENIZER_CONFIG))?;
        let template = dir.join(CHAT_TEMPLATE);
        if template.exists() {
            let text = fs::read_to_string(&template).map_err(|e| IoError::io("read", &template, e))?;
            let config = tokenizer_config.get_or_insert_with(|| Value::Object(serde_json::Map::new()));
            if let Some(config) = config.as_object_mut() {
                config.entry("chat_template").or_insert(Value::String(text));
            }
        }
        let tensors = safetensors::read_dir(dir)?;
        check_finite(dir, &tensors)?;
        Ok(ModelFiles {
            config,
            tensors,
            tokenizer: read_json(&dir.join(TOKENIZER))?,
            tokenizer_config,
            generation_config: read_json(&dir.join(GENERATION_CONFIG))?,
        })
    }

    /// Writes a folder: weights as one F32 file, every file atomically. `torch_dtype` is set to what is written.
    ///
    /// # Errors
    /// [`IoError`] when the folder cannot be made or written, or a weight is not finite.
    pub fn save(&self, dir: &Path) -> Result<(), IoError> {
        self.save_as(dir, GgmlType::F32)
    }

    /// [`ModelFiles::save`] with weights as F32, F16 or BF16.
    ///
    /// # Errors
    /// As [`ModelFiles::save`]; a weight that the type cannot hold, another type.
    pub fn save_as(&self, dir: &Path, dtype: GgmlType) -> Result<(), IoError> {
        check_finite(dir, &self.tensors)?;
        fs::create_dir_all(dir).map_err(|e| IoError::io("create", dir, e))?;
        safetensors::write(&dir.join(WEIGHTS), &self.tensors, dtype)?;
        self.save_texts(dir, dtype)
    }

    /// [`ModelFiles::save`] with these parameters of a model in place of `tensors`. They are converted one tensor at a time,
    /// so that no second copy of them exists.
    ///
    /// # Errors
    /// As [`ModelFiles::save`].
    pub fn save_params<T: Real>(&self, dir: &Path, model: &Decoder, params: &[T]) -> Result<(), IoError> {
        fs::create_dir_all(dir).map_err(|e| IoError::io("create", dir, e))?;
        let blocks = model.base_layout().blocks();
        let shapes: Vec<_> = blocks.iter().map(|b| (b.name.clone(), stored_shape(b))).collect();
        safetensors::write_each(&dir.join(WEIGHTS), &shapes, GgmlType::F32, |i| {
            let values = stored(&blocks[i], params);
            finite(dir, &shapes[i].0, &shapes[i].1, &values)?;
            Ok(values.into())
        })?;
        self.save_texts(dir, GgmlType::F32)
    }

    /// Everything but the weights.
    fn save_texts(&self, dir: &Path, dtype: GgmlType) -> Result<(), IoError> {
        let mut config = self.config.clone();
        let name = match dtype {
            GgmlType::F16 => "float16",
            GgmlType::BF16 => "bfloat16",
            _ => "float32",
        };
        for key in ["torch_dtype", "dtype"] {
            if let Some(dtype) = config.get_mut(key) {
                *dtype = Value::from(name);
            }
        }
        write_json(&dir.join(CONFIG), &config)?;
        for (name, value) in [
            (TOKENIZER, &self.tokenizer),
            (TOKENIZER_CONFIG, &self.tokenizer_config),
            (GENERATION_CONFIG, &self.generation_config),
        ] {
            if let Some(value) = value {
                write_json(&dir.join(name), value)?;
            }
        }
        Ok(())
    }

    /// The number of parameters.
    pub fn parameters(&self) -> usize {
        self.tensors.values().map(|t| t.data.len()).sum()
    }
}

fn missing(path: &Path, what: &str) -> IoError {
    IoError::Missing { path: path.to_owned(), what: what.to_owned() }
}

fn check_finite(path: &Path, tensors: &TensorMap) -> Result<(), IoError> {
    tensors.iter().try_for_each(|(name, t)| finite(path, name, &t.shape, &t.data))
}

/// One NaN in the weights makes every output NaN, far from the cause; so it is named here.
fn finite(path: &Path, name: &str, shape: &[usize], data: &[f32]) -> Result<(), IoError> {
    let Some(i) = data.par_iter().position_first(|v| !v.is_finite()) else { return Ok(()) };
    let what = format!(
        "value {i} of shape {shape:?} is {}: the model is broken; take an earlier checkpoint or the original",
        data[i]
    );
    Err(IoError::tensor(path, name, what))
}

/// The JSON of a file; `None` when there is no such file.
pub(super) fn read_json(path: &Path) -> Result<Option<Value>, IoError> {
    match fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(IoError::io("read", path, e)),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| IoError::Json { path: path.to_owned(), source }),
    }
}

pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), IoError> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|source| IoError::Json { path: path.to_owned(), source })?;
    text.push(b'\n');
    atomic::write_bytes(path, &text)
}
