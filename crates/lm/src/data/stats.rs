use rhumb_linalg::rng::Rng;
use serde::Serialize;

use super::{DataError, Example};

/// Lengths of documents in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Lengths {
    /// Documents.
    pub documents: usize,
    /// Tokens in all.
    pub tokens: usize,
    /// Tokens that are targets.
    pub live: usize,
    /// Shortest.
    pub min: usize,
    /// Median (the lower of the two middle ones).
    pub median: usize,
    /// 95 of 100 are at most this long (nearest rank).
    pub p95: usize,
    /// Longest.
    pub max: usize,
    /// Mean.
    pub mean: f64,
}

impl Lengths {
    /// Statistics of `examples`; all zero when there are none.
    pub fn of(examples: &[Example]) -> Self {
        let mut n: Vec<usize> = examples.iter().map(|e| e.ids.len()).collect();
        n.sort_unstable();
        let (Some(&min), Some(&max)) = (n.first(), n.last()) else { return Lengths::default() };
        let rank = |percent: usize| n[(n.len() * percent).div_ceil(100).max(1) - 1];
        let tokens = n.iter().sum();
        Lengths {
            documents: n.len(),
            tokens,
            live: examples.iter().map(Example::targets).sum(),
            min,
            median: rank(50),
            p95: rank(95),
            max,
            mean: tokens as f64 / n.len() as f64,
        }
    }
}

/// Splits into training and held-out documents, chosen by `seed`; both keep the order of the file.
///
/// # Errors
/// Nothing would be left to train on.
pub fn split(
    examples: Vec<Example>,
    held_out: usize,
    seed: u64,
) -> Result<(Vec<Example>, Vec<Example>), DataError> {
    let rows = examples.len();
    if held_out >= rows {
        return Err(DataError::Split { rows, held_out });
    }
    let mut order: Vec<usize> = (0..rows).collect();
    Rng::named(seed, "split").shuffle(&mut order);
    let mut held = vec![false; rows];
    order[..held_out].iter().for_each(|&i| held[i] = true);
    let (mut train, mut test) = (Vec::with_capacity(rows - held_out), Vec::with_capacity(held_out));
    for (example, held) in examples.into_iter().zip(held) {
        if held { &mut test } else { &mut train }.push(example);
    }
    Ok((train, test))
}
