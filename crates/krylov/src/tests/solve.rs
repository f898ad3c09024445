use super::*;

use crate::symmetric_eigen;
use crate::{KrylovError, RectOp, Stop, StopRule, Symmetric, cg, lsmr, minres, normal_vector};
use rhumb_linalg::vec::{dot, norm};

fn rule(relative: f64) -> StopRule {
    StopRule { relative, ..StopRule::default() }
}

/// `f(A) b` through the eigenvectors.
fn through(a: &DenseOp<f64>, n: usize, b: &[f64], f: impl Fn(f64) -> f64) -> Vec<f64> {
    let e = symmetric_eigen(a.rows(), n).unwrap();
    let mut out = vec![0.0; n];
    for k in 0..n {
        let c = f(e.values[k]) * dot(e.vector(k), b);
        out.iter_mut().zip(e.vector(k)).for_each(|(o, v)| *o += c * v);
    }
    out
}

fn close(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

#[test]
fn definite_systems_are_solved_by_all() {
    let values: Vec<f64> = (1..=40).map(|i| i as f64).collect();
    let mut a = with_spectrum(&values, 3);
    let b = normal_vector::<f64>(40, 0, "b");
    let want = through(&a, 40, &b, |l| 1.0 / l);
    for method in 0..3 {
        let mut x = vec![0.0; 40];
        let r = match method {
            0 => cg(&mut a, &b, &mut x, &rule(1e-12)),
            1 => minres(&mut a, &b, &mut x, &rule(1e-12)),
            _ => lsmr(&mut Symmetric(&mut a), &b, 0.0, &mut x, &rule(1e-12)),
        }
        .unwrap();
        assert_eq!(r.stop, Stop::Converged, "method {method}");
        assert!(close(&x, &want, 1e-10), "method {method}");
        assert!(r.residual <= 2e-12 * norm(&b));
        assert_eq!(r.residuals.len(), r.iterations + 1);
        assert_eq!(r.residuals[0], norm(&b));
        // The last residual of the recurrence is the one that is measured.
        assert!((r.residuals[r.iterations] - r.residual).abs() < 1e-12 * norm(&b));
    }
}

#[test]
fn few_distinct_eigenvalues_need_as_few_iterations() {
    let mut a = DenseOp::diagonal(&[2.0, 2.0, 5.0, 5.0, 9.0, 2.0]);
    let b = [1.0, -1.0, 2.0, 0.5, 1.0, 3.0];
    for method in [cg::<f64>, minres::<f64>] {
        let mut x = [0.0; 6];
        let r = method(&mut a, &b, &mut x, &rule(1e-10)).unwrap();
        assert_eq!((r.stop, r.iterations, r.products), (Stop::Converged, 3, 4));
        assert!(close(&x, &[0.5, -0.5, 0.4, 0.1, 1.0 / 9.0, 1.5], 1e-13));
    }
}

#[test]
fn conjugate_gradients_contract_at_least_as_their_bound() {
    let values: Vec<f64> = (0..80).map(|i| 1.0 + 99.0 * i as f64 / 79.0).collect();
    let mut a = DenseOp::diagonal(&values);
    let b = normal_vector::<f64>(80, 1, "b");
    let energy = |x: &[f64]| -> f64 {
        x.iter().zip(&b).zip(&values).map(|((x, b), l)| l * (x - b / l).powi(2)).sum::<f64>().sqrt()
    };
    let rho: f64 = (10.0 - 1.0) / (10.0 + 1.0);
    let zero = energy(&[0.0; 80]);
    for k in [1, 5, 10, 20] {
        let mut x = vec![0.0; 80];
        cg(&mut a, &b, &mut x, &StopRule { iterations: k, relative: 0.0, absolute: 0.0 }).unwrap();
        assert!(energy(&x) <= 2.0 * rho.powi(k as i32) * zero);
    }
}

#[test]
fn indefinite_systems_stop_cg_and_not_minres() {
    let values: Vec<f64> = (0..30).map(|i| if i < 3 { -4.0 - i as f64 } else { i as f64 }).collect();
    let mut a = with_spectrum(&values, 9);
    let b = normal_vector::<f64>(30, 2, "b");
    let mut x = vec![0.0; 30];
    let r = cg(&mut a, &b, &mut x, &rule(1e-10)).unwrap();
    match r.stop {
        Stop::Indefinite { iteration, curvature } => {
            assert!((-6.1..0.0).contains(&curvature) && iteration == r.iterations + 1);
        }
        other => panic!("{other}"),
    }
    assert!(r.stop.to_string().contains("MINRES"));
    let want = through(&a, 30, &b, |l| 1.0 / l);
    x.fill(0.0);
    let r = minres(&mut a, &b, &mut x, &rule(1e-12)).unwrap();
    assert_eq!(r.stop, Stop::Converged);
    assert!(close(&x, &want, 1e-9));
    assert!(r.residuals.windows(2).all(|w| w[1] <= w[0] * (1.0 + 1e-12)), "residuals rise");
}

#[test]
fn singular_systems_end_in_a_least_squares_solution() {
    let mut a = DenseOp::diagonal(&[0.0, 1.0, 2.0, 3.0, -1.0]);
    let b = [1.0, 1.0, 1.0, 1.0, 1.0];
    let mut x = [0.0; 5];
    let r = minres(&mut a, &b, &mut x, &rule(1e-10)).unwrap();
    assert_eq!(r.stop, Stop::LeastSquares);
    assert!((r.residual - 1.0).abs() < 1e-9 && close(&x[1..], &[1.0, 0.5, 1.0 / 3.0, -1.0], 1e-8));
    let r = lsmr(&mut Symmetric(&mut a), &b, 0.0, &mut x, &rule(1e-10)).unwrap();
    assert_eq!(r.stop, Stop::LeastSquares);
    assert!((r.residual - 1.0).abs() < 1e-9 && close(&x, &[0.0, 1.0, 0.5, 1.0 / 3.0, -1.0], 1e-8));
}

/// A tall matrix, row-major.
struct Tall(Vec<f64>, usize, usize);

impl RectOp<f64> for Tall {
    fn rows(&self) -> usize {
        self.1
    }
    fn cols(&self) -> usize {
        self.2
    }
    fn apply(&mut self, v: &[f64], out: &mut [f64]) -> Result<(), OpError> {
        out.iter_mut().zip(self.0.chunks(self.2)).for_each(|(o, row)| *o = dot(row, v));
        Ok(())
    }
    fn apply_transpose(&mut self, v: &[f64], out: &mut [f64]) -> Result<(), OpError> {
        out.fill(0.0);
        for (row, v) in self.0.chunks(self.2).zip(v) {
            out.iter_mut().zip(row).for_each(|(o, a)| *o += a * v);
        }
        Ok(())
    }
}

#[test]
fn least_squares_match_the_normal_equations() {
    let (rows, cols) = (30, 8);
    let mut a = Tall(normal_vector(rows * cols, 5, "a"), rows, cols);
    let b = normal_vector::<f64>(rows, 6, "b");
    for damp in [0.0, 0.7] {
        let mut normal = vec![0.0; cols * cols];
        for i in 0..cols {
            for j in 0..cols {
                let x: f64 = (0..rows).map(|r| a.0[r * cols + i] * a.0[r * cols + j]).sum();
                normal[i * cols + j] = x + damp * damp * f64::from(u8::from(i == j));
            }
        }
        let mut atb = vec![0.0; cols];
        a.apply_transpose(&b, &mut atb).unwrap();
        let want = through(&DenseOp::new(normal, cols).unwrap(), cols, &atb, |l| 1.0 / l);
        let mut x = vec![0.0; cols];
        let r = lsmr(&mut a, &b, damp, &mut x, &rule(1e-12)).unwrap();
        assert_eq!(r.stop, Stop::LeastSquares);
        assert!(close(&x, &want, 1e-10), "damp {damp}");
        let whole = r.residual.hypot(damp * norm(&x));
        assert!((r.residuals[r.iterations] - whole).abs() < 1e-10 * whole);
    }
}

#[test]
fn what_goes_wrong_is_told() {
    let b = [1.0f64; 50];
    let mut x = [0.0; 50];
    let few = StopRule { iterations: 3, ..StopRule::default() };
    let r = cg(&mut Laplacian(50), &b, &mut x, &few).unwrap();
    assert_eq!((r.stop, r.iterations), (Stop::Limit, 3));
    // The recurrence may promise more than single precision can hold.
    let (b, mut y) = (normal_vector::<f32>(50, 0, "b"), [0.0f32; 50]);
    let r = cg(&mut Laplacian(50), &b, &mut y, &rule(1e-12)).unwrap();
    assert_eq!(r.stop, Stop::Drifted);
    assert!(r.residuals[r.iterations] < 1e-11 && r.residual > 1e-6 && r.residual < 1e-2, "{}", r.residual);
    let b = [1.0f64; 50];
    let mut op = Spoiled { op: Laplacian(50), at: 3, with: Spoil::Nan, seen: 0 };
    x.fill(0.0);
    assert!(matches!(minres(&mut op, &b, &mut x, &few), Err(KrylovError::NonFinite { product: 3, .. })));
    let mut op = Spoiled { op: Laplacian(50), at: 2, with: Spoil::Fail, seen: 0 };
    assert!(matches!(cg(&mut op, &b, &mut x, &few), Err(KrylovError::Operator { product: 1 | 2, .. })));
    let mut op = Spoiled { op: Laplacian(50), at: 2, with: Spoil::Nan, seen: 0 };
    let got = lsmr(&mut Symmetric(&mut op), &b, 0.0, &mut x, &few);
    assert!(matches!(got, Err(KrylovError::NonFinite { product: 2, .. })));
}

#[test]
fn an_overflow_is_an_error() {
    let mut huge = DenseOp::diagonal(&[1e200, 2e200, -3e200]);
    let (b, mut x) = ([1e100f64, 1.0, 1e100], [0.0; 3]);
    let rule = rule(1e-8);
    let overflow = |e| matches!(e, Err(KrylovError::Coefficient { step: 1, .. }));
    assert!(overflow(cg(&mut huge, &b, &mut x, &rule)));
    assert!(overflow(minres(&mut huge, &b, &mut x, &rule)));
    assert!(overflow(lsmr(&mut Symmetric(&mut huge), &b, 0.0, &mut x, &rule)));
}

#[test]
fn wrong_input_is_an_error_and_zero_is_solved_at_once() {
    let mut x = [0.0f64; 4];
    let mut op = Laplacian(4);
    assert!(matches!(
        cg(&mut op, &[1.0; 3], &mut x, &rule(0.1)),
        Err(KrylovError::Dimension { what: "b", .. })
    ));
    assert!(matches!(
        minres(&mut op, &[1.0; 4], &mut x[..2], &rule(0.1)),
        Err(KrylovError::Dimension { .. })
    ));
    assert!(matches!(
        cg(&mut op, &[f64::NAN; 4], &mut x, &rule(0.1)),
        Err(KrylovError::Start { what: "b", .. })
    ));
    assert!(matches!(cg(&mut op, &[1.0; 4], &mut x, &rule(-1.0)), Err(KrylovError::Setting { .. })));
    let mut s = Symmetric(&mut op);
    assert!(matches!(lsmr(&mut s, &[1.0; 4], -1.0, &mut x, &rule(0.1)), Err(KrylovError::Setting { .. })));
    for method in [cg::<f64>, minres::<f64>] {
        let r = method(&mut Laplacian(4), &[0.0; 4], &mut x, &rule(0.1)).unwrap();
        assert_eq!((r.stop, r.iterations, r.products), (Stop::Converged, 0, 0));
    }
    // A good guess is used.
    let mut guess = [2.0, 3.0, 3.0, 2.0];
    let r = cg(&mut Laplacian(4), &[1.0; 4], &mut guess, &rule(1e-12)).unwrap();
    assert_eq!((r.stop, r.iterations), (Stop::Converged, 0));
}
