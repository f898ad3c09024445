//! Pre-training: windows of a long stream of tokens instead of conversations.

pub mod characters;
pub mod tale;

use rhumb_core::EvalError;
use rhumb_io::IoError;
use rhumb_io::tokens::TokenShards;
use rhumb_nn::model::TokenBatch;

use crate::data::Example;
use crate::sft::{Order, SftError, Source};

/// A long sequence of tokens.
pub trait TokenStream: Send {
    /// Tokens of the whole stream.
    fn len(&self) -> u64;

    /// True without any token.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token at which a document ends, if documents are kept apart.
    fn eos(&self) -> Option<u32>;

    /// Fills `out` with the tokens from place `at` on.
    ///
    /// # Errors
    /// [`IoError`] when the window ends after the last token or cannot be read.
    fn read(&self, at: u64, out: &mut [u32]) -> Result<(), IoError>;
}

impl TokenStream for TokenShards {
    fn len(&self) -> u64 {
        TokenShards::len(self)
    }
    fn eos(&self) -> Option<u32> {
        self.info().eos
    }
    fn read(&self, at: u64, out: &mut [u32]) -> Result<(), IoError> {
        TokenShards::read(self, at, out)
    }
}

/// Tokens in memory, one document.
impl TokenStream for Vec<u32> {
    fn len(&self) -> u64 {
        Vec::len(self) as u64
    }
    fn eos(&self) -> Option<u32> {
        None
    }
    fn read(&self, at: u64, out: &mut [u32]) -> Result<(), IoError> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..)?.get(..out.len()));
        let from = from.ok_or_else(|| IoError::Missing {
            path: "tokens in memory".into(),
            what: format!("end before {} tokens from place {at} on", out.len()),
        })?;
        out.copy_from_slice(from);
        Ok(())
    }
}

/// Consecutive windows of a token stream, in a seeded order drawn anew for every pass.
///
/// Window `w` begins at token `w * len`; its targets are the tokens one place later, so every token but the first is
/// predicted once in a pass. The last windows are held out.
///
/// # Cost
/// One read of `2 (len + 1)` or `4 (len + 1)` bytes per row; 8 bytes per window for the order.
pub struct Windows {
    stream: Box<dyn TokenStream>,
    len: usize,
    order: Order,
    held_out: usize,
    separate: Option<u32>,
}

impl Windows {
    /// Windows of `len` tokens; `held_out` of them, at the end of the stream, are kept for evaluation. With
    /// `separate`, documents that share a window do not see each other and positions restart after the end token.
    ///
    /// # Errors
    /// A stream too short, or separation without an end token in the shards.
    pub fn new(
        stream: impl TokenStream + 'static,
        len: usize,
        held_out: usize,
        separate: bool,
        seed: u64,
    ) -> Result<Self, SftError> {
        // The last target of the last window needs one token more.
        let windows = usize::try_from(stream.len().saturating_sub(1)).unwrap_or(usize::MAX) / len.max(1);
        if windows <= held_out {
            return Err(SftError::Setting(format!(
                "{} tokens make {windows} windows of {len}, of which {held_out} are held out: that leaves none to \
                 train on; take more text, hold out fewer (--held-out) or shorten the windows (--tokens)",
                stream.len()
            )));
        }
        let separate = match (separate, stream.eos()) {
            (false, _) => None,
            (true, Some(eos)) => Some(eos),
            (true, None) => {
                return Err(SftError::Setting(
                    "documents can only be kept apart where the shards have an end token; tokenize without --no-eos"
                        .into(),
                ));
            }
        };
        Ok(Windows {
            stream: Box::new(stream),
            len,
            order: Order::new(windows - held_out, seed),
            held_out,
            separate,
        })
    }

    /// The held-out windows, every token trained.
    ///
    /// # Errors
    /// When a shard cannot be read.
    pub fn held_out(&self) -> Result<Vec<Example>, IoError> {
        let first = self.order.rows();
        (first..first + self.held_out)
            .map(|w| {
                let mut ids = vec![0; self.len];
                self.stream.read((w * self.len) as u64, &mut ids)?;
                Ok(Example { live: vec![true; self.len], ids, line: w + 1 })
            })
            .collect()
    }
}

impl Source for Windows {
    fn batch(&mut self, first: u64, rows: usize) -> Result<TokenBatch, EvalError> {
        let len = self.len;
        let n = rows * len;
        let mut batch = TokenBatch {
            rows,
            len,
            ids: vec![0; n],
            positions: (0..n).map(|i| (i % len) as u32).collect(),
            spans: (0..n).map(|i| (0, (i % len) as u32 + 1)).collect(),
            targets: vec![0; n],
            weight: 0.0,
        };
        let mut window = vec![0; len + 1];
        for r in 0..rows {
            let at = self.order.at(first + r as u64) as u64 * len as u64;
            self.stream.read(at, &mut window).map_err(|e| EvalError::Unsupported(e.to_string()))?;
            let row = r * len..(r + 1) * len;
            batch.ids[row.clone()].copy_from_slice(&window[..len]);
            batch.targets[row.clone()].copy_from_slice(&window[1..]);
            if let Some(eos) = self.separate {
                let mut start = 0;
                for (i, at) in row.enumerate() {
                    batch.positions[at] = (i - start) as u32;
                    batch.spans[at].0 = start as u32;
                    if window[i] == eos {
                        start = i + 1;
                    }
                }
            }
        }
        Ok(batch)
    }

    fn rows(&self) -> usize {
        self.order.rows()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rhumb_io::tokens::TokenWriter;

    use super::*;

    fn shards(dir: &std::path::Path, eos: Option<u32>) -> TokenShards {
        let mut w = TokenWriter::create(dir, 1000, String::new(), eos, 13).unwrap();
        for d in 0..10 {
            w.push(&(1..10).map(|i| d * 10 + i).collect::<Vec<_>>()).unwrap();
            w.end_document().unwrap();
        }
        w.finish().unwrap();
        TokenShards::open(dir).unwrap()
    }

    #[test]
    fn every_token_of_a_pass_is_predicted_once_by_its_predecessor() {
        let tmp = tempfile::tempdir().unwrap();
        let mut w = Windows::new(shards(tmp.path(), Some(0)), 8, 2, false, 3).unwrap();
        assert_eq!(w.rows(), 10);
        let b = w.batch(0, 10).unwrap();
        let mut pairs: Vec<(u32, u32)> = b.ids.iter().copied().zip(b.targets.iter().copied()).collect();
        pairs.sort_unstable();
        let stream: Vec<u32> = (0..100).map(|i| if i % 10 == 9 { 0 } else { i + 1 }).collect();
        let mut want: Vec<(u32, u32)> = stream.windows(2).take(80).map(|p| (p[0], p[1])).collect();
        want.sort_unstable();
        assert_eq!(pairs, want);
        assert_eq!(b.spans[7], (0, 8));
        let held: Vec<u32> = w.held_out().unwrap().iter().flat_map(|e| e.ids.clone()).collect();
        assert_eq!(held, stream[80..96]);
    }

    #[test]
    fn documents_of_one_window_can_be_kept_apart() {
        let tmp = tempfile::tempdir().unwrap();
        let mut w = Windows::new(shards(tmp.path(), Some(0)), 98, 0, true, 0).unwrap();
        let b = w.batch(0, 1).unwrap();
        for i in 0..98 {
            assert_eq!((b.positions[i], b.spans[i]), ((i % 10) as u32, ((i - i % 10) as u32, i as u32 + 1)));
        }
    }

    #[test]
    fn too_little_text_and_no_end_token_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let error = |r: Result<Windows, SftError>| r.err().unwrap().to_string();
        let short = error(Windows::new(shards(tmp.path(), None), 50, 1, false, 0));
        assert!(short.contains("1 windows of 50, of which 1 are held out"), "{short}");
        assert!(short.contains("(--held-out)") && short.contains("(--tokens)"), "{short}");
        let tmp = tempfile::tempdir().unwrap();
        let apart = error(Windows::new(shards(tmp.path(), None), 8, 1, true, 0));
        assert!(apart.contains("--no-eos"), "{apart}");
    }
}
