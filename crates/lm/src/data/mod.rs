//! Conversations: reading, tokenizing with a mask, splitting, packing, preview.
//!
//! The stages are separate functions, so that a caller can look at the rows between any two of them:
//! [`Rows`] reads JSON lines, [`Tokenizing::run`] turns them into [`Example`]s, [`split`] holds some out,
//! [`pack`] places them in rows of one length and [`PackedBatch::new`] writes the tables that a model reads.

mod batch;
mod error;
mod mask;
mod pack;
mod preview;
mod read;
mod stats;
#[cfg(test)]
mod tests;
mod text;

pub use batch::PackedBatch;
pub use error::DataError;
pub use mask::{Drop, Dropped, Prepared, Tokenizing};
pub use pack::{PackedRow, pack, unpacked};
pub use preview::{Piece, preview};
pub use read::{Conversation, Row, Rows};
pub use stats::{Lengths, Split, repeated, split};
pub use text::{TextPiece, TextPieces, TextUnit};

use rhumb_nn::io::template::ChatTemplate;
pub use rhumb_nn::io::template::Message;
use rhumb_nn::io::tokenizer::Tokenizer;

/// Text to token numbers.
pub trait Encoder {
    /// The tokens of `text`, special tokens recognised and none added.
    ///
    /// # Errors
    /// What the tokenizer says.
    fn encode(&self, text: &str) -> Result<Vec<u32>, String>;
}

/// A chat template.
pub trait ChatFormat {
    /// The text of a conversation; with `generation_prompt`, the header of the next assistant turn follows.
    ///
    /// # Errors
    /// What the template says.
    fn render(&self, messages: &[Message], generation_prompt: bool) -> Result<String, String>;
}

impl Encoder for Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        Tokenizer::encode(self, text).map_err(|e| e.to_string())
    }
}

impl ChatFormat for ChatTemplate {
    fn render(&self, messages: &[Message], generation_prompt: bool) -> Result<String, String> {
        ChatTemplate::render(self, messages, generation_prompt).map_err(|e| e.to_string())
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
}
