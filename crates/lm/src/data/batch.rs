use rhumb_linalg::Real;
use rhumb_nn::model::TokenBatch;
use rhumb_nn::op::{Data, IGNORE};

use super::{Example, PackedRow};

/// Rows of documents as the tables that a decoder reads.
///
/// # Shapes
/// `ids`, `targets`, `positions`, `spans` are `[rows * len]`, rows one after another. `targets[i]` is the
/// token after `i` of the same document where that token is trained, else [`IGNORE`]. `positions` restart
/// with each document. `spans[i]` is `[start of the document, i + 1)` within the row, so that no token sees
/// another document. Padding is documents of one token, number 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedBatch {
    /// Rows.
    pub rows: usize,
    /// Tokens of a row.
    pub len: usize,
    /// Token numbers.
    pub ids: Vec<u32>,
    /// Labels, shifted.
    pub targets: Vec<u32>,
    /// Positions within documents.
    pub positions: Vec<u32>,
    /// Visible keys within the row.
    pub spans: Vec<(u32, u32)>,
}

impl PackedBatch {
    /// The tables of `rows` of `len` tokens. Documents that do not fit, which [`super::pack`] never makes,
    /// are cut at the end of the row.
    pub fn new(examples: &[Example], rows: &[PackedRow], len: usize) -> Self {
        let n = rows.len() * len;
        let mut out = PackedBatch {
            rows: rows.len(),
            len,
            ids: vec![0; n],
            targets: vec![IGNORE; n],
            positions: vec![0; n],
            spans: (0..n).map(|i| ((i % len) as u32, (i % len) as u32 + 1)).collect(),
        };
        for (r, row) in rows.iter().enumerate() {
            let mut start = 0;
            for example in row.examples.iter().filter_map(|&i| examples.get(i)) {
                let tokens = example.ids.len().min(len - start);
                for j in 0..tokens {
                    let at = r * len + start + j;
                    out.ids[at] = example.ids[j];
                    out.positions[at] = j as u32;
                    out.spans[at].0 = start as u32;
                    if j + 1 < tokens && example.live[j + 1] {
                        out.targets[at] = example.ids[j + 1];
                    }
                }
                start += tokens;
            }
        }
        out
    }

    /// Tokens that are trained.
    pub fn live(&self) -> usize {
        self.targets.iter().filter(|t| **t != IGNORE).count()
    }

    /// What a tape reads.
    pub fn data<T: Real>(&self) -> Data<'_, T> {
        Data {
            ids: &self.ids,
            positions: &self.positions,
            spans: &self.spans,
            targets: &self.targets,
            inputs: &[],
        }
    }
}

impl From<PackedBatch> for TokenBatch {
    /// The batch of a decoder, its weight one over the live tokens.
    fn from(b: PackedBatch) -> Self {
        TokenBatch {
            rows: b.rows,
            len: b.len,
            ids: b.ids,
            positions: b.positions,
            spans: b.spans,
            targets: b.targets,
            weight: 0.0,
        }
    }
}
