//! What several samples of one question are worth: pass@k, votes and the best of n.

use rhumb_core::stats::{Interval, mean_interval, ratio_interval, share_interval};
use serde::Serialize;

use super::MeasureError;

/// Samples of one question and how many of them were right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Samples drawn.
    pub samples: usize,
    /// Right ones.
    pub correct: usize,
}

impl Tally {
    /// The tally of judged samples.
    pub fn of(right: &[bool]) -> Self {
        Tally { samples: right.len(), correct: right.iter().filter(|r| **r).count() }
    }
}

/// A mean over questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub value: f64,
    /// 95 % interval over questions; see [`mean`] and [`share`].
    pub interval: Option<Interval>,
}

/// The unbiased estimate of the chance that at least one of `k` samples is right.
///
/// # Equation
/// `1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n - c + 1}^{n} (1 - k / i)`, for `c` right ones of `n` samples.
///
/// # Reference
/// Chen et al., "Evaluating Large Language Models Trained on Code", arXiv 2107.03374, section 2.1.
///
/// # Errors
/// [`MeasureError::PassAtK`] unless `1 <= k <= samples` and `correct <= samples`.
pub fn pass_at_k(samples: usize, correct: usize, k: usize) -> Result<f64, MeasureError> {
    if k == 0 || k > samples || correct > samples {
        return Err(MeasureError::PassAtK { samples, correct, k });
    }
    if samples - correct < k {
        return Ok(1.0);
    }
    let miss: f64 = (samples - correct + 1..=samples).map(|i| 1.0 - k as f64 / i as f64).product();
    Ok(1.0 - miss)
}

/// pass@k, averaged over questions.
///
/// The interval is over questions, that of [`share`]. It says nothing about other seeds of training.
///
/// # Errors
/// [`MeasureError::PassAtK`] of the first question without an estimate; [`MeasureError::Samples`] without questions.
pub fn mean_pass_at_k(tallies: &[Tally], k: usize, seed: u64) -> Result<Mean, MeasureError> {
    let values: Vec<f64> =
        tallies.iter().map(|t| pass_at_k(t.samples, t.correct, k)).collect::<Result<_, _>>()?;
    rate(&values, seed)
}

/// Mean of one value per question, of any range; the interval is [`mean_interval`]'s: `None` for a single question,
/// Student's t up to nine, the bootstrap with `seed` from ten on.
///
/// # Errors
/// [`MeasureError::Samples`] without values.
pub fn mean(values: &[f64], seed: u64) -> Result<Mean, MeasureError> {
    if values.is_empty() {
        return Err(MeasureError::Samples { measure: "a mean over questions", needed: 1, given: 0 });
    }
    let value = values.iter().sum::<f64>() / values.len() as f64;
    Ok(Mean { value, interval: mean_interval(values, seed) })
}

/// Mean of one value in `[0, 1]` per question, such as 1 for a right answer: a [`share`] of ones.
///
/// # Errors
/// As for [`share`].
pub fn rate(values: &[f64], seed: u64) -> Result<Mean, MeasureError> {
    share(values, &vec![1.0; values.len()], seed)
}

/// The share that the counts `parts` have of `wholes`, as of followed instructions, where every pair is of one question;
/// the interval is over these and inside `[0, 1]`, see [`share_interval`].
///
/// # Errors
/// [`MeasureError::Samples`] without pairs, for lengths that differ, and where the wholes add up to nothing.
pub fn share(parts: &[f64], wholes: &[f64], seed: u64) -> Result<Mean, MeasureError> {
    let value = quotient(parts, wholes)?;
    Ok(Mean { value, interval: share_interval(parts, wholes, seed) })
}

/// `sum parts / sum wholes`, as of errors and tokens, where every pair is of one question or conversation; the interval
/// is over these, see [`ratio_interval`]. For counts that are a part of the others, take [`share`].
///
/// # Errors
/// As for [`share`].
pub fn ratio(parts: &[f64], wholes: &[f64], seed: u64) -> Result<Mean, MeasureError> {
    let value = quotient(parts, wholes)?;
    Ok(Mean { value, interval: ratio_interval(parts, wholes, seed) })
}

fn quotient(parts: &[f64], wholes: &[f64]) -> Result<f64, MeasureError> {
    let whole: f64 = wholes.iter().sum();
    if parts.len() != wholes.len() || whole <= 0.0 {
        return Err(MeasureError::Samples { measure: "a mean over questions", needed: 1, given: 0 });
    }
    Ok(parts.iter().sum::<f64>() / whole)
}

/// The answer that most samples gave.
///
/// Samples from which no answer could be read (`None`) have no vote, however many they are; of equally frequent
/// answers, the one seen first wins. Published numbers differ here: in the code of GEM, failed extractions are a vote
/// that can win. `None` when nobody voted.
///
/// # Reference
/// Wang et al., "Self-Consistency Improves Chain of Thought Reasoning", arXiv 2203.11171.
///
/// # Cost
/// `n^2` comparisons.
pub fn majority<T: PartialEq>(votes: &[Option<T>]) -> Option<&T> {
    let mut best: Option<(&T, usize)> = None;
    for (i, vote) in votes.iter().enumerate() {
        let Some(v) = vote else { continue };
        let n = votes[i..].iter().flatten().filter(|w| *w == v).count();
        if best.is_none_or(|(_, most)| n > most) {
            best = Some((v, n));
        }
    }
    best.map(|(v, _)| v)
}

/// The sample with the highest score among the first `n`, and its score; the first of equal ones.
///
/// With a verifier (1 right, 0 wrong) the mean of the score over questions is the rate at which one of the first `n`
/// samples is right: the biased cousin of pass@n, which depends on the order of the samples.
///
/// # Errors
/// [`MeasureError::Samples`] for `n` zero or more than there are; [`MeasureError::Score`] for a score that is not a
/// number.
pub fn best_of<T>(
    samples: &[T],
    n: usize,
    mut score: impl FnMut(&T) -> f64,
) -> Result<(usize, f64), MeasureError> {
    if n == 0 || n > samples.len() {
        return Err(MeasureError::Samples {
            measure: "the best of n",
            needed: n.max(1),
            given: if n == 0 { 0 } else { samples.len() },
        });
    }
    let mut best = (0, f64::NEG_INFINITY);
    for (i, sample) in samples[..n].iter().enumerate() {
        let s = score(sample);
        if s.is_nan() {
            return Err(MeasureError::Score { sample: i });
        }
        if s > best.1 {
            best = (i, s);
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rhumb_core::stats::{bootstrap_mean, wilson};

    use super::*;

    #[test]
    fn pass_at_k_has_the_reference_values_and_refuses_more_than_was_drawn() {
        let table = [
            (10, 3, 1, 0.3),
            (10, 3, 5, 11.0 / 12.0),
            (200, 1, 100, 0.5),
            (200, 5, 10, 0.228_284_460_737_334_25),
            (32, 0, 8, 0.0),
            (16, 16, 16, 1.0),
            (5, 2, 4, 1.0),
        ];
        for (n, c, k, want) in table {
            assert!((pass_at_k(n, c, k).unwrap() - want).abs() < 1e-12, "pass@{k} of {c}/{n}");
        }
        let e = pass_at_k(4, 1, 5).unwrap_err();
        assert_eq!(e, MeasureError::PassAtK { samples: 4, correct: 1, k: 5 });
        assert!(e.to_string().contains("pass@5 of 1 right ones among 4 samples"), "{e}");
        assert!(pass_at_k(4, 1, 0).is_err() && pass_at_k(4, 5, 1).is_err());
    }

    #[test]
    fn pass_at_k_is_the_mean_over_all_subsets() {
        for c in 0..=6usize {
            for k in 1..=6 {
                let subsets = (0..64u32).filter(|s| s.count_ones() as usize == k);
                let hits = subsets.clone().filter(|s| s & ((1 << c) - 1) != 0).count();
                let want = hits as f64 / subsets.count() as f64;
                assert!((pass_at_k(6, c, k).unwrap() - want).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn means_over_questions_carry_the_interval_of_their_number() {
        let t = |correct| Tally { samples: 4, correct };
        let few = mean_pass_at_k(&[t(0), t(2), t(4)], 1, 7).unwrap();
        assert!((few.value - 0.5).abs() < 1e-15);
        assert_eq!(few.interval, wilson(0.5, 3));
        // sd = 1/2, t = 4.303 for two degrees of freedom.
        let half = 4.303 * 0.5 / 3f64.sqrt();
        let few = mean(&[0.0, 0.5, 1.0], 7).unwrap();
        assert!((few.interval.unwrap().high - few.value - half).abs() < 1e-9);
        // None solved.
        assert_eq!(mean_pass_at_k(&[t(0); 40], 1, 7).unwrap().interval, wilson(0.0, 40));
        let tallies: Vec<Tally> = (0..20).map(|i| t(i % 5)).collect();
        let many = mean_pass_at_k(&tallies, 1, 7).unwrap();
        let values: Vec<f64> = (0..20).map(|i| (i % 5) as f64 / 4.0).collect();
        let (got, want) = (many.interval.unwrap(), bootstrap_mean(&values, 10_000, 0.95, 7).unwrap());
        assert!(
            (got.low - want.low).abs() < 1e-12 && (got.high - want.high).abs() < 1e-12,
            "{got:?} {want:?}"
        );
        assert_eq!(mean(&[0.5], 7).unwrap().interval, None);
        assert!(mean_pass_at_k(&[], 1, 7).unwrap_err().to_string().contains("at least 1"));
        assert!(mean_pass_at_k(&[t(1), Tally { samples: 2, correct: 1 }], 3, 7).is_err());
    }

    #[test]
    fn a_tally_counts_what_is_right() {
        assert_eq!(Tally::of(&[true, false, true]), Tally { samples: 3, correct: 2 });
    }

    #[test]
    fn failed_extractions_have_no_vote_and_ties_go_to_the_first() {
        assert_eq!(majority(&[None, None, None, Some(3)]), Some(&3));
        assert_eq!(majority(&[Some(1), Some(2), Some(2), Some(1)]), Some(&1));
        assert_eq!(majority(&[Some(5), Some(2), None, Some(2)]), Some(&2));
        assert_eq!(majority::<i32>(&[None, None]), None);
        assert_eq!(majority::<i32>(&[]), None);
    }

    #[test]
    fn the_best_of_n_looks_at_the_first_n_only() {
        let samples = [1.0, 5.0, 5.0, 9.0];
        assert_eq!(best_of(&samples, 3, |s| *s).unwrap(), (1, 5.0));
        assert_eq!(best_of(&samples, 4, |s| *s).unwrap(), (3, 9.0));
        assert_eq!(best_of(&samples, 2, |_| f64::NEG_INFINITY).unwrap().0, 0);
        assert!(best_of(&samples, 5, |s| *s).unwrap_err().to_string().contains("at least 5 samples"));
        assert!(best_of(&samples, 0, |s| *s).is_err());
        let nan = best_of(&samples, 2, |s| if *s > 4.0 { f64::NAN } else { 0.0 });
        assert_eq!(nan, Err(MeasureError::Score { sample: 1 }));
    }
}
