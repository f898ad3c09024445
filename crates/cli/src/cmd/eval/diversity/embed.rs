//! Sentence embeddings of answers.

use std::path::Path;

use rhumb_nn::io::tokenizer::Tokenizer;
use rhumb_nn::model::{Encoder, EncoderConfig};

use crate::exit::{Code, Failure};
use crate::lm::{from_eval, open_files};

/// A sentence encoder from a folder.
pub(super) struct Embedder {
    /// The name of the folder, which every number is labelled with.
    pub(super) name: String,
    encoder: Encoder,
    params: Vec<f32>,
    tokenizer: Tokenizer,
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
        let name = dir.canonicalize().ok().and_then(|d| Some(d.file_name()?.to_string_lossy().into_owned()));
        Ok(Embedder { name: name.unwrap_or_else(|| dir.display().to_string()), encoder, params, tokenizer })
    }

    /// One vector per text; longer texts than the encoder takes are cut before their last token, which ends them.
    pub(super) fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Failure> {
        let most = self.encoder.config().positions;
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
