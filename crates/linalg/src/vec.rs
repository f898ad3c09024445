//! Vector operations with sums in `f64`.
//!
//! Sums run over chunks of fixed length, each in fixed lanes, so that they depend on the values alone.

use crate::Real;

/// Values per partial sum: long enough to hide its start and end, short enough to keep rounding errors local.
const CHUNK: usize = 4096;
/// Independent sums within a chunk, for the vector units.
const LANES: usize = 16;

fn sum_by<T: Real>(a: &[T], b: &[T], f: impl Fn(f64, f64) -> f64) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of different length");
    let mut sum = 0.0;
    for (a, b) in a.chunks(CHUNK).zip(b.chunks(CHUNK)) {
        let mut lanes = [0.0f64; LANES];
        let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let tail: f64 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| f(x.f64(), y.f64())).sum();
        for (a, b) in a.zip(b) {
            for ((lane, x), y) in lanes.iter_mut().zip(a).zip(b) {
                *lane += f(x.f64(), y.f64());
            }
        }
        sum += lanes.iter().sum::<f64>() + tail;
    }
    sum
}

/// `<a, b>`, accumulated in `f64`.
///
/// # Panics
/// When the lengths differ.
pub fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    sum_by(a, b, |x, y| x * y)
}

/// Euclidean norm, accumulated in `f64` (which squares every `f32` without overflow).
pub fn norm<T: Real>(a: &[T]) -> f64 {
    dot(a, a).sqrt()
}

/// `y = y + alpha x`.
///
/// # Panics
/// When the lengths differ.
pub fn axpy<T: Real>(alpha: T, x: &[T], y: &mut [T]) {
    assert_eq!(x.len(), y.len(), "vectors of different length");
    for (y, &x) in y.iter_mut().zip(x) {
        *y += alpha * x;
    }
}

/// `x = alpha x`.
pub fn scale<T: Real>(alpha: T, x: &mut [T]) {
    for x in x {
        *x *= alpha;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "exact values")]

    use super::*;

    #[test]
    fn small_vectors_give_exact_values() {
        assert_eq!(dot(&[1.0f32, 2.0, 3.0], &[4.0, 5.0, 6.0]), 32.0);
        assert_eq!(norm(&[3.0f64, 4.0]), 5.0);
        assert_eq!(norm::<f64>(&[]), 0.0);
        let mut y = [1.0f64, 2.0];
        axpy(2.0, &[10.0, 20.0], &mut y);
        assert_eq!(y, [21.0, 42.0]);
        scale(0.5, &mut y);
        assert_eq!(y, [10.5, 21.0]);
    }

    #[test]
    fn every_length_counts_every_element_once() {
        for n in [1, 15, 16, 17, 4095, 4096, 4097, 10_000] {
            let x: Vec<f64> = (0..n).map(f64::from).collect();
            let n = f64::from(n);
            assert_eq!(dot(&x, &vec![1.0; x.len()]), n * (n - 1.0) / 2.0);
        }
    }

    #[test]
    fn single_precision_is_summed_in_double() {
        // In f32 the ones are lost beside 2^24, and the square of 1e30 overflows.
        let mut x = vec![1.0f32; 5001];
        x[0] = 16_777_216.0;
        assert_eq!(dot(&x, &vec![1.0; 5001]), 16_782_216.0);
        assert!((norm(&[1e30f32, 1e30]) / (f64::from(1e30f32) * 2f64.sqrt()) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn not_a_number_propagates() {
        assert!(dot(&[f32::NAN, 0.0], &[0.0, 1.0]).is_nan());
    }

    #[test]
    #[should_panic(expected = "different length")]
    fn different_lengths_are_a_programmer_error() {
        dot(&[1.0f64], &[]);
    }
}
