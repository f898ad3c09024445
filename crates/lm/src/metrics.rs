//! What samples say about a model: distinct n-grams.

use std::collections::HashSet;
use std::hash::Hash;

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
    use super::*;

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
