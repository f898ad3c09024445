use std::collections::{HashMap, HashSet};

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
    /// 90 of 100 are at most this long (nearest rank).
    pub p90: usize,
    /// 95 of 100.
    pub p95: usize,
    /// 99 of 100.
    pub p99: usize,
    /// Longest.
    pub max: usize,
    /// Mean.
    pub mean: f64,
}

impl Lengths {
    /// Statistics of `examples`; all zero when there are none.
    pub fn of(examples: &[Example]) -> Self {
        Self::from_counts(examples.iter().map(|e| (e.ids.len(), e.targets())))
    }

    /// Statistics of documents of so many tokens and targets.
    pub(super) fn from_counts(documents: impl Iterator<Item = (usize, usize)>) -> Self {
        let mut live = 0;
        let mut n: Vec<usize> = documents
            .map(|(tokens, targets)| {
                live += targets;
                tokens
            })
            .collect();
        n.sort_unstable();
        let (Some(&min), Some(&max)) = (n.first(), n.last()) else { return Lengths::default() };
        let rank = |percent: usize| n[(n.len() * percent).div_ceil(100).max(1) - 1];
        let tokens = n.iter().sum();
        Lengths {
            documents: n.len(),
            tokens,
            live,
            min,
            median: rank(50),
            p90: rank(90),
            p95: rank(95),
            p99: rank(99),
            max,
            mean: tokens as f64 / n.len() as f64,
        }
    }

    /// Targets by tokens; zero without any.
    pub fn trained_share(&self) -> f64 {
        self.live as f64 / self.tokens.max(1) as f64
    }
}

/// Training and held-out documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// To train on, in the order of the file.
    pub train: Vec<Example>,
    /// To judge by, all different, in the order of the file.
    pub held_out: Vec<Example>,
    /// Documents left out because they repeat a held-out one token by token.
    pub twins: usize,
}

/// Holds out `held_out` different documents, chosen by `seed`. Repetitions of them are left out of both parts: a model
/// that has seen a document's twin is judged by its memory.
///
/// # Errors
/// Nothing would be left to train on.
pub fn split(examples: Vec<Example>, held_out: usize, seed: u64) -> Result<Split, DataError> {
    let rows = examples.len();
    let mut first: HashMap<&[u32], usize> = HashMap::with_capacity(rows);
    let group: Vec<usize> =
        examples.iter().enumerate().map(|(i, e)| *first.entry(&e.ids).or_insert(i)).collect();
    let parts = parts(&group, held_out, seed)?;
    let mut out = Split::default();
    for (example, part) in examples.into_iter().zip(parts) {
        match part {
            Part::Train => out.train.push(example),
            Part::HeldOut => out.held_out.push(example),
            Part::Twin => out.twins += 1,
        }
    }
    Ok(out)
}

/// What becomes of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Train,
    HeldOut,
    /// Repeats a held-out one.
    Twin,
}

/// The part of every document; `group[i]` is the first one with the tokens of document `i`.
pub(super) fn parts(group: &[usize], held_out: usize, seed: u64) -> Result<Vec<Part>, DataError> {
    let rows = group.len();
    let mut order: Vec<usize> = (0..rows).filter(|&i| group[i] == i).collect();
    if held_out >= order.len() {
        return Err(DataError::Split { rows, distinct: order.len(), held_out });
    }
    Rng::named(seed, "split").shuffle(&mut order);
    let mut held = vec![false; rows];
    order[..held_out].iter().for_each(|&i| held[i] = true);
    let part = |i: usize| match (held[group[i]], group[i] == i) {
        (false, _) => Part::Train,
        (true, true) => Part::HeldOut,
        (true, false) => Part::Twin,
    };
    Ok((0..rows).map(part).collect())
}

/// How many of `held_out` stand in `train` too, token by token.
pub fn repeated(train: &[Example], held_out: &[Example]) -> usize {
    let seen: HashSet<&[u32]> = train.iter().map(|e| e.ids.as_slice()).collect();
    held_out.iter().filter(|e| seen.contains(e.ids.as_slice())).count()
}
