//! Eight-bit moments: blocks of 256 values on a map that is fine near one and spans seven decades.
//!
//! # The map
//! Decade k = 0 .. 6 is the interval (0.1, 1] times 10^(k − 6), cut into n equal parts, whose middles are the
//! values of the map: n = 2^k with a sign, n = 2^(k + 1) without one. Zero and one complete it: 256 values, with
//! a sign −0.993 to 1, without one 0 to 1. A block is divided by its largest magnitude, which is stored in `f32`, and
//! every quotient goes to the nearest value.
//!
//! # Reference
//! Dettmers, Lewis, Shleifer, Zettlemoyer, *8-bit Optimizers via Block-wise Quantization*, arXiv 2110.02861,
//! Sections 2 and 3; the map is Dettmers, arXiv 1511.04561. Deviation: a second moment that is not zero never becomes
//! zero, because a first moment that survives would then be divided by ε alone.

use rhumb_linalg::Real;

/// Values that share a scale.
pub(crate) const BLOCK: usize = 256;

const DECADES: usize = 7;

/// One of the two maps, with what finds the nearest value by arithmetic instead of a search.
#[derive(Debug)]
pub(crate) struct Map {
    /// Ascending.
    pub(crate) values: [f32; 256],
    nearest: Nearest,
}

/// Finds the index of the nearest value.
#[derive(Clone, Copy, Debug)]
struct Nearest {
    signed: bool,
    /// From what quotient on a decade is nearest; the first decade begins at zero's half way.
    from: [f32; DECADES],
    /// Parts of a decade per unit.
    slope: [f32; DECADES],
    /// What to add for the index among the positive values, in parts.
    offset: [f32; DECADES],
    /// Index of the last value of a decade.
    last: [f32; DECADES],
    /// From what quotient on one is nearest.
    one: f32,
    /// Index of one.
    top: f32,
}

/// With a sign: first moments.
pub(crate) static SIGNED: Map = Map::new(true);
/// Without a sign: second moments.
pub(crate) static UNSIGNED: Map = Map::new(false);

impl Map {
    const fn new(signed: bool) -> Self {
        let zero = if signed { 127 } else { 0 };
        let mut m = Map {
            values: [0.0; 256],
            nearest: Nearest {
                signed,
                from: [0.0; DECADES],
                slope: [0.0; DECADES],
                offset: [0.0; DECADES],
                last: [0.0; DECADES],
                one: 0.0,
                top: 0.0,
            },
        };
        let mut at = zero + 1;
        let mut k = 0;
        let mut size = 1e-6;
        let mut below = 0.0;
        while k < DECADES {
            let parts = if signed { 1 << k } else { 2 << k };
            let n = parts as f64;
            // Multiplying by ten adds up roundings in f64 only.
            let first = at - zero;
            m.nearest.from[k] = (0.5 * (below + size * (0.1 + 0.45 / n))) as f32;
            m.nearest.slope[k] = (n / (0.9 * size)) as f32;
            m.nearest.offset[k] = (first as f64 - n / 9.0) as f32;
            m.nearest.last[k] = (first + parts - 1) as f32;
            let mut i = 0;
            while i < parts {
                below = size * (0.1 + 0.9 * (i as f64 + 0.5) / n);
                m.values[at] = below as f32;
                if signed {
                    m.values[2 * zero - at] = -below as f32;
                }
                at += 1;
                i += 1;
            }
            size *= 10.0;
            k += 1;
        }
        m.values[at] = 1.0;
        m.nearest.one = (0.5 * (below + 1.0)) as f32;
        m.nearest.top = (at - zero) as f32;
        m
    }

    /// Writes the values of whole blocks; the last block may be short.
    #[inline(always)]
    pub(crate) fn decode<T: Real>(&self, codes: &[u8], scales: &[f32], to: &mut [T]) {
        for ((to, codes), scale) in to.chunks_mut(BLOCK).zip(codes.chunks(BLOCK)).zip(scales) {
            for (to, code) in to.iter_mut().zip(codes) {
                *to = T::of((self.values[usize::from(*code)] * scale).into());
            }
        }
    }

    /// Stores whole blocks; the last block may be short. A block with a NaN or an infinity becomes NaN, so that
    /// the fault stays visible; a block below the normal numbers becomes zero.
    #[inline(always)]
    pub(crate) fn encode<T: Real>(&self, from: &[T], codes: &mut [u8], scales: &mut [f32]) {
        // A copy, because the compiler must not fear that codes are written over the map.
        let nearest = self.nearest;
        for ((from, codes), scale) in from.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(scales) {
            let mut top = 0;
            for x in from {
                // As integers magnitudes are ordered like the numbers, with infinity and NaN above all.
                top = top.max((x.f64() as f32).to_bits() & 0x7FFF_FFFF);
            }
            let size = f32::from_bits(if top < 0x7F80_0000 { top } else { 0x7FC0_0000 });
            let size = if size < f32::MIN_POSITIVE { 0.0 } else { size };
            *scale = size;
            let unit = if size > 0.0 { 1.0 / size } else { 0.0 };
            let (whole, rest) = from.as_chunks::<LANES>();
            let (codes, end) = codes.as_chunks_mut::<LANES>();
            for (x, code) in whole.iter().zip(codes) {
                *code = nearest.codes(x, unit);
            }
            if !rest.is_empty() {
                let mut x = [T::ZERO; LANES];
                x[..rest.len()].copy_from_slice(rest);
                end.copy_from_slice(&nearest.codes(&x, unit)[..rest.len()]);
            }
        }
    }
}

/// Values that are encoded at a time: two of the widest vectors.
const LANES: usize = 32;

impl Nearest {
    /// Codes of values times `unit`.
    #[inline(always)]
    fn codes<T: Real>(&self, x: &[T; LANES], unit: f32) -> [u8; LANES] {
        let mut out = [0; LANES];
        for i in 0..LANES {
            let x = x[i].f64() as f32;
            let index = self.index(x.abs() * unit);
            out[i] = if self.signed {
                let index = if x.abs() * unit < self.from[0] { 0.0 } else { index };
                // There is no minus one.
                let below = if index < 127.0 { index } else { 127.0 };
                integer(if x < 0.0 { 127.0 - below } else { 127.0 + index })
            } else {
                let index = if index > 1.0 { index } else { 1.0 };
                integer(if x > 0.0 { index } else { 0.0 })
            };
        }
        out
    }

    /// Index of the nearest positive value.
    #[inline(always)]
    fn index(&self, a: f32) -> f32 {
        let (mut slope, mut offset, mut last) = (self.slope[0], self.offset[0], self.last[0]);
        for k in 1..DECADES {
            let here = a >= self.from[k];
            slope = if here { self.slope[k] } else { slope };
            offset = if here { self.offset[k] } else { offset };
            last = if here { self.last[k] } else { last };
        }
        let index = a.mul_add(slope, offset).floor();
        let index = if index < last { index } else { last };
        if a >= self.one { self.top } else { index }
    }
}

/// A whole number of 0 to 255 as a byte, without the checks of a cast: it stands in the lowest mantissa bits of its
/// sum with 2^23.
#[inline(always)]
fn integer(x: f32) -> u8 {
    (x + 8_388_608.0).to_bits() as u8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rhumb_linalg::rng::Rng;

    use super::*;

    fn round_trip(map: &Map, x: &[f32]) -> Vec<f32> {
        let (mut codes, mut scales) = (vec![0; x.len()], vec![0.0; x.len().div_ceil(BLOCK)]);
        map.encode(x, &mut codes, &mut scales);
        let mut out = vec![0.0; x.len()];
        map.decode(&codes, &scales, &mut out);
        out
    }

    /// Over many decades, the largest of each block being one.
    fn spread(n: usize, signed: bool) -> Vec<f32> {
        let mut r = Rng::new(5);
        let mut x: Vec<f32> = (0..n)
            .map(|_| {
                let sign = if signed && r.uniform() < 0.5 { -1.0 } else { 1.0 };
                (sign * 10.0_f64.powf(-8.0 * r.uniform())) as f32
            })
            .collect();
        x.iter_mut().step_by(BLOCK).for_each(|x| *x = 1.0);
        x
    }

    #[test]
    fn the_maps_are_those_of_bitsandbytes() {
        let f: serde_json::Value =
            serde_json::from_str(include_str!("../../../../fixtures/optimizers/dynamic-maps.json")).unwrap();
        for (name, map) in [("signed", &SIGNED), ("unsigned", &UNSIGNED)] {
            let want: Vec<f64> = serde_json::from_value(f[name].clone()).unwrap();
            assert_eq!(want.len(), 256);
            for (i, (a, b)) in map.values.iter().zip(want).enumerate() {
                // The package builds its map in f32, which costs up to two units in the last place.
                assert!((f64::from(*a) - b).abs() <= 3e-7 * b.abs(), "{name} {i}: {a} instead of {b}");
            }
        }
    }

    #[test]
    fn every_value_goes_to_the_nearest_of_the_map() {
        for (map, signed) in [(&SIGNED, true), (&UNSIGNED, false)] {
            let x = spread(100_000, signed);
            for (x, got) in x.iter().zip(round_trip(map, &x)) {
                let distance = |v: f32| (v - x).abs();
                let nearest = map.values.iter().copied().map(distance).fold(f32::MAX, f32::min);
                let smallest = !signed && got.to_bits() == map.values[1].to_bits();
                assert!(distance(got) <= nearest * 1.000_01 + 1e-8 || smallest, "{signed} {x}: {got}");
            }
        }
    }

    #[test]
    fn the_error_is_at_most_half_a_part_of_the_uppermost_decade() {
        let mut r = Rng::new(9);
        let x: Vec<f32> = (0..50_000).map(|_| r.normal() as f32).collect();
        let squares: Vec<f32> = x.iter().map(|x| x * x).collect();
        for (map, x, bound) in [(&SIGNED, &x, 0.45 / 64.0), (&UNSIGNED, &squares, 0.45 / 128.0)] {
            let mut worst = 0.0_f32;
            for (x, got) in x.chunks(BLOCK).zip(round_trip(map, x).chunks(BLOCK)) {
                let top = x.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                worst = x.iter().zip(got).fold(worst, |w, (x, y)| w.max((x - y).abs() / top));
            }
            assert!(worst <= bound * 1.000_01 && worst > 0.9 * bound, "{worst} {bound}");
        }
    }

    #[test]
    fn zero_stays_zero_and_the_values_of_the_map_stay() {
        for map in [&SIGNED, &UNSIGNED] {
            assert!(round_trip(map, &[0.0; 300]).iter().all(|x| x.to_bits() == 0));
            // The largest, one, keeps the scale.
            let x: Vec<f32> = map.values.iter().map(|v| 3.0 * v).collect();
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&round_trip(map, &x)), bits(&x));
        }
    }

    #[test]
    fn a_second_moment_that_is_not_zero_never_becomes_zero() {
        let got = round_trip(&UNSIGNED, &[1.0, 1e-7, 1e-30, 0.0]);
        assert!(got[1] > 0.0 && got[2] > 0.0 && got[3].to_bits() == 0, "{got:?}");
    }

    #[test]
    fn blocks_do_not_see_each_other() {
        let mut x = vec![1e-3_f32; 3 * BLOCK + 7];
        x[BLOCK] = 1e20;
        let got = round_trip(&SIGNED, &x);
        assert!(got[..BLOCK].iter().chain(&got[2 * BLOCK..]).all(|x| x.to_bits() == 1e-3_f32.to_bits()));
        assert!(got[BLOCK + 1..2 * BLOCK].iter().all(|x| x.to_bits() == 0));
    }

    #[test]
    fn a_block_with_a_nan_or_an_infinity_becomes_nan_and_a_subnormal_block_zero() {
        for map in [&SIGNED, &UNSIGNED] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut x = vec![0.5_f32; 2 * BLOCK];
                x[3] = bad;
                let got = round_trip(map, &x);
                assert!(
                    got[..BLOCK].iter().all(|x| x.is_nan()) && got[BLOCK..].iter().all(|x| x.is_finite())
                );
            }
            assert!(round_trip(map, &[1e-40, 3e-42]).iter().all(|x| x.to_bits() == 0));
        }
    }

    #[test]
    fn the_largest_numbers_keep_their_order() {
        let got = round_trip(&SIGNED, &[f32::MAX, 0.5 * f32::MAX, -0.25 * f32::MAX]);
        assert!(got.iter().all(|x| x.is_finite()));
        assert!((got[1] / f32::MAX - 0.5).abs() < 0.008 && (got[2] / f32::MAX + 0.25).abs() < 0.008);
    }
}
