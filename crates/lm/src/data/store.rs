use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use rhumb_io::words::{Words, WordsWriter};
use rhumb_linalg::rng::Rng;

use super::pack::pack_lengths;
use super::stats::{Part, parts};
use super::{DataError, Example, Lengths, PackedRow};

/// The bit of a word that tells whether its token is trained; tokens are below it.
const LIVE: u32 = 1 << 31;

/// Tokenized documents, read by position from memory or from a file.
///
/// # Cost
/// Four bytes a token, the mask among them, in memory or in the file; 32 bytes a document in memory.
#[derive(Clone, Debug)]
pub struct Examples {
    words: Arc<Words>,
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    at: u64,
    len: u32,
    targets: u32,
    line: u64,
    /// Hash of the tokens, without the mask.
    print: u64,
}

/// Collects documents.
#[derive(Debug)]
pub struct ExamplesWriter {
    words: WordsWriter,
    spans: Vec<Span>,
}

/// What [`Examples::split`] gives.
#[derive(Clone, Debug)]
pub struct StoredSplit {
    /// To train on.
    pub train: Examples,
    /// To judge by.
    pub held_out: Vec<Example>,
    /// Documents of the training part that were dropped because they repeat a held-out one token by token.
    pub twins: usize,
}

impl ExamplesWriter {
    /// No document yet. `memory` bytes of tokens are kept in memory; more move to the file `path`, which lives as long as
    /// the documents.
    pub fn new(memory: u64, path: impl Into<PathBuf>) -> Self {
        ExamplesWriter { words: WordsWriter::new(memory, path), spans: Vec::new() }
    }

    /// Appends a document.
    ///
    /// # Errors
    /// [`DataError::File`] when the file cannot be written.
    pub fn push(&mut self, example: &Example) -> Result<(), DataError> {
        let at = self.words.len();
        self.words.push(&packed(example))?;
        self.spans.push(Span::of(example, at));
        Ok(())
    }

    /// The documents.
    ///
    /// # Errors
    /// As [`ExamplesWriter::push`].
    pub fn finish(self) -> Result<Examples, DataError> {
        Ok(Examples { words: Arc::new(self.words.finish()?), spans: self.spans })
    }
}

/// Tokens and mask in one word each.
fn packed(example: &Example) -> Vec<u32> {
    let word = |(&id, &live): (&u32, &bool)| (id & !LIVE) | if live { LIVE } else { 0 };
    example.ids.iter().zip(&example.live).map(word).collect()
}

/// Equal for equal tokens.
fn print(ids: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    ids.hash(&mut hasher);
    hasher.finish()
}

impl Span {
    fn of(example: &Example, at: u64) -> Self {
        Span {
            at,
            len: example.ids.len() as u32,
            targets: example.targets() as u32,
            line: example.line as u64,
            print: print(&example.ids),
        }
    }
}

impl From<Vec<Example>> for Examples {
    fn from(examples: Vec<Example>) -> Self {
        let (mut words, mut spans) = (Vec::new(), Vec::with_capacity(examples.len()));
        for example in examples {
            spans.push(Span::of(&example, words.len() as u64));
            words.extend(packed(&example));
        }
        Examples { words: Arc::new(Words::from(words)), spans }
    }
}

impl Examples {
    /// Documents.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// True without any document.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The file that holds the tokens, if they outgrew their memory.
    pub fn file(&self) -> Option<PathBuf> {
        self.words.file()
    }

    /// Document `i`.
    ///
    /// # Errors
    /// [`DataError::File`] when the file cannot be read or there is no such document.
    pub fn get(&self, i: usize) -> Result<Example, DataError> {
        let span = self.spans.get(i).copied().unwrap_or(Span {
            at: u64::MAX,
            len: 1,
            targets: 0,
            line: 0,
            print: 0,
        });
        let words = self.words.read(span.at, span.len as usize)?;
        Ok(Example {
            ids: words.iter().map(|w| w & !LIVE).collect(),
            live: words.iter().map(|w| w & LIVE != 0).collect(),
            line: span.line as usize,
        })
    }

    /// All documents, in memory.
    ///
    /// # Errors
    /// As [`Examples::get`].
    pub fn to_vec(&self) -> Result<Vec<Example>, DataError> {
        (0..self.len()).map(|i| self.get(i)).collect()
    }

    /// Lengths in tokens; nothing is read.
    pub fn lengths(&self) -> Lengths {
        Lengths::from_counts(self.spans.iter().map(|s| (s.len as usize, s.targets as usize)))
    }

    /// As [`super::pack`]; nothing is read.
    ///
    /// # Errors
    /// A document longer than `len`.
    pub fn pack(&self, len: usize) -> Result<Vec<PackedRow>, DataError> {
        if let Some(s) = self.spans.iter().find(|s| s.len as usize > len) {
            return Err(DataError::TooLong { line: s.line as usize, tokens: s.len as usize, len });
        }
        Ok(pack_lengths(&self.spans.iter().map(|s| s.len as usize).collect::<Vec<_>>(), len))
    }

    /// As [`super::split`], with the same result.
    ///
    /// # Errors
    /// Nothing would be left to train on; the file cannot be read.
    pub fn split(self, held_out: usize, seed: u64) -> Result<StoredSplit, DataError> {
        let parts = parts(&self.groups()?, held_out, seed)?;
        let of = |part: Part| parts.iter().enumerate().filter(move |(_, p)| **p == part).map(|(i, _)| i);
        let held_out = of(Part::HeldOut).map(|i| self.get(i)).collect::<Result<_, _>>()?;
        let twins = of(Part::Twin).count();
        let spans = of(Part::Train).map(|i| self.spans[i]).collect();
        Ok(StoredSplit { train: Examples { words: self.words, spans }, held_out, twins })
    }

    /// `n` documents drawn by a seed, in the order of the file; all where there are no more.
    pub fn draw(mut self, n: usize, seed: u64) -> Examples {
        if n < self.spans.len() {
            let mut order: Vec<usize> = (0..self.spans.len()).collect();
            Rng::named(seed, "draw").shuffle(&mut order);
            order.truncate(n);
            order.sort_unstable();
            self.spans = order.into_iter().map(|i| self.spans[i]).collect();
        }
        self
    }

    /// For each document the first one with the same tokens. Documents are only read where their hashes agree.
    fn groups(&self) -> Result<Vec<usize>, DataError> {
        let mut first: HashMap<u64, usize> = HashMap::with_capacity(self.len());
        let mut out = Vec::with_capacity(self.len());
        for (i, span) in self.spans.iter().enumerate() {
            let earlier = *first.entry(span.print).or_insert(i);
            let same = earlier == i || self.get(earlier)?.ids == self.get(i)?.ids;
            out.push(if same { earlier } else { i });
        }
        Ok(out)
    }

    /// How many of `held_out` stand here too, token by token.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn repeated(&self, held_out: &[Example]) -> Result<usize, DataError> {
        let first: HashMap<u64, usize> = self.spans.iter().enumerate().map(|(i, s)| (s.print, i)).collect();
        let mut n = 0;
        for example in held_out {
            if let Some(&i) = first.get(&print(&example.ids)) {
                n += usize::from(self.get(i)?.ids == example.ids);
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rhumb_linalg::rng::Rng;

    use super::*;
    use crate::data::{pack, repeated, split};

    fn documents(n: usize) -> Vec<Example> {
        let mut rng = Rng::named(3, "documents");
        (0..n)
            .map(|i| {
                let ids: Vec<u32> = (0..2 + rng.below(6)).map(|_| rng.below(3) as u32).collect();
                let live = ids.iter().map(|_| rng.below(2) == 1).collect();
                Example { ids, live, line: 2 * i + 1 }
            })
            .collect()
    }

    fn stored(examples: &[Example], memory: u64, dir: &std::path::Path) -> Examples {
        let mut w = ExamplesWriter::new(memory, dir.join("tokens"));
        examples.iter().for_each(|e| w.push(e).unwrap());
        w.finish().unwrap()
    }

    #[test]
    fn documents_come_back_as_they_were_from_memory_and_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let want = documents(200);
        for memory in [u64::MAX, 0, 100] {
            let got = stored(&want, memory, dir.path());
            assert_eq!(got.file().is_some(), memory < u64::MAX);
            assert_eq!(got.to_vec().unwrap(), want);
            assert_eq!(got.lengths(), Lengths::of(&want));
            assert!(got.get(200).is_err());
        }
        assert_eq!(Examples::from(want.clone()).to_vec().unwrap(), want);
    }

    #[test]
    fn packing_splitting_and_counting_agree_with_those_of_a_list() {
        let dir = tempfile::tempdir().unwrap();
        // Short documents over three tokens repeat each other.
        let list = documents(300);
        let s = stored(&list, 50, dir.path());
        assert_eq!(s.pack(9).unwrap(), pack(&list, 9).unwrap());
        assert!(matches!(s.pack(3), Err(DataError::TooLong { len: 3, .. })));
        let held = documents(20);
        assert_eq!(s.repeated(&held).unwrap(), repeated(&list, &held));
        for seed in 0..3 {
            let want = split(list.clone(), 30, seed).unwrap();
            let got = s.clone().split(30, seed).unwrap();
            assert_eq!((got.held_out, got.twins), (want.held_out, want.twins));
            assert_eq!(got.train.to_vec().unwrap(), want.train);
            assert!(want.twins > 0);
        }
        assert!(matches!(s.split(300, 0), Err(DataError::Split { rows: 300, .. })));
    }
}
