//! Drawing the next token from logits.

use rhumb_linalg::rng::Rng;
use serde::{Deserialize, Serialize};

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplerConfig {
    /// Take the most probable token; the other settings are then without effect.
    pub greedy: bool,
    /// Logits are divided by this.
    pub temperature: f64,
    /// Only the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Only the smallest set of most probable tokens that reaches this probability; 1 keeps all.
    pub top_p: f64,
    /// Only tokens at least this fraction as probable as the best; 0 keeps all.
    pub min_p: f64,
    /// Logits of tokens that were seen are divided by this where positive and multiplied where negative; 1 leaves them.
    pub repetition_penalty: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for SamplerConfig {
    /// Plain sampling from the model's distribution.
    fn default() -> Self {
        SamplerConfig {
            greedy: false,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl SamplerConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// [`SampleError::Setting`] for the first setting outside its range.
    pub fn validate(&self) -> Result<(), SampleError> {
        let t = self.temperature;
        let good_t = self.greedy || (t.is_finite() && t > 0.0);
        let checks = [
            ("temperature", t, good_t, "give a number above 0, or choose greedy"),
            (
                "top_p",
                self.top_p,
                self.top_p > 0.0 && self.top_p <= 1.0,
                "give a number above 0 and at most 1",
            ),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "give a number from 0 to 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite(),
                "give a number above 0; 1 is no penalty, 1.1 a mild one",
            ),
        ];
        match checks.into_iter().find(|(_, _, good, _)| !good) {
            Some((name, value, _, hint)) => Err(SampleError::Setting { name, value, hint }),
            None => Ok(()),
        }
    }
}

/// Why no token could be drawn.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// A setting outside its range.
    #[error("{name} = {value} is not usable: {hint}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The range.
        hint: &'static str,
    },
    /// A logit that is not a number or infinitely large.
    #[error(
        "the logit of token {token} is {value}: the weights or the activations overflowed; check the model"
    )]
    NotFinite {
        /// The token.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// No token can be drawn.
    #[error("no token can be drawn from {n} logits: all of them are excluded (-inf)")]
    Empty {
        /// The number of logits.
        n: usize,
    },
}

/// Draws tokens, with a random stream of its own.
///
/// # Equation
/// z of seen tokens, penalised; p = softmax(z / T); keep the k largest and renormalise; keep the smallest set of largest p whose sum reaches
/// top-p and renormalise; keep p >= min-p max p and renormalise; draw. Equal logits rank by token id, lower first.
///
/// # Reference
/// repetition penalty: Keskar et al. 2019, of prompt and answer; top-k: Fan, Lewis, Dauphin, ACL 2018; top-p: Holtzman et al., ICLR 2020; min-p: Nguyen et al., ICLR 2025.
///
/// # Cost
/// One pass over the logits; a partial sort with top-k, a sort with top-p.
#[derive(Clone, Debug)]
pub struct Sampler {
    config: SamplerConfig,
    rng: Rng,
    kept: Vec<(u32, f64)>,
    /// Tokens that the penalty is for, ascending.
    seen: Vec<u32>,
    penalised: Vec<f32>,
}

impl Sampler {
    /// The sampler of the first completion.
    ///
    /// # Errors
    /// As [`SamplerConfig::validate`].
    pub fn new(config: SamplerConfig) -> Result<Self, SampleError> {
        Self::of_completion(config, 0)
    }

    /// The sampler of completion `index` when several are drawn for one prompt. Each has a stream of its own, so
    /// that asking for more completions never changes the earlier ones.
    ///
    /// # Errors
    /// As [`SamplerConfig::validate`].
    pub fn of_completion(config: SamplerConfig, index: u64) -> Result<Self, SampleError> {
        config.validate()?;
        let rng = Rng::named(config.seed, &format!("sample/{index}"));
        Ok(Sampler { config, rng, kept: Vec::new(), seen: Vec::new(), penalised: Vec::new() })
    }

    /// The settings.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// Tokens of the prompt, for the repetition penalty.
    pub fn see(&mut self, ids: &[u32]) {
        for id in ids {
            if let Err(at) = self.seen.binary_search(id) {
                self.seen.insert(at, *id);
            }
        }
    }

    /// The next token. A greedy choice consumes no random number, a draw exactly one.
    ///
    /// # Errors
    /// [`SampleError::NotFinite`] for NaN or +inf, [`SampleError::Empty`] when every logit is -inf.
    pub fn next(&mut self, logits: &[f32]) -> Result<u32, SampleError> {
        // No penalty needs no copy and no memory of what was seen.
        if self.config.repetition_penalty.to_bits() == 1f64.to_bits() {
            return self.choose(logits);
        }
        let logits = self.penalise(logits);
        let chosen = self.choose(&logits);
        self.penalised = logits;
        let token = chosen?;
        self.see(&[token]);
        Ok(token)
    }

    fn penalise(&mut self, logits: &[f32]) -> Vec<f32> {
        let mut out = std::mem::take(&mut self.penalised);
        out.clear();
        out.extend_from_slice(logits);
        let penalty = self.config.repetition_penalty as f32;
        for &id in &self.seen {
            if let Some(z) = out.get_mut(id as usize) {
                *z = if *z > 0.0 { *z / penalty } else { *z * penalty };
            }
        }
        out
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32, SampleError> {
        if self.config.greedy {
            return greedy(logits);
        }
        self.filter(logits)?;
        let mut left = self.rng.uniform();
        for &(token, p) in &self.kept {
            left -= p;
            if left < 0.0 {
                return Ok(token);
            }
        }
        // Rounding may leave a sum a little below one.
        self.kept.last().map(|&(token, _)| token).ok_or(SampleError::Empty { n: logits.len() })
    }

    /// The tokens that may be drawn and their probabilities without a penalty, by ascending id.
    ///
    /// # Errors
    /// As [`Sampler::next`].
    pub fn distribution(&mut self, logits: &[f32]) -> Result<&[(u32, f64)], SampleError> {
        if self.config.greedy {
            let token = greedy(logits)?;
            self.kept.clear();
            self.kept.push((token, 1.0));
        } else {
            self.filter(logits)?;
        }
        Ok(&self.kept)
    }

    fn filter(&mut self, logits: &[f32]) -> Result<(), SampleError> {
        let best = logits[greedy(logits)? as usize];
        let SamplerConfig { temperature, top_k, top_p, min_p, .. } = self.config;
        let kept = &mut self.kept;
        kept.clear();
        kept.extend(
            logits.iter().enumerate().map(|(i, &z)| (i as u32, (f64::from(z - best) / temperature).exp())),
        );
        if top_k > 0 && top_k < kept.len() {
            kept.select_nth_unstable_by(top_k - 1, rank);
            kept.truncate(top_k);
        }
        if top_p < 1.0 {
            kept.sort_unstable_by(rank);
            let target = top_p * kept.iter().map(|k| k.1).sum::<f64>();
            let mut sum = 0.0;
            let reached = kept.iter().position(|k| {
                sum += k.1;
                sum >= target
            });
            kept.truncate(reached.map_or(kept.len(), |i| i + 1));
        }
        // The best token has weight one, so its multiple is the multiple of the largest probability.
        kept.retain(|k| k.1 > 0.0 && k.1 >= min_p);
        kept.sort_unstable_by_key(|k| k.0);
        let total: f64 = kept.iter().map(|k| k.1).sum();
        for k in kept {
            k.1 /= total;
        }
        Ok(())
    }
}

fn rank(a: &(u32, f64), b: &(u32, f64)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The token of the largest logit; the lowest id among equals.
///
/// # Errors
/// As [`Sampler::next`].
pub fn greedy(logits: &[f32]) -> Result<u32, SampleError> {
    let mut best: Option<usize> = None;
    for (token, &value) in logits.iter().enumerate() {
        if value.is_nan() || value == f32::INFINITY {
            return Err(SampleError::NotFinite { token, value });
        }
        if value > best.map_or(f32::NEG_INFINITY, |b| logits[b]) {
            best = Some(token);
        }
    }
    best.map(|b| b as u32).ok_or(SampleError::Empty { n: logits.len() })
}

#[cfg(test)]
mod tests;
