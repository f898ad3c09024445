use std::sync::Arc;

use rhumb_core::EvalError;
use rhumb_linalg::gemm::{Init, Mat, gemm};
use rhumb_linalg::{Real, compiled};

use super::cache::KvCache;
use super::decoder::{BatchShape, Decoder, Plan};
use crate::op::Data;
use crate::ops::RopeTable;
use crate::tape::{Tape, Var};

/// One sequence under generation: the model, its cache, and graphs for the batches in use.
pub struct Session<'a, T: Real> {
    model: &'a Decoder,
    params: &'a [T],
    frozen: &'a [T],
    rope: Option<Arc<RopeTable<T>>>,
    cache: KvCache<T>,
    tapes: Vec<(BatchShape, Tape<T>, Var)>,
    hidden: Vec<T>,
    logits: Vec<T>,
}

/// Longest piece that runs through one graph; longer prompts are cut.
const PIECE: usize = 256;

compiled!(
    Sweep<'s, 'a: 's>,
    |(session, shape, ids): (&'s mut Session<'a, T>, BatchShape, &'s [u32])| -> Result<(), EvalError> {
        session.swept(shape, ids)
    }
);

impl<'a, T: Real> Session<'a, T> {
    /// An empty sequence with room for `capacity` tokens.
    ///
    /// `params` are the trained parameters, in the order of [`Decoder::layout`]. `frozen` is the base of an adapted
    /// model, in the order of [`Decoder::base_layout`], and empty for a model without adapters.
    pub fn new(model: &'a Decoder, params: &'a [T], frozen: &'a [T], capacity: usize) -> Self {
        let c = model.config();
        let capacity = capacity.min(c.positions);
        Session {
            model,
            params,
            frozen,
            rope: model.rope(capacity),
            cache: KvCache::new(c.layers, capacity, c.kv_heads * c.head_dim),
            tapes: Vec::new(),
            hidden: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Tokens seen.
    pub fn len(&self) -> usize {
        self.cache.past()
    }

    /// True before the first token.
    pub fn is_empty(&self) -> bool {
        self.cache.past() == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// Forgets all but the first `n` tokens.
    pub fn truncate(&mut self, n: usize) {
        self.cache.truncate(n);
    }

    /// Appends tokens and returns the logits of the next one, `[vocab]`: not normalised, not divided by a temperature.
    ///
    /// # Errors
    /// No token, a token outside the vocabulary, or more tokens than fit.
    pub fn push(&mut self, ids: &[u32]) -> Result<Vec<T>, EvalError> {
        self.check(ids, ids.len())?;
        for piece in ids.chunks(PIECE) {
            self.sweep(BatchShape { rows: 1, len: piece.len() }, piece)?;
            self.cache.advance(piece.len());
        }
        Ok(self.head(1).to_vec())
    }

    /// Lets `rows` continuations grow side by side, by `room` tokens at most. The tokens so far are held once, and a
    /// token of every branch goes through the model together.
    pub fn branch(&mut self, rows: usize, room: usize) -> Branches<'_, 'a, T> {
        self.cache.branch(rows, room);
        Branches { session: self, rows }
    }

    fn check(&self, ids: &[u32], more: usize) -> Result<(), EvalError> {
        let c = self.model.config();
        if ids.is_empty() {
            return Err(EvalError::Unsupported("nothing to append: the prompt is empty".into()));
        }
        if let Some(t) = ids.iter().find(|t| **t as usize >= c.vocab) {
            return Err(EvalError::Unsupported(format!(
                "token {t} is outside the vocabulary of {}: does the tokenizer belong to this model?",
                c.vocab
            )));
        }
        if self.cache.past() + more > self.cache.capacity() {
            return Err(EvalError::Unsupported(format!(
                "{} tokens do not fit the context of {}: shorten the prompt or ask for fewer new tokens",
                self.cache.past() + more,
                self.cache.capacity()
            )));
        }
        Ok(())
    }

    fn sweep(&mut self, shape: BatchShape, ids: &[u32]) -> Result<(), EvalError> {
        T::compiled::<Sweep<'_, 'a>>((self, shape, ids))
    }

    fn swept(&mut self, shape: BatchShape, ids: &[u32]) -> Result<(), EvalError> {
        let k = match self.tapes.iter().position(|t| t.0 == shape) {
            Some(k) => k,
            None => {
                let plan = Plan { loss: None, checkpoint: false };
                let (graph, out) = self.model.graph(shape, plan, self.rope.as_ref());
                self.tapes.push((shape, Tape::new(graph)?, out));
                self.tapes.len() - 1
            }
        };
        let past = self.cache.past() as u32;
        let positions: Vec<u32> = (0..ids.len()).map(|i| past + (i % shape.len) as u32).collect();
        let data = Data { ids, positions: &positions, spans: &[], targets: &[], inputs: &[] };
        self.hidden.resize(ids.len() * self.model.config().width, T::ZERO);
        let (_, tape, out) = &mut self.tapes[k];
        tape.value(self.params, self.frozen, data, Some(&self.cache), *out, &mut self.hidden)
    }

    /// The logits after the last `rows` tokens of the last sweep.
    fn head(&mut self, rows: usize) -> &[T] {
        let c = self.model.config();
        let base = if self.model.is_adapted() { self.frozen } else { self.params };
        let head = &base[self.model.head_range()];
        self.logits.resize(rows * c.vocab, T::ZERO);
        let last = &self.hidden[self.hidden.len() - rows * c.width..];
        let (a, b) = (Mat::rows(last, c.width), Mat::cols(head, c.width));
        gemm(true, (rows, c.vocab, c.width), T::ONE, &mut self.logits, c.vocab, a, b, Init::Zero);
        &self.logits
    }
}

/// Continuations of one sequence that grow side by side. Dropping them leaves the sequence as it was.
pub struct Branches<'s, 'a, T: Real> {
    session: &'s mut Session<'a, T>,
    rows: usize,
}

impl<T: Real> Branches<'_, '_, T> {
    /// Branches that are left.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens of every branch, the common ones included.
    pub fn len(&self) -> usize {
        self.session.cache.past()
    }

    /// True before the first token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends one token to every branch and returns the logits of the next ones, `[rows, vocab]`.
    ///
    /// # Errors
    /// Another number of tokens than branches, a token outside the vocabulary, or a full context.
    pub fn push(&mut self, ids: &[u32]) -> Result<&[T], EvalError> {
        if ids.len() != self.rows {
            return Err(EvalError::Shape { what: "tokens of branches", want: self.rows, got: ids.len() });
        }
        self.session.check(ids, 1)?;
        if self.session.cache.is_full() {
            return Err(EvalError::Unsupported(
                "the branches have no room for another token: ask for more when they begin".into(),
            ));
        }
        self.session.sweep(BatchShape { rows: self.rows, len: 1 }, ids)?;
        self.session.cache.advance(1);
        Ok(self.session.head(self.rows))
    }

    /// Drops all branches but those, in ascending order.
    pub fn keep(&mut self, rows: &[usize]) {
        self.session.cache.keep(rows);
        self.rows = rows.len();
    }
}

impl<T: Real> Drop for Branches<'_, '_, T> {
    fn drop(&mut self) {
        self.session.cache.join();
    }
}
