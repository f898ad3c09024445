#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::*;
use crate::rng::Rng;

type Size = (usize, usize, usize);

fn values<T: Real>(rng: &mut Rng, n: usize) -> Vec<T> {
    (0..n).map(|_| T::of(rng.uniform() * 2.0 - 1.0)).collect()
}

/// Every kernel of this machine, and the portable path.
fn kernels<T: Real>() -> Vec<Option<&'static Kernel<T>>> {
    T::kernels().iter().map(|&k| Some(k)).chain([None]).collect()
}

fn name<T>(kernel: Option<&'static Kernel<T>>) -> &'static str {
    kernel.map_or("portable", |k| k.name)
}

#[derive(Clone, Copy, Debug)]
enum From {
    Zero,
    Keep,
    Bias,
    Matrix,
}

/// One product with random operands against the definition summed in f64.
fn against_definition<T: Real>(size: Size, trans: (bool, bool), from: From, parallel: bool, tolerance: f64) {
    let (m, n, k) = size;
    let rng = &mut Rng::new((m * 31 + n * 7 + k) as u64);
    let (lda, ldb, ldc, ldr) =
        (if trans.0 { m } else { k } + 3, if trans.1 { k } else { n } + 1, n + 2, n + 5);
    let a: Vec<T> = values(rng, lda * if trans.0 { k } else { m });
    let b: Vec<T> = values(rng, ldb * if trans.1 { n } else { k });
    let (bias, r, c0): (Vec<T>, Vec<T>, Vec<T>) =
        (values(rng, n), values(rng, ldr * m), values(rng, ldc * m));
    let a = if trans.0 { Mat::cols(&a, lda) } else { Mat::rows(&a, lda) };
    let b = if trans.1 { Mat::cols(&b, ldb) } else { Mat::rows(&b, ldb) };
    let alpha = T::of(0.75);
    for kernel in kernels::<T>() {
        let mut c = c0.clone();
        let init = match from {
            From::Zero => Init::Zero,
            From::Keep => Init::Keep,
            From::Bias => Init::Bias(&bias),
            From::Matrix => Init::Matrix(&r, ldr),
        };
        gemm_on(kernel, parallel, Product { size, alpha, a, b, ldc }, &mut c, init);
        for i in 0..m {
            for j in 0..ldc {
                let (at, old) = (i * ldc + j, c0[i * ldc + j]);
                if j >= n {
                    assert_eq!(c[at], old, "{}: wrote between the rows", name(kernel));
                    continue;
                }
                let sum: f64 = (0..k)
                    .map(|p| {
                        a.data[i * a.row_stride + p * a.col_stride].f64()
                            * b.data[p * b.row_stride + j * b.col_stride].f64()
                    })
                    .sum();
                let first = match from {
                    From::Zero => T::ZERO,
                    From::Keep => old,
                    From::Bias => bias[j],
                    From::Matrix => r[i * ldr + j],
                };
                let want = first.f64() + 0.75 * sum;
                let error = (c[at].f64() - want).abs();
                assert!(
                    error <= tolerance * (1.0 + (k as f64).sqrt()),
                    "{} {size:?} {trans:?} {from:?} at ({i}, {j}): {} instead of {want}",
                    name(kernel),
                    c[at]
                );
            }
        }
    }
}

const LAYOUTS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];
const INITS: [From; 4] = [From::Zero, From::Keep, From::Bias, From::Matrix];

#[test]
fn every_kernel_equals_the_definition_for_all_small_shapes_layouts_and_inits() {
    let sizes = [1, 2, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 31, 32, 33, 50];
    let mut turn = 0;
    for m in sizes {
        for n in sizes {
            for k in [1, 3, 8, 17] {
                // Sizes, layouts and inits are coprime enough that each pair meets many times.
                let (trans, from) = (LAYOUTS[turn % 4], INITS[turn / 4 % 4]);
                against_definition::<f32>((m, n, k), trans, from, false, 2e-6);
                against_definition::<f64>((m, n, k), trans, from, false, 1e-14);
                turn += 5;
            }
        }
    }
}

#[test]
fn products_of_several_k_blocks_chunks_and_tasks_equal_the_definition() {
    for (trans, from) in LAYOUTS.into_iter().zip(INITS) {
        for size in [
            (70, 33, 1300),
            (33, 150, 1100),
            (200, 96, 64),
            (64, 128, 40),
            (5, 64, 700),
            (700, 3, 90),
            (150, 40, 1100),
        ] {
            against_definition::<f32>(size, trans, from, true, 4e-6);
            against_definition::<f64>(size, trans, from, true, 1e-14);
        }
    }
}

#[test]
fn shared_operand_larger_than_its_buffer_is_taken_in_chunks() {
    // 8300 columns of 160 steps are 5.3 MB of f32: two chunks.
    let (m, n, k) = (8300, 8300, 160);
    let rng = &mut Rng::new(5);
    let (a, b): (Vec<f32>, Vec<f32>) = (values(rng, m * k), values(rng, k * n));
    let mut c = vec![f32::NAN; m * n];
    gemm(true, (m, n, k), 1.0, &mut c, n, Mat::rows(&a, k), Mat::rows(&b, n), Init::Zero);
    for t in 0..2000 {
        let (i, j) = (t * 7919 % m, t * 104_729 % n);
        let want: f64 = (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j])).sum();
        assert!((f64::from(c[i * n + j]) - want).abs() < 1e-4, "({i}, {j})");
    }
    assert!(c.iter().all(|x| x.is_finite()));
}

/// Bits of one product in a pool of the given size.
fn bits(
    kernel: Option<&'static Kernel<f32>>,
    threads: usize,
    parallel: bool,
    size: Size,
    trans: (bool, bool),
) -> Vec<u32> {
    let (m, n, k) = size;
    let rng = &mut Rng::new(9);
    let (a, b, mut c): (Vec<f32>, Vec<f32>, Vec<f32>) =
        (values(rng, m * k), values(rng, n * k), values(rng, m * n));
    let a = if trans.0 { Mat::cols(&a, m) } else { Mat::rows(&a, k) };
    let b = if trans.1 { Mat::cols(&b, k) } else { Mat::rows(&b, n) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        gemm_on(kernel, parallel, Product { size, alpha: 1.0, a, b, ldc: n }, &mut c, Init::Keep);
    });
    c.into_iter().map(f32::to_bits).collect()
}

#[test]
fn one_two_and_three_threads_give_the_same_bits() {
    for kernel in kernels::<f32>() {
        for size in [(300, 200, 700), (129, 515, 256), (4, 900, 576), (1000, 2, 576), (64, 96, 100)] {
            for trans in LAYOUTS {
                let one = bits(kernel, 1, true, size, trans);
                for threads in [2, 3] {
                    assert!(
                        one == bits(kernel, threads, true, size, trans),
                        "{} {size:?} {trans:?}",
                        name(kernel)
                    );
                }
                assert!(one == bits(kernel, 1, false, size, trans), "{} {size:?} {trans:?}", name(kernel));
            }
        }
    }
}

#[test]
fn parallel_products_inside_rayon_tasks_give_the_same_bits() {
    let (m, n, k) = (160, 130, 300);
    let rng = &mut Rng::new(3);
    let (a, b): (Vec<f32>, Vec<f32>) = (values(rng, m * k), values(rng, n * k));
    let product = |parallel| {
        let mut c = vec![0.0f32; m * n];
        gemm(parallel, (m, n, k), 1.0, &mut c, n, Mat::rows(&a, k), Mat::cols(&b, k), Init::Zero);
        c
    };
    let want = product(false);
    for threads in [1, 2, 3, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let right = AtomicBool::new(true);
        pool.install(|| {
            (0..64).into_par_iter().with_max_len(1).for_each(|_| {
                if product(true) != want {
                    right.store(false, Ordering::Relaxed);
                }
            });
        });
        assert!(right.load(Ordering::Relaxed), "{threads} threads");
    }
}

#[test]
fn empty_dimensions_leave_the_init() {
    let bias = [1.0f64, 2.0, 3.0];
    let (a, b) = (Mat::rows(&[], 0), Mat::rows(&[], 3));
    for kernel in kernels::<f64>() {
        let mut c = [9.0f64; 6];
        let empty = |alpha| Product { size: (2, 3, 0), alpha, a, b, ldc: 3 };
        gemm_on(kernel, true, empty(1.0), &mut c, Init::Keep);
        assert_eq!(c, [9.0; 6]);
        gemm_on(kernel, true, empty(f64::NAN), &mut c, Init::Bias(&bias));
        assert_eq!(c, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        gemm_on(kernel, true, empty(1.0), &mut c, Init::Matrix(&[5.0, 6.0, 7.0, 0.0, 8.0, 9.0, 10.0], 4));
        assert_eq!(c, [5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
        gemm_on(kernel, true, empty(1.0), &mut c, Init::Zero);
        assert_eq!(c, [0.0; 6]);
        for (m, n) in [(0, 3), (2, 0), (0, 0)] {
            let (a, b) = (Mat::rows(&bias, 0), Mat::rows(&bias, 0));
            gemm_on(kernel, true, Product { size: (m, n, 1), alpha: 1.0, a, b, ldc: 3 }, &mut [], Init::Zero);
        }
    }
}

#[test]
fn not_a_number_reaches_exactly_its_row_and_column_and_zero_alpha_keeps_it() {
    for kernel in kernels::<f32>() {
        for (m, n) in [(20, 40), (3, 40), (40, 3)] {
            for trans in LAYOUTS {
                let k = 20;
                let mut a = vec![1.0f32; m * k];
                let mut b = vec![1.0f32; k * n];
                a[if trans.0 { 7 * m + 2 } else { 2 * k + 7 }] = f32::NAN;
                b[if trans.1 { k + 5 } else { 5 * n + 1 }] = f32::INFINITY;
                let a = if trans.0 { Mat::cols(&a, m) } else { Mat::rows(&a, k) };
                let b = if trans.1 { Mat::cols(&b, k) } else { Mat::rows(&b, n) };
                let mut c = vec![f32::NAN; m * n];
                gemm_on(
                    kernel,
                    false,
                    Product { size: (m, n, k), alpha: 0.0, a, b, ldc: n },
                    &mut c,
                    Init::Zero,
                );
                for i in 0..m {
                    for j in 0..n {
                        let nan = i == 2 || j == 1;
                        assert_eq!(c[i * n + j].is_nan(), nan, "{} {trans:?} ({i}, {j})", name(kernel));
                    }
                }
            }
        }
    }
}

#[test]
fn zero_strides_broadcast() {
    let (a, b) = ([2.0f64], [1.0f64, 3.0]);
    let mut c = [0.0; 20];
    let (a, b) =
        (Mat { data: &a, row_stride: 0, col_stride: 0 }, Mat { data: &b, row_stride: 0, col_stride: 1 });
    gemm(false, (10, 2, 4), 1.0, &mut c, 2, a, b, Init::Zero);
    assert_eq!(c, std::array::from_fn(|i| [8.0, 24.0][i % 2]));
}

#[test]
#[should_panic(expected = "too short")]
fn short_operand_is_a_programmer_error() {
    gemm(
        false,
        (2, 2, 2),
        1.0,
        &mut [0.0; 4],
        2,
        Mat::rows(&[1.0; 3], 2),
        Mat::rows(&[1.0; 4], 2),
        Init::Zero,
    );
}

#[test]
#[should_panic(expected = "too short")]
fn strides_beyond_the_address_space_are_a_programmer_error() {
    let a = Mat { data: &[1.0; 4], row_stride: usize::MAX, col_stride: 2 };
    gemm(false, (3, 2, 2), 1.0, &mut [0.0; 6], 2, a, Mat::rows(&[1.0; 4], 2), Init::Zero);
}

#[test]
#[should_panic(expected = "leading dimension")]
fn overlapping_rows_of_c_are_a_programmer_error() {
    gemm(
        false,
        (2, 2, 1),
        1.0,
        &mut [0.0; 4],
        1,
        Mat::rows(&[1.0; 2], 1),
        Mat::rows(&[1.0; 2], 2),
        Init::Zero,
    );
}

#[test]
fn the_kernel_has_a_name() {
    assert!(!kernel_name().is_empty());
}
