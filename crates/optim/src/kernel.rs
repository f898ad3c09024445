//! Loops and constants that every optimizer shares.

use rhumb_linalg::Real;

/// Scalars of one parallel task. Fixed, so that results do not depend on the number of threads.
pub(crate) const TASK: usize = 1 << 16;

/// Below this many scalars a parallel loop costs more than it saves.
pub(crate) const PARALLEL_FROM: usize = 1 << 17;

/// Scalars that are summed in their own precision before the sum goes on in `f64`: long sums in `f32` would
/// lose digits, and a short sum vectorises.
const SHORT: usize = 4096;

/// Enough independent sums to hide the latency of an addition with 8-wide vectors.
const LANES: usize = 32;

/// Runs a loop with the widest vector instructions of the machine. `f` and what it calls must be inlined; the
/// arithmetic stays that of the source, without contraction, so that all machines give the same bits.
#[inline(always)]
pub(crate) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Sum of squares in a fixed order.
#[inline(always)]
pub(crate) fn sum_sq<T: Real>(values: &[T]) -> f64 {
    values.chunks(SHORT).map(short_sum_sq).sum()
}

#[inline(always)]
fn short_sum_sq<T: Real>(values: &[T]) -> f64 {
    let mut lanes = [T::ZERO; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for i in 0..LANES {
            lanes[i] += chunk[i] * chunk[i];
        }
    }
    // Halving keeps the chain of dependent additions at the logarithm of the lanes.
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    rest.iter().fold(lanes[0].f64(), |sum, v| sum + v.f64() * v.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_squares_of_a_million_small_numbers_keeps_six_digits_in_f32() {
        let v = vec![0.1_f32; 1_000_000];
        let want = 1e6 * f64::from(0.1_f32).powi(2);
        assert!((sum_sq(&v) / want - 1.0).abs() < 1e-6);
    }

    #[test]
    fn lengths_that_are_no_multiple_of_the_lanes_are_summed_whole() {
        for n in [0, 1, 31, 32, 33, 4095, 4097] {
            let v: Vec<f64> = (1..=n).map(|i| i as f64).collect();
            let n = n as f64;
            assert!((sum_sq(&v) - n * (n + 1.0) * (2.0 * n + 1.0) / 6.0).abs() < 1e-3, "{n}");
        }
    }
}
