//! Diversity of the samples of one prompt.
//!
//! All values depend on the number of samples and their length: compare equal numbers, drawn in the same way. Score
//! the answers only; with prompt and template in the text, every value falls.

use std::collections::HashSet;
use std::hash::Hash;

use crate::eval::MeasureError;

/// Different n-grams of all samples over the number of n-grams; 1 says that none occurs twice.
///
/// The value falls with the number and length of samples, so compare equal numbers of them only.
///
/// # Reference
/// Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", NAACL 2016.
///
/// `None` when no sample has `n` tokens, or `n` is zero.
pub fn distinct_n<T: Eq + Hash>(samples: &[Vec<T>], n: usize) -> Option<f64> {
    let mut seen = HashSet::new();
    let mut total = 0usize;
    if n > 0 {
        for gram in samples.iter().flat_map(|s| s.windows(n)) {
            total += 1;
            seen.insert(gram);
        }
    }
    (total > 0).then(|| seen.len() as f64 / total as f64)
}

/// Different n-grams of all samples over their number, averaged over `n = 1, 2, 3`, times 100.
///
/// # Equation
/// `100/3 sum_n |set of n-grams of all samples| / |n-grams of all samples|`; an order without n-grams counts as zero.
///
/// # Reference
/// Tevet, Berant, "Evaluating the Evaluation of Diversity in Natural Language Generation", EACL 2021. The tokens of
/// published numbers are those of [`words`](super::words).
pub fn distinct<T: Eq + Hash>(samples: &[Vec<T>]) -> f64 {
    (1..=3).map(|n| distinct_n(samples, n).unwrap_or(0.0)).sum::<f64>() * 100.0 / 3.0
}

/// One minus the mean cosine over pairs of samples, times 100; `vectors` holds one embedding per sample.
///
/// # Equation
/// `100 (1 - 2 / (n (n - 1)) sum_{i<j} cos(v_i, v_j))`, computed as `cos` of unit vectors through the square of their
/// sum.
///
/// # Reference
/// Tevet, Berant, EACL 2021. The value belongs to its encoder: state which one.
///
/// # Errors
/// [`MeasureError::Samples`] for fewer than two vectors, [`MeasureError::Vector`] for one that is zero, not finite or
/// of another length.
///
/// # Cost
/// `n d` additions.
pub fn embedding(vectors: &[Vec<f32>]) -> Result<f64, MeasureError> {
    let n = vectors.len();
    if n < 2 {
        return Err(MeasureError::Samples { measure: "embedding diversity", needed: 2, given: n });
    }
    let mut sum = vec![0.0; vectors[0].len()];
    for (i, v) in vectors.iter().enumerate() {
        let bad = |reason: String| MeasureError::Vector { vector: i, reason };
        if v.len() != sum.len() {
            return Err(bad(format!("has {} numbers and the first one {}", v.len(), sum.len())));
        }
        let norm = v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        if !norm.is_finite() || norm == 0.0 {
            return Err(bad(format!("has length {norm}")));
        }
        for (s, x) in sum.iter_mut().zip(v) {
            *s += f64::from(*x) / norm;
        }
    }
    let n = n as f64;
    let pairs: f64 = (sum.iter().map(|s| s * s).sum::<f64>() - n) / (n * (n - 1.0));
    Ok(100.0 * (1.0 - pairs))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
    use super::*;
    use crate::eval::text::words;

    #[test]
    fn distinct_n_counts_over_all_samples() {
        let samples = [vec![1, 2, 1, 2], vec![1, 2, 3]];
        assert_eq!(distinct_n(&samples, 1), Some(3.0 / 7.0));
        assert_eq!(distinct_n(&samples, 2), Some(3.0 / 5.0));
        assert_eq!(distinct_n(&samples, 5), None);
        assert_eq!(distinct_n(&samples, 0), None);
        assert_eq!(distinct_n::<u32>(&[], 1), None);
    }

    #[test]
    fn distinct_averages_three_orders_over_pooled_samples() {
        // 3/7, 3/5, 3/3.
        let samples = [vec![1, 2, 1, 2], vec![1, 2, 3]];
        assert!((distinct(&samples) - 100.0 * (3.0 / 7.0 + 0.6 + 1.0) / 3.0).abs() < 1e-12);
        assert_eq!(distinct::<u8>(&[]), 0.0);
        // One word has no pairs: 100, 0, 0.
        assert!((distinct(&[words("one")]) - 100.0 / 3.0).abs() < 1e-12);
        let same = distinct(&[words("a b c d"), words("a b c d")]);
        assert!((same - 50.0).abs() < 1e-12);
    }

    #[test]
    fn embedding_diversity_is_one_minus_the_mean_cosine() {
        let (x, y) = (vec![2.0, 0.0], vec![0.0, 3.0]);
        assert!(embedding(&[x.clone(), x.clone(), x.clone()]).unwrap().abs() < 1e-12);
        assert!((embedding(&[x.clone(), y.clone()]).unwrap() - 100.0).abs() < 1e-12);
        assert!((embedding(&[x.clone(), y.clone(), x.clone()]).unwrap() - 200.0 / 3.0).abs() < 1e-12);
        assert!((embedding(&[x.clone(), vec![-1.0, 0.0]]).unwrap() - 200.0).abs() < 1e-12);
        let e = |v: &[Vec<f32>]| embedding(v).unwrap_err().to_string();
        assert!(e(std::slice::from_ref(&x)).contains("at least 2"));
        assert!(e(&[x.clone(), vec![0.0, 0.0]]).contains("vector 1 has length 0"));
        assert!(e(&[x.clone(), vec![1.0]]).contains("has 1 numbers and the first one 2"));
        assert!(e(&[x, vec![f32::NAN, 1.0]]).contains("NaN"));
    }
}
