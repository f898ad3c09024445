//! Text to token ids and back.

mod bytes;
mod gguf;
mod offsets;
mod special;
mod stream;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use bytes::{END_OF_TEXT, config_of_bytes, json_of_bytes};
pub use gguf::{config_from_gguf, json_from_gguf};
pub use special::{eos_ids, special_tokens};
pub use stream::Stream;

/// Why text could not be turned into ids or back.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error("cannot read the tokenizer {}: {source}; check the path", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The JSON is no tokenizer that can be used.
    #[error("{origin} is not a usable tokenizer.json: {what}; restore it from the model's source")]
    Parse {
        /// The file, or what else the JSON came from.
        origin: String,
        /// What is wrong.
        what: String,
    },
    /// The tokenizer failed on a text or on ids.
    #[error("cannot {action}: {what}; check that tokenizer.json belongs to the model")]
    Apply {
        /// `"encode the text"` or `"decode the ids"`.
        action: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The metadata of a GGUF file describe no tokenizer that can be built.
    #[error("GGUF key {key}: {what}")]
    Gguf {
        /// The metadata key.
        key: &'static str,
        /// What is wrong and what to try.
        what: String,
    },
}

/// A tokenizer as `tokenizer.json` describes it.
///
/// Truncation and padding that the file asks for are switched off: a text that is cut without a word would
/// change every number computed from it. So is the trimming of white space from offsets, which changes no token.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// From the parsed content of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Parse`].
    pub fn from_json(json: &Value) -> Result<Self, TokenizerError> {
        Self::from_bytes(json.to_string().as_bytes(), "the JSON value")
    }

    /// From a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Read`], [`TokenizerError::Parse`].
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let bytes =
            std::fs::read(path).map_err(|source| TokenizerError::Read { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    fn from_bytes(bytes: &[u8], origin: &str) -> Result<Self, TokenizerError> {
        let parse =
            |e: tokenizers::Error| TokenizerError::Parse { origin: origin.into(), what: e.to_string() };
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(parse)?;
        inner.with_truncation(None).map_err(parse)?;
        inner.with_padding(None);
        let post = inner.get_post_processor().cloned().map(offsets::untrimmed);
        inner.with_post_processor(post);
        Ok(Tokenizer { inner })
    }

    /// The ids of a text. Nothing is added before or behind it; special tokens written in the text become their
    /// single ids.
    ///
    /// Cost: `O(n log n)` in the length of the text.
    ///
    /// # Errors
    /// [`TokenizerError::Apply`]; byte-level tokenizers accept every text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_as(text, false)
    }

    /// As [`Tokenizer::encode`], with the tokens that the post-processor of the file adds: `[CLS]` and `[SEP]` of
    /// BERT, the begin-of-text token of Llama.
    ///
    /// # Errors
    /// [`TokenizerError::Apply`].
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_as(text, true)
    }

    /// As [`Tokenizer::encode`], with the bytes of the text that each token stands for. Tokens that share a
    /// character have its whole range each.
    ///
    /// # Errors
    /// [`TokenizerError::Apply`].
    pub fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), TokenizerError> {
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|e| TokenizerError::Apply { action: "encode the text", what: e.to_string() })?;
        let offsets = encoding.get_offsets().iter().map(|&(from, to)| from..to).collect();
        Ok((encoding.get_ids().to_vec(), offsets))
    }

    /// The tokens that the post-processor of the file puts before a text: a begin-of-text token, or none.
    ///
    /// # Errors
    /// [`TokenizerError::Apply`].
    pub fn prefix(&self) -> Result<Vec<u32>, TokenizerError> {
        // What stands before and behind is told apart by a text between them.
        let (bare, whole) = (self.encode("a")?, self.encode_with_special("a")?);
        let at = whole.windows(bare.len().max(1)).position(|w| w == bare).unwrap_or(0);
        Ok(whole[..at].to_vec())
    }

    fn encode_as(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .inner
            .encode_fast(text, add_special)
            .map_err(|e| TokenizerError::Apply { action: "encode the text", what: e.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids. Bytes that are no UTF-8 become U+FFFD; ids outside the vocabulary (rows of a padded
    /// embedding) give no text. With `skip_special`, special tokens give none either.
    ///
    /// # Errors
    /// [`TokenizerError::Apply`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|e| TokenizerError::Apply { action: "decode the ids", what: e.to_string() })
    }

    /// A decoder that takes one id after the other.
    pub fn stream(&self, skip_special: bool) -> Stream<'_> {
        Stream::new(self, skip_special)
    }

    /// The number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token of an id as the vocabulary writes it: in byte-level vocabularies a space is `Ġ`.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token as the vocabulary writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// True for the id of a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.token(id).is_some_and(|t| self.inner.get_added_vocabulary().is_special_token(&t))
    }
}
