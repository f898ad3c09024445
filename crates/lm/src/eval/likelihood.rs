//! How well a model predicts texts: means over tokens, with intervals over conversations.

use rhumb_core::stats::Interval;
use rhumb_nn::loss::RowStats;

use super::MeasureError;
use super::sampling::{Mean, ratio, share};

/// Sums over the scored tokens of one conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Tokens.
    pub tokens: f64,
    /// Cross-entropy, in nats.
    pub ce: f64,
    /// Entropy of the prediction, in nats.
    pub entropy: f64,
    /// The loss's own scalar, [`RowStats::surrogate`].
    pub surrogate: f64,
    /// Tokens whose label has the largest score.
    pub right: f64,
}

impl Sums {
    /// Adds up the tokens of a conversation.
    pub fn of(tokens: &[RowStats]) -> Self {
        let sum = |f: fn(&RowStats) -> f64| tokens.iter().map(f).sum::<f64>();
        Sums {
            tokens: tokens.len() as f64,
            ce: sum(|t| t.ce),
            entropy: sum(|t| t.entropy),
            surrogate: sum(|t| t.surrogate),
            right: sum(|t| f64::from(u8::from(t.correct))),
        }
    }
}

/// Means over all tokens of several conversations, with 95 % intervals over conversations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// Tokens.
    pub tokens: usize,
    /// Cross-entropy, in nats per token.
    pub ce: Mean,
    /// `exp` of the cross-entropy and of the ends of its interval.
    pub perplexity: Mean,
    /// Entropy of the prediction, in nats.
    pub entropy: Mean,
    /// The loss's own scalar.
    pub surrogate: Mean,
    /// Share of tokens whose label has the largest score.
    pub accuracy: Mean,
}

impl Likelihood {
    /// Sums up conversations; those without tokens are passed over.
    ///
    /// # Errors
    /// [`MeasureError::Samples`] without a token.
    pub fn of(conversations: &[Sums], seed: u64) -> Result<Self, MeasureError> {
        let scored: Vec<&Sums> = conversations.iter().filter(|s| s.tokens > 0.0).collect();
        let tokens: Vec<f64> = scored.iter().map(|s| s.tokens).collect();
        let each = |f: fn(&Sums) -> f64| scored.iter().map(|s| f(s)).collect::<Vec<f64>>();
        let mean = |f: fn(&Sums) -> f64| ratio(&each(f), &tokens, seed);
        let ce = mean(|s| s.ce)?;
        let exp = |i: Interval| Interval { mean: i.mean.exp(), low: i.low.exp(), high: i.high.exp() };
        Ok(Likelihood {
            tokens: tokens.iter().sum::<f64>() as usize,
            ce,
            perplexity: Mean { value: ce.value.exp(), interval: ce.interval.map(exp) },
            entropy: mean(|s| s.entropy)?,
            surrogate: mean(|s| s.surrogate)?,
            accuracy: share(&each(|s| s.right), &tokens, seed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn token(ce: f64, correct: bool) -> RowStats {
        RowStats { ce, entropy: 2.0 * ce, surrogate: 3.0 * ce, correct, ..RowStats::default() }
    }

    #[test]
    fn every_token_weighs_the_same_and_the_interval_is_over_conversations() {
        let sums = [
            Sums::of(&[token(1.0, true), token(2.0, false), token(3.0, false)]),
            Sums::of(&[token(6.0, true)]),
        ];
        let l = Likelihood::of(&[sums[0], Sums::default(), sums[1]], 1).unwrap();
        assert_eq!(l.tokens, 4);
        let got = [l.ce, l.entropy, l.surrogate, l.accuracy, l.perplexity].map(|m| m.value);
        for (got, want) in got.iter().zip([3.0, 6.0, 9.0, 0.5, 3f64.exp()]) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
        // Rests 6 - 9 and 6 - 3: t sqrt(2 * 18) / 4.
        let half = 12.706 * 6.0 / 4.0;
        assert!((l.ce.interval.unwrap().high - 3.0 - half).abs() < 1e-9);
        assert!((l.perplexity.interval.unwrap().low - (3.0 - half).exp()).abs() < 1e-9);
        assert!(Likelihood::of(&[Sums::default()], 1).is_err());
    }
}
