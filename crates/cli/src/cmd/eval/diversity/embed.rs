//! Sentence embeddings of answers.

use std::path::Path;

use rhumb_io::tokenizer::Tokenizer;
use rhumb_nn::model::{Encoder, EncoderConfig};
use serde_json::Value;

use crate::exit::{Code, Failure, read_text};
use crate::lm::{from_eval, open_files};

/// A sentence encoder from a folder.
pub(super) struct Embedder {
    /// The name of the folder, which every number is labelled with.
    pub(super) name: String,
    encoder: Encoder,
    params: Vec<f32>,
    tokenizer: Tokenizer,
    /// Tokens of a text at most.
    most: usize,
}

/// A number or a mark of a JSON file of the folder, if it is there.
fn setting(dir: &Path, file: &str, key: &str) -> Result<Option<Value>, Failure> {
    let path = dir.join(file);
    if !path.exists() {
        return Ok(None);
    }
    let json: Value = serde_json::from_str(&read_text(&path)?)
        .map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    Ok(json.get(key).cloned())
}

impl Embedder {
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        let fail =
            |e: anyhow::Error| Failure::new(Code::Usage, e).context(format!("--encoder {}", dir.display()));
        let files = open_files(dir)?;
        let encoder = Encoder::new(EncoderConfig::from_json(&files.config).map_err(|e| fail(e.into()))?);
        let params = encoder.load(&files.tensors).map_err(|e| fail(e.into()))?;
        let json = files.tokenizer.as_ref().ok_or_else(|| {
            Failure::missing(format!("--encoder {}: there is no tokenizer.json", dir.display()))
        })?;
        let tokenizer = Tokenizer::from_json(json).map_err(|e| fail(e.into()))?;
        // How sentence-transformers publishes an encoder: what it was trained to read at most, and how it pools.
        if setting(dir, "1_Pooling/config.json", "pooling_mode_mean_tokens")? == Some(Value::Bool(false)) {
            return Err(Failure::usage(format!(
                "--encoder {}: 1_Pooling/config.json asks for another pooling than the mean over tokens, which is all \
                 that there is here: take an encoder like all-MiniLM-L6-v2",
                dir.display()
            )));
        }
        let read = setting(dir, "sentence_bert_config.json", "max_seq_length")?.and_then(|v| v.as_u64());
        let positions = encoder.config().positions;
        let most = read.map_or(positions, |n| positions.min(n as usize)).max(2);
        let name = dir.canonicalize().ok().and_then(|d| Some(d.file_name()?.to_string_lossy().into_owned()));
        let name = name.unwrap_or_else(|| dir.display().to_string());
        Ok(Embedder { name, encoder, params, tokenizer, most })
    }

    /// One vector per text; longer texts than the encoder takes are cut before their last token, which ends them.
    pub(super) fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Failure> {
        let most = self.most;
        let ids = |text: &&str| {
            let mut ids =
                self.tokenizer.encode_with_special(text).map_err(|e| Failure::new(Code::Usage, e))?;
            if ids.len() > most {
                let last = ids.len() - 1;
                ids.swap(most - 1, last);
                ids.truncate(most);
            }
            Ok(ids)
        };
        let ids: Vec<Vec<u32>> = texts.iter().map(ids).collect::<Result<_, Failure>>()?;
        self.encoder.embed(&self.params, &ids).map_err(from_eval)
    }
}
