use rhumb_core::EvalError;
use rhumb_nn::loss::{LossKind, row::RowStats};
use rhumb_nn::model::{Decoder, TokenBatch, score};

use crate::data::{DataError, Example, PackedBatch, PackedRow, pack};
use crate::gem::Summary;

/// Rows of one evaluation batch.
const ROWS: usize = 4;

/// Held-out conversations, packed once.
pub struct HeldOut {
    examples: Vec<Example>,
    rows: Vec<PackedRow>,
    len: usize,
    kind: LossKind,
}

/// Losses of every trained token, by conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Statistics of the tokens of each conversation, in the order of the held-out data.
    pub documents: Vec<Vec<RowStats>>,
}

impl Scores {
    /// Means over all tokens; `None` without any.
    pub fn summary(&self) -> Option<Summary> {
        Summary::of(self.documents.iter().flatten())
    }
}

impl HeldOut {
    /// Packs the conversations.
    ///
    /// # Errors
    /// A conversation longer than a row.
    pub fn new(examples: &[Example], len: usize, kind: LossKind) -> Result<Self, DataError> {
        Ok(HeldOut { rows: pack(examples, len)?, examples: examples.to_vec(), len, kind })
    }

    /// Scores every conversation.
    ///
    /// # Errors
    /// When the model gives scores that are not finite.
    pub fn score(&self, model: &Decoder, params: &[f32], frozen: &[f32]) -> Result<Scores, EvalError> {
        self.score_as(self.kind, model, params, frozen)
    }

    /// As [`HeldOut::score`], under another loss.
    ///
    /// # Errors
    /// As [`HeldOut::score`].
    pub fn score_as(
        &self,
        kind: LossKind,
        model: &Decoder,
        params: &[f32],
        frozen: &[f32],
    ) -> Result<Scores, EvalError> {
        let mut documents = vec![Vec::new(); self.examples.len()];
        for rows in self.rows.chunks(ROWS) {
            let batch: TokenBatch = PackedBatch::new(&self.examples, rows, self.len).into();
            let owner = self.owners(rows);
            for t in score(model, params, frozen, &batch, kind)? {
                if !t.stats.ce.is_finite() {
                    return Err(EvalError::NonFinite { what: "held-out loss", block: None });
                }
                documents[owner[t.row]].push(t.stats);
            }
        }
        Ok(Scores { documents })
    }

    /// The conversation that each token of some rows belongs to.
    fn owners(&self, rows: &[PackedRow]) -> Vec<usize> {
        let mut owner = vec![0; rows.len() * self.len];
        for (r, row) in rows.iter().enumerate() {
            let mut at = r * self.len;
            for &i in &row.examples {
                let n = self.examples[i].ids.len();
                owner[at..at + n].fill(i);
                at += n;
            }
        }
        owner
    }
}
