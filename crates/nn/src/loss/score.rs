use rhumb_core::EvalError;
use rhumb_linalg::gemm::{Init, Mat, gemm};
use rhumb_linalg::{Real, compiled};

use super::head::{Live, LmHead};
use super::rows::{Pass, rows_in_place};
use super::{LossKind, RowStats};
use crate::op::LossReport;

/// Loss and statistics of one scored token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// Row of the token.
    pub row: usize,
    /// Its label.
    pub label: u32,
    /// Loss, cross-entropy, entropy.
    pub stats: RowStats,
}

/// Per-token losses of hidden rows, without gradients.
///
/// # Errors
/// A label outside the vocabulary.
pub fn score_rows<T: Real>(
    kind: LossKind,
    hidden: &[T],
    weight: &[T],
    width: usize,
    targets: &[u32],
) -> Result<Vec<TokenScore>, EvalError> {
    T::compiled::<Scores<'_>>((kind, hidden, weight, width, targets))
}

type Arguments<'a, T> = (LossKind, &'a [T], &'a [T], usize, &'a [u32]);

compiled!(Scores<'a>, |arguments: Arguments<'a, T>| -> Result<Vec<TokenScore>, EvalError> {
    scores(arguments)
});

fn scores<T: Real>(
    (kind, hidden, weight, width, targets): Arguments<'_, T>,
) -> Result<Vec<TokenScore>, EvalError> {
    let vocab = weight.len() / width;
    let head = LmHead::new(targets.len(), width, vocab, kind);
    let mut live = Live::default();
    head.collect_live(targets, &mut live.index)?;
    let mut out = Vec::with_capacity(live.index.len());
    let (mut h, mut z) = (vec![T::ZERO; head.chunk * width], vec![T::ZERO; head.chunk * vocab]);
    for index in live.index.chunks(head.chunk) {
        let n = index.len();
        head.gather(hidden, index, &mut h);
        let (h, z) = (&h[..n * width], &mut z[..n * vocab]);
        gemm(
            true,
            (n, vocab, width),
            T::ONE,
            z,
            vocab,
            Mat::rows(h, width),
            Mat::cols(weight, width),
            Init::Zero,
        );
        let label = |i: usize| targets[index[i] as usize];
        rows_in_place(kind, z, vocab, label, Pass::Value, &mut live.stats, &mut LossReport::default())?;
        out.extend(index.iter().zip(&live.stats).map(|(&i, &stats)| TokenScore {
            row: i as usize,
            label: targets[i as usize],
            stats,
        }));
    }
    Ok(out)
}
