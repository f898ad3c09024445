use rhumb_core::stats::{Interval, ratio_interval};
use rhumb_nn::loss::RowStats;
use serde::{Deserialize, Serialize};

/// Means over scored tokens.
///
/// # Units
/// Nats per token, except where said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Tokens.
    pub tokens: usize,
    /// The named loss. Signed for GEM.
    pub loss: f64,
    /// Cross-entropy at temperature 1.
    pub ce: f64,
    /// `exp(ce)`.
    pub perplexity: f64,
    /// Entropy of the prediction at temperature 1.
    pub entropy: f64,
    /// The scalar whose gradient training follows: `beta CE(z / beta)` for GEM.
    pub surrogate: f64,
    /// Share of tokens whose label has the largest score.
    pub accuracy: f64,
}

impl Summary {
    /// Sums up tokens; `None` without any.
    pub fn of<'a>(tokens: impl IntoIterator<Item = &'a RowStats>) -> Option<Self> {
        let (mut n, mut right, mut sums) = (0usize, 0usize, [0.0; 4]);
        for t in tokens {
            n += 1;
            right += usize::from(t.correct);
            for (s, x) in sums.iter_mut().zip([t.loss, t.ce, t.entropy, t.surrogate]) {
                *s += x;
            }
        }
        if n == 0 {
            return None;
        }
        let [loss, ce, entropy, surrogate] = sums.map(|s| s / n as f64);
        let accuracy = right as f64 / n as f64;
        Some(Summary { tokens: n, loss, ce, perplexity: ce.exp(), entropy, surrogate, accuracy })
    }
}

/// Means over scored tokens at a temperature.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tempered {
    /// By which scores are divided.
    pub temperature: f64,
    /// Cross-entropy there.
    pub ce: f64,
    /// Entropy of the prediction there.
    pub entropy: f64,
}

impl Tempered {
    /// From the means under `gem-linear` with `beta = t`.
    ///
    /// # Equation
    /// `CE_t = S / t` and `H_t = (S - L) / t`: `S = t CE_t`, and `L = E_q z - z_y` lacks the normaliser.
    pub fn of(gem: &Summary, t: f64) -> Self {
        Tempered { temperature: t, ce: gem.surrogate / t, entropy: (gem.surrogate - gem.loss) / t }
    }
}

/// How the mean of a quantity over all tokens changed, with a 95 % interval over documents: the same documents before and
/// after, each with as many tokens as it has, see [`ratio_interval`]. `None` when the two sides are not the same
/// documents, and for fewer than two with tokens.
///
/// # Equation
/// `sum (after - before) / tokens`, which is the difference of the two means.
pub fn paired_change(
    before: &[Vec<RowStats>],
    after: &[Vec<RowStats>],
    quantity: impl Fn(&RowStats) -> f64,
    seed: u64,
) -> Option<Interval> {
    let same = before.len() == after.len() && before.iter().zip(after).all(|(b, a)| b.len() == a.len());
    if !same {
        return None;
    }
    let sum = |d: &[RowStats]| d.iter().map(&quantity).sum::<f64>();
    let pairs = before.iter().zip(after).filter(|(b, _)| !b.is_empty());
    let (changes, tokens): (Vec<f64>, Vec<f64>) =
        pairs.map(|(b, a)| (sum(a) - sum(b), b.len() as f64)).unzip();
    ratio_interval(&changes, &tokens, seed)
}

#[cfg(test)]
mod tests {
    use rhumb_nn::loss::LossKind;

    use super::*;

    fn stats(ce: f64, surrogate: f64, correct: bool) -> RowStats {
        RowStats { loss: -ce, ce, entropy: 2.0 * ce, surrogate, correct }
    }

    #[test]
    fn a_summary_weighs_every_token_the_same() {
        let s = Summary::of(&[stats(1.0, 0.5, true), stats(2.0, 1.5, false), stats(6.0, 4.0, true)]).unwrap();
        assert_eq!(s.tokens, 3);
        let got = [s.loss, s.ce, s.entropy, s.surrogate, s.perplexity, s.accuracy];
        for (got, want) in got.iter().zip([-3.0, 3.0, 6.0, 2.0, 3f64.exp(), 2.0 / 3.0]) {
            assert!((got - want).abs() < 1e-12, "{got} against {want}");
        }
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn gem_sums_give_cross_entropy_and_entropy_at_its_temperature() {
        for t in [0.7, 1.0, 1.6] {
            let z = [0.3, -1.2, 2.5, 0.9];
            let gem = rhumb_nn::loss::row::row(LossKind::GemLinear { beta: t }, &mut z.clone(), 1, None);
            let plain = rhumb_nn::loss::row::row(LossKind::Ce, &mut z.map(|z| z / t), 1, None);
            let got = Tempered::of(&Summary::of(&[gem]).unwrap(), t);
            assert!(
                (got.ce - plain.ce).abs() < 1e-12 && (got.entropy - plain.entropy).abs() < 1e-12,
                "{got:?}"
            );
        }
    }

    #[test]
    fn a_change_that_every_document_shares_has_an_interval_of_no_width() {
        let side = |by: f64| -> Vec<Vec<RowStats>> {
            (1..9).map(|i| vec![stats(f64::from(i) - by, 0.0, true); 3]).collect()
        };
        let change = paired_change(&side(0.0), &side(0.25), |t| t.ce, 1).unwrap();
        for end in [change.low, change.mean, change.high] {
            assert!((end + 0.25).abs() < 1e-12, "{end}");
        }
    }

    #[test]
    fn documents_that_differ_cannot_be_paired() {
        let one = vec![vec![stats(1.0, 0.0, true)]];
        let two = vec![vec![stats(1.0, 0.0, true); 2]];
        assert_eq!(paired_change(&one, &two, |t| t.ce, 1), None);
        assert_eq!(paired_change(&one, &[], |t| t.ce, 1), None);
    }

    #[test]
    fn a_change_is_the_difference_of_the_means_over_tokens() {
        let side = |first: f64, rest: f64| {
            let documents = [vec![stats(first, 0.0, true); 9], vec![], vec![stats(rest, 0.0, true)]];
            documents.to_vec()
        };
        // 9 tokens rise by 1 and one falls by 4; every document for itself it would be -1.5.
        let change = paired_change(&side(1.0, 5.0), &side(2.0, 1.0), |t| t.ce, 1).unwrap();
        assert!((change.mean - 0.5).abs() < 1e-12 && change.low < 0.5 && change.high > 0.5, "{change:?}");
    }
}
