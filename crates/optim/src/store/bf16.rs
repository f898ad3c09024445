//! Sixteen-bit moments with stochastic rounding.

use rhumb_linalg::Real;
use rhumb_linalg::rng::mix;

/// The random bits of one step: a function of seed, step and position alone, so that neither threads nor a restart
/// change them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    stream: u64,
}

impl Noise {
    pub(crate) fn of_step(seed: u64, step: u64) -> Self {
        Noise { stream: mix(step ^ seed.rotate_left(32)) }
    }

    /// What distinguishes the 2^32 positions that share their upper bits from those of other steps.
    #[inline(always)]
    fn key(self, at: u64) -> u32 {
        (mix(self.stream ^ (at >> 32)) >> 32) as u32
    }
}

/// Mixes a counter (the finaliser of MurmurHash3, which vectorises in 32 bits); returns 16 of its bits.
#[inline(always)]
fn bits16(counter: u32) -> u32 {
    let x = (counter ^ (counter >> 16)).wrapping_mul(0x85EB_CA6B);
    let x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    x >> 16
}

/// Rounds to one of the two neighbours with 8 significant bits, up with the probability that makes the mean
/// exact. Values with 8 significant bits, zeros and infinities stay; NaN stays NaN.
#[inline(always)]
fn round(x: f32, random: u32) -> u16 {
    let bits = x.to_bits();
    // The carry of a NaN could run into the sign and make it a number.
    let nan = bits & 0x7FFF_FFFF > 0x7F80_0000;
    ((if nan { bits | 0x0040_0000 } else { bits.wrapping_add(random) }) >> 16) as u16
}

#[inline(always)]
pub(crate) fn decode<T: Real>(from: &[u16], to: &mut [T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = T::of(f32::from_bits(u32::from(*from) << 16).into());
    }
}

/// `at` is the position of the first value in the flat vector.
#[inline(always)]
pub(crate) fn encode<T: Real>(from: &[T], to: &mut [u16], noise: Noise, at: u64) {
    let key = noise.key(at);
    let first = at as u32;
    for (i, (to, from)) in to.iter_mut().zip(from).enumerate() {
        *to = round(from.f64() as f32, bits16(first.wrapping_add(i as u32) ^ key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    #[test]
    fn every_value_of_eight_significant_bits_stays() {
        for bits in 0..=u16::MAX {
            let x = value(bits);
            for random in [0, 1, 0x8000, 0xFFFF] {
                let got = round(x, random);
                assert!(if x.is_nan() { value(got).is_nan() } else { got == bits }, "{x} {random}");
            }
        }
    }

    #[test]
    fn a_nan_never_becomes_a_number() {
        for bits in [0x7F80_0001_u32, 0x7FC0_0000, 0x7FFF_FFFF, 0xFF80_0001, 0xFFFF_FFFF] {
            assert!(value(round(f32::from_bits(bits), 0xFFFF)).is_nan(), "{bits:x}");
        }
    }

    #[test]
    fn the_mean_over_steps_is_the_value_and_only_the_two_neighbours_occur() {
        let x = [1.001_f32, -1.234_567, 3.3e-5, -7.77e12, 1.0 + 2.0_f32.powi(-20)];
        let draws = 40_000_u64;
        let mut sum = [0.0_f64; 5];
        for step in 0..draws {
            let mut out = [0; 5];
            encode(&x, &mut out, Noise::of_step(0, step), 77);
            for i in 0..5 {
                let got = value(out[i]);
                let below = value((x[i].to_bits() >> 16) as u16);
                let above = value((x[i].to_bits() >> 16) as u16 + 1);
                assert!(got.to_bits() == below.to_bits() || got.to_bits() == above.to_bits());
                sum[i] += f64::from(got);
            }
        }
        for i in 0..5 {
            let (low, x) = (f64::from(value((x[i].to_bits() >> 16) as u16)), f64::from(x[i]));
            let gap = f64::from(value((x as f32).to_bits().wrapping_shr(16) as u16 + 1)) - low;
            let up = (x - low) / gap;
            let error = gap.abs() * (up * (1.0 - up) / draws as f64).sqrt();
            assert!((sum[i] / draws as f64 - x).abs() <= 4.0 * error, "{x}: {}", sum[i] / draws as f64);
        }
    }

    #[test]
    fn the_mean_over_positions_is_the_value() {
        for at in [0, (1 << 32) - 5_000, 1 << 40] {
            let x = vec![0.300_1_f32; 100_000];
            let mut out = vec![0; x.len()];
            encode(&x, &mut out, Noise::of_step(5, 3), at);
            let mean = out.iter().map(|b| f64::from(value(*b))).sum::<f64>() / x.len() as f64;
            let low = f64::from(value((x[0].to_bits() >> 16) as u16));
            let gap = f64::from(value((x[0].to_bits() >> 16) as u16 + 1)) - low;
            let up = (f64::from(x[0]) - low) / gap;
            let error = gap * (up * (1.0 - up) / x.len() as f64).sqrt();
            assert!((mean - f64::from(x[0])).abs() <= 4.0 * error, "{at}: {mean}");
        }
    }
}
