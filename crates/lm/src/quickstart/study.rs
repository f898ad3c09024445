//! A small decoder on the built-in language: shape, settings and exact measures.

use rhumb_core::EvalError;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{Decoder, DecoderConfig, ModelError};
use rhumb_optim::{Kind, OptimizerConfig, ScheduleConfig, ScheduleKind};

use super::corpus::{Corpus, Words};
use crate::data::Example;
use crate::gem::Summary;
use crate::sft::{HeldOut, SftConfig};

/// Tokens of a packed row.
pub const TOKENS: usize = 64;
/// The temperature inside GEM.
pub const BETA: f64 = 0.7;
/// Sample counts that are reported.
pub const SAMPLES: [u32; 4] = [1, 4, 16, 64];

/// Layers and width of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Layers.
    pub layers: usize,
    /// Width. A quarter of it, rounded down, is the size of a head, which has to be even.
    pub width: usize,
}

impl Default for Shape {
    /// 3 layers of width 64.
    fn default() -> Self {
        Shape { layers: 3, width: 64 }
    }
}

/// The decoder: 4 heads over 2 of keys and values, an inner width of 11/4 of the width, tied embedding.
///
/// # Errors
/// For a shape that no decoder has, see [`Decoder::new`].
pub fn decoder(words: &Words, shape: Shape) -> Result<Decoder, ModelError> {
    Decoder::new(DecoderConfig {
        family: rhumb_nn::model::Family::Llama,
        vocab: words.len(),
        width: shape.width,
        layers: shape.layers,
        heads: 4,
        kv_heads: 2,
        head_dim: shape.width / 4,
        ffn: shape.width * 11 / 4,
        positions: TOKENS,
        eps: 1e-5,
        rope: Some(rhumb_nn::model::RopeConfig { theta: 10_000.0, llama3: None }),
        qkv_bias: false,
        qk_norm: false,
        tied: true,
    })
}

/// Settings shared by pre-training and fine-tuning; both optimizers get the same ones.
fn config(kind: Kind, lr: f64, steps: u64, loss: LossKind, seed: u64) -> SftConfig {
    SftConfig {
        steps,
        batch: 16,
        accumulate: 1,
        tokens: TOKENS,
        optimizer: OptimizerConfig { kind, lr, beta2: 0.95, ..OptimizerConfig::default() },
        schedule: ScheduleConfig {
            kind: ScheduleKind::Cosine,
            warmup_steps: steps / 20,
            ..ScheduleConfig::default()
        },
        loss,
        clip_norm: Some(1.0),
        recompute: false,
        update_in_backward: false,
        eval_every: steps,
        seed,
    }
}

/// Pre-training, the common start of every arm.
pub fn pretraining(seed: u64) -> SftConfig {
    config(Kind::AdamW, 3e-3, 500, LossKind::Ce, seed)
}

/// Fine-tuning of one arm.
pub fn fine_tuning(kind: Kind, loss: LossKind, seed: u64) -> SftConfig {
    config(kind, 1e-3, 160, loss, seed)
}

/// Exact measures on held-out questions; nothing is sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measures {
    /// Cross-entropy per token of the wanted answers.
    pub ce: f64,
    /// Entropy per token along the wanted answers.
    pub entropy: f64,
    /// Probability that one sample is a right answer.
    pub right: f64,
    /// Probability that the wanted answer is among [`SAMPLES`] samples.
    pub pass: [f64; 4],
    /// Expected number of different right answers among 16 samples, divided by the number of right answers.
    pub coverage: f64,
}

/// Measures a model on the held-out questions of a corpus.
///
/// # Equation
/// With `P(a)` the probability of answer `a` and its end: `pass@k = 1 - (1 - P(wanted))^k`,
/// `right = sum P(a)` and `coverage = sum (1 - (1 - P(a))^16) / answers`, averaged over questions.
///
/// # Errors
/// When the model gives scores that are not finite.
pub fn measure(model: &Decoder, params: &[f32], corpus: &Corpus) -> Result<Measures, EvalError> {
    let documents: Vec<Example> =
        corpus.held_out.iter().flat_map(|h| h.question.documents(&corpus.words)).collect();
    let held_out =
        HeldOut::new(&documents, TOKENS, LossKind::Ce).map_err(|e| EvalError::Unsupported(e.to_string()))?;
    let tokens = held_out.score(model, params, &[])?.documents;
    let chance: Vec<f64> = tokens.iter().map(|t| (-t.iter().map(|s| s.ce).sum::<f64>()).exp()).collect();
    let mut out = Measures { ce: 0.0, entropy: 0.0, right: 0.0, pass: [0.0; 4], coverage: 0.0 };
    let mut wanted = Vec::new();
    let mut first = 0;
    for h in &corpus.held_out {
        let n = h.question.answers.len();
        let p = &chance[first..first + n];
        out.right += p.iter().sum::<f64>();
        for (to, k) in out.pass.iter_mut().zip(SAMPLES) {
            *to += among(p[h.wanted], k);
        }
        out.coverage += p.iter().map(|p| among(*p, 16)).sum::<f64>() / n as f64;
        wanted.extend(&tokens[first + h.wanted]);
        first += n;
    }
    let n = corpus.held_out.len().max(1) as f64;
    out.right /= n;
    out.coverage /= n;
    out.pass.iter_mut().for_each(|p| *p /= n);
    if let Some(s) = Summary::of(wanted.iter().copied()) {
        (out.ce, out.entropy) = (s.ce, s.entropy);
    }
    Ok(out)
}

/// Probability that an event of probability `p` happens in `k` trials.
fn among(p: f64, k: u32) -> f64 {
    1.0 - (1.0 - p.min(1.0)).powi(k as i32)
}

/// The parameters whose scores are those of `params` divided by `temperature`: sampling them at temperature 1
/// is sampling the model at `temperature`.
///
/// Scaling the last norm, with its offset where it has one, scales every score, since the head is linear.
///
/// # Errors
/// A model without a last norm that is known here: it would be its own control.
pub fn at_temperature(model: &Decoder, params: &[f32], temperature: f64) -> Result<Vec<f32>, EvalError> {
    let mut out = params.to_vec();
    let mut found = false;
    for name in ["model.norm.weight", "ln_f.weight", "ln_f.bias"] {
        if let Some(norm) = model.layout().find(name) {
            out[norm.range.clone()].iter_mut().for_each(|w| *w = (f64::from(*w) / temperature) as f32);
            found = true;
        }
    }
    if found {
        Ok(out)
    } else {
        Err(EvalError::Unsupported("the model has no last norm that a temperature could go into".into()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::corpus::Sizes;
    use super::*;
    use rhumb_nn::model::init;

    #[test]
    fn probabilities_of_a_model_are_consistent_with_its_scores() {
        let corpus = Corpus::new(1, Sizes { pretrain: 8, fine_tune: 8, held_out: 12 });
        let model = decoder(&corpus.words, Shape::default()).unwrap();
        let params = init(model.layout(), 3, 0.02, 1);
        let m = measure(&model, &params, &corpus).unwrap();
        // Nearly uniform over the words: the cross-entropy is about ln(vocabulary).
        assert!((m.ce - (corpus.words.len() as f64).ln()).abs() < 0.2, "{m:?}");
        assert!(m.right < 0.05 && m.pass.is_sorted());
    }

    #[test]
    fn a_higher_temperature_raises_the_entropy_and_keeps_the_order_of_scores() {
        let corpus = Corpus::new(1, Sizes { pretrain: 8, fine_tune: 8, held_out: 12 });
        let model = decoder(&corpus.words, Shape::default()).unwrap();
        let params = init(model.layout(), 3, 0.3, 1);
        let plain = measure(&model, &params, &corpus).unwrap();
        let warm = measure(&model, &at_temperature(&model, &params, 2.0).unwrap(), &corpus).unwrap();
        assert!(warm.entropy > plain.entropy + 0.1, "{plain:?} {warm:?}");
        let same = measure(&model, &at_temperature(&model, &params, 1.0).unwrap(), &corpus).unwrap();
        assert_eq!(plain, same);
    }
}
