#![allow(clippy::float_cmp, reason = "exact values")]

use super::*;
use crate::tests::{Laplacian, Spoil, Spoiled, random_symmetric, with_spectrum};
use rhumb_linalg::LinearOp;

use crate::{Basis, DenseOp};
use rhumb_linalg::vec::{axpy, dot, norm, scale};

/// `1, 1/2, 1/3, ...` in a random basis.
fn decaying(n: usize) -> (DenseOp<f64>, f64) {
    let values: Vec<f64> = (1..=n).map(|i| 1.0 / i as f64).collect();
    (with_spectrum(&values, 8), values.iter().sum())
}

fn low_rank() -> (DenseOp<f64>, f64) {
    let mut values = vec![0.0; 60];
    values[..5].copy_from_slice(&[7.0, -3.0, 2.0, 1.0, 0.5]);
    (with_spectrum(&values, 4), 7.5)
}

#[test]
fn signs_are_exact_for_a_diagonal_and_normal_numbers_are_not() {
    let mut a = DenseOp::diagonal(&[1.0f64, -2.0, 5.0]);
    let got = hutchinson(&mut a, 1, Probe::Rademacher, 3).unwrap();
    assert_eq!((got.value, got.stderr, got.products), (4.0, None, 1));
    assert_ne!(hutchinson(&mut a, 1, Probe::Normal, 3).unwrap().value, 4.0);
    let d = hutchinson_diagonal(&mut a, 2, Probe::Rademacher, 3).unwrap();
    assert_eq!((d.values, d.stderr), (vec![1.0, -2.0, 5.0], Some(vec![0.0; 3])));
}

#[test]
fn the_variance_is_that_of_its_formula() {
    let n = 12;
    let mut a = random_symmetric(n, 6);
    let square: f64 = a.rows().iter().map(|x| x * x).sum();
    let diagonal: f64 = (0..n).map(|i| a.rows()[i * n + i].powi(2)).sum();
    let trace: f64 = (0..n).map(|i| a.rows()[i * n + i]).sum();
    for (probe, want) in [(Probe::Rademacher, 2.0 * (square - diagonal)), (Probe::Normal, 2.0 * square)] {
        let got = hutchinson(&mut a, 10_000, probe, 1).unwrap();
        let stderr = got.stderr.unwrap();
        let variance = stderr * stderr * 10_000.0;
        assert!((variance / want - 1.0).abs() < 0.1, "{probe:?}: {variance} {want}");
        assert!((got.value - trace).abs() < 4.0 * stderr);
    }
}

#[test]
fn standard_errors_cover_the_truth_as_often_as_they_should() {
    let (mut a, trace) = decaying(40);
    let within = (0..200)
        .filter(|&seed| {
            let e = hutchinson(&mut a, 50, Probe::Normal, seed).unwrap();
            (e.value - trace).abs() < 2.0 * e.stderr.unwrap()
        })
        .count();
    // 95 % of 200, and four standard deviations of the count.
    assert!((178..=200).contains(&within), "{within}");
    let square: f64 = (1..=40).map(|i| 1.0 / f64::from(i * i)).sum();
    let f = frobenius_norm(&mut a, 400, Probe::Rademacher, 0).unwrap();
    assert!((f.value - square.sqrt()).abs() < 4.0 * f.stderr.unwrap() && f.stderr.unwrap() < 0.1);
    let d = hutchinson_diagonal(&mut a, 400, Probe::Normal, 0).unwrap();
    let error = d.stderr.unwrap();
    let far = (0..40).filter(|&i| (d.values[i] - a.rows()[i * 41]).abs() > 3.0 * error[i]).count();
    assert!(far <= 2, "{far}");
}

#[test]
fn more_samples_extend_fewer() {
    let mut a = random_symmetric(20, 6);
    let few = hutchinson(&mut a, 3, Probe::Normal, 1).unwrap();
    let more = hutchinson(&mut a, 8, Probe::Normal, 1).unwrap();
    assert_eq!(few.samples, more.samples[..3]);
}

#[test]
fn a_sketch_beats_samples_on_a_decaying_spectrum() {
    let (mut a, trace) = decaying(80);
    let plus = hutchpp(&mut a, 99, Probe::Rademacher, 0).unwrap();
    assert!((plus.value / trace - 1.0).abs() < 0.05 && plus.products == 99);
    let mut errors = [0.0; 3];
    for seed in 0..30 {
        for (error, value) in errors.iter_mut().zip([
            hutchinson(&mut a, 60, Probe::Rademacher, seed).unwrap().value,
            hutchpp(&mut a, 60, Probe::Rademacher, seed).unwrap().value,
            xtrace(&mut a, 60, seed).unwrap().value,
        ]) {
            *error += (value - trace).abs() / 30.0;
        }
    }
    let [plain, plus, cross] = errors;
    assert!(plus < 0.7 * plain && cross < 0.7 * plain, "{errors:?}");
}

#[test]
fn low_rank_is_exact() {
    let (mut a, trace) = low_rank();
    for seed in 0..5 {
        let plus = hutchpp(&mut a, 18, Probe::Normal, seed).unwrap();
        assert!((plus.value - trace).abs() < 1e-9, "{}", plus.value - trace);
        for products in [12, 13, 40] {
            let cross = xtrace(&mut a, products, seed).unwrap();
            assert!((cross.value - trace).abs() < 1e-9, "{products}: {}", cross.value - trace);
            assert!(cross.stderr.unwrap() < 1e-9 && cross.products == products / 2 * 2);
            let d = xdiag(&mut a, products, seed).unwrap();
            for i in 0..60 {
                assert!((d.values[i] - a.rows()[i * 61]).abs() < 1e-9);
            }
        }
    }
    // One test vector fewer than that, and it is not.
    assert!((xtrace(&mut a, 10, 0).unwrap().value - trace).abs() > 1e-6);
    let mut zero = DenseOp::diagonal(&[0.0f64; 8]);
    assert_eq!(hutchpp(&mut zero, 9, Probe::Normal, 0).unwrap().value, 0.0);
    assert!(xtrace(&mut zero, 8, 0).unwrap().value.abs() < 1e-15);
}

#[test]
fn a_sketch_of_the_whole_space_is_exact() {
    let mut a = random_symmetric(6, 2);
    let trace: f64 = (0..6).map(|i| a.rows()[i * 7]).sum();
    let plus = hutchpp(&mut a, 100, Probe::Normal, 0).unwrap();
    assert!((plus.value - trace).abs() < 1e-12 && plus.products == 12 && plus.stderr == Some(0.0));
}

/// The terms of XTrace and XDiag by their definition, with a basis for each `i` of its own.
fn by_definition(a: &mut DenseOp<f64>, k: usize, seed: u64) -> (Vec<f64>, Vec<Vec<f64>>) {
    let n = a.dim();
    let omega: Vec<Vec<f64>> = (0..k).map(|i| Probe::Rademacher.sample(n, seed, "xtrace", i)).collect();
    let product = |a: &mut DenseOp<f64>, v: &[f64]| {
        let mut out = vec![0.0; n];
        a.apply(v, &mut out).unwrap();
        out
    };
    let (mut traces, mut diagonals) = (Vec::new(), Vec::new());
    for i in 0..k {
        let mut q = Basis::new(n);
        for j in (0..k).filter(|&j| j != i) {
            let mut y = product(a, &omega[j]);
            q.orthogonalise(&mut y);
            let size = norm(&y);
            scale(1.0 / size, &mut y);
            q.push(&y);
        }
        let (mut trace, mut diagonal) = (0.0, vec![0.0; n]);
        for v in q.iter() {
            let z = product(a, v);
            trace += dot(v, &z);
            (0..n).for_each(|j| diagonal[j] += v[j] * z[j]);
        }
        let mut w = omega[i].clone();
        q.orthogonalise(&mut w);
        trace += dot(&w, &product(a, &w));
        let mut y = product(a, &omega[i]);
        q.orthogonalise(&mut y);
        (0..n).for_each(|j| diagonal[j] += omega[i][j] * y[j]);
        traces.push(trace);
        diagonals.push(diagonal);
    }
    (traces, diagonals)
}

#[test]
fn leaving_one_out_by_a_rank_one_change_is_leaving_it_out() {
    let n = 14;
    let mut a = random_symmetric(n, 12);
    for k in [1, 2, 5] {
        let (traces, diagonals) = by_definition(&mut a, k, 7);
        let got = xtrace(&mut a, 2 * k, 7).unwrap();
        assert_eq!(got.samples.len(), k);
        assert!(got.samples.iter().zip(&traces).all(|(a, b)| (a - b).abs() < 1e-10), "{k}");
        let d = xdiag(&mut a, 2 * k, 7).unwrap();
        let mut want = vec![0.0; n];
        diagonals.iter().for_each(|x| axpy(1.0 / k as f64, x, &mut want));
        assert!(d.values.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-10), "{k}");
        assert_eq!(d.stderr.is_some(), k > 1);
    }
}

#[test]
fn xtrace_and_xdiag_are_unbiased() {
    let mut a = random_symmetric(8, 3);
    let trace: f64 = (0..8).map(|i| a.rows()[i * 9]).sum();
    let trials = 2000;
    let values: Vec<f64> = (0..trials).map(|s| xtrace(&mut a, 6, s).unwrap().value).collect();
    let (m, e) = mean(&values);
    assert!((m - trace).abs() < 4.0 * e.unwrap(), "{m} {trace}");
    let firsts: Vec<f64> = (0..trials).map(|s| xdiag(&mut a, 6, s).unwrap().values[0]).collect();
    let (m, e) = mean(&firsts);
    assert!((m - a.rows()[0]).abs() < 4.0 * e.unwrap());
}

#[test]
fn single_precision_is_as_good_as_its_rounding() {
    let (a, trace) = low_rank();
    let rows: Vec<f32> = a.rows().iter().map(|&x| x as f32).collect();
    let mut a = DenseOp::new(rows, 60).unwrap();
    assert!((xtrace(&mut a, 20, 0).unwrap().value - trace).abs() < 1e-4);
    assert!((hutchpp(&mut a, 30, Probe::Normal, 0).unwrap().value - trace).abs() < 1e-4);
}

#[test]
fn wrong_input_is_an_error() {
    let mut op = Laplacian(10);
    let setting = |e: Result<Estimate, KrylovError>| matches!(e, Err(KrylovError::Setting { .. }));
    assert!(setting(hutchinson::<f64>(&mut op, 0, Probe::Normal, 0)));
    assert!(setting(frobenius_norm::<f64>(&mut op, 0, Probe::Normal, 0)));
    assert!(setting(hutchpp::<f64>(&mut op, 2, Probe::Normal, 0)));
    assert!(setting(xtrace::<f64>(&mut op, 1, 0)) && setting(xtrace::<f64>(&mut op, 22, 0)));
    assert!(matches!(xdiag::<f64>(&mut op, 22, 0), Err(KrylovError::Setting { .. })));
    let mut huge = DenseOp::diagonal(&[1e200f64, 1e308, 1e308]);
    let overflow =
        |e: Result<Estimate, KrylovError>| matches!(e, Err(KrylovError::Coefficient { step: 1, .. }));
    assert!(overflow(frobenius_norm(&mut huge, 1, Probe::Rademacher, 0)));
    assert!(overflow(hutchinson(&mut huge, 1, Probe::Rademacher, 0)));
    assert!(overflow(hutchpp(&mut huge, 3, Probe::Rademacher, 0)) && overflow(xtrace(&mut huge, 2, 0)));
    let mut op = Spoiled { op: Laplacian(10), at: 3, with: Spoil::Nan, seen: 0 };
    assert!(matches!(
        hutchinson(&mut op, 5, Probe::Normal, 0),
        Err(KrylovError::NonFinite { product: 3, at: 1, .. })
    ));
    let mut op = Spoiled { op: Laplacian(10), at: 3, with: Spoil::Fail, seen: 0 };
    assert!(matches!(xtrace(&mut op, 6, 0), Err(KrylovError::Operator { product: 3, .. })));
}
