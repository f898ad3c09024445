use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ::safetensors::Dtype;
use ::safetensors::tensor::TensorView;

use super::{FORMAT, INDEX, TENSOR, TokensInfo, shard_name, width};
use crate::{IoError, atomic};

/// Writes token shards, one at a time.
#[derive(Debug)]
pub struct TokenWriter {
    dir: PathBuf,
    per_shard: usize,
    info: TokensInfo,
    /// Stored bytes of the shard that is being filled.
    buffer: Vec<u8>,
}

impl TokenWriter {
    /// Begins a folder of shards with at most `per_shard` tokens each; that many are held in memory.
    ///
    /// # Errors
    /// [`IoError`] when the folder cannot be made or already holds a finished set.
    pub fn create(
        dir: &Path,
        vocab: u32,
        tokenizer: String,
        eos: Option<u32>,
        per_shard: usize,
    ) -> Result<Self, IoError> {
        fs::create_dir_all(dir).map_err(|e| IoError::io("create", dir, e))?;
        if dir.join(INDEX).exists() {
            let source = std::io::Error::new(ErrorKind::AlreadyExists, "it already holds token shards");
            return Err(IoError::io("create", dir, source));
        }
        let info =
            TokensInfo { format: FORMAT.to_owned(), vocab, tokenizer, eos, documents: 0, shards: Vec::new() };
        Ok(TokenWriter { dir: dir.to_owned(), per_shard: per_shard.max(1), info, buffer: Vec::new() })
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// [`IoError`] for a token outside the vocabulary, or when a full shard cannot be written.
    pub fn push(&mut self, ids: &[u32]) -> Result<(), IoError> {
        let wide = width(self.info.vocab);
        for &id in ids {
            if id >= self.info.vocab {
                let what = format!("token {id} is outside the vocabulary of {}", self.info.vocab);
                return Err(IoError::malformed(&self.dir, self.info.tokens(), what));
            }
            self.buffer.extend_from_slice(&id.to_le_bytes()[..wide]);
            if self.buffer.len() == self.per_shard * wide {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Ends a document, with the end token where there is one.
    ///
    /// # Errors
    /// As [`TokenWriter::push`].
    pub fn end_document(&mut self) -> Result<(), IoError> {
        self.info.documents += 1;
        match self.info.eos {
            Some(eos) => self.push(&[eos]),
            None => Ok(()),
        }
    }

    /// Tokens so far.
    pub fn tokens(&self) -> u64 {
        self.info.tokens() + (self.buffer.len() / width(self.info.vocab)) as u64
    }

    /// Writes the last shard and the index.
    ///
    /// # Errors
    /// [`IoError`] when the disk refuses; without the index the folder counts as unfinished.
    pub fn finish(mut self) -> Result<TokensInfo, IoError> {
        if !self.buffer.is_empty() {
            self.flush()?;
        }
        let path = self.dir.join(INDEX);
        let mut text = serde_json::to_vec_pretty(&self.info)
            .map_err(|source| IoError::Json { path: path.clone(), source })?;
        text.push(b'\n');
        atomic::write_bytes(&path, &text)?;
        Ok(self.info)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        let path = self.dir.join(shard_name(self.info.shards.len()));
        let wide = width(self.info.vocab);
        let tokens = self.buffer.len() / wide;
        let dtype = if wide == 2 { Dtype::U16 } else { Dtype::U32 };
        let bad = |e: ::safetensors::SafeTensorError| IoError::malformed(&path, 0, e.to_string());
        let view = TensorView::new(dtype, vec![tokens], &self.buffer).map_err(bad)?;
        let bytes = ::safetensors::serialize([(TENSOR, view)], None).map_err(bad)?;
        atomic::write_bytes(&path, &bytes)?;
        self.info.shards.push(tokens as u64);
        self.buffer.clear();
        Ok(())
    }
}
