//! What samples say about a model: pass@k and distinct n-grams.

use std::collections::HashSet;
use std::hash::Hash;

/// The unbiased estimate of the chance that at least one of `k` samples is right, from `n` samples of which
/// `correct` were right.
///
/// # Equation
/// `1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n - c + 1}^{n} (1 - k / i)`.
///
/// # Reference
/// Chen et al., "Evaluating Large Language Models Trained on Code", arXiv 2107.03374, section 2.1.
///
/// `None` unless `1 <= k <= n` and `correct <= n`: no unbiased estimate exists.
pub fn pass_at_k(n: usize, correct: usize, k: usize) -> Option<f64> {
    if k == 0 || k > n || correct > n {
        return None;
    }
    if n - correct < k {
        return Some(1.0);
    }
    let miss: f64 = (n - correct + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Some(1.0 - miss)
}

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn pass_at_k_has_the_reference_values() {
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
            let got = pass_at_k(n, c, k).unwrap();
            assert!((got - want).abs() < 1e-12, "pass@{k} of {c}/{n}: {got}");
        }
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
    fn pass_at_k_refuses_what_no_estimate_exists_for() {
        assert_eq!(pass_at_k(4, 1, 5), None);
        assert_eq!(pass_at_k(4, 1, 0), None);
        assert_eq!(pass_at_k(4, 5, 1), None);
    }

    #[test]
    fn distinct_n_counts_over_all_samples() {
        let samples = [vec![1, 2, 1, 2], vec![1, 2, 3]];
        assert_eq!(distinct_n(&samples, 1), Some(3.0 / 7.0));
        assert_eq!(distinct_n(&samples, 2), Some(3.0 / 5.0));
        assert_eq!(distinct_n(&samples, 5), None);
        assert_eq!(distinct_n(&samples, 0), None);
        assert_eq!(distinct_n::<u32>(&[], 1), None);
    }
}
