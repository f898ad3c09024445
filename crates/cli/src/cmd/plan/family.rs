//! Decoders of one proportion.

use rhumb_nn::model::{DecoderConfig, Family as Kind, RopeConfig};

use crate::cmd::model::ffn;
use crate::exit::Failure;

/// Decoders that differ from one in size only.
///
/// # Equation
/// Widths, heads and feed-forward layers are `n / d` of the first one's, n = 1, 2, ..., where d divides them all; heads keep
/// their size, a single key-value head stays one. Depth is free between 3/4 and 3/2 of `n / d` of the first one's, so that
/// sizes lie close together.
pub(super) struct Family {
    of: DecoderConfig,
    divisor: usize,
    /// Feed-forward layers follow from the width by the rule of `rhumb model new`.
    ruled: bool,
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Family {
    /// Llama: heads of 64, as many key-value heads, tied; 64 (GPT-2) to 128 (Llama 2 7B) of width a layer.
    pub(super) fn llama(vocab: usize, tokens: usize) -> Self {
        let of = DecoderConfig {
            family: Kind::Llama,
            vocab,
            width: 192,
            layers: 2,
            heads: 3,
            kv_heads: 3,
            head_dim: 64,
            ffn: ffn(192),
            positions: tokens.max(1024),
            eps: 1e-5,
            rope: Some(RopeConfig { theta: 1e4, llama3: None }),
            qkv_bias: false,
            qk_norm: false,
            tied: true,
        };
        Family { of, divisor: 3, ruled: true }
    }

    /// The proportions of a model.
    pub(super) fn of(c: &DecoderConfig) -> Self {
        let several = if c.kv_heads == 1 { 0 } else { c.kv_heads };
        let divisor = [c.heads, several, c.ffn].into_iter().fold(c.width, gcd);
        Family { of: c.clone(), divisor, ruled: false }
    }

    /// Width over layers of the first one.
    pub(super) fn steepness(&self) -> f64 {
        self.of.width as f64 / self.of.layers as f64
    }

    pub(super) fn smallest(&self) -> DecoderConfig {
        self.at(1, self.depths(1).0)
    }

    fn at(&self, n: usize, layers: usize) -> DecoderConfig {
        let scaled = |x: usize| x / self.divisor * n;
        let c = &self.of;
        let width = scaled(c.width);
        DecoderConfig {
            width,
            layers,
            heads: scaled(c.heads),
            kv_heads: if c.kv_heads == 1 { 1 } else { scaled(c.kv_heads) },
            ffn: if self.ruled { ffn(width) } else { scaled(c.ffn) },
            ..c.clone()
        }
    }

    fn depths(&self, n: usize) -> (usize, usize) {
        let low = (3 * self.of.layers * n).div_ceil(4 * self.divisor).max(1);
        (low, (3 * self.of.layers * n / (2 * self.divisor)).max(low))
    }

    /// The one with the most parameters among those that fit; `fits` falls with width and with depth.
    pub(super) fn largest(
        &self,
        fits: impl Fn(DecoderConfig) -> Result<bool, Failure>,
    ) -> Result<Option<DecoderConfig>, Failure> {
        let widest = last(0, |n| fits(self.at(n, self.depths(n).0)))?;
        let mut best: Option<(usize, DecoderConfig)> = None;
        for n in (1..=widest).rev() {
            let (low, high) = self.depths(n);
            let layers = last(low, |layers| Ok(layers <= high && fits(self.at(n, layers))?))?;
            let config = self.at(n, layers);
            let size = size(&config);
            if best.as_ref().is_none_or(|b| size > b.0) {
                best = Some((size, config));
            }
            // Narrower ones at their deepest are smaller.
            if layers == high {
                break;
            }
        }
        Ok(best.map(|b| b.1))
    }
}

/// Parameters in matrices, which decide.
fn size(c: &DecoderConfig) -> usize {
    let attention = 2 * (c.heads + c.kv_heads) * c.head_dim;
    let ffn = if c.family == Kind::Gpt2 { 2 } else { 3 } * c.ffn;
    let tables = if c.tied { 1 } else { 2 } * c.vocab;
    c.width * (tables + c.layers * (attention + ffn))
}

/// The last number from `from` on for which `holds`, which holds for `from` and fails from some number on for good.
fn last(from: usize, holds: impl Fn(usize) -> Result<bool, Failure>) -> Result<usize, Failure> {
    let mut step = 1;
    while holds(from + step)? {
        step *= 2;
    }
    // It held at half the step, and fails at the whole.
    let (mut good, mut bad) = (from + step / 2, from + step);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if holds(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_last_number_is_found_wherever_it_is() {
        for want in 3..200 {
            assert_eq!(last(3, |n| Ok(n <= want)).unwrap(), want);
        }
    }

    #[test]
    fn the_search_finds_what_a_look_at_every_decoder_finds() {
        let smollm = DecoderConfig {
            width: 576,
            layers: 30,
            heads: 9,
            kv_heads: 3,
            ffn: 1536,
            ..Family::llama(49152, 8).of
        };
        let single = DecoderConfig { heads: 8, kv_heads: 1, head_dim: 256, width: 2048, ..smollm.clone() };
        for family in [Family::llama(500, 8), Family::of(&smollm), Family::of(&single)] {
            for limit in [1_usize << 20, 1 << 22, 30_000_000, 100_000_000, 3_000_000_000] {
                // Depth costs more than its parameters, as activations do.
                let cost = |c: &DecoderConfig| size(c) + 40 * c.width * c.layers;
                let all = (1..60).flat_map(|n| {
                    let (low, high) = family.depths(n);
                    (low..=high).map(move |l| (n, l))
                });
                let best =
                    all.map(|(n, l)| family.at(n, l)).filter(|c| cost(c) <= limit).map(|c| size(&c)).max();
                let found = family.largest(|c| Ok(cost(&c) <= limit)).unwrap();
                assert_eq!(found.map(|c| size(&c)), best, "{limit}");
            }
        }
    }

    #[test]
    fn a_family_holds_the_model_it_was_made_of() {
        let c = DecoderConfig {
            width: 768,
            layers: 12,
            heads: 12,
            kv_heads: 4,
            ffn: 2048,
            ..Family::llama(9, 8).of
        };
        let family = Family::of(&c);
        assert_eq!(family.at(family.divisor, 12), c);
        let (low, high) = family.depths(family.divisor);
        assert!((low, high) == (9, 18) && family.divisor == 4, "{low} {high}");
    }
}
