use super::*;

use crate::symmetric_eigen;
use crate::{
    KrylovError, Lanczos, LanczosStep, Orthogonality, asymmetry, check_symmetric, normal_vector, qr,
};
use rhumb_linalg::vec::{dot, norm};

const FULL: Orthogonality = Orthogonality::Full;
const PLAIN: Orthogonality = Orthogonality::Plain { keep: true };

#[test]
fn three_values_give_the_matrix_by_hand() {
    let mut a = DenseOp::diagonal(&[1.0, 2.0, 3.0]);
    for mode in [FULL, PLAIN] {
        let mut run = Lanczos::new(&[1.0f64; 3], mode, 0).unwrap();
        run.run(&mut a, 3).unwrap();
        for (got, want) in run.alpha().iter().zip([2.0, 2.0, 2.0]) {
            assert!((got - want).abs() < 1e-12);
        }
        for (got, want) in run.beta().iter().zip([(2.0f64 / 3.0).sqrt(), (1.0f64 / 3.0).sqrt()]) {
            assert!((got - want).abs() < 1e-12);
        }
        let ritz = run.ritz().unwrap();
        for k in 0..3 {
            assert!((ritz.values()[k] - (k + 1) as f64).abs() < 1e-12);
            assert!((ritz.weights()[k] - 1.0 / 3.0).abs() < 1e-12);
        }
    }
}

#[test]
fn gauss_quadrature_is_exact_for_the_moments_it_should_be() {
    let n = 24;
    let mut a = random_symmetric(n, 5);
    let v0 = normal_vector::<f64>(n, 1, "start");
    for m in 1..=10 {
        let mut run = Lanczos::new(&v0, FULL, 0).unwrap();
        run.run(&mut a, m).unwrap();
        let ritz = run.ritz().unwrap();
        let w = ritz.weights();
        assert!((w.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let size = norm(&v0);
        let start: Vec<f64> = v0.iter().map(|x| x / size).collect();
        let (mut power, mut next) = (start.clone(), vec![0.0; n]);
        for k in 0..2 * m {
            let exact = dot(&start, &power);
            let got: f64 = w.iter().zip(ritz.values()).map(|(w, t)| w * t.powi(k as i32)).sum();
            let scale: f64 = w.iter().zip(ritz.values()).map(|(w, t)| w * t.abs().powi(k as i32)).sum();
            assert!((got - exact).abs() < 1e-9 * scale, "m {m}, moment {k}: {got} {exact}");
            a.apply(&power, &mut next).unwrap();
            std::mem::swap(&mut power, &mut next);
        }
        // The first moment that it need not match, it does not.
        if m < 6 {
            let exact = dot(&start, &power);
            let got: f64 = w.iter().zip(ritz.values()).map(|(w, t)| w * t.powi(2 * m as i32)).sum();
            assert!((got - exact).abs() > 1e-6 * exact.abs());
        }
    }
}

#[test]
fn as_many_steps_as_dimensions_give_the_spectrum() {
    let mut a = random_symmetric(30, 2);
    let mut run = Lanczos::seeded(30, FULL, 3, "start").unwrap();
    assert_eq!(run.run(&mut a, 30).unwrap(), LanczosStep::Breakdown);
    let exact = symmetric_eigen(a.rows(), 30).unwrap();
    let ritz = run.ritz().unwrap();
    for (got, want) in ritz.values().iter().zip(&exact.values) {
        assert!((got - want).abs() < 1e-10);
    }
    assert!(!run.restart().unwrap(), "nothing is left");
    assert!(matches!(run.step(&mut a), Err(KrylovError::Invariant { steps: 30 })));
}

#[test]
fn residual_bounds_are_the_residuals() {
    let mut a = random_symmetric(40, 7);
    let mut run = Lanczos::seeded(40, FULL, 0, "start").unwrap();
    run.run(&mut a, 12).unwrap();
    let ritz = run.ritz().unwrap();
    let exact = symmetric_eigen(a.rows(), 40).unwrap().values;
    let mut ax = vec![0.0; 40];
    for k in 0..12 {
        let x = run.ritz_vector(&ritz, k).unwrap();
        a.apply(&x, &mut ax).unwrap();
        let theta = ritz.values()[k];
        let r: Vec<f64> = ax.iter().zip(&x).map(|(a, x)| a - theta * x).collect();
        assert!((norm(&r) - ritz.bounds()[k]).abs() < 1e-12);
        let nearest = exact.iter().map(|e| (e - theta).abs()).fold(f64::INFINITY, f64::min);
        assert!(nearest <= ritz.bounds()[k] + 1e-12);
        assert!(theta > exact[0] - 1e-9 && theta < exact[39] + 1e-9);
    }
}

#[test]
fn the_plain_recurrence_loses_orthogonality_and_shows_ghosts() {
    // Outliers converge first, and come back.
    let mut values: Vec<f64> = (0..200).map(|i| i as f64 / 200.0).collect();
    (values[198], values[199]) = (40.0, 100.0);
    let mut a = with_spectrum(&values, 1);
    let start = normal_vector::<f64>(200, 0, "start");
    let mut full = Lanczos::new(&start, FULL, 0).unwrap();
    let mut plain = Lanczos::new(&start, PLAIN, 0).unwrap();
    full.run(&mut a, 100).unwrap();
    plain.run(&mut a, 100).unwrap();
    let copies = |run: &Lanczos<f64>| {
        run.ritz().unwrap().values().iter().filter(|&&t| (t - 100.0).abs() < 1e-6).count()
    };
    assert_eq!(copies(&full), 1);
    assert!(copies(&plain) > 1, "{}", copies(&plain));
    assert!(full.basis().orthonormality_error() < 1e-13);
    assert!(plain.basis().orthonormality_error() > 1e-6);
    for j in 0..5 {
        assert!((full.alpha()[j] - plain.alpha()[j]).abs() < 1e-8 * 100.0);
    }
    // What is kept of the basis changes nothing.
    let mut thin = Lanczos::new(&start, Orthogonality::Plain { keep: false }, 0).unwrap();
    thin.run(&mut a, 100).unwrap();
    assert_eq!((thin.alpha(), thin.beta()), (plain.alpha(), plain.beta()));
    assert_eq!(thin.basis().len(), 2);
    assert!(matches!(thin.restart(), Err(KrylovError::NoBasis { .. })));
    assert!(matches!(thin.ritz_vector(&thin.ritz().unwrap(), 0), Err(KrylovError::NoBasis { .. })));
}

#[test]
fn the_plain_recurrence_is_the_published_one() {
    let n = 60;
    let mut a = random_symmetric(n, 21);
    let start = normal_vector::<f64>(n, 2, "start");
    let mut run = Lanczos::new(&start, PLAIN, 0).unwrap();
    run.run(&mut a, 10).unwrap();
    // w = A v; alpha = w'v; w -= alpha v + beta v_old; beta = |w|.
    let mut v: Vec<f64> = start.iter().map(|x| x / norm(&start)).collect();
    let (mut old, mut beta, mut w) = (vec![0.0; n], 0.0, vec![0.0; n]);
    for j in 0..10 {
        a.apply(&v, &mut w).unwrap();
        let alpha = dot(&w, &v);
        for i in 0..n {
            w[i] -= alpha * v[i] + beta * old[i];
        }
        beta = norm(&w);
        old = std::mem::replace(&mut v, w.iter().map(|x| x / beta).collect());
        assert!((run.alpha()[j] - alpha).abs() < 1e-8 && (run.beta()[j] - beta).abs() < 1e-8, "{j}");
    }
}

#[test]
fn few_distinct_eigenvalues_break_down_and_a_restart_finds_their_copies() {
    let mut one = DenseOp::diagonal(&[1.0; 20]);
    let mut run = Lanczos::seeded(20, FULL, 0, "start").unwrap();
    assert_eq!(run.run(&mut one, 20).unwrap(), LanczosStep::Breakdown);
    assert_eq!((run.steps(), run.beta()), (1, &[0.0][..]));
    assert!((run.ritz().unwrap().values()[0] - 1.0).abs() < 1e-15);

    let values: Vec<f64> = (0..60).map(|i| if i < 30 { 1.0 } else { 5.0 }).collect();
    for mode in [FULL, PLAIN] {
        let mut two = with_spectrum(&values, 2);
        let mut run = Lanczos::seeded(60, mode, 0, "start").unwrap();
        assert_eq!(run.run(&mut two, 10).unwrap(), LanczosStep::Breakdown);
        assert_eq!(run.steps(), 2);
        let t = run.ritz().unwrap();
        assert!((t.values()[0] - 1.0).abs() < 1e-12 && (t.values()[1] - 5.0).abs() < 1e-12);
    }
    let mut two = with_spectrum(&values, 2);
    let mut run = Lanczos::seeded(60, FULL, 0, "start").unwrap();
    run.run_through(&mut two, 60).unwrap();
    assert_eq!(run.steps(), 60);
    assert_eq!(run.restarts().len(), 29);
    let t = run.ritz().unwrap();
    assert_eq!(t.values().iter().filter(|&&t| (t - 1.0).abs() < 1e-10).count(), 30);
    assert_eq!(t.values().iter().filter(|&&t| (t - 5.0).abs() < 1e-10).count(), 30);
    assert!(run.basis().orthonormality_error() < 1e-13);

    let mut zero = DenseOp::diagonal(&[0.0; 4]);
    let mut run = Lanczos::seeded(4, FULL, 0, "start").unwrap();
    assert_eq!(run.run(&mut zero, 4).unwrap(), LanczosStep::Breakdown);
    assert_eq!(run.alpha(), [0.0]);
}

#[test]
fn a_saved_state_goes_on_to_the_same_numbers() {
    for mode in [FULL, PLAIN, Orthogonality::Plain { keep: false }] {
        let mut whole = Lanczos::<f64>::seeded(50, mode, 4, "start").unwrap();
        whole.run(&mut Laplacian(50), 20).unwrap();
        let mut part = Lanczos::<f64>::seeded(50, mode, 4, "start").unwrap();
        part.run(&mut Laplacian(50), 7).unwrap();
        let mut part = Lanczos::from_state(part.state()).unwrap();
        part.run(&mut Laplacian(50), 20).unwrap();
        assert_eq!(whole.state(), part.state());
    }
    let mut bad = Lanczos::<f64>::seeded(5, FULL, 4, "start").unwrap().state();
    bad.restarts.push(3);
    assert!(matches!(Lanczos::from_state(bad.clone()), Err(KrylovError::Setting { .. })));
    bad.vectors.pop();
    assert!(matches!(Lanczos::from_state(bad), Err(KrylovError::Dimension { .. })));
}

#[test]
fn a_failed_product_leaves_the_run_as_it_was() {
    for with in [Spoil::Nan, Spoil::Fail] {
        let mut whole = Lanczos::<f64>::seeded(9, FULL, 4, "start").unwrap();
        whole.run(&mut Laplacian(9), 6).unwrap();
        let mut op = Spoiled { op: Laplacian(9), at: 4, with, seen: 0 };
        let mut run = Lanczos::<f64>::seeded(9, FULL, 4, "start").unwrap();
        let error = run.run(&mut op, 6).unwrap_err();
        match with {
            Spoil::Nan => {
                assert!(
                    matches!(error, KrylovError::NonFinite { product: 4, at: 1, value } if value.is_nan())
                );
            }
            Spoil::Fail => {
                assert!(error.to_string().contains("product 4") && error.to_string().contains("interrupted"));
            }
        }
        assert_eq!(run.steps(), 3);
        run.run(&mut op, 6).unwrap();
        assert_eq!(run.state(), whole.state());
    }
}

#[test]
fn wrong_input_is_an_error() {
    assert!(matches!(Lanczos::new(&[0.0f64; 3], FULL, 0), Err(KrylovError::Start { .. })));
    assert!(matches!(Lanczos::new(&[f64::NAN], FULL, 0), Err(KrylovError::Start { .. })));
    assert!(matches!(Lanczos::<f64>::new(&[], FULL, 0), Err(KrylovError::Start { .. })));
    let mut run = Lanczos::<f64>::seeded(4, FULL, 0, "start").unwrap();
    assert!(run.run(&mut Laplacian(4), 5).unwrap_err().to_string().contains("the number of steps is 5"));
    assert!(matches!(run.run(&mut Laplacian(5), 3), Err(KrylovError::Dimension { len: 4, dim: 5, .. })));
    let mut huge = DenseOp::diagonal(&[1e200, 2e200, 1e200]);
    let mut run = Lanczos::new(&[1.0f64; 3], FULL, 0).unwrap();
    assert!(matches!(run.run(&mut huge, 2), Err(KrylovError::Coefficient { step: 1, .. })));
    assert!(DenseOp::new(vec![1.0f64; 3], 2).is_err());
}

#[test]
fn single_precision_stays_orthogonal_to_its_own_rounding() {
    let mut run = Lanczos::<f32>::seeded(300, FULL, 0, "start").unwrap();
    run.run(&mut Laplacian(300), 80).unwrap();
    assert!(run.basis().orthonormality_error() < 1e-6);
    let top = *run.ritz().unwrap().values().last().unwrap();
    assert!(top < 4.0 + 1e-5 && top > 3.99);
}

#[test]
fn asymmetry_is_measured() {
    let mut a = random_symmetric(20, 1);
    assert!(asymmetry(&mut a, 3, 0).unwrap() < 1e-15);
    let mut rows = a.rows().to_vec();
    rows[3] += 1.0;
    let mut b = DenseOp::new(rows, 20).unwrap();
    let measured = asymmetry(&mut b, 3, 0).unwrap();
    assert!(measured > 1e-4 && measured < 1.0);
    match check_symmetric(&mut b, 3, 0, 1e-8) {
        Err(KrylovError::Asymmetric { measured: m, .. }) => assert_eq!(m, measured),
        other => panic!("{other:?}"),
    }
    assert!(check_symmetric(&mut a, 3, 0, 1e-8).is_ok());
    assert!(matches!(asymmetry(&mut a, 0, 0), Err(KrylovError::Setting { .. })));
}

#[test]
fn qr_of_dependent_columns_is_orthonormal_and_gives_the_columns_back() {
    let mut rng = Rng::new(1);
    let u: Vec<f64> = (0..12).map(|_| rng.normal()).collect();
    let v: Vec<f64> = (0..12).map(|_| rng.normal()).collect();
    let sum: Vec<f64> = u.iter().zip(&v).map(|(u, v)| u - 2.0 * v).collect();
    let columns = vec![u, v, sum, vec![0.0; 12]];
    let (q, r) = qr(columns.clone(), 12, &mut rng);
    assert_eq!(q.len(), 4);
    assert!(q.orthonormality_error() < 1e-14);
    for j in 0..4 {
        assert!(r[j * 4 + j] > 0.0 && (j + 1..4).all(|i| r[i * 4 + j] == 0.0));
        let c: Vec<f64> = (0..4).map(|i| r[i * 4 + j]).collect();
        let back = q.combine(&c);
        assert!(back.iter().zip(&columns[j]).all(|(a, b)| (a - b).abs() < 1e-14 * 10.0));
    }
}
