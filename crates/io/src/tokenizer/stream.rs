use super::{Tokenizer, TokenizerError};

/// Decodes ids as they come, for printing while a model writes.
///
/// The concatenation of all pieces, [`Stream::finish`] included, is what [`Tokenizer::decode`] gives for all ids
/// together. A piece never ends within a character: the bytes wait for the ids that complete it.
#[derive(Clone, Debug)]
pub struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    ids: Vec<u32>,
    /// The first `told` ids have been given as text. They stay as context, because decoders treat the beginning of
    /// a text differently.
    told: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Stream { tokenizer, skip_special, ids: Vec::new(), told: 0 }
    }

    /// Takes an id and gives the text that it completes, if any.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn try_push(&mut self, id: u32) -> Result<Option<String>, TokenizerError> {
        self.ids.push(id);
        let (before, all) = self.texts()?;
        if all.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(None);
        }
        let piece = all.get(before.len()..).unwrap_or_default().to_owned();
        if piece.is_empty() {
            return Ok(None);
        }
        self.ids.drain(..self.told);
        self.told = self.ids.len();
        Ok(Some(piece))
    }

    /// As [`Stream::try_push`]; an id that cannot be decoded gives no text.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.try_push(id).ok().flatten()
    }

    /// The text of bytes that were still waiting, with U+FFFD where they are no character.
    pub fn finish(self) -> Option<String> {
        let (before, all) = self.texts().ok()?;
        all.get(before.len()..).filter(|rest| !rest.is_empty()).map(str::to_owned)
    }

    fn texts(&self) -> Result<(String, String), TokenizerError> {
        let before = self.tokenizer.decode(&self.ids[..self.told], self.skip_special)?;
        let all = self.tokenizer.decode(&self.ids, self.skip_special)?;
        Ok((before, all))
    }
}
