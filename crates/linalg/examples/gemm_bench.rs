//! Prints GFLOP/s of the product beside the `gemm` crate on the shapes of small language models, the two
//! alternating: best and median over all rounds.
//!
//! `cargo run --release -p rhumb-linalg --example gemm_bench [rounds]`

#![expect(unsafe_code, reason = "the `gemm` crate takes raw pointers")]
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::time::Instant;

use rhumb_linalg::gemm::{Init, Mat, gemm, kernel_name};

/// Name, (m, n, k), A and B transposed, C kept, threads.
type Shape = (&'static str, (usize, usize, usize), [bool; 2], bool, bool);

const FORWARD: [bool; 2] = [false, true];
const INPUT: [bool; 2] = [false, false];
const WEIGHT: [bool; 2] = [true, false];

fn shapes() -> Vec<Shape> {
    let mut all = Vec::new();
    let layers = [
        ("d256", 2048, 768, 256),
        ("d256", 2048, 256, 256),
        ("d256", 2048, 1376, 256),
        ("d256", 2048, 256, 688),
        ("d576", 512, 960, 576),
        ("d576", 512, 576, 576),
        ("d576", 512, 3072, 576),
        ("d576", 512, 576, 1536),
        ("d256 head", 512, 8192, 256),
        ("d576 head", 256, 49152, 576),
    ];
    for (name, tokens, out, inp) in layers {
        all.push((name, (tokens, out, inp), FORWARD, false, true));
        all.push((name, (tokens, inp, out), INPUT, false, true));
        all.push((name, (out, inp, tokens), WEIGHT, true, true));
    }
    for (keys, width) in [(64, 32), (256, 32), (64, 64), (256, 64)] {
        all.push(("attention", (64, keys, width), FORWARD, false, false));
        all.push(("attention", (64, width, keys), INPUT, false, false));
        all.push(("attention", (keys, width, 64), WEIGHT, true, false));
    }
    for tokens in [1, 2, 4, 8] {
        all.push(("decode", (tokens, 1536, 576), FORWARD, false, true));
        all.push(("decode", (tokens, 49152, 576), FORWARD, false, true));
    }
    all
}

/// Seconds per call, after one call to warm up.
fn seconds(mut f: impl FnMut(), calls: usize) -> f64 {
    f();
    let start = Instant::now();
    (0..calls).for_each(|_| f());
    start.elapsed().as_secs_f64() / calls as f64
}

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(15).max(1);
    println!("kernel: {}; GFLOP/s, best / median of {rounds} alternating rounds", kernel_name());
    for (name, (m, n, k), [ta, tb], keep, parallel) in shapes() {
        let (a, b, mut c) = (vec![0.5f32; m * k], vec![0.25f32; k * n], vec![0.0f32; m * n]);
        let a = if ta { Mat::cols(&a, m) } else { Mat::rows(&a, k) };
        let b = if tb { Mat::cols(&b, k) } else { Mat::rows(&b, n) };
        let calls = (100_000_000 / (m * n * k)).max(1);
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            let init = || if keep { Init::Keep } else { Init::Zero };
            times[0].push(seconds(|| gemm(parallel, (m, n, k), 1.0, &mut c, n, a, b, init()), calls));
            let threads = if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
            let other = || {
                // SAFETY: the slices hold m x k, k x n and m x n values at these strides.
                unsafe {
                    gemm::gemm(
                        m,
                        n,
                        k,
                        c.as_mut_ptr(),
                        1,
                        n.cast_signed(),
                        keep,
                        a.data.as_ptr(),
                        a.col_stride.cast_signed(),
                        a.row_stride.cast_signed(),
                        b.data.as_ptr(),
                        b.col_stride.cast_signed(),
                        b.row_stride.cast_signed(),
                        1.0,
                        1.0,
                        false,
                        false,
                        false,
                        threads,
                    );
                }
            };
            times[1].push(seconds(other, calls));
        }
        let [ours, other] = times.map(|mut t| {
            t.sort_by(f64::total_cmp);
            [t[0], t[t.len() / 2]].map(|s| 2.0 * (m * n * k) as f64 / s / 1e9)
        });
        println!(
            "{name:10} {m:6} {n:6} {k:6} {}{}  ours {:6.1} / {:6.1}  gemm crate {:6.1} / {:6.1}  median ratio {:.2}",
            if ta { 'T' } else { 'N' },
            if tb { 'T' } else { 'N' },
            ours[0],
            ours[1],
            other[0],
            other[1],
            ours[1] / other[1],
        );
    }
}
