//! Self-BLEU by an own BLEU-4.

use std::collections::BTreeMap;

use super::tokenize_13a;

/// Longest n-gram.
const ORDER: usize = 4;

/// BLEU-4 of one text against references, from 0 to 100, with the tokens of `13a`.
///
/// # Equation
/// `100 min(1, e^(1 - r/h)) (p_1 p_2 p_3 p_4)^(1/4)` with `h` tokens of the text, `r` of the reference of nearest
/// length (the shorter of two), and `p_n` the share of the text's n-grams found in a reference, each as often as it
/// occurs in the reference that has most of them. The k-th order without a match has `p_n = 1 / (2^k total)`
/// (exponential smoothing). A text shorter than four tokens, or without any match, has 0.
///
/// # Reference
/// Papineni et al., "BLEU", ACL 2002; Chen, Cherry, "A Systematic Comparison of Smoothing Techniques for
/// Sentence-Level BLEU", WMT 2014, method 3. Equal to `sacrebleu.corpus_bleu` on a corpus of one text.
pub fn bleu(text: &str, references: &[&str]) -> f64 {
    let all: Vec<Grams> = std::iter::once(&text).chain(references).map(|t| Grams::of(t)).collect();
    score(&all[0], &all[1..].iter().collect::<Vec<_>>())
}

/// Which samples a sample is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SelfBleu {
    /// All others, as the measure is defined.
    #[default]
    Multi,
    /// The first other sample only, as in the published code of GEM, which hands the others over as one stream of
    /// references for one text. For comparing with its numbers, and nothing else.
    Official,
}

impl SelfBleu {
    /// The mode of a name, `multi` or `official`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "multi" => Some(SelfBleu::Multi),
            "official" => Some(SelfBleu::Official),
            _ => None,
        }
    }
}

/// Mean BLEU of each sample against the others, from 0 (all differ) to 100; diversity is 100 minus it.
///
/// # Reference
/// Zhu et al., "Texygen", SIGIR 2018.
///
/// `None` for fewer than two samples.
pub fn self_bleu(samples: &[&str], mode: SelfBleu) -> Option<f64> {
    if samples.len() < 2 {
        return None;
    }
    let grams: Vec<Grams> = samples.iter().map(|s| Grams::of(s)).collect();
    let scores = (0..grams.len()).map(|i| {
        let others = (0..grams.len()).filter(|j| *j != i).map(|j| &grams[j]);
        let others: Vec<&Grams> = match mode {
            SelfBleu::Multi => others.collect(),
            SelfBleu::Official => others.take(1).collect(),
        };
        score(&grams[i], &others)
    });
    Some(scores.sum::<f64>() / grams.len() as f64)
}

/// How often each n-gram occurs.
struct Grams {
    tokens: usize,
    counts: BTreeMap<Vec<String>, usize>,
}

impl Grams {
    fn of(text: &str) -> Self {
        let tokens = tokenize_13a(text);
        let mut counts = BTreeMap::new();
        for n in 1..=ORDER {
            for gram in tokens.windows(n) {
                *counts.entry(gram.to_vec()).or_insert(0) += 1;
            }
        }
        Grams { tokens: tokens.len(), counts }
    }
}

fn score(text: &Grams, references: &[&Grams]) -> f64 {
    let mut right = [0usize; ORDER];
    for (gram, &count) in &text.counts {
        let most = references.iter().filter_map(|r| r.counts.get(gram)).max();
        right[gram.len() - 1] += most.map_or(0, |m| count.min(*m));
    }
    // Without a four-gram one factor of the mean is zero.
    if text.tokens < ORDER || right[0] == 0 {
        return 0.0;
    }
    let (mut log, mut halves) = (0.0, 1.0);
    for (n, &c) in right.iter().enumerate() {
        let total = (text.tokens - n) as f64;
        log += if c > 0 {
            (c as f64 / total).ln()
        } else {
            halves *= 2.0;
            -(halves * total).ln()
        };
    }
    let nearest =
        references.iter().map(|r| r.tokens).min_by_key(|r| (r.abs_diff(text.tokens), *r)).unwrap_or(0);
    let brevity = (1.0 - nearest as f64 / text.tokens as f64).min(0.0);
    100.0 * (brevity + log / ORDER as f64).exp()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
    use super::*;

    #[test]
    fn bleu_of_small_texts_is_what_the_equation_gives() {
        assert!((bleu("a b c d", &["a b c d"]) - 100.0).abs() < 1e-12);
        assert_eq!(bleu("a b c", &["a b c"]), 0.0);
        assert_eq!(bleu("a b c d", &["e f g h"]), 0.0);
        assert_eq!(bleu("", &["a"]), 0.0);
        // 4/5, 2/4, then 1/(2 3) and 1/(4 2) by smoothing; the reference of 5 tokens is the nearest.
        let want = 100.0 * (0.8_f64 * 0.5 / 6.0 / 8.0).powf(0.25);
        assert!((bleu("a b x c d", &["a b y c d", "z"]) - want).abs() < 1e-12);
        // Half as long as its reference.
        assert!((bleu("a b c d", &["a b c d e f g h"]) - 100.0 * (-1f64).exp()).abs() < 1e-12);
        // Clipped by the reference with most of the word.
        let clipped = 100.0 * (2.0 / 4.0 * (1.0 / 3.0) * (1.0 / 4.0) * (1.0 / 4.0_f64)).powf(0.25);
        assert!((bleu("a a a a", &["a b c d", "a a c d"]) - clipped).abs() < 1e-12);
    }

    #[test]
    fn the_official_mode_sees_the_first_other_sample_only() {
        let samples = ["one two three four", "five six seven eight", "one two three four"];
        assert!((self_bleu(&samples, SelfBleu::Multi).unwrap() - 200.0 / 3.0).abs() < 1e-12);
        // First against second, second against first: no match; third against first: all.
        assert!((self_bleu(&samples, SelfBleu::Official).unwrap() - 100.0 / 3.0).abs() < 1e-12);
        assert_eq!(self_bleu(&samples[..1], SelfBleu::Multi), None);
        assert_eq!(SelfBleu::parse("official"), Some(SelfBleu::Official));
        assert_eq!(SelfBleu::parse("both"), None);
    }
}
