//! What holds for any symmetric operator, over sizes, spectra and seeds.

use super::*;

use crate::symmetric_eigen;
use crate::{
    EigenOptions, Lanczos, Orthogonality, Stop, StopRule, Which, cg, eigenpairs, minres, normal_vector,
};
use rhumb_linalg::vec::norm;

/// Sizes, and spectra: normal, clustered, graded, with zeros, of low rank.
fn cases() -> Vec<DenseOp<f64>> {
    let mut out = Vec::new();
    for (seed, n) in [1, 2, 3, 7, 20, 45].into_iter().enumerate() {
        let seed = seed as u64;
        out.push(random_symmetric(n, seed));
        let spectra: [&dyn Fn(usize) -> f64; 3] =
            [&|i| (i % 3) as f64 - 1.0, &|i| 10f64.powi(-(i as i32 % 12)), &|i| {
                if i < 4 { 3.0 + i as f64 } else { 0.0 }
            }];
        for f in spectra {
            out.push(with_spectrum(&(0..n).map(f).collect::<Vec<_>>(), seed));
        }
    }
    out
}

fn size(values: &[f64]) -> f64 {
    values.iter().fold(1e-300, |a: f64, v| a.max(v.abs()))
}

#[test]
fn ritz_values_interlace_and_weights_are_a_measure() {
    for (c, mut a) in cases().into_iter().enumerate() {
        let n = a.dim();
        let exact = symmetric_eigen(a.rows(), n).unwrap().values;
        let slack = 1e-11 * size(&exact);
        let mut run = Lanczos::<f64>::seeded(n, Orthogonality::Full, c as u64, "start").unwrap();
        let mut before: Vec<f64> = Vec::new();
        while run.steps() < n && !run.is_invariant() {
            run.step(&mut a).unwrap();
            let ritz = run.ritz().unwrap();
            let (now, w) = (ritz.values(), ritz.weights());
            assert!((w.iter().sum::<f64>() - 1.0).abs() < 1e-12 && w.iter().all(|w| *w >= 0.0), "case {c}");
            assert!(now[0] >= exact[0] - slack && now[now.len() - 1] <= exact[n - 1] + slack, "case {c}");
            for (i, &old) in before.iter().enumerate() {
                assert!(now[i] <= old + slack && old <= now[i + 1] + slack, "case {c}: {before:?} {now:?}");
            }
            before = now.to_vec();
        }
        assert!(run.basis().orthonormality_error() < 1e-13, "case {c}");
        // The space is invariant: all Ritz values are eigenvalues.
        for t in before {
            let near = exact.iter().map(|e| (e - t).abs()).fold(f64::INFINITY, f64::min);
            assert!(near <= 1e-10 * size(&exact), "case {c}: {t}");
        }
    }
}

#[test]
fn restarts_reach_the_whole_spectrum() {
    for (c, mut a) in cases().into_iter().enumerate() {
        let n = a.dim();
        let exact = symmetric_eigen(a.rows(), n).unwrap().values;
        let mut run = Lanczos::<f64>::seeded(n, Orthogonality::Full, 7, "start").unwrap();
        run.run_through(&mut a, n).unwrap();
        assert_eq!(run.steps(), n);
        let ritz = run.ritz().unwrap();
        let far = ritz.values().iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(far <= 1e-10 * size(&exact), "case {c}: {far}");
    }
}

#[test]
fn extreme_eigenvalues_are_the_ends_whatever_the_spectrum() {
    for (c, mut a) in cases().into_iter().enumerate() {
        let n = a.dim();
        let exact = symmetric_eigen(a.rows(), n).unwrap().values;
        for (which, want) in [(Which::Largest, exact[n - 1]), (Which::Smallest, exact[0])] {
            let options = EigenOptions { which, tolerance: 1e-10, ..EigenOptions::default() };
            let got = eigenpairs(&mut a, &options).unwrap();
            assert!((got.values[0] - want).abs() <= 1e-9 * size(&exact), "case {c} {which:?}");
        }
    }
}

#[test]
fn minres_has_the_smaller_residual_and_both_solve() {
    for n in [1, 2, 5, 17, 40] {
        for seed in 0..4 {
            let values: Vec<f64> = (0..n).map(|i| 0.5 + (i * i) as f64 / n as f64).collect();
            let mut a = with_spectrum(&values, seed);
            let b = normal_vector::<f64>(n, seed, "b");
            let rule = StopRule { relative: 1e-11, ..StopRule::default() };
            let (mut x, mut y) = (vec![0.0; n], vec![0.0; n]);
            let (c, m) = (cg(&mut a, &b, &mut x, &rule).unwrap(), minres(&mut a, &b, &mut y, &rule).unwrap());
            assert_eq!((c.stop, m.stop), (Stop::Converged, Stop::Converged), "{n} {seed}");
            // Below that, the two lose orthogonality each in its own way.
            for (m, c) in m.residuals.iter().zip(&c.residuals).filter(|(_, c)| **c > 1e-6 * norm(&b)) {
                assert!(*m <= c * (1.0 + 1e-6), "{n} {seed}: {m:e} {c:e}");
            }
            assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-9 * norm(&b)), "{n} {seed}");
        }
    }
}
