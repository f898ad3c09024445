use std::sync::Arc;

use rhumb_core::EvalError;
use rhumb_linalg::Real;
use rhumb_linalg::gemm::{Init, Mat, gemm};

use super::cache::KvCache;
use super::decoder::{BatchShape, Decoder, Plan};
use crate::op::Data;
use crate::ops::RopeTable;
use crate::tape::{Tape, Var};

/// One sequence under generation: the model, its cache, and graphs for the piece lengths in use.
pub struct Session<'a, T: Real> {
    model: &'a Decoder,
    params: &'a [T],
    frozen: &'a [T],
    rope: Option<Arc<RopeTable<T>>>,
    cache: KvCache<T>,
    tapes: Vec<(usize, Tape<T>, Var)>,
    hidden: Vec<T>,
}

/// Longest piece that runs through one graph; longer prompts are cut.
const PIECE: usize = 256;

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

    /// Forgets all but the first `n` tokens.
    pub fn truncate(&mut self, n: usize) {
        self.cache.truncate(n);
    }

    /// Appends tokens and returns the logits of the next one, `[vocab]`: not normalised, not divided by a temperature.
    ///
    /// # Errors
    /// No token, a token outside the vocabulary, or more tokens than fit.
    pub fn push(&mut self, ids: &[u32]) -> Result<Vec<T>, EvalError> {
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
        if self.cache.past() + ids.len() > self.cache.capacity() {
            return Err(EvalError::Unsupported(format!(
                "{} tokens do not fit the context of {}: shorten the prompt or ask for fewer new tokens",
                self.cache.past() + ids.len(),
                self.cache.capacity()
            )));
        }
        for piece in ids.chunks(PIECE) {
            self.piece(piece)?;
        }
        let base = if self.model.is_adapted() { self.frozen } else { self.params };
        let head = &base[self.model.head_range()];
        let mut logits = vec![T::ZERO; c.vocab];
        let last = &self.hidden[self.hidden.len() - c.width..];
        let (a, b) = (Mat::rows(last, c.width), Mat::cols(head, c.width));
        gemm(true, (1, c.vocab, c.width), T::ONE, &mut logits, c.vocab, a, b, Init::Zero);
        Ok(logits)
    }

    fn piece(&mut self, ids: &[u32]) -> Result<(), EvalError> {
        let n = ids.len();
        let k = match self.tapes.iter().position(|t| t.0 == n) {
            Some(k) => k,
            None => {
                let plan = Plan { loss: None, checkpoint: false };
                let (graph, out) = self.model.graph(BatchShape { rows: 1, len: n }, plan, self.rope.as_ref());
                self.tapes.push((n, Tape::new(graph)?, out));
                self.tapes.len() - 1
            }
        };
        let past = self.cache.past() as u32;
        let positions: Vec<u32> = (past..past + n as u32).collect();
        let data = Data { ids, positions: &positions, spans: &[], targets: &[], inputs: &[] };
        self.hidden.resize(n * self.model.config().width, T::ZERO);
        let (_, tape, out) = &mut self.tapes[k];
        tape.value(self.params, self.frozen, data, Some(&self.cache), *out, &mut self.hidden)?;
        self.cache.advance(n);
        Ok(())
    }
}
