//! Language models from disk, ready for training, generation and scoring.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rhumb_core::EvalError;
use rhumb_io::adapter::AdapterFiles;
use rhumb_io::model_dir::ModelFiles;
use rhumb_io::template::{ChatTemplate, TemplateError};
use rhumb_io::tokenizer::{Tokenizer, eos_ids};
use rhumb_io::{IoError, TensorMap};
use rhumb_nn::model::{Decoder, DecoderConfig, Family, LoraConfig, load};
use serde_json::json;

use crate::exit::{Code, Failure, read_text};

/// A model with everything around it. `Tokenizer` and `ChatTemplate` are what `rhumb_lm::data` asks for.
pub(crate) struct LanguageModel {
    /// Where it was opened.
    pub(crate) path: PathBuf,
    /// Configuration and tokenizer as they are on disk. The weights are in `params` only, since two copies of
    /// them would be most of the memory.
    pub(crate) files: ModelFiles,
    /// The definition.
    pub(crate) decoder: Decoder,
    /// The weights, in the order of `decoder.base_layout()`.
    pub(crate) params: Vec<f32>,
    /// The tokenizer.
    pub(crate) tokenizer: Tokenizer,
    /// The chat template, where the model has one.
    pub(crate) template: Option<ChatTemplate>,
    /// Tokens that end an answer.
    pub(crate) eos: Vec<u32>,
}

impl LanguageModel {
    /// Opens a folder or a GGUF file.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        Self::open_with(path, None)
    }

    /// As [`LanguageModel::open`], with the chat template of this file in place of the model's own, where one is given.
    pub(crate) fn open_with(path: &Path, template: Option<&Path>) -> Result<Self, Failure> {
        let mut files = open_files(path)?;
        override_template(&mut files, template)?;
        let tensors = std::mem::take(&mut files.tensors);
        let decoder = decoder(path, &files)?;
        let params = weights(path, &decoder, &tensors)?;
        drop(tensors);
        let (tokenizer, template) = text_side(path, &files)?;
        let eos = eos(&tokenizer, &files);
        Ok(LanguageModel { path: path.to_owned(), files, decoder, params, tokenizer, template, eos })
    }

    /// Writes the model with these weights as a folder that [`LanguageModel::open`] reads.
    pub(crate) fn save(&self, params: &[f32], dir: &Path) -> Result<(), Failure> {
        self.files.save_params(dir, &self.decoder, params).map_err(from_io)
    }

    /// The weights with adapters from the folder `dir` merged into them.
    pub(crate) fn merged(&self, adapter: &AdapterFiles, dir: &Path) -> Result<Vec<f32>, Failure> {
        let decoder = Decoder::with_lora(self.decoder.config().clone(), &adapter.lora)
            .map_err(|e| Failure::new(Code::Usage, e).context(shown(dir)))?;
        let params = adapter.params(dir, &decoder).map_err(from_io)?;
        Ok(decoder.merge(&self.params, &params))
    }

    /// The chat template, or the failure that tells what to do without one.
    pub(crate) fn chat(&self) -> Result<&ChatTemplate, Failure> {
        self.template.as_ref().ok_or_else(|| Failure::new(Code::Usage, TemplateError::Missing))
    }
}

/// The files of a model, weights included.
pub(crate) fn open_files(path: &Path) -> Result<ModelFiles, Failure> {
    if !path.exists() {
        return Err(Failure::missing(format!(
            "there is no model at {}: give a model folder or a GGUF file (`rhumb model pull ORG/NAME` downloads one)",
            path.display()
        )));
    }
    ModelFiles::open(path).map_err(from_io)
}

/// Puts the chat template of a file in place of the model's own, so that it is also the one that is saved.
pub(crate) fn override_template(files: &mut ModelFiles, template: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = template else { return Ok(()) };
    let source = read_text(path)?;
    let config = files.tokenizer_config.get_or_insert_with(|| json!({}));
    if !config.is_object() {
        *config = json!({});
    }
    config["chat_template"] = source.into();
    // Compiled here once, so that what is wrong is told with the name of the file.
    match ChatTemplate::from_tokenizer_config(config) {
        Ok(_) => Ok(()),
        Err(e) => Err(Failure::new(Code::Usage, e).context(shown(path))),
    }
}

/// The definition that a configuration describes.
pub(crate) fn decoder(path: &Path, files: &ModelFiles) -> Result<Decoder, Failure> {
    DecoderConfig::from_json(&files.config)
        .and_then(Decoder::new)
        .map_err(|e| Failure::new(Code::Usage, e).context(shown(path)))
}

/// The weights in the order of the definition, after a look that they are those of the configuration.
pub(crate) fn weights(path: &Path, decoder: &Decoder, tensors: &TensorMap) -> Result<Vec<f32>, Failure> {
    let (described, held) =
        (decoder.base_layout().len(), tensors.values().map(|t| t.data.len()).sum::<usize>());
    // Memory for them is taken before the tensors are compared one by one, so a configuration that asks for more than
    // the files hold is refused first.
    if described > held {
        return Err(Failure::usage(format!(
            "{}: config.json describes a model of {described} parameters, and the files hold {held}: take both from the \
             same model",
            path.display()
        )));
    }
    load(decoder, tensors).map_err(|e| Failure::new(Code::Usage, e).context(shown(path)))
}

/// The definition that the `config.json` of a folder gives, without reading a weight; `None` for a GGUF file, whose
/// configuration follows from its tensors.
pub(crate) fn definition(path: &Path) -> Result<Option<Decoder>, Failure> {
    let file = path.join("config.json");
    if !file.is_file() {
        return Ok(None);
    }
    let json: serde_json::Value = serde_json::from_str(&read_text(&file)?).map_err(|e| {
        Failure::usage(format!("{}: {e}; restore it from the model's source", file.display()))
    })?;
    DecoderConfig::from_json(&json)
        .and_then(Decoder::new)
        .map(Some)
        .map_err(|e| Failure::new(Code::Usage, e).context(shown(path)))
}

/// Adapters on every projection of a family.
pub(crate) fn adapters(config: &DecoderConfig, rank: usize, alpha: f64) -> LoraConfig {
    let mut lora = LoraConfig { rank, alpha, ..LoraConfig::default() };
    if config.family == Family::Gpt2 {
        lora.targets = ["c_attn", "c_proj", "c_fc"].map(String::from).to_vec();
    }
    lora
}

/// Tokenizer and chat template of a model.
pub(crate) fn text_side(
    path: &Path,
    files: &ModelFiles,
) -> Result<(Tokenizer, Option<ChatTemplate>), Failure> {
    let json = files.tokenizer.as_ref().ok_or_else(|| {
        Failure::missing(format!("{} has no tokenizer.json; copy it from the model's source", shown(path)))
    })?;
    let tokenizer =
        Tokenizer::from_json(json).map_err(|e| Failure::new(Code::Usage, e).context(shown(path)))?;
    let template = files.tokenizer_config.as_ref().map(ChatTemplate::from_tokenizer_config);
    let template = match template {
        None | Some(Err(TemplateError::Missing)) => None,
        Some(other) => Some(other.map_err(|e| Failure::new(Code::Usage, e).context(shown(path)))?),
    };
    Ok((tokenizer, template))
}

/// Tokens that end an answer.
pub(crate) fn eos(tokenizer: &Tokenizer, files: &ModelFiles) -> Vec<u32> {
    let generation = files.generation_config.as_ref();
    eos_ids(tokenizer, files.tokenizer_config.as_ref(), generation, Some(&files.config))
}

/// Bytes of activations in f32 of a training step on `tokens` tokens, estimated.
///
/// Per token and layer the values that the backward pass reads (two norms, packed query, key and value, heads,
/// residuals, both feed-forward inputs and their product), or one residual when they are computed again
/// (`recompute`); plus the adjoints of one layer.
pub(crate) fn activation_bytes(decoder: &Decoder, tokens: u64, recompute: bool) -> u64 {
    let c = decoder.config();
    let layer = (4 * c.width + c.qkv_width() + c.heads * c.head_dim + 3 * c.ffn) as u64;
    let (width, count) = (c.width as u64, c.layers as u64);
    let layers = if recompute { count * width + layer } else { count * layer };
    let sweep = (3 * c.ffn + 3 * c.width) as u64;
    tokens.saturating_mul(4 * (layers + sweep))
}

/// What is absent has its own exit code.
pub(crate) fn from_io(e: IoError) -> Failure {
    let absent = match &e {
        IoError::Missing { .. } => true,
        IoError::Io { action: "open" | "read", source, .. } => source.kind() == ErrorKind::NotFound,
        _ => false,
    };
    Failure::new(if absent { Code::Missing } else { Code::Usage }, e)
}

/// A failed evaluation.
pub(crate) fn from_eval(e: EvalError) -> Failure {
    let code = if matches!(e, EvalError::NonFinite { .. }) { Code::Numerical } else { Code::Usage };
    Failure::new(code, e)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use rhumb_nn::loss::LossKind;
    use rhumb_nn::model::{DecoderObjective, TokenBatch, init};

    use super::*;

    fn tiny() -> Decoder {
        let config = json!({
            "model_type": "llama", "vocab_size": 300, "hidden_size": 96, "intermediate_size": 256,
            "num_hidden_layers": 8, "num_attention_heads": 3, "num_key_value_heads": 1, "tie_word_embeddings": true,
        });
        Decoder::new(DecoderConfig::from_json(&config).unwrap()).unwrap()
    }

    #[test]
    fn the_estimate_of_activations_is_near_what_a_step_holds() {
        for recompute in [false, true] {
            let decoder = tiny();
            let params: Vec<f32> = init(decoder.layout(), 8, 0.02, 1);
            let mut grad = vec![0.0; params.len()];
            let batch = TokenBatch::causal(2, 128, (0..256).map(|i| i % 300).collect());
            let estimate = activation_bytes(&decoder, 256, recompute) as f64;
            let frozen = Arc::new(Vec::new());
            let mut objective = DecoderObjective::new(decoder, LossKind::Ce, recompute, frozen).unwrap();
            objective.gradient(&params, &batch, &mut grad, false).unwrap();
            let ratio = estimate / objective.bytes().0 as f64;
            assert!((0.9..1.1).contains(&ratio), "recompute {recompute}: {ratio}");
        }
    }

    #[test]
    fn only_what_is_absent_counts_as_missing() {
        let io =
            |action, kind: ErrorKind| IoError::Io { action, path: PathBuf::from("x"), source: kind.into() };
        assert_eq!(from_io(io("open", ErrorKind::NotFound)).code, Code::Missing);
        assert_eq!(from_io(io("create", ErrorKind::NotFound)).code, Code::Usage);
        assert_eq!(from_io(io("open", ErrorKind::PermissionDenied)).code, Code::Usage);
        let text = from_io(io("open", ErrorKind::NotFound)).to_string();
        assert_eq!(text.matches("entity not found").count(), 1, "{text}");
    }
}
