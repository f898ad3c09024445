#![allow(clippy::float_cmp, reason = "exact values")]

use super::*;
use crate::DenseOp;
use crate::symmetric_eigen;
use crate::tests::{Laplacian, Spoil, Spoiled, random_symmetric, with_spectrum};

fn options(steps: usize, starts: usize) -> SlqOptions {
    SlqOptions { steps, starts, ..SlqOptions::default() }
}

fn exact(eigenvalues: &[f64]) -> Spectrum {
    Spectrum { runs: vec![Quadrature::exact(eigenvalues)] }
}

#[test]
fn three_values_give_a_known_peak() {
    let mut a = DenseOp::diagonal(&[1.0, 2.0, 3.0]);
    let mut run = Lanczos::new(&[1.0f64; 3], Orthogonality::Full, 0).unwrap();
    run.run(&mut a, 3).unwrap();
    let rule = Quadrature::of(&run).unwrap();
    for k in 0..3 {
        assert!(
            (rule.nodes[k] - (k + 1) as f64).abs() < 1e-12 && (rule.weights[k] - 1.0 / 3.0).abs() < 1e-12
        );
    }
    let sigma = 1e-5f64.sqrt();
    // Points at one, and every half width.
    let grid = Grid::new(0.0, 4.0, 4001).unwrap();
    let density = Spectrum { runs: vec![rule] }.density(&grid, sigma).unwrap();
    assert!((density.values[1000] - 42.0522).abs() < 42.0522e-4, "{}", density.values[1000]);
}

#[test]
fn moments_are_those_of_the_matrix() {
    let n = 30;
    let mut a = random_symmetric(n, 5);
    let values = symmetric_eigen(a.rows(), n).unwrap().values;
    let spectrum = slq(&mut a, &options(4, 300)).unwrap();
    assert_eq!(spectrum.moment(0).0, spectrum.apply(|_| 1.0).0);
    assert!((spectrum.moment(0).0 - 1.0).abs() < 1e-12);
    for k in 1..=7 {
        let want = values.iter().map(|v| v.powi(k as i32)).sum::<f64>() / n as f64;
        let (got, error) = spectrum.moment(k);
        assert!((got - want).abs() < 4.0 * error.unwrap(), "{k}: {got} {want}");
    }
    let rule = Quadrature::exact(&values);
    assert!((rule.moment(2) - values.iter().map(|v| v * v).sum::<f64>() / 30.0).abs() < 1e-12);
}

#[test]
fn a_breakdown_gives_fewer_nodes_with_all_the_weight() {
    let mut one = DenseOp::diagonal(&[1.0f64; 25]);
    let rule = quadrature(&mut one, &options(10, 1), 0).unwrap();
    assert!(
        rule.nodes.len() == 1 && (rule.nodes[0] - 1.0).abs() < 1e-15 && (rule.weights[0] - 1.0).abs() < 1e-15
    );

    let values: Vec<f64> = (0..60).map(|i| if i < 30 { 1.0 } else { 5.0 }).collect();
    let mut two = with_spectrum(&values, 2);
    let spectrum = slq(&mut two, &options(20, 20)).unwrap();
    assert!(spectrum.runs.iter().all(|r| r.nodes.len() == 2));
    let low = spectrum.runs.iter().map(|r| r.weights[0]).sum::<f64>() / 20.0;
    assert!((low - 0.5).abs() < 0.15);
    let density = spectrum.density(&spectrum.grid(0.1).unwrap(), 0.1).unwrap();
    let peak = |from: f64, to: f64| {
        let inside = (0..density.grid.points).filter(|&i| (from..to).contains(&density.grid.at(i)));
        density.grid.at(inside.max_by(|&a, &b| density.values[a].total_cmp(&density.values[b])).unwrap())
    };
    assert!((peak(-1.0, 3.0) - 1.0).abs() < 0.05 && (peak(3.0, 7.0) - 5.0).abs() < 0.05);

    // What follows a restart is orthogonal to the start, and has no weight.
    let mut run = start::<f64>(60, &options(20, 1), 0).unwrap();
    run.run_through(&mut two, 20).unwrap();
    assert_eq!(Quadrature::of(&run).unwrap(), quadrature(&mut two, &options(20, 1), 0).unwrap());
}

#[test]
fn the_density_integrates_to_one_and_is_near_the_exact_one() {
    let n = 200;
    let mut a = random_symmetric(n, 9);
    let values = symmetric_eigen(a.rows(), n).unwrap().values;
    let spectrum = slq(&mut a, &options(80, 50)).unwrap();
    for sigma in [0.5, 2.0] {
        let grid = spectrum.grid(sigma).unwrap();
        assert!(grid.step <= 0.25 * sigma);
        let density = spectrum.density(&grid, sigma).unwrap();
        assert!((density.integral() - 1.0).abs() < 1e-6);
        let far = density.l1(&exact(&values).density(&grid, sigma).unwrap()).unwrap();
        if sigma > 1.0 {
            assert!(far < 0.05, "{far}");
        }
        // One start vector is farther than fifty.
        let one = Spectrum { runs: spectrum.runs[..1].to_vec() }.density(&grid, sigma).unwrap();
        assert!(one.l1(&exact(&values).density(&grid, sigma).unwrap()).unwrap() > far);
    }
    let (low, high) = spectrum.range();
    assert!(low >= values[0] - 1e-9 && high <= values[n - 1] + 1e-9);
}

#[test]
fn a_uniform_spectrum_looks_flat() {
    let values: Vec<f64> = (0..200).map(|i| 10.0 * f64::from(i) / 199.0).collect();
    let mut a = with_spectrum(&values, 1);
    let spectrum = slq(&mut a, &options(80, 10)).unwrap();
    let density = spectrum.density(&spectrum.grid(0.3).unwrap(), 0.3).unwrap();
    let inside = (0..density.grid.points).filter(|&i| (1.0..9.0).contains(&density.grid.at(i)));
    let least = inside.map(|i| density.values[i]).fold(f64::INFINITY, f64::min);
    let most = density.values.iter().copied().fold(0.0, f64::max);
    assert!(least > 0.5 * most, "{least} {most}");
}

#[test]
fn logarithms_spread_what_lies_near_zero() {
    let spectrum = exact(&[1e-6, -1e-3, 10.0, 0.0]);
    let grid = spectrum.log_grid(0.05, 1e-8).unwrap();
    let density = spectrum.log_density(&grid, 0.05, 1e-8).unwrap();
    assert!((density.integral() - 1.0).abs() < 1e-6);
    for centre in [-6.0f64, -3.0, 1.0, -8.0] {
        let near = (0..grid.points).filter(|&i| (grid.at(i) - centre).abs() < 0.4);
        let mass: f64 = near.map(|i| density.values[i]).sum::<f64>() * grid.step;
        assert!((mass - 0.25).abs() < 1e-6, "{centre}: {mass}");
    }
    assert!(matches!(spectrum.log_density(&grid, 0.05, 0.0), Err(KrylovError::Setting { .. })));
    assert!(matches!(spectrum.log_grid(0.05, -1.0), Err(KrylovError::Setting { .. })));
}

#[test]
fn distances_have_their_ends() {
    let (p, q) = (exact(&[0.0]), exact(&[10.0]));
    let grid = Grid::covering(0.0, 10.0, 0.2).unwrap();
    let (p, q) = (p.density(&grid, 0.2).unwrap(), q.density(&grid, 0.2).unwrap());
    assert_eq!(p.l1(&p).unwrap(), 0.0);
    assert!((p.l1(&q).unwrap() - 2.0).abs() < 1e-6);
    let other = Grid { points: grid.points - 1, ..grid };
    let r = exact(&[0.0]).density(&other, 0.2).unwrap();
    assert!(matches!(p.l1(&r), Err(KrylovError::Grid)));
    let half = Density { values: p.values.iter().map(|v| 0.5 * v).collect(), ..p.clone() };
    assert!((half.normalised().integral() - 1.0).abs() < 1e-12);
}

#[test]
fn runs_depend_on_the_seed_and_their_number_alone() {
    let a = slq::<f64>(&mut Laplacian(40), &options(10, 3)).unwrap();
    let b = slq::<f64>(&mut Laplacian(40), &options(10, 5)).unwrap();
    assert_eq!(a.runs, b.runs[..3]);
    assert_ne!(a.runs[0], a.runs[1]);
    let other = slq::<f64>(&mut Laplacian(40), &SlqOptions { seed: 1, ..options(10, 3) }).unwrap();
    assert_ne!(a.runs, other.runs);
    // Step by step with a state that is saved in between.
    let mut run = start::<f64>(40, &options(10, 3), 2).unwrap();
    while run.steps() < 10 {
        run.step(&mut Laplacian(40)).unwrap();
        run = Lanczos::from_state(run.state()).unwrap();
    }
    assert_eq!(Quadrature::of(&run).unwrap(), a.runs[2]);
}

#[test]
fn wrong_input_is_an_error() {
    let setting = |e: Result<Spectrum, KrylovError>| matches!(e, Err(KrylovError::Setting { .. }));
    assert!(setting(slq::<f64>(&mut Laplacian(5), &options(6, 1))));
    assert!(setting(slq::<f64>(&mut Laplacian(5), &options(0, 1))));
    assert!(setting(slq::<f64>(&mut Laplacian(5), &options(3, 0))));
    let mut op = Spoiled { op: Laplacian(9), at: 5, with: Spoil::Nan, seen: 0 };
    // The first product of the second start vector is number 1 of its run; the fifth of all.
    assert!(matches!(slq(&mut op, &options(4, 2)), Err(KrylovError::NonFinite { product: 1, at: 1, .. })));
    assert!(Quadrature::of(&start::<f64>(4, &options(2, 1), 0).unwrap()).is_err());
    let spectrum = exact(&[0.0, 1.0]);
    let coarse = Grid::new(-1.0, 2.0, 11).unwrap();
    let error = spectrum.density(&coarse, 0.1).unwrap_err().to_string();
    assert!(error.contains("half of the smoothing width"), "{error}");
    assert!(spectrum.density(&coarse, 0.0).is_err() && spectrum.density(&coarse, f64::NAN).is_err());
    assert!(Spectrum::default().density(&coarse, 1.0).is_err());
    assert!(Grid::new(0.0, 0.0, 5).is_err() && Grid::new(0.0, 1.0, 1).is_err());
    let error = Grid::covering(0.0, 1e9, 1e-3).unwrap_err().to_string();
    assert!(error.contains("or more for eigenvalues"), "{error}");
    assert!(Grid::covering(0.0, f64::INFINITY, 1.0).is_err());
}
