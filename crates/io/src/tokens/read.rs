use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ::safetensors::Dtype;

use super::{FORMAT, INDEX, TENSOR, TokensInfo, shard_name, width};
use crate::{IoError, safetensors};

/// Token shards opened for reading at any place.
#[derive(Debug)]
pub struct TokenShards {
    info: TokensInfo,
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: Mutex<File>,
    /// Byte of the first token.
    at: u64,
    /// Place of the first token in the whole stream.
    first: u64,
    tokens: u64,
}

impl TokenShards {
    /// Opens a folder and checks every shard's header and length against the index.
    ///
    /// # Errors
    /// [`IoError`] for a folder without index, a shard that is missing, cut off or of another type or length.
    pub fn open(dir: &Path) -> Result<Self, IoError> {
        let path = dir.join(INDEX);
        let text = fs::read(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound if dir.is_dir() => IoError::Missing {
                path: dir.to_owned(),
                what: "has no tokens.json: it holds no token shards, or writing them was interrupted; make them \
                       with rhumb data tokenize"
                    .to_owned(),
            },
            _ => IoError::io("read", &path, e),
        })?;
        let info: TokensInfo =
            serde_json::from_slice(&text).map_err(|source| IoError::Json { path: path.clone(), source })?;
        if info.format != FORMAT {
            let what = format!("is {:?}, read here is {FORMAT:?}; make the shards again", info.format);
            return Err(IoError::key(&path, "format", what));
        }
        let mut shards = Vec::with_capacity(info.shards.len());
        let mut first = 0;
        for (i, &tokens) in info.shards.iter().enumerate() {
            shards.push(Shard::open(dir.join(shard_name(i)), first, tokens, info.vocab)?);
            first = first.checked_add(tokens).ok_or_else(|| {
                IoError::key(&path, "shards", "do not add up to a number of tokens; make the shards again")
            })?;
        }
        Ok(TokenShards { info, shards })
    }

    /// What the folder says about itself.
    pub fn info(&self) -> &TokensInfo {
        &self.info
    }

    /// Tokens of all shards.
    pub fn len(&self) -> u64 {
        self.info.tokens()
    }

    /// True without any token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` with the tokens from place `at` on.
    ///
    /// # Errors
    /// [`IoError`] when the window ends after the last token, a shard cannot be read, or a token is outside the
    /// vocabulary.
    ///
    /// # Cost
    /// One read of the bytes per shard that the window touches.
    pub fn read(&self, at: u64, out: &mut [u32]) -> Result<(), IoError> {
        let (mut at, mut out) = (at, out);
        while !out.is_empty() {
            let next = self.shards.partition_point(|s| s.first + s.tokens <= at);
            let Some(shard) = self.shards.get(next) else {
                let what = format!("a window ends after the last of {} tokens", self.len());
                return Err(IoError::Missing { path: PathBuf::from(INDEX), what });
            };
            let n = out.len().min(usize::try_from(shard.first + shard.tokens - at).unwrap_or(usize::MAX));
            let (now, later) = out.split_at_mut(n);
            shard.read(at - shard.first, now, self.info.vocab)?;
            at += n as u64;
            out = later;
        }
        Ok(())
    }
}

impl Shard {
    fn open(path: PathBuf, first: u64, tokens: u64, vocab: u32) -> Result<Self, IoError> {
        let (file, metadata, data) = safetensors::open(&path)?;
        let info = metadata
            .info(TENSOR)
            .ok_or_else(|| IoError::tensor(&path, TENSOR, "is not in this file; make the shards again"))?;
        let want = if width(vocab) == 2 { Dtype::U16 } else { Dtype::U32 };
        if info.dtype != want || info.shape != [tokens as usize] {
            let what = format!(
                "is {} {:?}, tokens.json promises {want} [{tokens}]; the files are not of one run: make them again",
                info.dtype, info.shape
            );
            return Err(IoError::tensor(&path, TENSOR, what));
        }
        let at = data + info.data_offsets.0 as u64;
        Ok(Shard { file: Mutex::new(file), at, first, tokens, path })
    }

    fn read(&self, from: u64, out: &mut [u32], vocab: u32) -> Result<(), IoError> {
        let wide = width(vocab);
        let mut bytes = vec![0; out.len() * wide];
        let at = self.at + from * wide as u64;
        {
            // A thread that panicked while it held the lock leaves a file position, which is set anew here.
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(at))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(|e| IoError::io("read", &self.path, e))?;
        }
        for (i, (to, b)) in out.iter_mut().zip(bytes.chunks_exact(wide)).enumerate() {
            let mut id = [0; 4];
            id[..wide].copy_from_slice(b);
            *to = u32::from_le_bytes(id);
            if *to >= vocab {
                let what = format!("token {to} is outside the vocabulary of {vocab}");
                return Err(IoError::malformed(&self.path, at + (i * wide) as u64, what));
            }
        }
        Ok(())
    }
}
