//! Deterministic random streams.
//!
//! A stream is named by `seed x purpose`, so that adding a consumer never moves the numbers that another
//! one sees. The generator is SplitMix64 (Steele, Lea, Flood 2014): ten lines in any language, which is
//! what lets fixtures store outputs only and regenerate inputs.

/// A SplitMix64 stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

/// One SplitMix64 output for a counter value: a stateless hash, for noise that must be reproducible from
/// its index alone (dropout masks recomputed in the backward pass).
#[inline(always)]
pub fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// The raw SplitMix64 stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Rng { state: seed }
    }

    /// The stream of `seed` for one named purpose (`"data"`, `"init"`, `"dropout"` ...).
    pub fn named(seed: u64, purpose: &str) -> Self {
        // FNV-1a keeps the mapping independent of the standard library's hasher.
        let mut h: u64 = 0xcbf2_9ce4_8422_2325;
        for b in purpose.bytes() {
            h = (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        }
        Rng { state: mix(seed ^ h) }
    }

    /// The state, for checkpoints.
    pub fn state(&self) -> u64 {
        self.state
    }

    /// A stream that continues from a saved state.
    pub fn from_state(state: u64) -> Self {
        Rng { state }
    }

    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let out = mix(self.state);
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        out
    }

    /// Uniform in `[0, 1)` with 53 bits.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..n` (`n > 0`), by the multiply-shift method; its bias is below `n / 2^64`.
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// Standard normal (Box-Muller; consumes two draws).
    pub fn normal(&mut self) -> f64 {
        let u = 1.0 - self.uniform();
        let v = self.uniform();
        (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
    }

    /// Fisher-Yates shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_matches_the_published_sequence() {
        let mut r = Rng::new(1_234_567);
        let want = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423u64];
        assert_eq!(std::array::from_fn::<u64, 3, _>(|_| r.next_u64()), want);
    }

    #[test]
    fn purposes_are_independent_of_each_other() {
        let (mut a, mut b) = (Rng::named(7, "data"), Rng::named(7, "init"));
        assert_ne!(a.next_u64(), b.next_u64());
    }
}
