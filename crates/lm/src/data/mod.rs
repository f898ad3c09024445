//! Conversations: reading, tokenizing with a mask, splitting, packing, preview.
//!
//! The stages are separate functions, so that a caller can look at the rows between any two of them:
//! [`Rows`] reads JSON lines and [`Records`] the rows of a table, [`Tokenizing::run`] turns them into [`Example`]s, [`split`] holds some out,
//! [`pack`] places them in rows of one length and [`PackedBatch::new`] writes the tables that a model reads. Data that do
//! not fit into memory take [`Tokenizing::each`] and [`Examples`], which keep tokens in a file.

mod batch;
mod error;
mod format;
mod mask;
mod pack;
mod preview;
mod read;
mod shape;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod text;

pub use batch::PackedBatch;
pub use error::{DataError, is_parquet};
pub use format::{KEYS, RowFormat};
pub use mask::{Drop, Dropped, Intake, Prepared, Tokenizing};
pub use pack::{PackedRow, pack, unpacked};
pub use preview::{Piece, preview};
pub use read::{Conversation, Records, Row, Rows};
pub use stats::{Lengths, Split, repeated, split};
pub use store::{Examples, ExamplesWriter, StoredSplit};
pub use text::{TextPiece, TextPieces, TextUnit};

use std::ops::Range;

use rhumb_io::template::ChatTemplate;
pub use rhumb_io::template::{Marked, Message};
use rhumb_io::tokenizer::Tokenizer;
use serde_json::{Map, Value};

/// Text to token numbers.
pub trait Encoder {
    /// The tokens of `text`, special tokens recognised and none added.
    ///
    /// # Errors
    /// What the tokenizer says.
    fn encode(&self, text: &str) -> Result<Vec<u32>, String>;

    /// As [`Encoder::encode`], with the bytes of the text that each token stands for, in order. Templates that mark
    /// generated parts or rewrite earlier turns need it.
    ///
    /// # Errors
    /// What the tokenizer says; always, for one that does not know.
    fn encode_with_offsets(&self, _text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), String> {
        Err("this tokenizer does not tell where its tokens stand in the text".into())
    }

    /// The tokens that generation puts before a plain prompt: a begin-of-text token, or none.
    ///
    /// # Errors
    /// What the tokenizer says.
    fn prefix(&self) -> Result<Vec<u32>, String> {
        Ok(Vec::new())
    }
}

/// A chat template.
pub trait ChatFormat {
    /// The text of a conversation; with `generation_prompt`, the header of the next assistant turn follows.
    /// `variables` are what the template is given beside the messages, `tools` among them.
    ///
    /// # Errors
    /// What the template says.
    fn render(
        &self,
        messages: &[Message],
        generation_prompt: bool,
        variables: &Map<String, Value>,
    ) -> Result<String, String>;

    /// The same text without a generation prompt, and what of it the template itself marks as the assistant's;
    /// `None` when it marks nothing, ever.
    ///
    /// # Errors
    /// What the template says.
    fn render_marked(
        &self,
        _messages: &[Message],
        _variables: &Map<String, Value>,
    ) -> Result<Option<Marked>, String> {
        Ok(None)
    }
}

impl Encoder for Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        Tokenizer::encode(self, text).map_err(|e| e.to_string())
    }

    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), String> {
        Tokenizer::encode_with_offsets(self, text).map_err(|e| e.to_string())
    }

    fn prefix(&self) -> Result<Vec<u32>, String> {
        Tokenizer::prefix(self).map_err(|e| e.to_string())
    }
}

impl ChatFormat for ChatTemplate {
    fn render(
        &self,
        messages: &[Message],
        generation_prompt: bool,
        variables: &Map<String, Value>,
    ) -> Result<String, String> {
        self.render_with(messages, generation_prompt, variables).map_err(|e| e.to_string())
    }

    fn render_marked(
        &self,
        messages: &[Message],
        variables: &Map<String, Value>,
    ) -> Result<Option<Marked>, String> {
        ChatTemplate::render_marked(self, messages, variables).map_err(|e| e.to_string())
    }
}

/// One tokenized document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Token numbers.
    pub ids: Vec<u32>,
    /// Whether each token is trained.
    pub live: Vec<bool>,
    /// Line of the file, counted from one.
    pub line: usize,
}

impl Example {
    /// Tokens that become targets: live ones except the first, which nothing precedes.
    pub fn targets(&self) -> usize {
        self.live.iter().skip(1).filter(|l| **l).count()
    }

    /// For each token whether it is a target.
    pub fn mask(&self) -> Vec<bool> {
        self.live.iter().enumerate().map(|(i, l)| *l && i > 0).collect()
    }
}
