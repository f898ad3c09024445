//! Loops and constants that every optimizer shares.

use rhumb_linalg::Real;

/// Scalars of one parallel task. Fixed, so that results do not depend on the number of threads; a multiple of
/// what a step works on at a time.
pub(crate) const TASK: usize = 1 << 16;

/// Below this many scalars a parallel loop costs more than it saves.
pub(crate) const PARALLEL_FROM: usize = 1 << 17;

/// Scalars that are summed in their own precision before the sum goes on in `f64`: long sums in `f32` would
/// lose digits, and a short sum vectorises.
const SHORT: usize = 4096;

/// Enough independent sums to hide the latency of an addition with 16-wide vectors.
const LANES: usize = 32;

/// Runs a loop compiled for the widest vector instructions of this machine: `simd!(|| body)`.
///
/// A closure that is not inlined is compiled for the oldest processor. So every instruction set has a closure of
/// its own, inlined by attribute, and the closure owns a [`Token`], without which it could be called more than
/// once and would be called through a shim that is not inlined when it is long. For the same reason `body` calls
/// functions marked `#[inline(always)]` and no closures. Fused multiply-adds are written out, the compiler
/// contracts nothing by itself, and so all machines give the same bits.
macro_rules! simd {
    (|| $body:expr) => {{
        let token = $crate::kernel::Token;
        match pulp::Arch::new() {
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V4(arch) => arch.vectorize(
                #[inline(always)]
                || {
                    let _token = token;
                    $body
                },
            ),
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V3(arch) => arch.vectorize(
                #[inline(always)]
                || {
                    let _token = token;
                    $body
                },
            ),
            arch => arch.dispatch(
                #[inline(always)]
                || {
                    let _token = token;
                    $body
                },
            ),
        }
    }};
}
pub(crate) use simd;

/// Makes the closure that consumes it callable once.
pub(crate) struct Token;

/// Runs a closure with the widest vector instructions of the machine. `f` and what it calls must be inlined, by
/// attribute where they are long.
#[inline(always)]
pub(crate) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Sum of squares in a fixed order.
#[inline(always)]
pub(crate) fn sum_sq<T: Real>(values: &[T]) -> f64 {
    let mut sum = 0.0;
    for short in values.chunks(SHORT) {
        sum += short_sum_sq(short);
    }
    sum
}

#[inline(always)]
fn short_sum_sq<T: Real>(values: &[T]) -> f64 {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut sum = 0.0;
    if !whole.is_empty() {
        let mut lanes = [T::ZERO; LANES];
        for chunk in whole {
            for i in 0..LANES {
                lanes[i] = chunk[i].mul_add(chunk[i], lanes[i]);
            }
        }
        sum = fold(lanes).f64();
    }
    for v in rest {
        sum += v.f64() * v.f64();
    }
    sum
}

/// Halving keeps the chain of dependent additions at the logarithm of the lanes. Not inlined: the compiler would
/// take the pairs of the last halving for the vectors of the whole loop. By value: the sums stay in registers.
#[inline(never)]
fn fold<T: Real>(mut lanes: [T; LANES]) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Sum of squares of a slice of any length, in parallel; the tree of partial sums depends on the length alone.
pub(crate) fn par_sum_sq<T: Real>(values: &[T]) -> f64 {
    match halves(values.len(), TASK) {
        None => simd!(|| sum_sq(values)),
        Some(at) => {
            let (a, b) = values.split_at(at);
            let (a, b) = rayon::join(|| par_sum_sq(a), || par_sum_sq(b));
            a + b
        }
    }
}

/// Where to divide `len` scalars into two runs of whole tasks, or nothing when they are one task.
pub(crate) fn halves(len: usize, task: usize) -> Option<usize> {
    (len > task).then(|| len.div_ceil(task) / 2 * task)
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
